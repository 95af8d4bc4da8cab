"""The signals against the package that made the published set, one at a time."""

import numpy as np
import pytest
import torch
from mnist1d.data import get_dataset_args, get_templates
from mnist1d.transform import transform

from minilab.pacbayes.mnist1d import LENGTH, MEAN, STD, Chance, draw, mnist1d, signals


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chance_of_the_package(n: int) -> Chance:
    """What the package draws from numpy's global state, in its order."""
    rows = []
    for _ in range(n):
        padding = 36 + int(np.random.rand() * 25)
        gain, shift = np.random.rand() - 0.5, np.random.choice(48)
        smooth, white = np.random.randn(72), np.random.randn(72)
        rows.append((padding, gain, shift, smooth, white, np.random.rand() - 0.5))
    return Chance(*(torch.from_numpy(np.array(column)) for column in zip(*rows, strict=True)))


def test_signals_are_those_of_the_package():
    args, curves, labels = get_dataset_args(), get_templates(), np.arange(40) % 10
    np.random.seed(3)
    theirs = np.stack([transform(curves["x"][y], curves["t"], args)[0] for y in labels])
    np.random.seed(3)
    ours = signals(torch.from_numpy(curves["x"][labels]), chance_of_the_package(len(labels)))
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)  # ours are made in float32


def test_the_constants_are_the_law_s_own_mean_and_spread():
    x, _ = draw(40_000, generator())
    assert x.mean() == pytest.approx(0, abs=0.01)
    assert x.std() == pytest.approx(1, abs=0.01)
    assert (x.shape[1], MEAN != 0, STD != 1) == (LENGTH, True, True)


def test_labels_are_drawn_and_not_dealt_out():
    """Independent labels vary in number as a multinomial does; equal numbers would have a statistic of 0."""
    _, y = draw(5000, generator(1))
    statistic = ((y.bincount(minlength=10) - 500).square() / 500).sum()  # chi squared with 9 degrees of freedom
    assert 1.7 < statistic < 23.6


def test_draws_are_fresh_and_belong_to_their_generator():
    g = generator(5)
    first, second = mnist1d(50, g, test=20), mnist1d(50, g, test=20)
    again = mnist1d(50, generator(5), test=20)
    assert not torch.equal(first.train_x, second.train_x)
    assert torch.equal(first.test_x, again.test_x) and torch.equal(first.train_y, again.train_y)
