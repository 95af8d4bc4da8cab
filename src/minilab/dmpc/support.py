"""Does a plan stay where there were data? A model answers for any state; outside its data the answer is a guess.

A planner that is asked for what nobody ever did picks the plan whose *predictions* please it, and those are the most
wrong ones. So we measure how far a plan's states lie from the data: the distance to the nearest of some thousand states
that were seen, in units of each number's spread, against how far held-out data lie from them.

Shapes: n states of the data, *b any leading dimensions, F1 states of a plan, S numbers in a state.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.dmpc.data import Episodes
from minilab.planning.rank import Plans


@dataclass(frozen=True)
class Support:
    """States that were seen, and the distance within which `quantile` of held-out ones have a neighbor."""

    seen: Float[Tensor, "n S"]  # standardized
    mean: Float[Tensor, "S"]
    std: Float[Tensor, "S"]
    radius: float

    @classmethod
    def of(cls, episodes: Episodes, generator: torch.Generator, *, n: int = 2000, quantile: float = 0.99) -> "Support":
        """From a set: n of its states, and as many others, from other episodes, to set the radius."""
        kept, held_out = (_states(part, n, generator) for part in episodes.split(0.5, generator))
        mean, std = kept.mean(dim=0), kept.std(dim=0).clamp(min=1e-3)
        near = torch.cdist((held_out - mean) / std, (kept - mean) / std).amin(dim=1)
        return cls((kept - mean) / std, mean, std, float(near.quantile(quantile)))

    def distance(self, states: Float[Tensor, "*b S"]) -> Float[Tensor, "*b"]:
        """To the nearest state that was seen, in units of the radius: above 1 is strange."""
        normal = ((states.cpu() - self.mean) / self.std).flatten(end_dim=-2)
        return torch.cdist(normal, self.seen).amin(dim=1).view(states.shape[:-1]) / self.radius

    def familiar(self, plans: Plans) -> float:
        """The share of the chosen plans' predicted states that have a neighbor within the radius."""
        rows = torch.arange(len(plans.states))
        return float((self.distance(plans.states[rows, plans.best][:, 1:]) <= 1).float().mean())


def warning(familiar: float, *, least: float = 0.5) -> str | None:
    """What to tell a user whose plans leave the data; None if enough of them stay."""
    if familiar >= least:
        return None
    return (f"only {familiar:.0%} of the states that this plan predicts resemble any that the data show: the reward "
            "asks for what was never seen, and the prediction is a guess. Ask for less, or collect data that show it")


def _states(episodes: Episodes, n: int, generator: torch.Generator) -> Float[Tensor, "n S"]:
    valid = torch.arange(episodes.actions.shape[1]) < episodes.lengths[:, None]
    states = episodes.states[:, :-1][valid]
    return states[torch.randint(len(states), (n,), generator=generator)]
