"""What to send to the target after a miss: section 4.3 of Kumar, Dao and May (2026).

- `jit` (just in time): the draft drafts as in plain speculation, while the target waits.
- `ngram`: what followed the last words when they last occurred; costs nothing, and is right where text repeats.
- `random`: any tokens. The authors' fast fallback; it buys one token of the target's own and a next chance to hit.

The last two propose with certainty: their q is one-hot, so the target keeps a token with its own probability p
and else draws from p without it. That is exact at every temperature, the token's luck included.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

FALLBACKS = ("jit", "ngram", "random")


def check_fallback(name: str) -> None:
    """Raise ValueError with the choices unless `name` is one."""
    if name not in FALLBACKS:
        raise ValueError(f"unknown fallback {name!r}; choose one of {', '.join(FALLBACKS)}")


def fast_fallback(name: str, sequences: Sequence[Sequence[int]], K: int, vocab_size: int,
                  generator: torch.Generator | None) -> Int[Tensor, "B K"]:
    """K tokens for each row without a model: "ngram" or "random"."""
    guesses = torch.randint(vocab_size, (len(sequences), K), generator=generator,
                            device=generator.device if generator else None)
    if name == "ngram":
        for row, sequence in enumerate(sequences):
            if found := follow_ngram(sequence, K):
                guesses[row] = torch.tensor(found, device=guesses.device)
    return guesses


def follow_ngram(sequence: Sequence[int], K: int, longest: int = 3) -> list[int] | None:
    """What followed the latest earlier occurrence of the last tokens, None if not even the last one came before.

    The longest match of up to `longest` tokens decides. A continuation that runs into the present is periodic.
    """
    sequence = list(sequence)
    for n in range(min(longest, len(sequence) - 1), 0, -1):
        tail = sequence[-n:]
        for start in range(len(sequence) - n - 1, -1, -1):
            if sequence[start : start + n] == tail:
                period = sequence[start + n :]
                return (period * K)[:K]
    return None


def certain(tokens: Int[Tensor, "B K"], vocab_size: int) -> Float[Tensor, "B K V"]:
    """The distributions of tokens that were proposed with certainty."""
    return F.one_hot(tokens, vocab_size).float()
