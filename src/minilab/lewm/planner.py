"""Plan in latent space: find the blocks of actions whose imagined end is nearest to the goal's latent.

Maes et al. (2026), section 3.3 and appendix D. With z_hat_1..H imagined from what is seen now,

    cost(a_1..H) = |z_hat_H - z_goal|^2.

Notable:
- Nothing about the task is learned but where the goal's image lies: no reward, no value.
- The search is over z-scored blocks, so that the first draws, N(0, 1), look like the data's actions.
- The paper's planner is the cross-entropy method, starts from the present frame alone, and runs its whole plan.
- `mean` as cost averages over all imagined steps: an end that is far from everything gives no direction, and a way may.

Shapes: B problems at once, h latents of history, D latent width, N candidates, H blocks ahead, kA numbers in a block.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.lewm.model import LeWMConfig
from minilab.planning.rank import checked
from minilab.planning.shooting import Evaluate, Gaussian, cem, icem, mppi

Bounds = tuple[Float[Tensor, "kA"], Float[Tensor, "kA"]]  # lowest and highest of each number in a block
Distance = Callable[[Float[Tensor, "*b D"], Float[Tensor, "*b D"]], Float[Tensor, "*b"]]  # from latents to goals


@runtime_checkable
class Imagines(Protocol):
    """A model that can be planned with: `LeWM`, or anything with latents."""

    config: LeWMConfig  # of which `actions`, the numbers in a block, is asked for

    def imagine(self, z_history: Float[Tensor, "B h D"], actions: Float[Tensor, "B H kA"],
                past: Float[Tensor, "B h1 kA"] | None) -> Float[Tensor, "B H D"]:
        """The latents that blocks of actions lead to."""


@dataclass(frozen=True)
class PlanConfig:
    """How a plan is found. The defaults are the paper's for Push-T."""

    horizon: int = 5  # H, in blocks
    method: Literal["cem", "icem", "mppi", "adam"] = "cem"
    samples: int = 300  # candidates in an iteration, for icem in the first; for adam, starts
    elites: int = 30  # cem and icem
    beta: float = 2.0  # icem: the color of its noise, along raw actions
    iterations: int = 30
    std: float = 1.0  # of the first draws
    cost: Literal["last", "mean"] = "last"
    temperature: float = 1.0  # mppi, in units of the cost
    lr: float = 0.1  # adam
    execute: int = 5  # blocks to run before planning anew
    history: int = 1  # latents of what was really seen that imagination starts from
    warm: bool = False  # start from what is left of the last plan
    deadline: bool = False  # plan for the blocks that are left of a whole plan; matters if execute < horizon

    def __post_init__(self) -> None:
        if not 1 <= self.execute <= self.horizon:
            raise ValueError(f"a plan of {self.horizon} blocks, of which {self.execute} are run: run 1 to all of them")


def paper(iterations: int = 30, **options) -> PlanConfig:
    """30 iterations on Push-T, 10 elsewhere."""
    return PlanConfig(iterations=iterations, **options)


def small(**options) -> PlanConfig:
    """For two cores."""
    return PlanConfig(**{"samples": 150, "elites": 15, "iterations": 8, **options})


def squared(z: Float[Tensor, "*b D"], z_goal: Float[Tensor, "*b D"]) -> Float[Tensor, "*b"]:
    """The paper's distance: Euclid's, squared."""
    return (z - z_goal).square().sum(dim=-1)


def plan(model: Imagines, z_history: Float[Tensor, "B h D"], z_goal: Float[Tensor, "B D"], config: PlanConfig,
         generator: torch.Generator | None = None, *, start: Float[Tensor, "B H kA"] | None = None, **options
         ) -> Float[Tensor, "B H kA"]:
    """The best blocks found, for B problems in one go. The search starts from `start`, or from zeros.

    `options` are those of `plans`.
    """
    start = None if start is None else start[:, None]
    return plans(model, z_history, z_goal, config, generator, start=start, **options)[:, 0]


def plans(model: Imagines, z_history: Float[Tensor, "B h D"], z_goal: Float[Tensor, "B D"], config: PlanConfig,
          generator: torch.Generator | None = None, *, past: Float[Tensor, "B h1 kA"] | None = None,
          start: Float[Tensor, "B E H kA"] | None = None, bounds: Bounds | None = None, distance: Distance = squared,
          action_dim: int | None = None) -> Float[Tensor, "B K H kA"]:
    """What a search found, best first: icem's elites, or one plan. `start` is what an earlier one found.

    `past` holds the blocks between the latents of a history of more than one. `bounds` cut each candidate to what the
    world can do. `action_dim` is A, for icem: without it a block is one action to it. Raises ValueError for a model in
    training mode, where BatchNorm and dropout make its imagination random.
    """
    if getattr(model, "training", False):
        raise ValueError("the model is in training mode, in which it imagines at random: call model.eval() first")
    first = (z_history.new_zeros(len(z_history), config.horizon, model.config.actions) if start is None else
             start[:, 0])
    law = Gaussian(first, torch.full_like(first, config.std))
    evaluate = goal_score(model, z_history, z_goal, past=past, cost=config.cost, bounds=bounds, distance=distance)
    options = dict(samples=config.samples, iterations=config.iterations, generator=generator)
    free = dict(low=-torch.inf, high=torch.inf)
    if config.method == "adam":
        found = descend(evaluate, law, starts=options.pop("samples"), lr=config.lr, bounds=bounds, **options)[:, None]
    elif config.method == "mppi":
        found = mppi(evaluate, law, temperature=config.temperature, **options, **free).mean[:, None]
    elif config.method == "cem":
        found = cem(evaluate, law, elites=config.elites, **options, **free).mean[:, None]
    else:
        A, H = action_dim or first.shape[-1], config.horizon

        def apart(blocks: Float[Tensor, "*b H kA"]) -> Float[Tensor, "*b Hk A"]:
            return blocks.unflatten(-1, (-1, A)).flatten(-3, -2)

        def joined(actions: Float[Tensor, "*b Hk A"]) -> Float[Tensor, "*b H kA"]:
            return actions.unflatten(-2, (H, -1)).flatten(-2)

        found = joined(icem(lambda actions: evaluate(joined(actions)), Gaussian(apart(law.mean), apart(law.std)),
                            elites=config.elites, beta=config.beta, kept=None if start is None else apart(start),
                            **options, **free))
    return found if bounds is None else found.clamp(*bounds)


def goal_score(model: Imagines, z_history: Float[Tensor, "B h D"], z_goal: Float[Tensor, "B D"], *,
               past: Float[Tensor, "B h1 kA"] | None = None, cost: Literal["last", "mean"] = "last",
               bounds: Bounds | None = None, distance: Distance = squared) -> Evaluate:
    """Minus the distance of imagined latents to the goal's: of the last one, or on average."""

    def evaluate(actions: Float[Tensor, "B N H kA"]) -> Float[Tensor, "B N"]:
        B, N = actions.shape[:2]
        actions = actions if bounds is None else actions.clamp(*bounds)
        before = None if past is None else past.repeat_interleave(N, dim=0)
        z = model.imagine(z_history.repeat_interleave(N, dim=0), actions.flatten(0, 1), before)  # BN H D
        z = z.unflatten(0, (B, N))[:, :, -1:] if cost == "last" else z.unflatten(0, (B, N))
        return -distance(z, z_goal[:, None, None].expand_as(z)).mean(dim=-1)

    return evaluate


def descend(evaluate: Evaluate, law: Gaussian, *, starts: int, iterations: int, lr: float,
            bounds: Bounds | None = None, generator: torch.Generator | None = None) -> Float[Tensor, "B H kA"]:
    """The best of `starts` draws, each after Adam has followed the gradient of its score through the model."""
    # A caller in inference mode hands over tensors that no gradient may use.
    with torch.inference_mode(False), torch.enable_grad():
        blocks = law.draw(starts, -torch.inf, torch.inf, generator).clone().requires_grad_()
        optimizer = torch.optim.Adam([blocks], lr=lr)
        for _ in range(iterations):
            (blocks.grad,) = torch.autograd.grad(-evaluate(blocks).sum(), blocks)  # and none of the model's weights
            optimizer.step()
            if bounds is not None:  # beyond them there is no gradient that could lead back
                blocks.data.clamp_(*bounds)
        blocks = blocks.detach()
    best = checked(evaluate(blocks), blocks).argmax(dim=1)
    return blocks[torch.arange(len(blocks)), best]
