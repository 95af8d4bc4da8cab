"""What D-MPC learns: a proposal of actions, a model of what they lead to, and a value of where that ends.

Zhou et al. (2025). The joint law of a piece of trajectory is factorized,

    p(s_{t+1:t+F}, a_{t:t+F-1} | s_t) = rho(a_{t:t+F-1} | s_t) p_d(s_{t+1:t+F} | s_t, a_{t:t+F-1}),

and each factor is a diffusion model of a whole block, so that one of them can be exchanged or taught anew without the
other. Notable, and our choices:

- The networks estimate the clean block (`nn/diffusion.py` says why). Actions lie in [-1, 1] and so do the estimates.
- The dynamics predict how far the state has moved after k = 1..F steps, in units of how far it usually moves by then.
- `diffusion=False` is the same network without noise, trained to the mean of the block; `span=1` is the same
  network for one step, applied F times. They are what the ablations exchange.

Shapes: B states, N candidates each, F steps, S numbers in a state, A in an action.
"""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minilab.dmpc.data import Scales, Window
from minilab.dmpc.networks import NetworkConfig, ResidualMLP
from minilab.nn.diffusion import cosine_schedule, denoising_loss, sample


@dataclass(frozen=True)
class ModelConfig:
    """How a block is modeled."""

    span: int  # steps of a block; a longer horizon chains blocks
    network: NetworkConfig = NetworkConfig()
    diffusion: bool = True  # else regression to the mean
    levels: int = 50  # K
    steps: int = 10  # calls of the network for a sample
    eta: float = 1.0  # 1 draws like DDPM, 0 like DDIM
    clip: float = 1.0  # bound of the estimates
    hidden: tuple[int, ...] = ()  # numbers of the present state that the model is not shown


class BlockModel(nn.Module):
    """p(block | state, along): diffusion, or its mean."""

    def __init__(self, config: ModelConfig, X: int, S: int, Y: int, scales: Scales) -> None:
        super().__init__()
        self.config, self.X = config, X
        self.network = config.network.build(config.span, X, S, Y)
        self.register_buffer("abar", cosine_schedule(config.levels))
        self.register_buffer("mean", scales.mean.clone())
        self.register_buffer("std", scales.std.clone())
        shown = torch.ones(S)
        shown[list(config.hidden)] = 0
        self.register_buffer("shown", shown, persistent=False)

    def loss(self, block: Float[Tensor, "B F X"], state: Float[Tensor, "B S"], along: Float[Tensor, "B F Y"] | None,
             generator: torch.Generator | None) -> Float[Tensor, ""]:
        given = self._given(state, along)
        if self.config.diffusion:
            return denoising_loss(given, block, self.abar, generator)
        return (self._regress(given, len(block)) - block).square().mean()

    def draw(self, state: Float[Tensor, "n S"], along: Float[Tensor, "n F Y"] | None,
             generator: torch.Generator | None) -> Float[Tensor, "n F X"]:
        """One block for each state."""
        given, c = self._given(state, along), self.config
        if not c.diffusion:
            return self._regress(given, len(state)).clamp(-c.clip, c.clip)
        return sample(given, (len(state), c.span, self.X), self.abar, steps=c.steps, eta=c.eta, clip=c.clip,
                      generator=generator)

    def _given(self, state: Tensor, along: Tensor | None) -> partial:
        return partial(self.network, state=self.shown * (state - self.mean) / self.std, along=along)

    def _regress(self, given: partial, n: int) -> Tensor:
        """The network at pure noise, with the noise left out."""
        block = torch.zeros(n, self.config.span, self.X, device=self.abar.device)
        return given(block, torch.full((n,), len(self.abar) - 1, device=self.abar.device))


class Proposal(BlockModel):
    """rho(a_{t:t+F-1} | s_t)."""

    def __init__(self, config: ModelConfig, S: int, A: int, scales: Scales) -> None:
        super().__init__(config, A, S, 0, scales)

    def training_loss(self, window: Window, generator: torch.Generator | None) -> Float[Tensor, ""]:
        return self.loss(window.actions, window.state, None, generator)

    def propose(self, state: Float[Tensor, "B S"], n: int, generator: torch.Generator | None = None
                ) -> Float[Tensor, "B N F A"]:
        """n blocks of actions for each state."""
        drawn = self.draw(state.repeat_interleave(n, dim=0), None, generator)
        return drawn.view(len(state), n, *drawn.shape[1:])


class Dynamics(BlockModel):
    """p_d(s_{t+1:t+F} | s_t, a_{t:t+F-1})."""

    def __init__(self, config: ModelConfig, S: int, A: int, scales: Scales) -> None:
        super().__init__(config, S, S, A, scales)
        # Flat, since what has rows is taken for a matrix when weights are stored in 8 bits, and scales must not be.
        self.register_buffer("changes", scales.change[: config.span].flatten())

    @property
    def change(self) -> Float[Tensor, "F S"]:
        """The spread of how far each number moves in 1..F steps: the unit of what the network predicts."""
        return self.changes.view(-1, self.X)

    def training_loss(self, window: Window, generator: torch.Generator | None) -> Float[Tensor, ""]:
        moved = ((window.states - window.state[:, None]) / self.change).clamp(-self.config.clip, self.config.clip)
        return self.loss(moved, window.state, window.actions, generator)

    def predict(self, state: Float[Tensor, "B S"], actions: Float[Tensor, "B N F A"],
                generator: torch.Generator | None = None) -> Float[Tensor, "B N F S"]:
        """One outcome for each block of actions, `span` steps at a time, each block from where the last one ended.

        Raises ValueError if F is no multiple of the span.
        """
        B, N, F, A = actions.shape
        if F % self.config.span:
            raise ValueError(f"a horizon of {F} steps is no multiple of the model's {self.config.span}")
        now = state.repeat_interleave(N, dim=0)  # BN S
        blocks = []
        for along in actions.reshape(B * N, F, A).split(self.config.span, dim=1):
            moved = self.draw(now, along, generator) * self.change
            blocks.append(now[:, None] + moved)
            now = blocks[-1][:, -1]
        return torch.cat(blocks, dim=1).view(B, N, F, -1)


class Value(nn.Module):
    """The discounted return that the data's policies earned from a state on: what lies beyond a plan's end."""

    def __init__(self, S: int, scales: Scales, *, width: int = 256, layers: int = 2) -> None:
        super().__init__()
        self.network = ResidualMLP(S, width, layers, 1)
        self.register_buffer("mean", scales.mean.clone())
        self.register_buffer("std", scales.std.clone())
        self.register_buffer("unit", torch.ones(2))  # mean and spread of the returns

    def fit_unit(self, returns: Float[Tensor, "n"]) -> None:
        """Set the units in which returns are learned."""
        self.unit.copy_(torch.stack((returns.mean(), returns.std().clamp(min=1e-3))))

    def forward(self, state: Float[Tensor, "*b S"]) -> Float[Tensor, "*b"]:
        # Beyond what the data span a network extrapolates: keep predicted states within six spreads.
        normal = ((state - self.mean) / self.std).clamp(-6, 6)
        return self.unit[0] + self.unit[1] * self.network(normal)[..., 0]

    def training_loss(self, state: Float[Tensor, "B S"], returns: Float[Tensor, "B"]) -> Float[Tensor, ""]:
        return ((self(state) - returns) / self.unit[1]).square().mean()
