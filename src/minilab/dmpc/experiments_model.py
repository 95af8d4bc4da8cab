"""How errors grow with the horizon, and when a better model is a better planner."""

import time
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.dmpc.contest import Contest
from minilab.dmpc.data import Windows
from minilab.dmpc.study import CARD, LAPTOP, QUICK, Setting, interval, play, trained
from minilab.planning.rank import Predict


@dataclass(frozen=True)
class CompoundingPreset:
    name: str
    setting: Setting
    conditions: tuple[str, ...] = ("clear", "noisy", "hidden")
    horizon: int = 128  # the last k of the curves, a multiple of F
    starts: int = 256
    autoregressive: bool = True  # a transformer, which takes long to train on two cores
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


COMPOUNDING = {
    "cpu": CompoundingPreset("cpu", Setting(QUICK, episodes=4, steps=50, n=16, held_out=0.2), conditions=("clear",),
                             horizon=64, starts=64, device="cpu"),
    "two-cores": CompoundingPreset("two-cores", Setting(LAPTOP, episodes=8, steps=100, held_out=0.2),
                                   autoregressive=False, device="cpu"),
    "gpu": CompoundingPreset("gpu", Setting(CARD, size="full", seeds=(0, 1, 2), n=64, held_out=0.1), starts=1024,
                             device="cuda"),
}


def under(condition: str, setting: Setting) -> Setting:
    """A setting in which the state is seen clearly, through noise, or without the joints' velocities."""
    if condition == "clear":
        return setting
    if condition == "noisy":
        return replace(setting, sensor_noise=0.1)
    if condition != "hidden":
        raise ValueError(f"no condition {condition!r}; choose clear, noisy or hidden")
    positions = (setting.body.state_dim - 1) // 2
    hidden = tuple(range(positions + 3, setting.body.state_dim))  # the torso's three velocities stay in sight
    recipe = setting.recipe
    return replace(setting, recipe=replace(recipe, proposal=replace(recipe.proposal, hidden=hidden),
                                           dynamics=replace(recipe.dynamics, hidden=hidden)))


@with_threads
def compounding(preset: CompoundingPreset) -> Record:
    """Prediction error against the horizon for four models of the dynamics, and what each is worth to the planner."""
    started = time.perf_counter()
    device, results = pick_device(preset.device), {}
    for condition in preset.conditions:
        setting = under(condition, preset.setting)
        errors, returns = {}, {}
        for seed in setting.seeds:
            contest = Contest(setting, trained(setting, seed, device), seed)
            propose = next(iter(contest.proposals().values()))()
            for name, make in contest.predictors(autoregressive=preset.autoregressive).items():
                predict = make()
                errors.setdefault(name, []).append(rmsd(predict, preset, contest).tolist())
                run = play(contest.planner(propose, predict), setting, seed=seed, desc=f"{condition}, {name}")
                returns.setdefault(name, []).append(run.returns.tolist())
        mean = {name: torch.tensor(per_seed).mean(dim=0) for name, per_seed in errors.items()}
        results[condition] = {
            "rmsd": {name: curve.tolist() for name, curve in mean.items()},
            "crossing": {law: crossing(mean[f"single-step {law}"], mean[f"multi-step {law}"])
                         for law in ("diffusion", "regression")},
            "return": {name: interval(per_seed) for name, per_seed in returns.items()}}
    return Record.new(experiment="dmpc/compounding", preset=preset, results=results, started=started)


@torch.inference_mode()
def rmsd(predict: Predict, preset: CompoundingPreset, contest: Contest) -> Float[Tensor, "H"]:
    """Median over held-out starts of the root mean square error of the positions after k = 1..H true actions.

    Each number's error is in units of its spread in the data. Blocks are chained: only the first starts from the truth.
    """
    held_out, std = contest.setting.data()[1].to(contest.device), contest.models.dynamics.std
    windows, P = Windows(held_out, preset.horizon), (len(std) - 1) // 2
    which = torch.linspace(0, len(windows) - 1, min(preset.starts, len(windows))).long()
    state, actions, states = windows.take(which.to(contest.device))
    error = (predict(state, actions[:, None])[:, 0] - states)[..., :P] / std[:P]
    return error.square().mean(dim=-1).sqrt().median(dim=0).values


def crossing(single: Float[Tensor, "H"], multi: Float[Tensor, "H"]) -> int | None:
    """The first k from which on the multi-step model is the better one to the end; None if it never is."""
    worse = (single <= multi).nonzero()
    first = int(worse.max()) + 2 if len(worse) else 1
    return first if first <= len(single) else None
