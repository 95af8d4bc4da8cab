"""What the planner is made of, how hard it must look, how fast it is, and what is left when a network imitates it."""

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
from minilab.dmpc.baselines import ablations, diffuser
from minilab.dmpc.contest import Contest
from minilab.dmpc.data import Scales, Windows
from minilab.dmpc.distill import Distillation, distilled
from minilab.dmpc.envs import HOPPER, Simulator, Task, task_named
from minilab.dmpc.learn import Models, Recipe, blank, fit, papers, small
from minilab.dmpc.policies import Linear
from minilab.dmpc.rewards import planned, run, weighted
from minilab.dmpc.rollout import Noisy, rollout
from minilab.dmpc.study import CARD, LAPTOP, QUICK, Setting, interval, play, trained
from minilab.planning.rank import Objective, Plans, sample_score_rank


@dataclass(frozen=True)
class AblationPreset:
    name: str
    setting: Setting
    autoregressive: bool = True  # a transformer, which takes long to train on two cores
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


ABLATION = {
    "cpu": AblationPreset("cpu", Setting(QUICK, episodes=4, steps=30, n=8), device="cpu"),
    "two-cores": AblationPreset("two-cores", Setting(LAPTOP, seeds=(0, 1, 2), steps=100), autoregressive=False,
                               device="cpu"),
    "gpu": AblationPreset("gpu", Setting(CARD, size="full", seeds=(0, 1, 2), n=64), device="cuda"),
}


@with_threads
def ablation(preset: AblationPreset) -> Record:
    """The return of D-MPC with its proposal, its dynamics or its objective exchanged for a simpler one."""
    started, setting, device = time.perf_counter(), preset.setting, pick_device(preset.device)
    returns: dict[str, dict[str, list]] = {"proposal": {}, "dynamics": {}, "objective": {}}
    for seed in setting.seeds:
        contest = Contest(setting, trained(setting, seed, device), seed)
        proposals, predictors = contest.proposals(), contest.predictors(autoregressive=preset.autoregressive)
        usual = next(iter(proposals.values())), next(iter(predictors.values()))
        predictors[f"{next(iter(predictors))}, mean of 4"] = lambda c=contest: ablations.mean_of(
            4, c.models.dynamics, c.generators[1])
        candidates = [("proposal", name, make, usual[1]) for name, make in proposals.items()]
        candidates += [("dynamics", name, usual[0], make) for name, make in predictors.items()]
        for part, name, propose, predict in candidates:
            played = play(contest.planner(propose(), predict()), setting, seed=seed, desc=f"{part}: {name}")
            returns[part].setdefault(name, []).append(played.returns.tolist())
        for name, objective in objectives(contest.models, setting).items():
            planner = dmpc(contest.models, objective, n=setting.n, every=setting.every, seed=seed)
            played = play(planner, setting, seed=seed, desc=f"objective: {name}")
            returns["objective"].setdefault(name, []).append(played.returns.tolist())
    results = {part: {name: interval(per_seed) for name, per_seed in rows.items()} for part, rows in returns.items()}
    return Record.new(experiment="dmpc/ablation", preset=preset, results=results, started=started)


def objectives(models: Models, setting: Setting) -> dict[str, Objective]:
    """Rewards along the plan and the value of its end, D-MPC's own; and each of the two alone."""
    task, discount = setting.body, setting.recipe.discount
    return {"rewards and value": setting.objective(models),
            "rewards alone": planned(run(task), discount=1.0, falls=task),
            "value alone": planned(weighted((0.0, run(task))), discount=discount, value=models.value, falls=task)}


@dataclass(frozen=True)
class EffortPreset:
    name: str
    setting: Setting
    candidates: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    horizons: tuple[int, ...] = (4, 8, 16, 32)
    sampling: tuple[tuple[int, int], ...] = ((1, 1), (2, 1), (5, 2), (10, 5), (25, 10))  # of proposal and dynamics
    chunks: tuple[int, ...] = (1, 2, 4, 8)
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


EFFORT = {
    "cpu": EffortPreset("cpu", Setting(QUICK, episodes=4, steps=30), candidates=(1, 8), horizons=(8,),
                        sampling=((2, 1),), chunks=(1, 2), device="cpu"),
    "two-cores": EffortPreset("two-cores", Setting(LAPTOP, seeds=(0, 1, 2), steps=100), candidates=(1, 4, 16, 64),
                              horizons=(8, 16), sampling=((2, 1), (5, 2), (10, 5)), chunks=(1, 2, 4), device="cpu"),
    "gpu": EffortPreset("gpu", Setting(CARD, size="full", seeds=(0, 1, 2), n=64), device="cuda"),
}


@with_threads
def effort(preset: EffortPreset) -> Record:
    """Return and decisions a second against candidates, horizon, sampling steps, and actions run of a plan."""
    started, device = time.perf_counter(), pick_device(preset.device)
    results: dict[str, dict[str, dict]] = {}

    def measure(what: str, label: str, setting: Setting, change=lambda models: models) -> None:
        returns, rates = [], []
        for seed in setting.seeds:
            models = change(trained(setting, seed, device))
            planner = dmpc(models, setting.objective(models), n=setting.n, every=setting.every, seed=seed)
            returns.append(play(planner, setting, seed=seed, desc=f"{what} {label}").returns.tolist())
            rates.append(decisions_per_s(models, setting))
        results.setdefault(what, {})[label] = {"return": interval(returns), "decisions_per_s": max(rates)}

    base = preset.setting
    for n in preset.candidates:
        measure("candidates", str(n), replace(base, n=n))
    for F in preset.horizons:
        measure("horizon", str(F), replace(base, recipe=base.recipe.looking(F)))
    for steps in preset.sampling:
        measure("sampling", "{} + {}".format(*steps), base, lambda models, s=steps: sampled_in(models, *s))
    for every in preset.chunks:
        measure("chunk", str(every), replace(base, every=every))
    return Record.new(experiment="dmpc/effort", preset=preset, results=results, started=started)


def sampled_in(models: Models, proposal: int, dynamics: int) -> Models:
    """The same networks, sampled in other numbers of steps."""
    for part, steps in ((models.proposal, proposal), (models.dynamics, dynamics)):
        part.config = replace(part.config, steps=steps)
    return models


def decisions_per_s(models: Models, setting: Setting, *, repeats: int = 5) -> float:
    """Plans a second for one robot: propose, predict, score and rank N candidates."""
    planner = dmpc(models, setting.objective(models), n=setting.n)
    state = models.value.mean[None]
    seconds = interleaved({"plan": lambda: planner.plan(state)}, repeats=repeats, warmup=2, device=planner.device)
    return 1 / spread(seconds["plan"])["median"]


@dataclass(frozen=True)
class DistillPreset:
    name: str
    setting: Setting
    distillation: Distillation = Distillation()
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


DISTILL = {
    "cpu": DistillPreset("cpu", Setting(QUICK, episodes=4, steps=30, n=8),
                         Distillation(copies=4, steps=30, updates=200), device="cpu"),
    "two-cores": DistillPreset("two-cores", Setting(LAPTOP, seeds=(0, 1, 2), steps=100), device="cpu"),
    "gpu": DistillPreset("gpu", Setting(CARD, size="full", seeds=(0, 1, 2), n=64),
                         Distillation(copies=64, steps=200, rounds=3, updates=4000), device="cuda"),
}


@with_threads
def distill(preset: DistillPreset) -> Record:
    """A reactive network that learns from the planner: its return and control rate beside the teacher's."""
    started, setting, device = time.perf_counter(), preset.setting, pick_device(preset.device)
    returns: dict[str, list] = {}
    rates: dict[str, float] = {}
    for seed in setting.seeds:
        models = trained(setting, seed, device)
        teacher = dmpc(models, setting.objective(models), n=setting.n, every=setting.every, seed=seed)
        imitation = dmpc(models, setting.objective(models), n=1, every=setting.every, seed=seed)
        school = Simulator(setting.body, preset.distillation.copies)
        scales = Scales(models.value.mean, models.value.std, models.dynamics.change)
        student = distilled(teacher, school, scales, preset.distillation, seed=seed)
        for name, controller in (("planner", teacher), ("student", student), ("proposal alone", imitation)):
            returns.setdefault(name, []).append(play(controller, setting, seed=seed, desc=name).returns.tolist())
        state = models.value.mean[None]
        seconds = interleaved({"planner": lambda t=teacher, s=state: t.plan(s),
                               "student": lambda m=student, s=state: m(s)}, repeats=10, warmup=3, device=device)
        rates = {name: 1 / spread(s)["median"] for name, s in seconds.items()}
    results = {"return": {name: interval(per_seed) for name, per_seed in returns.items()}, "decisions_per_s": rates}
    return Record.new(experiment="dmpc/distill", preset=preset, results=results, started=started)


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
