"""Masked inputs: the next token is to be found although some of the tokens before it are hidden.

Masked-input regularization (Xu et al. 2026, arXiv 2606.06888) adds to the usual loss the same loss on inputs of which
random tokens are replaced by a mask; what is to be predicted stays as it is, and so does the attention:

    L = CE(x -> y) + weight · CE(masked x -> y)

From their published code: the share of hidden tokens is uniform in [0, 1/2] for each window, each token is drawn alone,
the first 8 are spared, all positions count, and the weight is 0.4. What is ours:

- The mask is a token that no text has (`unused_token`), and not one more in the vocabulary: shapes and beginnings stay
  those of plain training. They use dropout and another schedule beside it, we do not.
- Masks are a hash of what is in the member's batch, and not random numbers with a state. A batch is a function of seed
  and step, so a resumed run has the masks of the one that was not interrupted, on any device, and a graph can replay
  them. A window gets other masks in every epoch since its companions are others: batches of one window have one mask.

Shapes: K members, B windows a step of T tokens and one more.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from minilab.ensembles.data import tokenizer
from minilab.ensembles.model import Stack

BITS = 32  # of a hash, in 64: products do not overflow


@dataclass(frozen=True)
class MaskedInputs:
    """CE + weight · CE on inputs of which random tokens are hidden, at the price of two passes a step.

        train_members(windows, config, hypers, run, loss=MaskedInputs(unused_token(vocab)).losses)
    """

    token: int  # that stands for a hidden one
    weight: float = 0.4
    most: float = 0.5  # a window's share of hidden tokens is uniform from 0 to this
    spared: int = 8  # first tokens of a window, which are never hidden

    def __post_init__(self) -> None:
        if not (self.token >= 0 and self.weight > 0 and 0 <= self.most <= 1 and self.spared >= 0):
            raise ValueError(f"{self}: give a token of the vocabulary, a positive weight, a share from 0 to 1, and a "
                             "number of tokens to spare that is not negative")

    def losses(self, model: Stack, windows: Int[Tensor, "K B T1"]) -> Float[Tensor, "K"]:
        """Mean over tokens, for each member. For `train_members`."""
        masked = windows[..., :-1].masked_fill(self.hidden(windows), self.token)  # K B T
        return model.losses(windows) + self.weight * model.losses(windows, read=masked)

    def hidden(self, windows: Int[Tensor, "K B T1"]) -> Bool[Tensor, "K B T"]:
        """Which tokens are replaced. Member k's depend on windows[k] alone, so it has those that it has alone."""
        u = uniform(windows)
        share = self.most * u[..., -1:]  # the last token is read by nobody: its number is the window's
        hidden = u[..., :-1] < share
        hidden[..., : self.spared] = False
        return hidden


def unused_token(vocab: int) -> int:
    """The token of the byte 0xFF, which UTF-8 never has."""
    return tokenizer(vocab).token_to_id("ÿ")  # as a byte-level tokenizer spells it


def uniform(windows: Int[Tensor, "K B T1"]) -> Float[Tensor, "K B T1"]:
    """Numbers in [0, 1) that look random, a function of all windows of a member's batch and of their order."""
    B, T1 = windows.shape[1:]
    place = mixed(1 + torch.arange(B * T1, device=windows.device).view(B, T1))
    batch = mixed(windows ^ place).sum(dim=(1, 2), keepdim=True) % 2**BITS  # K 1 1
    return (mixed(mixed(batch) ^ place) >> 8).float() / 2 ** (BITS - 8)  # as many bits as a float holds


def mixed(x: Int[Tensor, "*n"]) -> Int64[Tensor, "*n"]:
    """A permutation of the numbers of 32 bits, after which neighbors have nothing in common (T. Mueller's hash)."""
    for _ in range(2):
        x = ((x >> 16) ^ x) * 0x45D9F3B % 2**BITS
    return (x >> 16) ^ x
