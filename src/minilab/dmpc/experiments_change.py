"""What D-MPC was made for: a reward that it hears of at run time, and a body that breaks."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from minilab.core.device import pick_device, with_threads
from minilab.core.parallel import parallel_map
from minilab.core.records import Record
from minilab.dmpc import bodies, rewards
from minilab.dmpc.adapt import Play, adapted, play_data, practised, prediction_error, tuned
from minilab.dmpc.agent import Planner, dmpc
from minilab.dmpc.contest import Contest
from minilab.dmpc.envs import Simulator, Task
from minilab.dmpc.learn import Models
from minilab.dmpc.oracle import Oracle
from minilab.dmpc.rewards import Reward, planned
from minilab.dmpc.rollout import Controller, Run
from minilab.dmpc.study import CARD, LAPTOP, QUICK, Setting, falling, interval, play, trained
from minilab.dmpc.support import Support
from minilab.planning.rank import Objective


@dataclass(frozen=True)
class Wish:
    """A reward to ask for at run time, and the quantity that tells whether it was granted."""

    reward: Reward
    measure: Callable[[Float[Tensor, "*b S"]], Float[Tensor, "*b"]]
    target: float | None  # None: as much as possible
    unit: str


def wishes(task: Task) -> dict[str, Wish]:
    """Objectives for one model, none of which it was trained for but the first."""
    q = rewards.quantities(torch.zeros(task.state_dim))
    found = {"run": Wish(rewards.run(task), q.speed, None, "m/s")}
    for v in (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0):
        found[f"speed {v:g}"] = Wish(rewards.track_speed(v), q.speed, v, "m/s")
    for angle in (-0.4, 0.0, 0.4):
        found[f"pitch {angle:g}"] = Wish(rewards.track_pitch(angle), q.pitch, angle, "rad")
    rest = 0.0 if not task.falls else 1.25  # where z is zero at rest, or the torso's height above the ground
    for z in (-0.1, 0.0, 0.1, 0.2):
        found[f"height {z:+g}"] = Wish(rewards.track_height(rest + z), q.height, rest + z, "m")
    found["jump"] = Wish(rewards.jump(), q.bounce, None, "m/s")
    return found


@dataclass(frozen=True)
class WishesPreset:
    name: str
    setting: Setting
    ask: tuple[str, ...] | None = None  # names of wishes; None asks for all
    workers: int = 1  # processes, each with one training seed at a time
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


WISHES = {
    "cpu": WishesPreset("cpu", Setting(QUICK, tier="diverse", episodes=4, steps=40, n=16), ask=("run", "speed 0"),
                        device="cpu"),
    "two-cores": WishesPreset("two-cores", Setting(LAPTOP, tier="diverse", episodes=8, steps=100),
                              ask=("run", "speed -1", "speed 0", "speed 1", "speed 2", "pitch 0.4", "height +0.1"),
                              device="cpu"),
    "two-cores-walker": WishesPreset("two-cores-walker", falling(
        Setting(LAPTOP, tier="diverse", episodes=8, steps=100), "Walker2d-v5"),
        device="cpu"),
    "gpu": WishesPreset("gpu", Setting(CARD, tier="diverse", size="full", seeds=(0, 1, 2), n=64),
                        device="cuda"),
    "gpu-walker": WishesPreset("gpu-walker", falling(
        Setting(CARD, tier="diverse", seeds=(0, 1, 2), n=64), "Walker2d-v5"),
        workers=3, device="cuda"),
}


@with_threads
def wish(preset: WishesPreset) -> Record:
    """One model, many rewards that it hears of at run time: what was asked for and what came, Diffuser beside it."""
    started, setting, device = time.perf_counter(), preset.setting, pick_device(preset.device)
    asked = {name: wish for name, wish in wishes(setting.body).items() if preset.ask is None or name in preset.ask}
    found: dict[str, dict[str, dict[str, list]]] = {name: {} for name in asked}
    setting.data()  # once: the jobs find it in the cache
    jobs = [_Asked(setting, tuple(asked), seed, str(device), preset.seed) for seed in setting.seeds]
    for cells in parallel_map(_grant, jobs, workers=preset.workers):
        for (name, who), cell in cells.items():
            kept = found[name].setdefault(who, {"achieved": [], "reward": [], "familiar": []})
            for part, value in cell.items():
                kept[part].append(value)
    rows = {name: {"target": asked[name].target, "unit": asked[name].unit,
                   **{who: {"achieved": interval(cell["achieved"]), "reward": interval(cell["reward"]),
                            "familiar": sum(cell["familiar"]) / len(cell["familiar"]) if cell["familiar"] else None}
                      for who, cell in rivals.items()}} for name, rivals in found.items()}
    return Record.new(experiment="dmpc/wishes", preset=preset, results={"wishes": rows}, started=started)


class _Asked(NamedTuple):
    """What one training seed is asked for, by name."""

    setting: Setting
    names: tuple[str, ...]
    seed: int
    device: str
    support_seed: int  # of the recordings that say what is familiar


def _grant(job: _Asked) -> dict[tuple[str, str], dict]:
    """What came of each wish with each planner."""
    setting, seed, cells = job.setting, job.seed, {}
    support = Support.of(setting.data()[0], torch.Generator().manual_seed(job.support_seed))
    contest = Contest(setting, trained(setting, seed, job.device), seed)
    joint = contest.joint()
    for name in job.names:
        wish = wishes(setting.body)[name]
        # The value was learned for running: it counts there and nowhere else.
        objective = contest.objective if name == "run" else planned(
            wish.reward, discount=1.0, falls=setting.body, fall_cost=setting.recipe.fall_cost)
        rivals = {"D-MPC": dmpc(contest.models, objective, n=setting.n, every=setting.every, seed=seed),
                  "Diffuser": contest.guided(joint, objective),
                  "no planning": dmpc(contest.models, objective, n=1, every=setting.every, seed=seed)}
        for who, controller in rivals.items():
            run = play(controller, setting, seed=seed, desc=f"{name}, {who}")
            cells[name, who] = {"achieved": achieved(run, wish).tolist(), "reward": granted(run, wish).tolist()}
            if isinstance(controller, Planner):
                cells[name, who]["familiar"] = support.familiar(controller.last)
    return cells


def achieved(run: Run, wish: Wish) -> Float[Tensor, "B"]:
    """The mean of the quantity over each episode's second half, when the start is forgotten."""
    steps = torch.arange(run.episodes.actions.shape[1])
    late = (steps >= run.episodes.lengths[:, None] // 2) & (steps < run.episodes.lengths[:, None])
    return (wish.measure(run.episodes.states[:, 1:]) * late).sum(dim=1) / late.sum(dim=1)


def granted(run: Run, wish: Wish) -> Float[Tensor, "B"]:
    """The mean reward of a step of each episode, by the wish's own measure; nothing for the steps after a fall."""
    e = run.episodes
    rewards = wish.reward(e.states[:, :-1], e.actions, e.states[:, 1:])
    valid = torch.arange(rewards.shape[1]) < e.lengths[:, None]
    return (rewards * valid).sum(dim=1) / rewards.shape[1]


def defects(task: Task) -> dict[str, mujoco.MjModel]:
    """Bodies with something wrong. Walker2d's ankle is the paper's case; how much torque it kept is not known."""
    whole = bodies.load_body(task.body)
    if task.body == "half_cheetah.xml":
        return {"dead back shin": bodies.weaken(whole, "bshin", 0),
                "reversed back thigh": bodies.weaken(whole, "bthigh", -1),
                "dead back foot": bodies.weaken(whole, "bfoot", 0),
                "slippery ground": bodies.scale_friction(whole, 0.3)}
    return {"dead left ankle": bodies.weaken(whole, "foot_left_joint", 0),
            "reversed left ankle": bodies.weaken(whole, "foot_left_joint", -1)}


@dataclass(frozen=True)
class DefectPreset:
    name: str
    setting: Setting
    play: Play = Play()
    broken: tuple[str, ...] | None = None  # names of defects; None takes all
    oracle_episodes: int = 4
    workers: int = 1  # processes, each with one body and one training seed at a time
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


DEFECT = {
    "cpu": DefectPreset("cpu", Setting(QUICK, tier="diverse", episodes=4, steps=30, n=8),
                        Play(episodes=8, steps=40, updates=100), broken=("dead back foot",), oracle_episodes=1,
                        device="cpu"),
    "two-cores": DefectPreset("two-cores", Setting(LAPTOP, tier="diverse", episodes=8, steps=100),
                              Play(episodes=50, updates=1000),
                              broken=("dead back shin", "reversed back thigh"), device="cpu"),
    "gpu": DefectPreset("gpu", Setting(CARD, tier="diverse", size="full", seeds=(0, 1, 2), n=128),
                        Play(rounds=2, updates=2000), workers=5, device="cuda"),
    "two-cores-walker": DefectPreset("two-cores-walker", falling(
        Setting(LAPTOP, tier="diverse", episodes=8, steps=100), "Walker2d-v5"),
        Play(updates=2000), device="cpu"),
    "gpu-walker": DefectPreset("gpu-walker", falling(
        Setting(CARD, tier="diverse", seeds=(0, 1, 2), n=64), "Walker2d-v5"),
        Play(rounds=2, updates=2000), workers=9, device="cuda"),
}


@with_threads
def defect(preset: DefectPreset) -> Record:
    """Scores before and after a body breaks, after its dynamics were learned anew, and with controls.

    Plans are scored by their rewards alone: the value was learned from what the whole body could do.
    """
    started, setting, device = time.perf_counter(), preset.setting, pick_device(preset.device)
    broken = {name: body for name, body in defects(setting.body).items()
              if preset.broken is None or name in preset.broken}
    returns: dict[str, dict[str, list]] = {name: {} for name in ("intact", *broken)}
    errors: dict[str, dict[str, list]] = {name: {} for name in broken}
    for seed in setting.seeds:
        Contest(setting, trained(setting, seed, device), seed).joint()  # once: the jobs find them in the cache
    cores = max(1, (os.cpu_count() or 1) // preset.workers)
    jobs = [_Broken(setting, preset.play, where, seed, str(device), cores)
            for where in returns for seed in setting.seeds]
    for job, (earned, off) in zip(jobs, parallel_map(_scores, jobs, workers=preset.workers), strict=True):
        for row, found in earned.items():
            returns[job.where].setdefault(row, []).append(found)
        for when, error in off.items():
            errors[job.where].setdefault(when, []).append(error)
    objective = _along(setting)
    for name, body in broken.items():
        world = Simulator(setting.body, preset.oracle_episodes, model=body, threads=os.cpu_count() or 1)
        oracle = Oracle(world, objective)
        run = play(oracle, setting, simulator=world, desc=f"{name}, oracle")
        returns[name]["oracle, no proposal"] = [run.returns.tolist()]
    means = {name: {row: interval(groups) for row, groups in rows.items()} for name, rows in returns.items()}
    results = {"returns": means,
               "error": {name: {when: sum(e) / len(e) for when, e in rows.items()} for name, rows in errors.items()},
               "recovered": {name: _recovered(rows) for name, rows in returns.items() if name != "intact"}}
    return Record.new(experiment="dmpc/defect", preset=preset, results=results, started=started)


class _Broken(NamedTuple):
    """One training seed in one body: a defect of `defects`, or "intact"."""

    setting: Setting
    play: Play
    where: str
    seed: int
    device: str
    cores: int  # for the simulator


def _along(setting: Setting) -> Objective:
    """The rewards of a plan alone."""
    return planned(rewards.run(setting.body), discount=1.0, falls=setting.body, fall_cost=setting.recipe.fall_cost)


def _scores(job: _Broken) -> tuple[dict[str, list[float]], dict[str, float]]:
    """The returns of each row in one body, and the errors of the predictions before and after it was learned."""
    setting, seed = job.setting, job.seed
    objective, body = _along(setting), defects(setting.body).get(job.where)
    models = trained(setting, seed, job.device)
    contest = Contest(setting, models, seed)
    joint, old = contest.joint(), setting.data()[0]

    def planner(models: Models, n: int = setting.n) -> Planner:
        return dmpc(models, objective, n=n, every=setting.every, seed=seed)

    def score(row: str, controller: Controller, world: Simulator | None = None) -> list[float]:
        where = {"simulator": world} if world else {"model": body}
        return play(controller, setting, seed=seed, desc=f"{job.where}, {row}", **where).returns.tolist()

    world = Simulator(setting.body, setting.episodes, model=body, threads=job.cores)
    generator = torch.Generator(job.device).manual_seed(seed)
    seer = Planner(lambda state, n: models.proposal.propose(state, n, generator),
                   lambda state, actions: world.imagine(actions).to(job.device), objective, n=setting.n,
                   every=setting.every, device=job.device)
    true = {"the true dynamics": score("the true dynamics", seer, world)}
    before = {"D-MPC": planner(models), "Diffuser": contest.guided(joint, objective)}
    if body is None:
        return {row: score(row, controller) for row, controller in before.items()} | true, {}
    retold, new = practised(models, lambda m: planner(m, 16), body, old, job.play, seed=seed)
    unseen = play_data(planner(retold, 16), setting.task, body, job.play, 50 + seed)
    half = adapted(models, old, new, replace(job.play, old=0.5), seed=seed)
    both = adapted(retold, old, new, job.play, seed=seed, part="proposal")
    rejoined = tuned(joint, old, new, setting.recipe, job.play, seed=seed)
    rows = {f"{who} before": controller for who, controller in before.items()} | {
        "dynamics adapted": planner(retold), "adapted on half old data": planner(half),
        "dynamics and proposal adapted": planner(both), "Diffuser adapted": contest.guided(rejoined, objective)}
    errors = {when: prediction_error(m, unseen) for when, m in (
        ("before", models), ("after", retold), ("after, half old data", half))}
    return {row: score(row, controller) for row, controller in rows.items()} | true, errors


def _recovered(rows: dict[str, list]) -> float | None:
    """What adapting the dynamics won, as a share of what the true dynamics would have; None if that is nothing."""
    names = "D-MPC before", "dynamics adapted", "the true dynamics"
    before, after, best = (sum(map(sum, rows[row])) for row in names)
    return (after - before) / (best - before) if best > before else None
