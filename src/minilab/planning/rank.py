"""Sample, score and rank: the whole planner of D-MPC, over any proposal, any dynamics and any objective.

Zhou et al. (2025), Algorithm 2. For a state s_t draw N blocks of F actions, predict the F states that each leads to,
score each pair, and take the best. Nothing is refined: the proposal must be good. Run the first action (or the first
few), observe, and plan again: that is model predictive control.

Shapes: B states planned for at once, N candidates each, F actions in a block, S and A numbers a state and an action.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Propose = Callable[[Float[Tensor, "B S"], int], Float[Tensor, "B N F A"]]
Predict = Callable[[Float[Tensor, "B S"], Float[Tensor, "B N F A"]], Float[Tensor, "B N F S"]]
Objective = Callable[[Float[Tensor, "*b F1 S"], Float[Tensor, "*b F A"]], Float[Tensor, "*b"]]  # s_t..s_t+F, actions


@dataclass(frozen=True)
class Plans:
    """All candidates of a decision; `best` points at the one to run."""

    actions: Float[Tensor, "B N F A"]
    states: Float[Tensor, "B N F1 S"]  # the first is the present one
    scores: Float[Tensor, "B N"]

    @property
    def best(self) -> Int[Tensor, "B"]:
        return self.scores.argmax(dim=1)

    @property
    def chosen(self) -> Float[Tensor, "B F A"]:
        """The actions of the best candidate of each state."""
        return self.actions[torch.arange(len(self.actions)), self.best]


@torch.no_grad()
def sample_score_rank(state: Float[Tensor, "B S"], propose: Propose, predict: Predict, objective: Objective, n: int
                      ) -> Plans:
    """N plans for each state, scored; one call of each function whatever B and N.

    Raises ValueError if n is less than 1, or if the objective returns another shape than one score a plan, or NaN.
    """
    if n < 1:
        raise ValueError(f"a planner needs at least 1 candidate, not {n}")
    actions = propose(state, n)
    states = predict(state, actions)
    states = torch.cat((state[:, None, None].expand(-1, n, 1, -1), states), dim=2)
    return Plans(actions, states, checked(objective(states, actions), actions))


def checked(scores: Tensor, actions: Float[Tensor, "B N F A"]) -> Float[Tensor, "B N"]:
    """The scores, if they are one number for each plan."""
    if scores.shape != actions.shape[:2]:
        raise ValueError(f"the objective returned shape {tuple(scores.shape)} for plans of shape "
                         f"{tuple(actions.shape)}: it must sum over time and return one score a plan, "
                         f"{tuple(actions.shape[:2])}")
    if scores.is_cuda and torch.cuda.is_current_stream_capturing():
        return scores  # there are no numbers yet: who replays the graph looks at them
    if bad := int(scores.isnan().sum()):
        raise ValueError(f"the objective is NaN for {bad} of {scores.numel()} plans: look for a division by zero, or "
                         "a root or logarithm of a negative number, at the states that the model predicts")
    return scores
