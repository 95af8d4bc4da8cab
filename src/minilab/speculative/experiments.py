"""The experiments of chapter 1. Presets stand above each; results are plain numbers for `figures.py`."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from minilab.core.device import pick_device, seed_everything, with_threads
from minilab.core.records import Experiment, Record
from minilab.core.timing import interleaved, product_rate, read_bandwidth, spread
from minilab.nn.graphs import captured
from minilab.speculative import experiments_speed, experiments_ssd, recipes, theory
from minilab.speculative.decoding import (
    Batch,
    Round,
    autoregressive,
    collect,
    prefill,
    propose,
    speculative,
    verify,
)
from minilab.speculative.models import LanguageModel
from minilab.speculative.pairs import Pair, fast, load_pair_for, prompts_for
from minilab.speculative.sampling import GREEDY, Sampling


@dataclass(frozen=True)
class BandwidthPreset:
    name: str
    widths: tuple[int, ...]  # tokens in one pass
    repeats: int
    prefix: int = 128  # tokens already in the cache
    threads: int | None = None  # None leaves torch's own number
    pair: str = "shipped"
    seed: int = 0
    device: str = "auto"


BANDWIDTH = {
    "cpu": BandwidthPreset("cpu", widths=(1, 2, 4, 8, 16, 32, 64, 128), repeats=7, threads=1, device="cpu"),
    "gpu": BandwidthPreset("gpu", widths=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512), repeats=50, device="cuda"),
}


@with_threads
def bandwidth(preset: BandwidthPreset) -> Record:
    """Why one token costs as much as eight: the time of one target pass against the tokens in it."""
    started = time.perf_counter()
    device = pick_device(preset.device)
    seed_everything(preset.seed)
    pair = fast(load_pair_for(preset.pair, device))
    curves = {}
    for role, model in (("target", pair.target), ("draft", pair.draft)):
        cache = model.new_cache(1, preset.prefix + max(preset.widths))
        tokens = torch.randint(model.vocab_size, (1, preset.prefix + max(preset.widths)), device=device)
        with torch.inference_mode():
            model(tokens[:, : preset.prefix], cache=cache)

            def one_pass(width: int, model=model, cache=cache, tokens=tokens) -> None:
                cache.rollback(preset.prefix)
                captured((cache,), "pass", lambda given: model(given, cache=cache), tokens[:, :width], device=device)

            found = interleaved({str(w): (lambda w=w, f=one_pass: f(w)) for w in preset.widths},
                                repeats=preset.repeats, warmup=2, device=device)
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        curves[role] = {"seconds": {w: spread(t) for w, t in found.items()}, "weight_bytes": weights,
                        "parameters": model.num_parameters()}
    results = {"widths": list(preset.widths), "curves": curves, "read_bytes_per_s": read_bandwidth(device),
               "flops_per_s": product_rate(device)}
    return Record.new(experiment="speculative/bandwidth", preset=preset, results=results, started=started)


@dataclass(frozen=True)
class AcceptancePreset:
    name: str
    prompts: int
    new_tokens: int
    K: int = 6
    temperatures: tuple[float, ...] = (0.0, 0.5, 1.0)
    threads: int | None = None
    pair: str = "shipped"
    seed: int = 0
    device: str = "auto"


ACCEPTANCE = {
    "cpu": AcceptancePreset("cpu", prompts=8, new_tokens=64, temperatures=(0.0, 1.0), threads=1, device="cpu"),
    "gpu": AcceptancePreset("gpu", prompts=128, new_tokens=128, temperatures=(0.0, 0.3, 0.5, 0.7, 1.0), device="cuda"),
}


@with_threads
def acceptance(preset: AcceptancePreset) -> Record:
    """How many draft tokens a round accepts, against the law that a constant acceptance rate predicts."""
    started = time.perf_counter()
    device = pick_device(preset.device)
    pair = load_pair_for(preset.pair, device)
    prompts = prompts_for(pair, preset.prompts)
    curves = {}
    for temperature in preset.temperatures:
        run = pair.generate(prompts, K=preset.K, max_new_tokens=preset.new_tokens, seed=preset.seed,
                            sampling=Sampling(temperature=temperature))
        whole = [k for r in run.rounds if r.drafted == preset.K for k in r.accepted]
        counts = [whole.count(k) for k in range(preset.K + 1)]
        tested = [sum(counts[i:]) for i in range(preset.K)]  # rounds that reached draft token i + 1
        alpha = run.acceptance_rate
        curves[str(temperature)] = {
            "acceptance_rate": alpha, "tokens_per_round": sum(k + 1 for k in whole) / len(whole), "counts": counts,
            "rate_by_position": [sum(counts[i + 1 :]) / n if n else None for i, n in enumerate(tested)],
            "predicted_tokens_per_round": theory.expected_tokens(alpha, preset.K),
            "predicted_pmf": theory.accepted_pmf(alpha, preset.K).tolist(),
        }
    return Record.new(experiment="speculative/acceptance", preset=preset, results={"K": preset.K, "curves": curves},
                      started=started)


def acceptance_along(rounds: Sequence[Round], stretch: int) -> list[float]:
    """Acceptance rate (accepted over tested draft tokens) in each `stretch` new tokens of the texts.

    A round counts where it began.
    """
    begun, accepted, tested = Counter(), Counter(), Counter()
    for step in rounds:
        for row, new, k in zip(step.rows, step.tokens, step.accepted, strict=True):
            part = begun[row] // stretch
            accepted[part] += k
            tested[part] += min(k + 1, step.drafted)
            begun[row] += len(new)
    return [accepted[part] / tested[part] for part in sorted(tested)]


@dataclass(frozen=True)
class SpeedPreset:
    name: str
    lookaheads: tuple[int, ...]
    prompts: int
    new_tokens: int
    repeats: int
    temperature: float = 0.0
    threads: int | None = None
    pair: str = "shipped"
    seed: int = 0
    device: str = "auto"


SPEED = {
    "cpu": SpeedPreset("cpu", lookaheads=(1, 2, 3, 6), prompts=2, new_tokens=48, repeats=3, threads=1,
                       device="cpu"),
    "gpu": SpeedPreset("gpu", lookaheads=(1, 2, 3, 4, 6, 8, 12), prompts=3, new_tokens=96, repeats=3, device="cuda"),
}


@with_threads
def speed(preset: SpeedPreset) -> Record:
    """Tokens per second against the lookahead K, beside what acceptance and the models' times predict."""
    started = time.perf_counter()
    device = pick_device(preset.device)
    pair = fast(load_pair_for(preset.pair, device))
    prompts = [pair.encode(p) for p in prompts_for(pair, preset.prompts)]
    options = dict(max_new_tokens=preset.new_tokens, sampling=Sampling(temperature=preset.temperature))

    def decode(K: int | None):
        generator = torch.Generator(device).manual_seed(preset.seed)
        runs = [collect(autoregressive(pair.target, [p], generator=generator, **options) if K is None else
                        speculative(pair.target, pair.draft, [p], K=K, generator=generator, **options), 1)
                for p in prompts]  # one at a time: batch 1 is where speculation lives
        return runs

    seconds = interleaved({str(K): (lambda K=K: decode(K)) for K in (None, *preset.lookaheads)},
                          repeats=preset.repeats, device=device)
    total = preset.prompts * preset.new_tokens
    plain = seconds.pop("None")
    cost = pass_costs(pair, preset.lookaheads, device)
    curve = []
    for K in preset.lookaheads:
        runs = decode(K)
        rounds = [r for run in runs for r in run.rounds]
        per_round = total / len(rounds)
        measured = [a / s for a, s in zip(plain, seconds[str(K)], strict=True)]  # within one turn
        curve.append({
            "K": K, "tokens_per_s": total / spread(seconds[str(K)])["median"], "speedup": spread(measured),
            "tokens_per_round": per_round,
            "predicted_speedup": per_round / (K * cost["draft"][str(K)] + cost["verify"][str(K)]),
            "predicted_speedup_free_verify": per_round / (K * cost["draft"][str(K)] + 1)})
    results = {"autoregressive_tokens_per_s": total / spread(plain)["median"], "curve": curve, "cost": cost}
    return Record.new(experiment="speculative/speed", preset=preset, results=results, started=started)


@torch.inference_mode()
def pass_costs(pair: Pair, lookaheads: tuple[int, ...], device: torch.device, *, prefix: int = 96, repeats: int = 25
               ) -> dict:
    """The theory's constants for each lookahead K, in units of one target step: a draft step, a check of K + 1 tokens.

    All are timed as decoding launches them, greedily: a draft step is the Kth part of a chain of K, which on a GPU is
    one launch. Low quartiles, because a busy machine interrupts long passes more often than short ones.
    """
    batch = Batch([[0] * (prefix + 1)], 1, (), pair.target, pair.draft, lookahead=max(lookaheads))
    caches = {model: prefill(model, batch.sequences, batch.capacity) for model in (pair.target, pair.draft)}
    drafted = torch.zeros(1, max(lookaheads), dtype=torch.long, device=device)

    def chain(model: LanguageModel, K: int) -> None:
        caches[model].rollback(prefix)
        propose(model, caches[model], batch, [0] * K, GREEDY, None)

    def check(K: int) -> None:
        caches[pair.target].rollback(prefix)
        verify(pair.target, caches[pair.target], GREEDY, None, batch.last(1), drafted[:, :K], None)

    found = interleaved({"step": partial(chain, pair.target, 1),
                         **{f"draft {K}": partial(chain, pair.draft, K) for K in lookaheads},
                         **{f"verify {K}": partial(check, K) for K in lookaheads}},
                        repeats=repeats, warmup=2, device=device)
    calm = {name: spread(t)["low"] for name, t in found.items()}
    step = calm["step"]
    return {"target_step_s": step, "draft": {str(K): calm[f"draft {K}"] / K / step for K in lookaheads},
            "verify": {str(K): calm[f"verify {K}"] / step for K in lookaheads}}


EXPERIMENTS = {
    "bandwidth": Experiment(bandwidth, BANDWIDTH),
    "acceptance": Experiment(acceptance, ACCEPTANCE),
    "speed": Experiment(speed, SPEED),
    "hits": Experiment(experiments_ssd.hits, experiments_ssd.HITS),
    "saguaro": Experiment(experiments_ssd.saguaro, experiments_ssd.SAGUARO),
    "headline": Experiment(experiments_speed.headline, experiments_speed.HEADLINE),
    "race": Experiment(experiments_speed.race, experiments_speed.RACE),
    "temperature": Experiment(experiments_speed.temperature, experiments_speed.TEMPERATURE),
    "batches": Experiment(experiments_speed.batches, experiments_speed.BATCHES),
    "pair": Experiment(recipes.pair, recipes.PAIR),
    "smollm_draft": Experiment(recipes.smollm_draft, recipes.SMOL_DRAFT),
}
