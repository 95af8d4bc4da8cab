"""Distributions from logits, and the residual that makes rejection exact."""

import pytest
import torch

from minilab.speculative.sampling import Sampling, acceptance, residual, sample, target_probs

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.0])


def test_temperature_zero_is_the_limit_of_small_temperatures():
    cold = target_probs(LOGITS, Sampling(temperature=1e-3))
    torch.testing.assert_close(target_probs(LOGITS, Sampling()), cold)
    tied = torch.tensor([1.0, 3.0, 3.0])
    assert target_probs(tied, Sampling()).tolist() == [0, 1, 0]


def test_temperature_divides_logits():
    torch.testing.assert_close(target_probs(LOGITS, Sampling(temperature=2.0)), torch.softmax(LOGITS / 2, -1))


def test_top_k_keeps_exactly_k_also_where_logits_tie():
    probs = target_probs(LOGITS, Sampling(temperature=1.0, top_k=2))
    assert (probs > 0).sum() == 2 and probs.sum() == pytest.approx(1)
    assert torch.equal(target_probs(LOGITS, Sampling(temperature=1.0, top_k=99)), torch.softmax(LOGITS, -1))


@pytest.mark.parametrize("p, kept", [(0.05, 1), (0.5, 1), (0.6, 2), (0.75, 3), (1.0, 5)])
def test_top_p_keeps_the_smallest_set_that_reaches_p(p, kept):
    full = torch.softmax(LOGITS, -1)
    probs = target_probs(LOGITS, Sampling(temperature=1.0, top_p=p))
    assert int((probs > 0).sum()) == kept
    chosen = probs > 0
    torch.testing.assert_close(probs[chosen], full[chosen] / full[chosen].sum())
    assert full[chosen].sum() >= p - 1e-6 and full[chosen].sum() - full[chosen].min() < p


def test_hand_example_of_residual_and_acceptance():
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.5, 0.3])
    assert acceptance(p, q).item() == pytest.approx(0.7)
    torch.testing.assert_close(residual(p, q), torch.tensor([1.0, 0.0, 0.0]))


def test_accepting_or_drawing_the_residual_restores_the_target():
    """min(p, q) + (1 - beta) residual = p, for random pairs: the whole proof of exactness."""
    p, q = torch.softmax(3 * torch.randn(2, 50, 7, generator=torch.Generator().manual_seed(0)), -1)
    beta = acceptance(p, q)[:, None]
    torch.testing.assert_close(torch.minimum(p, q) + (1 - beta) * residual(p, q), p)
    total_variation = (p - q).abs().sum(-1, keepdim=True) / 2
    torch.testing.assert_close(beta, 1 - total_variation)


def test_residual_of_equal_distributions_is_a_distribution():
    p = torch.softmax(LOGITS, -1)
    assert torch.equal(residual(p, p), p)
    assert residual(p, p * (1 + 1e-7)).isfinite().all()


def test_samples_follow_their_distribution():
    probs = target_probs(LOGITS, Sampling(temperature=1.0)).expand(40_000, 5)
    counts = sample(probs, torch.Generator().manual_seed(0)).bincount(minlength=5)
    expected = 40_000 * probs[0]
    assert ((counts - expected) ** 2 / expected).sum() < 18.5  # 0.1 % point of chi-square, 4 degrees


@pytest.mark.parametrize("bad", [dict(temperature=-1), dict(temperature=float("nan")), dict(top_k=0), dict(top_p=0)])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="must"):
        Sampling(**bad)
