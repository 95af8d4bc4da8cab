"""The body changes: gather play data in the new world, and teach the dynamics model alone.

Zhou et al. (2025) keep the proposal and the value as they are. What is played is our choice: the play data move, since
they come from the planner itself, blurred by noise. A body that lies still teaches nothing about walking.

Shapes: B windows of a batch.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import mujoco
import torch
from torch import nn

from minilab.dmpc.data import Episodes, Mixture, Windows, joined
from minilab.dmpc.envs import Simulator, task_named
from minilab.dmpc.learn import Models, Recipe, fit
from minilab.dmpc.rollout import Controller, Noisy, rollout

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Play:
    """How much is played, and how long the model learns from it."""

    episodes: int = 100  # the paper's number
    rounds: int = 1  # in which they are played, each by the planner that has learned from those before
    steps: int = 100  # of an episode
    noise: float = 0.4  # of Ornstein-Uhlenbeck noise on the actions, at most
    old: float = 0.0  # share of a batch from before the change: it steadies, and goes on teaching the old body
    updates: int = 1500
    lr: float = 2e-4


def play_data(controller: Controller, task: str, model: mujoco.MjModel, play: Play, seed: int) -> Episodes:
    """Episodes of a controller in a changed body."""
    generator = torch.Generator().manual_seed(seed)
    simulator = Simulator(task_named(task), play.episodes, model=model)
    return rollout(Noisy(controller, play.noise, generator), simulator, play.steps, generator, source="play",
                   desc="play").episodes


def practised(models: Models, planner: Callable[[Models], Controller], model: mujoco.MjModel, old: Episodes,
              play: Play, *, seed: int = 0) -> tuple[Models, Episodes]:
    """Play in a changed body and adapt the dynamics, in turns; the models after the last, and all that was played.

    `planner` makes the controller that plays from the models so far.
    """
    found, played = models, []
    for turn in range(play.rounds):
        share = replace(play, episodes=play.episodes * (turn + 1) // play.rounds - play.episodes * turn // play.rounds)
        played.append(play_data(planner(found), models.task, model, share, seed + 100 * turn))
        found = adapted(models, old, joined(played), play, seed=seed)
    return found, joined(played)


def tuned(model: M, old: Episodes, new: Episodes, recipe: Recipe, play: Play, *, seed: int = 0) -> M:
    """A copy of a block model, taught on new episodes and old ones mixed."""
    learned = copy.deepcopy(model)
    device = learned.mean.device
    windows = [Windows(episodes.to(device), learned.config.span) for episodes in (old, new)]
    fit(learned, Mixture(*windows, play.old), replace(recipe, lr=play.lr, warmup=50), seed=seed, steps=play.updates)
    return learned.eval().requires_grad_(False)


def adapted(models: Models, old: Episodes, new: Episodes, play: Play, *, seed: int = 0, part: str = "dynamics"
            ) -> Models:
    """The same models with the dynamics fine-tuned (or, as a control, another `part`); the others are shared."""
    return replace(models, **{part: tuned(getattr(models, part), old, new, models.recipe, play, seed=seed)})


@torch.inference_mode()
def prediction_error(models: Models, episodes: Episodes, *, n: int = 512, seed: int = 0) -> float:
    """Root mean square error of the predicted states, in units of each number's spread, over n windows of a set."""
    device = models.value.mean.device
    generator = torch.Generator(device).manual_seed(seed)
    state, actions, states = Windows(episodes.to(device), models.recipe.F).draw(n, generator)
    error = models.dynamics.predict(state, actions[:, None], generator)[:, 0] - states
    return float((error / models.dynamics.std).square().mean().sqrt())
