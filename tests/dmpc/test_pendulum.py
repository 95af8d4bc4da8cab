"""The pendulum: its physics against closed forms, and the planners against what must be true of them."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp

from minilab.core.style import figure_html
from minilab.dmpc import figures
from minilab.dmpc.pendulum import (
    HANGING,
    Pendulum,
    Swing,
    at_rest,
    disturbed,
    height,
    random_blocks,
    refined,
    run,
    scripted,
    shooting,
    success,
    swing_up,
)

FREE = Pendulum(torque=0.0, friction=0.0)
STILL = torch.zeros(1)


def fall(pendulum: Pendulum, steps: int) -> torch.Tensor:
    state = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    path = [state]
    for _ in range(steps):
        path.append(pendulum.step(path[-1], STILL.double()[None]))
    return torch.cat(path)


@pytest.mark.parametrize("theta", [0.1, 2.0])
def test_free_pendulum_has_the_period_of_the_elliptic_integral(theta):
    """T = 4 sqrt(l / g) K(sin(theta / 2)), and K by the arithmetic-geometric mean."""
    a, b = 1.0, math.cos(theta / 2)
    for _ in range(20):
        a, b = (a + b) / 2, math.sqrt(a * b)
    period = 2 * math.pi * math.sqrt(1 / 9.81) / a
    fine = Pendulum(torque=0.0, friction=0.0, dt=period, substeps=20_000)
    state = fine.step(torch.tensor([theta, 0.0], dtype=torch.float64), STILL.double())
    torch.testing.assert_close(state, torch.tensor([theta, 0.0], dtype=torch.float64), atol=2e-3, rtol=0)


def test_energy_error_is_of_first_order_and_does_not_drift():
    def error(substeps: int, steps: int) -> float:
        pendulum = Pendulum(torque=0.0, friction=0.0, substeps=substeps)
        energy = pendulum.energy(fall(pendulum, steps))
        return float((energy - energy[0]).abs().max())

    assert error(10, 60) / error(20, 60) == pytest.approx(2, rel=0.05)
    assert error(10, 3000) < 1.1 * error(10, 60)


def test_a_step_keeps_area_in_the_plane_of_angle_and_speed():
    jacobian = torch.autograd.functional.jacobian(lambda s: FREE.step(s, STILL.double()),
                                                  torch.tensor([1.3, -0.7], dtype=torch.float64))
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1, abs=1e-12)


def test_motor_and_friction_enter_as_the_equation_says():
    pendulum = Pendulum(mass=0.8, length=1.3, torque=2.5, friction=0.2, dt=1.0, substeps=4000)

    def rhs(t, y):
        return y[1], (0.6 * 2.5 - 0.8 * 9.81 * 1.3 * math.sin(y[0]) - 0.2 * y[1]) / (0.8 * 1.3**2)

    expected = torch.tensor(solve_ivp(rhs, (0, 1), (0.4, 1.0), rtol=1e-10, atol=1e-10).y[:, -1])
    found = pendulum.step(torch.tensor([0.4, 1.0], dtype=torch.float64), torch.tensor([0.6], dtype=torch.float64))
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)
    beyond = pendulum.step(torch.tensor([0.4, 1.0]), torch.tensor([7.0]))
    torch.testing.assert_close(beyond, pendulum.step(torch.tensor([0.4, 1.0]), torch.tensor([1.0])))


def test_predictions_are_the_plants_own_steps():
    generator = torch.Generator().manual_seed(0)
    plant, start = Pendulum(), at_rest(3, generator)
    actions = random_blocks(7, generator)(start, 5)
    predicted = plant.predict(start, actions)
    for b, n in ((0, 0), (2, 4)):
        swing = run(scripted(actions[b, n][None]), plant, start[b : b + 1], 7, every=7)
        torch.testing.assert_close(swing.states[0, 1:], predicted[b, n])


def test_random_blocks_hold_each_action():
    actions = random_blocks(10, torch.Generator().manual_seed(0), hold=4)(torch.zeros(2, 2), 3)
    assert actions.shape == (2, 3, 10, 1) and actions.abs().max() <= 1
    assert (actions.diff(dim=2).abs() > 0)[0, 0, :, 0].nonzero()[:, 0].tolist() == [3, 7]


def test_objective_is_best_standing_still():
    standing, spinning, hanging = (torch.tensor([s]).expand(4, 2) for s in ([math.pi, 0], [math.pi, 9.0], HANGING))
    none = torch.zeros(3, 1)
    scores = [float(swing_up(s, none)) for s in (standing, spinning, hanging)]
    assert scores[0] == pytest.approx(3) and scores[2] == pytest.approx(0) and scores[1] < scores[0]


def test_the_motor_cannot_lift_the_pendulum_at_once():
    plant = Pendulum()
    swing = run(scripted(torch.ones(1, 100, 1)), plant, torch.tensor([HANGING]), 100, every=100)
    highest = math.asin(plant.torque / (plant.mass * plant.gravity * plant.length))
    assert plant.torque < plant.mass * plant.gravity * plant.length
    assert height(swing.states).max() < -math.cos(2.2 * highest)  # it overshoots its balance by as much again


def test_horizon_of_three_steps_never_swings_up_and_eight_with_64_candidates_do():
    shares = success(Pendulum(), horizons=(3, 8), candidates=(4, 64), copies=8)
    assert shares.shape == (2, 2, 8)
    assert shares[0].max() == 0 and shares[1, 1].min() > 0.9
    assert shares[1, 0].mean() < 0.5 * shares[1, 1].mean()


@pytest.mark.parametrize("by", ["cem", "mppi"])
def test_refined_plans_swing_up_and_score_above_shooting_with_as_many_draws(by):
    plant, start = Pendulum(), torch.tensor([[0.3, 0.0]]).expand(8, 2)

    def score(plan):
        actions = plan(start, None)
        states = torch.cat((start[:, None], plant.predict(start, actions[:, None])[:, 0]), dim=1)
        return float(swing_up(states, actions).mean())

    seeded = torch.Generator().manual_seed(0)
    assert score(refined(plant, 16, 64, seeded, by=by)) > score(shooting(plant, 16, 256, seeded, hold=1))
    assert run(refined(plant, 16, 64, seeded, by=by), plant, start, 100).stands.mean() > 0.9


def test_a_push_topples_the_open_loop_and_not_the_receding_horizon():
    runs = disturbed(Pendulum())
    undisturbed, open_loop, receding = (runs[k] for k in ("undisturbed", "open loop", "receding horizon"))
    assert torch.equal(undisturbed.states[:, :61], receding.states[:, :61])
    assert torch.equal(undisturbed.states[:, :61], open_loop.states[:, :61])
    assert undisturbed.stands == 1 and receding.stands == 1 and open_loop.stands < 0.7


def test_without_a_push_the_open_loop_repeats_itself():
    runs = disturbed(Pendulum(), push=0.0, steps=30, at=10)
    assert all(torch.equal(r.states, runs["undisturbed"].states) for r in runs.values())


def test_unknown_method_and_a_plan_that_is_too_short_are_refused():
    with pytest.raises(ValueError, match="choose one of cem, mppi"):
        refined(Pendulum(), 4, 8, torch.Generator(), by="sqp")
    with pytest.raises(ValueError, match="a plan of 4 actions cannot be followed for 6"):
        run(scripted(torch.zeros(1, 4, 1)), Pendulum(), torch.tensor([HANGING]), 10, every=6)


def test_figures_show_the_data_that_they_are_given():
    plant = Pendulum()
    states, actions = torch.zeros(1, 31, 2), torch.full((1, 30, 1), 0.5)
    states[:, 20:, 0] = math.pi
    fig = figures.swing_ups({"open loop": Swing(states, actions)}, plant, pushed=9)
    line = fig.axes[0].lines[0]
    assert line.get_xdata()[-1] == pytest.approx(3.0) and line.get_ydata()[0] == -1 and line.get_ydata()[-1] == 1
    assert set(fig.axes[1].lines[0].get_ydata()) == {1.0}  # half of 2 N m
    assert "NaN" not in figure_html(fig, alt="A swing-up.")

    fig = figures.success(torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]]), (5, 10), (16,), dt=0.1)
    drawn = fig.axes[0].containers[0].lines[0]
    assert drawn.get_xdata().tolist() == [0.5, 1.0] and drawn.get_ydata().tolist() == [0.5, 1.0]
