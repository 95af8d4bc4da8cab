"""Noise in, noise out: against closed forms, where the best denoiser is known."""

import math

import pytest
import torch

from minilab.nn.diffusion import add_noise, cosine_schedule, denoising_loss, sample, sampling_levels


def test_the_schedule_falls_from_nearly_one_to_its_floor():
    for levels in (10, 50, 1000):
        abar = cosine_schedule(levels)
        assert len(abar) == levels and (abar.diff() <= 0).all()
        assert abar[0] > 1 - 0.3 * 10 / levels and abar[-1] == pytest.approx(1e-4)
    half = cosine_schedule(1000)[499]
    expected = math.cos(0.508 / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert half == pytest.approx(expected, abs=1e-6)


def test_noised_data_have_the_variance_that_the_schedule_says():
    abar, generator = cosine_schedule(50), torch.Generator().manual_seed(0)
    x0 = 3 * torch.randn(200_000, 1, generator=generator)
    for level in (0, 20, 49):
        k = torch.full((len(x0),), level)
        x = add_noise(x0, k, abar, torch.randn(x0.shape, generator=generator))
        assert x.var() == pytest.approx(float(9 * abar[level] + 1 - abar[level]), rel=0.02)
        assert torch.cov(torch.cat((x, x0), dim=1).T)[0, 1] == pytest.approx(9 * float(abar[level].sqrt()), abs=0.05)


def gaussian_denoiser(mean: float, std: float, abar):
    """E[x_0 | x_k] when the data are normal."""

    def denoise(x, k):
        left = abar[k][:, None]
        gain = left.sqrt() * std**2 / (left * std**2 + 1 - left)
        return mean + gain * (x - left.sqrt() * mean)

    return denoise


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_with_the_best_denoiser_the_samples_have_the_datas_mean_and_spread(eta):
    abar = cosine_schedule(200)
    x = sample(gaussian_denoiser(1.5, 0.5, abar), (100_000, 1), abar, steps=200, eta=eta,
               generator=torch.Generator().manual_seed(1))
    assert x.mean() == pytest.approx(1.5, abs=0.02) and x.std() == pytest.approx(0.5, abs=0.02)


def test_a_mixture_keeps_the_weights_of_its_modes():
    abar, centers, weights = cosine_schedule(100), torch.tensor([-2.0, 1.0]), torch.tensor([0.3, 0.7])

    def denoise(x, k):
        left = abar[k][:, None]
        law = weights.log() - (x - left.sqrt() * centers) ** 2 / (2 * (left * 0.01 + 1 - left))
        own = centers + left.sqrt() * 0.01 / (left * 0.01 + 1 - left) * (x - left.sqrt() * centers)
        return (law.softmax(dim=-1) * own).sum(dim=-1, keepdim=True)

    for eta in (0.0, 1.0):
        x = sample(denoise, (20_000, 1), abar, steps=100, eta=eta, generator=torch.Generator().manual_seed(2))
        assert (x > -0.5).float().mean() == pytest.approx(0.7, abs=0.02)
        assert x[x > -0.5].mean() == pytest.approx(1.0, abs=0.02)


def test_a_denoiser_that_knows_the_answer_returns_it_whatever_the_steps():
    abar, truth = cosine_schedule(50), torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(3))
    for steps in (1, 2, 7, 50):
        for eta in (0.0, 1.0):
            x = sample(lambda x, k: truth, truth.shape, abar, steps=steps, eta=eta)
            torch.testing.assert_close(x, truth)
    assert sample(lambda x, k: 5 * torch.ones_like(x), (2, 3), abar, steps=3, clip=1.0).eq(1.0).all()


def test_levels_begin_at_pure_noise_and_end_above_the_data():
    assert sampling_levels(50, 5) == [49, 39, 29, 19, 9] and sampling_levels(3, 3) == [2, 1, 0]
    for steps in range(1, 51):
        levels = sampling_levels(50, steps)
        assert levels[0] == 49 and len(set(levels)) == steps and levels == sorted(levels, reverse=True)


def test_the_loss_is_the_error_of_the_estimate_and_falls_to_the_posterior_variance():
    abar, generator = cosine_schedule(20), torch.Generator().manual_seed(4)
    x0 = torch.randn(200_000, 1, generator=generator)
    assert denoising_loss(lambda x, k: torch.zeros_like(x), x0, abar, generator) == pytest.approx(1.0, abs=0.02)
    best = denoising_loss(gaussian_denoiser(0.0, 1.0, abar), x0, abar, generator)
    assert best == pytest.approx(float((1 - abar).mean()), abs=0.01)


@pytest.mark.parametrize("call", [lambda: cosine_schedule(0), lambda: cosine_schedule(5, floor=0.0),
                                  lambda: sampling_levels(5, 6), lambda: sampling_levels(5, 0)])
def test_impossible_numbers_say_what_may_be_chosen(call):
    with pytest.raises(ValueError, match="at least 1 level|choose between 1 and 5"):
        call()
