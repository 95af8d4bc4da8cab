"""Two inverses: the largest true risk under which what was seen is not yet too unlikely.

For errors on n independent examples, each with chance p,

    P(Bin(n, p) <= k) = delta                     exactly, for k errors           (Clopper and Pearson)
    exp(-n kl(q || p)) = delta,  q <= p           Chernoff's bound, for any loss in [0, 1] with mean q
    kl(q || p) = q ln(q/p) + (1 - q) ln((1 - q)/(1 - p)),    0 ln 0 = 0.

Notable:
- Both are found by bisection, which returns the upper end of its last interval: an answer on the lower side, however
  near, would be no bound.
- kl(q || p) >= 2 (p - q)^2 (Pinsker): the inverse is never above q + sqrt(c / 2), and far below it where q is near 0.
- A tail such as e^-17200 is 0 in floating point. It must be summed in logarithms.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.special import xlog1py, xlogy

from minilab.pacbayes.arguments import Number, numeric

STEPS = 64  # each halves the interval: from [0, 1] to less than a double can tell apart


@numeric
def kl(q: Number, p: Number) -> Number:
    """kl(q || p) between two coins, in nats. Infinite if p excludes what q does."""
    return _kl(q, p)


@numeric
def kl_inverse(q: Number, c: Number) -> Number:
    """The largest p >= q with kl(q || p) <= c. Differentiable in both; the slope in q is infinite at q = 0."""
    return _Inverse.apply(*torch.broadcast_tensors(q, c))


@numeric
def kl_inverse_lower(q: Number, c: Number) -> Number:
    """The smallest p <= q with kl(q || p) <= c: the other side, with heads and tails exchanged."""
    return 1 - kl_inverse(1 - q, c)


def _kl(q: Tensor, p: Tensor) -> Tensor:
    return (xlogy(q, q) - xlogy(q, p) + xlogy(1 - q, 1 - q) - xlog1py(1 - q, -p)).clamp(min=0)


class _Inverse(torch.autograd.Function):
    """p(q, c) where kl(q || p) = c. With h = ∂kl/∂p the implicit derivatives are ∂p/∂c = 1/h, ∂p/∂q = -(∂kl/∂q)/h."""

    @staticmethod
    def forward(ctx, q: Tensor, c: Tensor) -> Tensor:
        low, high = q, torch.ones_like(q)
        for _ in range(STEPS):
            middle = (low + high) / 2
            inside = _kl(q, middle) <= c
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        ctx.save_for_backward(q, high)
        return high

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        q, p = ctx.saved_tensors
        tails, heads = (1 - q) / (1 - p), q / p
        h = tails - heads
        by_q, by_c = (tails.log() - heads.log()) / h, 1 / h
        return grad * by_q.where(p < 1, 0.0), grad * by_c.where(p < 1, 0.0)  # at 1 the bound does not move


@torch.no_grad()
def binomial_inverse(errors: Tensor, n: Tensor, log_chance: Tensor) -> Tensor:
    """The largest p with ln P(Bin(n, p) <= errors) >= log_chance. Of one type and device."""
    errors, n, log_chance = torch.broadcast_tensors(errors, n, log_chance)
    low, high = errors / n, torch.ones_like(log_chance)
    for _ in range(STEPS):
        middle = (low + high) / 2
        likely = log_binomial_tail(errors, n, middle) >= log_chance
        low, high = torch.where(likely, middle, low), torch.where(likely, high, middle)
    return high


def log_binomial_tail(errors: Tensor, n: Tensor, p: Tensor) -> Tensor:
    """ln P(Bin(n, p) <= errors), exact also where the chance itself is too small for a float."""
    k = torch.arange(int(errors.max()) + 1, dtype=p.dtype, device=p.device)
    n, p = n[..., None], p[..., None]
    pmf = log_choose(n, k) + xlogy(k, p) + xlog1py(n - k, -p)  # * K
    return pmf.masked_fill(k > errors[..., None], -torch.inf).logsumexp(dim=-1)


def log_choose(n: Tensor, k: Tensor) -> Tensor:
    """ln of the number of ways to choose k of n."""
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
