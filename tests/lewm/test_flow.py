"""Free points under SIGReg: what fools two moments, and why directions must be fresh."""

import math

import pytest
import torch

from minilab.lewm.flow import cross, flow
from minilab.lewm.sigreg import epps_pulley, expected, random_directions


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_cross_has_the_moments_of_a_gaussian_and_only_its_arms_give_it_away():
    points = cross(100_000, 5, generator())
    torch.testing.assert_close(points.mean(dim=0), torch.zeros(5), atol=0.02, rtol=0)
    covariance = points.T @ points / len(points)
    torch.testing.assert_close(covariance, torch.diag(torch.tensor([1.0, 1, 0, 0, 0])), atol=0.03, rtol=0)
    angles = torch.tensor([0.0, 90, 45, 135]) * math.pi / 180
    bisectors, arms = epps_pulley(points[:2000, :2] @ torch.stack((angles.cos(), angles.sin()))).split(2)
    assert (bisectors < 4).all() and (arms > 20 * bisectors.max()).all()


def test_fresh_directions_make_a_gaussian_cloud_where_a_few_fixed_ones_do_not():
    points = cross(100, 64, generator())
    fresh, fixed = (flow(points, generator(1), directions=16, fresh=fresh) for fresh in (True, False))
    directions = random_directions(64, 512, generator(2))
    after = {name: float(epps_pulley(f.points @ directions).mean()) for name, f in (("fresh", fresh), ("fixed", fixed))}
    assert after["fresh"] < 2 * expected(100, 0.0, 1.0) < 5 < after["fixed"]
    # Of a Gaussian cloud in many dimensions all lengths are near the root of their number.
    round_, still = (float(f.points.norm(dim=1).mean()) / 8 for f in (fresh, fixed))
    assert abs(round_ - 1) < 0.1 < abs(still - 1)
    assert fresh.values[0] > 20 and (fresh.values[-1] - after["fresh"]).abs() < 0.5


def test_the_flow_leaves_its_start_alone_and_needs_a_plane():
    points = cross(20, 4, generator())
    before = points.clone()
    moved = flow(points, generator(), steps=2)
    assert torch.equal(points, before) and not torch.equal(moved.points, before) and not moved.points.requires_grad
    with pytest.raises(ValueError, match="two dimensions"):
        cross(20, 1, generator())
