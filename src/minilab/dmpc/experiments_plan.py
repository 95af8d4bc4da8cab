"""What the planner is made of, how hard it must look, and what is left when a network imitates it."""

import time
from dataclasses import dataclass, replace
from typing import NamedTuple

from minilab.core.device import pick_device, with_threads
from minilab.core.parallel import parallel_map
from minilab.core.records import Record
from minilab.core.timing import interleaved, spread
from minilab.dmpc.agent import Planner, dmpc
from minilab.dmpc.baselines import ablations
from minilab.dmpc.contest import Contest
from minilab.dmpc.data import Scales
from minilab.dmpc.distill import Distillation, Reactive, distilled
from minilab.dmpc.envs import Simulator
from minilab.dmpc.learn import Models
from minilab.dmpc.rewards import planned, run, weighted
from minilab.dmpc.study import CARD, LAPTOP, QUICK, Setting, interval, play, trained
from minilab.planning.rank import Objective


@dataclass(frozen=True)
class AblationPreset:
    name: str
    setting: Setting
    autoregressive: bool = True  # a transformer, which takes long to train on two cores
    workers: int = 1  # processes, each with one training seed at a time
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


ABLATION = {
    "cpu": AblationPreset("cpu", Setting(QUICK, episodes=4, steps=30, n=8), device="cpu"),
    "two-cores": AblationPreset("two-cores", Setting(LAPTOP, seeds=(0, 1, 2), steps=100), autoregressive=False,
                               device="cpu"),
    "gpu": AblationPreset("gpu", Setting(CARD, size="full", seeds=(0, 1, 2), n=64), workers=3, device="cuda"),
}


@with_threads
def ablation(preset: AblationPreset) -> Record:
    """The return of D-MPC with its proposal, its dynamics or its objective exchanged for a simpler one."""
    started, setting, device = time.perf_counter(), preset.setting, pick_device(preset.device)
    setting.data()  # once: the jobs find it in the cache
    jobs = [_Exchange(setting, preset.autoregressive, seed, str(device)) for seed in setting.seeds]
    found = list(parallel_map(_exchanged, jobs, workers=preset.workers))
    results = {part: {name: interval([rows[part][name] for rows in found]) for name in found[0][part]}
               for part in found[0]}
    return Record.new(experiment="dmpc/ablation", preset=preset, results=results, started=started)


class _Exchange(NamedTuple):
    """One training seed of a setting."""

    setting: Setting
    autoregressive: bool
    seed: int
    device: str


def _exchanged(job: _Exchange) -> dict[str, dict[str, list[float]]]:
    """The returns with each part in the place of D-MPC's own."""
    setting, seed = job.setting, job.seed
    contest = Contest(setting, trained(setting, seed, job.device), seed)
    proposals, predictors = contest.proposals(), contest.predictors(autoregressive=job.autoregressive)
    usual = next(iter(proposals.values())), next(iter(predictors.values()))
    predictors[f"{next(iter(predictors))}, mean of 4"] = lambda: ablations.mean_of(
        4, contest.models.dynamics, contest.generators[1])

    def score(controller: Planner, desc: str) -> list[float]:
        return play(controller, setting, seed=seed, desc=desc).returns.tolist()

    def dmpc_under(objective: Objective) -> Planner:
        return dmpc(contest.models, objective, n=setting.n, every=setting.every, seed=seed)

    return {"proposal": {name: score(contest.planner(make(), usual[1]()), f"proposal: {name}")
                         for name, make in proposals.items()},
            "dynamics": {name: score(contest.planner(usual[0](), make()), f"dynamics: {name}")
                         for name, make in predictors.items()},
            "objective": {name: score(dmpc_under(objective), f"objective: {name}")
                          for name, objective in objectives(contest.models, setting).items()}}


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
    workers: int = 1  # processes, each with one training seed in one place
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


EFFORT = {
    "cpu": EffortPreset("cpu", Setting(QUICK, episodes=4, steps=30), candidates=(1, 8), horizons=(8,),
                        sampling=((2, 1),), chunks=(1, 2), device="cpu"),
    "two-cores": EffortPreset("two-cores", Setting(LAPTOP, seeds=(0, 1, 2), steps=100), candidates=(1, 4, 16, 64),
                              horizons=(8, 16), sampling=((2, 1), (5, 2), (10, 5)), chunks=(1, 2, 4), device="cpu"),
    "gpu": EffortPreset("gpu", Setting(CARD, size="full", seeds=(0, 1, 2), n=64), workers=12, device="cuda"),
}


@with_threads
def effort(preset: EffortPreset) -> Record:
    """Return and decisions a second against candidates, horizon, sampling steps, and actions run of a plan."""
    started, device, base = time.perf_counter(), pick_device(preset.device), preset.setting
    places = [("candidates", str(n), replace(base, n=n), None) for n in preset.candidates]
    places += [("horizon", str(F), replace(base, recipe=base.recipe.looking(F)), None) for F in preset.horizons]
    places += [("sampling", "{} + {}".format(*steps), base, steps) for steps in preset.sampling]
    places += [("chunk", str(every), replace(base, every=every), None) for every in preset.chunks]
    for setting in {place[2].recipe: place[2] for place in places}.values():
        for seed in base.seeds:
            trained(setting, seed, device)  # once: the jobs find them in the cache
    jobs = [_Place(setting, sampling, seed, str(device)) for _, _, setting, sampling in places for seed in base.seeds]
    earned = parallel_map(_earned, jobs, workers=preset.workers)
    returns = [[next(earned) for _ in base.seeds] for _ in places]
    results: dict[str, dict[str, dict]] = {}
    for (what, label, setting, sampling), groups in zip(places, returns, strict=True):  # timed when all else is done
        rate = decisions_per_s(_models(_Place(setting, sampling, base.seeds[0], str(device))), setting)
        results.setdefault(what, {})[label] = {"return": interval(groups), "decisions_per_s": rate}
    return Record.new(experiment="dmpc/effort", preset=preset, results=results, started=started)


class _Place(NamedTuple):
    """One training seed of a setting, sampled in other numbers of steps if `sampling` says so."""

    setting: Setting
    sampling: tuple[int, int] | None
    seed: int
    device: str


def _models(place: _Place) -> Models:
    models = trained(place.setting, place.seed, place.device)
    return sampled_in(models, *place.sampling) if place.sampling else models


def _earned(place: _Place) -> list[float]:
    """The returns of D-MPC there."""
    setting, models = place.setting, _models(place)
    planner = dmpc(models, setting.objective(models), n=setting.n, every=setting.every, seed=place.seed)
    return play(planner, setting, seed=place.seed, desc=f"N = {setting.n}, F = {setting.recipe.F}").returns.tolist()


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
    workers: int = 1  # processes, each with one training seed at a time
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


DISTILL = {
    "cpu": DistillPreset("cpu", Setting(QUICK, episodes=4, steps=30, n=8),
                         Distillation(copies=4, steps=30, updates=200), device="cpu"),
    "two-cores": DistillPreset("two-cores", Setting(LAPTOP, seeds=(0, 1, 2), steps=100), device="cpu"),
    "gpu": DistillPreset("gpu", Setting(CARD, size="full", seeds=(0, 1, 2), n=64),
                         Distillation(copies=64, steps=200, rounds=3, updates=4000), workers=3, device="cuda"),
}


@with_threads
def distill(preset: DistillPreset) -> Record:
    """A reactive network that learns from the planner: its return and control rate beside the teacher's."""
    started, setting, device = time.perf_counter(), preset.setting, pick_device(preset.device)
    setting.data()  # once: the jobs find it in the cache
    jobs = [_School(setting, preset.distillation, seed, str(device)) for seed in setting.seeds]
    found = list(parallel_map(_taught, jobs, workers=preset.workers))
    models = trained(setting, setting.seeds[0], device)
    teacher, state = dmpc(models, setting.objective(models), n=setting.n), models.value.mean[None]
    dims, width = (setting.body.state_dim, setting.body.action_dim), preset.distillation.width
    student = Reactive(*dims, _scales(models), width=width).to(device).eval().requires_grad_(False)
    # A clock does not care what the student has learned.
    seconds = interleaved({"planner": lambda: teacher.plan(state), "student": lambda: student(state)}, repeats=10,
                          warmup=3, device=device)
    results = {"return": {name: interval([rows[name] for rows in found]) for name in found[0]},
               "decisions_per_s": {name: 1 / spread(s)["median"] for name, s in seconds.items()}}
    return Record.new(experiment="dmpc/distill", preset=preset, results=results, started=started)


class _School(NamedTuple):
    """One training seed of a setting."""

    setting: Setting
    distillation: Distillation
    seed: int
    device: str


def _taught(job: _School) -> dict[str, list[float]]:
    """The returns of the planner, of its student, and of the proposal alone."""
    setting, seed = job.setting, job.seed
    models = trained(setting, seed, job.device)
    objective = setting.objective(models)
    teacher = dmpc(models, objective, n=setting.n, every=setting.every, seed=seed)
    school = Simulator(setting.body, job.distillation.copies)
    student = distilled(teacher, school, _scales(models), job.distillation, seed=seed)
    contenders = {"planner": teacher, "student": student,
                  "proposal alone": dmpc(models, objective, n=1, every=setting.every, seed=seed)}
    return {name: play(controller, setting, seed=seed, desc=name).returns.tolist()
            for name, controller in contenders.items()}


def _scales(models: Models) -> Scales:
    return Scales(models.value.mean, models.value.std, models.dynamics.change)
