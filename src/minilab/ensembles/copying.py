"""Do members learn to copy? What each saves on random tokens that it reads a second time.

Olsson et al. (2022): at some step of its training a transformer of two layers or more begins to look back for where
the present token stood before, and to say what followed it there ("induction heads"). Its loss falls within few steps.

Shapes: K members.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.ensembles.model import Stack

COPIES = 0.1  # nats: who saves more is said to copy


@torch.no_grad()
def saved_by_copying(members: Stack, length: int, *, n: int = 64, seed: int = 0) -> Float[Tensor, "K"]:
    """Nats a token by which each member's loss on random tokens falls when it reads them again, in one window.

    Windows are `length` long: a half of tokens that are drawn evenly and without order, and the same half once more. Of
    the second reading the first token counts for nothing, since nothing before it says that a second reading begins.
    Zero for who cannot look back, and near ln V for a perfect copyist. Raises ValueError for windows shorter than 4.
    """
    if length < 4:
        raise ValueError(f"windows of {length} tokens are too short to be read twice: give at least 4")
    half, vocab = length // 2, members.config.vocab_size
    drawn = torch.randint(vocab, (n, half), generator=torch.Generator().manual_seed(seed))
    tokens = drawn.repeat(1, 2).to(members.device)
    total = torch.zeros(members.K, 2)
    for rows in tokens.split(16):
        logits = members(rows[:, :-1].expand(members.K, len(rows), -1)).float()
        nll = -logits.log_softmax(dim=-1).gather(3, rows[None, :, 1:, None].expand(members.K, -1, -1, 1))[..., 0]
        total += torch.stack((nll[..., : half - 1].sum((1, 2)), nll[..., half:].sum((1, 2))), dim=1).cpu()
    first, second = (total / (n * (half - 1))).unbind(dim=1)
    return first - second
