"""D-MPC as a controller: at each step propose, predict, score, take the best, and run its first action.

Zhou et al. (2025), Algorithm 2, over `planning/rank.py`. The objective is an argument: another one needs no training.

Shapes: B states, N candidates each, F steps, S numbers in a state, A in an action.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minilab.core.replay import replayed
from minilab.dmpc.learn import Models
from minilab.dmpc.networks import Lowered
from minilab.planning.rank import Objective, Plans, Predict, Propose, checked, sample_score_rank

M = TypeVar("M", bound=nn.Module)  # a block model


class Planner:
    """Sample, score and rank over any proposal and any dynamics.

    It plans anew every `every` steps and runs that many actions of each plan. `last` holds the newest plans.

    Given the `generators` that the parts draw from, a GPU replays a decision as one graph (`core/replay.py`); the next
    one then overwrites `last`. Without them, or on a CPU, the parts are called one by one.
    """

    def __init__(self, propose: Propose, predict: Predict, objective: Objective, *, n: int, every: int = 1,
                 device: torch.device | str = "cpu", generators: Sequence[torch.Generator] | None = None) -> None:
        if every < 1:
            raise ValueError(f"a planner must run at least 1 action of a plan, not {every}")
        self.propose, self.predict, self.objective, self.n, self.every = propose, predict, objective, n, every
        self.device, self.last = torch.device(device), None
        self._search = self._plan if generators is None else replayed(self._plan, self.device, generators)

    def start(self, copies: int) -> None:
        self._queue: list[Tensor] = []

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        if not self._queue:
            self.last = self.plan(state)
            self._queue = list(self.last.chosen[:, : self.every].unbind(dim=1))
        return self._queue.pop(0)

    def plan(self, state: Float[Tensor, "B S"]) -> Plans:
        """All candidates for each state, with their scores."""
        with torch.inference_mode(False):  # a graph's memory outlives any one mode
            plans = self._search(state.to(self.device))
        checked(plans.scores, plans.actions)
        return plans

    def _plan(self, state: Float[Tensor, "B S"]) -> Plans:
        return sample_score_rank(state, self.propose, self.predict, self.objective, self.n)


def dmpc(models: Models, objective: Objective, *, n: int = 64, every: int = 1, seed: int = 0) -> Planner:
    """D-MPC from trained models, on their device."""
    device = models.value.mean.device
    generator = torch.Generator(device).manual_seed(seed)
    return Planner(lambda s, n: models.proposal.propose(s, n, generator),
                   lambda s, a: models.dynamics.predict(s, a, generator), objective, n=n, every=every, device=device,
                   generators=(generator,))


def swift(models: Models, *, compile: bool = True) -> Models:
    """The same models for a GPU: networks in 16 bits, their small operations joined by `torch.compile`.

    They draw from the same laws up to rounding. Compiling takes up to a minute at the first plan.
    """
    proposal, dynamics = (lowered(model, compile=compile) for model in (models.proposal, models.dynamics))
    return replace(models, proposal=proposal, dynamics=dynamics)


def lowered(model: M, *, compile: bool = True) -> M:
    """A model whose network computes in 16 bits; its scales and its noise keep 32."""
    found = copy.copy(model)
    found._modules = dict(model._modules)  # a shallow copy shares them
    network = Lowered(model.network)
    found.network = torch.compile(network, fullgraph=True) if compile and model.abar.is_cuda else network
    return found
