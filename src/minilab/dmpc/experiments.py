"""The experiments of chapter 2: their names, and the first of them, the fixed reward."""

import os
import time
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import torch

from minilab.core.device import pick_device, with_threads
from minilab.core.parallel import parallel_map
from minilab.core.records import Experiment, Record
from minilab.dmpc import (
    experiments_change,
    experiments_data,
    experiments_model,
    experiments_plan,
    experiments_speed,
    ship,
    showcase,
)
from minilab.dmpc.contest import Contest
from minilab.dmpc.envs import Simulator
from minilab.dmpc.oracle import Oracle
from minilab.dmpc.rewards import planned, run
from minilab.dmpc.study import CARD, LAPTOP, QUICK, Setting, falling, interval, play, statistics, trained


@dataclass(frozen=True)
class FixedPreset:
    name: str
    setting: Setting
    tiers: tuple[str, ...] = ("medium", "mixed", "expert-mix")
    horizons: tuple[int, ...] = (16, 4)
    oracle_episodes: int = 8
    workers: int = 1  # processes, each with one training seed at a time
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


SHORT, LONG = Setting(LAPTOP, seeds=(0, 1, 2), steps=100), Setting(CARD, size="full", seeds=(0, 1, 2), n=64)
FIXED = {
    "cpu": FixedPreset("cpu", Setting(QUICK, episodes=4, steps=50, n=16), tiers=("mixed",), horizons=(16,),
                       oracle_episodes=2, device="cpu"),
    "two-cores": FixedPreset("two-cores", SHORT, tiers=("mixed",), oracle_episodes=4, device="cpu"),
    "gpu": FixedPreset("gpu", LONG, tiers=("medium", "mixed"), horizons=(4,), workers=3, device="cuda"),
    "gpu-expert": FixedPreset("gpu-expert", replace(LONG, size="cpu"), tiers=("expert-mix",), horizons=(4,), workers=3,
                              device="cuda"),
    "two-cores-hopper": FixedPreset("two-cores-hopper", falling(SHORT, "Hopper-v5"), tiers=("mixed",), horizons=(16,),
                                    oracle_episodes=4, device="cpu"),
    "two-cores-walker": FixedPreset("two-cores-walker", falling(SHORT, "Walker2d-v5"), tiers=("mixed",), horizons=(16,),
                                    oracle_episodes=4, device="cpu"),
    "gpu-hopper": FixedPreset("gpu-hopper", falling(LONG, "Hopper-v5"), tiers=("mixed",), horizons=(16,),
                              workers=3, device="cuda"),
    "gpu-walker": FixedPreset("gpu-walker", falling(LONG, "Walker2d-v5"), tiers=("mixed",), horizons=(16,),
                              oracle_episodes=2, workers=3, device="cuda"),
}


@with_threads
def fixed(preset: FixedPreset) -> Record:
    """Returns of D-MPC and of its rivals under the task's own reward, for each tier of data and each horizon."""
    started = time.perf_counter()
    device, tiers = pick_device(preset.device), {}
    oracle = _oracle(preset)
    for tier, F in product(preset.tiers, preset.horizons):
        setting = replace(preset.setting, tier=tier, recipe=preset.setting.recipe.looking(F))
        behavior = statistics(setting.data()[0])
        scale = setting.steps / setting.data()[0].actions.shape[1]  # episodes of data are longer than those played
        behavior |= {part: scale * behavior[part] for part in ("mean", "p90", "best")}
        returns, seconds = {}, {}
        jobs = [_Trial(setting, seed, str(device)) for seed in setting.seeds]
        for runs in parallel_map(_systems, jobs, workers=preset.workers):
            for name, (earned, act_s) in runs.items():
                returns.setdefault(name, []).append(earned)
                seconds[name] = act_s / setting.steps
        means = {name: interval(per_seed) for name, per_seed in returns.items()}
        tiers[f"{tier}, F = {F}"] = {"behavior": behavior, "returns": means, "per_seed": returns, "act_s": seconds,
                                     "scores": _scores(means, behavior["mean"], oracle, setting)}
    return Record.new(experiment="dmpc/fixed", preset=preset, results={"tiers": tiers, "oracle": oracle},
                      started=started)


class _Trial(NamedTuple):
    """One training seed of a setting."""

    setting: Setting
    seed: int
    device: str


def _systems(trial: _Trial) -> dict[str, tuple[list[float], float]]:
    """The returns of every system, and the seconds that it took to decide."""
    setting, seed = trial.setting, trial.seed
    contest = Contest(setting, trained(setting, seed, trial.device), seed)
    runs = {name: play(contender(), setting, seed=seed, desc=f"{setting.tier}, F = {setting.recipe.F}, {name}")
            for name, contender in contest.systems().items()}
    return {name: (run_.returns.tolist(), run_.act_s) for name, run_ in runs.items()}


def _oracle(preset: FixedPreset) -> float:
    """The mean return of model predictive control in the simulator itself."""
    setting = preset.setting
    simulator = Simulator(setting.body, preset.oracle_episodes, threads=os.cpu_count() or 1)
    controller = Oracle(simulator, planned(run(setting.body), discount=1.0, falls=setting.body), seed=preset.seed)
    return float(play(controller, setting, simulator=simulator, desc="oracle").returns.mean())


def _scores(means: dict[str, dict], behavior: float, oracle: float, setting: Setting) -> dict[str, dict]:
    """Each mean and interval twice: with the behavior as 0 and the oracle as 100, and as D4RL normalizes."""
    def both(x: float) -> dict[str, float]:
        return {"ours": 100 * (x - behavior) / (oracle - behavior),
                "d4rl": float(setting.body.normalized(torch.tensor(x), setting.steps))}

    return {name: {part: both(x) for part, x in found.items()} for name, found in means.items()}


EXPERIMENTS = {
    "data": Experiment(experiments_data.data, experiments_data.DATA),
    "models": Experiment(ship.models, ship.MODELS),
    "fixed": Experiment(fixed, FIXED),
    "compounding": Experiment(experiments_model.compounding, experiments_model.COMPOUNDING),
    "wishes": Experiment(experiments_change.wish, experiments_change.WISHES),
    "defect": Experiment(experiments_change.defect, experiments_change.DEFECT),
    "ablation": Experiment(experiments_plan.ablation, experiments_plan.ABLATION),
    "effort": Experiment(experiments_plan.effort, experiments_plan.EFFORT),
    "distill": Experiment(experiments_plan.distill, experiments_plan.DISTILL),
    "speed": Experiment(experiments_speed.speed, experiments_speed.SPEED),
    "films": Experiment(showcase.films, showcase.FILMS),
    "plans": Experiment(showcase.plans, showcase.PLANS),
}
