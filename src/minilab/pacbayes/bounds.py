"""Bounds on the true risk that you can compute: test set, Occam, PAC-Bayes.

All say: with probability 1 - delta over the n examples, the true risk R is at most a function of the empirical risk,
n, and a complexity in nats. For one hypothesis h out of countably many, that is log 1/P(h), under a prior P chosen
before the examples were seen; for a random one, drawn from a posterior Q, it is KL(Q || P):

    test set        nothing was chosen: 0 nats                          `clopper_pearson`
    Occam           log 1/P(h), for all h at once                       `occam_hoeffding`, `occam_kl`, `occam_binomial`
    PAC-Bayes       KL(Q || P), for all Q at once                       `maurer`, `catoni`, `mcallester`, and objectives

Each assumes that the examples are independent and of one law, that losses lie in [0, 1], and that P owes nothing to
the n examples. Notable:

- Nats add up. A file of b bits costs b ln 2 and the price of saying where it ends (`prefix_free_bits`); a setting that
  was tuned costs ln of how many were tried (`uniform_nats`, or `ranked_nats` for an endless list).
- A prior may be learned from some of the examples. Then the risk and n are those of the others (`unseen`). The longer
  it learns, the more the bound is a test set in disguise.
- PAC-Bayes bounds the average of the classifiers that Q draws. It is not their majority vote (whose risk is at most
  twice as large) nor the classifier with mean weights.
- Where a term stands for "any Q", as ln 2√n in `maurer`, a single h does without. `occam_kl` is the smallest of the
  closed formulas for it.
- Nothing is clipped: a bound of 1.3 is vacuous, and says by how much. Only an inverse of kl ends at 1 by itself.
"""

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilab.pacbayes.arguments import Number, numeric
from minilab.pacbayes.inverses import binomial_inverse, kl_inverse, log_choose


@dataclass(frozen=True)
class Certificate:
    """A bound and what it has to beat: the risk of guessing, 0.9 for ten classes of equal size."""

    value: float
    guess: float = 1.0

    def __post_init__(self) -> None:
        if math.isnan(self.value) or not 0 < self.guess <= 1:
            raise ValueError(f"a bound of {self.value} beside a guess of {self.guess}: the guess lies in (0, 1]")

    @property
    def vacuous(self) -> bool:
        """A coin does as well: the bound says nothing."""
        return self.value >= self.guess

    def __str__(self) -> str:
        return f"{self.value:.1%}" + (f" (vacuous: guessing has {self.guess:.1%})" if self.vacuous else "")


# One hypothesis.


def clopper_pearson(errors: Number, n: Number, delta: Number) -> Number:
    """A test set: the largest risk under which so few errors have probability delta. Exact.

    For 0-1 losses and a hypothesis that was fixed before these n examples were looked at.
    """
    return occam_binomial(errors, n, 0.0, delta)


@numeric
def occam_binomial(errors: Number, n: Number, nats: Number, delta: Number) -> Number:
    """P(Bin(n, R) <= errors) = delta P(h): the best that a union over hypotheses can do. For 0-1 losses, counted.

    Raises ValueError if the errors are no whole number from 0 to n. Has no gradient: counts do not move.
    """
    if not ((errors >= 0) & (errors <= n) & (errors == errors.round())).all():
        raise ValueError(f"{errors.tolist()} errors of {n.tolist()}: give a count from 0 to n, not a rate")
    return binomial_inverse(errors, n, torch.log(delta) - nats)


@numeric
def occam_kl(risk: Number, n: Number, nats: Number, delta: Number) -> Number:
    """kl(risk || R) <= (log 1/P(h) + log 1/delta) / n, by Chernoff's bound for each h and a union over all.

    For any losses in [0, 1]. Equals the smallest `catoni_at` over beta, and needs no search.
    """
    return kl_inverse(risk, (nats - delta.log()) / n)


@numeric
def occam_hoeffding(risk: Number, n: Number, nats: Number, delta: Number) -> Number:
    """R <= risk + sqrt((log 1/P(h) + log 1/delta) / 2n): the same with Hoeffding's bound, which does not see that a
    small risk varies little. For any losses in [0, 1]."""
    return risk + ((nats - delta.log()) / (2 * n)).sqrt()


# A posterior over hypotheses.


@numeric
def maurer(risk: Number, n: Number, kl: Number, delta: Number, *, sharp: bool = False) -> Number:
    """kl(risk || R) <= (KL + ln(2√n / delta)) / n, of Seeger with Maurer's constant. `sharp` puts `xi(n)` for 2√n.

    For any losses in [0, 1]; `risk` and R are those of the random classifier, averaged over Q.
    """
    return kl_inverse(risk, (kl + _any_posterior(n, delta, sharp)) / n)


@numeric
def gibbs(risk: Number, draws: Number, n: Number, kl: Number, delta: Number, delta_draws: Number = 0.01, *,
          sharp: bool = False) -> Number:
    """`maurer`, where the empirical risk itself was measured on `draws` independent classifiers from Q.

    Fails with probability at most delta + delta_draws. Each draw sees all n examples, or each example has draws of its
    own (`gaussian.py`); weights that a whole mini-batch shares are one draw. One side is enough, so that
    ln(1 / delta_draws) does where published code has ln(2 / delta_draws).
    """
    return maurer(occam_kl(risk, draws, 0.0, delta_draws), n, kl, delta, sharp=sharp)


@numeric
def mcallester(risk: Number, n: Number, kl: Number, delta: Number) -> Number:
    """R <= risk + sqrt((KL + ln(n / delta)) / (2n - 1)), the oldest, as today's code has it.

    Not below `classic` from n = 4 on, and so as valid.
    """
    return risk + ((kl + (n / delta).log()) / (2 * n - 1)).sqrt()


@numeric
def classic(risk: Number, n: Number, kl: Number, delta: Number) -> Number:
    """R <= risk + sqrt((KL + ln(2√n / delta)) / 2n): `maurer` by Pinsker's inequality. An objective with a gradient."""
    return risk + _half_rate(n, kl, delta).sqrt()


@numeric
def quadratic(risk: Number, n: Number, kl: Number, delta: Number) -> Number:
    """R <= (sqrt(risk + B) + sqrt(B))^2 with B = (KL + ln(2√n / delta)) / 2n: the better objective if risk is small.

    `maurer` by kl(q || p) >= (p - q)^2 / 2p. The smallest `thiemann` over lambda.
    """
    B = _half_rate(n, kl, delta)
    return ((risk + B).sqrt() + B.sqrt()).square()


@numeric
def thiemann(risk: Number, n: Number, kl: Number, delta: Number, lam: Number) -> Number:
    """R <= risk / (1 - lam/2) + (KL + ln(2√n / delta)) / (n lam (1 - lam/2)), for all lam in (0, 2) at once.

    Linear in risk and KL: train Q at a fixed `lam`, set it to `thiemann_lam`, and again.
    """
    return (risk + 2 * _half_rate(n, kl, delta) / lam) / (1 - lam / 2)


@numeric
def thiemann_lam(risk: Number, n: Number, kl: Number, delta: Number) -> Number:
    """The lam at which `thiemann` is smallest."""
    return 2 / ((risk / _half_rate(n, kl, delta) + 1).sqrt() + 1)


@numeric
def catoni_at(risk: Number, n: Number, kl: Number, delta: Number, beta: Number) -> Number:
    """R <= (1 - exp(-beta risk - (KL + ln 1/delta) / n)) / (1 - exp(-beta)), for one beta > 0 fixed beforehand.

    For a single h, with its nats for KL, any beta will do, also the best in hindsight: that is `occam_kl`.
    """
    return _uncurved(risk + (kl - delta.log()) / (n * beta), beta)


@numeric
def catoni(risk: Number, n: Number, kl: Number, delta: Number, *, alpha: Number = 1e-4) -> Number:
    """`catoni_at` with the best beta = lam / n in hindsight, for the price of a union over a grid of ratio 1 + alpha:

        R <= min over lam > 1 of (1 - e^(-lam q / n)) / (1 - e^(-lam / n)),
        q = risk + (1 + alpha) / lam * [KL + ln 1/delta + 2 ln(2 + ln lam / ln(1 + alpha))].

    As in the code of Lotfi et al. (2022), whose search for lam can run off to a bound of 100 % where the risk is large.
    It holds for every lam: a search that stops early costs tightness and not truth.
    """
    risk, n, kl = (x[..., None] for x in torch.broadcast_tensors(risk, n, kl))

    def at(lam: Tensor) -> Tensor:
        paid = kl - delta.log() + 2 * (2 + lam.log() / alpha.log1p()).log()
        return _uncurved(risk + (1 + alpha) * paid / lam, lam / n)

    with torch.no_grad():
        low, high = torch.zeros_like(n), (50 * n).log()  # of ln lam; beta = 50 is best only for risks next to 0 or 1
        for _ in range(5):
            tried = low + (high - low) * torch.linspace(0, 1, 101, dtype=n.dtype, device=n.device)
            best = tried.gather(-1, at(tried.exp()).argmin(dim=-1, keepdim=True))
            width = (high - low) / 100
            low, high = (best - width).clamp(min=0), best + width
    return at(best.exp())[..., 0]


def xi(n: int) -> float:
    """E exp(n kl(k/n || p)) for k of Bin(n, p), the same for all p: what 2√n in `maurer` is an upper bound of."""
    k, N = torch.arange(n + 1, dtype=torch.float64), torch.tensor(float(n), dtype=torch.float64)
    return float((log_choose(N, k) + torch.xlogy(k, k / n) + torch.xlogy(n - k, 1 - k / n)).logsumexp(0).exp())


def _any_posterior(n: Tensor, delta: Tensor, sharp: bool = False) -> Tensor:
    """ln(2√n / delta), what it costs that Q may be any."""
    if sharp:
        constant = torch.tensor([xi(int(count)) for count in n.flatten()], dtype=n.dtype, device=n.device).view(n.shape)
    else:
        constant = 2 * n.sqrt()
    return constant.log() - delta.log()


def _half_rate(n: Tensor, kl: Tensor, delta: Tensor) -> Tensor:
    return (kl + _any_posterior(n, delta)) / (2 * n)


def _uncurved(x: Tensor, beta: Tensor) -> Tensor:
    """Catoni's (1 - e^(-beta x)) / (1 - e^-beta): from the curved risk that his argument bounds to the risk itself."""
    return torch.expm1(-beta * x) / torch.expm1(-beta)


# What complexity costs.


def prefix_free_bits(bits: int) -> int:
    """The length of a message of `bits` bits that also says where it ends: bits + 2 floor(log2 bits) + 1.

    Its length comes first, in Elias' gamma code. Over all messages 2^-length sums to 1: a prior (Kraft). The papers'
    bits + 2 log2(bits) is within a bit of it. Raises ValueError for an empty message.
    """
    if bits < 1:
        raise ValueError(f"a message of {bits} bits says nothing: give the length of the encoded file in bits")
    return bits + 2 * (bits.bit_length() - 1) + 1


def nats_of(bits: float) -> float:
    """bits * ln 2: log 1/P(h) for the prior 2^-bits."""
    return bits * math.log(2)


def uniform_nats(tried: int) -> float:
    """The price of having chosen one of `tried` settings. All that were tried count, the failures too."""
    if tried < 1:
        raise ValueError(f"{tried} settings tried: count the one that you kept")
    return math.log(tried)


def ranked_nats(rank: int) -> float:
    """The price of the setting at place `rank`, from 1, of an endless list: P(j) = 1 / (j (j + 1)) sums to 1.

    The order is fixed beforehand, likely settings first.
    """
    if rank < 1:
        raise ValueError(f"rank {rank}: places count from 1")
    return math.log(rank * (rank + 1))


# Which examples.


def unseen(total: int, seen: Int[Tensor, "S"]) -> Int[Tensor, "n"]:
    """The examples that a data-dependent prior has not learned from. Risk and n of the bound are theirs alone.

    Raises ValueError if none is left.
    """
    left = torch.ones(total, dtype=torch.bool, device=seen.device)
    left[seen] = False
    if not left.any():
        raise ValueError(f"the prior has seen all {total} examples: keep some from it, which the bound can use")
    return left.nonzero()[:, 0]


def warn_if_dependent(losses: Float[Tensor, "n"], *, sigmas: float = 5.0) -> None:
    """Warns if neighbors in the order of collection have losses more alike, or less, than chance would make them.

    sqrt(n) times the correlation of each loss with the next is near N(0, 1) for independent losses. Only the order of
    collection can show this. Shuffling hides it, and makes nothing independent.
    """
    x = losses.double() - losses.double().mean()
    score = float((x[:-1] * x[1:]).sum() / x.square().sum().clamp(min=1e-300)) * math.sqrt(len(x))
    if abs(score) > sigmas:
        warnings.warn(f"losses of neighboring examples are correlated ({score:+.0f} standard deviations): they are not "
                      "independent, and bounds for independent examples do not hold. For a sequence in its order there "
                      "is minilab.pacbayes.sequences.", stacklevel=2)
