"""Labels of real pictures compress, given the pictures; labels drawn at random do not.

Goldblum et al. (2024), on data that no-free-lunch theorems do not speak of: they send a compressed network and what it
gets wrong. We send labels in blocks, each block in the code of a network that was trained on the blocks before it
(Dawid's prequential code, 1984). The receiver has the pictures and trains the same network, so no weight is ever sent:

    bits = Σ over blocks, -log2 p(labels | pictures, network trained on earlier labels).

Notable:

- The first block is sent at log2 C bits a label: nothing is known yet.
- A network is too sure of itself where it is wrong. A share of its code is spent on guessing, which bounds the cost of
  a label, and a last bit says which was shorter, this code or plain guessing: never more than 1 bit above n log2 C.

Shapes: S versions of the labels, N samples, B blocks, C classes.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.pacbayes.phenomena.mlp import MLP, FitConfig, fit
from minilab.pacbayes.phenomena.task import Task, altered


@dataclass(frozen=True)
class LabelsConfig:
    """What is sent, and the code; sender and receiver have both agreed on all of it."""

    shares: tuple[float, ...] = (0.0, 0.5, 1.0)  # of altered labels
    blocks: tuple[int, ...] = (32, 64, 128, 256, 512, 1000)  # where they end; the last is the number of labels
    hidden: int = 64
    guessing: float = 0.05  # share of each code that is spent on all classes alike
    training: FitConfig = FitConfig(steps=100, decay=0.01)
    seed: int = 0

    def __post_init__(self) -> None:
        if not all(a < b for a, b in zip((0, *self.blocks), self.blocks, strict=False)):
            raise ValueError(f"blocks end at {self.blocks}: give growing positive numbers")
        if not 0 < self.guessing < 1:
            raise ValueError(f"guessing is {self.guessing}: give a share between 0 and 1, or one label may cost all")


class Sent(NamedTuple):
    """One row a version of the labels."""

    blocks: Float[Tensor, "S B"]  # bits of each block
    bits: Float[Tensor, "S"]  # of all, with the bit that tells the code
    guessing: float  # n log2 C, what labels cost that nothing is known of


def compress(task: Task, config: LabelsConfig | None = None) -> Sent:
    """The length of the message, for each share of altered labels."""
    config = config or LabelsConfig()
    generator = task.generator(config.seed)
    task = task.first(config.blocks[-1])
    y = altered(task.y, config.shares, task.classes, generator)
    net = MLP((task.x.shape[1], config.hidden, task.classes))
    start = net.draw(1, generator).expand(len(y), -1)
    blocks = [torch.full((len(y),), config.blocks[0] * math.log2(task.classes), dtype=torch.double, device=y.device)]
    for known, end in zip(config.blocks, config.blocks[1:], strict=False):
        w, _ = fit(net, start, task.x[:known], y[:, :known], config.training)
        p = net(w, task.x[known:end]).double().softmax(dim=2)
        p = (1 - config.guessing) * p + config.guessing / task.classes
        blocks.append(-p.gather(2, y[:, known:end, None]).log2().sum(dim=(1, 2)))
    sent, guessing = torch.stack(blocks, dim=1), config.blocks[-1] * math.log2(task.classes)
    return Sent(sent, sent.sum(dim=1).clamp(max=guessing) + 1, guessing)
