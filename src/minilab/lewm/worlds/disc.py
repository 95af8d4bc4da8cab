"""Push a disc: the rung between a dot that walks and Push-T. A round pusher moves a round disc over a table.

- Quasi-static: nothing slides on. A step is a few small ones; in each the pusher moves, and a disc that it overlaps
  is shifted along the line of their centers until they touch. No friction, no angle, so four numbers are the state.
- The disc stops at the walls, and then the pusher stops at the disc: it is put back along the same line. Were it let
  on, it would squeeze the disc out of the table. What still overlaps after that (a disc in a corner) has not moved.
- A disc at a wall is not lost. The pusher is smaller: sliding along the wall itself, it pushes the disc off it.
- Success counts the disc alone; how far the pusher is from its place in the goal, `distances` says.

Shapes: B copies; a state is the pusher's (x, y), then the disc's, S = 4, with y pointing down; A = 2.
"""

import math
from functools import cache

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from minilab.lewm.worlds.base import Blur, Policy, Uniform, in_batches, laid, pixel_centers, resized, unit

FRAME = 224
MARGIN, LINE = 14, 4  # the table is the square from 14 to 210, and the line lies just outside
PUSHER, DISC = 10.0, 24.0  # radii
TOUCH = PUSHER + DISC
SPEED, SUBSTEPS = 6.0, 4
SUCCESS = 12.0
LOW, HIGH = MARGIN - 0.5, FRAME - MARGIN - 0.5  # the table's edges, where a pixel i reaches from i - 0.5 to i + 0.5
SLACK = 1e-3  # an overlap that rounding may leave
WEAK = {"mixed": 0.25, "push": 0.0, "half": 0.5, "wavering": 0.5, "weak": 1.0}  # share of each policy's copies
BLUE, GRAY = (65.0, 105.0, 225.0), (119.0, 136.0, 153.0)


class Disc:
    """The world. It has no state of its own."""

    name, version, state_dim, action_dim, frame = "disc", "1", 4, 2, FRAME
    policies = ("mixed", "push", "half", "wavering", "weak", "random")
    quantities = {"agent xy": slice(0, 2), "disc xy": slice(2, 4)}

    def reset(self, n: int, generator: torch.Generator) -> Float[Tensor, "n S"]:
        """Both uniform over where they can be, apart from each other."""
        state = torch.cat((_places(n, PUSHER, generator), _places(n, DISC, generator)), dim=1)
        while (close := _gap(state) < 0).any():
            state[close] = self.reset(int(close.sum()), generator)
        return state

    def step(self, state: Float[Tensor, "B S"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B S"]:
        move = SPEED / SUBSTEPS * action.clamp(-1, 1)
        for _ in range(SUBSTEPS):
            pusher, disc = state.split(2, dim=1)
            pusher = _inside(pusher + move, PUSHER)
            away = unit(disc - pusher)
            overlap = (TOUCH - (disc - pusher).norm(dim=1, keepdim=True)).clamp(min=0)
            disc = _inside(disc + overlap * away, DISC)
            overlap = (TOUCH - (disc - pusher).norm(dim=1, keepdim=True)).clamp(min=0)
            pusher = _inside(pusher - overlap * unit(disc - pusher), PUSHER)
            moved = torch.cat((pusher, disc), dim=1)
            state = torch.where((_gap(moved) > -SLACK)[:, None], moved, state)
        return state

    def render(self, state: Float[Tensor, "B S"], size: int = 64, *, color: Float[Tensor, "B 3"] | None = None
               ) -> UInt8[Tensor, "B 3 size size"]:
        """A gray disc and a blue pusher on white; `color` is the disc's. Edges cover a pixel in part."""
        centers, table = pixel_centers(size, FRAME, state.device), _table(size, state.device)
        paint = state.new_tensor([GRAY]).expand(len(state), 3) if color is None else color.to(state)
        blue = state.new_tensor(BLUE)[:, None, None]

        def covered(at: Float[Tensor, "b 2"], radius: float) -> Float[Tensor, "b 1 size size"]:
            squares = (centers - at[:, :, None]).square()  # b 2 size
            far = (squares[:, 1, :, None] + squares[:, 0, None, :]).sqrt()
            return ((radius - far) * (size / FRAME) + 0.5).clamp(0, 1)[:, None]

        def draw(state: Float[Tensor, "b S"], paint: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 size size"]:
            under = table + covered(state[:, 2:], DISC) * (paint[:, :, None, None] - table)
            return under + covered(state[:, :2], PUSHER) * (blue - under)

        return in_batches(draw, size, state, paint)

    def success(self, state: Float[Tensor, "B S"], goal: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
        return (state - goal)[:, 2:].norm(dim=1) < SUCCESS

    def mirrored(self, state: Float[Tensor, "B *n S"], action: Float[Tensor, "B *k A"], image: Int[Tensor, "B"]
               ) -> tuple[Float[Tensor, "B *n S"], Float[Tensor, "B *k A"]]:
        """States and actions in one of the square's eight images."""
        middle = (LOW + HIGH) / 2
        parts = [middle + laid(place - middle, image) for place in state.split(2, dim=-1)]
        return torch.cat(parts, dim=-1), laid(action, image)

    def policy(self, name: str, copies: int, generator: torch.Generator) -> Policy:
        """"push" takes the disc places, "weak" bumps into it, "mixed" is three episodes of the first to one of it and
        "half" one to one; "wavering" is now the one and now the other within an episode."""
        if name == "random":
            return Uniform(self.action_dim, copies, generator)
        if name in WEAK:
            return Pusher(copies, generator, weak=WEAK[name], waver=0.1 if name == "wavering" else 0.0)
        raise ValueError(f"the disc has no policy {name!r}; choose one of {', '.join(self.policies)}")


class Pusher:
    """Walks behind the disc, as seen from where the disc shall go, and pushes; a weak copy strolls around the disc.

    A copy wants something else once it has it, and now and then before: some places cannot be pushed to. With a chance
    of `waver` in each step it changes sides.
    """

    patience = 40  # steps that a wish lasts on average
    stroll = 60.0  # how far from the disc's center a weak copy strolls, along each axis
    turn = math.radians(40)  # how far ahead on its way around the disc it aims
    aligned = math.radians(20)  # so nearly behind the disc it pushes

    def __init__(self, copies: int, generator: torch.Generator, *, weak: float, waver: float = 0.0, noise: float = 0.4,
                 repeat: float = 0.05) -> None:
        self.generator, self.waver, self.blur = generator, waver, Blur(noise, repeat, generator)
        self.weak = torch.rand(copies, 1, generator=generator, device=generator.device) < weak
        self.wish = None  # where the disc shall go, or where a weak copy goes itself

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        pusher, disc = state.split(2, dim=1)
        draw = {"generator": self.generator, "device": state.device}
        changed = self._changes(draw)
        near = disc + self.stroll * (2 * torch.rand(len(state), 2, **draw) - 1)
        fresh = torch.where(self.weak, _inside(near, PUSHER), _places(len(state), DISC, self.generator))
        anew = torch.rand(len(state), 1, **draw) < 1 / self.patience
        if self.wish is not None:
            there = (self.wish - torch.where(self.weak, pusher, disc)).norm(dim=1, keepdim=True) < SPEED
            fresh = torch.where(anew | there | changed, fresh, self.wish)
        self.wish = fresh
        waypoint = torch.where(self.weak, self.wish, self._behind(pusher, disc))
        return self.blur(unit(waypoint - pusher))

    def _changes(self, draw: dict) -> Bool[Tensor, "B 1"]:
        """Who changes sides in this step."""
        if not self.waver:
            return torch.zeros_like(self.weak)
        changed = torch.rand(self.weak.shape, **draw) < self.waver
        self.weak = self.weak ^ changed
        return changed

    def _behind(self, pusher: Float[Tensor, "B 2"], disc: Float[Tensor, "B 2"]) -> Float[Tensor, "B 2"]:
        """The next point of a way around the disc to the side that the wish is not on; there, a point inside it."""
        out, goal = pusher - disc, disc - self.wish
        now, then = torch.atan2(out[:, 1], out[:, 0]), torch.atan2(goal[:, 1], goal[:, 0])
        left = (then - now + math.pi) % (2 * math.pi) - math.pi
        angle = now + left.clamp(-self.turn, self.turn)
        radius = torch.where(left.abs() < self.aligned, TOUCH - 2 * SPEED, TOUCH + SPEED)
        return disc + radius[:, None] * torch.stack((angle.cos(), angle.sin()), dim=1)

    def done(self, state: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
        return torch.zeros(len(state), dtype=torch.bool, device=state.device)


def _inside(at: Float[Tensor, "B 2"], radius: float) -> Float[Tensor, "B 2"]:
    """The nearest place on the table for something round."""
    return at.clamp(LOW + radius, HIGH - radius)


def _places(n: int, radius: float, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """Uniform places on the table for something round."""
    share = torch.rand(n, 2, generator=generator, device=generator.device)
    return LOW + radius + share * (HIGH - LOW - 2 * radius)


def _gap(state: Float[Tensor, "B S"]) -> Float[Tensor, "B"]:
    """How much air is between pusher and disc; less than 0 where they overlap."""
    return (state[:, 2:] - state[:, :2]).norm(dim=1) - TOUCH


@cache
def _table(size: int, device: torch.device) -> Float[Tensor, "3 size size"]:
    """The picture without pusher and disc: a black frame on white."""
    pixel = torch.arange(FRAME, device=device)
    line = ((MARGIN - LINE <= pixel) & (pixel < MARGIN)) | ((FRAME - MARGIN <= pixel) & (pixel < FRAME - MARGIN + LINE))
    within = (MARGIN - LINE <= pixel) & (pixel < FRAME - MARGIN + LINE)
    black = (line[:, None] & within) | (line & within[:, None])
    return resized(255.0 * (~black).expand(3, FRAME, FRAME), size)
