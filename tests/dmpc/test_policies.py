"""Linear policies and the search for them, held to a problem whose gradient is known."""

import dataclasses

import pytest
import torch

from minilab.dmpc import policies
from minilab.dmpc.envs import HALF_CHEETAH, HOPPER, WALKER, Simulator, Step
from minilab.dmpc.policies import WALKER_MIRROR, Linear, Search, ars, stacked, two_legged
from minilab.dmpc.rewards import run, track_pitch
from minilab.dmpc.rollout import rollout

S, A = 4, 2


class Toy(Simulator):
    """One step at a time: s ~ N(0, 1), and a wish for the action M s. The return is quadratic in the weights."""

    copies, state_dim, action_dim = 0, S, A

    def __init__(self, task, copies, *, threads=1):
        self.copies, self.generator = copies, torch.Generator().manual_seed(9)

    def reset(self, generator):
        # The same states for all policies that are compared, so that their difference is the weights' alone.
        return torch.randn(1, S, generator=self.generator).expand(self.copies, S)

    def step(self, actions):
        still = torch.zeros(self.copies, dtype=torch.bool)
        return Step(self.reset(None), torch.zeros(self.copies), still, still)


M = torch.tensor([[0.3, -0.2, 0.0, 0.1], [0.0, 0.4, -0.1, 0.2]])


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(policies, "Simulator", Toy)


def wish(s, a, after):
    return -(a - s @ M.T).square().sum(dim=-1)


def test_the_search_moves_along_the_true_gradient(toy):
    """E r = -|W - M|^2 for s ~ N(0, 1), so the gradient at W = 0 is 2 M: many directions average to it."""
    search = Search(iterations=2, directions=400, top=400, noise=0.02, step=0.1, steps=1000)
    ladder = ars(HALF_CHEETAH, search, reward=wish)
    step = ladder[1][0].weights - ladder[0][0].weights
    assert (ladder[0][0].weights == 0).all()
    assert float(torch.cosine_similarity(step.flatten(), M.flatten(), dim=0)) > 0.97


def test_few_directions_point_uphill_and_the_search_converges(toy):
    ladder = ars(HALF_CHEETAH, Search(iterations=60, directions=8, top=4, noise=0.05, step=0.05, steps=40), reward=wish)
    first, last = (float((p.weights / p.std - M).square().sum()) for p in (ladder[1][0], ladder[-1][0]))
    assert last < 0.1 * first and ladder[-1][1] > ladder[0][1]
    assert len(ladder) == 60


def test_the_search_starts_from_a_policy_if_it_is_given_one(toy):
    start = Linear(M.clone(), torch.zeros(S), torch.ones(S))
    ladder = ars(HALF_CHEETAH, Search(iterations=3, directions=8, top=4, noise=0.01, step=0.01, steps=20), reward=wish,
                 start=start)
    assert torch.equal(ladder[0][0].weights, M)
    assert float((ladder[0][0].mean).abs().max()) < 0.15 and ladder[0][1] > -0.1


def test_a_search_repeats_for_a_seed_whatever_the_threads():
    search = Search(iterations=3, directions=4, top=2, steps=15)
    a, b = (ars(HALF_CHEETAH, search, threads=n) for n in (1, 2))
    assert all(torch.equal(p.weights, q.weights) and r == s for (p, r), (q, s) in zip(a, b, strict=True))
    c = ars(HALF_CHEETAH, dataclasses.replace(search, seed=1))
    assert not torch.equal(a[-1][0].weights, c[-1][0].weights)


def test_the_normalizer_is_the_mean_and_spread_of_all_states_seen():
    moments, x = policies._Moments(3), torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * 4 + 7
    for part in x.split(77):
        moments.add(part)
    torch.testing.assert_close(moments.mean, x.mean(dim=0))
    torch.testing.assert_close(moments.std, x.std(dim=0, correction=0))
    assert (policies._Moments(3).std == 1).all()


def test_a_policy_is_its_formula_for_one_or_for_many():
    generator = torch.Generator().manual_seed(0)
    many = [Linear(torch.randn(A, S, generator=generator), torch.randn(S, generator=generator),
                   torch.rand(S, generator=generator) + 0.5) for _ in range(3)]
    state = torch.randn(3, S, generator=generator)
    together = stacked(many).act(state)
    for i, policy in enumerate(many):
        expected = torch.tensor([sum(float(policy.weights[a, s] * (state[i, s] - policy.mean[s]) / policy.std[s])
                                     for s in range(S)) for a in range(A)]).clamp(-1, 1)
        torch.testing.assert_close(policy.act(state)[i], expected)
        torch.testing.assert_close(together[i], expected)


def test_a_body_that_fell_earns_and_teaches_nothing_more():
    """Hopper falls within 60 steps of doing nothing: what follows counts neither as return nor as a state seen."""
    search = Search(iterations=1, directions=3, top=1, noise=1e-9, steps=60, alive=1.0)
    (_, value), = ars(HOPPER, search)
    long = dataclasses.replace(search, steps=200)
    assert value == ars(HOPPER, long)[0][1] and 5 < value < 60


def test_a_short_search_makes_the_body_pitch_as_asked():
    ladder = ars(HALF_CHEETAH, Search(iterations=10, directions=8, top=4, steps=60), reward=track_pitch(0.5))
    assert ladder[-1][1] > ladder[0][1] + 3


def test_the_mirror_swaps_the_legs_of_the_physics_itself():
    """Swapped states and actions lead to swapped states: MuJoCo knows the body's symmetry, not our numbers."""
    generator = torch.Generator().manual_seed(0)
    simulator, swap = Simulator(WALKER, 4), list(WALKER_MIRROR.state)
    simulator.reset(generator)
    physics, action = simulator.physics, torch.rand(4, 6, generator=generator) * 2 - 1
    whole = [0, *(i + 1 for i in swap)]  # the physics knows the distance too
    after = simulator.step(action).state
    simulator.place(physics[:, whole])
    mirrored = simulator.step(action[:, list(WALKER_MIRROR.action)]).state
    torch.testing.assert_close(mirrored, after[:, swap], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(mirrored, after, atol=1e-2)


def test_a_mirrored_search_treats_both_legs_alike():
    ladder = ars(WALKER, Search(iterations=3, directions=4, top=2, steps=15), mirror=WALKER_MIRROR)
    policy = ladder[-1][0]
    torch.testing.assert_close(WALKER_MIRROR.weights(policy.weights), policy.weights)
    assert policy.weights.abs().max() > 0
    state = torch.randn(5, 17, generator=torch.Generator().manual_seed(1))
    other = policy.act(state[:, list(WALKER_MIRROR.state)])
    torch.testing.assert_close(other, policy.act(state)[:, list(WALKER_MIRROR.action)])


def test_each_of_two_legs_does_as_the_one_of_hopper():
    generator = torch.Generator().manual_seed(0)
    hopper = Linear(torch.randn(3, 11, generator=generator), torch.randn(11, generator=generator),
                    torch.rand(11, generator=generator) + 0.5)
    left, right = torch.randn(2, 7, 11, generator=generator)
    right[:, [0, 1, 5, 6, 7]] = left[:, [0, 1, 5, 6, 7]]  # one torso
    both = torch.cat((left[:, :5], right[:, 2:5], left[:, 5:], right[:, 8:]), dim=1)
    torch.testing.assert_close(two_legged(hopper).act(both), torch.cat((hopper.act(left), hopper.act(right)), dim=1))


def test_moments_that_are_kept_stay_those_of_the_start():
    start = Linear(torch.zeros(3, 11), torch.arange(11.0), torch.ones(11))
    search = Search(iterations=3, directions=3, top=1, steps=10)
    kept, followed = (ars(HOPPER, search, start=start, keep_moments=keep)[-1][0] for keep in (True, False))
    assert torch.equal(kept.mean, start.mean) and torch.equal(kept.std, start.std)
    assert not torch.equal(followed.mean, start.mean)
    with pytest.raises(ValueError, match="give it as start"):
        ars(HOPPER, search, keep_moments=True)


def test_a_blur_makes_every_return_less_certain_and_repeats_for_a_seed():
    search = Search(iterations=1, directions=4, top=2, noise=1e-9, steps=30)
    values = [ars(HALF_CHEETAH, search, blur=blur)[0][1] for blur in (0.0, 0.3, 0.3)]
    assert values[1] == values[2] != values[0]


def test_going_on_without_those_that_fell_changes_no_return():
    generator = torch.Generator().manual_seed(0)
    policy = Linear(0.3 * torch.randn(12, 3, 11, generator=generator), torch.zeros(11), torch.ones(11))
    total, states = policies._returns(policy, Simulator(HOPPER, 12), run(HOPPER), 60, torch.Generator().manual_seed(1))
    every = rollout(policy, Simulator(HOPPER, 12), 60, torch.Generator().manual_seed(1)).episodes
    assert every.lengths.unique().numel() > 3 and len(states) == int(every.lengths.sum())
    torch.testing.assert_close(total, _earned(every), atol=0.05, rtol=1e-3)


def _earned(episodes):
    rewards = run(HOPPER)(episodes.states[:, :-1], episodes.actions, episodes.states[:, 1:])
    return (rewards * (torch.arange(rewards.shape[1]) < episodes.lengths[:, None])).sum(dim=1)
