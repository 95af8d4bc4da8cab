"""Turning logits into distributions and distributions into tokens.

`target_probs` is what both models go through before any comparison: speculative decoding is exact with
respect to the *processed* distribution (temperature, top-k, top-p), so draft and target must be
processed by the same settings (Leviathan et al. 2023, appendix A.1).

Shapes: V vocabulary; leading dimensions are free.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen from logits."""

    temperature: float = 0.0  # 0 is greedy: all mass on the largest logit
    top_k: int | None = None  # keep the k most likely tokens
    top_p: float | None = None  # then the smallest set of them whose mass reaches p

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be a finite number >= 0, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], not {self.top_p}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


GREEDY = Sampling()


def target_probs(logits: Float[Tensor, "*b V"], sampling: Sampling) -> Float[Tensor, "*b V"]:
    """The distribution that decoding samples from: temperature, then top-k, then top-p, renormalized.

    At temperature 0 it is one-hot at the arg max (the first one, if logits tie).
    """
    logits = logits.float()
    if sampling.greedy:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    logits = logits / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        # Exactly k tokens stay, also where logits tie: a threshold on the value would keep more.
        kept = logits.topk(sampling.top_k, dim=-1).indices
        logits = torch.full_like(logits, float("-inf")).scatter_(-1, kept, logits.gather(-1, kept))
    probs = logits.softmax(dim=-1)
    if sampling.top_p is not None and sampling.top_p < 1:
        sorted_probs, order = probs.sort(dim=-1, descending=True, stable=True)
        # A token stays while the mass before it is short of p; the first always stays.
        before = sorted_probs.cumsum(dim=-1) - sorted_probs
        sorted_probs = sorted_probs.masked_fill(before >= sampling.top_p, 0.0)
        probs = torch.zeros_like(probs).scatter_(-1, order, sorted_probs)
        probs = probs / probs.sum(dim=-1, keepdim=True)
    return probs


def sample(probs: Float[Tensor, "*b V"], generator: torch.Generator | None = None) -> Int[Tensor, "*b"]:
    """One token from each distribution: the first to arrive if token x takes an exponential time of rate p(x).

    That is `torch.multinomial`, less its checks, for which a GPU would have to wait.
    """
    return (probs / torch.empty_like(probs).exponential_(generator=generator)).argmax(dim=-1)


def residual(p: Float[Tensor, "*b V"], q: Float[Tensor, "*b V"]) -> Float[Tensor, "*b V"]:
    """norm(max(0, p - q)): where the bonus token comes from after a rejection.

    Where p and q agree to rounding the residual has no mass; a rejection then has probability zero, and
    p itself is returned so that the result is a distribution all the same.
    """
    excess = (p - q).clamp(min=0)
    mass = excess.sum(dim=-1, keepdim=True)
    return torch.where(mass > 0, excess / mass.clamp(min=torch.finfo(p.dtype).tiny), p)


def acceptance(p: Float[Tensor, "*b V"], q: Float[Tensor, "*b V"]) -> Float[Tensor, "*b"]:
    """beta = sum_x min(p(x), q(x)), the chance that a draft token is accepted; 1 minus total variation."""
    return torch.minimum(p, q).sum(dim=-1)


def starve(probs: Float[Tensor, "*b V"], top: int, C: float) -> Float[Tensor, "*b V"]:
    """Saguaro sampling (Kumar, Dao and May 2026, Definition 14): the `top` likeliest tokens times C, renormalized.

    At C = 1 nothing changes; at C = 0 they are never drawn, unless no other token has any mass. The authors'
    code takes one token more than the definition, since the drafted token is not among the guesses.
    """
    if not 0 <= C <= 1:
        raise ValueError(f"C must lie in [0, 1], not {C}")
    if C == 1 or top < 1:
        return probs
    best = probs.topk(min(top, probs.shape[-1]), dim=-1)
    starved = probs.scatter(-1, best.indices, C * best.values)
    mass = starved.sum(dim=-1, keepdim=True)
    return torch.where(mass > 0, starved / mass.clamp(min=torch.finfo(probs.dtype).tiny), probs)


def draw(logits: Float[Tensor, "*b V"], sampling: Sampling, generator: torch.Generator | None, C: float = 1.0,
         top: int = 0) -> tuple[Int[Tensor, "*b"], Float[Tensor, "*b V"] | None]:
    """A token and the very distribution it was drawn from (None when greedy, where C has no say).

    Saguaro sampling: the `top` likeliest tokens, those that are guessed as bonus tokens, are proposed less
    often by the factor C, so that a rejection leaves the residual on them.
    """
    if sampling.greedy:
        return logits.argmax(dim=-1), None
    q = starve(target_probs(logits, sampling), top, C)
    return sample(q, generator), q
