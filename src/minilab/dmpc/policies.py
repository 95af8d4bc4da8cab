"""Policies that act from the state alone, found without gradients: linear feedback, by augmented random search (ARS).

Mania, Guy and Recht (2018), variant V2-t: try the weights plus and minus random directions, and move along those of
the best, weighted by the difference that they made. Every iteration is kept, so that one search gives a ladder of
qualities, from standing still to its best.

A body with two legs is harder. From nothing, the search learns to dive: to run until it falls. So Walker2d begins as
two Hoppers side by side (`two_legged`), and moves both legs by one rule (`Mirror`), which halves what is searched.

Shapes: B episodes, n directions, S numbers in a state, A in an action.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.core.progress import progress
from minilab.dmpc.envs import Simulator, Task
from minilab.dmpc.rewards import Reward, run


@dataclass(frozen=True)
class Linear:
    """a = clip(W (s - mean) / std, -1, 1), one policy for each of B episodes or one for all."""

    weights: Float[Tensor, "*B A S"]
    mean: Float[Tensor, "*#B S"]
    std: Float[Tensor, "*#B S"]

    def start(self, copies: int) -> None:
        """Nothing is remembered from step to step."""

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        normal = (state - self.mean) / self.std
        return (self.weights @ normal[..., None])[..., 0].clamp(-1, 1)


def stacked(policies: Sequence[Linear]) -> Linear:
    """One policy an episode."""
    return Linear(*(torch.stack([getattr(p, part) for p in policies]) for part in ("weights", "mean", "std")))


class Mirror(NamedTuple):
    """Which number of a state and of an action is which when the legs change places."""

    state: tuple[int, ...]
    action: tuple[int, ...]

    def weights(self, weights: Float[Tensor, "*b A S"]) -> Float[Tensor, "*b A S"]:
        """Those of the policy that does with each leg what this one does with the other."""
        return weights[..., list(self.action), :][..., list(self.state)]


# Three joints a leg, in the positions, in the velocities and in the actions.
WALKER_MIRROR = Mirror((0, 1, 5, 6, 7, 2, 3, 4, 8, 9, 10, 14, 15, 16, 11, 12, 13), (3, 4, 5, 0, 1, 2))


def two_legged(hopper: Linear) -> Linear:
    """A policy for Walker2d: each leg does what the only leg of Hopper would do in its place."""
    torso, leg, torso_speed, leg_speed = [0, 1], [2, 3, 4], [5, 6, 7], [8, 9, 10]
    same = torso + 2 * leg + torso_speed + 2 * leg_speed  # Walker2d's numbers, as Hopper calls them
    first = hopper.weights[..., same].clone()
    first[..., 5:8], first[..., 14:17] = 0.0, 0.0  # a leg does not feel the other
    return Linear(torch.cat((first, WALKER_MIRROR.weights(torch.cat((first, first), dim=-2))[..., 3:, :]), dim=-2),
                  hopper.mean[..., same], hopper.std[..., same])


@dataclass(frozen=True)
class Search:
    """How long and how widely ARS searches."""

    iterations: int = 120
    directions: int = 16
    top: int = 8  # directions that the weights follow
    noise: float = 0.05
    step: float = 0.04
    steps: int = 200  # of an episode
    alive: float = 0.0  # share of the task's reward for being upright that counts: with all of it, many learn to stand
    seed: int = 0


def ars(task: Task, search: Search, *, reward: Reward | None = None, start: Linear | None = None,
        mirror: Mirror | None = None, blur: float = 0.0, keep_moments: bool = False, threads: int = 1
        ) -> list[tuple[Linear, float]]:
    """The policy before each iteration and the mean return of its neighbors, from `start` or from doing nothing.

    `reward` defaults to the task's own. With `mirror`, every direction treats both legs alike. `blur` is the spread of
    noise on the actions tried: what earns in spite of it is no knife's edge. `keep_moments` leaves the mean and spread
    of `start` as they are; else they follow the states seen, which takes a good policy apart if its neighbors fall.
    Raises ValueError unless 1 <= top <= directions, or if moments are to be kept of no `start`.
    """
    if not 1 <= search.top <= search.directions:
        raise ValueError(f"{search.top} best of {search.directions} directions: choose between 1 and their number")
    if keep_moments and start is None:
        raise ValueError("keep_moments keeps the mean and spread of a policy to start from: give it as start")
    generator = torch.Generator().manual_seed(search.seed)
    reward, n = reward or run(replace(task, alive=search.alive * task.alive)), search.directions
    simulator = Simulator(task, 2 * n, threads=threads)
    A, S = simulator.action_dim, simulator.state_dim
    seen = _Moments(S)
    weights = torch.zeros(A, S)
    if start is not None:
        weights = start.weights.clone()
        seen.add(start.mean + start.std * torch.randn(1000, S, generator=generator))
    ladder = []
    for _ in progress(range(search.iterations), desc=f"ARS on {task.name}", unit="step"):
        mean, std = (start.mean, start.std) if keep_moments else (seen.mean, seen.std)
        direction = torch.randn(n, A, S, generator=generator)
        if mirror is not None:
            other = list(mirror.state)
            mean, std = (mean + mean[other]) / 2, ((std.square() + std[other].square()) / 2).sqrt()
            direction = (direction + mirror.weights(direction)) / 2**0.5  # as long as it was
        policy = Linear(weights.clone(), mean.clone(), std.clone())
        tried = Linear(torch.cat((weights + search.noise * direction, weights - search.noise * direction)),
                       policy.mean, policy.std)
        returns, states = _returns(tried, simulator, reward, search.steps, generator, blur)
        seen.add(states)
        plus, minus = returns.chunk(2)
        best = torch.maximum(plus, minus).topk(search.top).indices
        gain = (plus - minus)[best] / torch.cat((plus[best], minus[best])).std().clamp(min=1e-6)
        weights = weights + search.step / search.top * torch.einsum("n,nas->as", gain, direction[best])
        ladder.append((policy, float(returns.mean())))
    return ladder


def _returns(policy: Linear, simulator: Simulator, reward: Reward, steps: int, generator: torch.Generator,
             blur: float = 0.0) -> tuple[Float[Tensor, "B"], Float[Tensor, "n S"]]:
    """What each copy earns until it falls, and all states that it saw until then."""
    state, total, seen = simulator.reset(generator), torch.zeros(simulator.copies), []
    who, acting = torch.arange(simulator.copies), policy
    alive = torch.ones(simulator.copies, dtype=torch.bool)
    for _ in range(steps):
        action = acting.act(state)
        if blur:
            action = (action + blur * torch.randn(action.shape, generator=generator)).clamp(-1, 1)
        step = simulator.step(action)
        total[who] += torch.where(alive, reward(state, action, step.state), 0.0)
        seen.append(state[alive])
        state, alive = step.state, alive & ~step.fell
        if not alive.any():
            break
        if alive.sum() <= 0.7 * len(alive):  # to lie on the ground costs the physics most: go on without them
            physics = simulator.physics[alive.numpy()]
            simulator = Simulator(simulator.task, len(physics), threads=simulator.threads)
            state, who, alive = simulator.place(physics), who[alive], alive[alive]
            acting = Linear(policy.weights[who], policy.mean, policy.std)
    return total, torch.cat(seen)


class _Moments:
    """Running mean and spread of the states seen."""

    def __init__(self, dim: int) -> None:
        self.n, self.sum, self.square = 0, torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dtype=torch.float64)

    def add(self, x: Float[Tensor, "n S"]) -> None:
        self.n, self.sum = self.n + len(x), self.sum + x.double().sum(dim=0)
        self.square = self.square + x.double().square().sum(dim=0)

    @property
    def mean(self) -> Tensor:
        return (self.sum / max(self.n, 1)).float()

    @property
    def std(self) -> Tensor:
        if not self.n:
            return torch.ones(len(self.sum))
        return (self.square / self.n - (self.sum / self.n).square()).clamp(min=1e-4).sqrt().float()
