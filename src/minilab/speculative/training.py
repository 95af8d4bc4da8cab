"""How the chapter's own target and draft are made: next-token training, and distillation of the draft.

A draft is judged by one number, the overlap sum_x min(p, q) with the target. Distillation (Hinton et al.
2015) trains on the target's whole distribution p instead of the one token that the text happened to have.
"""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minilab.core.progress import progress
from minilab.nn.transformer import Block, Transformer
from minilab.speculative.decoding import autoregressive, collect
from minilab.speculative.sampling import GREEDY, Sampling, acceptance, target_probs


def windows(tokens: Int[Tensor, "n"], length: int, batch: int, *, seed: int, device="cpu"
            ) -> Callable[[int], Int[Tensor, "batch length1"]]:
    """Batches for `core.train.train`: step -> random windows of length + 1 tokens.

    The batch depends on the step alone, so a resumed run sees the same data. Raises ValueError if the text
    is shorter than one window.
    """
    if len(tokens) <= length:
        raise ValueError(f"{len(tokens)} tokens are fewer than one window of {length + 1}")
    tokens = tokens.to(device)
    reach = torch.arange(length + 1)

    def draw(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        starts = torch.randint(len(tokens) - length, (batch, 1), generator=generator)
        return tokens[(starts + reach).to(tokens.device)].long()

    return draw


def by_blocks(model: Transformer) -> Callable[[Tensor], Tensor]:
    """`model` on texts from their beginning, each of its blocks run by one compiled function.

    That takes seconds to compile however many blocks there are. The model stays as it is: what decodes with it later,
    in shapes of all kinds, runs nothing compiled.
    """
    block = torch.compile(Block.forward)

    def forward(tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return model.read(tokens, positions, mask=None, causal=True, at=None, apply=block)

    return forward


def next_token_loss(model: Callable[[Tensor], Tensor], batch: Int[Tensor, "B T1"]) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats of each token given those before it."""
    logits = model(batch[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


def distillation_loss(teacher: nn.Module) -> Callable[[Callable, Tensor], Tensor]:
    """A loss for `train`: mean KL(p || q) in nats between the teacher's and the student's next-token laws."""

    def loss(model: Callable[[Tensor], Tensor], batch: Int[Tensor, "B T1"]) -> Float[Tensor, ""]:
        with torch.no_grad():
            log_p = F.log_softmax(teacher(batch[:, :-1]).float(), dim=-1)
        log_q = F.log_softmax(model(batch[:, :-1]).float(), dim=-1)
        return F.kl_div(log_q.flatten(0, 1), log_p.flatten(0, 1), log_target=True, reduction="batchmean")

    return loss


def blocks(tokens: Int[Tensor, "n"], length: int, batch: int) -> Iterator[Int[Tensor, "b length1"]]:
    """The text cut into windows that overlap by one token, so that each is predicted once; the rest is left.

    Raises ValueError if the text is shorter than one window.
    """
    if len(tokens) <= length:
        raise ValueError(f"{len(tokens)} tokens are fewer than one window of {length + 1}")
    count = (len(tokens) - 1) // length
    cut = torch.stack([tokens[i * length : (i + 1) * length + 1] for i in range(count)]).long()
    yield from cut.split(batch)


@torch.no_grad()
def bits_per_byte(model: Transformer, tokens: Int[Tensor, "n"], bytes_per_token: float, *, length: int = 256,
                  batch: int = 16) -> float:
    """Compression of a text: cross-entropy in bits over the bytes that its tokens spell.

    Unlike loss per token it does not depend on the tokenizer.
    """
    losses = [next_token_loss(model, b.to(model.device)) * len(b) for b in blocks(tokens, length, batch)]
    count = (len(tokens) - 1) // length
    return float(sum(losses)) / count / math.log(2) / bytes_per_token


@torch.no_grad()
def overlap(target: Transformer, draft: Transformer, tokens: Int[Tensor, "n"], sampling: Sampling, *,
            length: int = 256, batch: int = 16) -> float:
    """Mean acceptance sum_x min(p, q) over the positions of a text: no decoding, low variance."""
    total, count = 0.0, 0
    for b in blocks(tokens, length, batch):
        p, q = (target_probs(m(b[:, :-1].to(m.device)), sampling) for m in (target, draft))
        total, count = total + float(acceptance(p, q).sum()), count + b[:, 1:].numel()
    return total / count


def continuations(model: Transformer, prompts: list[list[int]], *, new_tokens: int, batch: int,
                  sampling: Sampling = GREEDY, stop: tuple[int, ...] = (), seed: int = 0) -> list[list[int]]:
    """What the model itself writes after each prompt: the text on which a draft will have to agree with it."""
    generator = torch.Generator(model.device).manual_seed(seed)
    written = []
    for i in progress(range(0, len(prompts), batch), desc="sampling"):
        part = prompts[i : i + batch]
        result = collect(autoregressive(model, part, max_new_tokens=new_tokens, sampling=sampling, stop=stop,
                                        generator=generator), len(part))
        written += [p + new for p, new in zip(part, result.tokens, strict=True)]
    return written
