"""Speculative speculative decoding: the draft prepares the next round while the target verifies this one.

Algorithm 1 of Kumar, Dao and May (2026), for any batch, temperature, fan-out and fallback. A round:

- the target reads [t*, s_1..s_K] and decides: k tokens accepted, and the bonus token;
- meanwhile the draft guesses likely outcomes (k, bonus) and drafts K tokens for each (`tree.py`);
- if the outcome is among them, the next speculation is ready at once, else the fallback makes one.

Notable:
- The output is exact whatever was guessed: each speculation is verified against the distributions that it was
  drawn from, and a guess decides only how long the target waits.
- One loop; *how* the two tasks run is an `Executor`: `sequential` is deterministic and for measuring hit rates,
  which do not depend on time; `Overlapped` runs them at once.
- Verification and drafting draw from generators of their own, so that the order of the tasks changes nothing.
"""

import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.core.timing import wait
from minilab.speculative.cache import branches_within
from minilab.speculative.decoding import Batch, Prompts, Round, prefill, propose, verify
from minilab.speculative.fallback import certain, check_fallback, fast_fallback
from minilab.speculative.models import LanguageModel, TreeModel, check_pair
from minilab.speculative.sampling import GREEDY, Sampling
from minilab.speculative.tree import glue, grow, next_draft

FanOut = Callable[[int], list[int]]  # K -> guesses for k = 0..K; `partial(fanout.uniform, budget)` is one


@dataclass(frozen=True)
class Times:
    """Seconds of one round's parts."""

    verify: float
    prepare: float
    together: float  # from the start of the first to the end of both
    fallback: float = 0.0  # drafting this round's speculation, 0 if every row hit


@dataclass(frozen=True)
class AsyncRound(Round):
    """A `Round`, and what became of the guesses: an entry for each row that was still running."""

    hits: list[bool]  # whether this round's speculation came from the cache; else from the fallback
    ranks: list[int]  # guesses that were likelier than the outcome's bonus token, for the k that came true
    guesses: list[list[tuple[int, int]]]  # the outcomes (k, bonus token) that were prepared for
    seconds: Times
    cache_bytes: int


Task = Callable[[], object]
Executor = Callable[[Task, Task, torch.device], tuple[object, object, Times]]


def sequential(verifying: Task, preparing: Task, device: torch.device) -> tuple[object, object, Times]:
    """One task after the other: deterministic, and each is timed alone."""
    start = time.perf_counter()
    outcome = verifying()
    wait(device)
    middle = time.perf_counter()
    prepared = preparing()
    wait(device)
    end = time.perf_counter()
    return outcome, prepared, Times(middle - start, end - middle, end - start)


class Overlapped:
    """Both tasks at once: the target on the calling thread, the draft on a worker that waits between rounds.

    On two devices, or with one torch thread each on two cores, a round lasts as long as the slower task.
    Close it, or use it in a `with` statement, to end the worker.
    """

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="draft")

    def __call__(self, verifying: Task, preparing: Task, device: torch.device) -> tuple[object, object, Times]:
        start = time.perf_counter()
        running = self._worker.submit(_timed, preparing, device)
        try:
            outcome, verify_s = _timed(verifying, device)
        finally:  # the draft's cache belongs to the worker until it is done, also when the target fails
            prepared, prepare_s = running.result()
        return outcome, prepared, Times(verify_s, prepare_s, time.perf_counter() - start)

    def close(self) -> None:
        self._worker.shutdown()

    def __enter__(self) -> "Overlapped":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def _timed(task: Task, device: torch.device) -> tuple[object, float]:
    start = time.perf_counter()
    result = task()
    wait(device)
    return result, time.perf_counter() - start


@torch.inference_mode()
def ssd(target: LanguageModel, draft: TreeModel, prompts: Prompts, *, K: int, fan_out: FanOut, max_new_tokens: int,
        sampling: Sampling = GREEDY, C: float = 1.0, fallback: str = "jit", after_miss: FanOut | None = None,
        executor: Executor = sequential, cache_bytes: int | None = None, stop: Collection[int] = (), seed: int = 0
        ) -> Iterator[AsyncRound]:
    """Speculate K tokens a round and prepare for `fan_out` outcomes meanwhile; distributed as `autoregressive`'s.

    `after_miss` is the fan-out of rows whose speculation came from the fallback (default: the same); both must
    sum to one number of branches. `C` < 1 is Saguaro sampling. `cache_bytes` bounds the speculation cache: there
    are as many branches as fit. Raises ValueError if K is 0, no branch fits, the fan-outs' sums differ, a
    prompt does not fit the context, or the vocabularies differ.
    """
    if K < 1:
        raise ValueError(f"K is {K}; speculation needs at least 1 draft token (without any it is `autoregressive`)")
    check_pair(target, draft)
    check_fallback(fallback)
    plan = _Plan(fan_out, after_miss or fan_out, K, draft.vocab_size)
    fit = branches_within(cache_bytes, plan.branches(K), rows=len(prompts), K=K, vocab_size=draft.vocab_size,
                          greedy=sampling.greedy)
    batch = Batch(prompts, max_new_tokens, stop, target, draft, lookahead=K)
    target_cache = prefill(target, batch.sequences, batch.capacity)
    draft_cache = prefill(draft, batch.sequences, batch.capacity, scratch=K * fit)
    verifier, drafter, guesser = (torch.Generator(device).manual_seed(3 * seed + i) for i, device in
                                  enumerate((target.device, draft.device, draft.device)))

    def fall_back(k: int) -> tuple[Tensor, Tensor | None]:
        if fallback == "jit":
            top = plan.lists(k, fit)[1]
            s, q = propose(draft, draft_cache, batch, k,
                           lambda logits, i: next_draft(logits, sampling, C, top[i], drafter))
            draft_cache.rollback(batch.lengths - 1)  # the glue pass reads them again, and s_K with them
            return s, q
        s = fast_fallback(fallback, batch.sequences, k, draft.vocab_size, guesser).to(draft.device)
        return s, None if sampling.greedy else certain(s, draft.vocab_size)

    def verifying():
        logits = target(torch.cat((batch.last(1), s.to(target.device)), dim=1), cache=target_cache)
        return verify(logits, s.to(target.device), None if q is None else q.to(target.device), sampling, verifier)

    def preparing():
        on_hit, on_miss = (torch.tensor(x, device=draft.device) for x in plan.lists(k, fit))
        widths = torch.where(torch.tensor(hits, device=draft.device)[:, None], on_hit, on_miss)  # B K+1
        logits = glue(draft, draft_cache, batch.last(1).to(draft.device), s)
        return logits, grow(draft, draft_cache, logits, widths, plan.lists(K, fit)[0][:-1], sampling, C, drafter)

    k = batch.useful_lookahead(K)
    start = time.perf_counter()
    s, q = fall_back(k)
    waited, hits = time.perf_counter() - start, [False] * len(batch.rows)
    while batch.rows:
        (accepted, bonus), (logits, prepared), seconds = executor(
            torch.inference_mode()(verifying), torch.inference_mode()(preparing), draft.device)
        ranks = bonus_ranks(logits, accepted, bonus)
        outcome = (torch.tensor(x, device=draft.device) for x in (accepted, bonus))
        found, next_s, next_q = prepared.lookup(*outcome)
        new = [row[:n] + [b] for row, n, b in zip(s.tolist(), accepted, bonus, strict=True)]
        rows = batch.rows
        step = batch.extend(new, accepted, k, (target_cache, draft_cache))
        yield AsyncRound(step.rows, step.tokens, step.accepted, k, hits, ranks, prepared.keys(),
                         Times(seconds.verify, seconds.prepare, seconds.together, waited), prepared.nbytes)
        running = [i for i, row in enumerate(rows) if row in batch.rows]
        if not running:
            return
        k = batch.useful_lookahead(K)
        hits = found[running].tolist()
        s, q = next_s[running][:, :k], None if next_q is None else next_q[running][:, :k]
        start, waiting = time.perf_counter(), k > 0 and not all(hits)
        if waiting:
            s_miss, q_miss = fall_back(k)
            hit = found[running]
            s = torch.where(hit[:, None], s, s_miss)
            q = None if q is None else torch.where(hit[:, None, None], q, q_miss)
            wait(draft.device)
        waited = time.perf_counter() - start if waiting else 0.0


def bonus_ranks(logits: Float[Tensor, "B K1 V"], accepted: list[int], bonus: list[int]) -> list[int]:
    """How many tokens the draft held likelier than the bonus token, in its row for what was accepted.

    A fan-out above this rank would have hit, so one run gives the hit curve of every fan-out.
    """
    law = logits[torch.arange(len(logits)), accepted]  # B V
    at = law.gather(-1, torch.tensor(bonus, device=law.device)[:, None])
    return (law > at).sum(dim=-1).tolist()


class _Plan:
    """The fan-outs after a hit and after a miss for each lookahead, cut to the vocabulary and to what fits."""

    def __init__(self, after_hit: FanOut, after_miss: FanOut, K: int, vocab_size: int) -> None:
        self.fan_outs, self.vocab_size = (after_hit, after_miss), vocab_size
        for k in range(K + 1):
            sums = [sum(f(k)) for f in self.fan_outs]
            if sums[0] != sums[1] or min(min(f(k)) for f in self.fan_outs) < 0 or sums[0] < 1:
                raise ValueError(f"the fan-outs for K={k} are {self.fan_outs[0](k)} after a hit and "
                                 f"{self.fan_outs[1](k)} after a miss: both need the same sum, at least 1")

    def branches(self, K: int) -> int:
        return sum(self.fan_outs[0](K))

    def lists(self, K: int, fit: int) -> tuple[list[int], list[int]]:
        """K + 1 numbers each, of one sum; where too many, the largest are cut first."""
        capped = [[min(F, self.vocab_size) for F in f(K)] for f in self.fan_outs]
        return tuple(_cut(F, min(fit, *map(sum, capped))) for F in capped)


def _cut(fan_out: list[int], fit: int) -> list[int]:
    fan_out = list(fan_out)
    while sum(fan_out) > fit:
        fan_out[fan_out.index(max(fan_out))] -= 1
    return fan_out
