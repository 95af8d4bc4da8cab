"""Many small networks at once: K of them side by side, each a row of weights, trained together.

A phenomenon needs several networks of one shape (seeds, shares of altered labels, guesses by the thousand), each so
small that calling it costs more than computing it. Side by side they cost one call. Notable:

- A network is a row of P numbers: a curve through weight space, a Hessian or a random direction needs no more.
- The penalty is part of the loss and falls on every weight alike, unlike Adam's decay: training ends at the mode of a
  posterior with a Gaussian prior, which is what a Hessian there speaks of.

Shapes: K networks, P weights of each, N samples, D inputs, C classes.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class MLP:
    """Layers with ReLU between them, by their widths: (64, 32, 10) has one hidden layer of 32."""

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes are {self.sizes}: give an input and an output width at least, all positive")

    @property
    def layers(self) -> list[tuple[int, int]]:
        return list(zip(self.sizes[:-1], self.sizes[1:], strict=True))

    @property
    def P(self) -> int:
        return sum((inputs + 1) * outputs for inputs, outputs in self.layers)

    def draw(self, K: int, generator: torch.Generator) -> Float[Tensor, "K P"]:
        """K networks at random: every weight and bias N(0, 2 / inputs of its layer)."""
        layers = [math.sqrt(2 / inputs) * torch.randn(K, (inputs + 1) * outputs, generator=generator,
                                                      device=generator.device) for inputs, outputs in self.layers]
        return torch.cat(layers, dim=1)

    def __call__(self, w: Float[Tensor, "K P"], x: Float[Tensor, "N D"]) -> Float[Tensor, "K N C"]:
        sizes = [size for inputs, outputs in self.layers for size in (inputs * outputs, outputs)]
        parts, h = w.split(sizes, dim=1), x.expand(len(w), -1, -1)
        for i, (inputs, outputs) in enumerate(self.layers):
            h = torch.baddbmm(parts[2 * i + 1][:, None], h.relu() if i else h, parts[2 * i].view(-1, inputs, outputs))
        return h


@dataclass(frozen=True)
class FitConfig:
    """Adam on all samples at once, the learning rate down a cosine to zero."""

    steps: int = 1000
    lr: float = 0.01
    decay: float = 1e-4  # the loss grows by decay / 2 * |w|²

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr <= 0 or self.decay < 0:
            raise ValueError(f"{self} cannot train: give steps >= 1, lr > 0 and decay >= 0")


def cross_entropy(logits: Float[Tensor, "K N C"], y: Int[Tensor, "#K N"]) -> Float[Tensor, "K"]:
    """The mean over samples in nats, one number a network; labels are the same for all, or each its own."""
    return F.cross_entropy(logits.transpose(1, 2), y.expand(len(logits), -1), reduction="none").mean(dim=1)


def errors(logits: Float[Tensor, "K N C"], y: Int[Tensor, "#K N"]) -> Float[Tensor, "K"]:
    """The share of samples whose largest output is not their label."""
    return (logits.argmax(dim=2) != y).double().mean(dim=1)


def fit(net: MLP, w: Float[Tensor, "K P"], x: Float[Tensor, "N D"], y: Int[Tensor, "#K N"], config: FitConfig
        ) -> tuple[Float[Tensor, "K P"], Float[Tensor, "steps K"]]:
    """The weights that training from `w` leads to, and each step's cross entropy (without the penalty).

    The networks do not know of each other: a sum of losses has each one's gradient in its own row.
    """
    w = w.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([w], lr=config.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    history = []
    for _ in range(config.steps):
        optimizer.zero_grad()
        loss = cross_entropy(net(w, x), y)
        (loss.sum() + config.decay / 2 * w.square().sum()).backward()
        optimizer.step()
        schedule.step()
        history.append(loss.detach())
    return w.detach(), torch.stack(history)
