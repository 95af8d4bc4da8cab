"""What the experiments share: a setting, arms that are trained once and kept, tasks from held-out episodes, shares.

The paper's protocol: start and goal lie 25 steps apart in one episode, 50 steps are allowed, and success is to have
been at the goal once. The published code draws them from the training file; ours are from episodes held out.

Trained networks are kept in the cache folder under a name made of everything that they depend on, so that two
experiments with one setting train once, and an interrupted one goes on.
"""

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from minilab.core.device import cache_dir
from minilab.core.files import replacing
from minilab.core.intervals import wilson
from minilab.lewm.baselines.arms import ARMS, Trained, train_arm
from minilab.lewm.collect import Recipe, collect, dataset_path
from minilab.lewm.data import Clips, Trajectories
from minilab.lewm.hdf5 import Hdf5
from minilab.lewm.learn import Diagnostics, History, LearnConfig, Moment, small
from minilab.lewm.model import LeWM, LeWMConfig, cpu
from minilab.lewm.planner import PlanConfig
from minilab.lewm.planner import small as small_plan
from minilab.lewm.rollout import Agent, Planner, attempt
from minilab.lewm.swift import Swift
from minilab.lewm.worlds import World, world_named


@dataclass(frozen=True)
class Setting:
    """What is learned from, what learns and how, and how it is tried."""

    recipe: Recipe | Hdf5  # of the data, or a file that has them
    config: LeWMConfig
    learning: LearnConfig
    plan: PlanConfig = small_plan()
    skip: int = 5  # steps from frame to frame, and actions in a block
    held_out: float = 0.1  # share of the episodes that nothing is trained on
    seeds: tuple[int, ...] = (0,)  # of training
    tasks: int = 50  # for each seed
    ahead: int = 25  # steps from a task's start to its goal, in the episode that it comes from
    budget: int = 50  # steps allowed
    workers: int = 1  # processes that make the data
    mirrored: bool = False  # learn from clips in all eight images of a square world, and not as they were recorded
    drawn: bool = False  # each picture once, and kept: for a device with a few gigabytes to spare
    swift: bool = False  # plan in 16 bits

    @property
    def world(self) -> World:
        return world_named(self.recipe.world)

    @property
    def source(self) -> str:
        """The name of the data: trainings on others are others."""
        return self.recipe.name if isinstance(self.recipe, Hdf5) else dataset_path(self.recipe).name


class Ground:
    """A setting on a device: its data, cut into clips there, and its tasks. All seeds share it."""

    def __init__(self, setting: Setting, device: torch.device | str) -> None:
        self.setting, self.device, self.world = setting, torch.device(device), setting.world
        recipe = setting.recipe
        data = recipe.read() if isinstance(recipe, Hdf5) else collect(recipe, workers=setting.workers)
        data = data.to(self.device)
        data = data.drawn(setting.config.vision.image) if setting.drawn else data
        self.seen, self.unseen = data.split(setting.held_out, torch.Generator().manual_seed(0))

    @cached_property
    def clips(self) -> Clips:
        """To learn from: as many frames as the model's history, and one more."""
        return self.to_learn(self.frames)

    @cached_property
    def held_out(self) -> Clips:
        return self.clips_of(self.unseen, self.frames)

    @property
    def frames(self) -> int:
        return self.setting.config.history + 1

    def to_learn(self, frames: int) -> Clips:
        mirrored = self.setting.mirrored
        redrawn = mirrored and not isinstance(self.setting.recipe, Hdf5)  # a file's pictures are not ours to draw
        return self.clips_of(replace(self.seen, pixels=None) if redrawn else self.seen, frames, mirrored=mirrored)

    def clips_of(self, data: Trajectories, frames: int, *, mirrored: bool = False) -> Clips:
        s = self.setting
        return Clips(data, frames=frames, skip=s.skip, size=s.config.vision.image, scale=self.seen.scale,
                     mirrored=mirrored)

    def tasks(self, n: int, seed: int = 0) -> tuple[Float[Tensor, "n S"], Float[Tensor, "n S"]]:
        """Starts and goals out of held-out episodes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of short episodes: goals far ahead are in long ones only
            ends = Clips(self.unseen, frames=2, skip=self.setting.ahead, size=8)
        states = ends.draw(n, self.generator(seed)).states
        return states[:, 0], states[:, 1]

    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed)

    def trained(self, arm: str, seed: int) -> Trained:
        """An arm of this setting: from the cache, or trained now."""
        s, stands_on = self.setting, ARMS[arm].stands_on
        base = self.trained(stands_on, seed).model if stands_on else None
        # The goals of cloning are as far away as those of the tasks.
        clips = self.clips if ARMS[arm].plans else self.to_learn(s.ahead // s.skip + 1)
        folder = place([arm, stands_on, s.source, s.held_out, s.skip, s.config, s.learning,
                        clips.T, seed, *(["mirrored"] if s.mirrored else [])])
        held_out = self.held_out.draw(256, self.generator(1))
        found = train_arm(arm, s.config, clips.draw, s.learning, held_out=held_out, base=base, seed=seed,
                          device=self.device, checkpoint=folder / "model.safetensors")
        return dataclasses.replace(found, history=_whole(found.history, folder / "moments.json"))

    def agent(self, trained: Trained, seed: int, plan: PlanConfig | None = None) -> Agent:
        if self.setting.swift and isinstance(trained.model, LeWM):
            # Planners draw fewer candidates as they go on, which would be a compilation each.
            quick = Swift(trained.model, compile=self.device.type == "cuda", dynamic=True)
            return Planner(quick, plan or self.setting.plan, self.seen.scale, self.generator(seed))
        return trained.agent(self.seen.scale, plan or self.setting.plan, self.generator(seed))

    def reached(self, agent: Agent, seed: int, *, tasks: tuple[Tensor, Tensor] | None = None,
                budget: int | None = None) -> Bool[Tensor, "n"]:
        """Which of a seed's tasks an agent solves."""
        s = self.setting
        start, goal = tasks or self.tasks(s.tasks, seed)
        return attempt(self.world, agent, start, goal, budget=budget or s.budget, size=s.config.vision.image).success


def place(key: list) -> Path:
    """A folder of the cache for everything that depends on `key` alone."""
    text = json.dumps(key, sort_keys=True, default=dataclasses.asdict)
    return cache_dir() / "lewm" / "trained" / hashlib.sha256(text.encode()).hexdigest()[:16]


def _whole(history: History, path: Path) -> History:
    """A history with its moments: written if it was made now, or read if the training was done before."""
    if history.moments:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps([dataclasses.asdict(m) for m in history.moments]), encoding="utf-8")
    elif path.is_file():
        history.moments[:] = [Moment(**{**m, "held_out": m["held_out"] and Diagnostics(**m["held_out"])})
                              for m in json.loads(path.read_text(encoding="utf-8"))]
    return history


def share(groups: Sequence[Bool[Tensor, "n"]]) -> dict[str, float | list[float]]:
    """The share of successes over all trials, Wilson's 95 percent interval of it, and the share in each group.

    The interval counts trials as independent: it is for these models, and `each` shows how far seeds are apart.
    """
    trials = torch.cat([group.cpu() for group in groups])
    n, p = len(trials), float(trials.float().mean())
    low, high = wilson(p, n)
    return {"mean": p, "low": low, "high": high, "trials": n, "each": [float(group.float().mean()) for group in groups]}


# Two Rooms at the sizes of the presets.


def rooms(*, episodes: int = 1000, steps: int = 800, policy: str = "noisy", **options) -> Setting:
    """Two Rooms for two cores, at 32 pixels."""
    return Setting(Recipe("rooms", episodes, policy), cpu(10), small(steps), **options)


# For tests and live cells: it has learned next to nothing.
QUICK = rooms(episodes=100, steps=20, tasks=8, plan=small_plan(samples=30, elites=5, iterations=2))


def with_model(setting: Setting, **options) -> Setting:
    """The same with other fields of the model."""
    return replace(setting, config=replace(setting.config, **options))


def with_learning(setting: Setting, **options) -> Setting:
    """The same with other fields of the training."""
    return replace(setting, learning=replace(setting.learning, **options))
