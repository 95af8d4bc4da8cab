"""Lanczos and Hessian products against dense matrices, the dimension against Bayesian regression."""

import pytest
import torch

from minilab.pacbayes.phenomena.dimension import effective_dimension, hessian_product, lanczos
from minilab.pacbayes.phenomena.mlp import MLP, cross_entropy


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def symmetric(values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    Q = torch.linalg.qr(normal(len(values), len(values), seed=seed)).Q
    return Q @ values.diag() @ Q.T


def test_all_steps_give_all_eigenvalues_of_each_matrix():
    values = torch.stack((torch.linspace(-1, 5, 30).double(), torch.logspace(-6, 3, 30).double()))
    H = torch.stack([symmetric(v, seed) for seed, v in enumerate(values)])
    found = lanczos(lambda v: torch.einsum("kpq,kq->kp", H, v), normal(2, 30), 99)
    torch.testing.assert_close(found, values, atol=1e-9, rtol=0)


def test_few_steps_give_the_large_eigenvalues_once_each():
    """Without repeated orthogonalization the largest one would come back as a ghost."""
    values = torch.cat((torch.linspace(0, 1, 280), 2 + torch.arange(20) ** 2)).double()
    H = symmetric(values)
    found = lanczos(lambda v: v @ H, normal(1, 300), 80)[0]
    torch.testing.assert_close(found[-20:], values[-20:], atol=1e-8, rtol=0)
    assert found[-21] < 1.01


def test_a_subspace_that_is_full_ends_the_search():
    found = lanczos(lambda v: v * torch.tensor([3.0, 3, 3, 1, 1, 0]).double(), normal(1, 6), 6)[0]
    torch.testing.assert_close(found, torch.tensor([0, 0, 0, 0, 1, 3.0]).double(), atol=1e-9, rtol=0)


def test_hessian_products_are_those_of_each_networks_dense_hessian():
    net, x, y = MLP((3, 5, 2)), normal(12, 3, seed=1), torch.arange(12)[None] % 2
    w = net.draw(2, torch.Generator().manual_seed(2)).double()
    product, v = hessian_product(lambda w: cross_entropy(net(w, x), y), w), normal(2, net.P, seed=3)
    H = torch.stack([torch.func.hessian(lambda u: cross_entropy(net(u[None], x), y)[0])(row) for row in w])
    torch.testing.assert_close(product(v), torch.einsum("kpq,kq->kp", H, v))
    found = lanczos(product, v, net.P)
    dense = torch.linalg.eigvalsh(H)
    torch.testing.assert_close(effective_dimension(found, 0.01), effective_dimension(dense, 0.01), rtol=1e-4, atol=0)


def test_it_counts_how_far_the_posterior_of_a_linear_model_has_contracted():
    """P - trace(prior precision * posterior covariance), for y = X w + N(0, 1) and w ~ N(0, 1 / alpha)."""
    X, alpha = normal(20, 8) * torch.logspace(-2, 1, 8), 0.7
    covariance = torch.linalg.inv(X.T @ X + alpha * torch.eye(8))
    contraction = 8 - alpha * covariance.trace()
    torch.testing.assert_close(effective_dimension(torch.linalg.eigvalsh(X.T @ X), alpha), contraction)


def test_directions_that_bend_downward_do_not_count():
    assert effective_dimension(torch.tensor([-0.999, 1.0]), 1.0) == 0.5


def test_bad_input_says_what_to_give():
    with pytest.raises(ValueError, match="alpha is 0"):
        effective_dimension(torch.ones(2), 0)
    with pytest.raises(ValueError, match="steps is 0"):
        lanczos(lambda v: v, torch.ones(1, 2), 0)
