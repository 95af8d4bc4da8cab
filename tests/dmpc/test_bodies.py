"""Each defect does what it says, and nothing else."""

import mujoco
import numpy as np
import pytest
import torch

from minilab.dmpc.bodies import load_body, lock, motor_names, scale_friction, scale_mass, weaken
from minilab.dmpc.envs import HALF_CHEETAH, HOPPER, TASKS, WALKER, Simulator

BODIES = sorted({task.body for task in TASKS.values()})


def changed(before, after):
    """Every array of the model that an edit touched."""
    names = [n for n in dir(before) if isinstance(getattr(before, n, None), np.ndarray)]
    return {n for n in names if not np.array_equal(getattr(before, n), getattr(after, n), equal_nan=True)}


@pytest.mark.parametrize("file", BODIES)
@pytest.mark.parametrize("factor", [0.0, 0.2, -1.0])
def test_a_weakened_motor_changes_one_gear_and_nothing_else(file, factor):
    whole = load_body(file)
    for i, joint in enumerate(motor_names(whole)):
        broken = weaken(whole, joint, factor)
        assert changed(whole, broken) == {"actuator_gear"}
        assert np.argwhere(whole.actuator_gear != broken.actuator_gear).tolist() == [[i, 0]]
        assert broken.actuator_gear[i, 0] == factor * whole.actuator_gear[i, 0]
        assert not changed(whole, load_body(file))  # the model that was given stays whole


def test_motors_are_named_by_the_joints_that_they_turn():
    assert motor_names(load_body(HALF_CHEETAH.body)) == ["bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"]
    assert motor_names(load_body(HOPPER.body)) == ["thigh_joint", "leg_joint", "foot_joint"]


def test_a_dead_motor_exerts_no_torque_and_a_turned_one_the_opposite():
    whole = load_body(HALF_CHEETAH.body)
    forces = []
    for factor in (1.0, 0.0, -1.0):
        model = weaken(whole, "bfoot", factor)
        data = mujoco.MjData(model)
        data.ctrl[:] = 0.5
        mujoco.mj_forward(model, data)
        forces.append(data.qfrc_actuator[model.joint("bfoot").dofadr[0]])
    assert forces[0] > 0 and forces[1] == 0 and forces[2] == -forces[0]


@pytest.mark.parametrize("task", [HALF_CHEETAH, HOPPER, WALKER], ids=lambda task: task.name)
def test_a_locked_joint_stays_where_it_rests_whatever_the_actions(task):
    """Each joint within 3 degrees for 200 steps of random actions, none of them unstable."""
    whole, generator = load_body(task.body), torch.Generator().manual_seed(0)
    for joint in motor_names(whole):
        simulator = Simulator(task, 4, model=lock(whole, joint))
        simulator.reset(generator)
        at, rest = whole.joint(joint).qposadr[0], whole.qpos_spring[whole.joint(joint).qposadr[0]]
        worst = 0.0
        for t in range(200):
            step = simulator.step(2 * torch.rand(4, task.action_dim, generator=generator) - 1)
            assert not step.unstable.any()
            if t:  # the first step brings it there from where it was reset
                worst = max(worst, np.abs(simulator.physics[:, at] - rest).max())
        assert worst < np.deg2rad(3), joint


def test_a_free_joint_moves_far_more_than_a_locked_one():
    whole, generator = load_body(HALF_CHEETAH.body), torch.Generator().manual_seed(0)
    simulator = Simulator(HALF_CHEETAH, 8)
    simulator.reset(generator)
    angle = 0.0
    for _ in range(50):
        simulator.step(2 * torch.rand(8, 6, generator=generator) - 1)
        angle = max(angle, np.abs(simulator.physics[:, whole.joint("bfoot").qposadr[0]]).max())
    assert angle > np.deg2rad(25)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_heavier_part_weighs_more_and_the_others_as_before(factor):
    whole = load_body(HALF_CHEETAH.body)
    model = scale_mass(whole, "bfoot", factor)
    i = whole.body("bfoot").id
    others = np.arange(whole.nbody) != i
    assert model.body_mass[i] == factor * whole.body_mass[i]
    np.testing.assert_array_equal(model.body_inertia[i], factor * whole.body_inertia[i])
    np.testing.assert_array_equal(model.body_mass[others], whole.body_mass[others])
    # MuJoCo's own derived numbers follow: the mass of the whole tree below the world.
    assert model.body_subtreemass[0] == pytest.approx(whole.body_subtreemass[0] + (factor - 1) * whole.body_mass[i])
    # And so does the motion: sliding, the body has the part's kinetic energy more.
    energies = []
    for m in (whole, model):
        data = mujoco.MjData(m)
        data.qvel[0] = 1.0  # the whole body slides at 1 m/s
        mujoco.mj_forward(m, data)
        mujoco.mj_energyVel(m, data)
        energies.append(data.energy[1])
    assert energies[1] - energies[0] == pytest.approx((factor - 1) * whole.body_mass[i] / 2)


def test_less_friction_lets_the_body_slide_further():
    """A body thrown forward with limp motors: on ice it keeps more of its speed."""
    whole, left = load_body(HALF_CHEETAH.body), []
    for factor in (0.05, 1.0):
        model = scale_friction(whole, factor)
        assert changed(whole, model) <= {"geom_friction"}
        np.testing.assert_allclose(model.geom_friction[:, 0], factor * whole.geom_friction[:, 0])
        simulator = Simulator(HALF_CHEETAH, 1, model=model)
        simulator.place(np.concatenate((whole.qpos0, [4.0], np.zeros(whole.nv - 1)))[None])
        for _ in range(30):
            simulator.step(torch.zeros(1, 6))
        left.append(simulator.physics[0, whole.nq])
    assert left[0] > 2 * abs(left[1])


def test_a_wrong_name_or_number_is_refused_with_what_there_is():
    whole = load_body(HALF_CHEETAH.body)
    with pytest.raises(ValueError, match="no motor called 'ankle'; choose one of bthigh, bshin, bfoot"):
        weaken(whole, "ankle", 0.2)
    with pytest.raises(ValueError, match="no motor called 'rootx'"):
        lock(whole, "rootx")
    with pytest.raises(ValueError, match="no body called 'tail'; choose one of world, torso"):
        scale_mass(whole, "tail", 2.0)
    with pytest.raises(ValueError, match="mass cannot be scaled by 0"):
        scale_mass(whole, "torso", 0)
    with pytest.raises(ValueError, match="friction cannot be scaled by -1"):
        scale_friction(whole, -1)
