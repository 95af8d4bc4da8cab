"""What speculation should buy: closed forms for a chain of K draft tokens.

Leviathan, Kalman and Matias (2023), section 3. `alpha` is the acceptance rate, taken as the same and
independent at each position; `cost` is the time of one draft step over one target step.
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
