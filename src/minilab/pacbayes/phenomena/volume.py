"""How large a minimum is: flat ones fill the space, and the more so the more parameters there are.

Wilson (2025), section 5; the measurement is that of Huang et al. (2020). Along a random direction u the loss stays
below a level up to a radius r(u), and of the region that can be seen from the minimum w in P dimensions

    volume = ω_P * mean over u of r(u)^P,    ω_P that of the unit ball.

A basin twice as wide holds 2^P times the volume: who meets a minimum by chance meets a flat one. To see whether flat
ones are also good, we make bad ones: the same network fits the same training samples, and besides them samples with
wrong labels, its poison. Notable:

- Volumes of networks are told as logarithms. The largest of a few hundred r(u) decides their mean, so that a large
  P is underestimated; differences between minima are far larger than that.
- A network of large weights is naturally wide in absolute terms, and says the same when its layers are rescaled. We
  measure radii in units of |w|.

Shapes: R directions, P weights, M minima.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.pacbayes.phenomena.mlp import MLP, FitConfig, cross_entropy, errors, fit
from minilab.pacbayes.phenomena.task import Task


def share_of_ball(ratio: float, dimensions: Sequence[int], draws: int, generator: torch.Generator
                  ) -> Float[Tensor, "D"]:
    """What share of a ball's points, drawn at random, lies in the one of `ratio` its radius: about ratio^D."""
    found = []
    for D in dimensions:
        u = torch.randn(draws, D, generator=generator, dtype=torch.double)
        radius = torch.rand(draws, generator=generator, dtype=torch.double) ** (1 / D)
        points = u * (radius / u.norm(dim=1))[:, None]
        found.append((points.norm(dim=1) < ratio).double().mean())
    return torch.stack(found)


def radii(loss: Callable[[Float[Tensor, "R P"]], Float[Tensor, "R"]], w: Float[Tensor, "P"],
          directions: Float[Tensor, "R P"], level: float, *, start: float = 1e-3, halvings: int = 25
          ) -> Float[Tensor, "R"]:
    """How far one can go along each direction before the loss first reaches `level`: doubling, then halving.

    In units of a direction's length. Raises ValueError if the loss at `w` is not below the level, or does not reach it.
    """
    if not float(loss(w[None])) < level:
        raise ValueError(f"the loss at w is {float(loss(w[None])):.3g}: give a level above it, not {level}")
    low, high = w.new_zeros(len(directions)), w.new_full((len(directions),), start)
    for _ in range(60):
        below = loss(w + high[:, None] * directions) < level
        if not below.any():
            break
        low, high = torch.where(below, high, low), torch.where(below, 2 * high, high)
    else:
        raise ValueError(f"the loss stays below {level} along some direction: the basin has no end, lower the level")
    for _ in range(halvings):
        middle = (low + high) / 2
        below = loss(w + middle[:, None] * directions) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return low


def log_volume(radii: Float[Tensor, "R"], P: int) -> float:
    """The logarithm of ω_P * mean r^P for `radii` along uniform directions, with ω_P = π^(P/2) / Γ(P/2 + 1)."""
    ball = P / 2 * math.log(math.pi) - math.lgamma(P / 2 + 1)
    return ball + float(torch.logsumexp(P * radii.double().log(), dim=0)) - math.log(len(radii))


@dataclass(frozen=True)
class VolumeConfig:
    """Which minima are measured."""

    samples: int = 200
    poison: tuple[int, ...] = (0, 50, 100, 200)  # further samples with wrong labels
    hidden: int = 32
    directions: int = 100
    level: float = 0.1  # of the loss on the true samples, in nats: where a basin ends
    training: FitConfig = FitConfig(steps=1500)
    seed: int = 0


class Minima(NamedTuple):
    """One number an amount of poison."""

    train_loss: Float[Tensor, "M"]  # on the true samples, in nats
    test_error: Float[Tensor, "M"]
    radius: Float[Tensor, "M"]  # the mean, in units of |w|
    log_volume: Float[Tensor, "M"]  # in these units


def minima(task: Task, config: VolumeConfig | None = None) -> Minima:
    """Train from one start with each amount of poison, and measure the basin of the loss without it."""
    config = config or VolumeConfig()
    generator = task.generator(config.seed)
    n, known = config.samples, task.first(config.samples + max(config.poison))
    wrong = torch.randint(1, task.classes, known.y.shape, generator=generator, device=known.y.device)
    y = torch.where(torch.arange(len(known.y), device=known.y.device) < n, known.y, (known.y + wrong) % task.classes)
    net = MLP((task.x.shape[1], config.hidden, task.classes))
    start = net.draw(1, generator)
    directions = torch.randn(config.directions, net.P, generator=generator, device=start.device)
    directions = directions / directions.norm(dim=1, keepdim=True)
    rows = []
    for poison in config.poison:
        w, _ = fit(net, start, known.x[: n + poison], y[None, : n + poison], config.training)

        def loss(w: Tensor) -> Tensor:
            return cross_entropy(net(w, known.x[:n]), known.y[None, :n])

        found = radii(loss, w[0], directions * w.norm(), config.level)
        rows.append((float(loss(w)), float(errors(net(w, task.test_x), task.test_y[None])), float(found.mean()),
                     log_volume(found, net.P)))
    return Minima(*torch.tensor(rows, dtype=torch.double).T)
