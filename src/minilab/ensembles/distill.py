"""Distill an ensemble into one member: a fresh student learns from real text and from text that its teachers write.

Sequence-level distillation (Kim & Rush 2016) as Kim et al. (2025) use it: a teacher writes windows at temperature 1, a
share w of each batch is such windows, and the student needs no heavy decay. Notable:

- "The ensemble's samples" are either of two laws, and the paper's code suggests the first:
      mixture     each window has one member for its author       (1/K) sum_k prod_t p_k(x_t | x_<t)
      ensemble    all members agree on each token                 prod_t (1/Z_t) exp((1/K) sum_k log p_k(x_t | x_<t))
- Real text is seen E times however large w is, so a student takes S·E / (1 - w) steps.
- `Imitation` is the other way, which the paper does not take: the teacher's probabilities on real text, no samples.

Shapes: n windows of T + 1 tokens, K members, B windows a step, S steps an epoch, R windows held out, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor

from minilab.ensembles.members import Hyper, Members, RunConfig, order, train_members
from minilab.ensembles.model import Stack, stack, weights_sha256
from minilab.nn.transformer import TransformerConfig

AFTER_EPOCHS = 500_000  # samples' permutations count from here: an epoch's own would pair a real window with one sample

# Samples.


@torch.no_grad()
def sample_windows(model: Stack, n: int, length: int, generator: torch.Generator, *,
                   start_token: int | Int[Tensor, "n"], source: str | int = "mixture", batch: int = 512
                   ) -> Int64[Tensor, "n T1"]:
    """n windows of `length` tokens that the members write after the start token, which is the first of the window.

    `source` is "mixture" (window i is member i mod K's), "ensemble", or the number of one member. A document that ends
    makes room for the next, as in windows cut from real text. Those begin anywhere: `start_token` may be a token for
    each window, as real windows' first ones. `batch` windows at a time need memory; up to rounding they change nothing
    else. Raises ValueError for another source, numbers or tokens that the model does not have, and weights that are not
    finite.
    """
    if isinstance(source, int) and 0 <= source < model.K:
        model, source = stack([model.member(source)]), "mixture"
    if source not in ("mixture", "ensemble"):
        raise ValueError(f"source = {source!r}: choose mixture, ensemble, or a member from 0 to {model.K - 1}")
    if n < 1 or batch < 1 or not 1 <= length <= model.config.context:
        raise ValueError(f"{n} windows of {length} tokens, {batch} at a time: give positive numbers, and a length "
                         f"within the model's context of {model.config.context}")
    first = torch.as_tensor(start_token).cpu().expand(n)
    if not 0 <= int(first.min()) <= int(first.max()) < model.config.vocab_size:
        raise ValueError(f"start tokens from {int(first.min())} to {int(first.max())}, and the model knows 0 to "
                         f"{model.config.vocab_size - 1}: give the tokenizer's separator, or tokens of its windows")
    if not all(p.isfinite().all() for p in model.parameters()):
        raise ValueError("the weights are not all finite: leave out members that diverged")
    authors = model.K if source == "mixture" else 1  # of different texts at a time
    n_up = n + -n % authors  # every author writes as many
    u = torch.rand(n_up, length, generator=generator, device=generator.device)
    first, at_once = first[torch.arange(n_up) % n], max(1, batch // authors) * authors
    parts = []
    for begin, chance in zip(first.split(at_once), u.split(at_once), strict=True):
        by_author = [x.to(model.device).unflatten(0, (-1, authors)).transpose(0, 1) for x in (begin, chance)]
        parts.append(_written(model, *by_author).transpose(0, 1).flatten(0, 1))  # B T1
    return torch.cat(parts)[:n]


def _written(model: Stack, first: Int[Tensor, "A B"], u: Float[Tensor, "A B T"]) -> Int64[Tensor, "A B T1"]:
    """What A authors write: all members, each by itself, or one author (A = 1) who is all of them together."""
    A, B, T = u.shape
    cache = model.folded.new_cache(model.K * B, T)
    tokens = [first.long()]
    for t in range(T):
        read = tokens[-1].expand(model.K, -1).reshape(-1, 1)  # KB 1: an ensemble's members read the same
        logits = model.folded(read, cache=cache, last_only=True).float().view(model.K, B, -1)
        if A < model.K:
            logits = logits.mean(dim=0, keepdim=True)
        tokens.append(invert(logits.softmax(dim=-1), u[..., t]))
    return torch.stack(tokens, dim=-1)


def invert(probs: Float[Tensor, "*b V"], u: Float[Tensor, "*b"]) -> Int64[Tensor, "*b"]:
    """The token at which the summed probabilities pass u, uniform in [0, 1): one drawn from `probs`.

    A window's numbers u are its own, so what is sampled beside it has no influence.
    """
    total = probs.cumsum(dim=-1)
    passed = u * total[..., -1]  # rounding leaves the last sum a little off 1
    return torch.searchsorted(total, passed[..., None].contiguous(), right=True)[..., 0]


# A student's text.


@dataclass(frozen=True)
class Mixture:
    """Real and synthetic windows, and the order that makes a share w of each batch synthetic.

        train_members(mix.windows, config, hypers, run, draw=mix.order)
    """

    windows: Int64[Tensor, "n T1"] = field(repr=False)
    real: int  # so many windows are real, the first ones
    w: float

    def order(self, n: int, batch: int, *, seed: int, epoch: int) -> Int64[Tensor, "S B"]:
        """An epoch: every real window once, among samples. For `train_members`.

        Each batch has its share of samples, to less than one window where w·B or S / (1 - w) is not whole. They come in
        permutations of the pool, one after the other over all epochs.
        """
        if n != len(self.windows):
            raise ValueError(f"an order of {len(self.windows)} windows, asked for {n}: train on `windows` of this "
                             "mixture")
        steps = math.ceil(self.real / ((1 - self.w) * batch) - 1e-9)
        places = torch.arange(steps * batch + 1) * self.real // (steps * batch)
        is_real = places[1:] > places[:-1]  # the real ones, spread evenly
        synthetic = steps * batch - self.real
        row = torch.empty(steps * batch, dtype=torch.long)
        row[is_real] = _permuted(self.real, seed, epoch)
        row[~is_real] = self.real + self._samples(epoch * synthetic, synthetic, seed)
        return row.view(steps, batch)

    def _samples(self, start: int, count: int, seed: int) -> Int64[Tensor, "_"]:
        """Entries start to start + count of the pool's permutations, laid end to end."""
        pool = len(self.windows) - self.real
        first, last = start // pool, (start + count) // pool
        row = torch.cat([_permuted(pool, seed, AFTER_EPOCHS + i) for i in range(first, last + 1)])
        return row[start - first * pool :][:count]


def _permuted(n: int, seed: int, epoch: int) -> Int64[Tensor, "_"]:
    return order(n, 1, seed=seed, epoch=epoch)[:, 0]


def distilled(real: Int[Tensor, "n T1"], synthetic: Int[Tensor, "m Ts"], w: float) -> Mixture:
    """Real windows and a pool of samples, for batches of which a share w is samples.

    Raises ValueError for w outside [0, 1), or if either is empty. Samples alone (w = 1) leave no epochs to count by:
    call `train_members(synthetic, ...)` for steps * batch / m epochs.
    """
    if not 0 <= w < 1:
        raise ValueError(f"w = {w}: give a share from 0 to below 1; for samples alone, train on them as on real text")
    if not len(real) or not len(synthetic) or real.shape[1] != synthetic.shape[1]:
        raise ValueError(f"real windows of shape {tuple(real.shape)} and samples of shape {tuple(synthetic.shape)}: "
                         "give at least one of each, of one length")
    return Mixture(torch.cat((real.long(), synthetic.to(real.device).long())), len(real), w)


def chain(real: Int[Tensor, "n T1"], config: TransformerConfig, hypers: Sequence[Hyper], run: RunConfig,
          generator: torch.Generator, *, w: float, pool: int, start_token: int | Int[Tensor, "pool"]) -> Stack:
    """Members one after another, each learning from the real windows and from `pool` samples of the one before.

    NanoGPT Slowrun's chain hands on the probabilities instead (`imitation_chains`). With a checkpoint each member has a
    file of its own, numbered.
    """
    def train(teacher: Stack | None, link: Sequence[Hyper], own: RunConfig) -> Members:
        if teacher is None:
            return train_members(real, config, link, own)
        samples = sample_windows(teacher, pool, real.shape[1] - 1, generator, start_token=start_token)
        mix = distilled(real, samples, w)
        return train_members(mix.windows, config, link, own, draw=mix.order)

    return _linked(train, [hypers], run)[0]


def _linked(train: Callable[[Stack | None, Sequence[Hyper], RunConfig], Members], chains: Sequence[Sequence[Hyper]],
            run: RunConfig) -> list[Stack]:
    """Chains that grow side by side: `train` makes the next member of all from the last, the first ones from None."""
    links: list[Stack] = []
    for i, link in enumerate(zip(*chains, strict=True)):
        file = run.checkpoint and Path(run.checkpoint)
        own = replace(run, checkpoint=file and file.with_stem(f"{file.stem}-{i}"))
        links.append(train(links[-1] if links else None, link, own).model)
    return [stack([link.member(c) for link in links]) for c in range(len(chains))]


# The teacher's probabilities on real text.


@dataclass(frozen=True)
class Imitation:
    """CE + weight · KL(teacher || student), the teacher being the members' logit average. Not the paper's method.

    Or with `tutors` each student has one member for its teacher: the first the first, and so on. It needs no samples
    and no more steps than real text alone, but every teacher reads along at each of them. What a teacher says of
    windows that it was trained on is more and more the token that came, the more it over-fits.

        train_members(real, config, hypers, run, loss=Imitation(teacher, 1.0).losses)
    """

    teacher: Stack = field(repr=False)
    weight: float
    tutors: bool = False
    teacher_sha256: str = field(init=False)

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"weight = {self.weight}: give a positive weight to the teacher")
        object.__setattr__(self, "teacher_sha256", weights_sha256(self.teacher))

    def losses(self, model: Stack, windows: Int[Tensor, "K B T1"]) -> Float[Tensor, "K"]:
        """Mean over tokens, for each student. For `train_members`. Raises ValueError for tutors of other numbers."""
        if self.tutors and self.teacher.K != model.K:
            raise ValueError(f"{self.teacher.K} tutors of {model.K} students: give each a tutor")
        tokens, targets = windows[..., :-1], windows[..., 1:].flatten(1)  # K B T, K BT
        heads, loss = self.teacher.folded.head.weight, model.part(imitation_loss)
        with torch.no_grad():
            if self.tutors:
                said, heads = self.teacher.states(tokens)[None], heads[None]  # 1 K BT D, 1 K V D
            else:
                texts = tokens.flatten(0, 1).expand(self.teacher.K, -1, -1)  # each teacher reads every student's
                said = self.teacher.states(texts).unflatten(1, (model.K, -1))  # Kt K BT D
                heads = heads[:, None].expand(-1, model.K, -1, -1)  # Kt K V D
        each = zip(model.states(tokens).unbind(), model.folded.head.weight.unbind(), targets.unbind(), said.unbind(1),
                   heads.unbind(1), strict=True)
        return torch.stack([loss(*of_one, self.weight) for of_one in each])


def imitation_loss(states: Float[Tensor, "n D"], head: Float[Tensor, "V D"], targets: Int[Tensor, "n"],
                   said: Float[Tensor, "Kt n D"], heads: Float[Tensor, "Kt V D"], weight: float) -> Float[Tensor, ""]:
    """Mean over tokens for one student, computed in float32, from its last states and its teachers'."""
    with torch.no_grad():
        log_p = torch.bmm(said, heads.mT).float().mean(dim=0).log_softmax(dim=-1)  # n V
    log_q = F.linear(states, head).float().log_softmax(dim=-1)
    return F.nll_loss(log_q, targets) + weight * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def imitation_chains(real: Int[Tensor, "n T1"], config: TransformerConfig, chains: Sequence[Sequence[Hyper]],
                     run: RunConfig, *, weight: float) -> list[Stack]:
    """Members one after another, each from its own seed with CE + weight · KL(the one before || itself) on real text.

    NanoGPT Slowrun's chain (its pull request 31): the first has no teacher, the others have one each. It goes down
    (1 - a) CE + a KL with a = 0.5, which is our weight a / (1 - a) = 1: but for clipping, AdamW does not see a common
    factor. A weight of 0 gives independent members. `chains` of one length, which know nothing of each other, are one
    program. With a checkpoint their first members have a file, their second ones another, and so on, numbered. Raises
    ValueError for chains of several lengths.
    """
    if len({len(hypers) for hypers in chains}) > 1:
        raise ValueError(f"chains of {', '.join(str(len(hypers)) for hypers in chains)} members: give all one length")

    def train(teacher: Stack | None, link: Sequence[Hyper], own: RunConfig) -> Members:
        if teacher and own.compile:
            teacher.compile_losses()
        loss = Imitation(teacher, weight, tutors=True).losses if teacher and weight else None
        return train_members(real, config, link, own, loss=loss)

    return _linked(train, chains, run)


# How much of the ensemble's gain the student keeps.


class Retention(NamedTuple):
    """A share of the gain, and its interval. It speaks of other text, not of other training runs."""

    share: float
    low: float
    high: float


def retention(single: Float[Tensor, "R"], student: Float[Tensor, "Rs"], ensemble: Float[Tensor, "Re"],
              generator: torch.Generator, *, draws: int = 2000, level: float = 0.95) -> Retention:
    """(L_single - L_student) / (L_single - L_ensemble), from the three losses on each window held out.

    `single` is the best model of the student's size. The interval is a bootstrap over windows, the same for all three.
    Raises ValueError if the ensemble's gain is not clearly positive: a share of nothing.
    """
    if not len(single) == len(student) == len(ensemble) >= 2:
        raise ValueError(f"losses of {len(single)}, {len(student)} and {len(ensemble)} windows: give all on the same "
                         "windows, at least 2")
    saved = torch.stack((single - student, single - ensemble)).cpu().double()  # 2 R
    drawn = saved[:, torch.randint(len(single), (draws, len(single)), generator=generator)].mean(dim=2)  # 2 draws
    if saved[1].mean() <= 0 or (drawn[1] <= 0).any():
        raise ValueError(f"the ensemble gains {saved[1].mean():.4f} nats over the single model, which on these windows "
                         "may be chance: give more windows or a better ensemble")
    low, high = (drawn[0] / drawn[1]).quantile(drawn.new_tensor([(1 - level) / 2, (1 + level) / 2])).tolist()
    return Retention(float(saved[0].mean() / saved[1].mean()), low, high)
