"""Agents in Two Rooms with a model that knows the truth: what is left to fail is the bookkeeping."""

from types import SimpleNamespace

import pytest
import torch

from minilab.lewm import model as model_module
from minilab.lewm.data import Scale
from minilab.lewm.planner import PlanConfig
from minilab.lewm.rollout import Planner, attempt, block_bounds, first_success
from minilab.lewm.worlds import world_named

SCALE = Scale(torch.tensor([0.1, -0.2]), torch.tensor([0.5, 0.8]))
K, SIZE = 5, 56
ROOMS = world_named("rooms")


class Truth(model_module.LeWM):
    """Its latent is where the red dot is, in steps of the world; blocks add up."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.config, self.asked = SimpleNamespace(actions=2 * K), []
        self.eval()

    def encode(self, frames):
        red = (frames[:, :, 0].float() - frames[:, :, 1].float()).clamp(min=0)  # B T H W
        pixel, mass = (torch.arange(SIZE) + 0.5) * 224 / SIZE - 0.5, red.sum(dim=(-1, -2))
        return torch.stack(((red.sum(dim=-2) @ pixel) / mass, (red.sum(dim=-1) @ pixel) / mass), dim=-1) / 5

    def imagine(self, z_history, actions, past=None):
        self.asked.append((z_history, past))
        return z_history[:, -1:] + SCALE.actions(actions).clamp(-1, 1).sum(dim=-2).cumsum(dim=1)


def tasks(n: int = 24):
    """Starts and goals in the left room's lower half, some 60 to 100 apart."""
    generator = torch.Generator().manual_seed(0)
    start = torch.tensor([40.0, 190.0]) + 10 * torch.rand(n, 2, generator=generator)
    return start, start + torch.tensor([40.0, -60.0]) + 20 * torch.rand(n, 2, generator=generator) - 10


@pytest.mark.parametrize("options", [
    {}, dict(execute=1), dict(execute=2, warm=True, std=0.5), dict(execute=1, history=3),
    dict(method="icem"), dict(method="icem", execute=2, warm=True, cost="mean"), dict(execute=2, deadline=True),
    dict(method="icem", execute=1, warm=True, deadline=True, history=3),
], ids=str)  # fmt: skip
def test_a_planner_that_knows_the_truth_reaches_its_goals(options):
    start, goal = tasks()
    agent = Planner(Truth(), PlanConfig(samples=100, elites=10, iterations=6, **options), SCALE,
                    torch.Generator().manual_seed(1), bounded=True)
    done = attempt(ROOMS, agent, start, goal, budget=50, size=SIZE)
    assert done.states.shape == (24, 51, 2) and done.act_s > 0
    assert done.success.float().mean() > 0.9
    assert (done.first[done.success] > 6).all()  # 60 at 5 a step and axis


def test_an_agent_may_measure_by_another_distance():
    """By this one the best end is as far right of the goal as can be."""
    start, goal = tasks(8)
    agent = Planner(Truth(), PlanConfig(samples=100, elites=10, iterations=6), SCALE, torch.Generator().manual_seed(1),
                    bounded=True, distance=lambda z, z_goal: z_goal[..., 0] - z[..., 0])
    done = attempt(ROOMS, agent, start, goal, budget=25, size=SIZE)
    assert (done.states[:, -1, 0] > goal[:, 0] + 2).all()


def test_real_history_goes_with_the_blocks_that_were_run_between_its_frames():
    start, goal = tasks(4)
    truth = Truth()
    agent = Planner(truth, PlanConfig(samples=8, elites=2, iterations=1, execute=1, history=3), SCALE)
    done = attempt(ROOMS, agent, start, goal, budget=25, size=SIZE)
    assert [z.shape[1] for z, _ in truth.asked] == [1, 2, 3, 3, 3]
    z, past = (x[::8] for x in truth.asked[-1])  # one candidate of each problem
    torch.testing.assert_close(z[:, :, 0] * 5, done.states[:, [10, 15, 20], 0], atol=1.0, rtol=0)
    moved = 5 * SCALE.actions(past).clamp(-1, 1).sum(dim=-2)  # B 2 2
    torch.testing.assert_close(moved, done.states[:, [15, 20]] - done.states[:, [10, 15]], atol=1e-3, rtol=0)


def test_a_whole_plan_is_run_before_the_next_and_a_budget_cuts_the_last_block():
    truth = Truth()
    agent = Planner(truth, PlanConfig(samples=8, elites=2, iterations=1), SCALE)
    done = attempt(ROOMS, agent, *tasks(2), budget=28, size=SIZE)
    assert len(truth.asked) == 2 and done.states.shape[1] == 29


@pytest.mark.parametrize("execute, horizons", [(1, [3, 2, 1, 3, 2, 1, 3]), (2, [3, 3, 1, 3, 3, 1, 3])])
@pytest.mark.parametrize("warm", [False, True])
def test_who_keeps_a_deadline_plans_for_the_blocks_that_are_left_of_it(execute, horizons, warm):
    start, goal = tasks(4)
    config = PlanConfig(horizon=3, samples=20, elites=4, iterations=1, execute=execute, warm=warm, deadline=True)
    agent = Planner(Truth(), config, SCALE, torch.Generator().manual_seed(1))
    agent.start(ROOMS.render(goal, SIZE))
    lengths = []
    for _ in horizons:
        assert agent.act(ROOMS.render(start, SIZE)).shape == (4, K, 2)
        lengths.append(agent.last.shape[2])
    assert lengths == horizons


def test_bounds_are_the_worlds_in_the_models_units():
    low, high = block_bounds(SCALE, 2 * K)
    torch.testing.assert_close(SCALE.actions(low), torch.full((K, 2), -1.0))
    torch.testing.assert_close(SCALE.actions(high), torch.full((K, 2), 1.0))


def test_success_is_to_have_been_there_once_after_the_start():
    goal = torch.tensor([[100.0, 150.0]]).expand(3, 2)
    x = torch.tensor([[100.0, 50, 50, 50], [50, 50, 100, 50], [50, 50, 50, 50]])
    states = torch.stack((x, torch.full_like(x, 150)), dim=-1)
    assert first_success(ROOMS, states, goal).tolist() == [-1, 2, -1]
