"""Bounds for tokens: each depends on all before it, and a martingale takes the place of independence.

Lotfi et al. (2024) bound the risk at the contexts that occurred. With X_k the loss at token k of T,

    R = (1/T) sum_k E[X_k | tokens before k],    so that X_k - E[X_k | ...] is a martingale difference.

In a window of width `span`, Azuma's inequality gives what Hoeffding's gives for independent losses. Finzi et al. (2025)
use a prediction Y_k of the loss, fixed before token k is seen, as the entropy of the model's own next-token law is. If
Y_k is near X_k then little can go wrong, as in Freedman's inequality. With A_k = Y_k - X_k >= -span and s in (0, 1),

    product of (1 + s A_k / span) exp(-s E[A_k | ...] / span) is a supermartingale,  since 1 + x <= e^x.

Markov's inequality, a union over a grid of s and a prior over hypotheses: with probability at least 1 - delta

    R <= (1/T) sum X_k + min_s (span / s) [C + (1/T) sum v(s A_k / span)],
    C = (log 1/P(h) + ln(grid / delta)) / T,   v(x) = x - ln(1 + x).

Notable:
- This says what the model would lose if each token were drawn again after the same past. It says nothing of new
  documents: one long text about one thing has one past. Documents that are independent need the bounds for those.
- A loss -ln p has no upper end. Mixing with the uniform law over V tokens, (1 - alpha) p + alpha / V, gives it one.
- Nats throughout; divide by ln 2 for bits per token. The statement and proof of the second bound are ours, made to fit
  what the paper's summaries say.

Shapes: T tokens, V vocabulary. * stands for any leading dimensions.
"""

import bisect
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.pacbayes.arguments import Number, check, numeric


@numeric
def azuma(loss: Number, n: Number, nats: Number, delta: Number, span: Number) -> Number:
    """R <= loss + span * sqrt((log 1/P(h) + ln 1/delta) / 2n), for the mean `loss` over n tokens or n documents.

    Assumes losses in a window of width `span` fixed beforehand, tokens in the order in which they came, or documents
    that are independent.
    """
    return loss + span * ((nats - delta.log()) / (2 * n)).sqrt()


@numeric
def subsampled(loss: Number, n: Number, m: Number, nats: Number, delta: Number, span: Number) -> Number:
    """`azuma`, where the mean over all n is too dear and `loss` is that of m of them. With r = m / (m + n),

        R <= loss + span * (sqrt((log 1/P(h) + ln 1/(r delta)) / 2n) + sqrt(ln 1/((1 - r) delta) / 2m)).

    Assumes also that the m are drawn uniformly with replacement, after h was chosen: so that they pay no nats.
    """
    r = m / (m + n)
    whole, part = (nats - (r * delta).log()) / (2 * n), -((1 - r) * delta).log() / (2 * m)
    return loss + span * (whole.sqrt() + part.sqrt())


class Freedman(NamedTuple):
    """The bound in its parts, in nats per token."""

    loss: float
    complexity: float  # span * C: what the hypothesis costs, per token
    variation: float  # what is left, and is small where losses are foreseen
    s: float  # of the grid, where the sum is least

    @property
    def value(self) -> float:
        """The bound on R."""
        return self.loss + self.complexity + self.variation


def freedman(losses: Float[Tensor, "T"], foreseen: Float[Tensor, "T"], nats: float, delta: float, *, span: float,
             grid: int = 1000) -> Freedman:
    """The bound from the losses X_k and predictions Y_k, of which Y_k owes nothing to token k or later ones.

    Any Y_k will do, a constant too; the closer to X_k the tighter. Raises ValueError if some Y_k - X_k < -span.
    """
    T = len(losses)
    for name, value in (("n", T), ("nats", nats), ("delta", delta)):
        check(name, value)
    a = (foreseen.double() - losses.double()) / span
    if not (a >= -1).all():
        raise ValueError(f"a loss is {-float(a.min()) * span:.3g} above what was foreseen, but the span is {span:.3g}: "
                         "smooth the model, which makes the span ln(V / alpha)")
    points = torch.logspace(-4, 0, grid + 1, dtype=torch.float64)[:-1].tolist()
    C = (nats + math.log(grid / delta)) / T

    def slope(s: float) -> float:
        u = s * a
        return float((u.log1p() - u / (1 + u)).mean()) - C

    def variation(s: float) -> float:
        u = s * a
        return (C * (1 - s) + float((u - u.log1p()).mean())) / s

    # (C + V(s)) / s falls, then rises, V being convex: its slope's sign finds the valley in ten looks of a thousand.
    i = bisect.bisect_left(points, 0.0, key=slope)
    s = min(points[max(i - 1, 0) : i + 1], key=variation)
    return Freedman(float(losses.double().mean()), span * C, span * variation(s), s)


def entropy(log_probs: Float[Tensor, "*T V"]) -> Float[Tensor, "*T"]:
    """What the model itself expects to lose at the next token: Y_k for `freedman`."""
    return torch.special.entr(log_probs.exp()).sum(dim=-1)


def smoothed(log_probs: Float[Tensor, "*T V"], alpha: float) -> Float[Tensor, "*T V"]:
    """ln((1 - alpha) p + alpha / V): no token loses more than ln(V / alpha).

    `alpha` is fixed beforehand, or one of a list that is paid for with `uniform_nats`.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}: mix in a share strictly between 0 and 1")
    uniform = torch.full_like(log_probs, math.log(alpha / log_probs.shape[-1]))
    return torch.logaddexp(log_probs + math.log1p(-alpha), uniform)


def smoothed_span(alpha: float, V: int) -> float:
    """ln(1 + (1 - alpha) V / alpha): from the least to the greatest loss of a smoothed model."""
    return math.log1p((1 - alpha) * V / alpha)


def best_alpha(C: float) -> float:
    """C / (1 + C), where -ln(1 - alpha) + C ln(V / alpha) is least: at most C ln V + sqrt(2 C).

    The first term bounds what smoothing adds to any loss, the second is `Freedman.complexity`.
    """
    return C / (1 + C)
