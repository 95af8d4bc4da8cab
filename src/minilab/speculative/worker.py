"""The draft in a process of its own: on two CPU cores, verifying and preparing then really happen at once.

Two Python threads share one interpreter, and a small model's passes are mostly interpreter. A process has its own.
What travels in a round is small: the outcome one way; the draft tokens and a few numbers the other. Only sampling
needs the draft's distributions, B K V numbers, which are written to memory that both processes see.
"""

import contextlib
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.multiprocessing as mp
from torch import Tensor

from minilab.core.timing import Mark
from minilab.speculative.decoding import Batch
from minilab.speculative.models import Cache
from minilab.speculative.speculator import (
    Answer,
    Executor,
    Job,
    Outcome,
    Speculation,
    Speculator,
    Verifying,
    outcome_tokens,
)

STOP, IDLE = "stop", "idle"


@dataclass(frozen=True)
class _Start:
    job: Job
    q: Tensor | None  # shared memory for the distributions, B K V


class DraftProcess:
    """A draft model in a process, for `engine.ssd` in the place of the draft. Use it in a `with` statement.

    It starts once (seconds: a new Python must import torch) and serves any number of decodings, one at a time.
    With `pin` the caller keeps to one core and the draft to another, where the system can do that. Raises
    ValueError for a draft on a GPU: there, `engine.Overlapped` runs both on streams of one process.
    """

    def __init__(self, draft: torch.nn.Module, *, pin: bool = True) -> None:
        if draft.device.type != "cpu":
            raise ValueError(f"the draft is on {draft.device}; a process of its own is for CPU cores. Use "
                             "executor=Overlapped() on a GPU")
        self.vocab_size, self.context, self.start_token = draft.vocab_size, draft.context, draft.start_token
        self.device = draft.device
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._cores = cores if pin and len(cores) > 1 else []
        spawn = mp.get_context("spawn")
        self._line, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, draft, self._cores[1:2]), daemon=True)
        self._process.start()
        theirs.close()
        self._hear()  # it is up
        if self._cores:
            os.sched_setaffinity(0, self._cores[:1])

    def speculator(self, job: Job) -> "RemoteSpeculator":
        """The far end of a decoding."""
        rows, V = len(job.batch.rows), self.vocab_size
        q = None if job.sampling.greedy else torch.empty(rows, job.K, V).share_memory_()
        self._say(_Start(job, q))
        return RemoteSpeculator(self, job.batch, q)

    def close(self) -> None:
        """End the process and give the caller all its cores back."""
        if self._cores:
            os.sched_setaffinity(0, self._cores)
        with contextlib.suppress(OSError):
            self._line.send(None)
        self._process.join(timeout=5)
        self._process.terminate()

    def _say(self, message: object) -> None:
        try:
            self._line.send(message)
        except OSError as error:
            raise RuntimeError("the draft's process has ended; start another DraftProcess") from error

    def _hear(self) -> object:
        try:
            message = _next(self._line, spin=bool(self._cores))
        except (EOFError, OSError) as error:
            raise RuntimeError("the draft's process ended unexpectedly (killed, or out of memory?)") from error
        if isinstance(message, _Failure):
            raise RuntimeError(f"the draft's process failed:\n{message.text}")
        return message

    def __enter__(self) -> "DraftProcess":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


class RemoteSpeculator:
    """Speaks for a `Speculator` in another process. That one prepares by itself, so no executor has a say."""

    caches = ()  # the draft's are elsewhere

    def __init__(self, process: DraftProcess, batch: Batch, q: Tensor | None) -> None:
        self._process, self._batch, self._q, self._open = process, batch, q, True

    def first(self) -> Speculation:
        self._now = self._unpack(self._process._hear())
        return self._now

    def round(self, verifying: Verifying, executor: Executor, target_cache: Cache) -> Outcome:
        newest = torch.tensor([row[-1:] for row in self._batch.sequences])
        outcome, self._verified = verifying(newest, self._now.s, self._now.q)
        outcome = Outcome(*outcome.tolist())
        self._process._say(outcome)
        return outcome

    def answer(self, rows: list[int]) -> Answer:
        answer, packed = self._process._hear()
        self._open, self._now = packed is not None, self._unpack(packed) if packed else None
        start, end = self._verified
        return replace(answer, next=self._now, verify_s=end.seconds_since(start))

    def close(self) -> None:
        """Tell the far end that this decoding is over, if it does not know, and wait until it has stopped."""
        if self._open:
            with contextlib.suppress(RuntimeError):
                self._process._say(STOP)
                while self._process._hear() != IDLE:
                    pass  # an answer that nobody waits for any more

    def _unpack(self, packed: tuple[list[list[int]], list[bool], float]) -> Speculation:
        rows, hits, seconds = packed
        s = torch.tensor(rows, dtype=torch.long).view(len(rows), -1)
        return Speculation(s, None if self._q is None else self._q[: len(s), : s.shape[1]], rows, hits, seconds)


@dataclass(frozen=True)
class _Failure:
    text: str


class _Stopped(Exception):
    """The other side wants no more of this decoding."""


def _serve(line, draft: torch.nn.Module, cores: list[int]) -> None:
    """Decodings one after the other, until told to end or until the other side is gone."""
    torch.set_num_threads(1)
    if cores:
        os.sched_setaffinity(0, cores)
    draft.requires_grad_(False)
    line.send("up")
    with contextlib.suppress(EOFError, KeyboardInterrupt), torch.inference_mode():
        while (message := line.recv()) is not None:
            try:
                if message == STOP:
                    raise _Stopped
                _decode(line, Speculator(draft, message.job), message.q, bool(cores))
            except _Stopped:
                line.send(IDLE)
            except Exception:
                line.send(_Failure(traceback.format_exc()))


def _next(line, spin: bool) -> object:
    """The next message. A side with a core to itself asks for it again and again: waking up takes a millisecond."""
    while spin and not line.poll():
        pass
    return line.recv()


def _prepare_first(verifying: Callable[[], object], preparing: Callable[[], object]) -> tuple:
    prepared = preparing()
    return verifying(), prepared


def _decode(line, side: Speculator, q: Tensor | None, spin: bool) -> None:
    def pack(speculation: Speculation) -> tuple[list[list[int]], list[bool], float]:
        if q is not None and speculation.q is not None:
            q[: speculation.s.shape[0], : speculation.s.shape[1]] = speculation.q
        return speculation.tokens, speculation.hits, speculation.seconds

    def hear(*_) -> tuple[Tensor, tuple[Mark, Mark]]:
        """The outcome, which the other process finds out meanwhile."""
        if (outcome := _next(line, spin)) == STOP:
            raise _Stopped
        here = Mark(torch.device("cpu"))
        return torch.tensor(outcome), (here, here)

    now = side.first()
    line.send(pack(now))
    while now is not None:
        accepted, bonus = side.round(hear, _prepare_first)
        step = side.batch.extend(outcome_tokens(now.tokens, accepted, bonus), accepted, now.s.shape[1], side.caches)
        answer = side.answer(step.rows)
        now = answer.next
        line.send((replace(answer, next=None), pack(now) if now else None))
