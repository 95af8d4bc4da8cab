"""How fast D-MPC decides beside Diffuser, and how fast it learns."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.core.replay import replayed
from minilab.core.timing import interleaved, product_rate, spread
from minilab.dmpc.agent import dmpc, lowered, swift
from minilab.dmpc.baselines import diffuser
from minilab.dmpc.data import Scales, Windows
from minilab.dmpc.envs import HOPPER, Simulator, Task, task_named
from minilab.dmpc.learn import Models, Recipe, blank, fit, papers, small
from minilab.dmpc.policies import Linear
from minilab.dmpc.rollout import Noisy, rollout
from minilab.dmpc.study import Setting
from minilab.planning.rank import Plans, sample_score_rank


@dataclass(frozen=True)
class SpeedPreset:
    name: str
    recipe: Recipe
    task: str = HOPPER.name
    n: int = 64
    repeats: int = 9
    updates: int = 100  # of training, where its speed is measured
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


SPEED = {
    "cpu": SpeedPreset("cpu", small(width=256), device="cpu"),
    "gpu": SpeedPreset("gpu", small(), updates=2000, device="cuda"),
    "gpu-paper": SpeedPreset("gpu-paper", papers(), device="cuda"),
}


@with_threads
def speed(preset: SpeedPreset) -> Record:
    """Decisions a second of D-MPC and of Diffuser with networks of one size, and how many products each asks for.

    The networks need not have learned anything for this: time does not depend on what they say. Beside it, how many
    windows a second the two models of D-MPC learn from.
    """
    started, device, task = time.perf_counter(), pick_device(preset.device), task_named(preset.task)
    contestants = planners(preset.recipe, task, preset.n, device, seed=preset.seed)
    seconds = interleaved(contestants, repeats=preset.repeats, warmup=2, device=device)
    parameters = sizes(preset.recipe, task)
    flops, size = plan_flops(preset.recipe, task, preset.n), 8192 if device.type == "cuda" else 1024
    ways = {name.removeprefix("D-MPC") for name in seconds if name.startswith("D-MPC")}
    rates = {way: product_rate(device, size, torch.bfloat16 if "16 bits" in way else torch.float32) for way in ways}
    results = {"parameters": parameters, "n": preset.n, "seconds": {name: spread(s) for name, s in seconds.items()},
               "times_diffuser": {f"D-MPC{way}": spread([b / a for a, b in zip(
                   seconds[f"D-MPC{way}"], seconds[f"Diffuser{way}"], strict=True)]) for way in ways},
               "flops": flops, "flops_per_s": {f"D-MPC{way}": rate for way, rate in rates.items()},
               "share_of_rate": {f"D-MPC{way}": flops / rate / spread(seconds[f"D-MPC{way}"])["median"]
                                 for way, rate in rates.items()},
               "windows_per_s": training_rates(preset.recipe, task, device, updates=preset.updates, seed=preset.seed)}
    return Record.new(experiment="dmpc/speed", preset=preset, results=results, started=started)


def planners(recipe: Recipe, task: Task, n: int, device: torch.device, *, seed: int = 0) -> dict[str, Callable]:
    """One decision of D-MPC and of Diffuser for one robot, each a function; their networks have learned nothing.

    On a GPU each comes in three ways: called kernel by kernel, replayed as one graph, and that in 16 bits.
    """
    torch.manual_seed(seed)
    models, joint = (part.to(device) for part in _blanks(recipe, task))
    objective, state = Setting(recipe, task=task.name).objective(models), models.value.mean[None]
    guide, generator = diffuser.Guide(), torch.Generator(device).manual_seed(seed)

    def eager(state: Tensor) -> Plans:
        return sample_score_rank(state, lambda s, n: models.proposal.propose(s, n, generator),
                                 lambda s, a: models.dynamics.predict(s, a, generator), objective, n)

    def guided(joint: diffuser.Joint, state: Tensor) -> Plans:
        return diffuser.plan(joint, state, objective, n=n, guide=guide, generator=generator)

    found = {"D-MPC": partial(eager, state), "Diffuser": partial(guided, joint, state)}
    if device.type == "cuda":
        for way, ours, theirs in (("one graph", models, joint), ("16 bits, one graph", swift(models), lowered(joint))):
            found[f"D-MPC, {way}"] = partial(dmpc(ours, objective, n=n).plan, state)
            found[f"Diffuser, {way}"] = partial(replayed(partial(guided, theirs), device, (generator,)), state)
    return found


def training_rates(recipe: Recipe, task: Task, device: torch.device, *, updates: int, seed: int = 0
                   ) -> dict[str, float]:
    """Windows a second that the proposal and the dynamics learn from, after some that do not count."""
    generator = torch.Generator().manual_seed(seed)
    world = Simulator(task, 8)
    idle = Linear(torch.zeros(task.action_dim, task.state_dim), torch.zeros(task.state_dim), torch.ones(task.state_dim))
    played = rollout(Noisy(idle, 1.0, generator), world, 4 * recipe.F, generator).episodes
    windows = Windows(played.to(device), recipe.F)
    models = _blanks(recipe, task)[0].to(device)
    found = {}
    for name, model in (("proposal", models.proposal), ("dynamics", models.dynamics)):
        # The first does not count, and what the others differ by is updates alone, without what precedes them.
        _, short, long = [fit(model.requires_grad_(True).train(), windows, recipe, seed=seed, steps=steps).wall_s
                          for steps in (10, updates, 2 * updates)]
        found[name] = recipe.batch * updates / (long - short)
    return found


def sizes(recipe: Recipe, task: Task) -> dict[str, int]:
    """Parameters of what each planner asks."""
    models, joint = _blanks(recipe, task)
    return {name: sum(p.numel() for p in part.parameters()) for name, part in
            (("proposal", models.proposal), ("dynamics", models.dynamics), ("Diffuser", joint))}


def _blanks(recipe: Recipe, task: Task) -> tuple[Models, diffuser.Joint]:
    S, A = task.state_dim, task.action_dim
    scales = Scales(torch.zeros(S), torch.ones(S), torch.ones(recipe.F, S))
    joint = replace(recipe.dynamics, span=recipe.F + 1, levels=20, steps=20, eta=1.0)
    parts = [part.eval().requires_grad_(False)
             for part in (*blank(recipe, S, A, scales), diffuser.Joint(joint, S, A, scales))]
    return Models(task.name, recipe, *parts[:3]), parts[3]


def plan_flops(recipe: Recipe, task: Task, n: int) -> float:
    """Floating-point operations of the matrix products of one plan with n candidates, as torch counts them."""
    models = _blanks(recipe, task)[0]
    state, actions = torch.zeros(1, task.state_dim), torch.zeros(1, recipe.F, task.action_dim)
    with FlopCounterMode(display=False) as one, torch.no_grad():
        models.proposal.draw(state, None, None)
        models.dynamics.draw(state, actions, None)
    return float(n * one.get_total_flops())
