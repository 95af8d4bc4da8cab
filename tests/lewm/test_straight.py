"""Paths, ranks and maps whose shape is known."""

import math

import pytest
import torch

from minilab.lewm.straight import distance_curve, effective_rank, position_grid, principal, straightness

D = 6


def in_space(points: torch.Tensor) -> torch.Tensor:
    """Points of the plane, somewhere in D dimensions: no angle or length changes."""
    Q, _ = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(0), dtype=points.dtype))
    return points @ Q[:2] + 3


def test_a_line_is_straight_at_any_pace_and_its_way_back_is_not():
    pace = torch.tensor([0.0, 1, 1.5, 4, 4.2])
    line = in_space(torch.stack((pace, 2 * pace), dim=1))[None]
    assert float(straightness(line)) == pytest.approx(1, abs=1e-5)
    there_and_back = line[:, [0, 3, 0, 3]]
    assert float(straightness(there_and_back)) == pytest.approx(-1, abs=1e-5)


@pytest.mark.parametrize("angle", [0.1, math.pi / 3, 2.5])
def test_a_circle_is_as_straight_as_the_cosine_of_its_turn(angle):
    turn = angle * torch.arange(12.0)
    circle = 5 * in_space(torch.stack((turn.cos(), turn.sin()), dim=1))
    assert float(straightness(circle.expand(3, -1, -1))) == pytest.approx(math.cos(angle), abs=1e-5)


def test_a_random_walk_has_no_direction():
    walk = torch.randn(400, 20, 32, generator=torch.Generator().manual_seed(1)).cumsum(dim=1)
    assert abs(float(straightness(walk))) < 0.01


def test_who_stands_still_has_no_direction_and_does_not_count():
    path = in_space(torch.tensor([[0.0, 0], [0, 0], [1, 0], [2, 0], [2, 0]]))[None]
    assert float(straightness(path)) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="collapsed"):
        straightness(torch.ones(2, 5, D))
    with pytest.raises(ValueError, match="at least 3"):
        straightness(torch.ones(2, 2, D))


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_rank_counts_directions_and_not_their_size(scale):
    z, _ = torch.linalg.qr(torch.randn(500, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    z = z - z.mean(dim=0)
    assert effective_rank(scale * z) == pytest.approx(D, abs=0.05)
    assert effective_rank(scale * z[:, :1] * torch.ones(D, dtype=z.dtype)) == pytest.approx(1, abs=1e-6)
    # singular values 2 and 1: shares 2/3 and 1/3
    U, _ = torch.linalg.qr(z)
    entropy = math.log(3) - 2 / 3 * math.log(2)
    assert effective_rank(U[:, :2] * torch.tensor([2.0, 1.0])) == pytest.approx(math.exp(entropy), rel=1e-3)


def test_the_map_of_a_plane_in_many_dimensions_is_the_plane():
    generator = torch.Generator().manual_seed(3)
    plane = torch.randn(200, 2, generator=generator) * torch.tensor([3.0, 1.0])
    found = principal(in_space(plane))
    torch.testing.assert_close(torch.cdist(found.coordinates, found.coordinates), torch.cdist(plane, plane),
                               atol=1e-2, rtol=1e-3)
    variance = torch.linalg.eigvalsh(torch.cov(plane.T)).flip(0)
    torch.testing.assert_close(found.explained, variance / variance.sum(), atol=1e-4, rtol=0)
    shuffled = principal(in_space(plane).flip(0)).coordinates.flip(0)
    torch.testing.assert_close(shuffled, found.coordinates, atol=1e-3, rtol=0)  # and not its mirror image


def test_a_grid_moves_one_thing_and_leaves_the_rest():
    base = torch.tensor([7.0, 0, 0, 9])
    grid = position_grid(base, slice(1, 3), low=10, high=30, side=3)
    assert grid[:, [0, 3]].eq(torch.tensor([7.0, 9])).all()
    assert grid[:, 1:3].tolist() == [[x, y] for y in (10, 20, 30) for x in (10, 20, 30)]
    with pytest.raises(ValueError, match="two numbers"):
        position_grid(base, slice(0, 1), low=0, high=1)


def test_the_distance_curve_is_the_diagonal_for_a_plane_and_saturates_for_a_circle():
    generator = torch.Generator().manual_seed(4)
    place = torch.rand(300, 2, generator=generator)
    curve = distance_curve(in_space(place), place, generator, pairs=4000, bins=10)
    torch.testing.assert_close(curve.latent, curve.true, atol=1e-5, rtol=1e-4)
    assert (curve.low <= curve.latent).all() and (curve.latent <= curve.high).all()
    turn = 2 * math.pi * torch.rand(300, 1, generator=generator)
    round_trip = distance_curve(in_space(torch.cat((turn.cos(), turn.sin()), dim=1)), turn, generator, pairs=4000)
    half = (round_trip.true - math.pi).abs().argmin()
    assert round_trip.latent[half] > 1.9 > 1.2 > round_trip.latent[-1]  # a whole turn away is nearly back
