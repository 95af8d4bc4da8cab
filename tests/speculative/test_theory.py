"""Closed forms against simulation and against the paper's own special cases."""

import numpy as np
import pytest

from minilab.speculative import theory
from minilab.speculative.theory import acceptance_from_tokens, accepted_pmf, best_lookahead, expected_tokens, speedup


@pytest.mark.parametrize("alpha, K", [(0.0, 3), (0.3, 1), (0.8, 5), (1.0, 4), (0.8, 0)])
def test_expected_tokens_is_the_mean_of_simulated_rounds(alpha, K):
    passed = np.random.default_rng(0).random((200_000, K)) < alpha
    tokens = np.cumprod(passed, axis=1).sum(axis=1) + 1
    assert expected_tokens(alpha, K) == pytest.approx(tokens.mean(), rel=5e-3)


def test_expected_tokens_at_known_values():
    # alpha = 0.8: 1 + 0.8 + 0.64 + ...
    assert np.round(expected_tokens(0.8, np.array([2, 4, 5, 7, 10])), 2).tolist() == [2.44, 3.36, 3.69, 4.16, 4.57]


def test_pmf_sums_to_one_and_has_the_expected_mean():
    pmf = accepted_pmf(0.7, 6)
    assert pmf.sum() == pytest.approx(1) and pmf @ np.arange(1, 8) == pytest.approx(expected_tokens(0.7, 6))


def test_a_free_perfect_draft_gives_k_plus_one_and_no_draft_gives_one():
    assert speedup(1.0, 7, 0.0) == pytest.approx(8) and speedup(0.5, 0, 0.3) == pytest.approx(1)
    assert speedup(0.8, 200, 0.0) == pytest.approx(1 / (1 - 0.8), rel=1e-6)


def test_best_lookahead_beats_its_neighbors_and_gives_up_when_drafting_cannot_pay():
    best = best_lookahead(0.8, 0.1)
    assert 0 < best < 64
    assert speedup(0.8, best, 0.1) >= max(speedup(0.8, best - 1, 0.1), speedup(0.8, best + 1, 0.1))
    # Leviathan et al., corollary 3.9: speculation pays if and only if alpha > c.
    assert best_lookahead(0.3, 0.31) == 0 and best_lookahead(0.3, 0.29) > 0


@pytest.mark.parametrize("alpha", [0.0, 0.37, 0.9, 1.0])
def test_acceptance_is_recovered_from_tokens_per_round(alpha):
    assert acceptance_from_tokens(expected_tokens(alpha, 5), 5) == pytest.approx(alpha, abs=1e-6)


def test_impossible_inputs_are_refused():
    with pytest.raises(ValueError, match="probability"):
        expected_tokens(1.2, 3)
    with pytest.raises(ValueError, match="between 1 and 4"):
        acceptance_from_tokens(4.5, 3)


SSD = {"E_hit": 3.7, "E_miss": 1.4, "T_p": 0.7}


@pytest.mark.parametrize("batch, p_hit, T_p, T_b", [(1, 0.8, 0.7, 0.7), (1, 0.6, 1.3, 0.0), (4, 0.9, 0.7, 0.5)])
def test_ssd_speedup_is_that_of_simulated_rounds(batch, p_hit, T_p, T_b):
    """Each row hits or not; the batch waits for drafting ahead, or, if any row missed, for the fallback too."""
    hits = np.random.default_rng(0).random((400_000, batch)) < p_hit
    tokens = np.where(hits, 3.7, 1.4).mean(axis=1)
    seconds = np.where(hits.all(axis=1), max(1.0, T_p), 1 + T_b)
    found = theory.ssd_batch_speedup(batch, p_hit, E_hit=3.7, E_miss=1.4, T_p=T_p, T_b=T_b)
    assert found == pytest.approx(tokens.sum() / seconds.sum(), rel=5e-3)
    if batch == 1:
        assert found == theory.ssd_speedup(p_hit, E_hit=3.7, E_miss=1.4, T_p=T_p, T_b=T_b)


@pytest.mark.parametrize("after_primary, after_backup", [(0.86, 0.55), (0.5, 0.5), (1.0, 0.3)])
def test_stationary_hit_rate_is_that_of_the_chain(after_primary, after_backup):
    P = np.array([[after_primary, 1 - after_primary], [after_backup, 1 - after_backup]])
    assert theory.stationary_hit_rate(after_primary, after_backup) == pytest.approx(
        np.linalg.matrix_power(P, 500)[0, 0])


def test_stationary_hit_rate_at_the_papers_miss_rates():
    """Figure 3, temperature 0, 1B draft, F = 4: 0.133 after the primary and 0.308 after the backup."""
    assert round(theory.stationary_hit_rate(1 - 0.133, 1 - 0.308), 2) == 0.84


def test_ssd_is_never_slower_than_its_own_draft_just_in_time():
    for p_hit in (0.0, 0.3, 0.9, 1.0):
        for T in (0.0, 0.2, 0.67, 1.0):
            gain = theory.ssd_over_sd(p_hit, T)
            ssd = theory.ssd_speedup(p_hit, E_hit=3.0, E_miss=3.0, T_p=T, T_b=T)
            assert gain == pytest.approx(ssd / (3.0 / (1 + T))) and gain >= 1
            assert (gain > 1) == (p_hit > 0 and T > 0)


def test_bounds_of_corollary_9_hold_for_every_quality_of_the_free_fallback():
    for E_miss in (1.0, 2.0, 3.7):
        for p_hit in (0.1, 0.5, 0.95):
            gain = theory.ssd_speedup(p_hit, E_hit=3.7, E_miss=E_miss, T_p=0.7) / (3.5 / 1.7)
            low, high = theory.ssd_over_sd_bounds(p_hit, E_hit=3.7, E_SD=3.5, T_SD=0.7)
            assert low <= gain <= high + 1e-12
    assert gain == pytest.approx(high), "a fallback as good as the draft reaches the upper bound"


@pytest.mark.parametrize("T_p, expected", [(0.67, 1.4), (0.3, 3.6)])
def test_fallback_threshold_is_where_the_two_strategies_meet(T_p, expected):
    b = theory.fallback_threshold(0.86, E_hit=5, E_miss=1, T_p=T_p)
    assert round(b, 1) == expected
    slow = theory.ssd_batch_speedup(b, 0.86, E_hit=5, E_miss=5, T_p=T_p, T_b=T_p)
    fast = theory.ssd_batch_speedup(b, 0.86, E_hit=5, E_miss=1, T_p=T_p, T_b=0)
    assert slow == pytest.approx(fast)
    assert theory.fallback_threshold(0.86, E_hit=5, E_miss=0.1, T_p=0.05) == float("inf")
    with pytest.raises(ValueError, match="between 0 and 1"):
        theory.fallback_threshold(1.0, **SSD)


def test_one_device_gains_only_what_its_memory_leaves_idle():
    times = dict(verify_s=4.0, draft_s=3.0, fallback_s=3.0)
    idle = theory.one_device_round(0.8, verify_bytes=1.0, draft_bytes=1.0, bytes_per_s=1.0, **times)
    full = theory.one_device_round(0.8, verify_bytes=4.0, draft_bytes=3.0, bytes_per_s=1.0, **times)
    assert idle == pytest.approx(4 + 0.2 * 3) and full == pytest.approx(7 + 0.2 * 3)
