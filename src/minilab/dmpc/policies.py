"""Policies that act from the state alone, found without gradients: linear feedback, by augmented random search (ARS).

Mania, Guy and Recht (2018), variant V2-t: try the weights plus and minus random directions, and move along those of
the best, weighted by the difference that they made. Every iteration is kept, so that one search gives a ladder of
qualities, from standing still to its best.

Shapes: B episodes, n directions, S numbers in a state, A in an action.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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


def ars(task: Task, search: Search, *, reward: Reward | None = None, start: Linear | None = None, threads: int = 1
        ) -> list[tuple[Linear, float]]:
    """The policy before each iteration and the mean return of its neighbors, from `start` or from doing nothing.

    `reward` defaults to the task's own. Raises ValueError unless 1 <= top <= directions.
    """
    if not 1 <= search.top <= search.directions:
        raise ValueError(f"{search.top} best of {search.directions} directions: choose between 1 and their number")
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
        policy = Linear(weights.clone(), seen.mean.clone(), seen.std.clone())
        direction = torch.randn(n, A, S, generator=generator)
        tried = Linear(torch.cat((weights + search.noise * direction, weights - search.noise * direction)),
                       policy.mean, policy.std)
        returns, states = _returns(tried, simulator, reward, search.steps, generator)
        seen.add(states)
        plus, minus = returns.chunk(2)
        best = torch.maximum(plus, minus).topk(search.top).indices
        gain = (plus - minus)[best] / torch.cat((plus[best], minus[best])).std().clamp(min=1e-6)
        weights = weights + search.step / search.top * torch.einsum("n,nas->as", gain, direction[best])
        ladder.append((policy, float(returns.mean())))
    return ladder


def _returns(policy: Linear, simulator: Simulator, reward: Reward, steps: int, generator: torch.Generator
             ) -> tuple[Float[Tensor, "B"], Float[Tensor, "n S"]]:
    """What each copy earns until it falls, and all states that it saw until then."""
    state, total, seen = simulator.reset(generator), torch.zeros(simulator.copies), []
    alive = torch.ones(simulator.copies, dtype=torch.bool)
    for _ in range(steps):
        action = policy.act(state)
        step = simulator.step(action)
        total += torch.where(alive, reward(state, action, step.state), 0.0)
        seen.append(state[alive])
        state, alive = step.state, alive & ~step.fell
        if not alive.any():
            break
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
