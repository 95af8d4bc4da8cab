"""What a recipe would reach with endless parameters or members: the asymptote E of L(x) = A / x^alpha + E.

Kim, Kotha, Liang and Hashimoto (2025), sections 3 to 6. They fit three parameters to four or five points by plain least
squares and compare recipes by E. We fit the same law, and also say how well the points determine it:

    fit         given alpha, the law is linear in (A, E): solve that exactly, search alpha alone   `fit_power_law`
    interval    every E (or alpha) for which the other parameters still fit well                   `profile_interval`
    seeds       resample the runs at each x and fit again                                          `bootstrap`

Notable:
- The search over alpha (variable projection) needs no start values, cannot diverge, and leaves the profile: the best
  sum of squares at each alpha. With four points it is flat, and a small sum of squares says little.
- A >= 0 and E >= 0, as in the authors' code. A limit that was hit is said in the result (`Fit.exponent`).
- For an average of K members alpha = 1 comes from theory (`limits.two_member_limit`): fix it, and fit two.
- Points of one K-curve share their members. Their errors go together, and `profile_interval` does not know: leave
  members out instead (`limits.nested_limit`).

Shapes: n points, G exponents tried, R resamples, p columns. ... stands for what broadcasts.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Real
from torch import Tensor

Numbers = Sequence[float] | Real[np.ndarray, "_"] | Real[Tensor, "_"]
Value = float | Real[np.ndarray, "..."]
Exponent = Literal["found", "given", "lowest", "highest", "any"]

LOWEST, HIGHEST = 0.05, 5.0  # exponents that are searched
GRID = np.geomspace(LOWEST, HIGHEST, 128)
ZOOMS = 9  # each narrows the search eightfold


@dataclass(frozen=True)
class PowerLaw:
    """L(x) = A / x^alpha + E. With arrays of R numbers it is R laws side by side, as `bootstrap` gives."""

    A: Value
    alpha: Value
    E: Value

    def __call__(self, x: Value) -> Value:
        """The loss at x."""
        return self.A / x**self.alpha + self.E

    def inverse(self, loss: Value) -> Value:
        """The x at which the law has this loss: infinite at or below the asymptote."""
        above = np.asarray(loss - self.E, dtype=float)
        reach = np.where(above <= 0, math.inf, self.A / np.where(above <= 0, 1.0, above)) ** (1 / self.alpha)
        return reach if reach.ndim else float(reach)


class Profile(NamedTuple):
    """For each exponent, the best law that has it, and what that leaves of the squares."""

    laws: PowerLaw
    rss: Float[np.ndarray, "G"]


@dataclass(frozen=True)
class Fit:
    """A law through points, and what to know before one believes it."""

    law: PowerLaw
    x: Float[np.ndarray, "n"]
    losses: Float[np.ndarray, "n"]
    weights: Float[np.ndarray, "n"]
    profile: Profile
    exponent: Exponent  # found inside the range, given, at an end of the range, or any since the losses do not fall

    @property
    def residuals(self) -> Float[np.ndarray, "n"]:
        """Loss minus law."""
        return self.losses - self.law(self.x)

    @property
    def rss(self) -> float:
        """The weighted sum of squares that is left."""
        return float(self.weights @ self.residuals**2)

    @property
    def spare(self) -> int:
        """Points beyond the fitted parameters. With none the law goes through all points, and that proves nothing."""
        return len(self.x) - (2 if self.exponent == "given" else 3)


@dataclass(frozen=True)
class Interval:
    """From low to high. An open side ends where the search does: the data set no limit there."""

    low: float
    high: float
    level: float
    open_low: bool = False
    open_high: bool = False


# The fit.


def fit_power_law(x: Numbers, losses: Numbers, *, alpha: float | None = None, weights: Numbers | None = None) -> Fit:
    """The law with the least sum of weighted squares. `alpha` fixes the exponent: 1 for members, by theory.

    Weights are one over the variances, up to a factor. Raises ValueError for fewer different x than parameters, for an
    x that is not positive and for a loss that is not finite.
    """
    x, losses, weights = _points(x, losses, weights, alpha)
    laws = _fit(x, losses[None], weights, alpha)
    law = PowerLaw(*(float(value[0]) for value in (laws.A, laws.alpha, laws.E)))
    unit = _unit(x)
    (A, E), rss = nonnegative(_columns(x / unit, GRID), losses, weights)
    profile = Profile(PowerLaw(A * unit**GRID, GRID, E), rss)
    return Fit(law, x, losses, weights, profile, "given" if alpha is not None else at_end(law.alpha, law.A))


def nonnegative(columns: Sequence[Float[np.ndarray, "..."]], losses: Float[np.ndarray, "..."],
                weights: Float[np.ndarray, "n"]) -> tuple[Float[np.ndarray, "p ..."], Float[np.ndarray, "..."]]:
    """Least squares without negative coefficients, and the sum of squares left. All end in n; the rest broadcasts.

    The best is the plain solution on the columns that it uses: with p <= 3 we can try each choice of columns.
    """
    root = np.sqrt(weights)
    M, y = np.stack(np.broadcast_arrays(*columns), axis=-1) * root[:, None], losses * root
    rss = np.broadcast_to((y**2).sum(axis=-1), np.broadcast_shapes(M.shape[:-2], y.shape[:-1]))
    best, p = np.zeros((*rss.shape, M.shape[-1])), M.shape[-1]
    for used in (list(c) for size in range(1, p + 1) for c in itertools.combinations(range(p), size)):
        Q, triangle = np.linalg.qr(M[..., used])
        solution = (np.linalg.inv(triangle) @ (np.swapaxes(Q, -1, -2) @ y[..., None]))[..., 0]
        left = ((y - (M[..., used] @ solution[..., None])[..., 0]) ** 2).sum(axis=-1)
        better = (solution >= 0).all(axis=-1) & (left < rss)
        trial = np.zeros_like(best)
        trial[..., used] = solution
        best, rss = np.where(better[..., None], trial, best), np.where(better, left, rss)
    return np.moveaxis(best, -1, 0), rss


def _fit(x: Float[np.ndarray, "n"], losses: Float[np.ndarray, "R n"], weights: Float[np.ndarray, "n"],
         alpha: float | None) -> PowerLaw:
    """R laws at once. x in its own unit, so that the answer is the same in millions and in billions."""
    unit = _unit(x)

    def rss(alphas: np.ndarray) -> np.ndarray:
        return nonnegative(_columns(x / unit, alphas), losses[:, None], weights)[1]

    alphas = _search(rss) if alpha is None else np.full(len(losses), float(alpha))
    (A, E), _ = nonnegative(_columns(x / unit, alphas), losses, weights)
    return PowerLaw(A * unit**alphas, alphas, E)


def _unit(x: Float[np.ndarray, "n"]) -> float:
    return float(np.exp(np.log(x).mean()))


def _columns(x: Float[np.ndarray, "n"], alphas: Float[np.ndarray, "*R"]) -> list[Float[np.ndarray, "..."]]:
    return [x ** -alphas[..., None], np.ones_like(x)]


def _search(rss: Callable[[np.ndarray], np.ndarray]) -> Float[np.ndarray, "R"]:
    """The exponent with the least squares for each of R problems: the grid, and then its best two cells, ever finer."""
    grid = GRID[None]  # shared by all at first: its columns are decomposed once
    for _ in range(ZOOMS):
        i = rss(grid).argmin(axis=1)
        low, high = (np.broadcast_to(grid, (len(i), grid.shape[1]))[np.arange(len(i)), j]
                     for j in (np.maximum(i - 1, 0), np.minimum(i + 1, grid.shape[1] - 1)))
        grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 17)  # R G
    return grid[np.arange(len(grid)), rss(grid).argmin(axis=1)]


def at_end(alpha: float, A: float) -> Exponent:
    """What became of the search for an exponent whose term has the coefficient A."""
    if A == 0:
        return "any"
    return "lowest" if alpha < LOWEST * 1.001 else "highest" if alpha > HIGHEST / 1.001 else "found"


def _points(x: Numbers, losses: Numbers, weights: Numbers | None, alpha: float | None) -> tuple[np.ndarray, ...]:
    if alpha is not None and not 0 < alpha < math.inf:
        raise ValueError(f"alpha = {alpha}: give a positive exponent, or None to search it")
    parameters = 3 if alpha is None else 2
    x, losses = np.asarray(x, dtype=float), np.asarray(losses, dtype=float)
    weights = np.ones_like(x) if weights is None else np.asarray(weights, dtype=float)
    if not len(x) == len(losses) == len(weights):
        raise ValueError(f"{len(x)} x, {len(losses)} losses, {len(weights)} weights: give one of each a point")
    if not ((x > 0) & (x < math.inf)).all():
        raise ValueError(f"x = {x.tolist()}: a power law needs finite x above 0, as counts of parameters or members")
    if not np.isfinite(losses).all():
        raise ValueError(f"losses = {losses.tolist()}: leave out runs that diverged")
    if not ((weights > 0) & (weights < math.inf)).all():
        raise ValueError(f"weights = {weights.tolist()}: give 1 / variance, positive and finite; leave a point out to "
                         "give it no weight")
    if len(np.unique(x)) < parameters:
        raise ValueError(f"{len(np.unique(x))} different x for {parameters} parameters: give at least {parameters}"
                         + (", or fix alpha (1 for members) and give 2" if parameters == 3 else ""))
    return x, losses, weights


# How well the points determine it.


def profile_interval(fit: Fit, parameter: str = "E", *, level: float = 0.95,
                     noise: float | None = None) -> Interval:
    """All values of "E" or "alpha" with which the best law leaves no more squares than chance explains:

        rss(value) <= rss + noise^2 chi2(1)               `noise`: the known deviation of a loss of weight 1
        rss(value) <= rss (1 + F(1, spare) / spare)       else, the noise being judged by what the fit left

    For independent errors of one size; exact if the law were linear. Raises ValueError if there is no spare point to
    judge the noise by, and for the exponent of a fit that was given it.
    """
    _check_level(level)
    if parameter not in ("E", "alpha") or (noise is not None and not 0 < noise < math.inf):
        raise ValueError(f"parameter = {parameter!r}, noise = {noise}: choose E or alpha, and a positive deviation "
                         "if you know one")
    if parameter == "alpha" and fit.exponent == "given":
        raise ValueError("alpha was given, not fitted: fit again without it")
    if noise is None and fit.spare < 1:
        raise ValueError(f"{len(fit.x)} points leave none to judge the noise by: give more points, or the `noise` of a "
                         "loss, from several seeds")
    chance = noise**2 * _normal_squared(level) if noise is not None else (
        fit.rss * _student_squared(level, fit.spare) / fit.spare)
    return (_alphas if parameter == "alpha" else _asymptotes)(fit, fit.rss + chance, level)


def _alphas(fit: Fit, allowed: float, level: float) -> Interval:
    """The exponents with which no more squares are left than allowed, on either side of the best."""
    edges = []
    for outside in (LOWEST, HIGHEST):
        inside = fit.law.alpha
        for _ in range(7):  # each narrows it 32 times
            alphas = np.linspace(inside, outside, 33)
            fits = nonnegative(_columns(fit.x / _unit(fit.x), alphas), fit.losses, fit.weights)[1] <= allowed
            if fits[1:].all():
                break
            i = int(fits[1:].argmin())
            inside, outside = alphas[i], alphas[i + 1]
        edges.append((float(outside), bool(fits[1:].all())))
    (low, open_low), (high, open_high) = edges
    return Interval(low, high, level, open_low, open_high)


def _asymptotes(fit: Fit, allowed: float, level: float) -> Interval:
    """The same for E. At one exponent squares grow as curvature * (E - best)^2, the best A going along with each E.

    So each exponent allows an interval of E, and we want them all. Where A would be negative it is 0: a flat line.
    """
    span = _alphas(fit, allowed, level) if fit.exponent != "given" else Interval(fit.law.alpha, fit.law.alpha, level)
    alphas = np.geomspace(span.low, span.high, 2001 if span.low < span.high else 1)
    w, y = fit.weights / fit.weights.sum(), fit.losses
    z = (fit.x / _unit(fit.x)) ** -alphas[:, None]  # G n
    middle, square = z @ w, z**2 @ w
    spread = (z - middle[:, None]) ** 2 @ w
    A = (z * (y - y @ w)) @ w / spread
    best = y @ w - A * middle
    left = (y - best[:, None] - A[:, None] * z) ** 2 @ fit.weights
    half = np.sqrt(((allowed - left) / fit.weights.sum() / (spread / square)).clip(min=0))

    room = allowed / fit.weights.sum() - (y - y @ w) ** 2 @ w  # of a flat line, if any
    edges = []
    for sign in (-1, 1):
        E = best + sign * half
        falls = ((y - E[:, None]) * z) @ w >= 0  # A >= 0
        E = np.where(falls, E, -sign * math.inf)
        i = int((sign * E).argmax())
        edge, at_range = E[i], (i == 0 and span.open_low) or (i == len(E) - 1 and span.open_high)
        if room >= 0 and math.sqrt(room) > sign * (edge - y @ w):
            edge, at_range = y @ w + sign * math.sqrt(room), False
        edges.append((float(edge), at_range))
    (low, open_low), (high, open_high) = edges
    return Interval(max(low, 0.0), high, level, open_low or low <= 0, open_high)


def _normal_squared(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2) ** 2


def _student_squared(level: float, nu: int) -> float:
    """The quantile of F(1, nu), t^2. With t = √nu tan(angle), Student's density is cos(angle)^(nu - 1) / constant."""
    angle = np.linspace(0, math.pi / 2, 20_001)
    density = np.cos(angle).clip(min=0) ** (nu - 1)
    share = np.concatenate(([0.0], np.cumsum(density[1:] + density[:-1])))
    return nu * math.tan(np.interp(level, share / share[-1], angle)) ** 2


def bootstrap(x: Numbers, groups: Sequence[Numbers], generator: np.random.Generator, *, draws: int = 1000,
              alpha: float | None = None, weights: Numbers | None = None) -> PowerLaw:
    """`draws` laws, each through the means of runs drawn anew at every x. `groups[i]` are the losses at x[i].

    Raises ValueError for an x with one run, which shows no spread.
    """
    drawn = resampled(groups, generator, draws=draws)
    x, _, weights = _points(x, [float(np.mean(group)) for group in groups], weights, alpha)
    return _fit(x, drawn, weights, alpha)


def resampled(groups: Sequence[Numbers], generator: np.random.Generator, *, draws: int) -> Float[np.ndarray, "R n"]:
    """Means of n groups of S runs drawn anew.

    A mean of S resampled runs varies by (S - 1) / S too little, a third at 3 seeds: we stretch it by the root. Raises
    ValueError for a group of one run.
    """
    groups = [np.asarray(group, dtype=float) for group in groups]
    if any(len(group) < 2 for group in groups):
        raise ValueError(f"{[len(group) for group in groups]} runs: give at least 2 at each x, or use "
                         "`profile_interval`, which needs no seeds")
    means, stretch = (np.array(part) for part in zip(*((group.mean(), (len(group) / (len(group) - 1)) ** 0.5)
                                                       for group in groups), strict=True))
    drawn = [group[generator.integers(len(group), size=(draws, len(group)))].mean(axis=1) for group in groups]
    return means + stretch * (np.stack(drawn, axis=1) - means)


def percentiles(values: Float[np.ndarray, "R"], *, level: float = 0.95) -> Interval:
    """The middle share of what a bootstrap gave, as of `bootstrap(...).E`. Infinite values count as the largest."""
    _check_level(level)
    low = np.quantile(values, (1 - level) / 2, method="lower")
    high = np.quantile(values, (1 + level) / 2, method="higher")
    return Interval(float(low), float(high), level)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: give a probability strictly between 0 and 1, as 0.95")
