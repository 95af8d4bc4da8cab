"""Offline data: episodes, what is asked of them (windows, returns to go), and the scales that networks want.

An episode is T actions and T+1 states. Episodes of one set lie in rectangular arrays; those that ended in a fall are
shorter than the array and say so in `lengths`. They are made in `collect.py` and stored as float16 with a card, or read
from a Minari set (`minari.py`).

Shapes: E episodes, T steps, S numbers in a state, A in an action, F steps in a window, B windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minilab.core.weights import load_weights, save_weights
from minilab.dmpc.envs import Task, task_named

LICENCE = "CC0-1.0: simulated by minilab"
PARTS = ("states", "actions", "rewards", "lengths", "fell")  # the tensors of a set


@dataclass(frozen=True)
class Episodes:
    """What was seen, done and earned. Rows past an episode's length repeat its last state, with zero actions."""

    task: str
    states: Float[Tensor, "E T1 S"]
    actions: Float[Tensor, "E T A"]
    rewards: Float[Tensor, "E T"]
    lengths: Int[Tensor, "E"]
    fell: Bool[Tensor, "E"]
    source: tuple[str, ...]  # which policy acted, one name an episode

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def transitions(self) -> int:
        return int(self.lengths.sum())

    @property
    def returns(self) -> Float[Tensor, "E"]:
        return self.rewards.sum(dim=1)

    def rows(self, which: Tensor | Sequence[int]) -> "Episodes":
        """Some of the episodes, in the order of `which` (indices)."""
        at = torch.as_tensor(which, dtype=torch.long)
        return Episodes(self.task, self.states[at], self.actions[at], self.rewards[at], self.lengths[at], self.fell[at],
                        tuple(self.source[i] for i in at.tolist()))

    def to(self, device: torch.device | str) -> "Episodes":
        return replace(self, **{part: getattr(self, part).to(device) for part in PARTS})

    def split(self, held_out: float, generator: torch.Generator) -> tuple["Episodes", "Episodes"]:
        """The set without a share of its episodes, and that share: no episode is in both.

        Raises ValueError if nothing would be left.
        """
        n = max(1, round(held_out * len(self)))
        if n >= len(self):
            raise ValueError(f"{len(self)} episodes leave nothing to learn from when {n} are held out: make more")
        order = torch.randperm(len(self), generator=generator)
        return self.rows(order[n:]), self.rows(order[:n])


def joined(sets: Sequence[Episodes]) -> Episodes:
    """Several sets of one task as one. Raises ValueError if tasks or lengths of arrays differ."""
    if len({(e.task, e.actions.shape[1:]) for e in sets}) != 1:
        raise ValueError("only sets of one task and one length can be joined, not "
                         + ", ".join(f"{e.task} of {tuple(e.actions.shape[1:])}" for e in sets))
    parts = {part: torch.cat([getattr(e, part) for e in sets]) for part in PARTS}
    return Episodes(sets[0].task, **parts, source=sum((e.source for e in sets), ()))


def save_episodes(episodes: Episodes, path: Path | str, *, what: str, how_made: str) -> Path:
    """Write a set and its card. float16 keeps three digits, less than the noise of any policy here."""
    card = {"what": what, "how_made": how_made, "licence": LICENCE, "task": episodes.task,
            "source": list(episodes.source)}
    return save_weights({part: getattr(episodes, part) for part in PARTS}, path, card=card, dtype="fp16")


def load_episodes(path: Path | str, task: Task | None = None) -> Episodes:
    """Read a set, by path or by the name of an asset, once its hash is right.

    Raises FileNotFoundError if there is none, and ValueError if it is damaged or of another task than `task`.
    """
    tensors, card = load_weights(path)
    if not {"task", "source"} <= card.keys() or tensors.keys() != set(PARTS):
        raise ValueError(f"{path} does not hold episodes but {card['what']!r}")
    tensors["lengths"], tensors["fell"] = tensors["lengths"].long(), tensors["fell"].bool()
    episodes = Episodes(card["task"], **tensors, source=tuple(card["source"]))
    return checked_for(episodes, task or task_named(card["task"]))


def checked_for(episodes: Episodes, task: Task) -> Episodes:
    """The set, if it is one of `task`. Raises ValueError if its name or its numbers' count say otherwise."""
    dims = task.state_dim, task.action_dim
    found = episodes.states.shape[-1], episodes.actions.shape[-1]
    if (episodes.task, found) != (task.name, dims):
        raise ValueError(f"these episodes are of {episodes.task} with {found[0]} numbers a state and {found[1]} an "
                         f"action; {task.name} has {dims[0]} and {dims[1]}: load a set of that task")
    return episodes


class Window(NamedTuple):
    """F steps from some moment on: what a proposal and a dynamics model learn."""

    state: Float[Tensor, "B S"]
    actions: Float[Tensor, "B F A"]
    states: Float[Tensor, "B F S"]


class Windows:
    """All windows of F steps of a set. One that reaches past a fall sees the body lie where it fell.

    Raises ValueError if no episode is long enough.
    """

    def __init__(self, episodes: Episodes, F: int) -> None:
        if F < 1 or episodes.actions.shape[1] < F:
            raise ValueError(f"windows of {F} steps do not fit episodes of {episodes.actions.shape[1]}: choose a "
                             f"horizon from 1 to {episodes.actions.shape[1]}")
        self.episodes, self.F = episodes, F
        T = episodes.actions.shape[1]
        t = torch.arange(T, device=episodes.lengths.device)
        # The last step at which a window may start.
        last = torch.where(episodes.fell, episodes.lengths - 1, episodes.lengths - F).clamp(max=T - F)
        self.index = (t <= last[:, None]).nonzero()  # W 2: episode and step
        if not len(self.index):
            raise ValueError(f"no episode is {F} steps long: choose a shorter horizon")
        self._offsets = torch.arange(F, device=t.device)

    def __len__(self) -> int:
        return len(self.index)

    def take(self, which: Int[Tensor, "B"]) -> Window:
        """The windows with these numbers."""
        e, t = self.index[which].unbind(dim=1)
        steps = t[:, None] + self._offsets
        states, actions = self.episodes.states, self.episodes.actions
        return Window(states[e, t], actions[e[:, None], steps], states[e[:, None], steps + 1])

    def draw(self, n: int, generator: torch.Generator) -> Window:
        """n windows, drawn with replacement on the generator's device."""
        which = torch.randint(len(self), (n,), generator=generator, device=generator.device)
        return self.take(which.to(self.index.device))


class Mixture:
    """Windows of which a share comes from one set and the rest from another."""

    def __init__(self, one: Windows, other: Windows, share: float) -> None:
        self.one, self.other, self.share = one, other, share
        self.F, self.index, self.episodes = one.F, one.index, one.episodes

    def draw(self, n: int, generator: torch.Generator) -> Window:
        ones = round(self.share * n)
        parts = self.one.draw(ones, generator), self.other.draw(n - ones, generator)
        return Window(*(torch.cat(pair) for pair in zip(*parts, strict=True)))


def returns_to_go(rewards: Float[Tensor, "E T"], discount: float) -> Float[Tensor, "E T"]:
    """sum_i discount^i r_{t+i} from each step to the end of its array."""
    out, total = torch.empty_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        total = rewards[:, t] + discount * total
        out[:, t] = total
    return out


def value_targets(episodes: Episodes, discount: float, *, fall_cost: float = 0.0, neglect: float = 0.1
                  ) -> tuple[Float[Tensor, "n S"], Float[Tensor, "n"]]:
    """States and their discounted returns to go, of every step from which little is cut off.

    Where an episode was stopped by the clock, its last steps know only part of what they would have earned: they are
    left out while discount^(steps left) > `neglect`. After a fall nothing is earned, and it costs `fall_cost`.
    """
    rewards = episodes.rewards.clone()
    ends = episodes.fell.nonzero()[:, 0]
    rewards[ends, episodes.lengths[ends] - 1] -= fall_cost
    G = returns_to_go(rewards, discount)
    left = episodes.lengths[:, None] - torch.arange(rewards.shape[1], device=rewards.device)
    whole = torch.where(episodes.fell[:, None], left > 0, discount ** left.clamp(min=0) <= neglect)
    if not whole.any():
        raise ValueError(f"episodes of {int(episodes.lengths.max())} steps are too short for a discount of {discount}: "
                         "lower it, or make longer episodes")
    return episodes.states[:, :-1][whole], G[whole]


@dataclass(frozen=True)
class Scales:
    """Mean and spread of the states, and the spread of how far they move in 1..F steps."""

    mean: Float[Tensor, "S"]
    std: Float[Tensor, "S"]
    change: Float[Tensor, "F S"]

    @classmethod
    def of(cls, windows: Windows, *, most: int = 50_000) -> "Scales":
        """Read off a set's windows (evenly spaced ones, if there are many); no scale is 0."""
        which = torch.linspace(0, len(windows) - 1, min(most, len(windows)), dtype=torch.float64).long()
        w = windows.take(which.to(windows.index.device))
        change = (w.states - w.state[:, None]).square().mean(dim=0).sqrt()
        return cls(w.state.mean(dim=0), w.state.std(dim=0).clamp(min=1e-3), change.clamp(min=1e-3))
