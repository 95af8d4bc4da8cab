"""Push-T: a round pusher brings a T-shaped block to a place and an angle. The published task, on MuJoCo.

Chi et al. (2023) made it with pymunk, and stable-worldmodel made its actions relative to the pusher. We keep sizes,
starts, control law, criterion and colors, and MuJoCo moves things.

- The pusher is a point mass under a spring and a damper, pulled to where the action points. An action is held for
  a tenth of a second, ten steps of the physics.
- Nothing slides on. In pymunk a damping of 0 clears the block's velocity in every step of the physics, before contacts
  act. Here friction with the table does: mass / time step, applied explicitly, cancels a velocity in one step. So
  the block has no velocity to remember, and seven numbers are the whole state.
- Contacts have no friction, as in pymunk. One that overlaps gives way by a share of its depth in each step, whatever
  the velocities were: nothing bounces.
- Ours: walls stop the block, and a block that is stopped stops the pusher. In the original the pusher is of infinite
  mass, so that it squeezes the block through walls. Ours has ten times the block's mass, which has a price: it pushes
  at 0.7 of the speed that it walks with. A block that is caught at full speed may reach about ten units into a wall
  for a moment.
- The angle lies in [-pi, pi]: no picture tells it from the same with a full turn more.

MuJoCo has no units of its own; a length of 1 is one of the 512 of the picture's side. y points down, and a positive
angle turns clockwise on the screen.

Shapes: B copies; a state is the pusher's (x, y), the block's (x, y), its angle, the pusher's velocity, S = 7; A = 2.
The block's (x, y) is the middle of its bar's long outer edge.
"""

import math
from functools import cache

import mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from mujoco.batch import Batch
from torch import Tensor

from minilab.lewm.worlds.base import Policy, Uniform, in_batches, laid, pixel_centers

FRAME = 512
LOW, HIGH, LINE = 7.0, 504.0, 4.0  # inner faces of the walls, and how thick these are in pictures
PUSHER = 15.0  # radius
LENGTH, THICK = 120.0, 30.0  # the T's bar is 120 x 30, and with its stem the T is 120 high
CENTER = 45.0  # of gravity, below the bar's outer edge: the mean of the two parts' own centers, as published
MASS, INERTIA = 1.0, 3000.0  # of the block; twice the moment of the bar alone around its edge's middle, as published
PUSHER_MASS = 10.0
REACH, SPRING, DAMPER = 100.0, 100.0, 20.0  # how far an action of 1 points; acceleration per distance and per speed
DT, SUBSTEPS = 0.01, 10  # seconds of a step of the physics, and how many an action is held for
GIVE = 0.2  # share of an overlap that is undone in one step of the physics
NEAR, TURNED = 20.0, math.pi / 9  # success
GOAL = (256.0, 256.0, math.pi / 4)  # the pose that every picture shows
ROYAL_BLUE, SLATE_GRAY = (65.0, 105.0, 225.0), (119.0, 136.0, 153.0)
LIGHT_GREEN, LIGHT_GRAY = (144.0, 238.0, 144.0), (211.0, 211.0, 211.0)
BAR = ((0.0, THICK / 2), (LENGTH / 2, THICK / 2))  # center and half sides, in the block's own axes
STEM = ((0.0, (LENGTH + THICK) / 2), (THICK / 2, (LENGTH - THICK) / 2))
CORNERS = ((-60.0, 0.0), (60.0, 0.0), (-60.0, 30.0), (60.0, 30.0), (-15.0, 120.0), (15.0, 120.0))


class PushT:
    """The world. It has no state of its own."""

    name, version, state_dim, action_dim, frame = "pusht", "1", 7, 2, FRAME
    policies = ("expert", "push", "weak", "random")
    quantities = {"agent xy": slice(0, 2), "block xy": slice(2, 4), "block angle": slice(4, 5)}

    def reset(self, n: int, generator: torch.Generator) -> Float[Tensor, "n S"]:
        """Published ranges, at rest; where the block overlaps the pusher or a wall, drawn again."""
        share = torch.rand(n, 5, generator=generator, device=generator.device)
        low, high = share.new_tensor([50, 50, 100, 100, -math.pi]), share.new_tensor([450, 450, 400, 400, math.pi])
        state = torch.cat((low + share * (high - low), torch.zeros_like(share[:, :2])), dim=1)
        while (bad := (gap(state) < 0) | (margin(state) < 0)).any():
            state[bad] = self.reset(int(bad.sum()), generator)
        return state

    def step(self, state: Float[Tensor, "B S"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B S"]:
        """Raises ValueError for numbers that are not finite."""
        target = state[:, :2] + REACH * action.clamp(-1, 1)
        if not (target.isfinite().all() and state.isfinite().all()):
            raise ValueError("a state or an action is NaN or infinite: look at what the policy was given")
        now, batch = state.detach().cpu().double().numpy(), Batch(_model(), len(state), torch.get_num_threads())
        qpos, qvel, ctrl = map(batch.bind, ("qpos", "qvel", "ctrl"))
        qpos[:, :2], qpos[:, 2:4], qpos[:, 4] = now[:, :2], now[:, 2:4] + _lever(now[:, 4]), now[:, 4]
        qvel[:, :2], ctrl[:] = now[:, 5:], target.detach().cpu().numpy()
        batch.step(nstep=SUBSTEPS)
        angle = qpos[:, 4]
        turns = np.where(abs(angle) > math.pi, np.round(angle / (2 * math.pi)), 0.0)
        after = np.column_stack((qpos[:, :2], qpos[:, 2:4] - _lever(angle), angle - 2 * math.pi * turns, qvel[:, :2]))
        return torch.from_numpy(after).to(state)

    def render(self, state: Float[Tensor, "B S"], size: int = 64, *, color: Float[Tensor, "B 3"] | None = None
               ) -> UInt8[Tensor, "B 3 size size"]:
        """A gray T and a blue pusher, over gray walls and a green T where the published task wants the block.

        `color` is the block's. Edges cover a pixel in part.
        """
        table = _table(size, state.device)
        paint = state.new_tensor([SLATE_GRAY]).expand(len(state), 3) if color is None else color.to(state)
        blue = state.new_tensor(ROYAL_BLUE)[:, None, None]

        def draw(state: Float[Tensor, "b S"], paint: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 size size"]:
            under = torch.lerp(table, paint[:, :, None, None], _cover(state[:, 2:5], size))
            centers = pixel_centers(size, FRAME, state.device)
            squares = (centers - state[:, :2, None]).square_()  # b 2 size
            far = (squares[:, 1, :, None] + squares[:, 0, None, :]).sqrt_()
            return under.lerp_(blue, _share(PUSHER - far, size))

        return in_batches(draw, size, state, paint)

    def success(self, state: Float[Tensor, "B S"], goal: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
        """Pusher and block count in one distance, and the angle apart from it."""
        near = (state - goal)[:, :4].norm(dim=1) < NEAR
        return near & (turn(state[:, 4], goal[:, 4]).abs() < TURNED)

    def mirrored(self, state: Float[Tensor, "B *n S"], action: Float[Tensor, "B *k A"], image: Int[Tensor, "B"]
               ) -> tuple[Float[Tensor, "B *n S"], Float[Tensor, "B *k A"]]:
        """States and actions in one of the square's eight images. The table's green T stays where it is."""
        middle, (pusher, block, angle, velocity) = (LOW + HIGH) / 2, state.split((2, 2, 1, 2), dim=-1)
        stem = laid(torch.cat((-angle.sin(), angle.cos()), dim=-1), image)  # all that a T shows: it is its own mirror
        parts = (middle + laid(pusher - middle, image), middle + laid(block - middle, image),
                 torch.atan2(-stem[..., :1], stem[..., 1:]), laid(velocity, image))
        return torch.cat(parts, dim=-1), laid(action, image)

    def policy(self, name: str, copies: int, generator: torch.Generator) -> Policy:
        """"expert" plans with the true physics and brings the block to one pose after the other; "push" takes it
        places by a script; "weak" is the published collector of poor data, which jumps about near the block."""
        from minilab.lewm import experts  # which needs this module

        if name == "random":
            return Uniform(self.action_dim, copies, generator)
        if name == "weak":
            return experts.Weak(copies, generator)
        if name == "push":
            return experts.Push(self, copies, generator)
        if name == "expert":
            return experts.Expert(self, copies, generator)
        raise ValueError(f"Push-T has no policy {name!r}; choose one of {', '.join(self.policies)}")


def turn(angle: Float[Tensor, "*b"], goal: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """The shorter way from a goal's angle to an angle, in [-pi, pi)."""
    return (angle - goal + math.pi) % (2 * math.pi) - math.pi


def lies(state: Float[Tensor, "B S"], goal: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
    """Whether the block lies as a goal wants it, wherever the pusher is."""
    return ((state - goal)[:, 2:4].norm(dim=1) < NEAR) & (turn(state[:, 4], goal[:, 4]).abs() < TURNED)


def apart(state: Float[Tensor, "*b S"], goal: Float[Tensor, "*b S"]) -> Float[Tensor, "*b"]:
    """A squared distance that is small where success is: of both places, and an angle of `TURNED` counts as `NEAR`."""
    turned = turn(state[..., 4], goal[..., 4]) * NEAR / TURNED
    return (state - goal)[..., :4].square().sum(dim=-1) + turned.square()


def corners(pose: Float[Tensor, "B 3"]) -> Float[Tensor, "B 6 2"]:
    """The T's outer corners in the world."""
    return to_world(pose, pose.new_tensor(CORNERS).expand(len(pose), 6, 2))


def to_world(pose: Float[Tensor, "B 3"], point: Float[Tensor, "B n 2"]) -> Float[Tensor, "B n 2"]:
    """Points given in the axes of a block at (x, y, angle)."""
    cos, sin, x, y = pose[:, 2:].cos(), pose[:, 2:].sin(), point[..., 0], point[..., 1]
    return torch.stack((cos * x - sin * y, sin * x + cos * y), dim=2) + pose[:, None, :2]


def gap(state: Float[Tensor, "B S"]) -> Float[Tensor, "B"]:
    """How much air is between pusher and block; less than 0 where they overlap."""
    out, cos, sin = state[:, :2] - state[:, 2:4], state[:, 4].cos(), state[:, 4].sin()
    x, y = cos * out[:, 0] + sin * out[:, 1], cos * out[:, 1] - sin * out[:, 0]
    return torch.minimum(*(_beyond(x, y, *part) for part in (BAR, STEM))) - PUSHER


def margin(state: Float[Tensor, "B S"]) -> Float[Tensor, "B"]:
    """How far the block is from the nearest wall; less than 0 where it reaches into one."""
    at = corners(state[:, 2:5])
    return torch.minimum(at - LOW, HIGH - at).amin(dim=(1, 2))


def _beyond(x: Float[Tensor, "B"], y: Float[Tensor, "B"], center: tuple[float, float], half: tuple[float, float]
            ) -> Float[Tensor, "B"]:
    """Signed distance of points to a rectangle."""
    dx, dy = (x - center[0]).abs() - half[0], (y - center[1]).abs() - half[1]
    return torch.hypot(dx.clamp(min=0), dy.clamp(min=0)) + torch.maximum(dx, dy).clamp(max=0)


def _lever(angle: np.ndarray) -> np.ndarray:
    """From the block's (x, y) to its center of gravity, around which MuJoCo turns it."""
    return CENTER * np.stack((-np.sin(angle), np.cos(angle)), axis=1)


@cache
def _model() -> mujoco.MjModel:
    """The plane as MuJoCo sees it: a sphere, two tall boxes on slides and a hinge, and four walls that never end."""
    # Stiffness and damping are per mass, and negative by MuJoCo's convention. With a damping of 1 / DT the velocity
    # that a contact asks for after a step does not depend on the one before.
    give, hard = f"{-GIVE / DT**2} {-1 / DT}", "0.9999 0.9999 1"
    contact, stop = f'solref="{give}" solimp="{hard}"', f'solreflimit="{give}" solimplimit="{hard}"'
    walls = {"west": f'pos="{LOW} 0 0" xyaxes="0 1 0 0 0 1"', "east": f'pos="{HIGH} 0 0" xyaxes="0 0 1 0 1 0"',
             "north": f'pos="0 {LOW} 0" xyaxes="0 0 1 1 0 0"', "south": f'pos="0 {HIGH} 0" xyaxes="1 0 0 0 0 1"'}
    touching = [(a, b) for a in (*walls, "pusher") for b in ("bar", "stem")]
    planes = "".join(f'<geom name="{name}" type="plane" size="1 1 1" {where}/>' for name, where in walls.items())
    boxes = "".join(f'<geom name="{name}" type="box" pos="{x} {y - CENTER} 0" size="{half_x} {half_y} 100"/>'
                    for name, ((x, y), (half_x, half_y)) in (("bar", BAR), ("stem", STEM)))
    pairs = "".join(f'<pair geom1="{a}" geom2="{b}" condim="1" {contact}/>' for a, b in touching)
    springs = "".join(f'<position joint="{joint}" kp="{PUSHER_MASS * SPRING}" kv="{PUSHER_MASS * DAMPER}"/>'
                      for joint in ("pusher x", "pusher y"))
    rails = f'type="slide" limited="true" range="{LOW + PUSHER} {HIGH - PUSHER}" {stop}'
    # Nothing is kept from step to step but the state: no warm start. The damping must stay explicit: no eulerdamp.
    return mujoco.MjModel.from_xml_string(f"""
        <mujoco>
          <option timestep="{DT}" gravity="0 0 0" integrator="Euler" jacobian="dense" iterations="50">
            <flag warmstart="disable" eulerdamp="disable" refsafe="disable" island="disable"/>
          </option>
          <default><geom contype="0" conaffinity="0"/></default>
          <worldbody>
            {planes}
            <body>
              <inertial pos="0 0 0" mass="{PUSHER_MASS}" diaginertia="1 1 1"/>
              <joint name="pusher x" axis="1 0 0" {rails}/>
              <joint name="pusher y" axis="0 1 0" {rails}/>
              <geom name="pusher" type="sphere" size="{PUSHER}"/>
            </body>
            <body>
              <inertial pos="0 0 0" mass="{MASS}" diaginertia="{INERTIA} {INERTIA} {INERTIA}"/>
              <joint type="slide" axis="1 0 0" damping="{MASS / DT}"/>
              <joint type="slide" axis="0 1 0" damping="{MASS / DT}"/>
              <joint type="hinge" axis="0 0 1" damping="{INERTIA / DT}"/>
              {boxes}
            </body>
          </worldbody>
          <contact>{pairs}</contact>
          <actuator>{springs}</actuator>
        </mujoco>""")


def _share(inside: Float[Tensor, "b size size"], size: int) -> Float[Tensor, "b 1 size size"]:
    """How much of each pixel is covered by what reaches `inside` beyond its center. Works in place."""
    return inside.mul_(size / FRAME).add_(0.5).clamp_(0, 1)[:, None]


def _cover(pose: Float[Tensor, "b 3"], size: int) -> Float[Tensor, "b 1 size size"]:
    """The share of each pixel that a T at (x, y, angle) covers."""
    pixel, cos, sin = pixel_centers(size, FRAME, pose.device), pose[:, 2:].cos(), pose[:, 2:].sin()
    dx, dy = pixel - pose[:, :1], pixel - pose[:, 1:2]  # b size
    x = ((cos * dx)[:, None, :] + (sin * dy)[:, :, None]).abs_()  # b size size, in the block's own axes
    y = (cos * dy)[:, :, None] - (sin * dx)[:, None, :]
    bar = torch.minimum(LENGTH / 2 - x, THICK / 2 - (y - THICK / 2).abs_())
    # The stem is drawn from the middle of the bar on: were it to begin where the bar ends, a seam would show.
    middle, half = (LENGTH + THICK / 2) / 2, (LENGTH - THICK / 2) / 2
    stem = torch.minimum(x.neg_().add_(THICK / 2), y.sub_(middle).abs_().neg_().add_(half))
    return _share(torch.maximum(bar, stem, out=bar), size)


@cache
def _table(size: int, device: torch.device) -> Float[Tensor, "3 size size"]:
    """The picture without block and pusher."""
    pixel = pixel_centers(size, FRAME, device)
    inside = torch.minimum(pixel - LOW, HIGH - pixel)
    inside = torch.minimum(inside[None, None, :], inside[None, :, None])  # how far a pixel is from the nearest wall
    wall = _share(inside + LINE, size) - _share(inside.clone(), size)
    white, gray, green = (torch.tensor(paint, device=device)[:, None, None]
                          for paint in ((255.0, 255.0, 255.0), LIGHT_GRAY, LIGHT_GREEN))
    goal = _cover(torch.tensor([GOAL], device=device), size)
    return torch.lerp(torch.lerp(white, gray, wall[0]), green, goal[0])
