"""Projections against their explicit matrices, and a network in a subspace against plain calculus."""

import math

import pytest
import torch
from torch import nn

from minilab.pacbayes.networks import Standardize, cnn, mlp
from minilab.pacbayes.subspace import (
    PROJECTIONS,
    Dense,
    Hadamard,
    Kronecker,
    Sparse,
    Subspace,
    hadamard,
    intrinsic_dimension,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def matrix(projection: nn.Module, d: int) -> torch.Tensor:
    """P, column by column."""
    return torch.stack([projection(e) for e in torch.eye(d)], dim=1)


def test_a_kronecker_projection_is_that_of_the_explicit_product():
    D, d = 23, 9  # a = 4, b = 3: 7 weights stay
    P = Kronecker(D, d, generator())
    explicit = torch.cat((torch.kron(P.Q1, P.Q2), torch.zeros(7, d)))[P.order] * math.sqrt(D / d)
    torch.testing.assert_close(matrix(P, d), explicit)
    assert (explicit == 0).all(dim=1).sum() == 7


@pytest.mark.parametrize("D, d", [(23, 9), (400, 36), (1000, 100)])
def test_kronecker_columns_are_orthogonal_and_of_one_length(D, d):
    P = matrix(Kronecker(D, d, generator()), d)
    torch.testing.assert_close(P.T @ P * (d / D), torch.eye(d), atol=1e-5, rtol=0)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_every_projection_keeps_lengths_and_moves_all_weights_alike(projection):
    """v of N(0, 1) moves weights by N(0, 1); the length of P v is √(D/d) times that of v, within √(2/d) or so."""
    D, d = 10_000, 100
    P, v = projection(D, d, generator(1)), torch.randn(d, generator=generator(2))
    w = P(v)
    assert w.norm() / v.norm() == pytest.approx(math.sqrt(D / d), rel=0.1)
    parts = w.view(10, -1).square().mean(dim=1)
    assert parts.min() > 0.6 * parts.mean() and parts.max() < 1.5 * parts.mean()


def test_a_sparse_projection_has_one_number_in_root_D():
    D, d = 2500, 64
    P = matrix(Sparse(D, d, generator()), d)
    assert (P != 0).float().mean() == pytest.approx(1 / 50, rel=0.05)
    assert P.abs().max() <= 3 * math.sqrt(50 / 64)  # a place drawn twice or three times holds the sum
    assert P[P != 0].abs().median() == pytest.approx(math.sqrt(50 / 64))
    assert abs(P.mean()) < 0.01


def test_dense_is_made_of_gaussian_numbers():
    P = matrix(Dense(500, 50, generator()), 50) * math.sqrt(50)
    assert P.std() == pytest.approx(1, rel=0.02)
    assert P.pow(4).mean() == pytest.approx(3, rel=0.1)


def signs(N: int) -> torch.Tensor:
    """Hadamard's matrix by its other definition: minus where row and column share an odd number of binary ones."""
    return torch.tensor([[(-1.0) ** (i & j).bit_count() for j in range(N)] for i in range(N)])


@pytest.mark.parametrize("N", [1, 2, 8, 64])
def test_the_hadamard_transform_is_its_matrix_and_its_own_inverse_times_n(N):
    H, x = signs(N), torch.randn(N, generator=generator())
    torch.testing.assert_close(hadamard(x), H @ x)
    torch.testing.assert_close(hadamard(hadamard(x)), N * x)
    with pytest.raises(ValueError, match="12 numbers.*add zeros"):
        hadamard(torch.zeros(12))


@pytest.mark.parametrize("D, d", [(1, 1), (64, 9), (50, 16), (65, 25)])
def test_a_hadamard_projection_is_that_of_the_explicit_product(D, d):
    P = Hadamard(D, d, generator())
    N = 1 << math.ceil(math.log2(D))
    embedding = torch.zeros(N, d)
    embedding[P.place, torch.arange(d)] = 1
    explicit = torch.diag(P.sign) @ signs(N)[:D] @ embedding / math.sqrt(d)
    torch.testing.assert_close(matrix(P, d), explicit)
    torch.testing.assert_close(explicit.abs(), torch.full((D, d), 1 / math.sqrt(d)))
    assert len(set(P.place.tolist())) == d  # no direction twice


def test_hadamard_columns_are_orthogonal_where_all_rows_are_kept():
    P = matrix(Hadamard(256, 25, generator()), 25)
    torch.testing.assert_close(P.T @ P * (25 / 256), torch.eye(25))


def test_over_all_signs_a_hadamard_projection_keeps_squared_lengths_in_the_mean():
    """The mean of |Pᵀ w|² over all 2^8 signs is |w|², whatever the places: cross terms of two weights cancel."""
    P = Hadamard(8, 4, generator()).double()
    w, total = torch.randn(8, generator=generator(1), dtype=torch.float64), 0.0
    for number in range(256):
        P.sign = torch.tensor([1.0 - 2 * (number >> i & 1) for i in range(8)], dtype=torch.float64)
        total += float((matrix(P, 4).T @ w).square().sum())  # columns of eye(4) are float32: exact
    assert total / 256 == pytest.approx(float(w.square().sum()), rel=1e-6)


def test_the_hadamard_transform_is_adjoint_to_itself_and_has_its_own_gradient():
    x = torch.randn(32, generator=generator(), dtype=torch.float64, requires_grad=True)
    y = torch.randn(32, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(y @ hadamard(x), hadamard(y) @ x)
    assert torch.autograd.gradcheck(hadamard, x) and torch.autograd.gradgradcheck(hadamard, x)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_a_projection_and_the_one_back_are_adjoint(projection):
    """w · P v = (Pᵀ w) · v, where Pᵀ w is what calculus gives: the gradient of w · P v in v."""
    D, d = 1000, 49
    P, w = projection(D, d, generator()), torch.randn(D, generator=generator(1))
    v = torch.randn(d, generator=generator(2), requires_grad=True)
    value = w @ P(v)
    (back,) = torch.autograd.grad(value, v)
    torch.testing.assert_close(back @ v, value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_the_gradient_of_v_is_the_projected_gradient_of_the_weights(projection):
    subspace = Subspace(mlp, (1, 8, 8), 3, d=16, projection=projection)
    x, y = torch.rand(20, 1, 8, 8, generator=generator()), torch.randint(3, (20,), generator=generator())
    nn.functional.cross_entropy(subspace(x), y).backward()
    plain = mlp((1, 8, 8), 3)
    plain.load_state_dict(subspace.weights(torch.zeros(16)))
    torch.testing.assert_close(plain(x), subspace(x).detach())
    nn.functional.cross_entropy(plain(x), y).backward()
    of_weights = torch.cat([p.grad.flatten() for p in plain.parameters()]) * subspace.s
    torch.testing.assert_close(subspace.v.grad, matrix(subspace.P, 16).T @ of_weights, atol=1e-6, rtol=1e-4)


def test_the_seed_alone_says_where_a_network_begins_and_where_it_can_go():
    torch.manual_seed(123)
    one = Subspace(cnn, (1, 8, 8), 3, d=16, seed=4)
    torch.rand(7)
    two, other = Subspace(cnn, (1, 8, 8), 3, d=16, seed=4), Subspace(cnn, (1, 8, 8), 3, d=16, seed=5)
    v = torch.randn(16, generator=generator())
    for name, w in one.weights(v).items():
        assert torch.equal(w, two.weights(v)[name]) and not torch.equal(w, other.weights(v)[name])
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    Subspace(mlp, (4,), 2, d=4)
    assert torch.equal(torch.rand(3), expected)  # the global state is as it was


def test_layers_move_by_the_size_that_they_begin_with():
    def build(shape, classes):
        network = nn.Sequential(nn.Linear(100, 400), nn.LayerNorm(400), nn.Linear(400, 400))
        nn.init.normal_(network[2].weight, std=0.001)
        return network

    subspace = Subspace(build, (100,), 400, d=400)
    began = subspace.weights(torch.zeros(400))
    moved = subspace.weights(torch.randn(400, generator=generator()))
    size = {name: float((moved[name] - w).square().mean().sqrt()) for name, w in began.items()}
    assert size["0.weight"] == pytest.approx(0.1 / math.sqrt(3), rel=0.2)  # uniform up to 1 / √100
    assert size["2.weight"] == pytest.approx(0.001, rel=0.2)
    assert size["1.weight"] == pytest.approx(1, rel=0.3)  # gains
    assert size["1.bias"] == pytest.approx(0.05, rel=0.3)  # which begin at zero: 1 / √400


def test_a_subspace_that_holds_the_answer_finds_it():
    """With as many directions as weights, nothing is lost: the least squares solution is reached."""
    g = generator(3)
    subspace = Subspace(lambda shape, classes: nn.Linear(8, 2, bias=False), (8,), 2, d=16)
    x, y = torch.randn(200, 8, generator=g), torch.randn(200, 2, generator=g)
    optimizer = torch.optim.LBFGS([subspace.v], max_iter=200, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = (subspace(x) - y).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    best = torch.linalg.lstsq(x, y).solution.T
    torch.testing.assert_close(subspace.weights(subspace.v.detach())["weight"], best, atol=1e-3, rtol=1e-2)


def test_what_a_message_could_not_carry_is_refused():
    def normalized(shape, classes):
        return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))

    with pytest.raises(ValueError, match="running_mean.*take LayerNorm"):
        Subspace(normalized, (8,), 8, d=4)
    with pytest.raises(ValueError, match="give 1 to 18"):
        Subspace(lambda shape, classes: nn.Linear(8, 2), (8,), 2, d=25)
    with pytest.raises(ValueError, match="9 or 16, not 10"):
        Kronecker(100, 10, generator())


def test_the_input_is_standardized_example_by_example():
    x = torch.randint(256, (5, 1, 28, 28), generator=generator(), dtype=torch.uint8)
    x[0] = 7  # says nothing
    seen = Standardize()(x)
    pooled = x.float().view(5, 14, 2, 14, 2).mean(dim=(2, 4))
    expected = (pooled - pooled.mean((1, 2), keepdim=True)) / pooled.std((1, 2), correction=0, keepdim=True)
    torch.testing.assert_close(seen[1:, 0], expected[1:])
    assert (seen[0] == 0).all()
    torch.testing.assert_close(Standardize()(x[1:2]), seen[1:2])  # whatever stands beside it


def test_the_intrinsic_dimension_is_the_first_that_comes_near_the_full_network():
    assert intrinsic_dimension([100, 50, 400], [0.86, 0.7, 0.95], full=0.95) == 100
    assert intrinsic_dimension([50, 100], [0.2, 0.3], full=0.95) is None
