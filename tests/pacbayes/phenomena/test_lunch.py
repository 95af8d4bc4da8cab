"""The theorem, exactly, and what a preference changes, in closed form."""

import pytest
import torch

from minilab.pacbayes.phenomena.lunch import accuracies, functions, informed, prior

PRICES = (-1.0, 0.0, 0.5, 1.0, 3.0)


@pytest.mark.parametrize("m", [6, 9])
def test_over_all_functions_every_learner_is_right_half_of_the_time(m):
    for accuracy in accuracies(m, (0.0,)).values():
        assert float(accuracy[0]) == pytest.approx(0.5, abs=1e-12)


def test_a_price_on_changes_decides_who_is_right():
    """Under it labels are a Markov chain that stays with probability 1 / (1 + 2^-price)."""
    found = accuracies(9, PRICES)
    stay = [1 / (1 + 2**-price) for price in PRICES]
    assert found["nearest"].tolist() == pytest.approx(stay)
    assert found["contrary"].tolist() == pytest.approx([1 - p for p in stay])
    assert found["informed"].tolist() == pytest.approx([max(p, 1 - p) for p in stay])
    for accuracy in found.values():
        assert (accuracy <= found["informed"] + 1e-12).all()


def test_bayes_rule_is_that_of_the_sum_over_functions():
    f, price = functions(5), 0.7
    said, P = informed(f, price), prior(f, price)
    assert float(P.sum()) == pytest.approx(1)
    for i in range(0, 32, 5):
        same = (f[:, ::2] == f[i, ::2]).all(dim=1)
        for unseen in range(2):
            one = P[same & f[:, 2 * unseen + 1]].sum() / P[same].sum()
            if abs(float(one) - 0.5) > 1e-9:
                assert bool(said[i, unseen]) == bool(one > 0.5)


def test_functions_are_all_and_different():
    assert len(torch.unique(functions(6), dim=0)) == 64
    with pytest.raises(ValueError, match="3 to 12"):
        functions(20)
