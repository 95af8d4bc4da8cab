"""What the baselines share: a model is trained by the recipe, and a plan is run a few actions at a time.

Shapes: B states, F steps, S numbers in a state, A in an action.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minilab.dmpc.data import Episodes, Scales, Window, Windows
from minilab.dmpc.learn import Recipe, fit
from minilab.dmpc.models import Dynamics, ModelConfig, Proposal

M = TypeVar("M", bound=nn.Module)


class Chunked:
    """A controller that asks `plan` for a block of actions every `every` steps and runs them one by one."""

    def __init__(self, plan: Callable[[Float[Tensor, "B S"]], Float[Tensor, "B F A"]], *, every: int = 1,
                 device: torch.device | str = "cpu") -> None:
        if every < 1:
            raise ValueError(f"a controller must run at least 1 action of a plan, not {every}")
        self.plan, self.every, self.device = plan, every, torch.device(device)

    def start(self, copies: int) -> None:
        self._queue: list[Tensor] = []

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        if not self._queue:
            self._queue = list(self.plan(state.to(self.device))[:, : self.every].unbind(dim=1))
        return self._queue.pop(0)


def spaced(windows: Windows, most: int = 5000) -> Window:
    """All windows of a set, or `most` of them, evenly spaced."""
    which = torch.linspace(0, len(windows) - 1, min(most, len(windows)), dtype=torch.float64).long()
    return windows.take(which.to(windows.index.device))


def learn_model(build: Callable[[int, int, Scales, Windows], M], episodes: Episodes, recipe: Recipe, *,
                seed: int = 0, device: torch.device | str = "cpu", checkpoint: Path | None = None) -> M:
    """Train `build(S, A, scales, windows)` for the recipe's steps on its own windows; the result is frozen."""
    episodes = episodes.to(device)
    windows = Windows(episodes, recipe.F)
    torch.manual_seed(seed)
    model = build(episodes.states.shape[-1], episodes.actions.shape[-1], Scales.of(windows), windows).to(device)
    fit(model, windows, recipe, seed=seed, checkpoint=checkpoint)
    return model.eval().requires_grad_(False)


def learn_proposal(episodes: Episodes, recipe: Recipe, config: ModelConfig, **options) -> Proposal:
    """A proposal other than the recipe's. `options` are those of `learn_model`."""
    return learn_model(lambda S, A, scales, _: Proposal(config, S, A, scales), episodes, recipe, **options)


def learn_dynamics(episodes: Episodes, recipe: Recipe, config: ModelConfig, **options) -> Dynamics:
    """Dynamics other than the recipe's. `options` are those of `learn_model`."""
    return learn_model(lambda S, A, scales, _: Dynamics(config, S, A, scales), episodes, recipe, **options)
