"""Imitation, MBOP, the auto-regressive model and the ablations, on a linear system whose answers are known."""

from dataclasses import replace

import pytest
import torch
from dmpc.linear_system import B, M, linear_episodes

from minilab.dmpc.agent import Planner
from minilab.dmpc.baselines.ablations import (
    from_dynamics,
    from_proposal,
    gaussian,
    mean_of,
    residual_spread,
    step_by_step,
    uniform,
)
from minilab.dmpc.baselines.autoregressive import SMALL, learn_autoregressive
from minilab.dmpc.baselines.cloning import imitation, learn_cloning
from minilab.dmpc.baselines.common import Chunked, learn_proposal
from minilab.dmpc.baselines.mbop import Mbop, Shooting, learn_members
from minilab.dmpc.data import Scales, Windows
from minilab.dmpc.learn import blank, small
from minilab.dmpc.networks import NetworkConfig

K = torch.tensor([[-0.3, -0.1, 0.0], [0.0, 0.2, -0.2]])  # the data's policy
F = 6
RECIPE = replace(small(F, width=64, layers=1, steps=600, batch=128), lr=2e-3)


@pytest.fixture(scope="module")
def episodes():
    """Actions K s and noise of spread 0.3, which is seldom cut to [-1, 1]."""
    generator = torch.Generator().manual_seed(1)
    return linear_episodes(100, 20, law=lambda s: s @ K.T + 0.3 * torch.randn(len(s), 2, generator=generator))


@pytest.fixture(scope="module")
def cloned(episodes):
    return learn_cloning(episodes, RECIPE)


@pytest.fixture(scope="module")
def members(episodes):
    return learn_members(episodes, RECIPE, members=2)


@pytest.fixture(scope="module")
def autoregressive(episodes):
    return learn_autoregressive(episodes, RECIPE, NetworkConfig("transformer", 32, 2, 2, 64))


def states(n, seed=9):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)) / 2


def step(state, action):
    return state @ M.T + action @ B.T


def nearness(states, actions):
    """An objective: minus the squared distance to the origin, summed."""
    return -states[..., 1:, :].square().sum(dim=(-1, -2))


def unrolled(state, actions):
    """The true states after each action: B N F A to B N F S."""
    now, out = state[:, None].expand(-1, actions.shape[1], -1), []
    for a in actions.unbind(dim=2):
        now = step(now, a)
        out.append(now)
    return torch.stack(out, dim=2)


def test_behavior_cloning_recovers_the_gains_of_a_linear_policy(cloned):
    """By least squares on what it does: noise in the data averages out, and the state's order is kept."""
    s = states(500)
    gains = torch.linalg.lstsq(s, cloned.propose(s, 1)[:, 0, 0]).solution.T
    torch.testing.assert_close(gains, K, atol=0.05, rtol=0)


def test_a_block_is_run_as_far_as_asked_and_then_planned_anew():
    asked = []

    def plan(state):
        asked.append(state)
        return torch.arange(4.0).view(1, 4, 1) + 10 * len(asked)

    controller = Chunked(plan, every=3)
    controller.start(1)
    assert [float(controller.act(torch.zeros(1, 3))) for _ in range(5)] == [10, 11, 12, 20, 21]
    controller.start(1)
    assert float(controller.act(torch.zeros(1, 3))) == 30


def test_imitation_refuses_to_run_more_than_a_block(cloned):
    with pytest.raises(ValueError, match="blocks have 1 actions"):
        imitation(cloned, every=2)


def cost(controller, steps=15):
    """What a controller loses on the true system."""
    state, total = states(64), 0.0
    controller.start(64)
    for _ in range(steps):
        state = step(state, controller.act(state).clamp(-1, 1))
        total += float(state.square().sum(dim=1).mean())
    return total


def test_the_mean_of_four_draws_has_half_the_spread():
    torch.manual_seed(0)
    _, model, _ = blank(RECIPE, 3, 2, Scales.of(Windows(linear_episodes(8), F)))
    model.eval().requires_grad_(False)
    generator, given = torch.Generator().manual_seed(0), (torch.zeros(1, 3), torch.zeros(1, 4000, F, 2))
    one, four = (found(*given).std(dim=1).mean() for found in
                 (from_dynamics(model, generator), mean_of(4, model, generator)))
    assert float(four / one) == pytest.approx(0.5, rel=0.03)


def test_mbop_improves_over_its_prior_and_more_candidates_help(cloned, members):
    prior = cost(imitation(cloned))
    costs = [cost(Mbop(cloned, members, nearness, F=F, n=n, shooting=Shooting(noise=0.4))) for n in (4, 64)]
    assert costs[1] < costs[0] < prior and costs[1] < 0.75 * prior


def test_mbop_without_noise_and_memory_is_its_prior(cloned, members):
    planner, s = Mbop(cloned, members, nearness, F=F, n=4, shooting=Shooting(noise=0.0, keep=0.0)), states(5)
    planner.start(5)
    planner.act(s)
    torch.testing.assert_close(planner.act(s), cloned.propose(s, 1)[:, 0, 0])


def test_mbop_keeps_a_share_of_the_last_plan(cloned, members):
    """With nothing but the last plan, its second action comes next."""
    planner, s = Mbop(cloned, members, nearness, F=F, n=8, shooting=Shooting(keep=1.0)), states(5)
    planner.start(5)
    planner.act(s)
    second = planner._plan[:, 1]
    torch.testing.assert_close(planner.act(s), second)


def test_each_candidate_of_mbop_follows_one_member_throughout(cloned, members):
    planner, s = Mbop(cloned, members, nearness, F=F, n=7), states(3)
    planner.start(3)
    planner.act(s)
    for e, member in enumerate(members):
        expected = member.predict(s, planner.last.actions[:, e::2])
        torch.testing.assert_close(planner.last.states[:, e::2, 1:], expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="draw more"):
        Mbop(cloned, members, nearness, F=F, n=1)


def test_the_members_of_the_ensemble_differ_and_all_know_the_system(members):
    s, a = states(50), 2 * torch.rand(50, 4, F, 2, generator=torch.Generator().manual_seed(1)) - 1
    seen = [member.predict(s, a) for member in members]
    assert (seen[0] - seen[1]).abs().max() > 1e-3
    for prediction in seen:
        assert (prediction - unrolled(s, a)).square().mean() < 0.01


def test_step_t_of_the_autoregressive_model_depends_on_no_later_action(autoregressive):
    s, a = states(4), torch.rand(4, 3, F, 2, generator=torch.Generator().manual_seed(2))
    before = autoregressive.predict(s, a)
    for t in range(1, F):
        changed = a.clone()
        changed[:, :, t:] = -1
        after = autoregressive.predict(s, changed)
        torch.testing.assert_close(after[:, :, :t], before[:, :, :t])
        assert ((after - before)[:, :, t].abs() > 1e-4).any()
    truth = unrolled(s, a)[:, 0]
    seen = torch.cat((s[:, None], truth[:, :-1]), dim=1)
    later = torch.cat((seen[:, :3], 9 + seen[:, 3:]), dim=1)
    torch.testing.assert_close(autoregressive(seen, a[:, 0])[:, :3], autoregressive(later, a[:, 0])[:, :3])


def test_teacher_forced_and_unrolled_agree_on_a_deterministic_system(autoregressive):
    s, a = states(50), torch.rand(50, 1, F, 2, generator=torch.Generator().manual_seed(3)) - 0.5
    truth = unrolled(s, a)[:, 0]
    forced = autoregressive(torch.cat((s[:, None], truth[:, :-1]), dim=1), a[:, 0])
    free = autoregressive.predict(s, a)[:, 0]
    assert (forced - truth).square().mean().sqrt() < 0.03 and (free - truth).square().mean().sqrt() < 0.06
    # And exactly, on its own predictions: the unrolled model is the one that was trained.
    own = autoregressive(torch.cat((s[:, None], free[:, :-1]), dim=1), a[:, 0])
    torch.testing.assert_close(own, free, atol=1e-5, rtol=1e-5)


def test_beyond_its_span_the_autoregressive_model_starts_anew(autoregressive):
    s, a = states(3), torch.rand(3, 2, F + 2, 2, generator=torch.Generator().manual_seed(4))
    seen = autoregressive.predict(s, a)
    again = autoregressive.predict(seen[:, 0, F - 1], a[:, :1, F:])
    torch.testing.assert_close(seen[:, :1, F:], again)


def test_the_autoregressive_model_is_as_large_as_the_recipes_transformer(episodes):
    network = NetworkConfig("transformer", 16, 1, 2, 32)
    one = replace(RECIPE, steps=1)
    own = learn_autoregressive(episodes, replace(one, dynamics=replace(RECIPE.dynamics, network=network)))
    assert own.config.network == network and learn_autoregressive(episodes, one).config.network == SMALL


def test_a_single_step_proposal_is_led_through_time_by_the_dynamics(cloned, members):
    s = states(20)
    actions = step_by_step(cloned, members[0], F)(s, 2)
    assert actions.shape == (20, 2, F, 2)
    now = s
    for t in range(F):
        torch.testing.assert_close(actions[:, 0, t], now @ K.T, atol=0.12, rtol=0)
        now = step(now, actions[:, 0, t])


def test_step_by_step_refuses_models_of_longer_blocks(episodes, members):
    long = learn_proposal(episodes, replace(RECIPE, steps=1), RECIPE.proposal)
    with pytest.raises(ValueError, match="span of 1, not 6 and 1"):
        step_by_step(long, members[0], F)


def test_the_gaussian_proposal_is_as_wide_as_the_datas_noise_and_begins_with_its_mean(episodes, cloned):
    windows = Windows(episodes, 1)
    spread = residual_spread(cloned, windows)
    torch.testing.assert_close(spread, torch.full((1, 2), 0.3), atol=0.03, rtol=0)
    s = states(2)
    drawn = gaussian(cloned, torch.full((1, 2), 0.1), torch.Generator().manual_seed(0))(s, 4000)
    torch.testing.assert_close(drawn[:, :1], cloned.propose(s, 1))
    torch.testing.assert_close(drawn.std(dim=1), torch.full((2, 1, 2), 0.1), atol=0.01, rtol=0)
    torch.testing.assert_close(drawn.mean(dim=1), cloned.propose(s, 1)[:, 0], atol=0.01, rtol=0)


def test_a_uniform_proposal_fills_the_cube():
    drawn = uniform(F, 2, torch.Generator().manual_seed(0))(states(2), 5000)
    assert drawn.shape == (2, 5000, F, 2) and drawn.abs().max() <= 1
    torch.testing.assert_close(drawn.var(dim=1), torch.full((2, F, 2), 1 / 3), atol=0.02, rtol=0)


def test_a_planner_takes_any_proposal_and_any_dynamics(cloned, members, autoregressive):
    """Over uniform actions each model helps; where all candidates are the mean, the planner is its proposal."""
    generator, prior = torch.Generator().manual_seed(0), cost(imitation(cloned), steps=5)
    for model in (members[0], autoregressive):
        planner = Planner(uniform(F, 2, generator), from_dynamics(model), nearness, n=64)
        assert cost(planner, steps=5) < 0.9 * prior
    means = step_by_step(cloned, members[0], F)
    assert cost(Planner(means, from_dynamics(members[0]), nearness, n=3), steps=5) == pytest.approx(prior)
    assert from_proposal(cloned)(states(3), 2).shape == (3, 2, 1, 2)
