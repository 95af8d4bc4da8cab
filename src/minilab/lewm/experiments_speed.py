"""The experiments of chapter 3 that a clock decides: a decision, a training step, and what SIGReg costs.

Maes et al. (2026), figure 3: one token a frame plans about 48 times faster than patch tokens. Networks here have
learned nothing, since time does not depend on what they say. What is compared is timed in turn in one process, and
ratios are taken within a turn.

Shapes: N candidates, H blocks ahead, P patches in an image, B clips of T frames; for SIGReg N samples, M directions,
K knots.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.core.timing import interleaved, product_rate, spread, wait
from minilab.lewm.decisions import EAGER, LEWM, TOKENS, deciders, decision_flops, flops_of, rivals
from minilab.lewm.learn import Clip, LearnConfig, Loss, learn
from minilab.lewm.learn import small as small_learning
from minilab.lewm.model import LeWM, LeWMConfig, cpu, gpu, published
from minilab.lewm.planner import PlanConfig, paper, small
from minilab.lewm.sigreg import sigreg
from minilab.lewm.swift import by_blocks
from minilab.lewm.worlds import world_named


@dataclass(frozen=True)
class PlanningPreset:
    name: str
    model: LeWMConfig
    plan: PlanConfig
    token_iterations: int  # of the planner's, how many the patch tokens are timed on: the others do the same again
    repeats: int = 5
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


PLANNING_SPEED = {
    "cpu": PlanningPreset("cpu", cpu(), small(), token_iterations=2, device="cpu"),
    "gpu": PlanningPreset("gpu", gpu(), paper(), token_iterations=3, device="cuda"),
    "gpu-paper": PlanningPreset("gpu-paper", published(), paper(), token_iterations=1, repeats=3, device="cuda"),
}


@with_threads
def planning_speed(preset: PlanningPreset) -> Record:
    """Seconds of one decision from two images, LeWM against patch tokens at equal planner settings."""
    started, device, wanted = time.perf_counter(), pick_device(preset.device), preset.plan.iterations
    models = rivals(preset.model, device, seed=preset.seed)
    iterations = {LEWM: wanted, TOKENS: min(preset.token_iterations, wanted)}
    plans = {name: replace(preset.plan, iterations=n) for name, n in iterations.items()}
    decide, encode = deciders(models, plans, device, seed=preset.seed)
    timed = interleaved(decide | {f"encode, {name}": fn for name, fn in encode.items()}, repeats=preset.repeats,
                        device=device)
    encoding = {name: timed[f"encode, {name}"] for name in decide}
    seconds = {name: _whole(timed[name], encoding[name], wanted / iterations[_split(name)[0]]) for name in decide}
    flops = {name: decision_flops(model, preset.plan) for name, model in models.items()}
    rates = product_rates(device, [_split(name)[1] for name in decide])
    steps = preset.plan.samples * preset.plan.horizon * wanted
    median = {name: spread(s)["median"] for name, s in seconds.items()}
    results = {
        "tokens": {LEWM: 1, TOKENS: models[TOKENS].tokens},  # of a frame
        "parameters": {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()},
        "timed_iterations": iterations, "iterations": wanted,
        "seconds": {name: spread(s) for name, s in seconds.items()},
        "encode_s": {name: spread(s) for name, s in encoding.items()},
        "times_lewm": {_split(name)[1]: spread([b / a for a, b in zip(seconds[name.replace(TOKENS, LEWM)], s,
                       strict=True)]) for name, s in seconds.items() if name.startswith(TOKENS)},
        "flops": flops, "flops_per_s": rates,
        "share_of_rate": {name: flops[_split(name)[0]] / rates[_split(name)[1]] / s for name, s in median.items()},
        "imagined_per_s": {name: steps / s for name, s in median.items()},  # candidates times steps
    }
    if device.type == "cuda":
        results["peak_gib"] = {name: peak_gib(decide[f"{name}, {EAGER}"], device) for name in models}
    return Record.new(experiment="lewm/planning_speed", preset=preset, results=results, started=started)


def product_rates(device: torch.device, ways: Iterable[str]) -> dict[str, float]:
    """What square products reach on the device, for each way of computing."""
    size = 8192 if device.type == "cuda" else 1024
    kinds = {way: torch.bfloat16 if "16 bits" in way else torch.float32 for way in ways}
    rates = {kind: product_rate(device, size, kind) for kind in set(kinds.values())}
    return {way: rates[kind] for way, kind in kinds.items()}


def peak_gib(fn: Callable[[], object], device: torch.device) -> float:
    """The most memory of a GPU that a call takes beyond what is there already."""
    wait(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    fn()
    wait(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**30


def _split(name: str) -> tuple[str, str]:
    """Model and way of a contestant."""
    model, _, way = name.partition(", ")
    return model, way


def _whole(timed: list[float], encoding: list[float], times: float) -> list[float]:
    """Seconds of a decision of `times` as many iterations: images are encoded once."""
    return [e + times * (t - e) for t, e in zip(timed, encoding, strict=True)]


@dataclass(frozen=True)
class TrainingPreset:
    name: str
    model: LeWMConfig
    learning: LearnConfig  # its `steps` are those that are timed, after as many again
    ways: tuple[str, ...] = ("32 bits", "16 bits", "16 bits, compiled", "16 bits, compiled, one graph")
    worlds: tuple[str, ...] = ("rooms", "pusht")
    repeats: int = 3
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


TRAINING_SPEED = {
    "cpu": TrainingPreset("cpu", cpu(), small_learning(4), ways=("32 bits",), repeats=5, device="cpu"),
    "gpu": TrainingPreset("gpu", gpu(), LearnConfig(50), device="cuda"),
    "gpu-paper": TrainingPreset("gpu-paper", published(), LearnConfig(6), device="cuda"),
}


class Noise(NamedTuple):
    """A clip of random pixels: a step takes as long on it as on any other."""

    frames: UInt8[Tensor, "B T 3 H W"]
    actions: Float[Tensor, "B T kA"]


@with_threads
def training_speed(preset: TrainingPreset) -> Record:
    """Frames a second that a model learns from, in plain PyTorch and faster; SIGReg's share; frames drawn a second."""
    started, device = time.perf_counter(), pick_device(preset.device)
    torch.manual_seed(preset.seed)
    B, T, size = preset.learning.batch, preset.model.history + 1, preset.model.vision.image
    clip = Noise(torch.randint(256, (B, T, 3, size, size), dtype=torch.uint8, device=device),
                 torch.randn(B, T, preset.model.actions, device=device))
    model, turns = LeWM(preset.model).to(device), {}
    for way in preset.ways:
        mine = copy.deepcopy(model)
        mine = by_blocks(mine) if "compiled" in way else mine
        learning = replace(preset.learning, precision="bf16" if "16 bits" in way else "fp32", replay="one graph" in way)
        for label, options in ((way, {}), (f"{way}, prediction alone", {"loss": prediction_alone})):
            turns[label] = partial(steps_alone, mine, clip, learning, seed=preset.seed, **options)
    seconds = {label: [] for label in turns}
    for _ in range(preset.repeats):
        for label, turn in turns.items():
            seconds[label].append(turn())
    frames, flops = B * T * preset.learning.steps, training_flops(preset.model)
    rates = product_rates(device, preset.ways)
    results = {
        "frames_per_s": {way: spread([frames / s for s in seconds[way]]) for way in preset.ways},
        "step_s": {way: spread([s / preset.learning.steps for s in seconds[way]]) for way in preset.ways},
        "times_faster": {way: spread([a / b for a, b in zip(seconds[preset.ways[0]], seconds[way], strict=True)])
                         for way in preset.ways},  # than the first way
        "sigreg_share": {way: spread([1 - b / a for a, b in zip(seconds[way], seconds[f"{way}, prediction alone"],
                         strict=True)]) for way in preset.ways},
        "flops": flops, "flops_per_s": rates,  # of a frame, with the gradient
        "share_of_rate": {way: frames * flops / rates[way] / spread(seconds[way])["median"] for way in preset.ways},
        "drawn_per_s": drawing_rates(preset.worlds, B * T, size, device, repeats=preset.repeats, seed=preset.seed),
    }
    if device.type == "cuda":
        results["peak_gib"] = {way: peak_gib(turns[way], device) for way in preset.ways}
    return Record.new(experiment="lewm/training_speed", preset=preset, results=results, started=started)


def steps_alone(model: nn.Module, clip: Noise, learning: LearnConfig, **options) -> float:
    """Seconds of so many steps, after as many in which kernels are compiled, captured and chosen."""
    device, drawn, begun = clip.frames.device, 0, 0.0

    def draw(n: int, generator: torch.Generator) -> Noise:
        nonlocal drawn, begun
        if drawn == learning.steps:
            wait(device)
            begun = time.perf_counter()
        drawn += 1
        return clip

    learn(model, draw, replace(learning, steps=2 * learning.steps), **options)
    wait(device)
    return time.perf_counter() - begun


def prediction_alone(model: nn.Module, clip: Clip, generator: torch.Generator | None = None) -> Loss:
    """The loss without SIGReg, not even measured."""
    z, predicted = model(clip.frames, clip.actions)
    error = (predicted - z[:, 1:]).float().square().mean()
    return Loss(error, error, torch.zeros_like(error))


def training_flops(config: LeWMConfig) -> float:
    """Floating-point operations of the model's products in one training step, a frame: forward and backward."""
    B, T, size = 2, config.history + 1, config.vision.image
    with torch.device("meta"):
        model = LeWM(config)
        clip = Noise(torch.zeros(B, T, 3, size, size, dtype=torch.uint8), torch.zeros(B, T, config.actions))
    return flops_of(lambda: prediction_alone(model, clip).total.backward()) / (B * T)


def drawing_rates(worlds: tuple[str, ...], n: int, size: int, device: torch.device, *, repeats: int, seed: int = 0
                  ) -> dict[str, dict[str, float]]:
    """Frames a second that worlds draw, on the device that learns from them."""
    generator, draw = torch.Generator(device).manual_seed(seed), {}
    for name in worlds:
        world = world_named(name)
        draw[name] = partial(world.render, world.reset(n, generator), size)
    seconds = interleaved(draw, repeats=repeats, device=device)
    return {name: spread([n / s for s in found]) for name, found in seconds.items()}


@dataclass(frozen=True)
class SigregPreset:
    name: str
    latent: int = 32  # D
    base: tuple[int, int, int] = (256, 256, 17)  # N, M, K, of which one at a time changes
    N: tuple[int, ...] = (64, 128, 256, 512, 1024)
    M: tuple[int, ...] = (64, 128, 256, 512, 1024)
    K: tuple[int, ...] = (5, 9, 17, 33, 65)
    repeats: int = 5
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


SIGREG_COST = {
    "cpu": SigregPreset("cpu", device="cpu"),
    "gpu": SigregPreset("gpu", latent=192, base=(512, 4096, 17), N=(128, 256, 512, 1024, 2048),
                        M=(1024, 2048, 4096, 8192, 16384), device="cuda"),
}


@with_threads
def sigreg_cost(preset: SigregPreset) -> Record:
    """Seconds of SIGReg and its gradient against samples, directions and knots: the slopes on a double log scale."""
    started, device = time.perf_counter(), pick_device(preset.device)
    generator = torch.Generator(device).manual_seed(preset.seed)
    results = {}
    for axis, name in enumerate("NMK"):
        counts = getattr(preset, name)
        calls = {str(n): partial(sigreg_and_gradient, *preset.base[:axis], n, *preset.base[axis + 1 :],
                                 latent=preset.latent, generator=generator) for n in counts}
        found = interleaved(calls, repeats=preset.repeats, device=device)
        others = math.prod(preset.base) / preset.base[axis]
        # The fastest turn: what else runs on the machine can only add to the others.
        fastest = {n: min(s) for n, s in found.items()}
        results[name] = {"seconds": {n: spread(s) for n, s in found.items()},
                         "ns_each": {n: 1e9 * s / (int(n) * others) for n, s in fastest.items()},
                         "slope": slope(counts, list(fastest.values()))}
    return Record.new(experiment="lewm/sigreg_cost", preset=preset, results=results, started=started)


def sigreg_and_gradient(N: int, M: int, K: int, *, latent: int, generator: torch.Generator) -> Float[Tensor, "N D"]:
    z = torch.randn(N, latent, generator=generator, device=generator.device).requires_grad_()
    return torch.autograd.grad(sigreg(z, generator, directions=M, knots=K), z)[0]


def slope(x: tuple[int, ...], y: list[float]) -> float:
    """The exponent a of y = c x^a, by least squares on logarithms."""
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (x, y))
    return float((x - x.mean()) @ (y - y.mean()) / (x - x.mean()).square().sum())
