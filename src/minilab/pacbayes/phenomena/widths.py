"""Double descent of a small network in its width, and the effective dimension that falls where the test loss does.

Wilson (2025), figure 1 (f), after Maddox, Benton and Wilson (2020), who train ResNet-18 of growing width on CIFAR-100.
Ours has one hidden layer and sees few samples, some of them with altered labels. Notable:

- The peak needs all three: altered labels, a penalty that is nearly none, and training until the loss stops falling.
- Behind the peak every width fits every label, and still wider ones lose less on new data: the number of parameters
  cannot be what the error depends on.
- At alpha = 1 N_eff falls behind the peak. At the penalty's own precision, N * decay, the whole spectrum goes on rising
  with the width: each new direction counts a little. The eigenvalues are returned, to turn alpha yourself.
- No more than m directions are seen in m Lanczos steps, and an N_eff near m falls behind the peak at any alpha. The
  original's 80 to 93 come from 100 steps.

Shapes: W widths, K seeds, m Lanczos steps.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilab.pacbayes.phenomena.dimension import effective_dimension, hessian_product, lanczos
from minilab.pacbayes.phenomena.mlp import MLP, FitConfig, cross_entropy, errors, fit
from minilab.pacbayes.phenomena.task import Task, altered


@dataclass(frozen=True)
class WidthConfig:
    """What is trained, and how its Hessian is looked at."""

    widths: tuple[int, ...] = (2, 4, 8, 10, 16, 32)  # of the hidden layer
    samples: int = 200
    altered: float = 0.2  # share of training labels drawn anew
    seeds: int = 2
    training: FitConfig = FitConfig(steps=1000)
    lanczos_steps: int = 300
    seed: int = 0


class Widths(NamedTuple):
    """One row a width, one column a seed. Losses are in nats."""

    parameters: Int[Tensor, "W"]
    train_loss: Float[Tensor, "W K"]
    train_error: Float[Tensor, "W K"]
    test_loss: Float[Tensor, "W K"]
    test_error: Float[Tensor, "W K"]
    eigenvalues: Float[Tensor, "W K m"]  # of the Hessian of the loss summed over the samples; 0 where there are fewer

    def effective_dimension(self, alpha: float = 1.0) -> Float[Tensor, "W K"]:
        return effective_dimension(self.eigenvalues, alpha)


def widths(task: Task, config: WidthConfig | None = None) -> Widths:
    """Train every width on the same altered labels, `seeds` networks at once."""
    config = config or WidthConfig()
    generator = task.generator(config.seed)
    task = task.first(config.samples)
    y = altered(task.y, [config.altered], task.classes, generator)
    rows = []
    for width in config.widths:
        net = MLP((task.x.shape[1], width, task.classes))
        w, _ = fit(net, net.draw(config.seeds, generator), task.x, y, config.training)

        def summed(w: Tensor, net: MLP = net) -> Tensor:
            return len(task.x) * cross_entropy(net(w, task.x), y)

        start = torch.randn(w.shape, generator=generator, device=w.device)
        found = lanczos(hessian_product(summed, w), start, config.lanczos_steps)
        found = torch.nn.functional.pad(found, (config.lanczos_steps - found.shape[1], 0))
        train, test, test_y = net(w, task.x), net(w, task.test_x), task.test_y[None]
        rows.append((torch.tensor(net.P), cross_entropy(train, y), errors(train, y), cross_entropy(test, test_y),
                     errors(test, test_y), found))
    return Widths(*(torch.stack(column) for column in zip(*rows, strict=True)))
