"""Radii and volumes against balls and ellipsoids, and the basins of good and bad minima."""

import math

import pytest
import torch

from minilab.pacbayes.phenomena.mlp import FitConfig
from minilab.pacbayes.phenomena.volume import VolumeConfig, log_volume, minima, radii, share_of_ball


def directions(R: int, P: int) -> torch.Tensor:
    u = torch.randn(R, P, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    return u / u.norm(dim=1, keepdim=True)


def test_of_two_basins_the_wider_one_has_its_ratio_to_the_power_of_the_dimension():
    dimensions = (1, 2, 5, 10, 20)
    found = share_of_ball(0.8, dimensions, 200_000, torch.Generator().manual_seed(0))
    assert found.tolist() == pytest.approx([0.8**D for D in dimensions], rel=0.05)
    wide, narrow = (log_volume(torch.full((3,), r), 20) for r in (1.0, 0.8))
    assert wide - narrow == pytest.approx(-20 * math.log(0.8), rel=1e-6)


def test_radii_are_where_a_quadratic_loss_reaches_its_level():
    bends, u = torch.tensor([0.1, 1, 20]).double(), directions(50, 3)
    center = torch.tensor([1.0, 2, 3]).double()
    found = radii(lambda w: ((w - center).square() * bends).sum(dim=1) / 2, center, u, 0.3)
    torch.testing.assert_close(found, (0.6 / (u.square() @ bends)).sqrt(), rtol=1e-6, atol=0)


def test_the_volume_is_that_of_an_ellipsoid():
    """log of 4/3 π a b c."""
    axes, u = torch.tensor([0.5, 1, 2]).double(), directions(200_000, 3)
    found = radii(lambda w: (w / axes).square().sum(dim=1), torch.zeros(3).double(), u, 1.0)
    assert log_volume(found, 3) == pytest.approx(math.log(4 / 3 * math.pi * float(axes.prod())), abs=0.02)


def test_bad_minima_are_small_and_smaller_still_in_a_wider_network(digits):
    difference = []
    for hidden in (16, 40):
        r = minima(digits, VolumeConfig(samples=150, poison=(0, 60), hidden=hidden, directions=30,
                                        training=FitConfig(steps=600)))
        assert (r.train_loss < 0.1).all() and r.test_error[1] > r.test_error[0] + 0.1
        assert r.radius[1] < r.radius[0] / 2
        difference.append(float(r.log_volume[0] - r.log_volume[1]))
    assert difference[1] > 1.3 * difference[0] > 1000


@pytest.mark.parametrize("level, message", [(-1.0, "level above"), (2.0, "no end")])
def test_a_basin_without_a_rim_is_refused(level, message):
    with pytest.raises(ValueError, match=message):
        radii(lambda w: torch.tanh(w.norm(dim=1)), torch.zeros(2).double(), directions(3, 2), level)
