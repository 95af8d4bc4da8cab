"""Is there anything in the data like what is asked for, and does a plan stay near them?

- A model answers for any state; outside its data the answer is a guess, and an optimizer likes the wrong guesses best.
  `Support` measures how far a plan's states lie from the data: the distance to the nearest of some thousand states that
  were seen, in units of each number's spread, against how far held-out data lie from them.
- A planner that only ranks what its proposal draws stays near the data, and then does not do what was asked.
  `precedents` tells beforehand: the share of the recorded stretches that would have satisfied the wish.

Shapes: n states of the data, *b any leading dimensions, F1 states of a plan, S numbers in a state.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.dmpc.data import Episodes, Windows
from minilab.dmpc.rewards import Reward
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


@dataclass(frozen=True)
class Precedents:
    """How often the data show what is asked for."""

    share: float  # of the recorded stretches, that earn enough
    best: float  # mean reward of a step in the best of them
    enough: float

    @property
    def warning(self) -> str | None:
        """What to tell a user who asks for what is hardly there; None if it is."""
        if self.share >= 1e-3:
            return None
        return (f"{self.share:.2%} of the recorded stretches earn {self.enough:g} a step or more; the best earns "
                f"{self.best:.2f}. The reward asks for what the data do not show, and a plan can only come near what "
                "they do: ask for less, or collect data that show it")


def precedents(reward: Reward, windows: Windows, enough: float, *, most: int = 5000) -> Precedents:
    """How many of a set's windows earn `enough` a step on average (evenly spaced windows, if there are many)."""
    which = torch.linspace(0, len(windows) - 1, min(most, len(windows)), dtype=torch.float64).long()
    w = windows.take(which.to(windows.index.device))
    before = torch.cat((w.state[:, None], w.states[:, :-1]), dim=1)
    earned = reward(before, w.actions, w.states).mean(dim=1)
    return Precedents(float((earned >= enough).float().mean()), float(earned.max()), enough)


def _states(episodes: Episodes, n: int, generator: torch.Generator) -> Float[Tensor, "n S"]:
    valid = torch.arange(episodes.actions.shape[1]) < episodes.lengths[:, None]
    states = episodes.states[:, :-1][valid]
    return states[torch.randint(len(states), (n,), generator=generator)]
