"""Run a controller on a simulator: the one loop that makes data and that measures planners.

Shapes: B copies, T steps, S numbers in a state, A in an action.
"""

import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.core.progress import progress
from minilab.dmpc.data import Episodes
from minilab.dmpc.envs import Simulator


@runtime_checkable
class Controller(Protocol):
    """Anything that acts: a policy, or a planner."""

    def start(self, copies: int) -> None:
        """Forget the last episodes; B new ones begin."""

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        """One action for each copy."""


@dataclass(frozen=True)
class Run:
    """What came out of it."""

    episodes: Episodes
    unstable: int  # episodes that the physics ended
    act_s: float  # seconds that the controller took, over all copies and steps

    @property
    def returns(self) -> Float[Tensor, "B"]:
        return self.episodes.returns


@torch.inference_mode()
def rollout(controller: Controller, simulator: Simulator, steps: int, generator: torch.Generator, *,
            source: str = "", place: bool = False, desc: str = "episodes") -> Run:
    """B episodes of at most `steps` actions, side by side. `place` starts from where the copies stand already."""
    B, S, A = simulator.copies, simulator.state_dim, simulator.action_dim
    states, actions, rewards = torch.zeros(B, steps + 1, S), torch.zeros(B, steps, A), torch.zeros(B, steps)
    state = simulator.observe() if place else simulator.reset(generator)
    alive, lengths, unstable = torch.ones(B, dtype=torch.bool), torch.zeros(B, dtype=torch.long), 0
    states[:, 0], seconds = state, 0.0
    controller.start(B)
    for t in progress(range(steps), desc=desc, unit="step"):
        began = time.perf_counter()
        action = controller.act(state).cpu()
        seconds += time.perf_counter() - began
        step = simulator.step(action)
        good = step.state.where(~step.unstable[:, None], state)
        states[:, t + 1] = torch.where(alive[:, None], good, states[:, t])
        actions[:, t] = torch.where(alive[:, None], action.clamp(-1, 1), 0.0)
        rewards[:, t] = torch.where(alive, step.reward, 0.0)
        lengths += alive
        unstable += int((step.unstable & alive).sum())
        state, alive = step.state.nan_to_num(), alive & ~step.fell
        if not alive.any():
            states[:, t + 2 :] = states[:, t + 1, None]
            break
    episodes = Episodes(simulator.task.name, states, actions, rewards, lengths, ~alive, (source,) * B)
    return Run(episodes, unstable, seconds)


class Noisy:
    """A controller whose actions are blurred by Ornstein-Uhlenbeck noise, of a strength drawn for each episode."""

    def __init__(self, controller: Controller, most: float, generator: torch.Generator, *, pull: float = 0.15) -> None:
        self.controller, self.most, self.pull, self.generator = controller, most, pull, generator

    def start(self, copies: int) -> None:
        self.controller.start(copies)
        self.strength = self.most * torch.rand(copies, 1, generator=self.generator)
        self.noise = None

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        action = self.controller.act(state).cpu()
        fresh = torch.empty_like(action).normal_(generator=self.generator)
        # Stationary from the first step on, with spread 1.
        self.noise = fresh if self.noise is None else (
            (1 - self.pull) * self.noise + (1 - (1 - self.pull) ** 2) ** 0.5 * fresh)
        return (action + self.strength * self.noise).clamp(-1, 1)
