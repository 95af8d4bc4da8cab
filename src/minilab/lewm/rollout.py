"""Let an agent that sees only pictures reach its goals: look, plan, run some blocks, look again.

Maes et al. (2026), section 4.1: the goal is a picture, and success is to have been there once before the budget ends.
How often to plan anew, how much of the past to plan with, and whether the last plan helps the next are settings
(`PlanConfig`); the paper plans from the present frame alone and runs its whole plan. Who looks more often and always
plans as far ahead puts the arrival off each time; with a `deadline` a plan is for the blocks that are left.

Shapes: B copies, T steps, S numbers in a state, A in an action, k actions in a block.
"""

import time
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from minilab.lewm.data import Scale
from minilab.lewm.planner import Bounds, Distance, Imagines, PlanConfig, plans, squared
from minilab.lewm.worlds import World
from minilab.planning.shooting import shifted


@runtime_checkable
class Agent(Protocol):
    """Anything that acts on pictures, in B copies of a world at once."""

    def start(self, goal: UInt8[Tensor, "B 3 H W"]) -> None:
        """Forget the last episodes; new ones begin, with these goals."""

    def act(self, frames: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B k A"]:
        """The next block of actions of each copy."""


@runtime_checkable
class Sees(Imagines, Protocol):
    """A model that can be planned with from pictures."""

    def encode(self, frames: UInt8[Tensor, "B T 3 H W"]) -> Float[Tensor, "B T D"]:
        """What it makes of them: the latents that it imagines from."""


class Planner:
    """Plans with a world model, runs `config.execute` blocks, and plans again; with a deadline, for what is left.

    `scale` turns the model's blocks into actions. With `bounded` the search knows that the world cuts actions to
    [-1, 1]; the paper's does not. `distance` says how far latents are from the goal's.
    """

    def __init__(self, model: Sees, config: PlanConfig, scale: Scale, generator: torch.Generator | None = None, *,
                 bounded: bool = False, distance: Distance = squared) -> None:
        self.model, self.config, self.scale, self.generator = model, config, scale, generator
        self.bounds = block_bounds(scale, model.config.actions) if bounded else None
        self.distance = distance

    @torch.no_grad()
    def start(self, goal: UInt8[Tensor, "B 3 H W"]) -> None:
        self.z_goal = self.model.encode(goal[:, None])[:, 0]
        self.seen, self.ran, self.waiting, self.last = [], [], [], None  # latents, blocks, blocks, plans

    @torch.no_grad()
    def act(self, frames: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B k A"]:
        self.seen.append(self.model.encode(frames[:, None])[:, 0])
        if not self.waiting:
            self.last = self._plan()
            self.waiting = list(self.last[:, 0, : self.config.execute].unbind(dim=1))
        self.ran.append(self.waiting.pop(0))
        return self.scale.actions(self.ran[-1])

    def _plan(self) -> Float[Tensor, "B E H kA"]:
        config, start = self.config, None
        h = min(config.history, len(self.seen))
        past = torch.stack(self.ran[-(h - 1) :], dim=1) if h > 1 else None
        if config.warm and self.last is not None:
            start = shifted(self.last.flatten(0, 1), config.execute).view_as(self.last)
        if config.deadline:
            left = config.horizon - len(self.ran) % config.horizon
            config = replace(config, horizon=left, execute=min(config.execute, left))
            # A new round starts afresh: the last plan has arrived.
            start = None if start is None or left == self.config.horizon else start[:, :, :left]
        return plans(self.model, torch.stack(self.seen[-h:], dim=1), self.z_goal, config, self.generator,
                     past=past, start=start, bounds=self.bounds, distance=self.distance,
                     action_dim=len(self.scale.mean))


def block_bounds(scale: Scale, actions: int, *, low: float = -1.0, high: float = 1.0) -> Bounds:
    """The z-scored blocks whose raw actions are all `low`, or all `high`. `actions` counts the numbers in a block."""
    A = len(scale.mean)
    return tuple(scale.blocks(torch.full((actions // A, A), edge, device=scale.mean.device)) for edge in (low, high))


@dataclass(frozen=True)
class Attempts:
    """What came of it."""

    states: Float[Tensor, "B T1 S"]
    first: Int[Tensor, "B"]  # steps until the goal was reached first, or -1
    act_s: float  # seconds that the agent took, over all copies and steps

    @property
    def success(self) -> Bool[Tensor, "B"]:
        return self.first > 0


@torch.no_grad()
def attempt(world: World, agent: Agent, start: Float[Tensor, "B S"], goal: Float[Tensor, "B S"], *, budget: int = 50,
            size: int = 64) -> Attempts:
    """B attempts side by side, of `budget` steps each; the agent sees pictures of `size` pixels."""
    agent.start(world.render(goal, size))
    states, seconds = [start], 0.0
    while len(states) <= budget:
        frames = world.render(states[-1], size)
        began = time.perf_counter()
        block = agent.act(frames)
        seconds += time.perf_counter() - began
        for action in block.unbind(dim=1)[: budget + 1 - len(states)]:
            states.append(world.step(states[-1], action))
    states = torch.stack(states, dim=1)
    return Attempts(states, first_success(world, states, goal), seconds)


def first_success(world: World, states: Float[Tensor, "B T1 S"], goal: Float[Tensor, "B S"]) -> Int[Tensor, "B"]:
    """After how many steps an episode was at its goal first; -1 if never. Where it began does not count."""
    there = torch.stack([world.success(state, goal) for state in states[:, 1:].unbind(dim=1)], dim=1)  # B T
    return torch.where(there.any(dim=1), there.int().argmax(dim=1) + 1, -1)
