"""Closed forms against simulation and against the paper's own special cases."""

import numpy as np
import pytest

from minilab.speculative.theory import (acceptance_from_tokens, accepted_pmf, best_lookahead, expected_tokens,
                                        speedup)


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
