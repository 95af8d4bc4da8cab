"""Intervals of shares, for every method that counts successes."""

import math

Z95 = 1.959964  # of the normal law


def wilson(share: float, n: int, *, z: float = Z95) -> tuple[float, float]:
    """All p from which the share of n trials is at most z standard errors of p away (Wilson, 1927)."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)
