"""MNIST-1D: short signals in ten classes, from a recipe that never runs out. So a true risk can be measured.

Greydanus and Kobak (2024). A class is a curve of 12 points. An example is its curve, padded with zeros, stretched,
scaled, moved round, with smooth noise where it is zero and a little white noise everywhere, tilted, and sampled at 40
points. The curves are those of the package `mnist1d`; what is done to them is here, for many at once. Notable:

- Here each example is an independent draw of label and signal. The published set has equally many of each class.
- The published set is centered and scaled by its own mean and spread: numbers of the data. Ours are constants, of the
  law and not of a sample.

Shapes: N examples, P points of a template, L points in between (72), S points of a signal (40).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from minilab.pacbayes.data import DIGITS, Dataset

POINTS, LENGTH, PADDING, SHIFTS = 72, 40, (36, 60), 48
SCALE, SMOOTH_NOISE, WHITE_NOISE, SHEAR = 0.4, 0.25, 0.02, 0.75
MEAN, STD = -0.006, 0.155  # of the law, from a million draws


def mnist1d(n: int, generator: torch.Generator, *, test: int = 10_000) -> Dataset:
    """n fresh examples to train on, and `test` others to measure the true risk with."""
    (train_x, train_y), (test_x, test_y) = draw(n, generator), draw(test, generator)
    return Dataset("MNIST-1D", train_x, train_y, test_x, test_y, DIGITS)


def draw(n: int, generator: torch.Generator) -> tuple[Float[Tensor, "N S"], Int64[Tensor, "N"]]:
    """n independent signals and their labels."""
    y = torch.randint(10, (n,), generator=generator)
    return (signals(templates()[y], Chance.drawn(n, generator)) - MEAN) / STD, y


def templates() -> Float[Tensor, "10 P"]:
    """The curve of each class, as the package `mnist1d` has it."""
    try:
        from mnist1d.data import get_templates
    except ImportError as error:
        raise ImportError("the ten curves are those of mnist1d: pip install mnist1d") from error
    return torch.from_numpy(get_templates()["x"]).float()


@dataclass(frozen=True)
class Chance:
    """All that is random about n examples."""

    padding: Int64[Tensor, "N"]  # zeros behind the curve
    gain: Float[Tensor, "N"]  # this and the tilt are uniform on [-1/2, 1/2]
    shift: Int64[Tensor, "N"]
    smooth: Float[Tensor, "N L"]  # standard normal, as is the white noise
    white: Float[Tensor, "N L"]
    tilt: Float[Tensor, "N"]

    @staticmethod
    def drawn(n: int, generator: torch.Generator) -> "Chance":
        low, high = PADDING
        return Chance(
            padding=torch.randint(low, high + 1, (n,), generator=generator),
            gain=torch.rand(n, generator=generator) - 0.5,
            shift=torch.randint(SHIFTS, (n,), generator=generator),
            smooth=torch.randn(n, POINTS, generator=generator),
            white=torch.randn(n, POINTS, generator=generator),
            tilt=torch.rand(n, generator=generator) - 0.5,
        )


def signals(curve: Float[Tensor, "N P"], chance: Chance) -> Float[Tensor, "N S"]:
    """What becomes of curves by chance."""
    N, P = curve.shape
    line = torch.linspace(0, 1, POINTS)
    padded = F.pad(curve + 1e-8, (0, PADDING[1] + 1))  # a curve's own zeros are no place for noise
    x = sampled(padded, line * (P + chance.padding[:, None] - 1))
    x = x * (1 + SCALE * chance.gain[:, None])
    x = x.gather(1, (torch.arange(POINTS) - chance.shift[:, None]) % POINTS)
    x = torch.where(x != 0, x, SMOOTH_NOISE * smoothed(chance.smooth)) + WHITE_NOISE * chance.white
    x = x - SHEAR * chance.tilt[:, None] * (line - 0.5)
    return sampled(x, torch.linspace(0, POINTS - 1, LENGTH).expand(N, -1))


def sampled(x: Float[Tensor, "N A"], place: Float[Tensor, "N B"]) -> Float[Tensor, "N B"]:
    """x between its points, linearly."""
    left = place.long().clamp(max=x.shape[1] - 2)
    part = place - left
    return x.gather(1, left) * (1 - part) + x.gather(1, left + 1) * part


def smoothed(noise: Float[Tensor, "N L"], sigma: float = 2.0) -> Float[Tensor, "N L"]:
    """A Gaussian filter, cut at 4 sigma, whose signal is mirrored at both ends, the end points included."""
    radius = round(4 * sigma)
    kernel = torch.from_numpy(np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)).to(noise.dtype)
    mirrored = torch.cat((noise[:, :radius].flip(1), noise, noise[:, -radius:].flip(1)), dim=1)
    return F.conv1d(mirrored[:, None], (kernel / kernel.sum())[None, None])[:, 0]
