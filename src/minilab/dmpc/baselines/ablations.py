"""D-MPC with one part exchanged: each function gives a proposal or a dynamics model that `agent.Planner` takes.

| proposal | what it is |
|---|---|
| `from_proposal` | a trained block model: multi-step diffusion, or the mean alone |
| `step_by_step` | a single-step proposal, led through time by single-step dynamics |
| `gaussian` | the mean of a block (regression) and independent noise as wide as what it misses |
| `uniform` | any action |

Dynamics are multi-step or single-step (`span=1`), diffusion or regression (`diffusion=False`), or auto-regressive; all
of them predict through `from_dynamics`, or as the `mean_of` several draws.

Shapes: B states, N candidates each, F steps, S numbers in a state, A in an action.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.dmpc.baselines.autoregressive import AutoRegressive
from minilab.dmpc.baselines.common import spaced
from minilab.dmpc.data import Windows
from minilab.dmpc.models import Dynamics, Proposal
from minilab.planning.rank import Predict, Propose


def from_dynamics(model: Dynamics | AutoRegressive, generator: torch.Generator | None = None) -> Predict:
    return lambda state, actions: model.predict(state, actions, generator)


def mean_of(draws: int, model: Dynamics, generator: torch.Generator | None = None) -> Predict:
    """The mean of several draws of the future: less of the luck of one of them is ranked."""
    return lambda state, actions: sum(model.predict(state, actions, generator) for _ in range(draws)) / draws


def from_proposal(proposal: Proposal, generator: torch.Generator | None = None) -> Propose:
    return lambda state, n: proposal.propose(state, n, generator)


def step_by_step(proposal: Proposal, dynamics: Dynamics, F: int, generator: torch.Generator | None = None) -> Propose:
    """F times: draw one action, predict one step. Raises ValueError if either model has longer blocks."""
    if (proposal.config.span, dynamics.config.span) != (1, 1):
        raise ValueError(f"both models must have a span of 1, not {proposal.config.span} and {dynamics.config.span}")

    def propose(state: Float[Tensor, "B S"], n: int) -> Float[Tensor, "B N F A"]:
        now, actions = state.repeat_interleave(n, dim=0), []
        for _ in range(F):
            actions.append(proposal.propose(now, 1, generator))  # BN 1 1 A
            now = dynamics.predict(now, actions[-1], generator)[:, 0, 0]
        return torch.cat(actions, dim=2).view(len(state), n, F, -1)

    return propose


def residual_spread(mean: Proposal, windows: Windows) -> Float[Tensor, "F A"]:
    """How far the data's actions lie from a regression's, step by step: the spread of the likeliest Gaussian."""
    w = spaced(windows)
    with torch.no_grad():
        return (w.actions - mean.propose(w.state, 1)[:, 0]).square().mean(dim=0).sqrt()


def gaussian(mean: Proposal, spread: Float[Tensor, "F A"], generator: torch.Generator | None = None) -> Propose:
    """The mean itself first, then blocks around it, cut to [-1, 1]."""

    def propose(state: Float[Tensor, "B S"], n: int) -> Float[Tensor, "B N F A"]:
        center = mean.propose(state, 1)
        noise = torch.empty(len(state), n, *spread.shape, device=state.device).normal_(generator=generator)
        noise[:, 0] = 0
        return (center + spread * noise).clamp(-1, 1)

    return propose


def uniform(F: int, A: int, generator: torch.Generator | None = None) -> Propose:
    return lambda state, n: torch.empty(len(state), n, F, A, device=state.device).uniform_(-1, 1, generator=generator)
