"""The speculation cache of one round: for each outcome that was prepared, the next speculation, ready made.

Definition 4 of Kumar, Dao and May (2026). A key is a verification outcome, (k accepted tokens, bonus token); its
value are K draft tokens and the distributions that they were drawn from, since verification is exact only
with respect to those. The cache lives for one round and is then dropped.

Shapes: B batch, M branches a row, K draft tokens, V vocabulary.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class SpeculationCache:
    accepted: Int[Tensor, "B M"]  # k of each key
    bonus: Int[Tensor, "B M"]  # bonus token of each key
    tokens: Int[Tensor, "B M K"]
    probs: Float[Tensor, "B M K V"] | None = None  # when greedy: each distribution is one-hot at its token

    def lookup(self, accepted: Int[Tensor, "B"], bonus: Int[Tensor, "B"]
               ) -> tuple[Bool[Tensor, "B"], Int[Tensor, "B K"], Float[Tensor, "B K V"] | None]:
        """Which rows hit, and the speculation of each (of its first branch where it missed)."""
        match = (self.accepted == accepted[:, None]) & (self.bonus == bonus[:, None])  # B M, at most one a row
        rows, branch = torch.arange(len(match), device=match.device), match.long().argmax(dim=1)
        return match.any(dim=1), self.tokens[rows, branch], None if self.probs is None else self.probs[rows, branch]

    def keys(self) -> list[list[tuple[int, int]]]:
        """The outcomes (k, bonus token) of each row's branches."""
        return [list(zip(*row, strict=True)) for row in zip(self.accepted.tolist(), self.bonus.tolist(), strict=True)]

    @property
    def nbytes(self) -> int:
        parts = (self.accepted, self.bonus, self.tokens, self.probs)
        return sum(t.numel() * t.element_size() for t in parts if t is not None)


def branches_within(max_bytes: int | None, wanted: int, *, rows: int, K: int, vocab_size: int, greedy: bool) -> int:
    """How many branches a row may have so that the cache of `rows` rows stays within `max_bytes` (None: no limit).

    A branch takes 16 + 8 K bytes for its key and tokens, and 4 K V more for its distributions unless greedy.
    Raises ValueError if not even one fits.
    """
    if max_bytes is None:
        return wanted
    branch = 16 + 8 * K + (0 if greedy else 4 * K * vocab_size)
    fit = max_bytes // (branch * rows)
    if fit < 1:
        raise ValueError(f"a cache of {max_bytes} bytes is too small for one branch a row: {rows} rows of K={K} "
                         f"tokens and V={vocab_size} need {branch * rows} bytes. Raise cache_bytes or lower K")
    return min(wanted, fit)
