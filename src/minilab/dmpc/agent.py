"""D-MPC as a controller: at each step propose, predict, score, take the best, and run its first action.

Zhou et al. (2025), Algorithm 2, over `planning/rank.py`. The objective is an argument: another one needs no training.

Shapes: B states, N candidates each, F steps, S numbers in a state, A in an action.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.dmpc.learn import Models
from minilab.planning.rank import Objective, Plans, Predict, Propose, sample_score_rank


class Planner:
    """Sample, score and rank over any proposal and any dynamics.

    It plans anew every `every` steps and runs that many actions of each plan. `last` holds the newest plans.
    """

    def __init__(self, propose: Propose, predict: Predict, objective: Objective, *, n: int, every: int = 1,
                 device: torch.device | str = "cpu") -> None:
        if every < 1:
            raise ValueError(f"a planner must run at least 1 action of a plan, not {every}")
        self.propose, self.predict, self.objective, self.n, self.every = propose, predict, objective, n, every
        self.device, self.last = torch.device(device), None

    def start(self, copies: int) -> None:
        self._queue: list[Tensor] = []

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        if not self._queue:
            self.last = self.plan(state)
            self._queue = list(self.last.chosen[:, : self.every].unbind(dim=1))
        return self._queue.pop(0)

    def plan(self, state: Float[Tensor, "B S"]) -> Plans:
        """All candidates for each state, with their scores."""
        return sample_score_rank(state.to(self.device), self.propose, self.predict, self.objective, self.n)


def dmpc(models: Models, objective: Objective, *, n: int = 64, every: int = 1, seed: int = 0) -> Planner:
    """D-MPC from trained models, on their device."""
    device = models.value.mean.device
    generator = torch.Generator(device).manual_seed(seed)
    return Planner(lambda s, n: models.proposal.propose(s, n, generator),
                   lambda s, a: models.dynamics.predict(s, a, generator), objective, n=n, every=every, device=device)
