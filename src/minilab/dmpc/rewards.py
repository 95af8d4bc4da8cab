"""What to want, as functions of states and actions that a planner is given at run time. No model knows of them.

A `Reward` is of one step: the state before, the action, the state after. `planned` sums it along a plan and adds what
lies beyond, a learned value of the last state: that is the objective J that the planner ranks by.

Shapes: *b any leading dimensions, F steps of a plan, S numbers in a state, A in an action.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.dmpc.envs import Task
from minilab.planning.rank import Objective

Reward = Callable[[Float[Tensor, "*b S"], Float[Tensor, "*b A"], Float[Tensor, "*b S"]], Float[Tensor, "*b"]]
Value = Callable[[Float[Tensor, "*b S"]], Float[Tensor, "*b"]]


@dataclass(frozen=True)
class Quantities:
    """Where an observation holds what rewards are about: S = P + V numbers, positions first."""

    positions: int  # P

    def height(self, state: Tensor) -> Tensor:
        return state[..., 0]

    def pitch(self, state: Tensor) -> Tensor:
        return state[..., 1]

    def speed(self, state: Tensor) -> Tensor:
        return state[..., self.positions]

    def bounce(self, state: Tensor) -> Tensor:
        """How fast the torso goes up or down."""
        return state[..., self.positions + 1].abs()


def quantities(state: Float[Tensor, "*b S"]) -> Quantities:
    """All bodies here move in a plane: one more velocity than positions, since the distance is not observed."""
    return Quantities((state.shape[-1] - 1) // 2)


def run(task: Task) -> Reward:
    """The environment's own reward. It reads the speed as the mean of before and after, not off a distance."""

    def reward(s: Tensor, a: Tensor, after: Tensor) -> Tensor:
        speed = quantities(s).speed
        return ((speed(s) + speed(after)) / 2 - task.ctrl_cost * a.square().sum(dim=-1)
                + task.alive * task.upright(after))

    return reward


def track_speed(target: float) -> Reward:
    """How near the speed is to `target` in m/s, 1 at best; negative targets ask to go backward."""
    return lambda s, a, after: 1 - (quantities(after).speed(after) - target).abs()


def track_height(target: float, width: float = 0.1) -> Reward:
    """exp(-(z - target)^2 / (2 width^2)) for the torso's height z in meters, as the observation gives it."""
    return lambda s, a, after: torch.exp(-(quantities(after).height(after) - target).square() / (2 * width**2))


def track_pitch(target: float) -> Reward:
    """How near the torso's angle in radians is to `target`, 1 at best."""
    return lambda s, a, after: 1 - (quantities(after).pitch(after) - target).abs()


def jump() -> Reward:
    """How fast the torso goes up or down, in m/s: there is none of it without leaving the ground again and again."""
    return lambda s, a, after: quantities(after).bounce(after)


def weighted(*terms: tuple[float, Reward]) -> Reward:
    """A sum of rewards, each with its weight."""
    return lambda s, a, after: sum(weight * reward(s, a, after) for weight, reward in terms)


def planned(reward: Reward, *, discount: float, value: Value | None = None, falls: Task | None = None,
            fall_cost: float = 0.0) -> Objective:
    """The score of a plan: sum_k discount^k r_k + discount^F value(s_F); after a predicted fall nothing counts.

    `falls` names the task whose end of an episode is meant, and `fall_cost` is subtracted where a plan comes to it.
    """

    def score(states: Float[Tensor, "*b F1 S"], actions: Float[Tensor, "*b F A"]) -> Float[Tensor, "*b"]:
        F = actions.shape[-2]
        before, after = states[..., :-1, :], states[..., 1:, :]
        rewards = reward(before, actions, after)  # *b F
        if rewards.shape != actions.shape[:-1]:
            raise ValueError(f"the reward returned shape {tuple(rewards.shape)} for {tuple(actions.shape[:-1])} steps: "
                             "it must return one number a step, so index states and actions with [..., i]")
        weights = discount ** torch.arange(F + 1, device=actions.device)
        alive = torch.ones_like(rewards[..., :1])
        if falls is not None and falls.falls:
            alive = falls.upright(after).to(rewards.dtype).cumprod(dim=-1)  # *b F
            rewards = rewards * torch.cat((torch.ones_like(alive[..., :1]), alive[..., :-1]), dim=-1)
            rewards = rewards - fall_cost * (alive.diff(dim=-1, prepend=torch.ones_like(alive[..., :1])) < 0)
        total = (rewards * weights[:-1]).sum(dim=-1)
        return total if value is None else total + weights[-1] * alive[..., -1] * value(states[..., -1, :])

    return score
