"""Rewards and the score of a plan, against sums written out."""

import numpy as np
import pytest
import torch
from dmpc.linear_system import linear_episodes

from minilab.dmpc import rewards
from minilab.dmpc.data import Windows
from minilab.dmpc.envs import HALF_CHEETAH, TASKS, WALKER, Simulator
from minilab.dmpc.support import Support, precedents
from minilab.planning.rank import Plans, sample_score_rank


def walk(F: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """One plan of a walker that stays upright, at z = 1.2 m, and its actions."""
    generator = torch.Generator().manual_seed(0)
    states, actions = 0.1 * torch.randn(1, F + 1, 17, generator=generator), torch.rand(1, F, 6, generator=generator)
    states[..., 0] += 1.2
    return states, actions


def test_a_plan_is_worth_its_discounted_rewards_and_the_value_of_its_end():
    states, actions = walk()
    score = rewards.planned(rewards.run(WALKER), discount=0.9, value=lambda s: s[..., 3], falls=WALKER)(states, actions)
    total = 0.0
    for k in range(3):
        speed = (states[0, k, 8] + states[0, k + 1, 8]) / 2
        total += 0.9**k * (speed - 1e-3 * (actions[0, k] ** 2).sum() + 1.0)
    torch.testing.assert_close(score[0], total + 0.9**3 * states[0, 3, 3])


def test_after_a_predicted_fall_nothing_counts_but_its_cost():
    states, actions = walk()
    states[0, 2:, 0] = 0.5  # it lies down in the second step
    base = rewards.planned(lambda s, a, after: torch.ones(a.shape[:-1]), discount=0.5, falls=WALKER, fall_cost=8.0,
                           value=lambda s: torch.full(s.shape[:-1], 100.0))
    # Step 1 stands, step 2 falls: 1 + 0.5 (1 - 8), and neither step 3 nor the value.
    torch.testing.assert_close(base(states, actions), torch.tensor([1 + 0.5 * (1 - 8)]))
    free = rewards.planned(lambda s, a, after: torch.ones(a.shape[:-1]), discount=0.5)
    torch.testing.assert_close(free(states, actions), torch.tensor([1.75]))


def test_targets_are_best_where_they_say():
    state = torch.zeros(7, 17)
    state[:, 8] = torch.linspace(-3, 3, 7)  # speeds
    action = torch.zeros(7, 6)
    assert int(rewards.track_speed(2.0)(state, action, state).argmax()) == 5
    assert int(rewards.track_speed(-3.0)(state, action, state).argmax()) == 0
    state[:, 1] = torch.linspace(-0.6, 0.6, 7)  # pitches
    assert int(rewards.track_pitch(0.4)(state, action, state).argmax()) == 5
    state[:, 0] = torch.linspace(-0.3, 0.3, 7)  # heights
    peak = rewards.track_height(0.1, 0.2)(state, action, state)
    assert int(peak.argmax()) == 4 and peak[4] == 1
    torch.testing.assert_close(peak[5], torch.tensor(-(0.1**2) / (2 * 0.2**2)).exp())
    both = rewards.weighted((2.0, rewards.track_speed(0.0)), (-1.0, rewards.track_pitch(0.0)))
    torch.testing.assert_close(both(state, action, state), 2 * (1 - state[:, 8].abs()) - (1 - state[:, 1].abs()))


def test_speed_of_the_environments_reward_is_the_mean_over_the_step():
    before, after = torch.zeros(17), torch.zeros(17)
    before[8], after[8] = 1.0, 3.0
    assert float(rewards.run(HALF_CHEETAH)(before, torch.zeros(6), after)) == 2.0


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_a_jump_is_how_fast_the_torso_goes_up_or_down(task):
    world = Simulator(task, 1)
    falling = -2.5 * (np.arange(world.model.nv) == 1)  # m/s; the second speed of the physics is the vertical one
    state = world.place(np.concatenate((world.model.qpos0, falling))[None])
    assert float(rewards.jump()(state, torch.zeros(1, task.action_dim), state)) == 2.5


@pytest.mark.parametrize(("reward", "message"), [
    (lambda s, a, after: after, "one number a step"),
    (lambda s, a, after: (after[..., 0] - 5).sqrt(), "NaN for 4 of 4"),
])
def test_a_reward_of_the_wrong_shape_or_without_a_number_is_refused(reward, message):
    objective = rewards.planned(reward, discount=0.9)

    def propose(state, n):
        return torch.zeros(len(state), n, 3, 6)

    def predict(state, actions):
        return torch.zeros(*actions.shape[:3], 17)

    with pytest.raises(ValueError, match=message):
        sample_score_rank(torch.zeros(2, 17), propose, predict, objective, 2)


def test_support_knows_the_data_and_not_what_lies_beyond():
    generator = torch.Generator().manual_seed(0)
    support = Support.of(linear_episodes(200, 40), generator, n=1000)
    inside = linear_episodes(20, 40, seed=5).states
    assert (support.distance(inside) <= 1).float().mean() > 0.95
    assert (support.distance(inside + 20) > 5).all()

    def plans(states):
        scores = torch.tensor([[0.0, 1.0]])
        return Plans(torch.zeros(1, 2, 4, 2), states, scores)

    at_home = inside[0, 10:15].expand(1, 1, 5, 3)
    far = at_home + 20
    assert support.familiar(plans(torch.cat((far, at_home), dim=1))) == 1.0  # the second is chosen
    assert support.familiar(plans(torch.cat((at_home, far), dim=1))) == 0.0


def test_precedents_count_the_windows_that_earn_enough():
    windows = Windows(linear_episodes(30, 20), 4)

    def reward(s, a, after):
        return after[..., 0]

    taken = windows.take(torch.arange(len(windows)))
    earned = taken.states[..., 0].mean(dim=1)
    found = precedents(reward, windows, 0.5, most=10**6)
    assert found.share == float((earned >= 0.5).float().mean()) > 0 and found.best == float(earned.max())
    assert found.warning is None
    assert "do not show" in precedents(reward, windows, 100.0).warning
