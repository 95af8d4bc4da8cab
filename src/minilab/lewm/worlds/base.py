"""What a world is: physics on a plain table of numbers, and a picture of each row.

A model of this chapter sees pictures and actions, never states. We keep states all the same, because they are small and
a picture can be drawn from them at any size whenever it is needed: a set of a million frames is a few megabytes. So
`step` and `render` are functions of the state alone, and B copies of a world are B rows.

Shapes: B copies, S numbers in a state, A in an action; a picture is 3 x size x size.
"""

import importlib
import math
from collections.abc import Callable
from functools import cache
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

# A world is one line here and a module beside this file, which is imported when its world is asked for.
WORLDS = {
    "rooms": ("rooms", "Rooms"),
    "disc": ("disc", "Disc"),
    "pusht": ("pusht", "PushT"),
    "cube": ("cube", "Cube"),
}


@runtime_checkable
class Policy(Protocol):
    """Who acts while data are made, in B episodes at a time: it may remember what it wants in each."""

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        """One action for each copy."""

    def done(self, state: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
        """Whether the episode ends in this state, before its last step."""


@runtime_checkable
class World(Protocol):
    """Vectorised over B copies. Nothing here changes a state in place."""

    name: str
    version: str  # of physics and policies: another one makes all data anew
    state_dim: int  # S
    action_dim: int  # A
    frame: int  # side of the square that a picture shows, in the units of positions
    policies: tuple[str, ...]  # the first is the one to make training data with
    quantities: dict[str, slice]  # what probes read off a latent: names, and where they stand in a state

    def reset(self, n: int, generator: torch.Generator) -> Float[Tensor, "n S"]:
        """Random states, on the generator's device."""

    def step(self, state: Float[Tensor, "B S"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B S"]:
        """Where an action leads; one outside [-1, 1] is cut to it."""

    def render(self, state: Float[Tensor, "B S"], size: int = 64, *, color: Float[Tensor, "B 3"] | None = None
               ) -> UInt8[Tensor, "B 3 size size"]:
        """Pictures. `color` (red, green, blue; 0 to 255) repaints what a test of surprise repaints."""

    def success(self, state: Float[Tensor, "B S"], goal: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
        """Whether a state is as good as the goal."""

    def policy(self, name: str, copies: int, generator: torch.Generator) -> Policy:
        """One of `policies`, about to begin `copies` episodes. Raises ValueError for another name."""


@runtime_checkable
class Symmetric(Protocol):
    """A world on a square, in whose eight images (`square`) its physics is the same."""

    def mirrored(self, state: Float[Tensor, "B *n S"], action: Float[Tensor, "B *k A"], image: Int[Tensor, "B"]
               ) -> tuple[Float[Tensor, "B *n S"], Float[Tensor, "B *k A"]]:
        """States and actions as they are in the image of each row."""


def world_named(name: str) -> World:
    """The world called `name`. Raises ValueError with those that there are."""
    if name not in WORLDS:
        raise ValueError(f"no world {name!r}; choose one of {', '.join(WORLDS)}")
    module, world = WORLDS[name]
    return getattr(importlib.import_module(f"minilab.lewm.worlds.{module}"), world)()


def distances(world: World, state: Float[Tensor, "B S"], goal: Float[Tensor, "B S"]) -> dict[str, Float[Tensor, "B"]]:
    """How far a state is from the goal in each of the world's quantities, an angle the shorter way round.

    What looks the same after a quarter turn has a "quarter angle".
    """
    def apart(name: str, where: slice) -> Float[Tensor, "B q"]:
        gap, turn = (state - goal)[:, where], math.pi / 2 if name.endswith("quarter angle") else 2 * math.pi
        return (gap + turn / 2) % turn - turn / 2 if name.endswith("angle") else gap

    return {name: apart(name, where).norm(dim=1) for name, where in world.quantities.items()}


class Uniform:
    """Uniform actions in [-1, 1], each for itself: the floor that a planner must clear."""

    def __init__(self, action_dim: int, copies: int, generator: torch.Generator) -> None:
        self.shape, self.generator = (copies, action_dim), generator

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        return 2 * torch.rand(self.shape, generator=self.generator, device=self.generator.device) - 1

    def done(self, state: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
        return torch.zeros(len(state), dtype=torch.bool, device=state.device)


class Blur:
    """Makes actions less sure: Gaussian noise, cut to [-1, 1], and now and then the copy's last action again."""

    def __init__(self, noise: float, repeat: float, generator: torch.Generator) -> None:
        self.noise, self.repeat, self.generator, self.last = noise, repeat, generator, None

    def __call__(self, action: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
        draw = {"generator": self.generator, "device": action.device}
        action = (action + self.noise * torch.randn(action.shape, **draw)).clamp(-1, 1)
        again = torch.rand(len(action), 1, **draw) < self.repeat
        self.last = action if self.last is None else torch.where(again, self.last, action)
        return self.last


def unit(vector: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """The direction of each row; 0 stays 0."""
    return vector / vector.norm(dim=1, keepdim=True).clamp(min=1e-8)


@cache
def square(device: torch.device) -> Float[Tensor, "8 2 2"]:
    """The eight ways to lay a square on itself, as what they do to (x, y): four turns, and each of them mirrored."""
    turn, mirror = torch.tensor([[0.0, -1.0], [1.0, 0.0]]), torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    turns = [torch.linalg.matrix_power(turn, k) for k in range(4)]
    return torch.stack(turns + [turned @ mirror for turned in turns]).to(device)


def laid(vectors: Float[Tensor, "B *n 2"], image: Int[Tensor, "B"]) -> Float[Tensor, "B *n 2"]:
    """Vectors from a square's middle, each row's in one of the square's eight images."""
    way = square(vectors.device)[image].transpose(1, 2)  # B 2 2
    return (vectors.flatten(1, -2) @ way if vectors.dim() > 2 else (vectors[:, None] @ way)[:, 0]).view(vectors.shape)


def check_size(size: int) -> None:
    """Raises ValueError for pictures too small to show anything."""
    if size < 8:
        raise ValueError(f"pictures of {size} x {size} pixels show nothing: give a size of at least 8")


@cache
def pixel_centers(size: int, frame: int, device: torch.device) -> Float[Tensor, "size"]:
    """Where the pixels of a row stand in a world whose own pixel i is centered on the number i."""
    check_size(size)
    return (torch.arange(size, device=device) + 0.5) * (frame / size) - 0.5


def resized(picture: Float[Tensor, "C frame frame"], size: int) -> Float[Tensor, "C size size"]:
    """A square picture at another size: each new pixel is the mean of the area that it covers."""
    frame = picture.shape[-1]
    low = torch.arange(size, device=picture.device)[:, None] * (frame / size)
    pixel = torch.arange(frame, device=picture.device)
    overlap = (torch.minimum(low + frame / size, pixel + 1.0) - torch.maximum(low, pixel)).clamp(min=0)
    share = overlap * (size / frame)  # size frame: each row sums to 1
    return share @ picture @ share.T


def in_batches(draw: Callable[..., Float[Tensor, "b 3 size size"]], size: int, *rows: Tensor, rays: int = 1
               ) -> UInt8[Tensor, "B 3 size size"]:
    """draw(*rows) as bytes, a few rows at a time: on a processor, frames that leave its cache cost three times more.

    `rays` is how many numbers `draw` works with for each that it returns.
    """
    device = rows[0].device
    few = max(1, (2**19 if device.type == "cpu" else 2**27) // (3 * size**2 * rays))
    frames = torch.empty(len(rows[0]), 3, size, size, dtype=torch.uint8, device=device)
    for i in range(0, len(frames), few):
        frames[i : i + few] = draw(*(row[i : i + few] for row in rows)).round_()
    return frames
