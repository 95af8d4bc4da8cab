"""Episodes as tables on disk, and the clips of them that a model is trained on.

- A row is a state and the action that leaves it. An episode of L actions has L + 1 rows, and the last has no action:
  NaN, as in the published files (`hdf5.py` reads those as the same kind of set).
- A clip is T frames, `skip` rows apart. Beside each frame stands its block: the `skip` actions that leave it, one after
  the other. Block i leads from frame i to frame i + 1; the last block leads out of the clip, if the episode goes on.
- Actions are z-scored by column. What is missing is 0 after that: an average action, not a strong one.
- Episodes are held out whole. Neighboring windows share frames, so windows that are held out one by one are not unseen.
- The start and the goal of a task, 25 steps apart, are a clip too: `Clips(data, frames=2, skip=25)`.

Shapes: E episodes, N rows, S numbers in a state, A in an action; B clips, T frames, k rows from one to the next.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from minilab.core.files import replacing
from minilab.core.weights import read_verified
from minilab.lewm.worlds import World, world_named
from minilab.lewm.worlds.base import Symmetric, check_size

LICENCE = "CC0-1.0: simulated by minilab"
PARTS = ("states", "actions", "ep_len", "ep_offset")  # the tensors of a set
Pixels = Callable[[Tensor, int | None], Tensor]  # rows and a size -> frames, for sets that keep their pictures


@dataclass(frozen=True)
class Trajectories:
    """Episodes, end to end in one table. A subset shares the table and lists fewer episodes."""

    world: str  # its name; "" if none of ours made the set
    states: Float[Tensor, "N S"]
    actions: Float[Tensor, "N A"]
    ep_len: Int[Tensor, "E"]  # rows of each episode
    ep_offset: Int[Tensor, "E"]  # its first row
    pixels: Pixels | None = None  # by default the world draws the states

    def __len__(self) -> int:
        return len(self.ep_len)

    @property
    def rows(self) -> Int[Tensor, "n"]:
        """The rows of these episodes, in order."""
        shift = self.ep_offset - (self.ep_len.cumsum(0) - self.ep_len)
        return torch.arange(int(self.ep_len.sum()), device=shift.device) + shift.repeat_interleave(self.ep_len)

    def episode(self, i: int) -> tuple[Float[Tensor, "L1 S"], Float[Tensor, "L A"]]:
        """The states of an episode and the actions between them."""
        rows = slice(int(self.ep_offset[i]), int(self.ep_offset[i] + self.ep_len[i]))
        return self.states[rows], self.actions[rows][:-1]

    def subset(self, which: Tensor | Sequence[int]) -> "Trajectories":
        """Some of the episodes, in the order of `which` (indices)."""
        at = torch.as_tensor(which, dtype=torch.long, device=self.ep_len.device)
        return replace(self, ep_len=self.ep_len[at], ep_offset=self.ep_offset[at])

    def split(self, held_out: float, generator: torch.Generator) -> tuple["Trajectories", "Trajectories"]:
        """The set without a share of its episodes, and that share.

        Raises ValueError if nothing would be left.
        """
        n = max(1, round(held_out * len(self)))
        if n >= len(self):
            raise ValueError(f"{len(self)} episodes leave nothing to learn from when {n} are held out: make more")
        order = torch.randperm(len(self), generator=generator, device=generator.device)
        return self.subset(order[n:]), self.subset(order[:n])

    def to(self, device: torch.device | str) -> "Trajectories":
        """The set in a device's memory: clips are then cut and drawn there."""
        return replace(self, **{part: getattr(self, part).to(device) for part in PARTS})

    def drawn(self, size: int) -> "Trajectories":
        """The set with each row's picture drawn (or read) once and kept beside the states: N x 3 x size x size bytes.

        For pictures that take longer than a step of training. Those of another size are drawn (or read) as before.
        """
        def anew(rows: Int[Tensor, "n"], wanted: int | None) -> UInt8[Tensor, "n 3 H W"]:
            if self.pixels is not None:
                return self.pixels(rows, wanted)
            world = world_named(self.world)
            return world.render(self.states[rows], wanted or world.frame)

        kept = torch.empty(len(self.states), 3, size, size, dtype=torch.uint8, device=self.states.device)
        for into, rows in zip(kept.split(4096), torch.arange(len(kept)).split(4096), strict=True):
            into.copy_(anew(rows, size))

        def pixels(rows: Int[Tensor, "n"], wanted: int | None) -> UInt8[Tensor, "n 3 H W"]:
            return kept[rows] if wanted == size else anew(rows, wanted)

        return replace(self, pixels=pixels)

    @cached_property
    def scale(self) -> "Scale":
        """The scale of these episodes' actions. Take it from what is trained on, also for what is held out."""
        actions = self.actions[self.rows].double()
        actions = actions[actions.isfinite().all(dim=1)]
        if len(actions) < 2:
            raise ValueError(f"{len(self)} episodes hold {len(actions)} actions, too few to scale them: make more")
        return Scale(actions.mean(dim=0).float(), actions.std(dim=0).float().clamp(min=1e-6))


@dataclass(frozen=True)
class Scale:
    """Mean and spread of each action column, and the way to a model's blocks and back."""

    mean: Float[Tensor, "A"]
    std: Float[Tensor, "A"]

    def blocks(self, actions: Float[Tensor, "*b k A"]) -> Float[Tensor, "*b kA"]:
        """k raw actions as one z-scored block; missing ones (NaN) are 0."""
        return ((actions - self.mean) / self.std).nan_to_num(nan=0.0).flatten(-2)

    def actions(self, blocks: Float[Tensor, "*b kA"]) -> Float[Tensor, "*b k A"]:
        """The raw actions of a block."""
        return blocks.unflatten(-1, (-1, len(self.mean))) * self.std + self.mean


class Clip(NamedTuple):
    """What a model is trained on, and what it is asked about."""

    frames: UInt8[Tensor, "B T 3 H W"]
    actions: Float[Tensor, "B T kA"]
    states: Float[Tensor, "B T S"]
    episode: Int[Tensor, "B"]  # its number in the set
    start: Int[Tensor, "B"]  # the first frame's row in it


class Clips:
    """All windows of T frames, `skip` rows apart, within one episode each; `skipped` counts the too short ones. It
    warns if these hold more than a quarter of the rows.

    `size` is of the pictures (None: as they are), `scale` by default the set's own. With `mirrored` each clip that is
    drawn is in one of the eight images of its square world, turned or mirrored: as many clips more. Raises ValueError
    if no episode is long enough, for sizes that show nothing, for an unknown world, and for one that has no such images
    or that keeps pictures.
    """

    def __init__(self, data: Trajectories, *, frames: int = 4, skip: int = 5, size: int | None = 64,
                 scale: Scale | None = None, mirrored: bool = False) -> None:
        if frames < 1 or skip < 1:
            raise ValueError(f"{frames} frames at a frame skip of {skip} are no clip: give at least 1 of each")
        if size is not None:
            check_size(size)
        self.world: World | None = world_named(data.world) if data.world or data.pixels is None else None
        if mirrored and not (isinstance(self.world, Symmetric) and data.pixels is None):
            raise ValueError(f"clips of the world {data.world!r} cannot be drawn turned and mirrored: those of Push-T "
                             "and of the disc can, if the set keeps states and no pictures")
        self.data, self.T, self.skip, self.size, self.mirrored = data, frames, skip, size, mirrored
        self.scale = scale or data.scale
        reach = (frames - 1) * skip + 1
        self.windows = (data.ep_len - reach + 1).clamp(min=0)
        self.skipped = int((self.windows == 0).sum())
        if self.skipped == len(data):
            raise ValueError(f"{frames} frames at a frame skip of {skip} reach over {reach} rows, and the longest of "
                             f"{len(data)} episodes has {int(data.ep_len.max()) if len(data) else 0}: ask for fewer "
                             "frames or a lower skip, or make longer episodes")
        # By rows: short episodes may be many and hold little, as in Two Rooms, where an episode ends at its goal.
        lost = float(data.ep_len[self.windows == 0].sum() / data.ep_len.sum())
        if lost > 0.25:
            warnings.warn(f"{self.skipped} of {len(data)} episodes, with {lost:.0%} of the rows, are shorter than the "
                          f"{reach} rows that {frames} frames at a frame skip of {skip} reach over, and are left out",
                          stacklevel=2)
        self._ends = self.windows.cumsum(0)
        self._count = int(self._ends[-1])  # asked for at every draw: on a GPU each look at it would wait

    def __len__(self) -> int:
        return self._count

    def take(self, which: Int[Tensor, "B"], image: Int[Tensor, "B"] | None = None) -> Clip:
        """The clips with these numbers, each in its image of the world if these are given."""
        data, device = self.data, self.data.ep_len.device
        which = which.to(device)
        episode = torch.searchsorted(self._ends, which, right=True)
        start = which - (self._ends - self.windows)[episode]
        first, end = data.ep_offset[episode] + start, (data.ep_offset + data.ep_len)[episode]
        rows = first[:, None] + self.skip * torch.arange(self.T, device=device)  # B T
        steps = rows[:, :, None] + torch.arange(self.skip, device=device)  # B T k
        actions = data.actions[steps.clamp(max=len(data.actions) - 1)]  # B T k A
        actions = actions.masked_fill((steps >= end[:, None, None])[..., None], float("nan"))
        states = data.states[rows]
        if image is not None:
            states, actions = self.world.mirrored(states, actions, image)
        frames = self.frames(states) if data.pixels is None else (
            data.pixels(rows.flatten(), self.size).to(device).unflatten(0, rows.shape))
        return Clip(frames, self.scale.blocks(actions), states, episode, start)

    def draw(self, n: int, generator: torch.Generator) -> Clip:
        """n clips, with replacement; every window is as likely as any other."""
        draw = {"generator": generator, "device": generator.device}
        which = torch.randint(len(self), (n,), **draw)
        return self.take(which, torch.randint(8, (n,), **draw).to(self.data.ep_len.device) if self.mirrored else None)

    def frames(self, states: Float[Tensor, "*b S"]) -> UInt8[Tensor, "*b 3 H W"]:
        """The world's pictures of any states, at the size of the clips. Raises ValueError if no world is known."""
        if self.world is None:
            raise ValueError("this set keeps pictures of a world that it does not name, and no state can be drawn: "
                             "name one of ours when you read it")
        drawn = self.world.render(states.flatten(0, -2), self.size or self.world.frame)
        return drawn.unflatten(0, states.shape[:-1])


def save_trajectories(data: Trajectories, path: Path, card: Mapping) -> Path:
    """Write a set of a world of ours (.safetensors) and its card beside it; each appears whole or not at all."""
    rows, lengths = data.rows, data.ep_len.cpu()
    content = to_safetensors({"states": data.states[rows].cpu().contiguous(),
                              "actions": data.actions[rows].cpu().contiguous(),
                              "ep_len": lengths, "ep_offset": lengths.cumsum(0) - lengths})
    facts = {"world": data.world, "episodes": len(data), "rows": len(rows), "state_dim": data.states.shape[1],
             "action_dim": data.actions.shape[1], "licence": LICENCE,
             "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    with replacing(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps({**card, **facts}, indent=1) + "\n", encoding="utf-8")
    return path


def load_trajectories(path: Path | str) -> Trajectories:
    """A set, mapped into memory: rows are read from disk when they are used.

    Raises FileNotFoundError if there is no such file or card, and ValueError if it is damaged or no set of its world.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no trajectories at {path}: make them with minilab.lewm.collect.collect")
    card = read_verified(path)[1]
    with safe_open(path, "pt") as file:
        if set(file.keys()) != set(PARTS) or "world" not in card:
            raise ValueError(f"{path} does not hold trajectories but {card.get('what')!r}")
        parts = {part: file.get_tensor(part) for part in PARTS}
    check_table(str(path), world_named(card["world"]), **parts)
    return Trajectories(card["world"], **parts)


def check_table(name: str, world: World | None, states: Tensor, actions: Tensor, ep_len: Tensor, ep_offset: Tensor
                ) -> None:
    """Raises ValueError if the parts of a set do not fit each other, or the world."""
    if len(states) != len(actions) or len(ep_len) != len(ep_offset):
        raise ValueError(f"{name} has {len(states)} states and {len(actions)} actions, {len(ep_len)} lengths and "
                         f"{len(ep_offset)} offsets of episodes: they should be as many; get the file again")
    ends = ep_offset + ep_len
    if len(ep_len) and (ep_len.min() < 1 or ep_offset.min() < 0 or ends.max() > len(states)):
        raise ValueError(f"{name} has {len(states)} rows, and its episodes go from {int(ep_offset.min())} to "
                         f"{int(ends.max())}, the shortest over {int(ep_len.min())}: get the file again")
    found = states.shape[1], actions.shape[1]
    if world is not None and found != (world.state_dim, world.action_dim):
        raise ValueError(f"{name} has {found[0]} numbers a state and {found[1]} an action; the world {world.name!r} "
                         f"has {world.state_dim} and {world.action_dim}: name the world that it is of")
