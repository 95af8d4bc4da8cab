"""Bodies in the plane, from observations: where they stand, where their limbs are, and what a plan imagined of it.

An observation lacks how far the body has come, since no policy should care. To draw it we integrate the speed, a
trapezoid a step: on a running half cheetah that is off by 1 cm in the 1.7 m of a plan. It works as well for states that
a model has only imagined.

Shapes: T1 states, F1 states of a plan with the present one, S numbers in a state, Q positions, G limbs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from minilab.dmpc.agent import Planner
from minilab.dmpc.envs import Simulator


def poses(states: Float[Tensor, "T1 S"], dt: float) -> Float[np.ndarray, "T1 Q"]:
    """Positions of the physics: the horizontal one, integrated from 0, and those that are observed."""
    Q = (states.shape[-1] + 1) // 2
    states = states.detach().cpu().double().numpy()
    speed = states[:, Q - 1]
    x = np.concatenate(([0.0], np.cumsum(dt * (speed[1:] + speed[:-1]) / 2)))
    return np.concatenate((x[:, None], states[:, : Q - 1]), axis=1)


@dataclass(frozen=True)
class Limbs:
    """The capsules that a body is made of, in the plane of x and z, in meters."""

    ends: Float[np.ndarray, "T1 G 2 2"]  # both ends of each axis
    radius: Float[np.ndarray, "G"]
    torso: Float[np.ndarray, "T1 2"]  # where the torso's frame is


def limbs(model: mujoco.MjModel, qpos: Float[np.ndarray, "T1 Q"]) -> Limbs:
    """Where MuJoCo's kinematics put every capsule. No contact and no rendering is needed."""
    data = mujoco.MjData(model)
    which = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE)
    half = model.geom_size[which, 1, None]
    ends, torso = [], []
    for q in qpos:
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        axis = half * data.geom_xmat[which].reshape(-1, 3, 3)[:, ::2, 2]  # x and z of the capsule's own z axis
        middle = data.geom_xpos[which][:, ::2]
        ends.append(np.stack((middle - axis, middle + axis), axis=1))
        torso.append(data.body("torso").xpos[::2].copy())
    return Limbs(np.stack(ends), model.geom_size[which, 0].copy(), np.stack(torso))


@dataclass(frozen=True)
class Imagined:
    """A plan's best candidate as the model saw it, and what the simulator made of the same actions."""

    moment: int  # steps since the start
    dt: float  # seconds
    imagined: Float[Tensor, "F1 S"]
    real: Float[Tensor, "F1 S"]


def imagine_and_run(planner: Planner, simulator: Simulator, moments: Sequence[int]) -> list[Imagined]:
    """Let a planner control the first copy of a simulator; at some moments compare its best plan with the physics.

    The copies start from where they stand. Between the moments the planner plans at every step, as always; what is
    compared is one whole plan without another look. A fall ends nothing here. Raises ValueError for moments that are
    negative or not in order.
    """
    if list(moments) != sorted(set(moments)) or (moments and moments[0] < 0):
        raise ValueError(f"the moments must be steps in rising order, from 0 on, not {list(moments)}")
    found, state = [], simulator.observe()
    for t in range(max(moments, default=-1) + 1):
        plans = planner.plan(state)
        best, chosen = int(plans.best[0]), plans.chosen.cpu()
        if t in moments:
            outcome = simulator.imagine(chosen[:, None])[0, 0]
            found.append(Imagined(t, simulator.task.dt, plans.states[0, best].cpu(), torch.cat((state[:1], outcome))))
        state = simulator.step(chosen[:, 0]).state
    return found
