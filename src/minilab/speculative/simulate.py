"""Who works when: a discrete-event simulation of three schedulers of one target and one draft.

- `ar`: one target pass a token;
- `sd`: the draft drafts K tokens, then the target verifies them;
- `ssd`: the draft prepares the next round while the target verifies this one (Algorithm 1 of Kumar, Dao and May,
  2026); if any row of the batch misses, all of them wait for the fallback.

Notable:
- A round is a list of phases. The tasks of a phase start together, the next phase when the last of them ends.
  So a draft that is not done when the verification ends makes the target wait, after a hit and after a miss.
  Theorem 7 charges a miss 1 + T_b whatever T_p is; the two agree for T_p <= 1, the case that the paper aims at.
- While both lanes are busy each progresses at the rate 1 / contention; when one ends, the other speeds up.
- `static/simulate.js` is the same in JavaScript, for the page; the tests hold the two equal.

Times are seconds, or any one unit. Wrong input raises ValueError.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from minilab.speculative.engine import AsyncRound
from minilab.speculative.theory import expected_tokens

SCHEDULERS, LANES = ("ar", "sd", "ssd"), ("target", "draft")
Phase = dict[str, tuple[str, float]]  # lane -> what it does, and for how long if it is alone


@dataclass(frozen=True)
class Costs:
    """Seconds of each part when it runs alone."""

    verify: float  # a target pass over K + 1 tokens
    step: float  # a target pass over one token
    draft: float  # one draft pass
    prepare: float  # the whole preparation: the glue pass and K tree passes
    fallback: float | None = None  # drafting after a miss; None is just in time, K draft passes
    handshake: float = 0.0  # a round's exchange between the two processes of `ssd`; `sd` is one process
    contention: float = 1.0  # factor on verify and prepare while both run: 1 on two devices, 2 if nothing overlaps

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; it must be a finite number of at least 0")
        if min(self.verify, self.step) == 0:
            raise ValueError(f"verify is {self.verify} and step is {self.step}: a pass of the target takes time")
        if self.contention < 1:
            raise ValueError(f"contention is {self.contention}; below 1, two tasks at once would be faster than one")


@dataclass(frozen=True)
class Outcome:
    """What became of one round, an entry for each row of the batch."""

    accepted: tuple[int, ...]  # draft tokens kept; the row gains one token more
    hit: tuple[bool, ...]  # whether this round's speculation had been prepared

    def __post_init__(self) -> None:
        if not self.accepted or len(self.accepted) != len(self.hit):
            raise ValueError(f"an outcome needs one entry a row, not {len(self.accepted)} and {len(self.hit)}")


class Event(NamedTuple):
    """One task on one lane."""

    lane: str  # target or draft
    kind: str  # step, verify; draft, prepare, fallback, handshake
    start: float
    end: float
    round: int


@dataclass(frozen=True)
class Timeline:
    """What ran when, in order of the ends, and the tokens that each round made (of all rows)."""

    events: tuple[Event, ...]
    made: tuple[int, ...]

    @property
    def seconds(self) -> float:
        return self.events[-1].end

    @property
    def tokens(self) -> int:
        return sum(self.made)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    def tokens_by(self, moment: float) -> int:
        """Tokens of the rounds whose target pass has ended by then."""
        return sum(self.made[e.round] for e in self.events if e.lane == "target" and e.end <= moment)

    def busy(self, lane: str) -> float:
        return sum(e.end - e.start for e in self.events if e.lane == lane)

    def idle(self, lane: str) -> float:
        """Share of the time in which the lane (target or draft) has nothing to do."""
        return 1 - self.busy(lane) / self.seconds


def simulate(scheduler: str, costs: Costs, outcomes: Sequence[Outcome], K: int) -> Timeline:
    """One round for each outcome; an autoregressive one makes one token a row, whatever was accepted."""
    if scheduler not in SCHEDULERS:
        raise ValueError(f"the scheduler is {scheduler!r}; choose one of {', '.join(SCHEDULERS)}")
    if K < 1 or not outcomes:
        raise ValueError(f"K is {K} and there are {len(outcomes)} outcomes; both must be at least 1")
    for outcome in outcomes:
        if not 0 <= min(outcome.accepted) <= max(outcome.accepted) <= K:
            raise ValueError(f"an outcome accepts {outcome.accepted} of K={K} draft tokens")
    events = tuple(_run((_phases(scheduler, costs, all(o.hit), K) for o in outcomes), costs.contention))
    return Timeline(events, tuple(len(o.hit) + (sum(o.accepted) if scheduler != "ar" else 0) for o in outcomes))


def _phases(scheduler: str, costs: Costs, hit: bool, K: int) -> list[Phase]:
    """One round; `hit` says that every row hit."""
    just_in_time, verify = K * costs.draft, ("verify", costs.verify)
    if scheduler == "ar":
        return [{"target": ("step", costs.step)}]
    if scheduler == "sd":
        return [{"draft": ("draft", just_in_time)}, {"target": verify}]
    fallback = just_in_time if costs.fallback is None else costs.fallback
    waiting = [{"draft": ("handshake", costs.handshake)}, {"draft": ("fallback", 0.0 if hit else fallback)}]
    return [*waiting, {"target": verify, "draft": ("prepare", costs.prepare)}]


def _run(rounds: Iterable[list[Phase]], contention: float) -> Iterator[Event]:
    """The clock goes from one end of a task to the next. What takes no time leaves no event."""
    now = 0.0
    for i, phase in ((i, phase) for i, phases in enumerate(rounds) for phase in phases):
        start, left = now, {lane: seconds for lane, (_, seconds) in phase.items() if seconds > 0}
        while left:
            shortest = min(left.values())
            now += shortest * (contention if len(left) > 1 else 1.0)
            yield from (Event(lane, phase[lane][0], start, now, i) for lane, s in left.items() if s == shortest)
            left = {lane: s - shortest for lane, s in left.items() if s > shortest}


def draw_outcomes(alpha: float, K: int, hit_rate: float, rounds: int, batch: int = 1, seed: int = 0) -> list[Outcome]:
    """Each draft token is accepted with chance `alpha`, up to the first rejection; each row hits with `hit_rate`.

    All independent, but nothing is prepared for the first round, so it misses.
    """
    if rounds < 1 or batch < 1:
        raise ValueError(f"there are {rounds} rounds of {batch} rows; both must be at least 1")
    return outcomes_from(np.random.default_rng(seed).random((rounds, batch, 2)), alpha, K, hit_rate)


def outcomes_from(u: Float[np.ndarray, "T B 2"], alpha: float, K: int, hit_rate: float) -> list[Outcome]:
    """T rounds of B rows from uniform numbers: the same `u` at a slightly higher rate gives nearly the same rounds."""
    _check_rates(alpha, hit_rate)
    accepted = (u[..., :1] < alpha ** np.arange(1, K + 1)).sum(axis=-1)  # k or more with chance alpha^k
    hit = (u[..., 1] < hit_rate) & (np.arange(len(u)) > 0)[:, None]
    return [Outcome(tuple(a), tuple(h)) for a, h in zip(accepted.tolist(), hit.tolist(), strict=True)]


def _check_rates(alpha: float, hit_rate: float) -> None:
    if not (0 <= alpha <= 1 and 0 <= hit_rate <= 1):
        raise ValueError(f"alpha is {alpha} and the hit rate {hit_rate}; both must lie between 0 and 1")


class Mean(NamedTuple):
    """A round in the long run."""

    tokens: float  # of all rows
    seconds: float
    idle_target: float  # shares of the time
    idle_draft: float


def long_run(scheduler: str, costs: Costs, K: int, *, alpha: float, hit_rate: float, batch: int = 1) -> Mean:
    """What `simulate` tends to with `draw_outcomes`: a mean of two rounds, one where all rows hit and one other."""
    _check_rates(alpha, hit_rate)
    p = hit_rate**batch  # every row hits
    hit, miss = (simulate(scheduler, costs, [Outcome((0,), (h,))], K) for h in (True, False))
    cases = [(p, hit), (1 - p, miss)]
    seconds = sum(chance * case.seconds for chance, case in cases)
    idle = [1 - sum(chance * case.busy(lane) for chance, case in cases) / seconds for lane in LANES]
    return Mean(batch * (1.0 if scheduler == "ar" else expected_tokens(alpha, K)), seconds, *idle)


def outcomes_of(rounds: Sequence[AsyncRound]) -> list[Outcome]:
    """What the engine's rounds came to; where a text ended, only the draft tokens that it kept."""
    return [Outcome(tuple(len(tokens) - 1 for tokens in r.tokens), tuple(r.hits)) for r in rounds]


def replay(rounds: Sequence[AsyncRound], *, contention: float = 1.0, handshake: float = 0.0
           ) -> tuple[Timeline, Timeline]:
    """The engine's measured rounds: in sequence, which is what they took, and overlapped, the prediction.

    Measure them with the executor `sequential`: a part that ran beside another already contains their contention.
    """
    if not rounds or contention < 1 or handshake < 0:
        raise ValueError(f"replay needs rounds, contention >= 1 and handshake >= 0; it got {len(rounds)} rounds, "
                         f"{contention} and {handshake}")
    made = tuple(sum(map(len, r.tokens)) for r in rounds)
    sequence, overlapped = [], []
    for seconds in (r.seconds for r in rounds):
        fallback = {"draft": ("fallback", seconds.fallback)}
        verify, prepare = {"target": ("verify", seconds.verify)}, {"draft": ("prepare", seconds.prepare)}
        sequence.append([fallback, verify, prepare])
        overlapped.append([{"draft": ("handshake", handshake)}, fallback, verify | prepare])
    return Timeline(tuple(_run(sequence, 1.0)), made), Timeline(tuple(_run(overlapped, contention)), made)
