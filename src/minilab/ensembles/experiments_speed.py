"""How fast members learn in one program, beside the same members one after another."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.core.timing import interleaved, product_rate, spread
from minilab.ensembles.members import Hyper, RunConfig, train_members
from minilab.ensembles.runs import Run, parameters
from minilab.ensembles.study import CARD, LAPTOP, QUICK, Study


@dataclass(frozen=True)
class SpeedPreset:
    name: str
    study: Study
    sizes: tuple[int, ...]  # which of the study's
    K: int = 8
    steps: int = 40  # that are timed, after as many again
    repeats: int = 5
    compile: bool = False
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


SPEED = {
    "cpu": SpeedPreset("cpu", QUICK, (0,), K=2, steps=2, repeats=1, device="cpu"),
    "two-cores": SpeedPreset("two-cores", LAPTOP, (1, 3), device="cpu"),
    "gpu": SpeedPreset("gpu", CARD, (0, 1, 2, 3), steps=50, repeats=3, compile=True, device="cuda"),
}


@with_threads
def speed(preset: SpeedPreset) -> Record:
    """Tokens a second of K members in one program and one after another, and the share of the device's own rate."""
    started, device, rows = time.perf_counter(), pick_device(preset.device), {}
    study = preset.study
    kind = torch.bfloat16 if study.precision == "bf16" else torch.float32
    rate = product_rate(device, 8192 if device.type == "cuda" else 1024, kind)
    for i in preset.sizes:
        seconds, task = timed(preset, i, device), study.task(i)
        tokens = preset.K * preset.steps * task.batch * task.data.length
        flops = Run(task, 1, Hyper()).flops / task.data.tokens  # of a token
        rows[study.names[i]] = {
            "parameters": parameters(task.model),
            "tokens_per_s": {way: spread([tokens / s for s in found]) for way, found in seconds.items()},
            "times_faster": spread([a / b for a, b in zip(seconds[APART], seconds[TOGETHER], strict=True)]),
            "share_of_rate": {way: spread([tokens * flops / rate / s for s in found])
                              for way, found in seconds.items()}}
    return Record.new(experiment="ensembles/speed", preset=preset, started=started, results={
        "K": preset.K, "flops_per_s": rate, "sizes": rows})


TOGETHER, APART = "in one program", "one after another"


def timed(preset: SpeedPreset, size: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of the steps alone: what twice as many take, less what these take. Set-up is in both."""
    task = preset.study.task(size)
    generator, shape = torch.Generator().manual_seed(preset.seed), (2 * preset.steps * task.batch, task.data.length + 1)
    windows = torch.randint(task.data.vocab, shape, generator=generator).to(device)
    hypers = [Hyper(init_seed=k, data_seed=k) for k in range(preset.K)]
    run = RunConfig(1, task.batch, precision=task.precision, compile=preset.compile)

    def turn(groups: list[list[Hyper]], rows: Int[Tensor, "n T1"]) -> Callable[[], None]:
        def train() -> None:
            for group in groups:
                train_members(rows, task.model, group, run)

        return train

    ways = {TOGETHER: [hypers], APART: [[hyper] for hyper in hypers]}
    half = windows[: len(windows) // 2]
    found = interleaved({f"{way}{length}": turn(groups, rows) for way, groups in ways.items()
                         for length, rows in (("", windows), (", half", half))}, repeats=preset.repeats, device=device)
    return {way: [b - a for a, b in zip(found[f"{way}, half"], found[way], strict=True)] for way in ways}
