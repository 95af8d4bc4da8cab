"""What asymptotes are for: the limit over members and sizes together, and how much data a recipe saves.

Kim, Kotha, Liang and Hashimoto (2025), sections 4 to 6:

    L_D = lim_N lim_K L(N, K)            fit A / K^a + C_N at each size N, then A' / N^b + L_D to the C_N
    efficiency of a loss = D' / D        D' tokens would bring the standard recipe there, D were used

Notable:
- L_D is a fit of fits, of four or five points each. Refit it without each member in turn: `Nested.standard_error`.
- With the exponents near 0.23 that losses have over data, 1 % of the distance to the asymptote is 4 % of the data.

Shapes: N sizes, K members, K1 = K - 1 of them, R resamples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Real
from torch import Tensor

from minilab.ensembles.scaling import Fit, Interval, Numbers, PowerLaw, fit_power_law, percentiles


def two_member_limit(one: float, two: float) -> float:
    """2 L(2) - L(1), the limit of L(K) = limit + c / K.

    Averaged logits lose E[log Z] less than their members do on average, Z = sum_y exp(mean_k log p_k(y)). To second
    order log Z = -(1 - 1/K) var / 2, with the variance of log p(y) between members: hence 1 / K.
    """
    return 2 * two - one


@dataclass(frozen=True)
class Nested:
    """The limit over members at each size, and then over sizes."""

    members: tuple[Fit, ...]  # over K, one a size
    sizes: Fit  # over N, of the members' asymptotes
    standard_error: float | None  # of the limit, by leaving members out

    @property
    def limit(self) -> float:
        """lim over N of lim over K."""
        return self.sizes.law.E


def nested_limit(sizes: Numbers, curves: Sequence[Numbers], *, member_alpha: float | None = None,
                 size_alpha: float | None = None,
                 left_out: Sequence[Real[np.ndarray, "_ _"] | Real[Tensor, "_ _"]] | None = None) -> Nested:
    """Fit L(1), ..., L(K) at each size, then fit the asymptotes over the sizes.

    `left_out[i][k]` is the curve of size i without its member k, one point shorter. The jackknife then gives the
    limit's standard error, of the choice of members alone: not of the sizes, nor of the law.
    """
    if not len(sizes) == len(curves) == len(curves if left_out is None else left_out):
        raise ValueError(f"{len(sizes)} sizes and {len(curves)} curves: give one curve a size, and one table if any")

    def asymptote(curve: Numbers) -> Fit:
        return fit_power_law(range(1, len(curve) + 1), curve, alpha=member_alpha)

    members = tuple(map(asymptote, curves))
    C = np.array([fit.law.E for fit in members])
    over_sizes = fit_power_law(sizes, C, alpha=size_alpha)
    if left_out is None:
        return Nested(members, over_sizes, None)
    variance = 0.0
    for i, table in enumerate(left_out):
        limits = []
        for curve in table:
            without = C.copy()
            without[i] = asymptote(curve).law.E
            limits.append(fit_power_law(sizes, without, alpha=size_alpha).law.E)
        variance += (len(limits) - 1) * float(np.var(limits))  # (K - 1) / K of the sum of squares
    return Nested(members, over_sizes, math.sqrt(variance))


@dataclass(frozen=True)
class Efficiency:
    """How many times the data the standard recipe needs for the same loss."""

    value: float  # infinite if it never gets there
    slope: float  # d ln(value) / d loss: times 0.01 it is the relative error of an error of 0.01 nat
    interval: Interval | None

    @property
    def reached(self) -> bool:
        """Whether the standard recipe reaches the loss with any amount of data."""
        return math.isfinite(self.value)


def data_efficiency(loss: float, standard: PowerLaw, *, at: float, losses: Float[np.ndarray, "R"] | None = None,
                    laws: PowerLaw | None = None, level: float = 0.95) -> Efficiency:
    """D' / at, where the standard law over data has this loss at D'.

    `at` is the number of tokens that were used, in the law's unit. The authors take `standard.inverse` of what the
    standard recipe has measured there, so that its own efficiency is 1. `losses` and `laws` are bootstrap draws of the
    loss and of the law; the interval is that of both. Raises ValueError if `at` is not positive or
    the loss not finite.
    """
    if not 0 < at < math.inf or not math.isfinite(loss):
        raise ValueError(f"loss = {loss}, at = {at}: give a finite loss and the number of tokens, positive and in "
                         "the law's unit")
    interval = None
    if losses is not None or laws is not None:
        drawn = (laws or standard).inverse(loss if losses is None else losses)
        interval = percentiles(np.asarray(drawn) / at, level=level)
    value = standard.inverse(loss) / at
    slope = -1 / (standard.alpha * (loss - standard.E)) if math.isfinite(value) else -math.inf
    return Efficiency(value, slope, interval)


def efficiency_between(loss: float, tokens: Numbers, losses: Numbers, *, at: float) -> float:
    """D' / at without a law: straight lines over ln D join the standard recipe's `losses`, and the end ones go on.

    Raises ValueError unless there are two or more, falling as tokens rise.
    """
    x, y = np.log(np.asarray(tokens, dtype=float)), np.asarray(losses, dtype=float)
    if len(x) != len(y) or len(x) < 2 or (np.diff(x) <= 0).any() or (np.diff(y) >= 0).any():
        raise ValueError(f"{len(x)} token counts and losses {y.tolist()}: give two or more of each, and losses that "
                         "fall as tokens rise")
    i = min(max(int((y > loss).sum()) - 1, 0), len(x) - 2)
    share = (y[i] - loss) / (y[i] - y[i + 1])
    return float(np.exp(x[i] + share * (x[i + 1] - x[i])) / at)
