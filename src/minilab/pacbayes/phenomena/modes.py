"""Two networks that were trained apart, and the curve between them along which the loss stays low.

Garipov et al. (2018); Wilson (2025), section 8. On the straight line between two minima w_0 and w_1 the loss is high.
On the Bezier curve with one bend θ,

    φ(t) = (1 - t)² w_0 + 2 t (1 - t) θ + t² w_1,

training θ alone finds a way around. Notable:

- θ starts in the middle, where the curve is the line. Each step draws new places t and lowers their mean loss.
- The penalty of training falls on φ(t), as it did on the ends: without it the way around leads through larger weights.
- Hidden neurons can be permuted at will, so most lines join networks that do the same in another order. The curve knows
  nothing of that.

Shapes: P weights, T places on a curve.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.pacbayes.phenomena.mlp import MLP, FitConfig, cross_entropy, errors, fit
from minilab.pacbayes.phenomena.task import Task


def bezier(ends: Float[Tensor, "2 P"], bend: Float[Tensor, "P"], t: Float[Tensor, "T"]) -> Float[Tensor, "T P"]:
    """φ at each of the places `t` of [0, 1]."""
    t = t[:, None]
    return (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * bend + t**2 * ends[1]


@dataclass(frozen=True)
class ModesConfig:
    """How the ends and the bend between them are trained."""

    samples: int = 500
    hidden: int = 32
    ends: FitConfig = FitConfig(steps=1000)
    bend: FitConfig = FitConfig(steps=1000)
    places: int = 8  # on the curve, drawn for each step
    grid: int = 61  # places to look at afterwards
    seed: int = 0


class Path(NamedTuple):
    """What a path passes, at evenly spaced t from 0 to 1."""

    train_loss: Float[Tensor, "T"]
    train_error: Float[Tensor, "T"]
    test_loss: Float[Tensor, "T"]
    test_error: Float[Tensor, "T"]


class Modes(NamedTuple):
    line: Path
    curve: Path


def train_bend(loss: Callable[[Float[Tensor, "T P"]], Float[Tensor, "T"]], ends: Float[Tensor, "2 P"],
               config: FitConfig, places: int, generator: torch.Generator) -> Float[Tensor, "P"]:
    """The bend with the lowest mean loss along the curve, as far as training finds it."""
    bend = ends.mean(dim=0).requires_grad_()
    optimizer = torch.optim.Adam([bend], lr=config.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    for _ in range(config.steps):
        optimizer.zero_grad()
        w = bezier(ends, bend, torch.rand(places, generator=generator, device=ends.device))
        (loss(w) + config.decay / 2 * w.square().sum(dim=1)).mean().backward()
        optimizer.step()
        schedule.step()
    return bend.detach()


def modes(task: Task, config: ModesConfig | None = None) -> Modes:
    """Train two networks, then the bend between them, and walk along the line and the curve."""
    config = config or ModesConfig()
    generator = task.generator(config.seed)
    task = task.first(config.samples)
    net = MLP((task.x.shape[1], config.hidden, task.classes))
    ends, _ = fit(net, net.draw(2, generator), task.x, task.y[None], config.ends)
    bend = train_bend(lambda w: cross_entropy(net(w, task.x), task.y[None]), ends, config.bend, config.places,
                      generator)
    t = torch.linspace(0, 1, config.grid, device=ends.device)

    def walk(bend: Tensor) -> Path:
        w = bezier(ends, bend, t)
        train, test = net(w, task.x), net(w, task.test_x)
        return Path(cross_entropy(train, task.y[None]), errors(train, task.y[None]),
                    cross_entropy(test, task.test_y[None]), errors(test, task.test_y[None]))

    return Modes(line=walk(ends.mean(dim=0)), curve=walk(bend))
