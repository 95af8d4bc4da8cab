"""Effective dimension: how many directions of weight space the data decide, and Lanczos to count them.

MacKay (1992); Maddox, Benton and Wilson (2020). With the eigenvalues λ_i of a loss's Hessian and a scale α,

    N_eff(α) = Σ_i λ_i / (λ_i + α).

A direction that the data bend far more than α counts 1, one that they leave alone counts 0. Notable:

- α carries the loss's unit. With the sum over N samples α is the prior's precision; with the mean, that over N.
- Lanczos sees no matrix, only its products with vectors. m steps give m numbers, so a sum of them is at most m: more
  steps are needed than directions are decided. Rounding lets found directions return as ghosts that count again, and
  so each new vector is made orthogonal to all earlier ones.
- A Hessian of a network has some negative eigenvalues. They are of no use here and count 0.

Shapes: K networks at once, P weights, m steps.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Product = Callable[[Float[Tensor, "K P"]], Float[Tensor, "K P"]]


def effective_dimension(eigenvalues: Float[Tensor, "*K m"], alpha: float) -> Float[Tensor, "*K"]:
    """N_eff at `alpha`. Raises ValueError unless it is positive."""
    if alpha <= 0:
        raise ValueError(f"alpha is {alpha}: give a positive scale, such as the prior's precision")
    decided = eigenvalues.clamp(min=0)
    return (decided / (decided + alpha)).sum(dim=-1)


def hessian_product(loss: Callable[[Float[Tensor, "K P"]], Float[Tensor, "K"]], w: Float[Tensor, "K P"]) -> Product:
    """v -> H v, row by row, where network k's loss depends on its own row of `w` only."""
    w = w.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(w).sum(), w, create_graph=True)
    return lambda v: torch.autograd.grad(gradient, w, v, retain_graph=True)[0]


def lanczos(product: Product, start: Float[Tensor, "K P"], steps: int) -> Float[Tensor, "K m"]:
    """Approximate eigenvalues in ascending order, m = min(steps, P) of them; the extreme ones are exact first.

    With m = P they are all of them, but of a multiple eigenvalue one copy may be found and 0 stand for the others.
    Raises ValueError for less than one step.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: give at least 1")
    K, P = start.shape
    m = min(steps, P)
    T, basis = start.new_zeros(K, m, m), start.new_zeros(K, m, P)
    v = start / start.norm(dim=1, keepdim=True)
    for i in range(m):
        basis[:, i] = v
        v = product(v)
        T[:, i, i] = (basis[:, i] * v).sum(dim=1)
        for _ in range(2):  # once leaves what rounding left
            found = basis[:, : i + 1]
            v = v - torch.einsum("kip,ki->kp", found, torch.einsum("kip,kp->ki", found, v))
        if i + 1 == m:
            break
        length = v.norm(dim=1)
        full = length <= 10 * torch.finfo(v.dtype).eps * T.abs().amax(dim=(1, 2))  # an invariant subspace
        T[:, i, i + 1] = T[:, i + 1, i] = length.masked_fill(full, 0)
        v = v / length.masked_fill(full, torch.inf)[:, None]
    return torch.linalg.eigvalsh(T)
