"""Bounds for tokens against their formulas, a search over the whole grid, and the frequency with which they fail."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from pacbayes.digits import mp, mpf

from minilab.pacbayes.bounds import nats_of, occam_hoeffding, prefix_free_bits, uniform_nats
from minilab.pacbayes.sequences import (
    azuma,
    best_alpha,
    entropy,
    freedman,
    smoothed,
    smoothed_span,
    subsampled,
)

DELTA = 0.05


def log_probs(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(*shape, generator=generator, dtype=torch.float64)).log_softmax(dim=-1)


# Values.


def test_losses_in_the_unit_interval_give_the_bound_of_hoeffding():
    assert azuma(0.3, 1000, 20.0, DELTA, 1.0) == occam_hoeffding(0.3, 1000, 20.0, DELTA)


def test_a_large_language_model_in_two_gigabytes():
    """2.87 bits per token in training, 1.9 GB, some 1.25e12 tokens, of which 10,000 were scored: 4.3 bits, as read off
    the paper's first figure."""
    nats = nats_of(prefix_free_bits(8 * 1_900_000_000))
    span = smoothed_span(0.1, 32_000) / math.log(2)
    assert subsampled(2.87, 1.25e12, 10_000, nats, DELTA, span) == pytest.approx(4.29, abs=0.03)


@pytest.mark.parametrize("alpha, whole", [(0.5, 1.18), (0.1, 1.42)])
def test_documents_of_which_ten_thousand_were_scored(alpha, whole):
    """A file of 16 KiB for 8 million documents, in bits per token: the sheet's split into both terms."""
    n, m, nats = 8_009_762, 10_000, nats_of(prefix_free_bits(8 * 16 * 1024))
    span = smoothed_span(alpha, 50_257) / math.log(2)
    r = mpf(m) / (m + n)
    first = span * mp.sqrt((nats + mp.log(1 / (r * DELTA))) / (2 * n))
    second = span * mp.sqrt(mp.log(1 / ((1 - r) * DELTA)) / (2 * m))
    assert subsampled(0.0, n, m, nats, DELTA, span) == pytest.approx(float(first + second), rel=1e-12)
    assert float(first) == pytest.approx(whole, abs=0.01) and 0.19 <= float(second) <= 0.24


@pytest.mark.parametrize("noise", [0.01, 1.0, 4.0])
@pytest.mark.parametrize("nats", [0.0, 50.0, 5000.0])
def test_the_valley_is_that_of_the_whole_grid_in_fifty_digits(noise, nats):
    g, T, span = np.random.default_rng(0), 60, 12.0
    foreseen = g.uniform(2, 4, T)
    losses = foreseen + g.uniform(-noise, noise, T)
    found = freedman(torch.from_numpy(losses), torch.from_numpy(foreseen), nats, DELTA, span=span, grid=50)
    C = (mpf(nats) + mp.log(50 / mpf(DELTA))) / T
    a = [(mpf(y) - mpf(x)) / span for x, y in zip(losses, foreseen, strict=True)]
    grid = [mpf(10) ** (mpf(-4) + mpf(4) * k / 50) for k in range(50)]
    gap = min(span / s * (C + sum(s * x - mp.log(1 + s * x) for x in a) / T) for s in grid)
    assert found.value == pytest.approx(losses.mean() + float(gap), rel=1e-10)
    assert found.complexity == pytest.approx(span * float(C)) and found.loss == pytest.approx(losses.mean())


# How often they fail.


def test_freedman_holds_and_is_far_below_azuma_where_losses_vary_little():
    """Losses of a gamma law, cut at the span of 10, of which 2000 are seen; foreseen is their true mean."""
    law, span, T = scipy.stats.gamma(2.0), 10.0, 2000
    true = law.expect(ub=span) + span * law.sf(span)
    losses = np.minimum(law.rvs(size=(300, T), random_state=np.random.default_rng(1)), span)
    foreseen = torch.full((T,), true, dtype=torch.float64)
    found = [freedman(torch.from_numpy(x), foreseen, 0.0, DELTA, span=span) for x in losses]
    assert all(bound.value >= true for bound in found)
    assert np.mean([bound.value - bound.loss for bound in found]) < 0.15
    assert azuma(0.0, T, 0.0, DELTA, span) == pytest.approx(0.274, abs=1e-3)


def test_freedman_needs_each_of_its_terms():
    """The best of 10^12 models, whose losses are coins: 0 or 2 where 1 was foreseen. Its errors are drawn at once."""
    g, T, models = np.random.default_rng(4), 10_000, 10**12
    least = -np.expm1(np.log1p(-g.random(2000)) / models)  # the smallest of as many uniform numbers
    counts, times = np.unique(scipy.stats.binom.ppf(least, T, 0.5).astype(int), return_counts=True)
    foreseen, low = torch.ones(T), {"all": 0, "no nats": 0, "no variation": 0}
    for k, often in zip(counts, times, strict=True):
        losses = 2.0 * (torch.arange(T) < k)
        bound = freedman(losses, foreseen, uniform_nats(models), DELTA, span=10.0)
        low["all"] += often * (bound.value < 1)
        low["no nats"] += often * (freedman(losses, foreseen, 0.0, DELTA, span=10.0).value < 1)
        low["no variation"] += often * (bound.loss + bound.complexity < 1)
    assert low["all"] <= 2000 * DELTA
    assert min(low["no nats"], low["no variation"]) > 2000 * 3 * DELTA


def chain(repeats: int, T: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """0-1 losses that hang together: an error makes the next one likelier. And the chance of each, given the past."""
    g = np.random.default_rng(seed)
    losses, chances = np.zeros((repeats, T)), np.zeros((repeats, T))
    for t in range(T):
        chances[:, t] = np.where(losses[:, t - 1] > 0, 0.9, 0.05) if t else 0.05
        losses[:, t] = g.random(repeats) < chances[:, t]
    return losses, chances


def test_the_martingale_bound_holds_where_independence_fails_but_for_these_pasts_only():
    """Errors come in runs. The risk at the pasts that occurred is bounded, that of the chain as a whole is not."""
    losses, chances = chain(4000, 50, seed=2)
    bound = azuma(torch.from_numpy(losses.mean(axis=1)), 50, 0.0, DELTA, 1.0).numpy()
    assert (bound < chances.mean(axis=1)).mean() <= DELTA
    assert (bound < chances.mean()).mean() > 3 * DELTA


def test_a_subsample_needs_its_own_term():
    g, n, m, true = np.random.default_rng(3), 10**6, 100, 0.4
    scored = torch.from_numpy(g.binomial(m, true, size=4000) / m)
    assert (subsampled(scored, n, m, 0.0, DELTA, 1.0) < true).double().mean() <= DELTA
    assert (azuma(scored, n, 0.0, DELTA, 1.0) < true).double().mean() > 3 * DELTA


# Losses with an end.


@pytest.mark.parametrize("alpha", [1e-4, 0.1, 0.5])
def test_smoothing_is_a_law_whose_losses_end_where_they_should(alpha):
    given = log_probs(30, 64)
    given[0] = torch.full((64,), -torch.inf).index_fill(0, torch.tensor(3), 0.0)  # certain: the extremes are reached
    law = smoothed(given, alpha)
    torch.testing.assert_close(law.exp(), (1 - alpha) * given.exp() + alpha / 64)
    assert float(-law.min()) == pytest.approx(math.log(64 / alpha))
    assert float(law[0].max() - law[0].min()) == pytest.approx(smoothed_span(alpha, 64))


def test_the_best_share_to_mix_in_has_the_least_cost():
    V = 50_000
    for C in (1e-4, 0.01, 0.1, 0.5):
        alpha = torch.logspace(-6, -0.01, 20_000, dtype=torch.float64)
        cost = -(-alpha).log1p() + C * (V / alpha).log()
        best = best_alpha(C)
        found = -math.log1p(-best) + C * math.log(V / best)
        assert found == pytest.approx(float(cost.min()), rel=1e-5)
        assert found <= C * math.log(V) + math.sqrt(2 * C)


def test_what_the_model_expects_to_lose_is_the_mean_loss_of_its_own_tokens():
    law = log_probs(2, 5, 11)
    torch.testing.assert_close(entropy(law), torch.distributions.Categorical(logits=law).entropy())
    g = torch.Generator().manual_seed(0)
    tokens = torch.multinomial(law[0, 0].exp(), 100_000, replacement=True, generator=g)
    assert float(-law[0, 0][tokens].mean()) == pytest.approx(float(entropy(law)[0, 0]), abs=0.02)
    certain = torch.tensor([0.0, -torch.inf])
    assert entropy(certain) == 0


# What is refused.


def test_a_loss_beyond_the_span_is_refused():
    losses, foreseen = torch.tensor([1.0, 9.0]), torch.tensor([2.0, 2.0])
    with pytest.raises(ValueError, match="7 above what was foreseen, but the span is 5"):
        freedman(losses, foreseen, 1.0, DELTA, span=5.0)
    with pytest.raises(ValueError, match="smooth"):
        freedman(torch.tensor([math.inf]), torch.tensor([1.0]), 1.0, DELTA, span=5.0)


def test_bad_input_is_refused():
    two = torch.ones(2)
    with pytest.raises(ValueError, match="at least 1 example"):
        freedman(torch.ones(0), torch.ones(0), 1.0, DELTA, span=5.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        freedman(two, two, 1.0, 1.5, span=5.0)
    with pytest.raises(ValueError, match="never negative"):
        azuma(0.3, 1000, -1.0, DELTA, 1.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        smoothed(log_probs(3), 0.0)
    with pytest.warns(UserWarning, match="no mass"):
        assert freedman(two, two, math.inf, DELTA, span=5.0).value == math.inf
