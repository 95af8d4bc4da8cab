"""Two Rooms: a dot, a wall, and one door. The published world (stable-worldmodel's TwoRoom-v1), on tensors.

- Same geometry in the same units: a square of 224, a dot of radius 7 that moves by at most 5 a step along each axis.
- The dot may be between the rooms only within the door, judged where the step ends. A step that would end there
  outside the door is pushed back to the wall, and keeps its y.
- Success is to come within 16 of the goal, which no picture shows.
- Ours: starts and targets are uniform over what the dot can reach outside the wall, where the original's can lie a
  little beyond; the blob is not stretched to a peak of exactly 1 at its nearest pixel, which would make it flicker in
  small pictures.

Shapes: B copies; a state is the dot's (x, y), S = 2, with y pointing down; A = 2.
"""

from functools import cache

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from minilab.lewm.worlds.base import Blur, Policy, Uniform, in_batches, pixel_centers, resized, unit

FRAME = 224
MARGIN, LINE = 14, 4  # the border line lies just outside the square from 14 to 210
WALL, HALF_WALL = 112, 5  # x
DOOR, HALF_DOOR, DOOR_SLACK = 49, 14, 1.75  # y
RADIUS = 7.0  # of the dot for collisions, and the standard deviation of its blob
SPEED = 5.0
LOW, HIGH = MARGIN + RADIUS, FRAME - MARGIN - RADIUS
LEFT, RIGHT = WALL - HALF_WALL - RADIUS, WALL + HALF_WALL + RADIUS  # between them the dot is in the wall, or the door
PUSHED_BACK = 0.5
SUCCESS = 16.0
RED = (255.0, 0.0, 0.0)


class Rooms:
    """The world. It has no state of its own."""

    name, version, state_dim, action_dim, frame = "rooms", "1", 2, 2, FRAME
    policies = ("noisy", "crossing", "smooth", "random")
    quantities = {"agent xy": slice(0, 2)}

    def reset(self, n: int, generator: torch.Generator) -> Float[Tensor, "n S"]:
        """Uniform over both rooms, not in the wall or the door."""
        share = torch.rand(n, 2, generator=generator, device=generator.device)
        x = LOW + share[:, 0] * (HIGH - LOW - (RIGHT - LEFT))
        x = torch.where(x > LEFT, x + (RIGHT - LEFT), x)
        return torch.stack((x, LOW + share[:, 1] * (HIGH - LOW)), dim=1)

    def opposite(self, n: int, generator: torch.Generator) -> tuple[Float[Tensor, "n S"], Float[Tensor, "n S"]]:
        """Starts, and goals in the other room: the hard protocol."""
        start, goal = self.reset(n, generator), self.reset(n, generator)
        same = left(start) == left(goal)
        mirrored = torch.stack((2 * WALL - goal[:, 0], goal[:, 1]), dim=1)
        return start, torch.where(same[:, None], mirrored, goal)

    def step(self, state: Float[Tensor, "B S"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B S"]:
        x, y = (state + SPEED * action.clamp(-1, 1)).clamp(LOW, HIGH).unbind(dim=1)
        west = left(state)
        blocked = torch.where(west, x > LEFT, x < RIGHT) & ~in_door(y)
        edge = torch.where(west, LEFT - PUSHED_BACK, RIGHT + PUSHED_BACK)
        return torch.stack((torch.where(blocked, edge, x), y), dim=1)

    def render(self, state: Float[Tensor, "B S"], size: int = 64, *, color: Float[Tensor, "B 3"] | None = None
               ) -> UInt8[Tensor, "B 3 size size"]:
        """The rooms, and over them the dot as a Gaussian blob; `color` is the dot's, by default red."""
        centers, rooms = pixel_centers(size, FRAME, state.device), _rooms(size, state.device)
        paint = state.new_tensor([RED]).expand(len(state), 3) if color is None else color.to(state)

        def draw(state: Float[Tensor, "b S"], paint: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 size size"]:
            # A round Gaussian is the product of one along x and one along y.
            blob = torch.exp(-(centers - state[:, :, None]).square() / (2 * RADIUS**2))  # b 2 size
            alpha = blob[:, 1, :, None] * blob[:, 0, None, :]  # b size size
            return torch.addcmul(rooms, alpha[:, None], paint[:, :, None, None] - rooms)

        return in_batches(draw, size, state, paint)

    def success(self, state: Float[Tensor, "B S"], goal: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
        return (state - goal).norm(dim=1) < SUCCESS

    def policy(self, name: str, copies: int, generator: torch.Generator) -> Policy:
        """"noisy" is the published collector, with targets in either room. "crossing" has them in the other room, 25
        steps away or more, which gives episodes as long as the published ones (92 steps; "noisy": 60). "smooth" walks
        nearly straight, from one target to the next."""
        if name in ("noisy", "crossing"):
            return Heuristic(self, generator, noise=2.0, repeat=0.05, crossing=name == "crossing")
        if name == "smooth":
            return Heuristic(self, generator, noise=0.2, repeat=0.0, again=True)
        if name == "random":
            return Uniform(self.action_dim, copies, generator)
        raise ValueError(f"Two Rooms has no policy {name!r}; choose one of {', '.join(self.policies)}")


class Heuristic:
    """Goes to a target of its own, by the door if that is in the other room; noise of 2 drowns most of it.

    The episode ends at the target, unless `again` asks for another one there.
    """

    door_reached = 10.5  # so near the door's center it heads for the target
    far = 25 * SPEED  # the shortest way by the door to a target of "crossing"

    def __init__(self, world: Rooms, generator: torch.Generator, *, noise: float, repeat: float,
                 crossing: bool = False, again: bool = False) -> None:
        self.world, self.generator, self.crossing, self.again = world, generator, crossing, again
        self.target, self.blur = None, Blur(noise, repeat, generator)

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        if self.target is None:
            self.target = self._targets(state)
        elif self.again:
            there = self.world.success(state, self.target)[:, None]
            self.target = torch.where(there, self._targets(state), self.target)
        door = state.new_tensor([WALL, DOOR])
        by_door = (left(state) != left(self.target)) & ((door - state).norm(dim=1) > self.door_reached)
        return self.blur(unit(torch.where(by_door[:, None], door, self.target) - state))

    def done(self, state: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
        return self.world.success(state, self.target) & (not self.again)

    def _targets(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        target = self.world.reset(len(state), self.generator)
        if self.crossing:
            door = state.new_tensor([WALL, DOOR])
            way = (state - door).norm(dim=1) + (target - door).norm(dim=1)
            wrong = (left(state) == left(target)) | (way < self.far)
            if wrong.any():
                target[wrong] = self._targets(state[wrong])
        return target


def left(state: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
    """Whether the dot is in the left room, or in the door's left half."""
    return state[:, 0] < WALL


def in_door(y: Float[Tensor, "B"]) -> Bool[Tensor, "B"]:
    """Whether a dot at this height may be between the rooms."""
    return (y - DOOR).abs() <= HALF_DOOR + DOOR_SLACK


@cache
def _rooms(size: int, device: torch.device) -> Float[Tensor, "3 size size"]:
    """The picture without the dot: black lines on white."""
    pixel = torch.arange(FRAME, device=device)
    line = ((MARGIN - LINE <= pixel) & (pixel < MARGIN)) | ((FRAME - MARGIN <= pixel) & (pixel < FRAME - MARGIN + LINE))
    wall, door = (pixel - WALL).abs() <= HALF_WALL, (pixel - DOOR).abs() <= HALF_DOOR
    black = line[:, None] | line | (wall & ~door[:, None])  # y x
    return resized(255.0 * (~black).expand(3, FRAME, FRAME), size)
