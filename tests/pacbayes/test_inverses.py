"""Both inverses against fifty digits, closed forms, and the probabilities that they stand for."""

import math

import pytest
import scipy.stats
import torch
from mpmath import mp, mpf
from pacbayes.digits import mp_inverse, mp_kl

from minilab.pacbayes.inverses import binomial_inverse, kl, kl_inverse, kl_inverse_lower, log_binomial_tail

QS = (0.0, 1e-6, 0.05, 0.182, 0.5, 0.9, 1 - 1e-6)
CS = (1e-6, 0.01, 0.0256, 0.2, 3.0)


@pytest.mark.parametrize("q", QS)
def test_both_sides_agree_with_fifty_digits(q):
    for c in CS:
        assert kl_inverse(q, c) == pytest.approx(float(mp_inverse(q, c, 1)), abs=1e-11)
        assert kl_inverse_lower(q, c) == pytest.approx(float(mp_inverse(q, c, 0)), abs=1e-11)
    for p in (1e-9, 0.3, 0.999):
        assert kl(q, p) == pytest.approx(float(mp_kl(q, p)), rel=1e-12, abs=1e-15)


def test_the_answer_is_on_the_safe_side():
    """Never inside the interval by more than rounding: a relative tolerance of 1e-5 there would fail this."""
    for q in QS:
        for c in CS:
            p = kl_inverse(q, c)
            assert p == 1 or mp_kl(q, p) >= c - 1e-15


@pytest.mark.parametrize("q, c, p", [(0, 0.01, 0.009950166250832), (0, 0.1, 0.09516258196404),
                                     (0.05, 0.01, 0.08690214907386), (0.1, 0.05, 0.2200786011069),
                                     (0.182, 0.0256, 0.2792087594596), (0.5, 0.2, 0.7870888163811),
                                     (0.9, 0.02, 0.9493708460922)])
def test_vectors_in_digits(q, c, p):
    """For whoever writes the inverse in another language."""
    assert kl_inverse(q, c) == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize("c", CS)
def test_closed_forms_at_zero_at_a_fair_coin_and_at_one(c):
    assert kl_inverse(0.0, c) == pytest.approx(-math.expm1(-c), rel=1e-12)
    assert kl_inverse(0.5, c) == pytest.approx((1 + math.sqrt(-math.expm1(-2 * c))) / 2, rel=1e-12)
    assert kl_inverse(1.0, c) == 1 and kl_inverse_lower(0.0, c) == pytest.approx(0, abs=1e-15)
    assert kl_inverse_lower(1.0, c) == pytest.approx(math.exp(-c), rel=1e-12)


def test_extremes_are_what_they_mean():
    assert kl_inverse(0.3, 0.0) == pytest.approx(0.3, abs=1e-7)
    assert kl_inverse(0.3, math.inf) == 1 and kl_inverse_lower(0.3, math.inf) == 0
    assert kl(0.0, 0.0) == kl(1.0, 1.0) == 0 and kl(0.1, 0.0) == kl(0.1, 1.0) == math.inf


def test_pinsker_bounds_the_inverse():
    q, c = (x.flatten() for x in torch.meshgrid(torch.linspace(0, 1, 21), torch.linspace(0.001, 1, 21), indexing="ij"))
    p = kl_inverse(q, c)
    assert (p <= q + (c / 2).sqrt() + 1e-7).all() and (p >= q).all()


def test_gradients_are_those_of_finite_differences_on_both_sides():
    q = torch.tensor([[0.01], [0.3], [0.5], [0.9]], dtype=torch.float64, requires_grad=True)
    c = torch.tensor([0.01, 0.1, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(kl_inverse, (q, c))
    assert torch.autograd.gradcheck(kl_inverse_lower, (q, c))


def test_a_bound_that_has_reached_one_does_not_move():
    q = torch.tensor([0.5, 1.0], requires_grad=True)
    c = torch.tensor([800.0, 0.1], requires_grad=True)
    kl_inverse(q, c).sum().backward()
    assert torch.equal(q.grad, torch.zeros(2)) and torch.equal(c.grad, torch.zeros(2))


def test_a_list_is_its_items_and_single_precision_is_not_kept():
    q, c = torch.tensor([0.0, 0.1, 0.7]), 0.05
    together = kl_inverse(q, c)
    assert together.dtype == torch.float64
    assert together.tolist() == [kl_inverse(float(x), c) for x in q]


def test_chernoff_stands_above_the_exact_tail():
    for n, k, p in ((20, 3, 0.4), (1000, 50, 0.08), (5, 0, 0.9)):
        assert scipy.stats.binom.cdf(k, n, p) <= math.exp(-n * kl(k / n, p)) * (1 + 1e-12)


@pytest.mark.parametrize("k, n, p", [(0, 10, 0.3), (7, 10, 0.3), (10, 10, 0.3), (100, 50_000, 0.3), (900, 1000, 0.999)])
def test_the_tail_in_logarithms_agrees_with_fifty_digits(k, n, p):
    """The fourth is e^-17200: as a chance it is 0, and its logarithm lost."""
    exact = mp.log(sum(mp.binomial(n, j) * mpf(p) ** j * (1 - mpf(p)) ** (n - j) for j in range(k + 1)))
    found = log_binomial_tail(*(torch.tensor(float(x), dtype=torch.float64) for x in (k, n, p)))
    assert float(found) == pytest.approx(float(exact), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("k, n", [(0, 7), (18, 360), (359, 360), (100, 10_000)])
def test_the_binomial_inverse_is_a_quantile_of_the_beta_law(k, n):
    for chance in (0.5, 0.05, 1e-12):
        found = binomial_inverse(*(torch.tensor(float(x), dtype=torch.float64) for x in (k, n, math.log(chance))))
        assert float(found) == pytest.approx(scipy.stats.beta.isf(chance, k + 1, n - k), rel=1e-10)
