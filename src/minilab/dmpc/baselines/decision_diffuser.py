"""Decision Diffuser (Ajay et al., 2023): imagine the states of a good future, then ask which actions lead through them.

Two models. A diffusion model of the states alone, p(s_{t+1:t+F} | s_t, R), is told what the window scores; an inverse
model a_t = f(s_t, s_{t+1}) reads off actions. To act, ask for a high score R. Classifier-free guidance (Ho and
Salimans, 2022) exaggerates what the score changes: with weight w the estimate of the clean block is

    x_0 = x_0(without R) + w (x_0(given R) - x_0(without R)).

- As its published code has them: R is hidden in a quarter of the training, w = 1.2, and 0.9 of the best R is asked for.
- Ours: estimates of x_0 instead of noise, the states in D-MPC's units, and R = J(window) for an objective J, less its
  mean and in units of its spread over the data. J is an argument of the training: another one is another training.

Shapes: B windows or states, F steps, S numbers in a state, A in an action.
"""

from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minilab.dmpc.baselines.common import Chunked, learn_model, spaced
from minilab.dmpc.data import Episodes, Scales, Window, Windows
from minilab.dmpc.learn import Recipe
from minilab.dmpc.models import ModelConfig
from minilab.dmpc.networks import ResidualMLP
from minilab.nn.diffusion import cosine_schedule, denoising_loss, sample
from minilab.planning.rank import Objective


class StateDiffusion(nn.Module):
    """p(s_{t+1:t+F} | s_t, R) and the inverse model f(s_t, s_{t+1})."""

    def __init__(self, config: ModelConfig, S: int, A: int, scales: Scales, objective: Objective, *,
                 dropout: float = 0.25) -> None:
        super().__init__()
        self.config, self.objective, self.dropout = config, objective, dropout
        self.network = config.network.build(config.span, S, S + 2)  # besides s_t: R, and whether it is given
        self.inverse = ResidualMLP(2 * S, 256, 2, A)
        self.register_buffer("abar", cosine_schedule(config.levels))
        for name, scale in (("mean", scales.mean), ("std", scales.std), ("change", scales.change)):
            self.register_buffer(name, scale.clone())
        self.register_buffer("unit", torch.tensor([0.0, 1.0]))  # mean and spread of the scores
        self.register_buffer("range", torch.tensor([0.0, 1.0]))  # the worst and the best

    def fit_scores(self, windows: Windows) -> None:
        """Read off what the data score."""
        scores = self._score(spaced(windows))
        self.unit.copy_(torch.stack((scores.mean(), scores.std().clamp(min=1e-6))))
        self.range.copy_(torch.stack((scores.min(), scores.max())))

    def asked(self, target: float) -> Float[Tensor, ""]:
        """R for a share of the way from the data's worst score to its best."""
        return (self.range[0] + target * (self.range[1] - self.range[0]) - self.unit[0]) / self.unit[1]

    def training_loss(self, window: Window, generator: torch.Generator | None) -> Float[Tensor, ""]:
        """Errors of the denoised states and of the first action, summed."""
        clip, B = self.config.clip, len(window.state)
        R = (self._score(window) - self.unit[0]) / self.unit[1]
        given = torch.rand(B, generator=generator, device=R.device) >= self.dropout
        moved = ((window.states - window.state[:, None]) / self.change).clamp(-clip, clip)
        denoiser = partial(self._network, state=window.state, R=R, given=given)
        action = self.act_between(window.state, window.states[:, 0])
        return denoising_loss(denoiser, moved, self.abar, generator) + (action - window.actions[:, 0]).square().mean()

    def estimate(self, x: Float[Tensor, "B F S"], k: Int[Tensor, "B"], *, state: Float[Tensor, "B S"],
                 R: Float[Tensor, "B"], weight: float) -> Float[Tensor, "B F S"]:
        """x_0 under guidance: weight 0 ignores R, 1 is told R, more exaggerates it."""
        twice = partial(torch.cat, dim=0)
        given = torch.arange(2, device=x.device).repeat_interleave(len(x)).bool()
        without, told = self._network(twice((x, x)), twice((k, k)), state=twice((state, state)), R=twice((R, R)),
                                      given=given).chunk(2)
        return without + weight * (told - without)

    @torch.no_grad()
    def imagine(self, state: Float[Tensor, "B S"], *, target: float, weight: float,
                generator: torch.Generator | None = None) -> Float[Tensor, "B F1 S"]:
        """s_t and one future of it that should score what `target` asks."""
        R, c = self.asked(target).expand(len(state)), self.config
        denoiser = partial(self.estimate, state=state, R=R, weight=weight)
        moved = sample(denoiser, (len(state), *self.change.shape), self.abar, steps=c.steps, eta=c.eta, clip=c.clip,
                       generator=generator)
        return torch.cat((state[:, None], state[:, None] + moved * self.change), dim=1)

    def act_between(self, state: Float[Tensor, "*b S"], after: Float[Tensor, "*b S"]) -> Float[Tensor, "*b A"]:
        """The action that leads from one state to the next."""
        moved = ((after - state) / self.change[0]).clamp(-self.config.clip, self.config.clip)
        return self.inverse(torch.cat(((state - self.mean) / self.std, moved), dim=-1))

    def _network(self, x: Tensor, k: Tensor, *, state: Tensor, R: Tensor, given: Bool[Tensor, "B"]) -> Tensor:
        told = torch.stack((R * given, given.to(R.dtype)), dim=1)
        return self.network(x, k, torch.cat(((state - self.mean) / self.std, told), dim=1))

    @torch.no_grad()
    def _score(self, window: Window) -> Float[Tensor, "B"]:
        return self.objective(torch.cat((window.state[:, None], window.states), dim=1), window.actions)


def learn_decision_diffuser(episodes: Episodes, recipe: Recipe, objective: Objective, **options) -> StateDiffusion:
    """Train both models by the recipe, told what each window scores."""

    def build(S: int, A: int, scales: Scales, windows: Windows) -> StateDiffusion:
        model = StateDiffusion(recipe.dynamics, S, A, scales, objective).to(windows.index.device)
        model.fit_scores(windows)
        return model

    return learn_model(build, episodes, recipe, **options)


def decision_diffuser(model: StateDiffusion, *, target: float = 0.9, weight: float = 1.2, every: int = 1, seed: int = 0
                      ) -> Chunked:
    """Decision Diffuser as a controller; `target` is the score to ask for, from the data's worst 0 to its best 1."""
    generator = torch.Generator(model.mean.device).manual_seed(seed)

    def plan(state: Float[Tensor, "B S"]) -> Float[Tensor, "B F A"]:
        states = model.imagine(state, target=target, weight=weight, generator=generator)
        return model.act_between(states[:, :-1], states[:, 1:]).clamp(-1, 1)

    return Chunked(plan, every=every, device=model.mean.device)
