"""The draft's side of a decoding: it speculates, prepares for outcomes while the target verifies, and answers one.

The calls go `first`, then `round` and `answer` in turn; in between, the caller adds the outcome to the batch. The
target's side (`engine.py`) needs nothing else, so a `Speculator` may live in another process (`worker.py`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilab.core.timing import Mark
from minilab.nn.graphs import captured, generator_for
from minilab.speculative.cache import SpeculationCache
from minilab.speculative.decoding import Batch, prefill, propose
from minilab.speculative.fallback import certain, fast_fallback
from minilab.speculative.models import Cache, TreeModel
from minilab.speculative.sampling import Sampling
from minilab.speculative.tree import fork, glue, grow

FanOut = Callable[[int], list[int]]  # K -> guesses for k = 0..K; `partial(fanout.uniform, budget)` is one
Plan = list[tuple[list[int], list[int]]]  # for each lookahead 0..K: guesses after a hit, and after a miss
Span = tuple[Mark, Mark]
Verifying = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Span]]  # newest, s, q -> accepted and bonus, when
Executor = Callable[[Callable[[], object], Callable[[], object]], tuple]  # calls both tasks, returns what each returns


@dataclass(frozen=True)
class Job:
    """What the draft's side must know of a decoding."""

    batch: Batch
    K: int
    plan: Plan
    sampling: Sampling
    C: float
    fallback: str
    seed: int
    inspect: bool = True  # whether answers hold ranks, guesses and what was prepared

    @property
    def branches(self) -> int:
        return sum(self.plan[self.K][0])


@dataclass(frozen=True)
class Speculation:
    """What the target is to verify: s_1..s_K of each running row, and the distributions they were drawn from."""

    s: Int[Tensor, "B K"]
    q: Float[Tensor, "B K V"] | None  # None when greedy: each is one-hot
    tokens: list[list[int]]  # s on the host
    hits: list[bool]  # whether a row's came from the cache; else from the fallback
    seconds: float  # that the fallback took, 0 if every row hit


class Outcome(NamedTuple):
    """What a verification came to, an entry for each row."""

    accepted: list[int]
    bonus: list[int]


@dataclass(frozen=True)
class Answer:
    """The next speculation (None if no row runs on), and what the round before it prepared."""

    next: Speculation | None
    ranks: list[int]
    guesses: list[list[tuple[int, int]]]
    prepared: list[list[list[int]]]
    cache_bytes: int
    prepare_s: float
    verify_s: float


class Speculator:
    """A draft, its KV cache, and the speculation cache of the present round."""

    def __init__(self, draft: TreeModel, job: Job) -> None:
        self.draft, self.job, self.batch = draft, job, job.batch
        self.cache = prefill(draft, self.batch.sequences, self.batch.capacity, scratch=job.K * job.branches)
        drafter, self.guesser = (torch.Generator(draft.device).manual_seed(3 * job.seed + i) for i in (1, 2))
        self.drafter = generator_for(self.cache, drafter)
        self.caches = (self.cache,)

    def first(self) -> Speculation:
        """The first speculation, which is always the fallback's."""
        self.now = self._speculate(None)
        return self.now

    def round(self, verifying: Verifying, executor: Executor, target_cache: Cache | None = None) -> Outcome:
        """Verify this round's speculation, draft for each guessed outcome of it, and look up the one that came true.

        All of that is one graph where `target_cache` and the draft's can be captured together.
        """
        job, now = self.job, self.now
        on_hit, on_miss = job.plan[now.s.shape[1]]
        guesses = sum(on_hit), max(on_hit + on_miss)
        ints = torch.tensor([[row[-1], *(on_hit if hit else on_miss)]
                             for row, hit in zip(self.batch.sequences, now.hits, strict=True)])
        key = ("round", executor, guesses, tuple(job.plan[job.K][0]), job.sampling, job.C)
        packed, s, q, *self.kept = captured(
            (target_cache, self.cache), key, partial(self._work, verifying, executor, guesses), ints, now.s,
            *(() if now.q is None else (now.q,)), device=self.draft.device)
        accepted, bonus, hits, *columns = packed.tolist()  # waits for both sides
        self.found = Speculation(s, q, [list(row) for row in zip(*columns, strict=True)], [h == 1 for h in hits], 0.0)
        self.outcome = Outcome(accepted, bonus)
        return self.outcome

    def _work(self, verifying: Verifying, executor: Executor, guesses: tuple[int, int], ints: Tensor, s: Tensor,
              *q: Tensor) -> tuple:
        newest, fan_out = ints[:, :1], ints[:, 1:]
        (outcome, verified), (logits, prepared, was_prepared) = executor(
            partial(verifying, newest, s, *q or (None,)), partial(self._prepare, guesses, newest, s, fan_out))
        outcome = outcome.to(self.draft.device)
        hit, s, q = prepared.lookup(*outcome)
        packed = torch.cat((outcome, hit[None], s.T))  # for the host, in one piece
        return packed, s, q, logits, prepared, verified, was_prepared

    def _prepare(self, guesses: tuple[int, int], newest: Tensor, s: Tensor, fan_out: Tensor) -> tuple:
        job, device = self.job, self.draft.device
        start, key = Mark(device), ("prepare", guesses, tuple(job.plan[job.K][0]), job.sampling, job.C)
        logits, *prepared = captured((self.cache,), key, partial(self._grow, guesses), newest, s, fan_out,
                                     device=device)
        return logits, SpeculationCache(*prepared), (start, Mark(device))

    def _grow(self, guesses: tuple[int, int], newest: Tensor, s: Tensor, fan_out: Tensor) -> tuple:
        job, (branches, most) = self.job, guesses
        logits = glue(self.draft, self.cache, newest, s)
        prefix, roots = fork(logits, fan_out, branches, most)
        return logits, prefix, roots, *grow(self.draft, self.cache, logits, prefix, roots, job.plan[job.K][0][:-1],
                                            job.sampling, job.C, self.drafter)

    def answer(self, rows: list[int]) -> Answer:
        """The next speculation, now that the outcome was added to the batch; `rows` are those that it had before."""
        found, (logits, prepared, *spans) = self.found, self.kept
        seen = ([], [], [])
        if self.job.inspect:
            seen = bonus_ranks(logits, *self.outcome), prepared.keys(), prepared.tokens.tolist()
        if 0 < len(self.batch.rows) < len(rows):
            running = [i for i, row in enumerate(rows) if row in self.batch.rows]
            found = Speculation(found.s[running], None if found.q is None else found.q[running],
                                [found.tokens[i] for i in running], [found.hits[i] for i in running], 0.0)
        self.now = self._speculate(found) if self.batch.rows else None
        verify_s, prepare_s = (end.seconds_since(start) for start, end in spans)
        return Answer(self.now, *seen, prepared.nbytes, prepare_s, verify_s)

    def close(self) -> None:
        """Nothing to end: a speculator elsewhere has."""

    def _speculate(self, found: Speculation | None) -> Speculation:
        """What the lookup found, no longer than is of use, and the fallback's tokens in the rows that missed."""
        k = self.batch.useful_lookahead(self.job.K)
        if found is not None:
            found = replace(found, s=found.s[:, :k], q=None if found.q is None else found.q[:, :k],
                            tokens=[row[:k] for row in found.tokens])
            if k == 0 or all(found.hits):
                return found
        start, hits = time.perf_counter(), [False] * len(self.batch.rows)
        s, q = self._fall_back(k)
        if found is not None and any(found.hits):
            hits = found.hits
            hit = torch.tensor(hits, device=s.device)
            s = torch.where(hit[:, None], found.s, s)
            q = None if q is None else torch.where(hit[:, None, None], found.q, q)
        tokens = s.tolist()  # waits for the fallback
        return Speculation(s, q, tokens, hits, time.perf_counter() - start)

    def _fall_back(self, k: int) -> tuple[Tensor, Tensor | None]:
        job = self.job
        if job.fallback == "jit":
            top = job.plan[k][1][:k]
            s, q = propose(self.draft, self.cache, self.batch, top, job.sampling, self.drafter, job.C)
            self.cache.rollback(self.batch.lengths - 1)  # the glue pass reads them again, and s_K with them
            return s, q
        V, device = self.draft.vocab_size, self.draft.device
        s = fast_fallback(job.fallback, self.batch.sequences, k, V, self.guesser).to(device)
        return s, None if job.sampling.greedy else certain(s, V)


def outcome_tokens(s: list[list[int]], accepted: list[int], bonus: list[int]) -> list[list[int]]:
    """The new tokens of each row: those accepted of s_1..s_K, and the bonus token."""
    return [row[:n] + [b] for row, n, b in zip(s, accepted, bonus, strict=True)]


def bonus_ranks(logits: Float[Tensor, "B K1 V"], accepted: list[int], bonus: list[int]) -> list[int]:
    """How many tokens the draft held likelier than the bonus token, in its row for what was accepted.

    A fan-out above this rank would have hit, so one run gives the hit curve of every fan-out.
    """
    law = logits[torch.arange(len(logits)), accepted]  # B V
    at = law.gather(-1, torch.tensor(bonus, device=law.device)[:, None])
    return (law > at).sum(dim=-1).tolist()


def plan(after_hit: FanOut, after_miss: FanOut, K: int, *, vocab_size: int) -> Plan:
    """Both fan-outs as lists, no number above the vocabulary.

    Raises ValueError unless both have the same sum for each lookahead, at least 1.
    """
    lists = []
    for k in range(K + 1):
        both = after_hit(k), after_miss(k)
        if sum(both[0]) != sum(both[1]) or min(map(min, both)) < 0 or sum(both[0]) < 1:
            raise ValueError(f"the fan-outs for K={k} are {both[0]} after a hit and {both[1]} after a miss: both need "
                             "the same sum, at least 1")
        lists.append(tuple([min(F, vocab_size) for F in fan_out] for fan_out in both))
    return cut(lists, vocab_size * (K + 1))


def cut(lists: Plan, fit: int) -> Plan:
    """The same with at most `fit` branches, as many after a hit as after a miss; the largest numbers shrink first."""
    return [tuple(_shrunk(F, min(fit, *map(sum, both))) for F in both) for both in lists]


def _shrunk(fan_out: list[int], most: int) -> list[int]:
    fan_out = list(fan_out)
    while sum(fan_out) > most:
        fan_out[fan_out.index(max(fan_out))] -= 1
    return fan_out
