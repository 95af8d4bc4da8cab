"""The statistic against closed forms, finite differences and what theory promises."""

import math

import pytest
import torch
import torch.multiprocessing as mp
from lewm.two_processes import SETTINGS, shared_loss

from minilab.lewm.sigreg import (
    carried_over,
    epps_pulley,
    expected,
    gaussian_distance,
    gradient,
    quadrature,
    random_directions,
    sigreg,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("N", [8, 64, 512])
def test_a_perfect_batch_scores_the_noise_floor_whatever_its_size(N):
    value = torch.stack([sigreg(normal(4, N, 24, seed=i), generator(i), directions=128) for i in range(8)]).mean()
    assert value == pytest.approx(1.05, abs=0.1)
    assert expected(N, 0, 1) == pytest.approx(1.0525, abs=1e-3)


@pytest.mark.parametrize("N", [64, 128])
def test_collapse_scores_two_fifths_of_the_batch(N):
    value = sigreg(torch.zeros(N, 16), generator())
    assert value == pytest.approx(0.402 * N, rel=1e-3)
    assert value == pytest.approx(expected(N, 0, 0), rel=1e-5)


@pytest.mark.parametrize("mean, std, per_point", [
    (0, 0.5, 0.151), (0, 0.75, 0.0350), (0, 0.9, 0.0051), (0, 1.5, 0.0843), (0, 2, 0.236),
    (0.25, 1, 0.030), (0.5, 1, 0.118), (1, 1, 0.444),
])  # fmt: skip
def test_a_wrong_spread_or_mean_costs_what_the_closed_form_says(mean, std, per_point):
    assert gaussian_distance(mean, std) == pytest.approx(per_point, rel=0.02)
    N = 20_000
    assert expected(N, mean, std) / N == pytest.approx(per_point, rel=0.03)
    value = epps_pulley(mean + std * normal(N, 32)).mean()
    assert value == pytest.approx(expected(N, mean, std), rel=0.05, abs=0.5)


def test_infinite_spread_scores_the_limit_of_all_that_is_no_gaussian():
    """The knot at t = 0 agrees for every law: the integral's limit, 1.447 N, less the weight of that knot."""
    t, phi, weight = quadrature(like=torch.empty(0, dtype=torch.float64))
    limit = float(weight[1:] @ phi[1:].square())
    assert limit == pytest.approx(math.sqrt(2 * math.pi / 3) - 3 / 16, abs=5e-3)
    assert epps_pulley(1e4 * normal(20_000, 8)).mean() / 20_000 == pytest.approx(limit, rel=1e-2)
    assert expected(10**6, 0, 1e4) / 10**6 == pytest.approx(limit, rel=1e-4)


def test_the_gradient_is_that_of_finite_differences_and_of_its_formula():
    h = 1.5 * normal(6, 3) + 0.3
    h.requires_grad_()
    assert torch.autograd.gradcheck(epps_pulley, h)
    (found,) = torch.autograd.grad(epps_pulley(h).sum(), h)
    torch.testing.assert_close(found, gradient(h.detach()), atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0, 1e6])
def test_no_point_is_pulled_by_more_than_eight(scale):
    heavy = scale * normal(64, 16) / normal(64, 16, seed=1)  # Cauchy: no moments at all
    assert gradient(heavy).abs().max() <= 8
    assert gradient(torch.cat((torch.zeros(1, 16), heavy + 1.6))).abs().max() <= 8


def test_collapse_is_stationary_but_pushes_apart_whatever_is_near_it():
    assert gradient(torch.zeros(32, 4)).abs().max() == 0
    shifted = gradient(torch.full((32, 4), 0.3))
    assert (shifted > 0).all() and torch.equal(shifted, shifted[:1].expand(32, -1))  # descent moves all alike, to 0
    h = 1e-3 * normal(32, 4)
    h -= h.mean(dim=0)
    torch.testing.assert_close(gradient(h) / h, torch.full_like(h, -3.09), atol=0.01, rtol=0)


def test_a_law_that_shares_the_first_moments_is_still_seen():
    signs = normal(4096, 8).sign()
    assert epps_pulley(signs).mean() / 4096 == pytest.approx(0.103, rel=0.05)
    along_all = epps_pulley(signs @ torch.full((8, 1), 8**-0.5).double())
    assert along_all < epps_pulley(signs)[0] / 20  # a sum of many looks normal: the direction matters


def test_turning_the_space_changes_nothing_in_expectation():
    z = normal(128, 6) * torch.tensor([1.0, 0.2, 2.0, 1.0, 0.5, 1.0])
    turn, _ = torch.linalg.qr(normal(6, 6, seed=3))
    straight = sigreg(z, generator(1), directions=12_000, knots=9)
    turned = sigreg(z @ turn, generator(2), directions=12_000, knots=9)
    assert turned == pytest.approx(float(straight), rel=0.02)
    torch.testing.assert_close(sigreg(z @ turn, generator(1)), epps_pulley(  # and exactly, if directions turn along
        z @ (turn @ random_directions(6, 1024, generator(1), like=z))).mean())


def test_steps_are_batches_of_their_own():
    """Each step is perfect but of another mean: one batch of all would not be."""
    z = normal(2, 4000, 4)
    z[1] += 3 - z[1].mean(dim=0)
    parts = torch.stack([sigreg(step, generator(5), directions=64) for step in z])
    torch.testing.assert_close(sigreg(z, generator(5), directions=64), parts.mean())
    assert parts[1] > 100 * parts[0]


def test_directions_are_fresh_in_each_call_and_never_nan():
    z, g = normal(32, 8) * 3, generator()
    assert sigreg(z, g, directions=4) != sigreg(z, g, directions=4)
    assert torch.equal(sigreg(z, generator(), directions=4), sigreg(z, generator(), directions=4))
    a = random_directions(8, 100, generator())
    torch.testing.assert_close(a.norm(dim=0), torch.ones(100))
    assert torch.nn.functional.normalize(torch.zeros(8, 1), dim=0).isfinite().all()


def test_autocast_does_not_reach_the_statistic():
    z = 20 * torch.randn(64, 16, generator=generator())
    plain = sigreg(z, generator(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sigreg(z, generator(1)), plain)
        assert sigreg(z.bfloat16(), generator(1)).dtype == torch.float32


def test_the_weight_carries_over_between_batches_as_their_product():
    lam = carried_over(0.09, 128, 32)
    assert lam == pytest.approx(0.36)
    assert lam * expected(32, 0, 0) == pytest.approx(0.09 * expected(128, 0, 0))


@pytest.mark.parametrize("knots, t_max", [(16, 3.0), (1, 3.0), (17, 0.0)])
def test_knots_that_cannot_work_are_refused(knots, t_max):
    with pytest.raises(ValueError, match="odd number"):
        quadrature(knots, t_max)


def test_two_processes_share_value_and_gradient_of_one(tmp_path):
    weight, rows = normal(5, 4, seed=8), normal(3, 20, 5, seed=9)
    torch.save((weight, rows), tmp_path / "given.pt")
    mp.spawn(shared_loss, args=(str(tmp_path),), nprocs=2)
    weight.requires_grad_()
    loss = sigreg(rows @ weight, generator(7), **SETTINGS)
    loss.backward()
    for rank in range(2):
        value, grad = torch.load(tmp_path / f"rank{rank}.pt")
        torch.testing.assert_close(value, loss.detach(), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(grad, weight.grad, atol=1e-6, rtol=1e-6)
