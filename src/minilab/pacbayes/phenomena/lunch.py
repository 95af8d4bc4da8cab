"""No free lunch, counted out: over all functions every learner is at chance; over mostly simple ones it is not.

Wolpert (1996); Goldblum et al. (2024); Wilson (2025), section 3. The world is m points in a row, a function gives each
of them 0 or 1, and there are 2^m of them. A learner sees the labels of every other point and names the rest. Functions
come with a price in bits on each change between neighbors,

    P(f) ∝ 2^(-price * changes(f)).

Notable:

- At price 0 all functions are as likely: given what was seen, half of them have a 1 at any point unseen, and each
  learner is right half of the time, whatever it does. That is the theorem, and it is exact here.
- No learner wins by itself: "contrary", the nearest label's opposite, is best where changes are cheap (price < 0).

Shapes: F functions, m points, U of them unseen, Q prices.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def functions(m: int) -> Bool[Tensor, "F m"]:
    """All 2^m of them. Raises ValueError beyond 12 points: they are compared with each other."""
    if not 3 <= m <= 12:
        raise ValueError(f"{m} points have 2^{m} functions: give 3 to 12")
    return (torch.arange(2**m)[:, None] >> torch.arange(m)) % 2 == 1


def prior(f: Bool[Tensor, "F m"], price: float) -> Float[Tensor, "F"]:
    """P(f), which sums to 1."""
    changes = (f[:, 1:] != f[:, :-1]).sum(dim=1)
    return torch.softmax(-price * math.log(2) * changes.double(), dim=0)


def nearest(f: Bool[Tensor, "F m"]) -> Bool[Tensor, "F U"]:
    """At odd points, the label of the even point to the left, which is seen."""
    return f[:, 0:-1:2]


def majority(f: Bool[Tensor, "F m"]) -> Bool[Tensor, "F U"]:
    """The label that was seen more often, 0 if neither was."""
    seen = f[:, ::2]
    return (2 * seen.sum(dim=1, keepdim=True) > seen.shape[1]).expand(-1, f.shape[1] // 2)


def informed(f: Bool[Tensor, "F m"], price: float) -> Bool[Tensor, "F U"]:
    """Bayes' rule with the true prior: no learner is better under it. 0 where both labels are as likely."""
    seen = f[:, ::2].double()
    agree = (seen @ seen.T + (1 - seen) @ (1 - seen).T) == seen.shape[1]  # F F: the same to the learner
    joint = agree * prior(f, price)
    return joint @ f[:, 1::2].double() > (1 + 1e-12) * joint @ (~f[:, 1::2]).double()


def accuracies(m: int, prices: Sequence[float]) -> dict[str, Float[Tensor, "Q"]]:
    """The share of unseen points that each learner names right, in the mean over functions, for each price."""
    f = functions(m)

    def right(said: Bool[Tensor, "F U"], price: float) -> Float[Tensor, ""]:
        return prior(f, price) @ (said == f[:, 1::2]).double().mean(dim=1)

    fixed = {"nearest": nearest(f), "contrary": ~nearest(f), "majority": majority(f)}
    found = {name: torch.stack([right(said, price) for price in prices]) for name, said in fixed.items()}
    return found | {"informed": torch.stack([right(informed(f, price), price) for price in prices])}
