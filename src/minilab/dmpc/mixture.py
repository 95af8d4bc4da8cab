"""Denoising where everything is known: a mixture of two narrow normal laws on a line.

It stands for a choice, such as passing a tree on the left or on the right. The best estimate of x_0 from x_k has a
closed form here, so that sampling can be watched without a network in the way.

Shapes: n samples, L levels visited, M modes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilab.nn.diffusion import cosine_schedule, sample


@dataclass(frozen=True)
class GaussianMixture:
    """sum_m weight_m N(mean_m, std^2)."""

    means: tuple[float, ...] = (-1.0, 1.0)
    weights: tuple[float, ...] = (0.3, 0.7)
    std: float = 0.1

    def estimate(self, x: Float[Tensor, "n"], abar: Float[Tensor, "*n"]) -> Float[Tensor, "n"]:
        """E[x_0 | x_k]: each mode's own estimate, weighted by how likely x_k came from it."""
        mean, weight = torch.tensor(self.means), torch.tensor(self.weights)
        signal, noise = abar.sqrt()[..., None], (1 - abar)[..., None]
        variance = signal**2 * self.std**2 + noise  # of x_k within a mode
        off = x[:, None] - signal * mean  # n M
        share = (weight.log() - off**2 / (2 * variance)).softmax(dim=1)
        return (share * (mean + signal * self.std**2 / variance * off)).sum(dim=1)

    @property
    def mean(self) -> float:
        """What a regression would answer: a place between the modes, where there is nothing."""
        return sum(w * m for w, m in zip(self.weights, self.means, strict=True))


def denoised(law: GaussianMixture, n: int, *, levels: int = 50, steps: int = 25, eta: float = 1.0, seed: int = 0
             ) -> Float[Tensor, "L n"]:
    """n samples on their way from noise to data, a row for each call of the denoiser and the last one for x_0."""
    abar, seen = cosine_schedule(levels), []

    def denoiser(x: Float[Tensor, "n"], k: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        seen.append(x)
        return law.estimate(x, abar[k])

    last = sample(denoiser, (n,), abar, steps=steps, eta=eta, generator=torch.Generator().manual_seed(seed))
    return torch.stack((*seen, last))
