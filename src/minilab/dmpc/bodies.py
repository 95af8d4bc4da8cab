"""The robots, and what can go wrong with them: each defect is an edit of a MuJoCo model.

The bodies are Gymnasium's own files, so that a body without a defect is the one of its environments. A defect
returns an edited copy; the model that it was given stays whole.
"""

import contextlib
import copy
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import mujoco


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MuJoCo from writing its warnings into a log file in the current folder."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda text: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


@cache
def _whole(file: str) -> mujoco.MjModel:
    folder = Path(importlib.util.find_spec("gymnasium").origin).parent / "envs" / "mujoco" / "assets"
    with quiet():  # one of the files says `settotalmass`, which MuJoCo means to drop
        return mujoco.MjModel.from_xml_path(str(folder / file))


def load_body(file: str) -> mujoco.MjModel:
    """A fresh model of one of Gymnasium's files, such as "half_cheetah.xml"."""
    return copy.copy(_whole(file))


def motor_names(model: mujoco.MjModel) -> list[str]:
    """The joint that each motor turns, in the order of the actions."""
    return [model.joint(model.actuator_trnid[i, 0]).name for i in range(model.nu)]


def weaken(model: mujoco.MjModel, joint: str, factor: float) -> mujoco.MjModel:
    """The motor of a joint keeps `factor` of its torque: 0 is broken, a negative number turns it around."""
    edited = copy.copy(model)
    edited.actuator_gear[_index(joint, motor_names(model), "motor"), 0] *= factor
    return edited


def lock(model: mujoco.MjModel, joint: str, *, play: float = 0.01) -> mujoco.MjModel:
    """A joint is rusted: held within `play` radians of its rest, up to 2 degrees more under load; its motor is dead.

    Narrow limits and dry friction do it, for which MuJoCo solves implicitly. A stiff spring would blow up the light
    feet of Walker2d.
    """
    edited = weaken(model, joint, 0.0)
    j, constraint = edited.joint(joint), (2 * edited.opt.timestep, 1.0)  # as hard as the time step allows
    rest = edited.qpos_spring[j.qposadr[0]]
    edited.jnt_limited[j.id], edited.jnt_range[j.id] = True, (rest - play, rest + play)
    edited.dof_frictionloss[j.dofadr[0]] = 1e3  # N m, far above any torque here
    for solref, solimp, i in ((edited.jnt_solref, edited.jnt_solimp, j.id),
                              (edited.dof_solref, edited.dof_solimp, j.dofadr[0])):
        solref[i], solimp[i, :2] = constraint, 0.99
    return edited


def scale_mass(model: mujoco.MjModel, body: str, factor: float) -> mujoco.MjModel:
    """One part is heavier or lighter. Raises ValueError unless the factor is positive."""
    if factor <= 0:
        raise ValueError(f"a mass cannot be scaled by {factor}: give a positive factor")
    edited = copy.copy(model)
    i = _index(body, [model.body(i).name for i in range(model.nbody)], "body")
    edited.body_mass[i] *= factor
    edited.body_inertia[i] *= factor
    mujoco.mj_setConst(edited, mujoco.MjData(edited))
    return edited


def scale_friction(model: mujoco.MjModel, factor: float) -> mujoco.MjModel:
    """The ground is more or less slippery. Raises ValueError for a negative factor."""
    if factor < 0:
        raise ValueError(f"friction cannot be scaled by {factor}: give 0 or more")
    edited = copy.copy(model)
    edited.geom_friction[:, 0] *= factor
    return edited


def _index(name: str, names: list[str], what: str) -> int:
    if name not in names:
        raise ValueError(f"no {what} called {name!r}; choose one of {', '.join(filter(None, names))}")
    return names.index(name)
