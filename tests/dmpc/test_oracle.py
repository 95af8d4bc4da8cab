"""Planning in the simulator: it beats doing nothing, knows the body that it is given, and repeats for a seed."""

import pytest
import torch

from minilab.dmpc.bodies import weaken
from minilab.dmpc.envs import HALF_CHEETAH, HOPPER, Simulator
from minilab.dmpc.oracle import Oracle, OracleConfig
from minilab.dmpc.rewards import planned, run, track_speed
from minilab.dmpc.rollout import Controller, rollout

QUICK = OracleConfig(samples=16, F=8, iterations=1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def objective(task, reward=None, **options):
    return planned(reward or run(task), discount=1.0, falls=task, **options)


def returns(simulator, config=QUICK, believes=None, steps=20, seed=0, reward=None):
    oracle = Oracle(simulator, objective(simulator.task, reward), config, believes=believes, seed=seed)
    return rollout(oracle, simulator, steps, generator()).returns


def test_it_runs_forward_and_harder_search_runs_faster():
    little = returns(Simulator(HALF_CHEETAH, 4), OracleConfig(samples=2, F=2, iterations=1))
    much = returns(Simulator(HALF_CHEETAH, 4), OracleConfig(samples=32, F=12, iterations=2))
    assert much.min() > 10 and much.mean() > 2 * little.mean()


def test_a_reward_is_given_at_run_time():
    backward = Oracle(simulator := Simulator(HALF_CHEETAH, 2), objective(HALF_CHEETAH, track_speed(-2.0)), QUICK)
    states = rollout(backward, simulator, 25, generator()).episodes.states
    assert isinstance(backward, Controller) and states[:, 15:, 8].mean() < -1


def test_it_plans_for_the_body_that_it_believes_in():
    """All motors turned around: who knows does as well as in the whole body, who does not goes wrong."""
    turned = Simulator(HALF_CHEETAH, 2).model
    for joint in ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"):
        turned = weaken(turned, joint, -1.0)
    config = OracleConfig(samples=24, F=10, iterations=2)
    whole = returns(Simulator(HALF_CHEETAH, 2), config)
    aware = returns(Simulator(HALF_CHEETAH, 2, model=turned), config)
    deceived = returns(Simulator(HALF_CHEETAH, 2, model=turned), config, believes=Simulator(HALF_CHEETAH, 1))
    assert aware.mean() > 0.6 * whole.mean() and deceived.mean() < 0.5 * aware.mean()


def test_it_keeps_a_body_upright_that_falls_when_left_alone():
    simulator = Simulator(HOPPER, 2)
    oracle = Oracle(simulator, objective(HOPPER, fall_cost=10.0), OracleConfig(samples=16, F=10, iterations=1))
    assert rollout(oracle, simulator, 30, generator()).episodes.lengths.min() > 25


def test_it_repeats_for_a_seed():
    a, b, c = (returns(Simulator(HALF_CHEETAH, 2), seed=s, steps=6) for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_it_plans_once_for_several_actions_if_asked():
    simulator = Simulator(HALF_CHEETAH, 2)
    oracle, plans = Oracle(simulator, objective(HALF_CHEETAH), OracleConfig(samples=4, F=4, every=3)), []
    plan = oracle.plan
    oracle.plan = lambda state, block: plans.append(block) or plan(state, block)
    episodes = rollout(oracle, simulator, 7, generator()).episodes
    assert len(plans) == 3 and (plans[0] == 0).all()
    # What is left of the first block begins the second plan: its fourth action, held.
    assert torch.equal(plans[1][:, 0], plans[1][:, -1]) and episodes.actions.abs().max() <= 1


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"F": 0}, {"every": 0}, {"F": 4, "every": 5}, {"iterations": 0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="an oracle needs positive numbers"):
        Oracle(Simulator(HALF_CHEETAH, 1), objective(HALF_CHEETAH), OracleConfig(**wrong))


def test_a_reward_that_is_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        returns(Simulator(HALF_CHEETAH, 1), reward=lambda s, a, after: after[..., 0] * float("nan"), steps=1)
    with pytest.raises(ValueError, match="one number a step"):
        returns(Simulator(HALF_CHEETAH, 1), reward=lambda s, a, after: after, steps=1)
