"""One flexible model with a preference, near the best at every number of samples.

The polynomials of Goldblum et al. (2024), a numerical figure 4 of Wilson (2025): y = f(x) + 0.1 N(0, 1) at uniform x in
[0, 1]; a parabola, a polynomial of degree 10, and the same with a price alpha² j⁴ on the square of its weight of order
j. A small space is best for few samples, a large one for many, and the priced one does not have to choose. Notable:

- Medians over repeats: where a free polynomial of degree 10 meets 10 random points, its mean error is without bound.
- Plain powers x^j here, as in the paper. Order 0 has no price.

Shapes: F targets, S sample sizes, R repeats.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.pacbayes.phenomena.polynomials import penalized

TARGETS = {  # on [0, 1], with the alpha that the paper's code uses for each
    "x²": (lambda x: x**2, 0.01),
    "cos 1.5πx": (lambda x: torch.cos(1.5 * torch.pi * x), 0.01),
    "degree 10": (lambda x: -36 * x + 49 * x**5 - 14 * x**7 + x**10, 0.001),
}


@dataclass(frozen=True)
class SelectionConfig:
    """How much is drawn."""

    sizes: tuple[int, ...] = (5, 10, 20, 40, 70)
    repeats: int = 100
    noise: float = 0.1
    seed: int = 0


class Selection(NamedTuple):
    """Median mean squared errors on a grid without noise: one row a target, one column a size."""

    small: Float[Tensor, "F S"]  # degree 2
    large: Float[Tensor, "F S"]  # degree 10
    priced: Float[Tensor, "F S"]  # degree 10 with the penalty


def selection(config: SelectionConfig | None = None) -> Selection:
    """All three models on the same draws."""
    config = config or SelectionConfig()
    generator = torch.Generator().manual_seed(config.seed)
    grid = torch.linspace(0, 1, 100, dtype=torch.double)
    errors = torch.empty(3, len(TARGETS), len(config.sizes), dtype=torch.double)
    for i, (f, alpha) in enumerate(TARGETS.values()):
        order = torch.arange(11, dtype=torch.double)
        models = (torch.zeros(3, dtype=torch.double), torch.zeros(11, dtype=torch.double), alpha**2 * order**4)
        for j, n in enumerate(config.sizes):
            x = torch.rand(config.repeats, n, generator=generator, dtype=torch.double)
            y = f(x) + config.noise * torch.randn(x.shape, generator=generator, dtype=torch.double)
            for k, penalty in enumerate(models):
                powers = torch.arange(len(penalty), dtype=torch.double)
                w = penalized(x[..., None] ** powers, y[..., None], penalty)  # R J1 1
                said = (grid[:, None] ** powers @ w)[..., 0]  # R 100
                errors[k, i, j] = (said - f(grid)).square().mean(dim=1).median()
    return Selection(*errors)
