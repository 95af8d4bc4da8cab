"""SIGReg alone: free points that follow its gradient, and clouds that only some directions give away.

Balestriero and LeCun (2025), figure 6: points that form an X in two of many dimensions, which a descent on SIGReg turns
into a Gaussian cloud. There is no network and no data, only the regularizer.

- The X is chosen to fool moments: mean 0 and covariance I. Along its bisectors it is no worse than a Gaussian.
- With fresh directions in each step a few are enough. With the same few in all steps only they are made Gaussian.

Shapes: N points, D width, M directions.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.lewm.sigreg import epps_pulley, random_directions


def cross(N: int, D: int, generator: torch.Generator) -> Float[Tensor, "N D"]:
    """An X in the first two dimensions, of unit variance along every line through its middle; zeros in the others.

    Raises ValueError for fewer than two dimensions.
    """
    if D < 2:
        raise ValueError(f"an X needs two dimensions, not {D}")
    along = torch.randn(N, generator=generator) * math.sqrt(2)
    arm = torch.randint(0, 2, (N,), generator=generator)
    points = torch.zeros(N, D)
    points[torch.arange(N), arm] = along
    x, y = points[:, :2].clone().unbind(dim=1)
    points[:, :2] = torch.stack((x - y, x + y), dim=1) / math.sqrt(2)  # the arms lie along the diagonals
    return points


class Flow(NamedTuple):
    """What a descent came to."""

    points: Float[Tensor, "N D"]
    values: Float[Tensor, "steps"]  # of the mean statistic over fresh directions, before each step


def flow(points: Float[Tensor, "N D"], generator: torch.Generator, *, steps: int = 300, directions: int = 16,
         lr: float = 0.1, fresh: bool = True, judges: int = 256) -> Flow:
    """Points that follow SIGReg's gradient, with fresh directions in each step or with the first ones in all.

    `values` are measured along `judges` other directions, which the descent does not see: what is reported is not what
    was fitted.
    """
    points, values = points.clone(), []
    v = random_directions(points.shape[1], directions, generator, like=points)
    seen_by = random_directions(points.shape[1], judges, generator, like=points)
    for _ in range(steps):
        values.append(epps_pulley(points @ seen_by).mean())
        if fresh:
            v = random_directions(points.shape[1], directions, generator, like=points)
        moving = points.requires_grad_()
        (slope,) = torch.autograd.grad(epps_pulley(moving @ v).mean(), moving)
        points = (moving - lr * points.shape[1] * slope).detach()  # a mean over directions pulls each D times less
    return Flow(points, torch.stack(values))
