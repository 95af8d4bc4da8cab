"""What the experiments share: models that are trained once and kept, episodes of a controller, and intervals.

Trained networks are kept in the cache folder under a name made of everything that they depend on, so that two
experiments with one setting train once, and an interrupted one goes on.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from minilab.core.device import cache_dir
from minilab.dmpc.collect import SIZES, collect, dataset_path
from minilab.dmpc.data import Episodes
from minilab.dmpc.envs import Simulator, Task, task_named
from minilab.dmpc.learn import Models, Recipe, learn, small
from minilab.dmpc.rewards import Reward, planned, run
from minilab.dmpc.rollout import Controller, Run, rollout
from minilab.planning.rank import Objective

QUICK = small(width=128, layers=1, steps=300, value_steps=300)  # for tests and live cells: it has learned little
LAPTOP = small(width=256, steps=3000)
CARD = small(steps=8000)
FALL_COST = 20.0  # of a plan, and to the value, where a body can fall


@dataclass(frozen=True)
class Setting:
    """What a planner is trained on, how, and how it is run and scored."""

    recipe: Recipe
    task: str = "HalfCheetah-v5"
    tier: str = "mixed"  # of the data (collect.py)
    size: str = "cpu"  # of the data
    seeds: tuple[int, ...] = (0,)  # of training, and of the starts that all systems of that seed share
    episodes: int = 20
    steps: int = 200  # of an episode
    n: int = 32  # candidates N
    every: int = 2  # actions run of a plan
    sensor_noise: float = 0.0  # on what the models and the planner see, in units of each number's spread
    held_out: float = 0.0  # share of the episodes that nothing is trained on

    @property
    def body(self) -> Task:
        return task_named(self.task)

    def data(self) -> tuple[Episodes, Episodes]:
        """The episodes to learn from, and those held out (none of them if `held_out` is 0)."""
        episodes, generator = collect(self.body, self.tier, SIZES[self.size]), torch.Generator().manual_seed(0)
        if self.sensor_noise:
            spread = self.sensor_noise * episodes.states.flatten(end_dim=1).std(dim=0)
            noise = torch.randn(episodes.states.shape, generator=generator)
            episodes = dataclasses.replace(episodes, states=episodes.states + spread * noise)
        return episodes.split(self.held_out, generator) if self.held_out else (episodes, episodes.rows([]))

    def objective(self, models: Models, reward: Reward | None = None) -> Objective:
        """The task's own reward (or another) along a plan, and the learned value of its end."""
        return planned(reward or run(self.body), discount=self.recipe.discount, value=models.value, falls=self.body,
                       fall_cost=self.recipe.fall_cost)


def falling(setting: Setting, task: str) -> Setting:
    """The setting for a body that can fall: it costs a plan, and there are more episodes, as they end early."""
    return replace(setting, task=task, size="full", recipe=replace(setting.recipe, fall_cost=FALL_COST))


def trained(setting: Setting, seed: int, device: torch.device | str) -> Models:
    """D-MPC's models for a setting: from the cache, or trained now."""
    return learn(setting.data()[0], setting.recipe, seed=seed, device=device, folder=place(key(setting, seed)))


def key(setting: Setting, seed: int) -> dict:
    """What a trained network depends on, of a setting: its data and its recipe."""
    data = dataset_path(setting.body, setting.tier, SIZES[setting.size]).name  # holds all that makes them
    return {"data": (data, setting.sensor_noise, setting.held_out), "recipe": setting.recipe, "seed": seed}


def place(key: dict) -> Path:
    """A folder of the cache for everything that depends on `key` alone."""
    text = json.dumps(key, sort_keys=True, default=dataclasses.asdict)
    return cache_dir() / "dmpc" / hashlib.sha256(text.encode()).hexdigest()[:16]


class Blurred:
    """A controller that sees through noisy sensors."""

    def __init__(self, controller: Controller, spread: Float[Tensor, "S"], generator: torch.Generator) -> None:
        self.controller, self.spread, self.generator = controller, spread, generator

    def start(self, copies: int) -> None:
        self.controller.start(copies)

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        return self.controller.act(state + self.spread * torch.randn(state.shape, generator=self.generator))


def play(controller: Controller, setting: Setting, *, seed: int = 0, model: mujoco.MjModel | None = None,
         simulator: Simulator | None = None, desc: str = "episodes") -> Run:
    """A setting's episodes with a controller, side by side, from starts that depend on `seed` alone."""
    simulator = simulator or Simulator(setting.body, setting.episodes, model=model)
    generator = torch.Generator().manual_seed(1000 + seed)
    if setting.sensor_noise:
        spread = setting.sensor_noise * setting.data()[0].states.flatten(end_dim=1).std(dim=0)
        controller = Blurred(controller, spread, torch.Generator().manual_seed(2000 + seed))
    return rollout(controller, simulator, setting.steps, generator, desc=desc)


def interval(groups: Sequence[Sequence[float]], *, draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """The mean and its 95 % interval, by a bootstrap of two levels: training seeds, then episodes within each.

    With few seeds the outer level is coarse; the interval then speaks of these seeds more than of all.
    """
    generator = torch.Generator().manual_seed(seed)
    values = [torch.as_tensor(g, dtype=torch.float64) for g in groups]
    which = torch.randint(len(values), (draws, len(values)), generator=generator)
    resampled = torch.stack([v[torch.randint(len(v), (draws, len(values), len(v)), generator=generator)].mean(dim=2)
                             for v in values])  # groups, draws, places
    means = resampled.gather(0, which[None]).mean(dim=(0, 2))
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"mean": float(torch.stack([v.mean() for v in values]).mean()), "low": low, "high": high}


def statistics(episodes: Episodes) -> dict[str, float]:
    """What the behavior earned: mean, 90th percentile and best return of the set's episodes."""
    returns = episodes.returns
    return {"mean": float(returns.mean()), "p90": float(returns.quantile(0.9)), "best": float(returns.max()),
            "episodes": len(episodes), "transitions": episodes.transitions}
