"""Speculative speculative decoding: the draft prepares the next round while the target verifies this one.

Algorithm 1 of Kumar, Dao and May (2026), for any batch, temperature, fan-out and fallback. A round:

- the target reads [t*, s_1..s_K] and decides: k tokens accepted, and the bonus token;
- meanwhile the draft guesses likely outcomes (k, bonus) and drafts K tokens for each (`speculator.py`, `tree.py`);
- if the outcome is among them, the next speculation is ready at once, else the fallback makes one.

Notable:
- The output is exact whatever was guessed: each speculation is verified against the distributions that it was
  drawn from, and a guess decides only how long the target waits.
- One loop; *how* the two sides run is an `Executor`. `sequential` is deterministic and for measuring hit rates,
  which do not depend on time. `Overlapped` has both run at once, on two streams of one GPU or on two GPUs; one
  thread asks for the work of both, since a GPU does what it is asked later. A CPU does it at once, and Python lets
  one thread run at a time, so there the draft goes to a process of its own (`worker.DraftProcess`).
- Verification and drafting draw from generators of their own, so that the order of the tasks changes nothing.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from minilab.core.timing import Mark
from minilab.nn.graphs import generator_for
from minilab.speculative.cache import branches_within
from minilab.speculative.decoding import Batch, Prompts, Round, prefill, verify
from minilab.speculative.fallback import check_fallback
from minilab.speculative.models import LanguageModel, TreeModel, check_pair
from minilab.speculative.sampling import GREEDY, Sampling
from minilab.speculative.speculator import Executor, FanOut, Job, Speculator, cut, outcome_tokens, plan
from minilab.speculative.worker import DraftProcess


@dataclass(frozen=True)
class Times:
    """Seconds of one round's parts."""

    verify: float
    prepare: float
    together: float  # the whole round with what is around both, but without the next fallback
    fallback: float = 0.0  # drafting this round's speculation, 0 if every row hit


@dataclass(frozen=True)
class AsyncRound(Round):
    """A `Round`, and what became of the guesses: an entry for each row that was still running."""

    hits: list[bool]  # whether this round's speculation came from the cache; else from the fallback
    ranks: list[int]  # guesses that were likelier than the outcome's bonus token, for the k that came true
    guesses: list[list[tuple[int, int]]]  # the outcomes (k, bonus token) that were prepared for
    prepared: list[list[list[int]]]  # and the K tokens of each
    speculation: list[list[int]]  # s_1..s_K
    bonus: list[int]  # the target's own token, even where the text ended before it
    seconds: Times
    cache_bytes: int


Task = Callable[[], object]


def sequential(verifying: Task, preparing: Task) -> tuple:
    """One task after the other: deterministic, and each is timed alone."""
    return verifying(), preparing()


class Overlapped:
    """Both tasks at once on a GPU, or on two: the draft has a stream of its own, the target the current one.

    The draft's has priority: its small kernels fill the gaps of the large ones, and it has more of them. Raises
    ValueError without CUDA.
    """

    def __init__(self, draft: torch.device | str = "cuda") -> None:
        if not torch.cuda.is_available():
            raise ValueError("Overlapped needs a CUDA GPU; on CPU cores a DraftProcess prepares while the target "
                             "verifies, and `sequential` gives the same text anywhere")
        self._side = torch.cuda.Stream(draft, priority=-1)

    def __call__(self, verifying: Task, preparing: Task) -> tuple:
        here = torch.cuda.current_stream(self._side.device)
        self._side.wait_stream(here)  # for the speculation that both build on
        verified = verifying()
        with torch.cuda.stream(self._side):
            prepared = preparing()
        here.wait_stream(self._side)
        return verified, prepared


@torch.inference_mode()
def ssd(target: LanguageModel, draft: TreeModel | DraftProcess, prompts: Prompts, *, K: int, fan_out: FanOut,
        max_new_tokens: int, sampling: Sampling = GREEDY, C: float = 1.0, fallback: str = "jit",
        after_miss: FanOut | None = None, executor: Executor = sequential, cache_bytes: int | None = None,
        stop: Collection[int] = (), seed: int = 0, inspect: bool = True) -> Iterator[AsyncRound]:
    """Speculate K tokens a round and prepare for `fan_out` outcomes meanwhile; distributed as `autoregressive`'s.

    `after_miss` is the fan-out of rows whose speculation came from the fallback (default: the same); both must
    sum to one number of branches. `C` < 1 is Saguaro sampling. `cache_bytes` bounds the speculation cache: there
    are as many branches as fit. A `DraftProcess` overlaps by itself, whatever the executor. Without `inspect` the
    rounds' ranks, guesses and prepared tokens stay empty, which saves time between rounds.

    Raises ValueError if K is 0, no branch fits, the fan-outs' sums differ, a prompt does not fit the context, or
    the vocabularies differ.
    """
    if K < 1:
        raise ValueError(f"K is {K}; speculation needs at least 1 draft token (without any it is `autoregressive`)")
    check_pair(target, draft)
    check_fallback(fallback)
    if not 0 <= C <= 1:
        raise ValueError(f"C must lie in [0, 1], not {C}")
    guesses = plan(fan_out, after_miss or fan_out, K, vocab_size=draft.vocab_size)
    fit = branches_within(cache_bytes, sum(guesses[K][0]), rows=len(prompts), K=K, vocab_size=draft.vocab_size,
                          greedy=sampling.greedy)
    batch = Batch(prompts, max_new_tokens, stop, target, draft, lookahead=K)
    job = Job(batch, K, cut(guesses, fit), sampling, C, fallback, seed, inspect)
    cache = prefill(target, batch.sequences, batch.capacity)
    verifier = generator_for(cache, torch.Generator(target.device).manual_seed(3 * seed))

    def verifying(newest: Tensor, s: Tensor, q: Tensor | None) -> tuple[Tensor, tuple[Mark, Mark]]:
        start = Mark(target.device)
        outcome = verify(target, cache, sampling, verifier, newest, s, q)
        return outcome, (start, Mark(target.device))

    side = draft.speculator(job) if isinstance(draft, DraftProcess) else Speculator(draft, job)
    with contextlib.closing(side):
        now = side.first()
        while now is not None:
            start = time.perf_counter()
            accepted, bonus = side.round(verifying, executor, cache)
            new = outcome_tokens(now.tokens, accepted, bonus)
            step = batch.extend(new, accepted, now.s.shape[1], (cache, *side.caches))
            answer = side.answer(step.rows)
            together = time.perf_counter() - start - (answer.next.seconds if answer.next else 0.0)
            seconds = Times(answer.verify_s, answer.prepare_s, together, now.seconds)
            yield AsyncRound(step.rows, step.tokens, accepted, step.drafted, now.hits, answer.ranks, answer.guesses,
                             answer.prepared, now.tokens, bonus, seconds, answer.cache_bytes)
            now = answer.next
