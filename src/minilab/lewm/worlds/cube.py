"""Cube: a gripper over a table takes a cube, lifts it and sets it down. A small OGBench-Cube, on MuJoCo.

- The hand slides along x, y and z, and two fingers open along x. An action is (x, y, z, grip): where the hand shall be
  from where it is, and whether the fingers shall shut (grip near 1) or open (near -1). In between they stay as they
  are: if not, almost every row of random actions would drop the cube, and no search would carry it.
- OGBench's hand also turns and hangs on an arm of six joints. Ours does neither: the fingers take a cube as it lies, by
  its faces or by two edges.
- Motors are springs with dampers. The fingers' are cut to a force that holds the cube and does not squash it. The
  cube's weight draws the hand down a little: by 0.2 mm a step.
- Everything rests after each step, a tenth of a second: 20 steps of the physics, and then all velocities are dropped.
  So one picture tells the state, and a cube that is let go falls 5 cm in each step, never faster. What it spares us is
  speeds in the state that no picture shows.
- The cube looks the same after a quarter turn. Of its 24 poses that look alike the state holds the one with the
  smallest turn: for a cube that lies flat an angle in [-pi/4, pi/4].
- Nothing leaves the tray. Its rim stops the cube at every height, and the hand goes no farther than it needs to.
- Success counts the cube's place alone: within 4 cm, as in OGBench.

Shapes: B copies; a state is the hand's (x, y, z), the width between the fingers, the cube's (x, y, z) and its turn as
a vector (axis times angle), S = 10, in meters and radians; A = 4. The hand's place is the point that it grips. x points
to the right, y away from the camera and z up from the table.
"""

import itertools
import math
from functools import cache

import mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from mujoco.batch import Batch
from torch import Tensor

from minilab.lewm.worlds.base import Policy, Uniform, in_batches, resized
from minilab.lewm.worlds.raycast import RAYS, Box, Camera, Light, ground, picture

HALF, TRAY, RIM = 0.025, 0.14, 0.006  # of the cube's side, of the tray's, and the rim's width
LOW, HIGH = (-0.115, -0.115, 0.022), (0.115, 0.115, 0.18)  # where the hand can be
OPEN, STRIDE = 0.1, 0.04  # the fingers' widest, and how far an action of 1 points
FIRM, SHUT = 0.6, 0.075  # a grip beyond this is a command; fingers nearer than that, such as a cube's edges, are shut
PALM = ((0.0, 0.0, 0.052), (0.068, 0.02, 0.012))  # center, from the point that the hand grips, and half sides
FINGER = ((0.009, 0.0, 0.01), (0.009, 0.012, 0.03))  # of the right one, when shut
HAND_MASS, FINGER_MASS, CUBE_MASS = 2.0, 0.15, 0.05
QUICK = 30.0  # 1 / s, of the hand's motors, which are critically damped
GRIP, BRAKE, STIFF = 10.0, 20.0, 2000.0  # of each finger: greatest force (N), damping (N s/m), spring (N/m)
SLIDING = 0.5, 1.0  # friction with the table, and with the fingers
DT, SUBSTEPS = 0.005, 20  # seconds of a step of the physics, and how many an action is held for
NEAR = 0.04  # success
CAMERA = Camera(at=(0.0, -0.645, 0.65), pitch=math.radians(42), view=math.radians(32.0))
LIGHT = Light(toward=(-0.316, -0.264, 0.911), ambient=0.45, fade=0.02)
RED, STEEL, DARK = (230.0, 60.0, 50.0), (130.0, 140.0, 165.0), (70.0, 75.0, 95.0)
FLOOR, RIM_PAINT, TILES = (150.0, 147.0, 140.0), (90.0, 88.0, 84.0), ((222.0, 218.0, 208.0), (234.0, 230.0, 220.0))


class Cube:
    """The world. It has no state of its own."""

    name, version, state_dim, action_dim = "cube", "1", 10, 4
    frame = 224  # pixels of a picture when nothing else is asked for: what is far is small, so there is no one scale
    policies = ("expert", "play", "random")
    quantities = {"hand xyz": slice(0, 3), "opening": slice(3, 4), "cube xyz": slice(4, 7),
                  "cube quarter angle": slice(9, 10)}

    def reset(self, n: int, generator: torch.Generator) -> Float[Tensor, "n S"]:
        """The cube flat on the table, and the hand anywhere with any opening; where they would overlap, drawn again."""
        share = torch.rand(n, 7, generator=generator, device=generator.device)
        reach = TRAY - math.sqrt(2) * HALF
        low = share.new_tensor([*LOW, 0, -reach, -reach, -math.pi / 4])
        high = share.new_tensor([*HIGH, OPEN, reach, reach, math.pi / 4])
        drawn = low + share * (high - low)
        height = torch.full_like(drawn[:, :1], HALF)
        state = torch.cat((drawn[:, :6], height, torch.zeros_like(drawn[:, :2]), drawn[:, 6:]), dim=1)
        while (bad := _apart(state) < 0).any():
            state[bad] = self.reset(int(bad.sum()), generator)
        return state

    def step(self, state: Float[Tensor, "B S"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B S"]:
        """Raises ValueError for numbers that are not finite."""
        if not (action.isfinite().all() and state.isfinite().all()):
            raise ValueError("a state or an action is NaN or infinite: look at what the policy was given")
        now, act = (x.detach().cpu().double().numpy() for x in (state, action.clamp(-1, 1)))
        batch = Batch(_model(), len(now), torch.get_num_threads())
        qpos, ctrl = map(batch.bind, ("qpos", "ctrl"))
        qpos[:, :3], qpos[:, 3:5], qpos[:, 5:8], qpos[:, 8:] = (
            now[:, :3], now[:, 3:4] / 2, now[:, 4:7], _quaternion(now[:, 7:]))
        ctrl[:, :3] = np.clip(now[:, :3] + STRIDE * act[:, :3], LOW, HIGH)
        shut = np.where(abs(act[:, 3:]) > FIRM, act[:, 3:] > 0, now[:, 3:4] < SHUT)
        ctrl[:, 3:] = np.where(shut, 0, OPEN / 2)
        batch.step(nstep=SUBSTEPS)
        width = qpos[:, 3:4] + qpos[:, 4:5]
        return torch.from_numpy(np.hstack((qpos[:, :3], width, qpos[:, 5:8], _smallest_turn(qpos[:, 8:])))).to(state)

    def render(self, state: Float[Tensor, "B S"], size: int = 64, *, color: Float[Tensor, "B 3"] | None = None
               ) -> UInt8[Tensor, "B 3 size size"]:
        """A gray hand and a red cube over a light tray, with shadows; `color` is the cube's."""
        table = _table(size, state.device)
        paint = state.new_tensor([RED]).expand(len(state), 3) if color is None else color.to(state)

        def draw(state: Float[Tensor, "b S"], paint: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 size size"]:
            cube, palm, *fingers = boxes(state)
            steel, dark = (state.new_tensor(color).expand(len(state), 3) for color in (STEEL, DARK))
            return picture(CAMERA, LIGHT, table, [(paint, [cube]), (steel, [palm]), (dark, fingers)])

        return in_batches(draw, size, state, paint, rays=RAYS**2)

    def success(self, state: Float[Tensor, "B S"], goal: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
        return (state - goal)[:, 4:7].norm(dim=1) < NEAR

    def policy(self, name: str, copies: int, generator: torch.Generator) -> Policy:
        """"expert" carries the cube to one place after the other, with noise; "play" often does something else with
        its hand, and pushes the cube about."""
        from minilab.lewm.experts_cube import Carry  # which needs this module

        if name == "random":
            return Uniform(self.action_dim, copies, generator)
        if name in ("expert", "play"):
            return Carry(copies, generator, playful={"expert": 0.1, "play": 0.6}[name])
        raise ValueError(f"the cube has no policy {name!r}; choose one of {', '.join(self.policies)}")


def held(state: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
    """Whether the fingers are shut on the cube."""
    return (state[:, 3] < SHUT) & ((state[:, :3] - state[:, 4:7]).norm(dim=1) < HALF)


def boxes(state: Float[Tensor, "B S"]) -> list[Box]:
    """What pictures show, and what touches: the cube, the palm, the right and the left finger."""
    def on_hand(shift: Float[Tensor, "B"], center: tuple[float, float, float]) -> Float[Tensor, "B 3"]:
        return state[:, :3] + state.new_tensor(center) + shift[:, None] * state.new_tensor([1.0, 0, 0])

    width, (center, half) = state[:, 3] / 2, FINGER
    left = (-center[0], *center[1:])
    return [Box(state[:, 4:7], (HALF,) * 3, _matrix(state[:, 7:])), Box(on_hand(0 * width, PALM[0]), PALM[1]),
            Box(on_hand(width, center), half), Box(on_hand(-width, left), half)]


def _apart(state: Float[Tensor, "B S"]) -> Float[Tensor, "B"]:
    """How much air is between a cube that lies flat, however it is turned, and the fingers; less than 0 for none."""
    away, (_, half) = (state[:, 4:6] - state[:, :2]).abs(), FINGER
    beside = (away[:, 0] - (state[:, 3] / 2 + half[0])).abs() - half[0]  # as seen from the nearer finger
    flat = torch.hypot(beside.clamp(min=0), (away[:, 1] - half[1]).clamp(min=0)) - math.sqrt(2) * HALF
    above = state[:, 2] + FINGER[0][2] - half[2] - 2 * HALF
    return torch.maximum(flat, above)


def _matrix(turn: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3 3"]:
    """Rodrigues' formula: its columns are the axes of something turned by |turn| around turn."""
    angle = turn.norm(dim=1).clamp(min=1e-9)[:, None, None]
    x, y, z = (turn / angle[:, 0]).unbind(dim=1)
    o = torch.zeros_like(x)
    cross = torch.stack((o, -z, y, z, o, -x, -y, x, o), dim=1).unflatten(1, (3, 3))
    return torch.eye(3).to(turn) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


def _quaternion(turn: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(turn, axis=1, keepdims=True)
    return np.hstack((np.cos(angle / 2), turn * np.sinc(angle / 2 / np.pi) / 2))  # sinc(x) is sin(pi x) / (pi x)


def _smallest_turn(quaternion: np.ndarray) -> np.ndarray:
    """Of the turns that bring a cube to the same look the one with the smallest angle."""
    w, v = quaternion[:, None, :1], quaternion[:, None, 1:]
    a, b = _symmetries()[:, :1], _symmetries()[:, 1:]
    real = (w * a - (v * b).sum(axis=2, keepdims=True))[..., 0]  # n 24
    best = np.abs(real).argmax(axis=1)
    real = np.take_along_axis(real, best[:, None], axis=1)
    a, b, w, v = a[best], b[best], w[:, 0], v[:, 0]
    imaginary = np.where(real < 0, -1, 1) * (w * b + a * v + np.cross(v, b))
    length = np.linalg.norm(imaginary, axis=1, keepdims=True)
    return imaginary * (2 * np.arctan2(length, np.abs(real)) / np.maximum(length, 1e-12))


@cache
def _symmetries() -> np.ndarray:
    """The 24 turns of a cube as quaternions, one of each pair of opposite signs."""
    signs = np.array(list(itertools.product((-1, 0, 1), repeat=4)), dtype=float)
    length = (signs**2).sum(axis=1)
    unit = signs[np.isin(length, (1, 2, 4))] / np.sqrt(length[np.isin(length, (1, 2, 4))])[:, None]
    first = np.take_along_axis(unit, (unit != 0).argmax(axis=1)[:, None], axis=1)[:, 0]
    return unit[first > 0]


@cache
def _model() -> mujoco.MjModel:
    """The hand hangs on slides and weighs nothing; only what shall touch the cube does."""
    def box(name: str, place: tuple, half: tuple, mass: float) -> str:
        numbers = (" ".join(map(str, v)) for v in (place, half))
        return '<geom name="{}" type="box" pos="{}" size="{}" mass="{}"/>'.format(name, *numbers, mass)

    walls = {"west": f'pos="{-TRAY} 0 0" xyaxes="0 1 0 0 0 1"', "east": f'pos="{TRAY} 0 0" xyaxes="0 0 1 0 1 0"',
             "south": f'pos="0 {-TRAY} 0" xyaxes="0 0 1 1 0 0"', "north": f'pos="0 {TRAY} 0" xyaxes="1 0 0 0 0 1"',
             "table": ""}
    planes = "".join(f'<geom name="{name}" type="plane" size="1 1 1" {where}/>' for name, where in walls.items())
    slides = "".join(f'<joint name="{name}" type="slide" axis="{axis}"/>'
                     for name, axis in (("x", "1 0 0"), ("y", "0 1 0"), ("z", "0 0 1")))
    fingers = "".join(
        f'<body gravcomp="1"><joint name="{name}" type="slide" axis="{side} 0 0" damping="{BRAKE}" limited="true" '
        f'range="0 {OPEN / 2}" solreflimit="0.01 1" solimplimit="0.99 0.999 0.001"/>'
        f'{box(name, (side * FINGER[0][0], *FINGER[0][1:]), FINGER[1], FINGER_MASS)}</body>'
        for name, side in (("right", 1), ("left", -1)))
    pairs = "".join(f'<pair geom1="{name}" geom2="cube" condim="3" friction="{SLIDING[i]} {SLIDING[i]} 0 0 0" '
                    'solref="0.01 1" solimp="0.95 0.99 0.001"/>'
                    for i, names in enumerate((walls, ("palm", "right", "left"))) for name in names)
    mass = HAND_MASS + 2 * FINGER_MASS
    motors = "".join(f'<position joint="{axis}" kp="{mass * QUICK**2}" kv="{2 * mass * QUICK}"/>' for axis in "xyz")
    motors += "".join(f'<position joint="{name}" kp="{STIFF}" forcelimited="true" forcerange="{-GRIP} {GRIP}"/>'
                      for name in ("right", "left"))
    # The fingers keep step by an equality. Friction that is stiffer than its cone is wide (impratio) keeps the cube
    # from creeping out of them.
    return mujoco.MjModel.from_xml_string(f"""
        <mujoco>
          <option timestep="{DT}" integrator="implicitfast" cone="elliptic" impratio="30" jacobian="dense"
                  iterations="20"/>
          <default><geom contype="0" conaffinity="0"/></default>
          <worldbody>
            {planes}
            <body gravcomp="1">{slides}{box("palm", *PALM, HAND_MASS)}{fingers}</body>
            <body><freejoint/>{box("cube", (0, 0, 0), (HALF,) * 3, CUBE_MASS)}</body>
          </worldbody>
          <equality><joint joint1="right" joint2="left" solref="0.01 1" solimp="0.99 0.999 0.001"/></equality>
          <contact>{pairs}</contact>
          <actuator>{motors}</actuator>
        </mujoco>""")


@cache
def _table(size: int, device: torch.device) -> Float[Tensor, "3 size size"]:
    """The picture without hand and cube: a tray of tiles on the floor."""
    fine = 4 * size
    x, y = ground(CAMERA, fine, device)
    out = torch.maximum(x.abs(), y.abs())[..., None]
    tile = ((3 * x / TRAY).floor() + (3 * y / TRAY).floor())[..., None] % 2 == 0
    floor, rim, dark, light = (torch.tensor(paint, device=device) for paint in (FLOOR, RIM_PAINT, *TILES))
    drawn = torch.where(out > TRAY + RIM, floor, torch.where(out > TRAY, rim, torch.where(tile, dark, light)))
    return resized(drawn.permute(2, 0, 1), size)
