"""The evidence against scipy's normal law, and the table of altered labels."""

import pytest
import torch
from scipy.stats import multivariate_normal

from minilab.pacbayes.phenomena.process import ProcessConfig, evidence, noisy_labels, rbf


def test_the_evidence_is_the_density_of_a_normal_law_at_its_best_amplitude():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(15, 3, generator=generator, dtype=torch.double)
    y = torch.randn(15, 2, generator=generator, dtype=torch.double)
    K = rbf(x, x, 1.3)
    found = evidence(*torch.linalg.eigh(K), y, 0.05)
    K = K + 0.05 * torch.eye(15, dtype=torch.double)

    def log_density(amplitude: float) -> float:
        return sum(multivariate_normal(cov=(amplitude * K).numpy()).logpdf(column.numpy()) for column in y.T)

    best = float(found.amplitude)
    assert float(found.log) == pytest.approx(log_density(best), abs=1e-8)
    assert log_density(best) > max(log_density(0.99 * best), log_density(1.01 * best))
    torch.testing.assert_close(found.weights, torch.linalg.solve(K, y))


def test_the_kernel_is_one_at_home_and_falls_by_half_a_unit_of_log_at_its_length():
    x = torch.tensor([[0.0, 0.0], [1.2, 1.6]], dtype=torch.double)
    torch.testing.assert_close(rbf(x, x, 2.0).log(), torch.tensor([[0, -0.5], [-0.5, 0]], dtype=torch.double))


def test_every_label_is_fitted_while_the_evidence_falls(digits):
    """The sheet's pilot; test accuracies within .08 of it (another draw), the evidence within .12."""
    r = noisy_labels(digits)
    assert (r.train_error == 0).all()
    assert (r.evidence.diff() < 0).all() and (r.test_error.diff() > 0).all()
    assert (1 - r.test_error).tolist() == pytest.approx([0.990, 0.942, 0.846, 0.716, 0.460, 0.330, 0.115], abs=0.08)
    assert r.evidence.tolist() == pytest.approx([1.003, 0.280, -0.127, -0.317, -0.470, -0.514, -0.546], abs=0.12)


def test_an_evidence_that_may_choose_takes_the_labels_for_noisy(digits):
    shares = (0.0, 0.2, 0.4)
    fixed = noisy_labels(digits, ProcessConfig(shares=shares, samples=500))
    chosen = noisy_labels(digits, ProcessConfig(shares=shares, samples=500, lengths=(0.5, 1.5, 3),
                                                noises=(1e-4, 0.1, 1)))
    assert (chosen.evidence >= fixed.evidence).all()
    assert chosen.noise[0] == 1e-4 and (chosen.noise[1:] >= 0.1).all()
    assert (chosen.train_error[1:] > 0.1).all() and (chosen.test_error[1:] < fixed.test_error[1:] / 2).all()


def test_no_noise_at_all_is_refused():
    with pytest.raises(ValueError, match="noise is 0"):
        evidence(torch.ones(2), torch.eye(2), torch.ones(2, 1), 0)
