"""Laplace's evidence against the integral itself, and the table of altered labels."""

import math

import pytest
import torch

from minilab.pacbayes.phenomena.memorize import MemorizeConfig, gauss_newton, laplace, memorize
from minilab.pacbayes.phenomena.mlp import MLP, FitConfig, cross_entropy, fit


def problem(n: int = 40) -> tuple[MLP, torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    y = (x[:, 0] + 0.7 * torch.randn(n, generator=torch.Generator().manual_seed(1)) > 0).long()
    return MLP((1, 2)), x, y


def test_for_a_linear_network_gauss_newton_is_the_hessian():
    net, x = MLP((3, 4)), torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    w, y = net.draw(1, torch.Generator().manual_seed(1))[0].double(), torch.arange(9) % 4
    hessian = torch.func.hessian(lambda v: 9 * cross_entropy(net(v[None], x), y[None])[0])(w)
    torch.testing.assert_close(gauss_newton(lambda v: net(v[None], x)[0], w), hessian)


def test_laplace_is_near_the_integral_over_all_weights():
    """log of the mean likelihood over 400,000 draws from the prior; the posterior of 4 weights is nearly normal."""
    net, x, y = problem()
    precision = 0.5
    w, _ = fit(net, torch.zeros(1, net.P, dtype=torch.double), x, y[None], FitConfig(2000, decay=precision / len(x)))
    found = laplace(lambda v: net(v[None], x)[0], w[0], y, precision)
    generator, log_likelihood = torch.Generator().manual_seed(2), []
    for _ in range(4):
        drawn = torch.randn(100_000, net.P, generator=generator, dtype=torch.double) / math.sqrt(precision)
        log_likelihood.append(-len(x) * cross_entropy(net(drawn, x), y[None]))
    exact = torch.logsumexp(torch.cat(log_likelihood), dim=0) - math.log(400_000)
    assert float(found) == pytest.approx(float(exact), abs=0.1)


def test_every_network_fits_its_labels_and_the_evidence_falls_with_their_disorder(digits):
    r = memorize(digits, MemorizeConfig(shares=(0, 0.2, 0.5, 1), samples=150, hidden=24))
    assert (r.train_error == 0).all()
    assert (r.evidence.diff() < -0.1).all() and (r.test_error.diff() > 0.1).all()
    assert r.test_error[-1] == pytest.approx(0.9, abs=0.06)
    assert r.evidence[-1] < -math.log(10) < r.evidence[0]  # the memorizer's evidence is below that of guessing
    slowness = (r.history > 0.1).sum(dim=0)
    assert (slowness.diff() > 0).all() and slowness[-1] < 10 * slowness[0]  # random labels take longer, not much


def test_without_a_prior_there_is_no_evidence():
    net, x, y = problem()
    with pytest.raises(ValueError, match="positive decay"):
        laplace(lambda v: net(v[None], x)[0], torch.zeros(4, dtype=torch.double), y, 0)
