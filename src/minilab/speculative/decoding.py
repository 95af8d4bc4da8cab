"""Autoregressive decoding, and speculative decoding with a chain of K draft tokens.

Algorithm 1 of Leviathan, Kalman and Matias (2023), found independently by Chen et al. (2023), for any
batch: rows accept different numbers of tokens, stop at different times, and leave the batch when done.

Notable:
- Between rounds each row has N final tokens; the newest is in neither cache. One target pass over
  [newest, s_1..s_K] therefore scores every draft token and the token after the last.
- After a round in which all K tokens were accepted the draft has never read s_K. Its next pass reads
  two tokens instead of one; a roll-back by one position too few or too many would silently starve it.
- Both functions are generators that yield a `Round` as soon as it is final: that is streaming.

Shapes: B batch, K draft tokens a round, V vocabulary.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilab.nn.graphs import captured, generator_for
from minilab.speculative.models import Cache, LanguageModel, ModelFacts, check_pair
from minilab.speculative.sampling import GREEDY, Sampling, draw, residual, sample, target_probs

Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Round:
    """What one target pass added: an entry for each row that was still running."""

    rows: list[int]  # positions in the list of prompts
    tokens: list[list[int]]  # new tokens of each, cut at a stop token or at the length limit
    accepted: list[int]  # draft tokens accepted, before that cut
    drafted: int  # draft tokens proposed to each row


@dataclass
class Generation:
    """A finished decoding: the new tokens of each prompt, and the rounds that made them."""

    tokens: list[list[int]]
    rounds: list[Round] = field(default_factory=list)

    @property
    def acceptance_rate(self) -> float:
        """Accepted over tested draft tokens. What follows a rejection was never tested."""
        accepted = sum(sum(r.accepted) for r in self.rounds)
        tested = sum(min(k + 1, r.drafted) for r in self.rounds for k in r.accepted)
        return accepted / tested if tested else float("nan")

    @property
    def tokens_per_round(self) -> float:
        """New tokens a row gets from one target pass."""
        return sum(map(len, self.tokens)) / max(1, sum(len(r.rows) for r in self.rounds))


def collect(rounds: Iterator[Round], prompts: int) -> Generation:
    """Run a decoding of `prompts` rows to its end."""
    result = Generation([[] for _ in range(prompts)])
    for step in rounds:
        result.rounds.append(step)
        for row, new in zip(step.rows, step.tokens, strict=True):
            result.tokens[row].extend(new)
    return result


@torch.inference_mode()
def autoregressive(target: LanguageModel, prompts: Prompts, *, max_new_tokens: int, sampling: Sampling = GREEDY,
                   stop: Collection[int] = (), generator: torch.Generator | None = None) -> Iterator[Round]:
    """One target pass for each token.

    Raises ValueError if a prompt with `max_new_tokens` more does not fit the context.
    """
    batch = Batch(prompts, max_new_tokens, stop, target)
    cache = prefill(target, batch.sequences, batch.capacity)
    generator = generator_for(cache, generator)

    def step(newest: Tensor) -> Tensor:
        logits = target(newest, cache=cache, last_only=True)[:, -1]  # B V
        return draw(logits, sampling, generator)[0]

    while batch.rows:
        token = captured((cache,), ("step", sampling), step, batch.last(1), device=target.device)
        yield batch.extend([[t] for t in token.tolist()], [0] * len(token), 0, (cache,))


@torch.inference_mode()
def speculative(target: LanguageModel, draft: LanguageModel, prompts: Prompts, *, K: int, max_new_tokens: int,
                sampling: Sampling = GREEDY, stop: Collection[int] = (),
                generator: torch.Generator | None = None) -> Iterator[Round]:
    """K draft tokens and one target pass a round; the output is distributed as `autoregressive`'s.

    Raises ValueError if a prompt does not fit the context, K is negative, or the vocabularies differ.
    """
    if K < 0:
        raise ValueError(f"the lookahead K counts draft tokens and cannot be {K}")
    check_pair(target, draft)
    batch = Batch(prompts, max_new_tokens, stop, target, draft, lookahead=K)
    target_cache = prefill(target, batch.sequences, batch.capacity)
    draft_cache = prefill(draft, batch.sequences, batch.capacity)
    drafter, verifier = (generator_for(cache, generator) for cache in (draft_cache, target_cache))
    while batch.rows:
        k = batch.useful_lookahead(K)
        s, q = propose(draft, draft_cache, batch, [0] * k, sampling, drafter)
        accepted, bonus = verify(target, target_cache, sampling, verifier, batch.last(1), s, q).tolist()
        new = [row[:n] + [b] for row, n, b in zip(s.tolist(), accepted, bonus, strict=True)]
        yield batch.extend(new, accepted, k, (target_cache, draft_cache))


def prefill(model: LanguageModel, sequences: list[list[int]], capacity: int, **options) -> Cache:
    """A cache that holds all but the newest token of each row. Rows may differ in length.

    `options` go to the model's `new_cache`.
    """
    lengths = torch.tensor([len(row) - 1 for row in sequences])
    cache = model.new_cache(len(sequences), capacity, **options)
    if lengths.max() > 0:
        padded = [row[:-1] + [0] * (int(lengths.max()) - len(row) + 1) for row in sequences]
        model(torch.tensor(padded, device=model.device), cache=cache, last_only=True)
        cache.rollback(lengths)  # forgets the padding
    return cache


def propose(draft: LanguageModel, cache: Cache, batch: "Batch", top: Sequence[int], sampling: Sampling,
            generator: torch.Generator | None, C: float = 1.0
            ) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B K V"] | None]:
    """Draft s_1..s_K and the distributions q_1..q_K they were drawn from (None when greedy: one-hot).

    There are as many as numbers in `top`; those and C are for `sampling.draw`.
    """
    unread = int((batch.lengths - cache.lengths).max())  # 2 where s_K was accepted last round, else 1
    cache.rollback(batch.lengths - unread)
    newest = batch.last(unread)
    if not top:
        return newest[:, :0].to(draft.device), None

    def chain(token: Tensor) -> tuple[Tensor, Tensor | None]:
        tokens, probs = [], []
        for starved in top:
            s, q = draw(draft(token, cache=cache, last_only=True)[:, -1], sampling, generator, C, starved)  # B, B V
            token = s[:, None]
            tokens.append(s)
            probs.append(q)
        return torch.stack(tokens, dim=1), None if sampling.greedy else torch.stack(probs, dim=1)

    return captured((cache,), ("chain", tuple(top), sampling, C), chain, newest, device=draft.device)


def verify(target: LanguageModel, cache: Cache, sampling: Sampling, generator: torch.Generator | None,
           newest: Int[Tensor, "B 1"], s: Int[Tensor, "B K"], q: Float[Tensor, "B K V"] | None) -> Int[Tensor, "2 B"]:
    """One target pass over [newest, s_1..s_K]: how many draft tokens each row accepts, and its bonus token.

    Both stay on the target's device: a GPU may still be at work on them.
    """

    def decide(newest: Tensor, s: Tensor, *q: Tensor) -> Tensor:
        logits = target(torch.cat((newest, s), dim=1), cache=cache)  # B K+1 V
        if sampling.greedy:
            return torch.stack(verify_greedy(logits.argmax(dim=-1), s))
        p = target_probs(logits, sampling)
        return torch.stack(verify_sampled(p, *q or (torch.zeros_like(p[:, 1:]),), s, generator))

    drafted = (s,) if q is None else (s, q)
    return captured((cache,), ("verify", sampling), decide, newest, *drafted, device=target.device)


def verify_sampled(
    p: Float[Tensor, "B K1 V"], q: Float[Tensor, "B K V"], s: Int[Tensor, "B K"],
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "B"], Int[Tensor, "B"]]:
    """Accept s_i with probability min(1, p_i(s_i) / q_i(s_i)), then draw the bonus.

    Returns the number of tokens accepted before the first rejection, and the bonus
    token. It comes from the residual at the rejected position. After K acceptances it
    comes from p_{K+1}, the residual against a draft that put no mass anywhere.
    """
    at_s = s[..., None]
    ratio = p[:, :-1].gather(-1, at_s) / q.gather(-1, at_s)  # B K 1
    device = generator.device if generator else s.device
    u = torch.rand(s.shape, generator=generator, device=device).to(s.device)
    passed = u < ratio[..., 0]
    accepted = passed.long().cumprod(dim=1).sum(dim=1)  # a success after a failure does not count
    rows = torch.arange(len(s), device=s.device)
    p_bonus = p[rows, accepted]  # B V
    q_bonus = torch.cat((q, torch.zeros_like(p[:, :1])), dim=1)[rows, accepted]
    return accepted, sample(residual(p_bonus, q_bonus), generator)


def verify_greedy(best: Int[Tensor, "B K1"], s: Int[Tensor, "B K"]) -> tuple[Int[Tensor, "B"], Int[Tensor, "B"]]:
    """`verify_sampled` at temperature 0, where every distribution is one-hot: accept while the draft agrees."""
    accepted = (s == best[:, :-1]).long().cumprod(dim=1).sum(dim=1)
    return accepted, best.gather(1, accepted[:, None])[:, 0]


class Batch:
    """The running rows of a decoding: their tokens so far, and which prompts they answer."""

    def __init__(self, prompts: Prompts, max_new_tokens: int, stop: Collection[int], *models: ModelFacts,
                 lookahead: int = 0) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        if not prompts:
            raise ValueError("no prompts: give a list of token lists, one for each row")
        self.context = min(model.context for model in models)
        self.stop = frozenset(stop)
        # An empty prompt starts from the model's own beginning-of-text token.
        self.sequences = [list(prompt) or [models[0].start_token] for prompt in prompts]
        self.rows = list(range(len(prompts)))
        self.remaining = [max_new_tokens] * len(prompts)
        longest = max(map(len, self.sequences))
        if longest + max_new_tokens > self.context:
            raise ValueError(
                f"a prompt of {longest} tokens and {max_new_tokens} new ones pass the context of {self.context}: "
                f"ask for fewer, or keep the prompt's end with prompt[-{max(0, self.context - max_new_tokens)}:]")
        self.capacity = min(self.context, longest + max_new_tokens + lookahead)

    @property
    def lengths(self) -> Int[Tensor, "B"]:
        return torch.tensor([len(row) for row in self.sequences])

    def last(self, n: int) -> Int[Tensor, "B n"]:
        """The newest n tokens of each row, on the host."""
        return torch.tensor([row[-n:] for row in self.sequences])

    def useful_lookahead(self, K: int) -> int:
        """K, but no more draft tokens than some row still wants beside its bonus, nor than the context holds."""
        return max(0, min(K, max(self.remaining) - 1, self.context - max(map(len, self.sequences))))

    def extend(self, new: list[list[int]], accepted: list[int], drafted: int, caches: tuple[Cache, ...]) -> Round:
        """Append each row's tokens, cut at a stop token or the limit; roll caches back; drop finished rows."""
        rows, kept, running = self.rows, [], []
        for i, tokens in enumerate(new):
            tokens = tokens[: self.remaining[i]]
            end = next((n + 1 for n, t in enumerate(tokens) if t in self.stop), None)
            kept.append(tokens[:end])
            self.sequences[i].extend(kept[i])
            self.remaining[i] -= len(kept[i])
            if end is None and self.remaining[i] > 0:
                running.append(i)
        for cache in caches:
            cache.rollback(torch.minimum(cache.lengths, self.lengths - 1))
            if 0 < len(running) < len(rows):
                cache.keep_rows(torch.tensor(running))
        self.rows, self.sequences, self.remaining = (
            [column[i] for i in running] for column in (self.rows, self.sequences, self.remaining))
        return Round(rows, kept, accepted, drafted)
