"""The share of guesses that fit, where geometry knows it, and that such networks generalize."""

import torch

from minilab.pacbayes.bounds import maurer
from minilab.pacbayes.phenomena.guess import GuessConfig, guess, guess_and_check
from minilab.pacbayes.phenomena.mlp import MLP
from minilab.pacbayes.phenomena.task import Task


def test_a_quarter_of_all_lines_separate_two_points():
    """Outputs differ by a x + b, a and b alike: for 1 at x = 1 and 0 at x = -1, a > |b|, a quarter of the plane."""
    x, y = torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0])
    config = GuessConfig(guesses=200_000, enough=10**9, batch=50_000)
    kept, guesses = guess(MLP((1, 2)), Task(x, y, x, y), config, torch.Generator().manual_seed(0))
    assert guesses == 200_000 and abs(len(kept) / guesses - 1 / 4) < 0.005
    a, b = kept[:, 1] - kept[:, 0], kept[:, 3] - kept[:, 2]
    assert (a > b.abs()).all()


def test_labels_that_no_network_can_have_are_never_guessed():
    x, y = torch.zeros(2, 1), torch.tensor([0, 1])
    r = guess_and_check(Task(x, y, x, y), GuessConfig(widths=(2,), samples=(2,), guesses=1000, batch=500, descended=2))
    assert r.guesses == 1000 and r.fitting == 0 and r.nats.isposinf().all()
    assert r.error.isnan().all() and r.descended.isnan().all()


def test_networks_that_were_guessed_generalize_within_their_bound(digits):
    r = guess_and_check(digits.pair(0, 1), GuessConfig(widths=(2, 16), samples=(4, 16), descended=20))
    assert (r.fitting >= 100).all()
    assert (r.error < 0.4).all() and (r.error[:, 1] < 0.2).all()  # guessing labels has 0.5
    assert (r.descended < r.error).all()
    assert (r.nats[:, 1] > r.nats[:, 0]).all() and (r.nats[1] < r.nats[0]).all()  # wide networks fit more often
    for row in range(2):
        bound = float(maurer(0.0, 16, float(r.nats[row, 1]), 0.05))
        assert r.error[row, 1] < bound < 0.55
