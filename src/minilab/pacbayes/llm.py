"""Bounds for language models, in bits per token.

A message names a model (`lora`, `subspace`, `quantize`, `message`). It is decoded, the model rebuilt and scored on the
text that it was trained on, and then one of three bounds on its true risk holds with probability 1 - delta:

    documents    new documents of the same kind, each weighing the same; documents independent     `document_bound`
    tokens       each token drawn again after the past that it had; no independence (Azuma)        `token_bound`
    foreseen     the same risk; the model's entropy foresees its loss (Freedman)                   `foreseen_bound`

After Lotfi et al. (2024, two papers) and Finzi et al. (2025). Guessing costs log2 V bits. Notable:

- A token sees those before it in its window, which begins anew every `length` tokens and with each document. To score
  with more context lowers the loss; any rule that looks at the past alone will do.
- Losses end at log2(V / alpha) by mixing the model with the uniform law. The first two bounds choose the share alpha
  after the fact from `ALPHAS`, for ln 8 nats. The third computes it from the length of the message: that is free.
- Documents are few, tokens many: a message of 1,000 bits is nothing beside 600,000 tokens, and too much for 128
  documents. But pages of one manual are hardly independent, and tokens need not be.
- The tokenizer decides what a token is and so belongs to the prior: it must not have seen the text. Ours learned from
  the full corpus, which has the standard library's docstrings ("stdlib") but not the pages of "shipped". Strictly,
  bounds hold on "shipped"; on "stdlib" they are what a bound would be if 4,096 byte strings had been chosen elsewhere.

Shapes: R windows of L tokens and one more, T tokens scored, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from minilab.core.train import TrainConfig, TrainLog, train
from minilab.pacbayes.bounds import nats_of, uniform_nats
from minilab.pacbayes.compress import TRIED, Recipe, begun, rebuild, written
from minilab.pacbayes.message import SEAL
from minilab.pacbayes.networks import Build
from minilab.pacbayes.sequences import azuma, best_alpha, entropy, freedman, smoothed, smoothed_span, subsampled

ALPHAS = (1e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.25, 0.5)  # of Lotfi et al.
NONE = -1  # no token: behind the end of a document


class Text(NamedTuple):
    """Documents in windows, the last token of one being the first of the next: each token is predicted once."""

    rows: Int64[Tensor, "R L1"]
    document: Int64[Tensor, "R"]  # which one a window is of, from 0, in order


def windows(stream: Int[Tensor, "n"], length: int, *, separator: int = 0) -> Text:
    """A stream of tokens, as `corpus.text.token_stream` gives it, in windows of `length` predictions and one document.

    The separator begins a document and is the last token to be predicted of the one before.
    """
    ends = (stream == separator).nonzero()[:, 0].tolist()
    places = [(i, start, min(start + length, end) + 1)
              for i, (begin, end) in enumerate(pairwise(ends)) for start in range(begin, end, length)]
    if not places:
        raise ValueError(f"{len(stream)} tokens with {len(ends)} separators ({separator}): a document has one before "
                         "and one behind it")
    rows = pad_sequence([stream[start:end].long() for _, start, end in places], batch_first=True, padding_value=NONE)
    return Text(rows, torch.tensor([i for i, _, _ in places]))


def drawn_documents(text: Text, m: int, generator: torch.Generator) -> Text:
    """m of the documents, with replacement. A document that is drawn twice counts as two."""
    parts = text.rows.split(text.document.bincount().tolist())
    rows = [parts[i] for i in torch.randint(len(parts), (m,), generator=generator).tolist()]
    return Text(torch.cat(rows), torch.arange(m).repeat_interleave(torch.tensor([len(part) for part in rows])))


# From text to a message.


def learn(text: Text, V: int, recipe: Recipe, *, networks: Sequence[Build]) -> bytes:
    """Train v, then v rounded to a codebook, and write the file that `compress.rebuild` opens. On the text's device."""
    if recipe.power:
        raise ValueError(f"power is {recipe.power}, but bits per token are cross-entropy: give power=0")
    subspace = begun(recipe, (), V, networks).to(text.rows.device)

    def taught(model: nn.Module, steps: int, lr: float) -> None:
        fit(model, text, recipe, steps=steps, lr=lr)

    taught(subspace, recipe.steps, recipe.lr)
    return written(subspace, recipe, networks, taught)


def fit(model: nn.Module, text: Text, recipe: Recipe, *, steps: int, lr: float) -> TrainLog:
    """Train what of `model` asks for it on windows drawn at random: Adam, and half a cosine down."""

    def batches(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        return text.rows[torch.randint(len(text.rows), (recipe.batch,), generator=generator).to(text.rows.device)]

    def loss(model: nn.Module, rows: Tensor) -> Tensor:
        logits = model(rows[:, :-1].clamp(min=0))  # B L V
        return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), ignore_index=NONE)

    config = TrainConfig(steps, lr=lr, betas=(0.9, 0.999), weight_decay=0.0, min_lr_ratio=0.02, clip=None,
                         precision="fp32", replay=recipe.replay)
    return train(model, batches, loss, config)


# From a model to its losses.


class Scored(NamedTuple):
    """What a model says to tokens, in their order."""

    log_p: Float[Tensor, "T"]  # ln p of each token, not smoothed
    foreseen: Float[Tensor, "T"] | None  # the loss that the smoothed model expects, before it sees the token
    document: Int64[Tensor, "T"]
    alpha: float | None  # of `foreseen`
    V: int

    @property
    def bits(self) -> float:
        """Per token, not smoothed."""
        return -float(self.log_p.mean()) / math.log(2)

    def losses(self, alpha: float) -> Float[Tensor, "T"]:
        """-ln((1 - alpha) p + alpha / V)."""
        uniform = torch.full_like(self.log_p, math.log(alpha / self.V))
        return -torch.logaddexp(self.log_p + math.log1p(-alpha), uniform)


@torch.no_grad()
def score(model: nn.Module, text: Text, *, alpha: float | None = 0.01, picked: Int64[Tensor, "m"] | None = None,
          chunk: int = 2048) -> Scored:
    """All tokens of a text, or those `picked` by their number, each after its window's tokens before it.

    `chunk` tokens at a time. Without an `alpha` nothing is foreseen, which takes a third of the time.
    """
    row, column = (text.rows[:, 1:] >= 0).nonzero(as_tuple=True)
    if picked is not None:
        row, column = row[picked], column[picked]
    log_p, foreseen = [], []
    for r, c in zip(row.split(chunk), column.split(chunk), strict=True):
        needed, place = r.unique(return_inverse=True)
        logits = model(text.rows[needed, :-1].clamp(min=0))[place, c]  # chunk V
        log_probs = logits.float().log_softmax(dim=-1)
        log_p.append(log_probs.gather(1, text.rows[r, c + 1][:, None])[:, 0].double())
        if alpha is not None:
            foreseen.append(entropy(smoothed(log_probs, alpha)).double())
    return Scored(torch.cat(log_p).cpu(), torch.cat(foreseen).cpu() if foreseen else None, text.document[row].cpu(),
                  alpha, logits.shape[-1])


# From losses to bounds.


@dataclass(frozen=True)
class Bound:
    """In bits per token."""

    value: float
    loss: float  # of the smoothed model, where it was scored
    alpha: float  # the share of the uniform law
    V: int

    @property
    def vacuous(self) -> bool:
        """Guessing, which costs log2 V, does as well: the bound says nothing."""
        return self.value >= math.log2(self.V)


def document_bound(scored: Scored, nats: float, delta: float, *, n: int | None = None) -> Bound:
    """On the mean over new documents of their mean loss a token. All documents of the text were scored, or some
    `drawn_documents` of n.

    Raises ValueError if only some tokens of the text were.
    """
    tokens = scored.document.bincount().double()
    if not tokens.all():
        raise ValueError("a document has no token that was scored: draw documents with `drawn_documents`, not tokens")

    def mean(losses: Tensor) -> Tensor:
        return (torch.zeros_like(tokens).index_add(0, scored.document, losses) / tokens).mean()

    return _least(scored, mean, len(tokens), n, nats, delta)


def token_bound(scored: Scored, nats: float, delta: float, *, n: int | None = None) -> Bound:
    """On the mean over tokens of the loss if each were drawn again after the same past. All tokens of the text were
    scored, or some of n, `picked` uniformly with replacement."""
    return _least(scored, torch.mean, len(scored.log_p), n, nats, delta)


def _least(scored: Scored, mean: Callable[[Tensor], Tensor], m: int, n: int | None, nats: float, delta: float) -> Bound:
    """The least bound over `ALPHAS`, having paid for the choice, from m losses of n, or all where n is None."""
    nats, found = nats + uniform_nats(len(ALPHAS)), []
    for alpha in ALPHAS:
        loss, span = float(mean(scored.losses(alpha))), smoothed_span(alpha, scored.V)
        value = azuma(loss, m, nats, delta, span) if n is None else subsampled(loss, n, m, nats, delta, span)
        found.append(_bits(value, loss, alpha, scored.V))
    return min(found, key=lambda bound: bound.value)


def foreseen_bound(scored: Scored, nats: float, delta: float) -> Bound:
    """On the risk of `token_bound`, and below it where the model knows how much it will lose. All tokens were scored.

    At the alpha of `scored`, which was fixed beforehand or follows from the message, as `best_alpha` of its length.
    Raises ValueError if it was scored without one.
    """
    if scored.alpha is None:
        raise ValueError("nothing was foreseen: give `score` an alpha")
    span = smoothed_span(scored.alpha, scored.V)
    found = freedman(scored.losses(scored.alpha), scored.foreseen, nats, delta, span=span)
    return _bits(found.value, found.loss, scored.alpha, scored.V)


def _bits(value: float, loss: float, alpha: float, V: int) -> Bound:
    return Bound(value / math.log(2), loss / math.log(2), alpha, V)


@dataclass(frozen=True)
class Certified:
    """What a file certifies. Each bound holds with probability 1 - delta, all three with 1 - 3 delta."""

    bits: int  # of the message
    loss: float  # bits per token of the model in the file, not smoothed
    documents: Bound
    tokens: Bound
    foreseen: Bound


def certificate(file: bytes, text: Text, V: int, *, networks: Sequence[Build], delta: float = 0.05,
                tried: int = TRIED) -> Certified:
    """What a file certifies, from the file and the text alone: rebuild the model, score every token, and bound."""
    model = rebuild(file, (), V, networks=networks).to(text.rows.device)
    bits = 8 * (len(file) - SEAL)
    nats = nats_of(bits) + uniform_nats(tried)
    scored = score(model, text, alpha=best_alpha(nats / int((text.rows[:, 1:] != NONE).sum())))
    bounds = (bound(scored, nats, delta) for bound in (document_bound, token_bound, foreseen_bound))
    return Certified(bits, scored.bits, *bounds)
