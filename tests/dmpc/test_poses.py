"""Bodies from observations, against the physics that the observations came from."""

import mujoco
import numpy as np
import pytest
import torch

from minilab.core.style import PALETTE, figure_html
from minilab.dmpc import figures
from minilab.dmpc.agent import Planner
from minilab.dmpc.bodies import load_body
from minilab.dmpc.envs import HALF_CHEETAH, HOPPER, TASKS, Simulator
from minilab.dmpc.poses import Imagined, imagine_and_run, limbs, poses


def wander(task, steps: int, strength: float = 1.0):
    """Observations and true positions under random actions."""
    simulator, generator = Simulator(task, 1), torch.Generator().manual_seed(0)
    states, positions = [simulator.reset(generator)], [simulator.physics[:, : simulator.model.nq].copy()]
    for _ in range(steps):
        action = strength * (2 * torch.rand(1, simulator.action_dim, generator=generator) - 1)
        states.append(simulator.step(action).state)
        positions.append(simulator.physics[:, : simulator.model.nq].copy())
    return torch.cat(states), np.concatenate(positions)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_positions_are_the_simulators_and_the_way_is_nearly(task):
    states, true = wander(task, 25)
    found = poses(states, task.dt)
    np.testing.assert_allclose(found[:, 1:], true[:, 1:], atol=1e-6)
    way = np.abs(np.diff(true[:, 0])).sum()
    assert np.abs(found[:, 0] - (true[:, 0] - true[0, 0])).max() < 0.1 * way


def test_way_of_a_constant_acceleration_is_exact():
    states = torch.zeros(11, 17)
    states[:, 8] = torch.arange(11) * 0.3  # x-velocity after 8 observed positions
    np.testing.assert_allclose(poses(states, 0.05)[:, 0], 0.5 * 0.3 / 0.05 * (0.05 * np.arange(11)) ** 2, atol=1e-6)


def test_limbs_hang_together_and_keep_their_lengths():
    model = load_body(HALF_CHEETAH.body)
    body = limbs(model, wander(HALF_CHEETAH, 10)[1])
    lengths = np.linalg.norm(body.ends[:, :, 1] - body.ends[:, :, 0], axis=-1)
    capsules = model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE
    np.testing.assert_allclose(lengths, np.broadcast_to(2 * model.geom_size[capsules, 1], lengths.shape), atol=1e-9)
    np.testing.assert_allclose(body.ends[:, 0].mean(axis=1), body.torso, atol=1e-9)  # it lies around it


def test_body_at_rest_stands_on_the_floor():
    model = load_body(HOPPER.body)
    body = limbs(model, model.qpos0[None])
    lowest = (body.ends[0, :, :, 1].min(axis=1) - body.radius).min()
    assert lowest == pytest.approx(0.04, abs=0.01)  # where Gymnasium's hopper rests
    assert body.torso[0, 1] == pytest.approx(1.25)


def simulated_planner(simulator, n: int = 4) -> Planner:
    """A planner whose model is the physics itself."""
    generator = torch.Generator().manual_seed(1)
    return Planner(lambda s, n: 2 * torch.rand(len(s), n, 6, 6, generator=generator) - 1,
                   lambda s, a: simulator.imagine(a), lambda s, a: s[..., -1, 8], n=n)


def test_with_the_physics_as_model_the_imagined_is_the_real():
    simulator = Simulator(HALF_CHEETAH, 1)
    simulator.reset(torch.Generator().manual_seed(0))
    found = imagine_and_run(simulated_planner(simulator), simulator, (0, 3))
    assert [one.moment for one in found] == [0, 3] and found[0].real.shape == (7, 17)
    for one in found:
        torch.testing.assert_close(one.imagined, one.real)
    assert not torch.equal(found[0].real[0], found[1].real[0])


@pytest.mark.parametrize("moments", [(3, 1), (-1, 2), (2, 2)])
def test_moments_out_of_order_are_refused(moments):
    simulator = Simulator(HALF_CHEETAH, 1)
    with pytest.raises(ValueError, match="in rising order"):
        imagine_and_run(simulated_planner(simulator), simulator, moments)


def test_overlay_draws_both_bodies_true_to_scale_and_both_paths():
    states = wander(HALF_CHEETAH, 8)[0]
    off = states.clone()
    off[1:, 8] += 1.0  # imagined 1 m/s too fast
    model = load_body(HALF_CHEETAH.body)
    fig = figures.overlay(model, [Imagined(4, 0.05, off, states)])
    path, *panels = fig.axes
    assert [ax.get_title() for ax in panels] == ["now", "after 0.1 s", "after 0.2 s", "after 0.4 s"]
    boxes = [[c.get_paths()[0].get_extents() for c in ax.collections] for ax in panels]
    shifts = [imagined.x0 - real.x0 for real, imagined in boxes]
    assert shifts == pytest.approx([0, 0.05 * 1.5, 0.05 * 3.5, 0.05 * 7.5], abs=1e-4)
    real = limbs(model, poses(states, 0.05))
    drawn, way = path.lines[0].get_xdata(), real.torso[:, 0]
    np.testing.assert_allclose(drawn - drawn[0], way - way[0])
    torso = boxes[0][0]  # 1 m between the centers of its round ends
    length = np.hypot(torso.width - 2 * 0.046, torso.height - 2 * 0.046)
    assert length == pytest.approx(1.0, abs=5e-3)  # rounds of 22 corners
    html = figure_html(fig, alt="Bodies.")
    assert PALETTE.sky in html and len(html) < 120_000
