"""Numbers that cost few bits: each is one of L values, of a codebook that is learned with them.

Lotfi et al. (2022), after Zhou et al. (2019). A network at v is rounded to the nearest value c[k] for each number, and
trained on as it is then:

    v_hat = c[k],   k = argmin_j |v - c_j|,   ∂v_hat/∂v taken for 1,   ∂v_hat/∂c_j = 1 where k = j.

Notable:

- The slope in v is really 0 nearly everywhere. Taken for 1 ("straight through") it lets v drift until k changes.
- So v is hardly ever where v_hat is. What is measured and sent is v_hat.
- A penalty on the entropy of k lowers the bits, and here it does not lower the bound: fewer values do that better.

Shapes: d numbers, L values.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from minilab.pacbayes.subspace import Subspace


def nearest(v: Float[Tensor, "d"], c: Float[Tensor, "L"]) -> Int64[Tensor, "d"]:
    """The index of the value next to each number."""
    return (v[:, None] - c).abs().argmin(dim=1)


def codebook(v: Float[Tensor, "d"], L: int, *, iterations: int = 50) -> Float[Tensor, "L"]:
    """L values, rising, at a small mean square distance from v: k-means on a line, from evenly spaced quantiles."""
    if L < 2:
        raise ValueError(f"{L} values tell nothing apart: give at least 2")
    c = v.quantile((torch.arange(L, device=v.device) + 0.5) / L)
    for _ in range(iterations):
        k = nearest(v, c)
        count = torch.bincount(k, minlength=L)
        total = torch.zeros_like(c).index_add(0, k, v)
        c = torch.where(count > 0, total / count.clamp(min=1), c)
    return c


class Quantized(nn.Module):
    """A network in a subspace, whose v and codebook learn while v is rounded."""

    def __init__(self, subspace: Subspace, L: int) -> None:
        super().__init__()
        self.subspace = subspace
        self.c = nn.Parameter(codebook(subspace.v.detach(), L))

    def symbols(self) -> Int64[Tensor, "d"]:
        return nearest(self.subspace.v.detach(), self.c.detach())

    def forward(self, x: Tensor) -> Tensor:
        v = self.subspace.v
        return self.subspace.at(self.c[self.symbols()] + (v - v.detach()), x)  # in this order nothing is rounded
