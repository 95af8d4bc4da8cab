"""Planners on problems whose best actions are known."""

import math
from itertools import pairwise

import pytest
import torch

from minilab.planning.rank import sample_score_rank
from minilab.planning.shooting import Gaussian, averaged, cem, colored, icem, mppi, shifted

B, F, A = 3, 4, 2
TARGET = torch.linspace(-0.8, 0.8, B * F * A).view(B, F, A)


def evaluate(actions):
    return -(actions - TARGET[:, None]).square().sum(dim=(-1, -2))


def start():
    return Gaussian(torch.zeros(B, F, A), torch.full((B, F, A), 0.5))


def test_cem_finds_the_maximum_of_a_concave_score_and_narrows():
    law = cem(evaluate, start(), samples=256, elites=24, iterations=12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(law.mean, TARGET, atol=0.02, rtol=0)
    assert law.std.max() < 0.05


def test_icem_finds_the_maximum_with_half_the_draws():
    found = icem(evaluate, start(), samples=256, elites=24, iterations=12, generator=torch.Generator().manual_seed(0))
    assert found.shape == (B, 24, F, A)
    torch.testing.assert_close(found[:, 0], TARGET, atol=0.05, rtol=0)
    scores = evaluate(found)
    assert torch.equal(scores, scores.sort(dim=1, descending=True).values)


def test_icem_without_its_improvements_is_cem():
    plain = dict(samples=64, elites=64, iterations=1, generator=torch.Generator().manual_seed(0))
    law = cem(evaluate, start(), **plain)
    plain["generator"].manual_seed(0)
    found = icem(evaluate, start(), beta=0.0, keep=0.0, decay=1.0, momentum=0.0, **plain)
    torch.testing.assert_close(found.mean(dim=1), law.mean)
    torch.testing.assert_close(found.std(dim=1, correction=0), law.std)
    # Over iterations: the mean of what each of many searches found has the same law.
    many = Gaussian(torch.zeros(2000, 1, 1), torch.ones(2000, 1, 1))
    options = dict(samples=20, elites=5, iterations=3, low=-9, high=9)

    def far(actions):
        return -(actions - 2).square().sum(dim=(-1, -2))

    plain = cem(far, many, generator=torch.Generator().manual_seed(1), **options).mean.flatten()
    found = icem(far, many, beta=0.0, keep=0.0, decay=1.0, momentum=0.0, generator=torch.Generator().manual_seed(2),
                 **options).mean(dim=1).flatten()
    # cem has its mean among the draws of each iteration, which moves the result by a hundredth.
    assert found.mean() == pytest.approx(float(plain.mean()), abs=0.03)
    assert found.std() == pytest.approx(float(plain.std()), abs=0.03)


def test_kept_elites_never_make_the_best_worse():
    """Draws that miss: without what is kept, the last iteration's best would be one of them."""
    good = TARGET[:, None]
    wild = Gaussian(torch.full((B, F, A), 5.0), torch.full((B, F, A), 3.0))
    best = []
    for iterations in range(1, 6):
        found = icem(evaluate, wild, samples=8, elites=2, iterations=iterations, low=-99, high=99,
                     generator=torch.Generator().manual_seed(4))
        best.append(evaluate(found[:, :1])[:, 0])
    assert all((after >= before).all() for before, after in pairwise(best))
    found = icem(evaluate, wild, samples=8, elites=2, iterations=3, kept=good, low=-99, high=99)
    torch.testing.assert_close(found[:, 0], TARGET)


def test_each_iteration_of_icem_draws_fewer_and_the_mean_competes_in_the_last_alone():
    asked = []

    def watch(actions):
        asked.append(actions)
        return evaluate(actions)

    icem(watch, start(), samples=20, elites=4, iterations=5, decay=1.5, keep=0.5, momentum=1.0)
    assert [a.shape[1] for a in asked] == [20, 13 + 2, 8 + 2, 8 + 2, 8 + 2]
    # With a momentum of 1 the law never moves.
    at_mean = [(a == start().mean[:, None]).all(dim=(-1, -2)).any(dim=1).all() for a in asked]
    assert [bool(a) for a in at_mean] == [False] * 4 + [True]


@pytest.mark.parametrize("F", [25, 32])
@pytest.mark.parametrize("beta", [0.0, 1.0, 3.0])
def test_the_power_of_colored_noise_falls_as_a_power_of_the_frequency(beta, F):
    white = torch.randn(50, 100, F, 2, generator=torch.Generator().manual_seed(5))
    noise = colored(white, beta)
    assert noise.var() == pytest.approx(1.0, abs=0.03)
    power = torch.fft.rfft(noise, dim=2).abs().square().mean(dim=(0, 1, 3))  # frequencies 0, 1/F, 2/F, ...
    slope = (power[2] / power[8]).log2() / 2  # two octaves
    assert slope == pytest.approx(beta, abs=0.05)
    assert power[0] == pytest.approx(float(power[1]), rel=0.05)  # at 0 it would be infinite
    if beta == 0:
        torch.testing.assert_close(noise, white)


def test_one_step_of_mppi_is_the_gaussian_product_that_theory_gives():
    """exp(-|u - m|^2 / T) times a normal of variance s^2 is a normal with mean m s^2 / (s^2 + T/2) around 0."""
    T, s = 0.5, 0.5
    law = mppi(evaluate, start(), samples=400_000, temperature=T, low=-9, high=9,
               generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(law.mean, TARGET * s**2 / (s**2 + T / 2), atol=0.03, rtol=0)


def test_a_cold_mppi_takes_the_best_draw_and_its_mean_never_gets_worse():
    law = start()
    for _ in range(20):
        after = mppi(evaluate, law, samples=64, temperature=1e-6, generator=torch.Generator().manual_seed(2))
        assert (evaluate(after.mean[:, None]) >= evaluate(law.mean[:, None]) - 1e-6).all()
        law = after
    assert evaluate(law.mean[:, None]).min() > evaluate(start().mean[:, None]).min()


def test_actions_stay_in_their_bounds():
    law = cem(evaluate, start(), samples=32, elites=4, iterations=3, low=-0.1, high=0.1)
    assert law.mean.abs().max() <= 0.1


def double_integrator(state, actions):
    """s = (place, speed), dt = 1: exact, so that predictions can be held to a closed form."""
    places, speeds = [], []
    place, speed = state[:, None, 0].expand(actions.shape[:2]), state[:, None, 1].expand(actions.shape[:2])
    for f in range(actions.shape[2]):
        place, speed = place + speed, speed + actions[:, :, f, 0]
        places.append(place)
        speeds.append(speed)
    return torch.stack((torch.stack(places, dim=-1), torch.stack(speeds, dim=-1)), dim=-1)


def test_ranking_takes_the_best_of_the_candidates_and_improves_with_their_number():
    state = torch.tensor([[0.0, 1.0], [2.0, 0.0]])

    def objective(states, actions):
        return -states[..., -1, :].square().sum(dim=-1)

    means = []
    for n in (1, 8, 64, 512):
        generator = torch.Generator().manual_seed(3)
        actions = 2 * torch.rand(2, n, 5, 1, generator=generator) - 1
        plans = sample_score_rank(state, lambda s, n, actions=actions: actions, double_integrator, objective, n)
        assert plans.states.shape == (2, n, 6, 2) and torch.equal(plans.states[:, 0, 0], state)
        assert torch.equal(plans.scores.max(dim=1).values, plans.scores[torch.arange(2), plans.best])
        again = double_integrator(state, plans.chosen[:, None])
        torch.testing.assert_close(objective(again, None)[:, 0], plans.scores.max(dim=1).values)
        means.append(float(plans.scores.max(dim=1).values.mean()))
    assert means == sorted(means)


@pytest.mark.parametrize("objective, message", [
    (lambda s, a: s[..., 0], "sum over time"),
    (lambda s, a: (s[..., 0].sum(-1) - 9).sqrt(), "NaN for 6 of 6 plans"),
])  # fmt: skip
def test_an_objective_that_is_no_score_is_refused(objective, message):
    with pytest.raises(ValueError, match=message):
        sample_score_rank(torch.zeros(2, 2), lambda s, n: torch.zeros(2, n, 4, 1), double_integrator, objective, 3)


def test_impossible_requests_say_what_to_do():
    with pytest.raises(ValueError, match="at least 1 candidate"):
        sample_score_rank(torch.zeros(1, 2), lambda s, n: torch.zeros(1, n, 2, 1), double_integrator, evaluate, 0)
    with pytest.raises(ValueError, match="between 1 and 4"):
        cem(evaluate, start(), samples=4, elites=5, iterations=1)
    with pytest.raises(ValueError, match="between 1 and 4"):
        icem(evaluate, start(), samples=4, elites=5, iterations=1)
    with pytest.raises(ValueError, match="must be positive"):
        mppi(evaluate, start(), samples=4, temperature=0.0)


def test_a_shifted_plan_drops_what_was_run_and_repeats_its_end():
    block = torch.arange(4.0).view(1, 4, 1)
    assert shifted(block, 1).flatten().tolist() == [1, 2, 3, 3]
    assert shifted(block, 4).flatten().tolist() == [3, 3, 3, 3]


def test_the_average_of_blocks_is_weighted_by_the_exponential_of_their_scores():
    actions = torch.tensor([0.0, 1.0, 5.0]).view(1, 3, 1, 1)
    for temperature in (1.0, 0.5):
        e = math.exp(1 / temperature)
        mean = averaged(actions, torch.tensor([[0.0, 1.0, -1e9]]), temperature)
        assert float(mean) == pytest.approx(e / (1 + e))
    assert float(averaged(actions, torch.full((1, 3), 7.0), 1.0)) == pytest.approx(2.0)
