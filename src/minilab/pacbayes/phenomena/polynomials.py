"""Polynomials of degree 150 that fit a few points, made simple by a price on each order.

Wilson (2025), figures 1 (a) to (c) and 4. A flexible space with a preference instead of a small space: with the basis
T_0 .. T_J, the fit minimizes

    |T w - y|² + Σ_j scale * growth^j * w_j².

For growth > 1 it has few high orders unless the data ask for them: it is smooth where they are, and fits noise as well.
Notable:

- T_j are Chebyshev polynomials, bounded by 1 on [-1, 1]. With plain powers x^j the same penalty leaves a residual on
  pure noise from 20 points on, and no warning tells.
- The same fit seen from the data: f(x) = k(x, X) (k(X, X) + I)⁻¹ y with k(x, x') = Σ_j T_j(x) T_j(x') / penalty_j, a
  Gaussian process. n equations instead of J + 1, and no weights: what a slider can redraw while it moves.
- For J -> ∞ that kernel has a closed form, the Poisson kernel: the degree is gone, and growth alone says how smooth.
- growth = 1 prices all orders alike: the fit is about 0 but for spikes at the points. To be flexible is not to prefer.

Shapes: n points, J degree, M places to look at, K data sets that share their points.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

TARGETS = {  # on [-1, 1]
    "simple": lambda x: torch.cos(1.5 * torch.pi * x),
    "complex": lambda x: torch.sin(3 * torch.pi * x) * torch.cos((3 * x) ** 2) + x,
    "noise": torch.zeros_like,
}


def chebyshev(x: Float[Tensor, "n"], J: int) -> Float[Tensor, "n J1"]:
    """T_0 .. T_J at points of [-1, 1]: T_j(cos a) = cos(j a). Raises ValueError outside."""
    if (x.abs() > 1).any():
        raise ValueError(f"x reaches from {float(x.min())} to {float(x.max())}: rescale it to [-1, 1]")
    return torch.cos(torch.arange(J + 1, dtype=x.dtype) * x.acos()[:, None])


def order_penalty(J: int, scale: float = 1e-4, growth: float = 1.1) -> Float[Tensor, "J1"]:
    """scale * growth^j for j = 0 .. J. Raises ValueError for a negative scale or a growth that is not positive."""
    if scale < 0 or growth <= 0:
        raise ValueError(f"scale {scale} and growth {growth} make no penalty: give scale >= 0 and growth > 0")
    return scale * growth ** torch.arange(J + 1, dtype=torch.double)


def penalized(features: Float[Tensor, "*B n J1"], y: Float[Tensor, "*B n K"], penalty: Float[Tensor, "J1"]
              ) -> Float[Tensor, "*B J1 K"]:
    """The weights. A penalty of 0 is none, and where several w fit equally well the shortest is taken.

    Solved as least squares with √penalty as further rows: the normal equations would square the condition number. Dear
    orders are counted in larger units, or the solver would take the cheap ones for zero beside them.
    """
    unit = penalty.sqrt().clamp(min=1)
    rows = (penalty.sqrt() / unit).diag().expand(*features.shape[:-2], -1, -1)
    targets = torch.cat((y, y.new_zeros(*y.shape[:-2], len(penalty), y.shape[-1])), dim=-2)
    solution = torch.linalg.lstsq(torch.cat((features / unit, rows), dim=-2), targets, driver="gelsd").solution
    return solution / unit[:, None]


def kernel(x: Float[Tensor, "n"], other: Float[Tensor, "M"], penalty: Float[Tensor, "J1"]) -> Float[Tensor, "n M"]:
    """k(x, x') = Σ_j T_j(x) T_j(x') / penalty_j."""
    J = len(penalty) - 1
    return (chebyshev(x, J) / penalty) @ chebyshev(other, J).T


def poisson_kernel(x: Float[Tensor, "n"], other: Float[Tensor, "M"], scale: float, growth: float
                   ) -> Float[Tensor, "n M"]:
    """What `kernel` tends to as the degree grows. Raises ValueError unless growth > 1: it diverges.

    T_j(cos a) T_j(cos b) is half of cos j(a - b) + cos j(a + b), and with r = 1 / growth the sum over all orders is
    Σ_j r^j cos(j c) = (1 - r cos c) / (1 - 2 r cos c + r²).
    """
    if growth <= 1:
        raise ValueError(f"growth is {growth}: the sum over all orders needs more than 1")
    a, b, r = x.acos()[:, None], other.acos(), 1 / growth
    total = sum((1 - r * c.cos()) / (1 - 2 * r * c.cos() + r**2) for c in (a - b, a + b))
    return total / (2 * scale)


def dual(x: Float[Tensor, "n"], y: Float[Tensor, "n K"], at: Float[Tensor, "M"], penalty: Float[Tensor, "J1"]
         ) -> Float[Tensor, "M K"]:
    """The same fit at the places `at`, from n equations. It needs a penalty on every order."""
    K = kernel(x, x, penalty) + torch.eye(len(x), dtype=x.dtype)
    return kernel(at, x, penalty) @ torch.cholesky_solve(y, torch.linalg.cholesky(K))


@dataclass(frozen=True)
class PolynomialConfig:
    """The data, and the penalty of the flexible model."""

    points: int = 20  # evenly spaced: where random ones leave a gap, a fit to pure noise leaps
    noise: float = 0.1  # on the two targets; pure noise is N(0, 1)
    degree: int = 150
    scale: float = 1e-4
    growth: float = 1.1
    small: int = 3  # the degree of the small space
    grid: int = 401
    seed: int = 0


class Curves(NamedTuple):
    """Targets in the order of TARGETS, fits: the small space, the large one, the large one with prices on orders."""

    x: Float[Tensor, "n"]
    y: Float[Tensor, "n K"]
    grid: Float[Tensor, "M"]
    truth: Float[Tensor, "M K"]
    fits: Float[Tensor, "3 M K"]
    residual: Float[Tensor, "3 K"]  # root mean square at the points
    error: Float[Tensor, "3 K"]  # and on the grid, against the truth


def polynomials(config: PolynomialConfig | None = None) -> Curves:
    """Three models on three data sets."""
    config = config or PolynomialConfig()
    generator = torch.Generator().manual_seed(config.seed)
    x, grid = (torch.linspace(-1, 1, n, dtype=torch.double) for n in (config.points, config.grid))
    spread = torch.tensor([config.noise, config.noise, 1.0], dtype=torch.double)
    truth = torch.stack([f(grid) for f in TARGETS.values()], dim=1)
    y = torch.stack([f(x) for f in TARGETS.values()], dim=1)
    y = y + spread * torch.randn(y.shape, generator=generator, dtype=torch.double)
    models = (order_penalty(config.small, 0), order_penalty(config.degree, 0),
              order_penalty(config.degree, config.scale, config.growth))
    fits, residual, error = [], [], []
    for penalty in models:
        J = len(penalty) - 1
        w = penalized(chebyshev(x, J), y, penalty)
        fits.append(chebyshev(grid, J) @ w)
        residual.append(chebyshev(x, J) @ w - y)
        error.append(fits[-1] - truth)
    rms = [torch.stack(differences).square().mean(dim=1).sqrt() for differences in (residual, error)]
    return Curves(x, y, grid, truth, torch.stack(fits), *rms)
