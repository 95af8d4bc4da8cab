"""A network that fits any labels, and the evidence that knows the difference.

Zhang et al. (2017): networks that generalize fit random labels as well. Wilson (2025), figure 1 (e), after Wilson and
Izmailov (2020): the more labels are altered, the lower the marginal likelihood, though the training error stays 0. We
take Laplace's approximation around the mode w of the posterior, with a prior N(0, 1 / precision) on each weight,

    log p(y) ≈ log p(y | w) + log p(w) + P/2 log 2π - 1/2 log det(G + precision I).

Notable:

- precision = N * decay: with it, the penalty of training is -log p(w) / N, and training ends at this posterior's mode.
- G is the Gauss-Newton matrix Jᵀ S J, S the covariance of the labels as the softmax sees them. It has no negative
  eigenvalues, as the Hessian has, and equals it where the network is linear.
- Guessing has -log C, whatever the labels. Networks that memorize end below that: such evidence argues against them.

Shapes: S shares of altered labels, N samples, P weights, C classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilab.pacbayes.phenomena.mlp import MLP, FitConfig, cross_entropy, errors, fit
from minilab.pacbayes.phenomena.task import Task, altered

Logits = Callable[[Float[Tensor, "P"]], Float[Tensor, "N C"]]


@dataclass(frozen=True)
class MemorizeConfig:
    """What is trained on which labels."""

    shares: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    samples: int = 200
    hidden: int = 32
    training: FitConfig = FitConfig(steps=1500)
    seed: int = 0


class Memorized(NamedTuple):
    """One number a share of altered labels."""

    train_error: Float[Tensor, "S"]  # on the labels that were trained on
    test_error: Float[Tensor, "S"]
    evidence: Float[Tensor, "S"]  # Laplace's log marginal likelihood of the training labels, in nats a sample
    history: Float[Tensor, "steps S"]  # the cross entropy at each step: how long fitting takes


def memorize(task: Task, config: MemorizeConfig | None = None) -> Memorized:
    """Train one network a share, all from the same start and on the same inputs."""
    config = config or MemorizeConfig()
    generator = task.generator(config.seed)
    task = task.first(config.samples)
    y = altered(task.y, config.shares, task.classes, generator)
    net = MLP((task.x.shape[1], config.hidden, task.classes))
    start = net.draw(1, generator).expand(len(y), -1)
    w, history = fit(net, start, task.x, y, config.training)
    precision = len(task.x) * config.training.decay
    evidence = [laplace(lambda v: net(v[None], task.x)[0], row, labels, precision)
                for row, labels in zip(w, y, strict=True)]
    return Memorized(errors(net(w, task.x), y), errors(net(w, task.test_x), task.test_y[None]),
                     torch.stack(evidence) / len(task.x), history)


def gauss_newton(logits: Logits, w: Float[Tensor, "P"]) -> Float[Tensor, "P P"]:
    """Jᵀ S J for the cross entropy summed over the samples; S = diag(p) - p pᵀ is the same for all labels."""
    J, p = torch.func.jacrev(logits)(w), logits(w).softmax(dim=1)  # N C P, N C
    centered = J - torch.einsum("nc,ncp->np", p, J)[:, None]  # for labels drawn from p, Jᵀ S J is J's covariance
    factor = (p.sqrt()[:, :, None] * centered).flatten(0, 1)  # NC P
    return factor.T @ factor


def laplace(logits: Logits, w: Float[Tensor, "P"], y: Int[Tensor, "N"], precision: float) -> Float[Tensor, ""]:
    """log p(y) around `w`, in nats. Raises ValueError without a positive precision: there is no prior then."""
    if precision <= 0:
        raise ValueError(f"the prior's precision is {precision}: train with a positive decay")
    G = gauss_newton(logits, w).double()
    fitted = -len(y) * cross_entropy(logits(w)[None], y[None])[0]
    P = len(w)
    prior = P / 2 * math.log(precision / (2 * math.pi)) - precision / 2 * w.square().sum()
    G.diagonal().add_(precision)
    return fitted + prior + P / 2 * math.log(2 * math.pi) - torch.logdet(G) / 2
