"""The loop that runs controllers, and the noise that blurs them."""

import numpy as np
import pytest
import torch

from minilab.dmpc.envs import HALF_CHEETAH, HOPPER, Simulator
from minilab.dmpc.rollout import Controller, Noisy, rollout


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Constant:
    """Always the same action, larger than the bounds allow where it is asked to be."""

    def __init__(self, A, value=0.0):
        self.A, self.value, self.calls = A, value, []

    def start(self, copies):
        self.calls.append(copies)

    def act(self, state):
        return torch.full((len(state), self.A), self.value)


def test_what_is_recorded_is_what_was_seen_done_and_earned():
    controller, simulator = Constant(6, 3.0), Simulator(HALF_CHEETAH, 2)
    made = rollout(controller, simulator, 10, generator(), source="me")
    episodes = made.episodes
    assert isinstance(controller, Controller) and controller.calls == [2] and episodes.source == ("me", "me")
    assert (episodes.actions == 1).all()  # as they were carried out
    state = simulator.reset(generator())
    for t in range(10):
        assert torch.equal(episodes.states[:, t], state)
        step = simulator.step(torch.ones(2, 6))
        state = step.state
        assert torch.equal(episodes.rewards[:, t], step.reward)
    assert torch.equal(episodes.states[:, 10], state)
    assert torch.equal(made.returns, episodes.rewards.sum(dim=1)) and made.unstable == 0 and made.act_s > 0
    assert episodes.lengths.tolist() == [10, 10] and not episodes.fell.any()


def test_after_a_fall_the_body_lies_still_and_earns_nothing():
    episodes = rollout(Constant(3), Simulator(HOPPER, 5), 60, generator()).episodes
    assert episodes.fell.all() and (episodes.lengths < 60).all() and len(set(episodes.lengths.tolist())) > 1
    for e, n in enumerate(episodes.lengths.tolist()):
        upright = HOPPER.upright(episodes.states[e])
        assert upright[:n].all() and not upright[n:].any()  # the last state is the fallen one
        assert (episodes.states[e, n:] == episodes.states[e, n]).all()
        assert (episodes.actions[e, n:] == 0).all() and (episodes.rewards[e, n:] == 0).all()
        assert episodes.rewards[e, n - 1] < 0.5 < episodes.rewards[e, 0]  # no reward for being upright at the fall


def test_an_episode_can_begin_where_the_bodies_stand():
    simulator = Simulator(HALF_CHEETAH, 2)
    simulator.reset(generator())
    physics = simulator.physics
    physics[:, 2] = 0.7
    simulator.place(physics)
    episodes = rollout(Constant(6), simulator, 3, generator(), place=True).episodes
    assert np.allclose(episodes.states[:, 0, 1], 0.7)


@pytest.mark.parametrize("pull", [0.15, 0.5])
def test_noise_has_its_spread_and_memory_from_the_first_step(pull):
    """Stationary variance 1 and correlation (1 - pull)^lag, at every moment: over 20000 copies."""
    n = 20000
    noisy = Noisy(Constant(1), 1.0, generator(), pull=pull)
    noisy.start(n)
    seen = []
    for _ in range(12):
        noisy.act(torch.zeros(n, 1))
        seen.append(noisy.noise[:, 0])
    x = torch.stack(seen)  # T n
    torch.testing.assert_close(x.var(dim=1), torch.ones(12), atol=0.05, rtol=0)
    torch.testing.assert_close(x.mean(dim=1), torch.zeros(12), atol=0.04, rtol=0)
    for lag in (1, 3, 7):
        correlation = (x[:-lag] * x[lag:]).mean(dim=1)
        torch.testing.assert_close(correlation, torch.full_like(correlation, (1 - pull) ** lag), atol=0.04, rtol=0)


def test_each_episode_has_its_own_strength_of_noise_up_to_the_most():
    noisy = Noisy(Constant(2), 0.3, generator())
    noisy.start(5000)
    assert noisy.strength.min() >= 0 and noisy.strength.max() <= 0.3
    assert float(noisy.strength.mean()) == pytest.approx(0.15, abs=0.01)
    action = noisy.act(torch.zeros(5000, 4))
    torch.testing.assert_close(action, (noisy.strength * noisy.noise).clamp(-1, 1))
    assert noisy.act(torch.zeros(5000, 4)).abs().max() <= 1
    loud = Noisy(Constant(2, 0.9), 5.0, generator())
    loud.start(50)
    assert loud.act(torch.zeros(50, 4)).abs().max() == 1


def test_runs_repeat_for_a_seed_and_differ_for_another():
    def run(seed):
        noise = generator(seed)
        return rollout(Noisy(Constant(6), 0.5, noise), Simulator(HALF_CHEETAH, 3), 15, noise).episodes.states

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
