"""Train a network of D weights by d numbers: along d random directions from where it begins.

Li et al. (2018), and Lotfi et al. (2022), in whose code three of the projections P have these names; the fourth is
Ailon and Chazelle's (2009):

    w = w0 + s * P v,      v = 0 at first, and all that is trained.

w0 (how the network begins) and P are made anew from a seed: v and the seed are all that a message must hold. Notable:

- s is how large the weights of a layer are when they begin (in the papers 1 for all), and the rows of P have a length
  of about 1. So with v of N(0, 1) each weight has moved about as far as it was drawn.
- P need not be D x d numbers: `Kronecker` has two of √D x √d, `Sparse` d √D that are not zero, and `Hadamard` none but
  D signs and d places.
- The columns of P are orthogonal and of one length, nearly or exactly: no direction is favored.
- All is made on the CPU in float64, kept in float32, and then moved. Processors and numbers of threads round in other
  ways, but hardly so in both: everyone has the same P, bit for bit.

Shapes: D weights, d numbers; a = √D and b = √d, rounded down.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.func import functional_call

from minilab.pacbayes.networks import Build


class Dense(nn.Module):
    """P_ij of N(0, 1/d). For small networks: all D x d of them are stored."""

    def __init__(self, D: int, d: int, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("P", _normal(D, d, generator).div(math.sqrt(d)).float())

    def forward(self, v: Float[Tensor, "d"]) -> Float[Tensor, "D"]:
        return self.P @ v


class Sparse(nn.Module):
    """P_ij is √(√D / d) or its negative with chance 1 / √D, and else 0. Costs d √D."""

    def __init__(self, D: int, d: int, generator: torch.Generator) -> None:
        super().__init__()
        self.D = D
        # A place that is drawn twice holds the sum: to prevent that would take a list of all D x d.
        cells = round(d * math.sqrt(D))
        self.register_buffer("row", torch.randint(D, (cells,), generator=generator))
        self.register_buffer("column", torch.randint(d, (cells,), generator=generator))
        sign = 2 * torch.randint(2, (cells,), generator=generator) - 1
        self.register_buffer("value", sign * math.sqrt(math.sqrt(D) / d))

    def forward(self, v: Float[Tensor, "d"]) -> Float[Tensor, "D"]:
        return v.new_zeros(self.D).index_add(0, self.row, self.value * v[self.column])


class Kronecker(nn.Module):
    """P v = Π (Q1 ⊗ Q2) v √(D/d) for Q1 and Q2 of a x b with orthonormal columns, in a random order Π ("rdkronqr").

    (Q1 ⊗ Q2) v = Q1 V Q2ᵀ for v as V of b x b, so that P costs a b (a + b). Some D - a² weights stay where they begin.
    Raises ValueError unless d is a square: what is left of others would lead to those few weights alone.
    """

    def __init__(self, D: int, d: int, generator: torch.Generator) -> None:
        super().__init__()
        a, self.b = math.isqrt(D), math.isqrt(d)
        if self.b**2 != d:
            raise ValueError(f"a Kronecker product has a square number of directions: {self.b**2} or "
                             f"{(self.b + 1) ** 2}, not {d}")
        for name in ("Q1", "Q2"):
            self.register_buffer(name, torch.linalg.qr(_normal(a, self.b, generator)).Q.float())
        self.register_buffer("order", torch.randperm(D, generator=generator))
        self.length, self.still = math.sqrt(D / d), D - a**2

    def forward(self, v: Float[Tensor, "d"]) -> Float[Tensor, "D"]:
        moved = self.Q1 @ v.view(self.b, self.b) @ self.Q2.T  # a a
        return self.length * F.pad(moved.flatten(), (0, self.still)).index_select(0, self.order)


class Hadamard(nn.Module):
    """P v = B H Sᵀ v / √d: v in d of N places, mixed by Hadamard's matrix H, D of the N kept, under random signs B.

    N is the next power of 2 from D. All entries of P are ±1/√d, and none is stored: H is log2 N rounds of sums and
    differences, so that P costs N log N. The columns are columns of H, orthogonal where D = N. Pᵀ is the subsampled
    randomized Hadamard transform: for each choice of places, |Pᵀ w|² has the mean |w|² over the signs.
    """

    def __init__(self, D: int, d: int, generator: torch.Generator) -> None:
        super().__init__()
        self.N = 1 << (D - 1).bit_length()
        self.register_buffer("place", torch.randperm(self.N, generator=generator)[:d])
        self.register_buffer("sign", 2.0 * torch.randint(2, (D,), generator=generator) - 1)
        self.length = 1 / math.sqrt(d)

    def forward(self, v: Float[Tensor, "d"]) -> Float[Tensor, "D"]:
        mixed = hadamard(v.new_zeros(self.N).index_copy(0, self.place, v))
        return self.length * self.sign * mixed[: len(self.sign)]


def hadamard(x: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """H x for H_1 = 1 and H_2N = [[H, H], [H, -H]], in N log2 N sums. Raises ValueError unless N is a power of 2."""
    if len(x) & (len(x) - 1):
        raise ValueError(f"{len(x)} numbers: Hadamard's matrix has a power of 2 of them here; add zeros")
    return _Hadamard.apply(x)


class _Hadamard(torch.autograd.Function):
    """H is symmetric: a gradient takes the same way back, and nothing need be kept for it."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        N, half = len(x), 1
        while half < N:
            first, second = x.view(-1, 2, half).unbind(dim=1)
            x, half = torch.stack((first + second, first - second), dim=1), 2 * half
        return x.reshape(N)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _Hadamard.apply(grad)


PROJECTIONS = (Kronecker, Sparse, Dense, Hadamard)  # what a message can name, in this order
Projection = Callable[[int, int, torch.Generator], nn.Module]  # D, d, and what to draw from


class Subspace(nn.Module):
    """A network as a function of d numbers `v`.

    Raises ValueError for a network with buffers, for more directions than weights, and for none.
    """

    def __init__(self, build: Build, shape: Sequence[int], classes: int, *, d: int, projection: Projection = Kronecker,
                 seed: int = 1) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # layers draw from the global state
            torch.manual_seed(seed)
            self.network = build(tuple(shape), classes)
        if buffers := [name for name, _ in self.network.named_buffers()]:
            raise ValueError(f"the network has buffers ({', '.join(buffers)}), such as BatchNorm's averages, that no "
                             "message carries: take LayerNorm, GroupNorm, or no norm")
        parameters = dict(self.network.named_parameters())
        self.shapes = {name: p.shape for name, p in parameters.items()}
        self.register_buffer("w0", torch.cat([p.detach().flatten() for p in parameters.values()]))
        self.register_buffer("s", torch.cat([_size(p).expand(p.numel()) for p in parameters.values()]))
        self.network.requires_grad_(False)
        if not 1 <= d <= len(self.w0):
            raise ValueError(f"{d} directions for {len(self.w0)} weights: give 1 to {len(self.w0)}")
        self.P = projection(len(self.w0), d, torch.Generator().manual_seed(seed))
        self.v = nn.Parameter(torch.zeros(d))

    def weights(self, v: Float[Tensor, "d"]) -> dict[str, Float[Tensor, "..."]]:
        """The network's parameters, by name."""
        w = self.w0 + self.s * self.P(v)
        parts = w.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)}

    def at(self, v: Float[Tensor, "d"], x: Tensor) -> Tensor:
        """What the network at `v` says to x."""
        return functional_call(self.network, self.weights(v), (x,))

    def forward(self, x: Tensor) -> Tensor:
        return self.at(self.v, x)


def _size(p: Tensor) -> Tensor:
    """The root mean square of a tensor as it begins; where it begins at zero, what layers of its width begin with."""
    size = p.detach().double().square().mean().sqrt()
    return torch.where(size > 0, size, p.shape[-1] ** -0.5).float()


def _normal(rows: int, columns: int, generator: torch.Generator) -> Float64[Tensor, "rows columns"]:
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def intrinsic_dimension(d: Sequence[int], accuracy: Sequence[float], *, full: float, share: float = 0.9) -> int | None:
    """The smallest tried d that reaches `share` of the `full` network's accuracy; None if none does (Li et al.)."""
    return min((n for n, found in zip(d, accuracy, strict=True) if found >= share * full), default=None)
