"""Rounding to a codebook: the best one on a line, and gradients by their definition."""

import pytest
import torch
from torch import nn

from minilab.pacbayes.quantize import Quantized, codebook, nearest
from minilab.pacbayes.subspace import Subspace


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def distortion(v: torch.Tensor, c: torch.Tensor) -> float:
    return float((v - c[nearest(v, c)]).square().mean())


@pytest.mark.parametrize("L, best", [(2, 0.3634), (3, 0.1902), (4, 0.1175), (8, 0.03454)])
def test_the_codebook_of_a_gaussian_is_that_of_lloyd_and_max(L, best):
    v = normal(20_000)
    c = codebook(v, L, iterations=200)
    assert distortion(v, c) == pytest.approx(best, rel=0.03)
    torch.testing.assert_close(c, -c.flip(0), atol=0.05, rtol=0)
    assert (c.diff() > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_each_value_is_the_mean_of_what_is_nearest_to_it(seed):
    v = normal(200, seed=seed) ** 3  # far from even
    c = codebook(v, 7)
    k = (v[None] - c[:, None]).abs().argmin(dim=0)
    torch.testing.assert_close(c, torch.stack([v[k == j].mean() for j in range(7)]))


def test_numbers_all_alike_are_no_trouble():
    c = codebook(torch.zeros(9), 3)
    assert torch.equal(c, torch.zeros(3))


def test_gradients_go_straight_through_to_v_and_summed_to_each_value():
    subspace = Subspace(lambda shape, classes: nn.Linear(8, 2), (8,), 2, d=9)
    subspace.v.data = normal(9)
    rounded = Quantized(subspace, 3)
    x, slope = normal(5, 8, seed=1), normal(5, 2, seed=2)
    (rounded(x) * slope).sum().backward()

    v_hat = rounded.c.detach()[rounded.symbols()].requires_grad_()
    out = subspace.at(v_hat, x)
    assert torch.equal(out, rounded(x))  # rounded numbers exactly, not nearly
    (out * slope).sum().backward()
    torch.testing.assert_close(subspace.v.grad, v_hat.grad)
    for j in range(3):
        torch.testing.assert_close(rounded.c.grad[j], v_hat.grad[rounded.symbols() == j].sum())


def test_one_value_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        codebook(normal(9), 1)
