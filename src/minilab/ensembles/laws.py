"""Laws of two variables: parameters N and tokens D, and what repeated tokens are still worth.

Hoffmann et al. (2022), with data that never repeat:

    L(N, D) = E + A / N^alpha + B / D^beta.                                                         `Chinchilla`

Muennighoff et al. (2023), with U unique tokens seen D / U times. Repeats and parameters beyond what U can use decay:

    U' = U + U R_D* (1 - exp(-R_D / R_D*)),   R_D = D / U - 1,                                      `Muennighoff`
    N' = V + V R_N* (1 - exp(-R_N / R_N*)),   R_N = N / V - 1,   V = min(N, best size for U),
    L = E + A / N'^alpha + B / U'^beta.

Notable:
- The second falls with each repeat and with each parameter. It cannot show a model that overfits; by Kim et al. (2025)
  such runs were mostly left out of its fit.
- Given both exponents the first is linear in (A, B, E). We solve that exactly and search two numbers, by least squares
  of the loss; Hoffmann et al. minimize a Huber loss of log L over five numbers from many starts.

Shapes: n runs, G exponents tried on each side.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

from minilab.ensembles.scaling import HIGHEST, LOWEST, Exponent, Value, at_end, nonnegative


@dataclass(frozen=True)
class Chinchilla:
    """L(N, D) = E + A / N^alpha + B / D^beta."""

    A: float
    alpha: float
    B: float
    beta: float
    E: float

    def __call__(self, N: Value, D: Value) -> Value:
        """The loss of N parameters after D tokens, all different."""
        return self.E + self.A / N**self.alpha + self.B / D**self.beta

    def best_size(self, D: Value) -> Value:
        """The N at which N times D is least for the loss that they reach: alpha A / N^alpha = beta B / D^beta."""
        return (self.alpha * self.A / (self.beta * self.B) * D**self.beta) ** (1 / self.alpha)


@dataclass(frozen=True)
class Muennighoff:
    """`Chinchilla` on the part of data and parameters that still counts."""

    fresh: Chinchilla  # what it is while nothing repeats
    R_D: float  # repeats after which 1 - 1/e of all that repeating can give is there
    R_N: float  # the same for parameters beyond the best size

    def __call__(self, N: float, D: float, U: float) -> float:
        """The loss of N parameters after D tokens of which U are unique.

        Raises ValueError for counts that are not positive, and for more unique tokens than were seen.
        """
        if not (N > 0 and U > 0):
            raise ValueError(f"N = {N}, U = {U}: give positive counts")
        if D < U:
            raise ValueError(f"{D:g} tokens seen, {U:g} of them unique: count as unique only tokens that were seen")
        useful = min(N, self.fresh.best_size(U))
        return self.fresh(_counted(N, useful, self.R_N), _counted(D, U, self.R_D))


def _counted(total: float, fresh: float, decay: float) -> float:
    """fresh * (1 + R* (1 - exp(-R / R*))): one for one at first, at most 1 + R* times what is fresh."""
    return fresh * (1 - decay * math.expm1(-(total / fresh - 1) / decay))


# The constants of their published code, N and D in ones.
MUENNIGHOFF = Muennighoff(
    Chinchilla(A=math.exp(6.255414), alpha=0.3526596, B=math.exp(7.3049974), beta=0.3526596, E=math.exp(0.6254804)),
    R_D=15.387756, R_N=5.309743)


class ChinchillaFit(NamedTuple):
    """A law through runs, and whether an exponent is at an end of its range."""

    law: Chinchilla
    residuals: Float[np.ndarray, "n"]
    exponents: tuple[Exponent, Exponent]  # of N, of D


def fit_chinchilla(N: Real[np.ndarray, "n"], D: Real[np.ndarray, "n"], losses: Float[np.ndarray, "n"]) -> ChinchillaFit:
    """The law with the least sum of squares, A, B and E not negative.

    The search looks at a square of exponents around the best so far, which shrinks by half each time. Raises ValueError
    for fewer than 5 runs, for one N or one D alone, and for numbers that are not positive and finite.
    """
    for name, values in (("N", N), ("D", D), ("losses", losses)):
        if not ((values > 0) & (values < math.inf)).all():
            raise ValueError(f"{name} = {values.tolist()}: give positive, finite numbers; leave out diverged runs")
    if len(losses) < 5 or min(len(np.unique(N)), len(np.unique(D))) < 3:
        raise ValueError(f"{len(losses)} runs, {len(np.unique(N))} different N and {len(np.unique(D))} different D: "
                         "five parameters need 5 runs at least, with 3 different N and 3 different D")
    units = [float(np.exp(np.log(x).mean())) for x in (N, D)]
    n, d, ones = N / units[0], D / units[1], np.ones(len(N))

    def solve(alpha: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return nonnegative([n ** -alpha[..., None], d ** -beta[..., None], ones], losses, ones)

    ends = math.log(LOWEST), math.log(HIGHEST)
    center, reach = np.full(2, sum(ends) / 2), (ends[1] - ends[0]) / 2
    for _ in range(40):
        a, b = (np.exp(np.linspace(c - reach, c + reach, 17).clip(*ends)) for c in center)
        rss = solve(a[:, None], b)[1]
        i, j = np.unravel_index(rss.argmin(), rss.shape)
        center, reach = np.log([a[i], b[j]]), reach / 2
    alpha, beta = (float(x) for x in np.exp(center))
    (A, B, E), _ = solve(np.array(alpha), np.array(beta))
    law = Chinchilla(float(A * units[0] ** alpha), alpha, float(B * units[1] ** beta), beta, float(E))
    return ChinchillaFit(law, losses - law(N, D), (at_end(alpha, law.A), at_end(beta, law.B)))
