"""The peak of double descent where the theory of random matrices has it."""

import pytest
import torch

from minilab.pacbayes.phenomena.features import FeaturesConfig, descent, minimum_norm


def test_of_all_that_fit_best_the_shortest_is_found():
    X = torch.randn(6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    X[5] = X[4]  # rank 5
    y = torch.arange(6.0, dtype=torch.double)
    w, s = minimum_norm(X, y)
    torch.testing.assert_close(w, torch.linalg.pinv(X) @ y)
    assert len(s) == 5


@pytest.mark.parametrize("d, norm_squared", [(10, 10 / 39), (25, 25 / 24), (75, 50 / 24), (200, 50 / 149)])
def test_on_features_that_say_nothing_the_norm_is_that_of_wishart_matrices(d, norm_squared):
    """E |w|² = d / (n - d - 1) below n and n / (d - n - 1) above, and a test error of 1 + |w|² in the mean."""
    r = descent(FeaturesConfig(n=50, features=(d,), informative=0, repeats=400))
    assert float(r.norm.square().mean()) == pytest.approx(norm_squared, rel=0.1)
    assert float(r.test_error.square().mean()) == pytest.approx(1 + norm_squared, rel=0.1)


def test_the_test_error_and_the_posteriors_dimension_peak_where_features_are_as_many_as_samples():
    config = FeaturesConfig()
    r = descent(config)
    at = torch.tensor(config.features)
    for curve in (r.test_error, r.norm, r.posterior_dimension):
        assert abs(int(at[curve.median(dim=1).values.argmax()]) - config.n) <= 5
    assert (r.train_error[at >= config.n] < 1e-8).all()
    test = r.test_error.median(dim=1).values
    assert test[-1] < test[at < config.n].min()  # the second descent goes below the first
    assert (r.data_dimension.median(dim=1).values.diff() > 0).all()  # the plain formula knows of no peak


def test_medians_are_those_of_the_pilot():
    r = descent(FeaturesConfig(features=(20, 100, 150, 250, 400, 800), repeats=9))
    median = [column.median(dim=1).values.tolist() for column in r]
    assert median[0][:3] == pytest.approx([0.213, 0.072, 0.044], rel=0.15)
    assert median[1] == pytest.approx([0.228, 0.132, 0.158, 0.137, 0.070, 0.041], rel=0.15)
    assert median[4] == pytest.approx([0.02, 0.20, 0.61, 0.78, 0.20, 0.07], rel=0.15)
