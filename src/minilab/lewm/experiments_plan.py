"""Reaching goals from pictures: worlds and rivals, settings of the planner one at a time, and goals in another room."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.lewm import learn, model
from minilab.lewm.baselines.arms import ARMS, Trained
from minilab.lewm.collect import Recipe
from minilab.lewm.learn import Foresight, foresight
from minilab.lewm.model import LeWM
from minilab.lewm.planner import PlanConfig, paper, small
from minilab.lewm.study import QUICK, Ground, Setting, rooms, share, with_learning
from minilab.lewm.worlds import pusht
from minilab.lewm.worlds.cube import held
from minilab.lewm.worlds.disc import Disc

RIVALS = ("sigreg", "pldm", "frozen_learned", "cloning", "chance")
ONE_TOKEN = tuple(arm for arm in RIVALS if arm != "frozen_learned")
NEVER = 10**6  # so far away that no episode is long enough
# World -> by a task's start and goal.
CASES = {
    "cube": {"held at the start": lambda start, goal: held(start), "to be taken": lambda start, goal: ~held(start)},
    "pusht": {"lies already": pusht.lies, "to be moved": lambda start, goal: ~pusht.lies(start, goal)},
    "disc": {"there already": Disc().success, "to be pushed": lambda start, goal: ~Disc().success(start, goal)},
}


@dataclass(frozen=True)
class SuccessPreset:
    name: str
    settings: tuple[Setting, ...]  # one a world
    arms: tuple[str, ...] = RIVALS
    far: int = 100  # steps to the goal of the harder tasks; twice as many are allowed
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


def disc(*, episodes: int = 1000, steps: int = 1500, **options) -> Setting:
    """Push a disc, for two cores, at 32 pixels."""
    return Setting(Recipe("disc", episodes), model.cpu(10), learn.small(steps), **options)


def cube(*, episodes: int = 300, steps: int = 1200, **options) -> Setting:
    """The cube, for two cores, at 32 pixels."""
    return Setting(Recipe("cube", episodes, steps=200), model.cpu(20), learn.small(steps), **options)


def card(recipe: Recipe, config: model.LeWMConfig, *, steps: int, lam: float = 0.09, **options) -> Setting:
    """For a GPU: images of 64 pixels, planned with as the paper does."""
    iterations = 30 if recipe.world == "pusht" else 10
    return Setting(recipe, config, learn.LearnConfig(steps, lam=lam, lr=5e-4, log_every=500, compile=True),
                   **{"seeds": (0, 1, 2), "tasks": 200, "plan": paper(iterations), "drawn": True, **options})


PUSHT = card(Recipe("pusht", 3000, steps=200, shard=125), model.compact(10), steps=40_000, lam=0.3, swift=True)
CUBE = card(Recipe("cube", 3000, steps=200, shard=125), model.compact(20), steps=20_000)
SUCCESS = {
    "cpu": SuccessPreset("cpu", (QUICK,), arms=("sigreg", "chance"), device="cpu"),
    "two-cores": SuccessPreset("two-cores", (rooms(tasks=100), disc(tasks=60)), arms=ONE_TOKEN, device="cpu"),
    "two-cores-tokens": SuccessPreset("two-cores-tokens", (rooms(tasks=40),), arms=("frozen_learned",), far=NEVER,
                                      device="cpu"),  # many tokens plan ten times as long
    "two-cores-cube": SuccessPreset("two-cores-cube", (cube(tasks=100),), arms=ONE_TOKEN, far=NEVER, device="cpu"),
    "two-cores-cube-tokens": SuccessPreset("two-cores-cube-tokens", (cube(tasks=100, seeds=(0, 1, 2)),),
                                           arms=("frozen_learned",), far=NEVER, device="cpu"),
    "gpu": SuccessPreset("gpu", (
        replace(rooms(episodes=10_000, steps=2000), seeds=(0, 1, 2), tasks=200),
        replace(disc(episodes=5000, steps=6000), seeds=(0, 1, 2), tasks=200)), device="cuda"),
    "gpu-pusht": SuccessPreset("gpu-pusht", (PUSHT,), arms=("sigreg", "chance"), threads=4, device="cuda"),
    "gpu-pusht-pldm": SuccessPreset("gpu-pusht-pldm", (PUSHT,), arms=("pldm_tuned",), threads=4, device="cuda"),
    "gpu-pusht-cloning": SuccessPreset("gpu-pusht-cloning", (PUSHT,), arms=("cloning",), threads=4, device="cuda"),
    "gpu-pusht-tokens": SuccessPreset(
        "gpu-pusht-tokens", (replace(with_learning(PUSHT, steps=10_000), tasks=100),), arms=("frozen_learned",),
        far=NEVER, threads=4, device="cuda"),
    # With weights that are not ours; 196 tokens a picture want memory for each task.
    "gpu-pusht-dino": SuccessPreset(
        "gpu-pusht-dino", (replace(with_learning(PUSHT, steps=10_000), tasks=20),), arms=("frozen_dino",),
        far=NEVER, threads=4, device="cuda"),
    "gpu-cube": SuccessPreset("gpu-cube", (CUBE,), arms=ONE_TOKEN, threads=8, device="cuda"),  # the simulator's, too
    "gpu-cube-tokens": SuccessPreset(
        "gpu-cube-tokens", (replace(with_learning(CUBE, steps=10_000), tasks=100),), arms=("frozen_learned",),
        far=NEVER, threads=8, device="cuda"),
}


@with_threads
def success(preset: SuccessPreset) -> Record:
    """How often goals are reached in each world, by LeWM and its rivals, near goals and far ones, and by chance."""
    started, device = time.perf_counter(), pick_device(preset.device)
    worlds: dict[str, dict] = {}
    for setting in preset.settings:
        rows = worlds.setdefault(setting.world.name, {})
        grounds = {"near": Ground(setting, device)}
        if far := _far(setting, preset.far):
            grounds["far"] = Ground(far, device)
        for arm in preset.arms:
            trained = [grounds["near"].trained(arm, seed) for seed in setting.seeds]
            rows[arm] = {"what": ARMS[arm].what} | imagination(grounds["near"], trained)
            for distance, ground in grounds.items():
                reached = [ground.reached(ground.agent(t, seed), seed)
                           for t, seed in zip(trained, setting.seeds, strict=True)]
                rows[arm][distance] = share(reached) | by_case(ground, reached)
    return Record.new(experiment="lewm/success", preset=preset, results={"worlds": worlds}, started=started)


def imagination(ground: Ground, trained: Sequence[Trained], clips: int = 500) -> dict[str, dict[str, list[float]]]:
    """How far ahead the models of an arm imagine, to a plan's end: means over them; nothing for who does not plan.

    "foresight" is in episodes held out, and "hindsight" in those that were learned from.
    """
    if not all(isinstance(t.model, LeWM) for t in trained):
        return {}
    means = {}
    for name, data in (("foresight", ground.unseen), ("hindsight", ground.seen)):
        shown = ground.clips_of(data, ground.setting.plan.horizon + 1).draw(clips, ground.generator(8))
        found = [foresight(t.model, shown) for t in trained]
        means[name] = {part: torch.stack([getattr(f, part) for f in found]).mean(dim=0).tolist()
                       for part in Foresight._fields}
    return means


def by_case(ground: Ground, reached: list[Bool[Tensor, "n"]]) -> dict[str, dict]:
    """Success by what a task asks for, where a world's tasks differ in that; a case that never came is left out."""
    tasks = [ground.tasks(len(r), seed) for r, seed in zip(reached, ground.setting.seeds, strict=True)]
    found = {name: [r[case(*ends)] for r, ends in zip(reached, tasks, strict=True)]
             for name, case in CASES.get(ground.world.name, {}).items()}
    cases = {name: share(groups) for name, groups in found.items() if all(map(len, groups))}
    return {"cases": cases} if cases else {}


def _far(setting: Setting, ahead: int) -> Setting | None:
    """The same with goals farther away, where episodes are long enough for it."""
    return replace(setting, ahead=ahead, budget=2 * ahead) if setting.recipe.steps >= ahead else None


def shipped(setting: Setting) -> Trained:
    """The model of this world that comes with minilab."""
    return Trained("sigreg", learn.load_model(f"lewm/{setting.world.name}.safetensors")[0], learn.History(),
                   setting.config.actions)


@dataclass(frozen=True)
class PlannersPreset:
    name: str
    setting: Setting
    arms: tuple[str, ...] = ("sigreg", "pldm")
    methods: tuple[str, ...] | None = None  # names of rows; None takes all
    shipped: bool = False  # plan with the model that comes with minilab, and train none
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


PLANNERS = {
    "cpu": PlannersPreset("cpu", QUICK, arms=("sigreg",),
                          methods=("cem", "look after each block"), device="cpu"),
    "two-cores": PlannersPreset("two-cores", SUCCESS["two-cores"].settings[0], device="cpu"),
    "two-cores-pusht": PlannersPreset(
        "two-cores-pusht", replace(PUSHT, plan=small(iterations=10), tasks=100, seeds=(0,), workers=2, drawn=False,
                                   swift=False), arms=("sigreg",), shipped=True, device="cpu",
        methods=("cem", "look, and keep the deadline", "the best of these")),
    "gpu": PlannersPreset("gpu", SUCCESS["gpu"].settings[1], device="cuda"),
    "gpu-pusht": PlannersPreset("gpu-pusht", replace(PUSHT, tasks=60), arms=("sigreg",), device="cuda"),
}


def methods(usual: PlanConfig) -> dict[str, PlanConfig]:
    """The planner as the paper has it, and with one thing changed; the last rows combine all that can be combined, and
    what has helped."""
    return {
        "cem": usual,
        "mppi": replace(usual, method="mppi"),
        "adam": replace(usual, method="adam", samples=usual.elites),
        "icem": replace(usual, method="icem"),
        "mean cost": replace(usual, cost="mean"),
        "look after each block": replace(usual, execute=1),
        "look, and start from the last plan": replace(usual, execute=1, warm=True),
        "look, and plan from real history": replace(usual, execute=1, history=3),
        "look, and keep the deadline": replace(usual, execute=1, deadline=True),
        "all of these": replace(usual, method="icem", cost="mean", execute=1, warm=True, history=3),
        "the best of these": replace(usual, method="icem", execute=1, warm=True, deadline=True),
    }


@with_threads
def planners(preset: PlannersPreset) -> Record:
    """One model and many planners: how often each reaches its goals, with LeWM and with PLDM."""
    started, setting = time.perf_counter(), preset.setting
    ground = Ground(setting, pick_device(preset.device))
    rows: dict[str, dict] = {}
    for arm in preset.arms:
        trained = [shipped(setting) if preset.shipped else ground.trained(arm, seed) for seed in setting.seeds]
        for name, plan in methods(setting.plan).items():
            if preset.methods is None or name in preset.methods:
                ok = [ground.reached(ground.agent(t, seed, plan), seed)
                      for t, seed in zip(trained, setting.seeds, strict=True)]
                rows.setdefault(name, {})[arm] = share(ok)
    return Record.new(experiment="lewm/planners", preset=preset, started=started,
                      results={"world": setting.world.name, "rows": rows})
