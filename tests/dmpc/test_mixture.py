import torch
from scipy.stats import kstest, norm

from minilab.dmpc.mixture import GaussianMixture, denoised


def test_estimate_equals_the_posterior_mean_by_numerical_integration():
    law, grid = GaussianMixture(), torch.linspace(-2, 2, 40_001, dtype=torch.float64)
    modes = zip(law.weights, law.means, strict=True)
    prior = sum(w * torch.exp(-((grid - m) ** 2) / (2 * law.std**2)) for w, m in modes)
    for abar in (0.02, 0.5, 0.95):
        for x in (-0.7, 0.1, 0.9):
            posterior = prior * torch.exp(-((x - abar**0.5 * grid) ** 2) / (2 * (1 - abar)))
            expected = (posterior * grid).sum() / posterior.sum()
            found = law.estimate(torch.tensor([x]), torch.tensor([abar]))
            torch.testing.assert_close(found[0].double(), expected, atol=2e-5, rtol=0)


def test_samples_follow_the_mixture_and_none_lies_where_a_regression_would_answer():
    law = GaussianMixture()
    x = denoised(law, 4000, levels=200, steps=200)[-1].numpy()

    def cdf(value):
        return sum(w * norm.cdf(value, m, law.std) for w, m in zip(law.weights, law.means, strict=True))

    assert kstest(x, cdf).statistic < 0.03
    assert abs((x > 0).mean() - 0.7) < 0.03
    assert (abs(x - law.mean) < 0.2).mean() < 0.01


def test_paths_begin_at_noise_and_have_a_row_for_each_call():
    paths = denoised(GaussianMixture(), 2000, steps=10)
    assert paths.shape == (11, 2000)
    assert abs(float(paths[0].std()) - 1) < 0.05 and abs(float(paths[0].mean())) < 0.1
