"""Model-based offline planning (MBOP), after Argenson and Dulac-Arnold (2021): single-step models under MPPI.

Three regressions: an ensemble of dynamics s' = f_e(s, a), a prior policy b(s) cloned from the data, and a value V.
From a state, N trajectories are unrolled with the prior's actions plus noise, each mixed with what the last plan meant,

    a_t = (1 - keep) (b(s_t) + noise) + keep T_t,    s_{t+1} = f_e(s_t, a_t),

and the new plan T is their mean, weighted by exp(score / temperature). What differs from the paper: the reward is not
learned but read off the states, so that an objective can be swapped at run time as in D-MPC. The constants are ours.

Shapes: B states, N candidates each, F steps, S numbers in a state, A in an action, E members.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.dmpc.baselines.common import learn_dynamics
from minilab.dmpc.data import Episodes
from minilab.dmpc.learn import Recipe
from minilab.dmpc.models import Dynamics, Proposal
from minilab.planning.rank import Objective, Plans, checked
from minilab.planning.shooting import averaged, shifted


def learn_members(episodes: Episodes, recipe: Recipe, *, members: int = 3, seed: int = 0, **options) -> list[Dynamics]:
    """E single-step regressions that differ in their first weights and in their batches, `recipe.steps` each."""
    config = replace(recipe.dynamics, span=1, diffusion=False)
    return [learn_dynamics(episodes, recipe, config, seed=1000 * (e + 1) + seed, **options) for e in range(members)]


@dataclass(frozen=True)
class Shooting:
    """How MBOP searches around its prior."""

    noise: float = 0.2  # spread of an action around the prior's
    keep: float = 0.2  # share of the last plan in an action
    temperature: float = 0.2  # in units of the spread of the candidates' scores, so that any objective fits


class Mbop:
    """The planner. It plans anew at each step; `last` holds the newest candidates."""

    def __init__(self, prior: Proposal, members: Sequence[Dynamics], objective: Objective, *, F: int, n: int = 64,
                 shooting: Shooting | None = None, seed: int = 0) -> None:
        if n < len(members):
            raise ValueError(f"{n} candidates leave some of {len(members)} members unused: draw more")
        self.prior, self.members, self.objective, self.F, self.n = prior, members, objective, F, n
        self.shooting = shooting or Shooting()
        self.device = prior.mean.device
        self.generator = torch.Generator(self.device).manual_seed(seed)

    def start(self, copies: int) -> None:
        self._plan, self.last = None, None

    @torch.no_grad()
    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        before = None if self._plan is None else shifted(self._plan, 1)
        states, actions = self.imagine(state.to(self.device), before)
        self.last = Plans(actions, states, checked(self.objective(states, actions), actions))
        spread = self.last.scores.std(dim=1, keepdim=True).clamp(min=1e-6)
        self._plan = averaged(actions, self.last.scores / spread, self.shooting.temperature)
        return self._plan[:, 0]

    def imagine(self, state: Float[Tensor, "B S"], before: Float[Tensor, "B F A"] | None
                ) -> tuple[Float[Tensor, "B N F1 S"], Float[Tensor, "B N F A"]]:
        """N trajectories from each state, around the prior and the last plan; each follows one member throughout."""
        keep, E = self.shooting.keep, len(self.members)
        states, actions = [state[:, None].expand(-1, self.n, -1)], []
        for f in range(self.F):
            now = states[-1]  # B N S
            action = self.prior.propose(now.flatten(0, 1), 1)[:, 0, 0].unflatten(0, now.shape[:2])  # B N A
            action = action + self.shooting.noise * torch.empty_like(action).normal_(generator=self.generator)
            if before is not None:
                action = (1 - keep) * action + keep * before[:, None, f]
            actions.append(action.clamp(-1, 1))
            after = torch.empty_like(now)
            for e, member in enumerate(self.members):
                s, a = now[:, e::E], actions[-1][:, e::E]
                after[:, e::E] = member.predict(s.flatten(0, 1), a.flatten(0, 1)[:, None, None]).view_as(s)
            states.append(after)
        return torch.stack(states, dim=2), torch.stack(actions, dim=2)
