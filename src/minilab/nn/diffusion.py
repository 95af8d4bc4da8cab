"""Diffusion models of a block of numbers: how noise is added, what a network learns, and how noise is taken away.

Ho, Jain and Abbeel (2020) for the process, Nichol and Dhariwal (2021) for the cosine schedule, Song, Meng and Ermon
(2021) for the sampler. With abar_k the share of the signal's variance that is left at level k = 0..K-1,

    x_k = sqrt(abar_k) x_0 + sqrt(1 - abar_k) e,    e ~ N(0, 1).

Notable:
- The network estimates the clean block x_0, not the noise e. The two say the same, but at the last level abar is so
  small that an error in e is magnified a thousandfold in x_0, and a sampler of few steps starts exactly there.
- `floor` keeps abar away from 0, so that the first step of sampling divides by nothing tiny.

Shapes: N samples, * any further dimensions of a block, K noise levels.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Denoiser = Callable[[Float[Tensor, "N *b"], Int[Tensor, "N"]], Float[Tensor, "N *b"]]  # x_k, k -> estimate of x_0


def cosine_schedule(levels: int, *, floor: float = 1e-4, offset: float = 0.008) -> Float[Tensor, "K"]:
    """abar_k = f(k + 1) / f(0) with f(k) = cos^2((k/K + offset) / (1 + offset) pi/2), at least `floor`.

    Level 0 is the least noisy one. Raises ValueError for less than one level or a floor outside (0, 1).
    """
    if levels < 1 or not 0 < floor < 1:
        raise ValueError(f"a schedule needs at least 1 level and a floor between 0 and 1, not {levels} and {floor}")
    t = torch.arange(levels + 1, dtype=torch.float64) / levels
    f = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return (f[1:] / f[0]).clamp(min=floor).float()


def add_noise(x0: Float[Tensor, "N *b"], k: Int[Tensor, "N"], abar: Float[Tensor, "K"], noise: Float[Tensor, "N *b"]
              ) -> Float[Tensor, "N *b"]:
    """x_k for each sample's own level k."""
    left = abar[k].view(-1, *[1] * (x0.dim() - 1))
    return left.sqrt() * x0 + (1 - left).sqrt() * noise


def denoising_loss(denoiser: Denoiser, x0: Float[Tensor, "N *b"], abar: Float[Tensor, "K"],
                   generator: torch.Generator | None = None) -> Float[Tensor, ""]:
    """Mean squared error of the estimate of x_0 at levels drawn uniformly, one a sample."""
    k = torch.randint(len(abar), (len(x0),), generator=generator, device=x0.device)
    noise = torch.empty_like(x0).normal_(generator=generator)
    return (denoiser(add_noise(x0, k, abar, noise), k) - x0).square().mean()


def sampling_levels(levels: int, steps: int) -> list[int]:
    """`steps` levels from the noisiest, K-1, downwards, evenly spaced ("trailing"): sampling must begin at pure noise.

    Raises ValueError unless 1 <= steps <= levels.
    """
    if not 1 <= steps <= levels:
        raise ValueError(f"{steps} sampling steps with {levels} noise levels: choose between 1 and {levels}")
    return [round((levels * (steps - i)) / steps) - 1 for i in range(steps)]


@torch.no_grad()
def sample(denoiser: Denoiser, shape: tuple[int, ...], abar: Float[Tensor, "K"], *, steps: int, eta: float = 0.0,
           clip: float | None = None, generator: torch.Generator | None = None) -> Float[Tensor, "N *b"]:
    """Draw samples in `steps` calls of the denoiser. Song et al. (2021), equation 12.

    `eta` = 0 is deterministic once the first noise is drawn (DDIM); 1 adds the noise of the ancestral sampler
    (DDPM). `clip` bounds each estimate of x_0 to [-clip, clip].
    """
    device = abar.device
    x = torch.empty(shape, device=device).normal_(generator=generator)
    levels = sampling_levels(len(abar), steps)
    for i, level in enumerate(levels):
        left = abar[level]
        after = abar[levels[i + 1]] if i + 1 < steps else torch.ones((), device=device)
        x0 = denoiser(x, torch.full(shape[:1], level, device=device))
        if clip is not None:
            x0 = x0.clamp(-clip, clip)
        noise = (x - left.sqrt() * x0) / (1 - left).sqrt()  # the e that x0 implies
        sigma = eta * ((1 - after) / (1 - left) * (1 - left / after)).sqrt()
        x = after.sqrt() * x0 + (1 - after - sigma**2).clamp(min=0).sqrt() * noise
        if eta > 0 and i + 1 < steps:
            x = x + sigma * torch.empty_like(x).normal_(generator=generator)
    return x
