"""kl and its inverse in fifty digits, which importing this switches on for all of mpmath."""

from mpmath import mp, mpf

mp.dps = 50


def mp_kl(q, p) -> mpf:
    q, p = mpf(q), mpf(p)
    return sum((a * mp.log(a / b) for a, b in ((q, p), (1 - q, 1 - p)) if a), mpf(0))


def mp_inverse(q, c, end) -> mpf:
    """The p between q and `end` with kl(q || p) = c, by bisection at 50 digits; `end` if there is none."""
    near, far = mpf(q), mpf(end)
    for _ in range(120):
        middle = (near + far) / 2
        near, far = (middle, far) if mp_kl(q, middle) <= c else (near, middle)
    return far
