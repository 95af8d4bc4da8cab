"""Auto-regressive dynamics: a causal transformer that predicts one step from all steps before it.

It learns by teacher forcing, each step given the true states up to it, and is unrolled on its own predictions, so that
errors compound as in single-step models; but it can read the history of a plan. One of the dynamics models that D-MPC
is compared with; size and training are ours.

Shapes: n sequences (B states with N candidates each), F steps, S numbers in a state, A in an action, D width.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minilab.dmpc.baselines.common import learn_model
from minilab.dmpc.data import Episodes, Scales, Window
from minilab.dmpc.learn import Recipe
from minilab.dmpc.models import ModelConfig
from minilab.dmpc.networks import NetworkConfig
from minilab.nn.adaln import AdaLNBlock, positions

SMALL = NetworkConfig("transformer", width=96, layers=2, heads=4, hidden=384)  # two cores train it in minutes


class AutoRegressive(nn.Module):
    """s_{t+1} = s_t + f(s_0..s_t, a_0..a_t), with what `Dynamics` offers: `training_loss` and `predict`."""

    def __init__(self, config: ModelConfig, S: int, A: int, scales: Scales) -> None:
        super().__init__()
        self.config, net, D = config, config.network, config.network.width
        self.enter, self.first = nn.Linear(S + A, D), nn.Linear(S, D)
        self.blocks = nn.ModuleList(AdaLNBlock(D, net.heads, net.hidden, D, causal=True) for _ in range(net.layers))
        self.norm, self.leave = nn.LayerNorm(D), nn.Linear(D, S)
        self.register_buffer("place", positions(config.span, D), persistent=False)
        for name, scale in (("mean", scales.mean), ("std", scales.std), ("change", scales.change[0])):
            self.register_buffer(name, scale.clone())
        shown = torch.ones(S)
        shown[list(config.hidden)] = 0  # of the present state alone: those after it are the model's own
        self.register_buffer("shown", shown, persistent=False)

    def forward(self, states: Float[Tensor, "n T S"], actions: Float[Tensor, "n T A"]) -> Float[Tensor, "n T S"]:
        """For each step the state after it, given the states and actions up to it."""
        normal = (states - self.mean) / self.std
        normal = torch.cat((self.shown * normal[:, :1], normal[:, 1:]), dim=1)
        tokens = self.enter(torch.cat((normal, actions), dim=2)) + self.place[: states.shape[1]]  # n T D
        condition = self.first(normal[:, 0])
        for block in self.blocks:
            tokens = block(tokens, condition)
        return states + self.leave(self.norm(tokens)).clamp(-self.config.clip, self.config.clip) * self.change

    def training_loss(self, window: Window, generator: torch.Generator | None) -> Float[Tensor, ""]:
        """Squared error of all steps at once, each given the truth before it."""
        before = torch.cat((window.state[:, None], window.states[:, :-1]), dim=1)
        return ((self(before, window.actions) - window.states) / self.change).square().mean()

    def predict(self, state: Float[Tensor, "B S"], actions: Float[Tensor, "B N F A"],
                generator: torch.Generator | None = None) -> Float[Tensor, "B N F S"]:
        """Unrolled step by step; after `span` steps it forgets and starts anew from where it is."""
        B, N, F, A = actions.shape
        now = state.repeat_interleave(N, dim=0)[:, None]  # BN 1 S
        out = []
        for along in actions.reshape(B * N, F, A).split(self.config.span, dim=1):
            seen = now
            for t in range(along.shape[1]):
                seen = torch.cat((seen, self(seen, along[:, : t + 1])[:, -1:]), dim=1)
            out.append(seen[:, 1:])
            now = seen[:, -1:]
        return torch.cat(out, dim=1).view(B, N, F, -1)


def learn_autoregressive(episodes: Episodes, recipe: Recipe, network: NetworkConfig | None = None, **options
                         ) -> AutoRegressive:
    """Train it by the recipe, as large as the recipe's own transformer if it has one, else `SMALL`."""
    own = recipe.dynamics.network
    network = network or (own if own.kind == "transformer" else SMALL)
    config = ModelConfig(recipe.F, network, diffusion=False, clip=recipe.dynamics.clip,
                         hidden=recipe.dynamics.hidden)
    return learn_model(lambda S, A, scales, _: AutoRegressive(config, S, A, scales), episodes, recipe, **options)
