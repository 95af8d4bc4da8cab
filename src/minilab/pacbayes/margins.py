"""A bound by the norms of the weights: the spectrally normalized margins of Bartlett, Foster and Telgarsky (2017).

No prior and no bits. It looks at how confidently a network is right, and at how much its layers can stretch what they
see. With layers A_1 to A_L between which inputs pass through functions that stretch nothing (ReLU), the n inputs as the
rows of X, references M_i fixed beforehand, s_i the spectral norm of A_i and b_i the sum of the lengths of the rows of
A_i - M_i, the outputs on the examples can be covered (their theorem 3.3) to within epsilon by N networks,

    ln N <= (C / epsilon)²,   C² = |X|² ln(2 W²) (s_1 ... s_L)² (sum_i (b_i / s_i)^(2/3))³,

W being the largest width. A margin is the output of the true class less the largest other. The loss that falls from 1
to 0 between the margins 0 and gamma varies by 2 / gamma of an output's change, so that for its class C grows to
r = 2 C / gamma. Dudley's integral from 1/n to √n turns that into a Rademacher average, and it into the bound:

    R <= (share of margins below gamma) + 2 Rad + 3 sqrt((ln 2/delta + nats) / 2n),
    Rad <= 4 / n^(3/2) + (18 ln n / n) r.

Notable:

- It holds for norms and a margin that were fixed beforehand. Those of a trained network are rounded, norms up and the
  margin down, to a grid of powers of `GRID`, and the choice on the grid is paid for in nats (`ranked_nats`), as any
  other choice is. The norms of X are not chosen: Rad is that of these very inputs.
- Biases join a layer as a column, and a 1 joins its input: A_1 = [[W, b], [0, 1]].
- It does not change if one layer is doubled and the next halved, nor if outputs and margin are doubled: what counts
  is the product of the stretches, for each unit of margin.
- r is a product of norms where Occam's bound has a length in bits, and it is far above 1 at the sizes of this book: the
  bound says more than 1, and is not cut off there. The paper's claim is that it grows and shrinks as the excess risk
  does, not that it is small.
- What is whose. In the paper's main text we read the norms (its equation 1.2), theorem 3.3 with the constants above,
  and R <= ... + 2 Rad + ... (lemma 3.1; its last root has ln 1/delta, ours what textbooks have, which is more). Theorem
  1.1 hides its constants behind an O. Those of Rad are worked out here, from Dudley's integral with its usual 4 and 12.
  The appendix, which has the paper's own, we could not read; code that Graf et al. (2022) have published for its lemma
  A.8 has the same (18 ln n / n) r, and 4 / n in the place of 4 / n^(3/2). The columns for biases, and the union over a
  grid, are ours.
- Covers are of a whole number of terms, and theorem 3.3, as printed, does not round it up. To do so would make C larger
  by √2 at most.

Shapes: L layers, N examples, C classes; O x I a layer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from minilab.pacbayes.arguments import check
from minilab.pacbayes.bounds import ranked_nats

GRID = 1.1  # the ratio of two neighbors, of norms and of margins


@dataclass(frozen=True)
class Layer:
    """How much a layer stretches, and how far it is from where it began."""

    spectral: float  # the largest singular value
    moved: float  # the sum over outputs of the lengths of what changed
    width: int  # the larger of its numbers of inputs and outputs


@dataclass(frozen=True)
class MarginBound:
    value: float  # on the risk; not cut off at 1
    risk: float  # the share of examples with a margin below gamma
    gamma: float
    complexity: float  # r: how large the class of such networks is, for each unit of margin
    nats: float  # paid for the choice of gamma and of the norms


@torch.no_grad()
def certificate(network: nn.Sequential, begun: nn.Sequential, x: Shaped[Tensor, "N *shape"], y: Int64[Tensor, "N"], *,
                delta: float, nats: float = 0.0, chunk: int = 2000) -> MarginBound:
    """The bound for a network of linear layers and ReLUs, behind anything without parameters that sees one example.

    `begun` is the network before it learned, fixed beforehand, or one of a list whose price is in `nats`.
    """
    first = next((i for i, part in enumerate(network) if list(part.parameters())), len(network))
    stretch, squares, margin = layers(network[first:], begun[first:]), 0.0, []
    for some, labels in zip(x.split(chunk), y.split(chunk), strict=True):
        seen = network[:first](some)
        squares += float(seen.double().square().sum()) + len(seen)  # and the ones that biases add
        margin.append(margins(network[first:](seen), labels))
    return margin_bound(torch.cat(margin), stretch, inputs=math.sqrt(squares), delta=delta, nats=nats)


def margins(logits: Float[Tensor, "N C"], y: Int64[Tensor, "N"]) -> Float[Tensor, "N"]:
    """The output of the true class less the largest other: negative where the network errs."""
    others = logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    return logits.gather(1, y[:, None])[:, 0] - others


def layers(network: nn.Sequential, begun: nn.Sequential) -> list[Layer]:
    """The linear layers of a network that has ReLUs between them, and how far they are from the same of `begun`.

    Raises ValueError for a network without any, or with others.
    """
    if bad := [type(part).__name__ for part in network if not isinstance(part, nn.Linear | nn.ReLU)]:
        raise ValueError(f"the network has a {bad[0]}: this bound is for linear layers with ReLUs between them")
    pairs = [(one, other) for one, other in zip(network, begun, strict=True) if isinstance(one, nn.Linear)]
    if not pairs:
        raise ValueError("the network has no linear layer: this bound is for those, with ReLUs between them")
    found = []
    for i, (one, other) in enumerate(pairs):
        A, M = (_with_bias(layer, last=i == len(pairs) - 1) for layer in (one, other))
        spectral, moved = torch.linalg.matrix_norm(A, 2), (A - M).norm(dim=1).sum()
        found.append(Layer(float(spectral), float(moved), max(A.shape)))
    return found


def _with_bias(layer: nn.Linear, *, last: bool) -> Float[Tensor, "O I"]:
    """The layer with its bias as a column, and, unless it is the last, a row that hands the 1 on."""
    bias = layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias
    A = torch.cat((layer.weight, bias[:, None]), dim=1).detach().double()
    one = torch.eye(A.shape[1], dtype=A.dtype, device=A.device)[-1:]
    return A if last else torch.cat((A, one))


def complexity(stretch: Sequence[Layer], *, inputs: float, gamma: float) -> float:
    """r = 2 C / gamma, `inputs` being |X|."""
    width = max(layer.width for layer in stretch)
    spread = sum((layer.moved / layer.spectral) ** (2 / 3) for layer in stretch) ** 1.5
    return 2 * inputs * math.sqrt(math.log(2 * width**2)) * math.prod(s.spectral for s in stretch) * spread / gamma


def rademacher(r: float, n: int) -> float:
    """4 alpha / √n + (12 / n) times the integral of r / epsilon from alpha to √n, at alpha = 1/n."""
    return 4 / n**1.5 + 18 * math.log(n) * r / n


def margin_bound(margin: Float[Tensor, "N"], stretch: Sequence[Layer], *, inputs: float, delta: float,
                 nats: float = 0.0) -> MarginBound:
    """The least bound over the margins of the grid, for independent examples.

    `margin` has one of each example, `inputs` is the root of the sum of the squares of all that the first layer sees,
    `nats` what else was chosen. Raises ValueError for no examples, and if a norm or all margins are not positive.
    """
    n = len(margin)
    for name, value in (("n", n), ("delta", delta), ("nats", nats)):
        check(name, value)
    if not min(inputs, *(layer.spectral for layer in stretch)) > 0:
        raise ValueError(f"inputs of norm {inputs} to {list(stretch)}: the norms of a network that says anything are "
                         "positive")
    largest = float(margin.max())
    if not largest > 0:
        raise ValueError(f"the largest margin is {largest}: the network is right about nothing, and nothing is bounded")
    rounded = [replace(layer, spectral=_up(layer.spectral), moved=_up(layer.moved)) for layer in stretch]
    paid = nats + sum(_price(x) for layer in rounded for x in (layer.spectral, layer.moved))
    top, found = math.floor(math.log(largest, GRID)), []
    for place in range(top, top - 100, -1):  # four powers of ten down
        gamma = GRID**place
        r, risk = complexity(rounded, inputs=inputs, gamma=gamma), float((margin <= gamma).double().mean())
        choice = paid + _price(gamma)
        chance = 3 * math.sqrt((math.log(2 / delta) + choice) / (2 * n))
        found.append(MarginBound(risk + 2 * rademacher(r, n) + chance, risk, gamma, r, choice))
    return min(found, key=lambda bound: bound.value)


def _up(norm: float) -> float:
    """The next number of the grid. A layer that has not moved is given the least that is ever asked for."""
    return GRID ** math.ceil(math.log(max(norm, GRID**-100), GRID))


def _price(value: float) -> float:
    """Nats of a place on the grid: places 0, 1, -1, 2, -2, ... in this order of likelihood."""
    place = round(math.log(value, GRID))
    return ranked_nats(2 * place if place > 0 else 1 - 2 * place)
