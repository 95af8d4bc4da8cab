"""A Gaussian process fits altered labels exactly, still finds the digits, and its evidence says how odd the labels are.

Wilson (2025), figure 1 (d), after Wilson and Izmailov (2020), who take a binary task from CIFAR-10 and a variational
process. Ours is exact: regression on the one-hot labels, less their mean 1 / C, each class a process of its own with

    y ~ N(0, a K),    K = k(x, x') + noise I,    k(x, x') = exp(-|x - x'|² / 2 length²),

and the log marginal likelihood, or evidence, of one class is -1/2 [ yᵀ (a K)⁻¹ y + log det(a K) + n log 2π ]. Notable:

- The amplitude a is not searched: a = yᵀ K⁻¹ y / n is best, in closed form, here over all classes together. So the
  noise is in units of it.
- With length and noise fixed, every label is fitted, whatever it is. If the evidence may choose among several, it takes
  the labels for noisy and stops fitting them: training errors come, most test errors go.
- One eigendecomposition of k(x, x') serves every noise and all labels.

Shapes: N samples, M test samples, D inputs, C classes, S shares of altered labels.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilab.pacbayes.phenomena.task import Task, altered


@dataclass(frozen=True)
class ProcessConfig:
    """Which labels, and the lengths and noises among which the evidence chooses."""

    shares: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    samples: int = 1000
    lengths: tuple[float, ...] = (1.5,)  # in units of an input's range
    noises: tuple[float, ...] = (1e-4,)  # variance, as a share of the amplitude
    seed: int = 0


class Fitted(NamedTuple):
    """One number a share of altered labels."""

    train_error: Float[Tensor, "S"]  # on the labels that were fitted
    test_error: Float[Tensor, "S"]
    evidence: Float[Tensor, "S"]  # log marginal likelihood, in nats a sample and class
    length: Float[Tensor, "S"]  # chosen
    noise: Float[Tensor, "S"]


def rbf(x: Float[Tensor, "N D"], other: Float[Tensor, "M D"], length: float) -> Float[Tensor, "N M"]:
    return torch.exp(-torch.cdist(x, other).square() / (2 * length**2))


class Evidence(NamedTuple):
    """The best amplitude, what it makes of the labels, and what predicts: k(x_new, x) @ weights."""

    log: Float[Tensor, ""]  # nats, all classes and samples
    amplitude: Float[Tensor, ""]
    weights: Float[Tensor, "N C"]


def evidence(values: Float[Tensor, "N"], vectors: Float[Tensor, "N N"], y: Float[Tensor, "N C"], noise: float
             ) -> Evidence:
    """For eigenvalues and eigenvectors of k(x, x). Raises ValueError unless the noise is positive."""
    if noise <= 0:
        raise ValueError(f"noise is {noise}: give a positive variance, however small, or K cannot be inverted")
    K = values.clamp(min=0) + noise  # rounding leaves the least ones negative
    rotated = vectors.T @ y
    amplitude = (rotated.square() / K[:, None]).sum() / y.numel()
    log_det = y.shape[1] * K.log().sum() + y.numel() * amplitude.log()
    log = -(y.numel() + log_det + y.numel() * math.log(2 * math.pi)) / 2
    return Evidence(log, amplitude, vectors @ (rotated / K[:, None]))


def noisy_labels(task: Task, config: ProcessConfig | None = None) -> Fitted:
    """Fit the process to each share of altered labels."""
    config = config or ProcessConfig()
    generator = task.generator(config.seed)
    task = task.first(config.samples)
    x, test_x = task.x.double(), task.test_x.double()
    labels = altered(task.y, config.shares, task.classes, generator)
    targets = torch.nn.functional.one_hot(labels, task.classes) - 1 / task.classes  # S N C
    best: list[tuple | None] = [None] * len(labels)
    for length in config.lengths:
        values, vectors = torch.linalg.eigh(rbf(x, x, length))
        for noise in config.noises:
            for i, y in enumerate(targets.double()):
                found = evidence(values, vectors, y, noise)
                if best[i] is None or found.log > best[i][0].log:
                    best[i] = found, length, noise
    rows = []
    for y, (found, length, noise) in zip(labels, best, strict=True):
        train, test = (rbf(inputs, x, length) @ found.weights for inputs in (x, test_x))
        rows.append((_error(train, y), _error(test, task.test_y), float(found.log) / targets[0].numel(), length, noise))
    return Fitted(*torch.tensor(rows, dtype=torch.double).T)


def _error(scores: Float[Tensor, "N C"], y: Int[Tensor, "N"]) -> float:
    return float((scores.argmax(dim=1) != y).double().mean())
