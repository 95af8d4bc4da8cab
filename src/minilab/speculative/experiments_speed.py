"""The experiments of chapter 1 that a clock decides: AR, SD and SSD side by side, alone and in batches.

AR is autoregressive decoding, SD speculative decoding, SSD speculative speculative decoding. Contestants are timed
in turn in one process, ratios are taken within a turn, and SD is tuned: it is compared at its own best K.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean, median

import torch

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.core.timing import interleaved, read_bandwidth, spread
from minilab.speculative import fanout, simulate
from minilab.speculative.decoding import Generation, Round, autoregressive, collect, speculative
from minilab.speculative.engine import AsyncRound, Executor, Overlapped, sequential, ssd
from minilab.speculative.experiments_ssd import outcomes
from minilab.speculative.interactive import time_stream
from minilab.speculative.models import ModelFacts, TreeModel
from minilab.speculative.pairs import Pair, fast, load_pair_for, prompts_for
from minilab.speculative.sampling import GREEDY, Sampling
from minilab.speculative.speculator import FanOut
from minilab.speculative.worker import DraftProcess


@contextlib.contextmanager
def side_by_side(draft: TreeModel) -> Iterator[tuple[ModelFacts, Executor]]:
    """The draft and the executor for `ssd` that overlap here: a process on a CPU, a stream on a GPU.

    Where neither can be had (MPS), both sides take turns.
    """
    if draft.device.type == "cpu":
        with DraftProcess(draft) as process:
            yield process, sequential
    elif draft.device.type == "cuda":
        yield draft, Overlapped(draft.device)
    else:
        yield draft, sequential


@dataclass(frozen=True)
class Contest:
    """AR, SD and SSD of one pair over the same prompts, one prompt after the other, always with the same seed."""

    pair: Pair
    draft: ModelFacts  # what SSD takes as its draft, and how it runs the two sides
    executor: Executor
    prompts: list[list[int]]
    new_tokens: int
    sampling: Sampling
    seed: int

    def ar(self) -> list[Generation]:
        return self._each(lambda p, generator, **options: autoregressive(
            self.pair.target, [p], generator=generator, **options))

    def sd(self, K: int) -> list[Generation]:
        return self._each(lambda p, generator, **options: speculative(
            self.pair.target, self.pair.draft, [p], K=K, generator=generator, **options))

    def ssd(self, K: int, fan_out: FanOut, *, inspect: bool = False) -> list[Generation]:
        return self._each(lambda p, generator, **options: ssd(
            self.pair.target, self.draft, [p], K=K, fan_out=fan_out, executor=self.executor, seed=self.seed,
            inspect=inspect, **options))

    def in_sequence(self) -> "Contest":
        """The same, but with SSD's two sides one after the other: each is timed alone."""
        return replace(self, draft=self.pair.draft, executor=sequential)

    def _each(self, decode: Callable[..., Iterator[Round]]) -> list[Generation]:
        generator = torch.Generator(self.pair.target.device)
        return [collect(decode(p, generator.manual_seed(self.seed), max_new_tokens=self.new_tokens,
                               sampling=self.sampling), 1) for p in self.prompts]


@dataclass(frozen=True)
class HeadlinePreset:
    name: str
    prompts: int
    new_tokens: int
    repeats: int
    lookaheads: tuple[int, ...]  # of SD
    ssd: tuple[tuple[int, int], ...]  # K and the number of branches
    temperatures: tuple[float, ...] = (0.0, 0.7)
    threads: int | None = None
    pair: str = "shipped"
    seed: int = 0
    device: str = "auto"
    draft_device: str | None = None  # the target's, if no other is named


HEADLINE = {
    "cpu": HeadlinePreset("cpu", prompts=2, new_tokens=48, repeats=3, lookaheads=(2, 3), ssd=((3, 8),),
                          temperatures=(0.0,), threads=1, device="cpu"),
    "two-cores": HeadlinePreset("two-cores", prompts=4, new_tokens=64, repeats=7, lookaheads=(2, 3, 4),
                                ssd=((3, 8), (3, 16)), threads=1, device="cpu"),
    "gpu": HeadlinePreset("gpu", prompts=4, new_tokens=256, repeats=3, lookaheads=(2, 3, 4, 6, 8, 12, 16),
                          ssd=((2, 12), (3, 16), (4, 20), (6, 28), (8, 36)), device="cuda"),
}
HEADLINE |= {
    "gpu-large": replace(HEADLINE["gpu"], name="gpu-large", pair="large"),
    "two-gpus-large": replace(HEADLINE["gpu"], name="two-gpus-large", pair="large", draft_device="cuda:1"),
    "two-cores-smollm2": replace(HEADLINE["two-cores"], name="two-cores-smollm2", pair="smollm2", prompts=2,
                                 new_tokens=48, repeats=3, lookaheads=(1, 2), ssd=((2, 8),)),
    "gpu-smollm2": replace(HEADLINE["gpu"], name="gpu-smollm2", pair="smollm2", new_tokens=128,
                           lookaheads=(1, 2, 3, 4, 6), ssd=((2, 12), (3, 16), (4, 20), (6, 28)))}


@with_threads
def headline(preset: HeadlinePreset) -> Record:
    """Tokens per second of AR, SD and SSD at batch 1, the parts of a round, and what the simulator makes of them."""
    started = time.perf_counter()
    pair = load_pair_for(preset.pair, pick_device(preset.device))
    if preset.draft_device is not None:
        pair = replace(pair, draft=pair.draft.to(pick_device(preset.draft_device)))
    pair, results = fast(pair), {}
    with side_by_side(pair.draft) as (draft, executor):
        for temperature in preset.temperatures:
            contest = Contest(pair, draft, executor, [pair.encode(p) for p in prompts_for(pair, preset.prompts)],
                              preset.new_tokens, Sampling(temperature), preset.seed)
            results[str(temperature)] = _headline(preset, contest)
    weights = sum(p.numel() * p.element_size() for p in pair.target.parameters())
    read = read_bandwidth(pair.target.device, 2**31 if pair.target.device.type == "cuda" else 2**28)
    results = {"pair": {role: getattr(pair, role).num_parameters() for role in ("target", "draft")},
               "roofline": {"weight_bytes": weights, "read_bytes_per_s": read, "tokens_per_s": read / weights},
               "temperatures": results}
    return Record.new(experiment="speculative/headline", preset=preset, results=results, started=started)


def _headline(preset: HeadlinePreset, contest: Contest) -> dict:
    contestants = {
        "ar": contest.ar, **{f"sd {K}": partial(contest.sd, K) for K in preset.lookaheads},
        **{f"ssd {K} {b}": partial(contest.ssd, K, partial(fanout.uniform, b)) for K, b in preset.ssd}}
    seconds = interleaved(contestants, repeats=preset.repeats, device=contest.pair.target.device)
    fastest = {kind: min((n for n in contestants if n.split()[0] == kind), key=lambda n: median(seconds[n]))
               for kind in ("ar", "sd", "ssd")}

    def ratio(one: str, other: str) -> dict[str, float]:
        return spread([b / a for a, b in zip(seconds[fastest[one]], seconds[fastest[other]], strict=True)])

    K, branches = map(int, fastest["ssd"].split()[1:])
    texts = {kind: contestants[fastest[kind]]() for kind in fastest}
    alone = contest.in_sequence().ssd(K, partial(fanout.uniform, branches))
    rounds = [step for run in alone for step in run.rounds]
    in_parts, at_once = (sum(predicted[i].seconds for predicted in map(simulate.replay, (run.rounds for run in alone)))
                         for i in (0, 1))
    total = preset.prompts * preset.new_tokens
    return {
        "tokens_per_s": {name: spread([total / s for s in times]) for name, times in seconds.items()},
        "fastest": fastest, "sd_over_ar": ratio("sd", "ar"), "ssd_over_sd": ratio("ssd", "sd"),
        "ssd_over_ar": ratio("ssd", "ar"),
        "same_text": {kind: fmean(a.tokens == b.tokens for a, b in zip(texts["ar"], runs, strict=True))
                      for kind, runs in texts.items()},
        "tokens_per_round": {kind: fmean(run.tokens_per_round for run in runs) for kind, runs in texts.items()},
        **parts(rounds), "overlapped": parts([step for run in texts["ssd"] for step in run.rounds]),
        "simulated": {"in_sequence_tokens_per_s": total / in_parts, "overlapped_tokens_per_s": total / at_once}}


def summary(found: dict) -> str:
    """The fastest AR, SD and SSD of one temperature of a `headline`, and their ratios with quartiles, as text."""
    speeds = (found["tokens_per_s"][name]["median"] for name in found["fastest"].values())
    lines = ["AR {:.0f}, SD {:.0f}, SSD {:.0f} tokens/s".format(*speeds)]
    for ratio in ("sd_over_ar", "ssd_over_sd", "ssd_over_ar"):
        lines.append("  {} {median:.2f} ({low:.2f} to {high:.2f})".format(ratio, **found[ratio]))
    return "\n".join(lines)


def parts(rounds: list[AsyncRound]) -> dict[str, float]:
    """Hit rate (of all rounds, the first included, which must miss), acceptance rate, median seconds of the parts."""
    full = max(step.drafted for step in rounds)
    whole = [step.seconds for step in rounds if step.drafted == full]
    hits = [hit for step in rounds for hit in step.hits]
    missed = [s.fallback for s in whole if s.fallback]
    tested = sum(min(k + 1, step.drafted) for step in rounds for k in step.accepted)
    return {"hit_rate": fmean(hits), "acceptance_rate": sum(sum(step.accepted) for step in rounds) / tested,
            "verify_s": median(s.verify for s in whole), "prepare_s": median(s.prepare for s in whole),
            "together_s": median(s.together for s in whole), "fallback_s": median(missed) if missed else 0.0}


@dataclass(frozen=True)
class RacePreset:
    name: str
    prompt: str = "To read a file line by line, you can"
    new_tokens: int = 72
    K_sd: int = 3
    K: int = 3
    branches: int = 8
    threads: int | None = None
    pair: str = "shipped"
    seed: int = 0
    device: str = "auto"


RACE = {"cpu": RacePreset("cpu", threads=1, device="cpu"),
        "gpu": RacePreset("gpu", new_tokens=256, K_sd=16, K=8, branches=36, pair="large", device="cuda")}


@with_threads
def race(preset: RacePreset) -> Record:
    """One prompt decoded greedily by AR, SD and SSD, with the moment at which each token arrived, for a replay."""
    started = time.perf_counter()
    pair = fast(load_pair_for(preset.pair, pick_device(preset.device)))
    prompts, options = [pair.encode(preset.prompt)], dict(max_new_tokens=preset.new_tokens, sampling=GREEDY)
    fan_out = partial(fanout.uniform, preset.branches)
    with side_by_side(pair.draft) as (draft, executor):
        racers = {
            "AR": partial(autoregressive, pair.target, prompts, **options),
            "SD": partial(speculative, pair.target, pair.draft, prompts, K=preset.K_sd, **options),
            "SSD": partial(ssd, pair.target, draft, prompts, K=preset.K, fan_out=fan_out, executor=executor,
                           seed=preset.seed, inspect=False, **options)}
        for decode in racers.values():
            list(decode())  # warm up
        streams = [time_stream(label, decode(), pair.decode) for label, decode in racers.items()]
    return Record.new(experiment="speculative/race", preset=preset, results={"streams": streams}, started=started)


@dataclass(frozen=True)
class TemperaturePreset:
    name: str
    prompts: int
    new_tokens: int
    repeats: int
    temperatures: tuple[float, ...] = (0.0, 0.3, 0.7, 1.0)
    K_sd: int = 3
    K: int = 3
    budget: int = 16  # branches a round
    threads: int | None = None
    pair: str = "shipped"
    seed: int = 0
    device: str = "auto"


TEMPERATURE = {
    "cpu": TemperaturePreset("cpu", prompts=2, new_tokens=24, repeats=1, temperatures=(0.0, 1.0), budget=8, threads=1,
                             device="cpu"),
    "two-cores": TemperaturePreset("two-cores", prompts=6, new_tokens=64, repeats=5, budget=8, threads=1, device="cpu"),
    "gpu": TemperaturePreset("gpu", prompts=8, new_tokens=128, repeats=3, device="cuda"),
}
TEMPERATURE |= {"gpu-large": replace(TEMPERATURE["gpu"], name="gpu-large", pair="large")}


@with_threads
def temperature(preset: TemperaturePreset) -> Record:
    """Hit rate and speed against the temperature, for a uniform and a geometric fan-out of one budget.

    The geometric one is Theorem 12 with the acceptance rate and the exponent that a first decoding shows.
    """
    started = time.perf_counter()
    pair = fast(load_pair_for(preset.pair, pick_device(preset.device)))
    prompts = [pair.encode(p) for p in prompts_for(pair, preset.prompts)]
    points = []
    with side_by_side(pair.draft) as (draft, executor):
        for temperature in preset.temperatures:
            contest = Contest(pair, draft, executor, prompts, preset.new_tokens, Sampling(temperature), preset.seed)
            uniform = partial(fanout.uniform, preset.budget)
            seen = [step for run in contest.in_sequence().ssd(preset.K, uniform, inspect=True) for step in run.rounds]
            alpha, r = parts(seen)["acceptance_rate"], _exponent(seen)
            fan_outs = {"uniform": uniform, "geometric": partial(fanout.geometric, preset.budget, alpha=alpha, r=r)}
            ahead = {name: partial(contest.ssd, preset.K, f) for name, f in fan_outs.items()}
            seconds = interleaved({"ar": contest.ar, "sd": partial(contest.sd, preset.K_sd), **ahead},
                                  repeats=preset.repeats, device=pair.target.device)
            total = preset.prompts * preset.new_tokens
            rounds = {name: [step for run in decode() for step in run.rounds] for name, decode in ahead.items()}
            points.append({
                "temperature": temperature, "acceptance_rate": alpha, "r": r,
                "fan_out": {name: f(preset.K) for name, f in fan_outs.items()},
                "hit_rate": {name: parts(steps)["hit_rate"] for name, steps in rounds.items()},
                "tokens_per_s": {name: spread([total / s for s in t]) for name, t in seconds.items()},
                "over_ar": {name: spread([a / s for a, s in zip(seconds["ar"], t, strict=True)])
                            for name, t in seconds.items()}})
    return Record.new(experiment="speculative/temperature", preset=preset, results={"points": points}, started=started)


def _exponent(rounds: list[AsyncRound], fan_outs: tuple[int, ...] = (1, 2, 4, 8)) -> float:
    """The exponent r of the miss rate A F^-r, from the ranks of the outcomes that came true."""
    _, rank = outcomes(rounds, after_draft=True)
    return fanout.fit_power_law(fan_outs, [float((rank < F).mean()) for F in fan_outs])[1]


@dataclass(frozen=True)
class BatchesPreset:
    name: str
    batches: tuple[int, ...]
    new_tokens: int
    repeats: int
    K_sd: int
    K: int
    branches: int
    fallbacks: tuple[str, ...] = ("jit", "ngram", "random")
    temperature: float = 0.0
    threads: int | None = None
    pair: str = "shipped"
    seed: int = 0
    device: str = "auto"


BATCHES = {
    "cpu": BatchesPreset("cpu", batches=(1, 4), new_tokens=32, repeats=2, K_sd=3, K=3, branches=8,
                         fallbacks=("jit", "random"), threads=1, device="cpu"),
    "two-cores": BatchesPreset("two-cores", batches=(1, 2, 4, 8), new_tokens=48, repeats=3, K_sd=3, K=3, branches=8,
                               threads=1, device="cpu"),
    "gpu": BatchesPreset("gpu", batches=(1, 2, 4, 8, 16), new_tokens=128, repeats=3, K_sd=3, K=3, branches=16,
                         device="cuda"),
}
BATCHES |= {"gpu-large": replace(BATCHES["gpu"], name="gpu-large", pair="large")}


@with_threads
def batches(preset: BatchesPreset) -> Record:
    """Throughput and latency against the batch size, for AR, SD, and SSD with each fallback.

    One record for two figures of the paper: the fallback to choose (Figure 6) and the frontier (Figure 7).
    """
    started = time.perf_counter()
    pair = fast(load_pair_for(preset.pair, pick_device(preset.device)))
    everything = [pair.encode(p) for p in prompts_for(pair, max(preset.batches))]
    options = dict(max_new_tokens=preset.new_tokens, sampling=Sampling(preset.temperature))
    points = []
    with side_by_side(pair.draft) as (draft, executor):
        for batch in preset.batches:
            prompts = everything[:batch]

            def asynchronous(fallback: str, draft=draft, executor=executor, prompts=prompts) -> Generation:
                return collect(ssd(pair.target, draft, prompts, K=preset.K, fallback=fallback, executor=executor,
                                   fan_out=partial(fanout.uniform, preset.branches), seed=preset.seed, inspect=False,
                                   **options),
                               len(prompts))

            contestants = {
                "ar": lambda prompts=prompts: collect(autoregressive(pair.target, prompts, **options), len(prompts)),
                "sd": lambda prompts=prompts: collect(speculative(pair.target, pair.draft, prompts, K=preset.K_sd,
                                                                  **options), len(prompts)),
                **{fallback: partial(asynchronous, fallback) for fallback in preset.fallbacks}}
            seconds = interleaved(contestants, repeats=preset.repeats, device=pair.target.device)
            total = batch * preset.new_tokens
            points.append({
                "batch": batch, "tokens_per_s": {name: spread([total / s for s in t]) for name, t in seconds.items()},
                "over_ar": {name: spread([a / s for a, s in zip(seconds["ar"], t, strict=True)])
                            for name, t in seconds.items()},
                "hit_rate": {f: parts(asynchronous(f).rounds)["hit_rate"] for f in preset.fallbacks}})
    return Record.new(experiment="speculative/batches", preset=preset, results={"points": points}, started=started)
