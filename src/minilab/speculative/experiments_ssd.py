"""The experiments of chapter 1's second half that no clock decides: how often a guess is right, and what that costs.

Hit rates and acceptance do not depend on time, so the tasks run one after the other here, and the numbers are
those of any machine. A round's *rank* (how many tokens the draft held likelier than the bonus token, in the row
of the k that came true) tells which fan-outs would have hit: one run gives the whole curve.
"""

import time
from dataclasses import dataclass
from functools import partial

import numpy as np

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.speculative import fanout
from minilab.speculative.decoding import collect
from minilab.speculative.engine import AsyncRound, ssd
from minilab.speculative.pairs import Pair, load_pair_for, prompts_for
from minilab.speculative.sampling import Sampling


@dataclass(frozen=True)
class HitsPreset:
    name: str
    prompts: int
    new_tokens: int
    K: int = 4
    temperatures: tuple[float, ...] = (0.0, 0.7, 1.0)
    fan_outs: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    budget: int = 20  # guesses of a round, for the comparison of allocations
    threads: int | None = None
    pair: str = "shipped"
    seed: int = 0
    device: str = "auto"


HITS = {
    "cpu": HitsPreset("cpu", prompts=16, new_tokens=48, temperatures=(0.0, 1.0), threads=1, device="cpu"),
    "gpu": HitsPreset("gpu", prompts=256, new_tokens=128, temperatures=(0.0, 0.3, 0.7, 1.0), device="cuda"),
}


@with_threads
def hits(preset: HitsPreset) -> Record:
    """How often the outcome was guessed against the fan-out, after a speculation of the draft and of a fallback."""
    started = time.perf_counter()
    pair = load_pair_for(preset.pair, pick_device(preset.device))
    curves = {}
    for temperature in preset.temperatures:
        found = {}
        for source, fallback in (("primary", "jit"), ("backup", "random")):
            rounds = _rounds(pair, preset, temperature, fallback=fallback)
            k, rank = outcomes(rounds, after_draft=source == "primary")
            miss = [float(np.mean(rank >= F)) for F in preset.fan_outs]
            A, r = fanout.fit_power_law(preset.fan_outs, [1 - m for m in miss])
            found[source] = {"rounds": len(rank), "miss": miss, "A": A, "r": r}
            if source == "primary":
                alpha = collect(iter(rounds), preset.prompts).acceptance_rate
                found |= {"acceptance_rate": alpha, **_compare(k, rank, preset.K, preset.budget, alpha, r)}
        curves[str(temperature)] = found
    results = {"K": preset.K, "fan_outs": list(preset.fan_outs), "budget": preset.budget, "curves": curves}
    return Record.new(experiment="speculative/hits", preset=preset, results=results, started=started)


def _compare(k: np.ndarray, rank: np.ndarray, K: int, budget: int, alpha: float, r: float) -> dict:
    """The hit rates of three allocations of one budget, on the rounds that were seen."""
    weights = [float(np.mean(k == j)) for j in range(K + 1)]
    hit = np.array([[np.mean(rank[k == j] < F) if (k == j).any() else 0.0 for F in range(budget + 1)]
                    for j in range(K + 1)])
    lists = {"uniform": fanout.uniform(budget, K), "geometric": fanout.geometric(budget, K, alpha=alpha, r=r),
             "optimal": fanout.optimal(budget, weights, hit)}
    return {"fan_out": lists, "hit_rate": {name: fanout.hit_rate(F, weights, hit) for name, F in lists.items()}}


@dataclass(frozen=True)
class SaguaroPreset:
    name: str
    prompts: int
    new_tokens: int
    K: int = 4
    budget: int = 10  # two guesses for each k
    temperature: float = 1.0
    constants: tuple[float, ...] = (1.0, 0.5, 0.2, 0.05, 0.0)
    threads: int | None = None
    pair: str = "shipped"
    seed: int = 0
    device: str = "auto"


SAGUARO = {
    "cpu": SaguaroPreset("cpu", prompts=16, new_tokens=32, constants=(1.0, 0.3, 0.05), threads=1, device="cpu"),
    "gpu": SaguaroPreset("gpu", prompts=256, new_tokens=128, constants=(1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.0),
                         device="cuda"),
}


@with_threads
def saguaro(preset: SaguaroPreset) -> Record:
    """What starving the guessed tokens buys in hits and costs in acceptance, against the constant C."""
    started = time.perf_counter()
    pair = load_pair_for(preset.pair, pick_device(preset.device))
    points = []
    for C in preset.constants:
        rounds = _rounds(pair, preset, preset.temperature, fallback="jit", budget=preset.budget, C=C)
        run = collect(iter(rounds), preset.prompts)
        looked_up = [hit for step in rounds[1:] for hit in step.hits]
        points.append({"C": C, "hit_rate": sum(looked_up) / len(looked_up), "rounds": len(looked_up),
                       "acceptance_rate": run.acceptance_rate, "tokens_per_round": run.tokens_per_round})
    results = {"K": preset.K, "temperature": preset.temperature, "points": points}
    return Record.new(experiment="speculative/saguaro", preset=preset, results=results, started=started)


def _rounds(pair: Pair, preset, temperature: float, *, fallback: str, budget: int | None = None, C: float = 1.0
            ) -> list[AsyncRound]:
    prompts = [pair.encode(p) for p in prompts_for(pair, preset.prompts)]
    return list(ssd(pair.target, pair.draft, prompts, K=preset.K, max_new_tokens=preset.new_tokens,
                    fan_out=partial(fanout.uniform, budget or preset.K + 1), fallback=fallback, C=C,
                    sampling=Sampling(temperature), stop=pair.stop, seed=preset.seed))


def outcomes(rounds: list[AsyncRound], *, after_draft: bool) -> tuple[np.ndarray, np.ndarray]:
    """k and rank of each row's outcome, in full rounds whose speculation the draft (or else a fallback) made.

    With `jit` every speculation is the draft's; with another fallback those are that did not hit.
    """
    K = max(step.drafted for step in rounds)
    kept = [(k, rank) for step in rounds if step.drafted == K
            for k, rank, hit in zip(step.accepted, step.ranks, step.hits, strict=True) if after_draft or not hit]
    k, rank = zip(*kept, strict=True)
    return np.array(k), np.array(rank)
