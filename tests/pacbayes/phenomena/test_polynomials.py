"""The fit against fifty digits, the dual against it, the kernel against its closed form, and the claim itself."""

import math

import mpmath
import numpy as np
import pytest
import torch

from minilab.pacbayes.phenomena.polynomials import (
    PolynomialConfig,
    chebyshev,
    dual,
    kernel,
    order_penalty,
    penalized,
    poisson_kernel,
    polynomials,
)
from minilab.pacbayes.phenomena.selection import TARGETS, SelectionConfig, selection

X = torch.linspace(-1, 1, 20, dtype=torch.double)
Y = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.double)


def test_the_basis_is_numpys():
    expected = np.polynomial.chebyshev.chebvander(X.numpy(), 150)
    torch.testing.assert_close(chebyshev(X, 150), torch.tensor(expected), atol=1e-11, rtol=0)


def test_the_fit_solves_the_normal_equations_in_fifty_digits():
    penalty, x = order_penalty(12, 1e-6, 2.0), X[:8] / 2
    with mpmath.workdps(50):
        T = mpmath.matrix([[mpmath.chebyt(j, mpmath.mpf(float(point))) for j in range(13)] for point in x])
        normal = T.T * T + mpmath.diag([mpmath.mpf(float(p)) for p in penalty])
        exact = mpmath.lu_solve(normal, T.T * mpmath.matrix(Y[:8, 0].tolist()))
    w = penalized(chebyshev(x, 12), Y[:8, :1], penalty)[:, 0]
    assert w.tolist() == pytest.approx([float(v) for v in exact], rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("growth", [1.0, 1.1, 1.5])
def test_n_equations_say_the_same_as_all_orders(growth):
    penalty, at = order_penalty(150, 1e-4, growth), torch.linspace(-1, 1, 77, dtype=torch.double)
    primal = chebyshev(at, 150) @ penalized(chebyshev(X, 150), Y, penalty)
    torch.testing.assert_close(dual(X, Y, at, penalty), primal, atol=1e-8, rtol=0)


@pytest.mark.parametrize("growth", [1.1, 1.5, 3.0])
def test_for_many_orders_the_kernel_is_poissons(growth):
    found = kernel(X, X[:5], order_penalty(600, 0.01, growth))
    torch.testing.assert_close(found, poisson_kernel(X, X[:5], 0.01, growth), rtol=1e-9, atol=1e-9)


def test_the_sum_over_all_orders_of_the_closed_form_at_the_ends_is_geometric():
    one = torch.ones(1, dtype=torch.double)
    assert float(poisson_kernel(one, one, 1.0, 1.25)) == pytest.approx(1 / (1 - 1 / 1.25))
    assert float(poisson_kernel(one, -one, 1.0, 1.25)) == pytest.approx(1 / (1 + 1 / 1.25))


def test_without_a_penalty_the_fit_is_least_squares_and_the_shortest_of_many():
    free = order_penalty(3, 0)
    expected = np.polynomial.chebyshev.chebfit(X.numpy(), Y.numpy(), 3)
    torch.testing.assert_close(penalized(chebyshev(X, 3), Y, free), torch.tensor(expected))
    shortest = torch.linalg.pinv(chebyshev(X, 150)) @ Y
    torch.testing.assert_close(penalized(chebyshev(X, 150), Y, order_penalty(150, 0)), shortest)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("points", [20, 30])
def test_one_model_fits_simple_complex_and_noise(points, seed):
    """Pilot of the sheet: residual below 1e-3, no leap between points, errors .08 to .1 and .11 to .21."""
    r = polynomials(PolynomialConfig(points=points, seed=seed))
    small, free, priced = range(3)
    assert (r.residual[small] > 0.2).all()
    assert (r.residual[priced] < 1e-3).all()
    assert (r.fits[priced].abs().amax(dim=0) < 4).all()
    assert (r.error[priced, :2] < 0.5 * torch.minimum(r.error[small], r.error[free])[:2]).all()
    assert r.error[priced, 0] < 0.15 and r.error[priced, 1] < 0.25
    assert (r.residual[free] < 1e-9).all() and (r.error[free, :2] > 0.5).all()  # flexibility alone


def test_plain_powers_leave_a_residual_on_noise():
    powers = X[:, None] ** torch.arange(151)
    w = penalized(powers, Y, order_penalty(150))
    assert (powers @ w - Y).square().mean(dim=0).sqrt().min() > 0.2


def test_bad_input_says_what_to_give():
    with pytest.raises(ValueError, match="rescale"):
        chebyshev(X * 2, 3)
    with pytest.raises(ValueError, match="scale >= 0"):
        order_penalty(3, -1.0)
    with pytest.raises(ValueError, match="growth is 1"):
        poisson_kernel(X, X, 1.0, 1)


def test_the_priced_polynomial_is_near_the_best_at_every_number_of_samples():
    """Medians of the sheet's rerun (its table in section 1.4), within a factor of 2."""
    r = selection(SelectionConfig(sizes=(5, 10, 20, 70), repeats=200))
    pilot_small = torch.tensor([[0.0098, 0.0032, 0.0013, 0.00036], [0.12, 0.053, 0.040, 0.035], [10.9, 4.6, 3.6, 3.2]])
    pilot_priced = torch.tensor([[0.0091, 0.0037, 0.0019, 0.00051], [0.054, 0.022, 0.013, 0.0063],
                                 [0.47, 0.023, 0.0067, 0.0018]])
    assert ((r.small / pilot_small).log().abs() < math.log(2)).all()
    assert ((r.priced / pilot_priced).log().abs() < math.log(2)).all()
    best = torch.minimum(r.small, r.large)
    assert (r.priced < 3 * best).all()
    assert (r.small > 3 * best).any() and (r.large > 1000 * best).any()
    assert len(r.priced) == len(TARGETS)
