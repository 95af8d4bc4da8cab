"""What speculation should buy: closed forms.

For a chain of K draft tokens: Leviathan, Kalman and Matias (2023), section 3. `alpha` is the acceptance rate,
taken as the same and independent at each position; `cost` is the time of one draft step over one target step.

For speculating while the target verifies: Kumar, Dao and May (2026). There all times are in units of one
verification: T_p for drafting a speculation ahead, T_b for the fallback's, T_SD for plain speculative decoding's.
"""

import numpy as np


def expected_tokens(alpha: float | np.ndarray, K: int | np.ndarray) -> float | np.ndarray:
    """Tokens that one round yields on average: (1 - alpha^(K+1)) / (1 - alpha), and K + 1 at alpha = 1."""
    alpha, K = np.broadcast_arrays(np.asarray(alpha, dtype=float), np.asarray(K, dtype=float))
    if ((alpha < 0) | (alpha > 1)).any():
        raise ValueError(f"the acceptance rate is a probability, not {alpha}")
    sure = alpha == 1
    tokens = np.where(sure, K + 1, (1 - alpha ** (K + 1)) / np.where(sure, 1.0, 1 - alpha))
    return tokens if tokens.ndim else float(tokens)


def speedup(alpha: float | np.ndarray, K: int | np.ndarray, cost: float, verify: float | np.ndarray = 1.0):
    """Tokens per second of speculative over autoregressive decoding (Theorem 3.8).

    `verify` is the time of one pass over K + 1 tokens in target steps. The theorem takes it as 1, true
    where decoding is bound by memory; on a CPU it is larger, and it is measured.
    """
    return expected_tokens(alpha, K) / (np.asarray(K) * cost + verify)


def best_lookahead(alpha: float, cost: float, *, longest: int = 64) -> int:
    """The K from 0 (no speculation) to `longest` with the largest speed-up."""
    K = np.arange(longest + 1)
    return int(np.argmax(speedup(alpha, K, cost)))


def accepted_pmf(alpha: float, K: int) -> np.ndarray:
    """Chance of exactly k accepted draft tokens, k = 0..K: alpha^k (1 - alpha), and alpha^K at k = K."""
    k = np.arange(K + 1)
    return alpha**k * np.where(k < K, 1 - alpha, 1.0)


def acceptance_from_tokens(tokens: float, K: int) -> float:
    """The alpha at which a round yields `tokens` on average: `expected_tokens` inverted by bisection."""
    if not 1 <= tokens <= K + 1:
        raise ValueError(f"a round of K={K} yields between 1 and {K + 1} tokens, not {tokens}")
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expected_tokens(middle, K) < tokens else (low, middle)
    return (low + high) / 2


def ssd_speedup(p_hit: float, *, E_hit: float, E_miss: float, T_p: float, T_b: float = 0.0) -> float:
    """Tokens per second over autoregressive decoding (Theorem 7).

    A hit's round lasts as long as the slower of verifying and drafting; a miss adds the fallback to the
    verification. `E_hit` and `E_miss` are tokens per round after a hit and after a miss.
    """
    tokens = p_hit * E_hit + (1 - p_hit) * E_miss
    return tokens / (p_hit * max(1.0, T_p) + (1 - p_hit) * (1 + T_b))


def stationary_hit_rate(after_primary: float, after_backup: float) -> float:
    """The share of rounds that hit, from its values after a hit and after a miss (Eq. 1)."""
    return after_backup / (1 + after_backup - after_primary)


def ssd_over_sd(p_hit: float, T_SD: float) -> float:
    """SSD over plain speculation with the same draft as fallback and T_p <= 1: (1 + T) / (1 + (1 - p) T).

    Follows from Theorem 7 with T_b = T_SD and equal tokens a round, and never falls below 1 (Corollary 8).
    """
    return (1 + T_SD) / (1 + (1 - p_hit) * T_SD)


def ssd_over_sd_bounds(p_hit: float, *, E_hit: float, E_SD: float, T_SD: float) -> tuple[float, float]:
    """Lower and upper bound on SSD over plain speculation when T_p < 1 and the fallback is free (Corollary 9)."""
    upper = (1 + T_SD) * E_hit / E_SD
    return p_hit * upper, upper


def ssd_batch_speedup(batch: float, p_hit: float, *, E_hit: float, E_miss: float, T_p: float, T_b: float) -> float:
    """Tokens per second over autoregressive decoding of the same batch (Corollary 16): it waits for any miss."""
    all_hit = p_hit**batch
    tokens = p_hit * E_hit + (1 - p_hit) * E_miss
    return tokens / (all_hit * max(1.0, T_p) + (1 - all_hit) * (1 + T_b))


def fallback_threshold(p_hit: float, *, E_hit: float, E_miss: float, T_p: float) -> float:
    """b* of Theorem 17: below it an accurate fallback that takes T_p pays, above it one that is free.

    `E_miss` is the free fallback's tokens a round; the accurate one's are E_hit. Infinite if it always pays,
    because even waiting in every round costs less than the tokens that it saves.
    """
    if not 0 < p_hit < 1:
        raise ValueError(f"the hit rate must lie between 0 and 1, not {p_hit}")
    all_hit = 1 + 1 / T_p - E_hit / (T_p * (p_hit * E_hit + (1 - p_hit) * E_miss))  # p^b at the break-even
    return float("inf") if all_hit <= 0 else float(np.log(all_hit) / np.log(p_hit))


def one_device_round(p_hit: float, *, verify_s: float, draft_s: float, verify_bytes: float, draft_bytes: float,
                     bytes_per_s: float, fallback_s: float) -> float:
    """The shortest round that one device allows, in seconds: both models share its memory bandwidth.

    The maximum of either task alone and of reading all their weights once, plus the fallback after a miss.
    """
    both = (verify_bytes + draft_bytes) / bytes_per_s
    return max(verify_s, draft_s, both) + (1 - p_hit) * fallback_s
