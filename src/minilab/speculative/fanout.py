"""How many bonus-token guesses to prepare for each number of accepted draft tokens.

Kumar, Dao and May (2026), section 4.1. A round that accepts exactly k of K draft tokens ends in a bonus token
that the draft must have guessed beforehand. With F_k guesses for that case the guess is right with probability
h_k(F_k), so the chance of a hit is sum_k P(k) h_k(F_k), to be maximized under sum_k F_k = budget.

Notable:
- All allocations have the shape (budget, K, ...) -> K + 1 whole numbers that sum to the budget. The engine
  takes `functools.partial(geometric, budget, ...)` and asks for a list when it knows K.
- Measured curves follow 1 - h(F) = A F^-r only roughly, and r is nearer to 0.5 than to 1.
"""

from collections.abc import Sequence

import numpy as np

from minilab.speculative.theory import accepted_pmf

Numbers = Sequence[float] | np.ndarray


def uniform(budget: int, K: int) -> list[int]:
    """The same number of guesses for every k, what the authors' code does by default."""
    return round_to_budget(np.full(K + 1, budget / (K + 1)), budget)


def geometric(budget: int, K: int, *, alpha: float, r: float) -> list[int]:
    """Theorem 12, rounded: optimal when every k has the curve 1 - A F^-r and acceptances are independent."""
    return round_to_budget(geometric_real(budget, K, alpha=alpha, r=r), budget)


def geometric_real(budget: float, K: int, *, alpha: float, r: float) -> np.ndarray:
    """Theorem 12 before rounding: F_k shrinks by alpha^(1/(1+r)) with each k, and rises once more at k = K.

    The rise is the factor (1 - alpha)^(-1/(1+r)): K accepted tokens end the round with no rejection.
    Raises ValueError unless 0 < alpha < 1 and r > 0.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"the acceptance rate must lie between 0 and 1, not {alpha}")
    if r <= 0:
        raise ValueError(f"the exponent r of the miss rate must be positive, not {r}")
    shares = accepted_pmf(alpha, K) ** (1 / (1 + r))
    return budget * shares / shares.sum()


def optimal(budget: int, weights: Numbers, hit: np.ndarray) -> list[int]:
    """The best whole-number allocation for any curves: Theorem 18 without its derivatives.

    `weights[k]` is the chance of exactly k accepted tokens, `hit[k, F]` that of a hit with F guesses,
    F = 0..budget. Dynamic programming over k, because measured curves need not be concave.
    Raises ValueError if the curves do not reach the budget.
    """
    hit = np.asarray(hit, dtype=float)
    if hit.shape != (len(weights), budget + 1):
        raise ValueError(f"the hit curves have shape {hit.shape}, not (K + 1, budget + 1) = "
                         f"{(len(weights), budget + 1)}")
    # best[n]: the most that the ks so far gain from exactly n guesses
    best, choices = np.where(np.arange(budget + 1) == 0, 0.0, -np.inf), []
    for weight, curve in zip(weights, hit, strict=True):
        gain = np.array([[best[n - F] + weight * curve[F] if F <= n else -np.inf for F in range(budget + 1)]
                         for n in range(budget + 1)])
        choices.append(gain.argmax(axis=1))
        best = gain.max(axis=1)
    fan_out, left = [], budget
    for choice in reversed(choices):
        fan_out.append(int(choice[left]))
        left -= fan_out[-1]
    return fan_out[::-1]


def hit_rate(fan_out: Sequence[int], weights: Numbers, hit: np.ndarray) -> float:
    """sum_k P(k) h_k(F_k), the chance that a round's outcome was prepared (appendix A.2)."""
    return float(sum(w * curve[F] for F, w, curve in zip(fan_out, weights, hit, strict=True)))


def power_law(F: Numbers, A: float, r: float) -> np.ndarray:
    """h(F) = 1 - A F^-r for F >= 1, and 0 without a guess (Definition 11, with the factor A that data need)."""
    F = np.asarray(F, dtype=float)
    return np.where(F >= 1, 1 - A * np.maximum(F, 1) ** -r, 0.0)


def fit_power_law(F: Numbers, hit: Numbers) -> tuple[float, float]:
    """A and r of 1 - h(F) = A F^-r by least squares in the logarithms; points without a miss carry no weight.

    Raises ValueError if fewer than two points are left.
    """
    F, miss = np.asarray(F, dtype=float), 1 - np.asarray(hit, dtype=float)
    usable = (F >= 1) & (miss > 0)
    if usable.sum() < 2:
        raise ValueError(f"a power law needs two fan-outs with misses, not {int(usable.sum())}: measure longer")
    slope, intercept = np.polyfit(np.log(F[usable]), np.log(miss[usable]), 1)
    return float(np.exp(intercept)), float(-slope)


def round_to_budget(shares: np.ndarray, budget: int) -> list[int]:
    """Whole numbers near `shares` that sum to `budget`: round down, then give the largest remainders one more.

    Raises ValueError if the budget is less than one guess: that is plain speculative decoding.
    """
    if budget < 1:
        raise ValueError(f"a budget of {budget} guesses prepares nothing; give at least 1, "
                         "or use plain speculative decoding")
    fan_out = np.floor(shares + 1e-9).astype(int)
    order = np.argsort(fan_out - shares, kind="stable")  # largest remainder first, earlier k first in a tie
    fan_out[order[: budget - fan_out.sum()]] += 1
    return fan_out.tolist()
