"""Diffuser (Janner et al., 2022): states and actions as one diffusion model, steered by a gradient while it samples.

A block holds (s_i, a_i) for i = 0..F, and the present state is written over s_0 before each call of the network and
after each step. The guide is the gradient of any differentiable objective J, taken within the sampling: at level k

    x_k <- x_k + scale * sigma_k^2 * grad J(x_k),    then an ordinary step to x_{k-1},

where sigma_k^2 is the variance of that step. N trajectories are drawn so, and the one that J ranks first is run.

- As its published code has them: estimates of x_0, 20 levels, 2 guide steps at each level but the last 2, a weight of
  10 on the first action's error.
- Ours: J is asked of the estimated clean trajectory, grad J(x_0(x_k)), the derivative taken through the network. The
  published guide is a value network trained on noisy trajectories, which would be a new training for each new reward.
  And J is measured in units of its spread over the data, so that one scale suits all objectives.

Shapes: n trajectories (B states with N candidates each), F steps, S numbers in a state, A in an action, K levels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minilab.core.replay import replayed
from minilab.dmpc.baselines.common import Chunked, learn_model, spaced
from minilab.dmpc.data import Episodes, Scales, Window, Windows
from minilab.dmpc.learn import Recipe
from minilab.dmpc.models import ModelConfig
from minilab.nn.diffusion import add_noise, cosine_schedule, sampling_levels
from minilab.planning.rank import Objective, Plans, checked


class Joint(nn.Module):
    """p(s_{t:t+F}, a_{t:t+F} | s_t) over the `span` = F + 1 pairs of a block; states are in units of their spread."""

    def __init__(self, config: ModelConfig, S: int, A: int, scales: Scales, *, first_action: float = 10.0) -> None:
        super().__init__()
        self.config, self.S, self.A = config, S, A
        self.network = config.network.build(config.span, S + A, S)
        self.register_buffer("abar", cosine_schedule(config.levels))
        self.register_buffer("mean", scales.mean.clone())
        self.register_buffer("std", scales.std.clone())
        self.register_buffer("bound", torch.cat((torch.full((S,), config.clip), torch.ones(A))))
        weight = torch.ones(config.span, S + A)
        weight[0, S:] = first_action
        self.register_buffer("weight", weight)

    def training_loss(self, window: Window, generator: torch.Generator | None) -> Float[Tensor, ""]:
        states = torch.cat((window.state[:, None], window.states[:, :-1]), dim=1)
        x0 = torch.cat(((states - self.mean) / self.std, window.actions), dim=2)  # B F+1 S+A
        k = torch.randint(len(self.abar), (len(x0),), generator=generator, device=x0.device)
        noise = torch.empty_like(x0).normal_(generator=generator)
        estimate = self.network(self.inpaint(add_noise(x0, k, self.abar, noise), window.state), k, x0[:, 0, : self.S])
        return (self.weight * (self.inpaint(estimate, window.state) - x0).square()).mean()

    def inpaint(self, x: Float[Tensor, "n F1 X"], state: Float[Tensor, "n S"]) -> Float[Tensor, "n F1 X"]:
        """The block with the present state written over its first."""
        first = torch.cat(((state - self.mean) / self.std, x[:, 0, self.S :]), dim=1)
        return torch.cat((first[:, None], x[:, 1:]), dim=1)

    def estimate(self, x: Float[Tensor, "n F1 X"], k: Int[Tensor, "n"], state: Float[Tensor, "n S"]
                 ) -> Float[Tensor, "n F1 X"]:
        """E[x_0 | x_k], within the bounds of the data."""
        x0 = self.network(self.inpaint(x, state), k, (state - self.mean) / self.std)
        return self.inpaint(x0.clamp(-self.bound, self.bound), state)

    def split(self, x: Float[Tensor, "n F1 X"]) -> tuple[Float[Tensor, "n F1 S"], Float[Tensor, "n F A"]]:
        """States s_0..s_F and actions a_0..a_{F-1} of a block: what an objective reads."""
        return self.mean + self.std * x[..., : self.S], x[:, :-1, self.S :]


def learn_diffuser(episodes: Episodes, recipe: Recipe, *, levels: int = 20, **options) -> Joint:
    """Train the joint model by the recipe. To adapt it, `fit` a copy on other windows."""
    config = replace(recipe.dynamics, span=recipe.F + 1, levels=levels, steps=levels, eta=1.0)
    return learn_model(lambda S, A, scales, _: Joint(config, S, A, scales), episodes, recipe, **options)


@dataclass(frozen=True)
class Guide:
    """How the objective pulls on a sample."""

    scale: float = 10.0  # of the gradient of J / unit: 0 is no guide; on HalfCheetah 1 is too weak and 100 too strong
    unit: float = 1.0  # spread of J over the data: see `spread`
    steps: int = 2  # of the gradient at each level
    off: int = 2  # last levels without


def spread(objective: Objective, windows: Windows) -> float:
    """The standard deviation of J over a set's windows."""
    w = spaced(windows)
    return float(objective(torch.cat((w.state[:, None], w.states), dim=1), w.actions).std())


@torch.no_grad()
def guided_sample(estimate: Callable[[Tensor, Tensor], Tensor], score: Callable[[Tensor], Tensor],
                  inpaint: Callable[[Tensor], Tensor], noise: Float[Tensor, "n *b"], abar: Float[Tensor, "K"],
                  guide: Guide, *, steps: int, generator: torch.Generator | None = None) -> Float[Tensor, "n *b"]:
    """Take `noise` to samples of p(x_0) exp(scale * score(x_0) / unit), as far as its gradient tells.

    `estimate(x_k, k)` is E[x_0 | x_k], and `score` gives one number for each clean block.
    """
    x, levels = inpaint(noise), sampling_levels(len(abar), steps)
    for i, level in enumerate(levels):
        left = abar[level]
        after = abar[levels[i + 1]] if i + 1 < steps else torch.ones_like(left)
        k = torch.full((len(x),), level, device=x.device)
        variance = (1 - after) / (1 - left) * (1 - left / after)  # sigma_k^2
        for _ in range(guide.steps if guide.scale and i < steps - guide.off else 0):
            with torch.enable_grad():
                at = x.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(score(estimate(at, k)).sum(), at)
            x = inpaint(x + guide.scale / guide.unit * variance * gradient)
        beta = 1 - left / after
        mean = (after.sqrt() * beta * estimate(x, k) + (1 - beta).sqrt() * (1 - after) * x) / (1 - left)
        x = inpaint(mean + variance.sqrt() * torch.empty_like(x).normal_(generator=generator))
    return x


def plan(model: Joint, state: Float[Tensor, "B S"], objective: Objective, *, n: int, guide: Guide,
         generator: torch.Generator | None = None) -> Plans:
    """N guided trajectories from each state, ranked by J on the states that they imagine themselves."""
    with torch.inference_mode(False):  # the guide needs gradients wherever it is called
        state = state.clone()
        now = state.repeat_interleave(n, dim=0)
        noise = torch.empty(len(now), *model.weight.shape, device=now.device).normal_(generator=generator)
        x = guided_sample(lambda x, k: model.estimate(x, k, now), lambda x0: objective(*model.split(x0)),
                          lambda x: model.inpaint(x, now), noise, model.abar, guide, steps=model.config.steps,
                          generator=generator)
        states, actions = (part.unflatten(0, (len(state), n)) for part in model.split(x))
        return Plans(actions, states, checked(objective(states, actions), actions))


def diffuser(model: Joint, objective: Objective, *, n: int = 64, guide: Guide | None = None, every: int = 1,
             seed: int = 0) -> Chunked:
    """Diffuser as a controller. The objective may be another at each call: nothing is trained for it."""
    device, guide = model.mean.device, guide or Guide()
    generator = torch.Generator(device).manual_seed(seed)
    search = replayed(lambda state: plan(model, state, objective, n=n, guide=guide, generator=generator), device,
                      (generator,))

    def decide(state: Float[Tensor, "B S"]) -> Float[Tensor, "B F A"]:
        with torch.inference_mode(False), torch.no_grad():  # a graph's memory outlives any one mode
            plans = search(state)
        checked(plans.scores, plans.actions)
        return plans.chosen

    return Chunked(decide, every=every, device=device)
