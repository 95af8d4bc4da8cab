"""Planners on a linear latent model, whose best plan is a least-squares solution."""

from types import SimpleNamespace

import pytest
import torch

from minilab.lewm.model import LeWM, cpu
from minilab.lewm.planner import PlanConfig, goal_score, paper, plan, plans, small, squared

D, A, H, B = 8, 1, 4, 3  # fewer actions than latent numbers: one best plan, at a cost above 0


class Linear:
    """z' = M z + N a."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.config = SimpleNamespace(actions=A)
        self.M = 0.9 * torch.linalg.qr(torch.randn(D, D, generator=generator))[0]
        self.N = torch.randn(D, A, generator=generator)

    def imagine(self, z_history, actions, past=None):
        z, out = z_history[:, -1], []
        for a in actions.unbind(dim=1):
            z = z @ self.M.T + a @ self.N.T
            out.append(z)
        return torch.stack(out, dim=1)

    def solve(self, z, goal, cost):
        """The best plan: imagined latents are free + G a, with G the response to one action at a time."""
        free = self.imagine(z, torch.zeros(len(z), H, A))  # B H D
        G = self.imagine(torch.zeros(H, 1, D), torch.eye(H)[..., None])  # action H D
        steps = slice(-1, None) if cost == "last" else slice(None)
        G = G[:, steps].flatten(1).T
        return torch.stack([torch.linalg.lstsq(G, (g - f[steps]).flatten()[:, None]).solution
                            for f, g in zip(free, goal, strict=True)])


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(1)
    return Linear(), torch.randn(B, 1, D, generator=generator), torch.randn(B, D, generator=generator)


@pytest.mark.parametrize("cost", ["last", "mean"])
@pytest.mark.parametrize("settings", [
    dict(method="cem", samples=300, elites=30, iterations=30),
    dict(method="icem", samples=300, elites=30, iterations=30, beta=0.5),
    dict(method="adam", samples=2, iterations=400, lr=0.05),
    dict(method="mppi", samples=2000, iterations=40, temperature=0.05, std=0.15),
], ids=lambda s: s["method"])  # fmt: skip
def test_planners_find_the_least_squares_plan(problem, settings, cost):
    model, z, goal = problem
    config = PlanConfig(horizon=H, execute=1, cost=cost, **settings)
    found = plan(model, z, goal, config, torch.Generator().manual_seed(2))
    best = model.solve(z, goal, cost)
    score = goal_score(model, z, goal, cost=cost)
    torch.testing.assert_close(score(found[:, None]), score(best[:, None]), rtol=0.02, atol=1e-3)
    torch.testing.assert_close(found, best, atol=0.12, rtol=0)


def test_the_cost_is_the_squared_distance_of_the_last_latent_or_of_all_on_average(problem):
    model, z, goal = problem
    actions = torch.randn(B, 5, H, A, generator=torch.Generator().manual_seed(3))
    imagined = torch.stack([model.imagine(z, actions[:, n]) for n in range(5)], dim=1)  # B N H D
    distance = (imagined - goal[:, None, None]).square().sum(dim=-1)
    torch.testing.assert_close(goal_score(model, z, goal)(actions), -distance[..., -1])
    torch.testing.assert_close(goal_score(model, z, goal, cost="mean")(actions), -distance.mean(dim=-1))


@pytest.mark.parametrize("method", ["cem", "icem", "mppi", "adam"])
def test_bounds_hold_and_the_plan_within_them_is_the_best(problem, method):
    model, z, goal = problem
    low, high = torch.tensor([-0.2]), torch.tensor([0.3])
    config = PlanConfig(horizon=H, execute=1, method=method, samples=200, elites=20, iterations=200, lr=0.05,
                        temperature=0.01)
    found = plan(model, z, goal, config, torch.Generator().manual_seed(2), bounds=(low, high))
    assert (found >= low).all() and (found <= high).all()
    score = goal_score(model, z, goal)
    grid = torch.cartesian_prod(*[torch.linspace(-0.2, 0.3, 8)] * H).view(1, -1, H, A).expand(B, -1, -1, -1)
    assert (score(found[:, None])[:, 0] >= score(grid).max(dim=1).values - 0.05).all()


def test_a_warm_start_needs_fewer_iterations(problem):
    model, z, goal = problem
    config = PlanConfig(horizon=H, execute=1, samples=64, elites=8, iterations=2, std=0.1)
    score, best = goal_score(model, z, goal), model.solve(z, goal, "last")
    cold, warm = (plan(model, z, goal, config, torch.Generator().manual_seed(4), start=start)
                  for start in (None, best + 0.05))
    assert (score(warm[:, None]) > score(cold[:, None])).all()


def test_another_distance_replaces_the_squared_one(problem):
    model, z, goal = problem
    actions = torch.randn(B, 5, H, A, generator=torch.Generator().manual_seed(3))

    def one_sided(z, z_goal):
        return 3 * z[..., 0] - z_goal[..., 1]

    ends = torch.stack([model.imagine(z, actions[:, n])[:, -1] for n in range(5)], dim=1)  # B N D
    expected = -(3 * ends[..., 0] - goal[:, None, 1])
    torch.testing.assert_close(goal_score(model, z, goal, distance=one_sided)(actions), expected)
    config = PlanConfig(horizon=H, execute=1, iterations=3)
    found = [plan(model, z, goal, config, torch.Generator().manual_seed(2), distance=d) for d in (squared, one_sided)]
    score = goal_score(model, z, goal, distance=one_sided)
    assert (score(found[1][:, None]) > score(found[0][:, None])).all()


def test_the_noise_of_icem_is_colored_along_all_raw_actions_of_a_plan():
    """The model sees the draws as blocks of k = 4 actions of 2 numbers; neighbors are alike, within and across."""
    seen = []

    class Watched(Linear):
        def imagine(self, z_history, actions, past=None):
            seen.append(actions)
            return z_history[:, -1:].expand(-1, actions.shape[1], -1)

    model = Watched()
    model.config.actions = 8
    config = PlanConfig(method="icem", horizon=H, execute=1, samples=2000, elites=2, iterations=1, beta=3.0)
    plans(model, torch.zeros(1, 1, D), torch.zeros(1, D), config, torch.Generator().manual_seed(0), action_dim=2)
    raw = seen[0].unflatten(-1, (4, 2)).flatten(1, 2)  # N Hk A
    within, across, columns = ((x * y).mean() for x, y in (
        (raw[:, 0], raw[:, 1]), (raw[:, 3], raw[:, 4]), (raw[..., 0], raw[..., 1])))
    assert within > 0.7 and across > 0.7 and columns.abs() < 0.1


def test_icem_goes_on_from_what_an_earlier_search_found(problem):
    model, z, goal = problem
    config = PlanConfig(method="icem", horizon=H, execute=1, samples=64, elites=8, iterations=2)
    score, best = goal_score(model, z, goal), model.solve(z, goal, "last")
    start = torch.stack((torch.zeros_like(best), best), dim=1)  # the second best of two is the good one
    found = plans(model, z, goal, config, torch.Generator().manual_seed(4), start=start)
    assert found.shape == (B, 8, H, A)
    assert (score(found)[:, 0] >= score(best[:, None])[:, 0] - 1e-5).all()


@pytest.mark.parametrize("method", ["cem", "icem", "adam"])
def test_a_learned_model_is_planned_with_for_many_problems_and_keeps_no_gradient(method):
    torch.manual_seed(0)
    model = LeWM(cpu(4))
    for block in model.predictor.blocks:
        torch.nn.init.normal_(block.steer.weight, std=0.3)
    z, past, goal = torch.randn(2, 3, 32), torch.randn(2, 2, 4), torch.randn(2, 32)
    config = PlanConfig(samples=16, elites=4, iterations=6, method=method)
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        plan(model, z, goal, config, past=past)
    model.eval()
    with torch.inference_mode():
        found = plan(model, z.clone(), goal.clone(), config, torch.Generator().manual_seed(0), past=past.clone())
    assert found.shape == (2, 5, 4)
    score = goal_score(model, z, goal, past=past)
    assert (score(found[:, None]) > score(torch.zeros_like(found)[:, None])).all()
    assert all(p.grad is None for p in model.parameters())


def test_the_same_seed_gives_the_same_plan_and_the_paper_its_settings(problem):
    model, z, goal = problem
    plans = [plan(model, z, goal, small(horizon=H, execute=1), torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(plans[0], plans[1]) and not torch.equal(plans[0], plans[2])
    c = paper()
    assert (c.samples, c.elites, c.iterations, c.horizon, c.execute, c.std, c.cost) == (300, 30, 30, 5, 5, 1.0, "last")
    assert paper(10).iterations == 10


def test_more_blocks_than_the_plan_has_cannot_be_run():
    with pytest.raises(ValueError, match="5 blocks, of which 6"):
        PlanConfig(execute=6)
