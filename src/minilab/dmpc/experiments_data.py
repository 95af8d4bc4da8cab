"""What the data are, and how fast they are made."""

import os
import time
from dataclasses import dataclass, replace

import torch

from minilab.core.device import with_threads
from minilab.core.records import Record
from minilab.core.timing import interleaved, spread
from minilab.core.weights import sha256_of
from minilab.dmpc.collect import SIZES, TIERS, collect, dataset_path
from minilab.dmpc.data import Episodes
from minilab.dmpc.envs import Simulator, Task, task_named


@dataclass(frozen=True)
class DataPreset:
    name: str
    tasks: tuple[str, ...] = ("HalfCheetah-v5",)
    tiers: tuple[str, ...] = TIERS
    size: str = "cpu"  # one of collect.SIZES
    workers: int = 1
    engine: str = "processes"  # or "ray"
    copies: int = 64  # bodies that are stepped side by side where their speed is measured
    repeats: int = 5
    seed: int = 0  # of the episodes; the searches behind them have their own
    threads: int | None = 1
    device: str = "cpu"


DATA = {
    "cpu": DataPreset("cpu", tiers=("medium", "mixed", "diverse")),
    "gpu": DataPreset("gpu", tasks=("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"), size="full", workers=16),
}


@with_threads
def data(preset: DataPreset) -> Record:
    """What each tier of data holds and earns, and the environment steps per second that it is made with."""
    started, sizes, tasks = time.perf_counter(), replace(SIZES[preset.size], seed=preset.seed), {}
    for name in preset.tasks:
        task, tiers = task_named(name), {}
        for tier in preset.tiers:
            episodes = collect(task, tier, sizes, workers=preset.workers, engine=preset.engine)
            tiers[tier] = {**described(episodes, task), "sha256": sha256_of(dataset_path(task, tier, sizes))}
        tasks[name] = {"tiers": tiers, "steps_per_s": steps_per_second(task, preset)}
    return Record.new(experiment="dmpc/data", preset=preset, results={"tasks": tasks}, started=started)


def described(episodes: Episodes, task: Task) -> dict[str, float]:
    """How much there is in a set, and what its policies earned."""
    returns, steps = episodes.returns, episodes.actions.shape[1]
    earned = {"mean": returns.mean(), "p90": returns.quantile(0.9), "best": returns.max()}
    return {"episodes": len(episodes), "transitions": episodes.transitions, "steps": steps,
            "falls": float(episodes.fell.float().mean()),
            **{f"{part}_return": float(value) for part, value in earned.items()},
            **{f"{part}_d4rl": float(task.normalized(value, steps)) for part, value in earned.items()}}


def steps_per_second(task: Task, preset: DataPreset) -> dict[str, dict[str, dict[str, float]]]:
    """Actions a second by number of threads, stepped (a policy may see each state) and as whole rollouts."""
    generator, runs, B, T = torch.Generator().manual_seed(preset.seed), {}, preset.copies, 50
    for threads in sorted({1, os.cpu_count() or 1}):
        simulator = Simulator(task, B, threads=threads)
        simulator.reset(generator)
        actions = 2 * torch.rand(B, 1, T, simulator.action_dim, generator=generator) - 1
        runs[f"stepped {threads}"] = lambda s=simulator, a=actions: [s.step(u) for u in a[:, 0].unbind(dim=1)]
        runs[f"rolled_out {threads}"] = lambda s=simulator, a=actions: s.imagine(a)
    found: dict[str, dict[str, dict[str, float]]] = {"stepped": {}, "rolled_out": {}}
    for name, seconds in interleaved(runs, repeats=preset.repeats).items():
        way, threads = name.split()
        found[way][threads] = spread([B * T / s for s in seconds])
    return found
