"""Guess and check: learn by drawing whole networks at random and keeping those that fit.

Chiang et al. (2023); Wilson (2025), section 5. No gradient, and yet those that fit also do well on new samples: what
prefers simple functions here is the volume that they take under the prior. Notable:

- The networks kept are draws from the prior P given that they fit: a posterior Q with KL(Q | P) = -log(share). So a
  PAC-Bayes bound on their mean error needs a count of guesses and nothing else (`nats`); that the share is a measured
  one costs a little of delta.
- Wider networks fit more often: their space is larger, and the part of it that fits larger still.
- Gradient descent does better from the same samples, so volume is not all that it goes by. How the distance changes
  with the number of samples is disputed.

Shapes: G networks kept, F widths, S numbers of samples.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilab.pacbayes.phenomena.mlp import MLP, FitConfig, errors, fit
from minilab.pacbayes.phenomena.task import Task


@dataclass(frozen=True)
class GuessConfig:
    """How much is guessed. A share of 1 / guesses is the least that can be seen."""

    widths: tuple[int, ...] = (2, 8, 32)  # of the hidden layer
    samples: tuple[int, ...] = (2, 4, 8, 16)
    guesses: int = 100_000  # at most, for each network and number of samples
    enough: int = 200  # networks that fit
    batch: int = 5_000
    descended: int = 50  # networks that gradient descent trains instead
    training: FitConfig = FitConfig(steps=300, lr=0.02, decay=0.0)
    seed: int = 0


class Guessed(NamedTuple):
    """One row a width, one column a number of samples; NaN where no network fits."""

    guesses: Int[Tensor, "F S"]
    fitting: Int[Tensor, "F S"]
    error: Float[Tensor, "F S"]  # on the test samples, the mean of those that fit
    descended: Float[Tensor, "F S"]  # and of those that gradient descent made fit

    @property
    def nats(self) -> Float[Tensor, "F S"]:
        """KL(Q | P), the complexity in a bound on `error`."""
        return (self.guesses / self.fitting).log()


def guess(net: MLP, task: Task, config: GuessConfig, generator: torch.Generator) -> tuple[Float[Tensor, "G P"], int]:
    """The guesses that have every training label right, and how many were made."""
    kept, guesses = [], 0
    while guesses < config.guesses and sum(map(len, kept)) < config.enough:
        w = net.draw(config.batch, generator)
        kept.append(w[errors(net(w, task.x), task.y[None]) == 0])
        guesses += config.batch
    return torch.cat(kept), guesses


def guess_and_check(task: Task, config: GuessConfig | None = None) -> Guessed:
    """Guess, and descend, for every width and number of samples."""
    config = config or GuessConfig()
    generator = task.generator(config.seed)
    rows = []
    for width in config.widths:
        net = MLP((task.x.shape[1], width, task.classes))
        for n in config.samples:
            seen = task.first(n)
            guessed, guesses = guess(net, seen, config, generator)
            w, _ = fit(net, net.draw(config.descended, generator), seen.x, seen.y[None], config.training)
            descended = w[errors(net(w, seen.x), seen.y[None]) == 0]
            test = [float(errors(net(w, task.test_x), task.test_y[None]).mean()) for w in (guessed, descended)]
            rows.append((guesses, len(guessed), *test))
    guesses, fitting, error, descended = torch.tensor(rows, dtype=torch.double).T.unflatten(1, (len(config.widths), -1))
    return Guessed(guesses.long(), fitting.long(), error, descended)
