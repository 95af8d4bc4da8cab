"""Fan-out: Theorem 12 against Theorem 18's condition, whole numbers against every allocation there is."""

import itertools

import numpy as np
import pytest

from minilab.speculative import fanout
from minilab.speculative.theory import accepted_pmf


@pytest.mark.parametrize(
    "alpha, r, expected",
    [
        (0.8, 0.54, [4.17, 3.61, 3.12, 2.70, 2.34, 2.02, 1.75, 4.30]),
        (0.7, 0.54, [5.56, 4.41, 3.50, 2.78, 2.20, 1.75, 1.39, 2.40]),
        (0.9, 0.54, [2.82, 2.63, 2.46, 2.29, 2.14, 2.00, 1.87, 7.79]),
        (0.6, 0.42, [7.51, 5.24, 3.66, 2.55, 1.78, 1.24, 0.87, 1.15]),
    ],
)
def test_geometric_fan_out_has_its_spike_at_the_end(alpha, r, expected):
    found = fanout.geometric_real(24, 7, alpha=alpha, r=r)
    assert found == pytest.approx(expected, abs=0.006)
    assert found.sum() == pytest.approx(24)


@pytest.mark.parametrize("alpha, r", [(0.8, 0.54), (0.5, 1.3), (0.95, 0.3)])
def test_geometric_fan_out_meets_the_condition_of_the_general_optimum(alpha, r):
    """Theorem 18: P(k) h'(F_k) is one number for all k, h' = A r F^-(r+1)."""
    F = fanout.geometric_real(30, 6, alpha=alpha, r=r)
    slopes = accepted_pmf(alpha, 6) * r * F ** -(r + 1)
    assert slopes == pytest.approx(slopes[0])


def test_optimal_allocation_beats_every_other_also_where_curves_are_not_concave():
    generator = np.random.default_rng(0)
    for _ in range(20):
        weights, budget = generator.dirichlet(np.ones(3)), 6
        hit = np.sort(generator.random((3, budget + 1)), axis=1)  # increasing, of any shape
        hit[:, 0] = 0
        found = fanout.optimal(budget, weights, hit)
        every = [F for F in itertools.product(range(budget + 1), repeat=3) if sum(F) == budget]
        best = max(fanout.hit_rate(F, weights, hit) for F in every)
        assert sum(found) == budget
        assert fanout.hit_rate(found, weights, hit) == pytest.approx(best)


def test_optimal_and_geometric_agree_under_a_power_law():
    hit = np.tile(fanout.power_law(np.arange(61), 0.4, 0.6), (6, 1))
    weights = accepted_pmf(0.75, 5)
    best = fanout.hit_rate(fanout.optimal(60, weights, hit), weights, hit)
    rounded = fanout.hit_rate(fanout.geometric(60, 5, alpha=0.75, r=0.6), weights, hit)
    even = fanout.hit_rate(fanout.uniform(60, 5), weights, hit)
    assert even < rounded <= best and best - rounded < 1e-3


@pytest.mark.parametrize("budget, K", [(1, 5), (7, 3), (24, 7), (100, 1), (5, 0)])
def test_allocations_are_whole_numbers_that_sum_to_the_budget(budget, K):
    for found in (fanout.uniform(budget, K), fanout.geometric(budget, K, alpha=0.8, r=0.5)):
        assert len(found) == K + 1 and sum(found) == budget and min(found) >= 0
    assert max(fanout.uniform(budget, K)) - min(fanout.uniform(budget, K)) <= 1


def test_fit_recovers_a_planted_power_law_and_skips_what_has_no_miss():
    F = np.array([1, 2, 4, 8, 16, 32])
    A, r = fanout.fit_power_law(np.append(F, 64), np.append(fanout.power_law(F, 0.3, 0.5), 1.0))
    assert (A, r) == pytest.approx((0.3, 0.5))
    with pytest.raises(ValueError, match="two fan-outs with misses"):
        fanout.fit_power_law([1, 2], [0.5, 1.0])


@pytest.mark.parametrize("call, message", [
    (lambda: fanout.uniform(0, 4), "prepares nothing"),
    (lambda: fanout.geometric(8, 4, alpha=1.0, r=0.5), "between 0 and 1"),
    (lambda: fanout.geometric(8, 4, alpha=0.5, r=0.0), "must be positive"),
    (lambda: fanout.optimal(8, [0.5, 0.5], np.zeros((2, 8))), "not .K . 1, budget . 1."),
])  # fmt: skip
def test_impossible_requests_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
