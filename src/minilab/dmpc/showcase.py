"""What chapter 2 shows of the shipped models: films of one body under several wishes, and the plans of one decision."""

import time
from dataclasses import dataclass

import torch

from minilab.core.device import pick_device, with_threads
from minilab.core.files import package_data
from minilab.core.records import Record, command_for
from minilab.dmpc import rewards
from minilab.dmpc.adapt import Play, adapted, play_data
from minilab.dmpc.agent import dmpc
from minilab.dmpc.bodies import load_body, weaken
from minilab.dmpc.collect import SIZES, collect
from minilab.dmpc.envs import HALF_CHEETAH, Simulator
from minilab.dmpc.interactive import fan
from minilab.dmpc.rewards import planned
from minilab.dmpc.rollout import rollout
from minilab.dmpc.ship import shipped
from minilab.dmpc.ship_data import shipped_episodes
from minilab.dmpc.video import film, save_film


@dataclass(frozen=True)
class FilmsPreset:
    name: str
    steps: int = 80  # of a film, after as many that are not shown
    n: int = 64
    every: int = 2
    play: Play = Play(episodes=60, old=0.5)
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


FILMS = {"cpu": FilmsPreset("cpu", device="cpu")}


@with_threads
def films(preset: FilmsPreset) -> Record:
    """Film the shipped models under three wishes, and with a dead motor in the back shin before and after adapting."""
    started, device, task = time.perf_counter(), pick_device(preset.device), HALF_CHEETAH
    models, broken = shipped(device), weaken(load_body(task.body), "bshin", 0.0)
    forward = planned(rewards.run(task), discount=1.0)

    def planner(objective, models=models):
        return dmpc(models, objective, n=preset.n, every=preset.every, seed=preset.seed)

    new = play_data(planner(forward), task.name, broken, preset.play, preset.seed)
    retold = adapted(models, collect(task, "diverse", SIZES["cpu"]), new, preset.play, seed=preset.seed)
    scenes = {
        "run": ("as fast as it can", planner(forward), None, "A two-legged cheetah runs with long leaps"),
        "slow": ("at 1 m/s", planner(planned(rewards.track_speed(1.0), discount=1.0)), None,
                 "The same body comes down from its nose and goes on slowly"),
        "lean": ("nose down", planner(planned(rewards.track_pitch(0.5), discount=1.0)), None,
                 "The same body rests on its head and holds its back high"),
        "broken": ("knee dead, old model", planner(forward), broken,
                   "With its back shin limp the body drags itself on"),
        "adapted": ("knee dead, new dynamics", planner(forward, retold), broken,
                    "With its back shin limp and a model that knows it, the body moves on"),
    }
    results = {}
    for name, (title, controller, body, alt) in scenes.items():
        run = rollout(controller, Simulator(task, 1, model=body), 2 * preset.steps,
                      torch.Generator().manual_seed(preset.seed), desc=name)
        states = run.episodes.states[0, preset.steps :]
        shot = film(task, states, title=title, alt=alt, model=body, mark=("bshin",) if body else ())
        path = save_film(shot, package_data("assets") / "dmpc" / f"{name}.webp",
                         how_made=command_for("dmpc/films", preset.name))
        results[name] = {"speed": float(rewards.quantities(states).speed(states).mean()),
                         "pitch": float(rewards.quantities(states).pitch(states).mean()), "bytes": path.stat().st_size}
    return Record.new(experiment="dmpc/films", preset=preset, results=results, started=started)


@dataclass(frozen=True)
class PlansPreset:
    name: str
    n: int = 64
    moments: tuple[int, ...] = (0, 3)  # steps of a run at which plans are drawn
    recorded: int = 45  # and of the best recorded run: by then a run of ours depends on how a processor rounds
    seed: int = 0
    threads: int | None = 1
    device: str = "cpu"


PLANS = {"cpu": PlansPreset("cpu")}


@with_threads
def plans(preset: PlansPreset) -> Record:
    """The candidates of a few decisions, and how five objectives rank the same ones."""
    started, models, task = time.perf_counter(), shipped(preset.device), HALF_CHEETAH
    forward = planned(rewards.run(task), discount=1.0)
    wishes = {"run": rewards.run(task), "1 m/s": rewards.track_speed(1.0), "backward": rewards.track_speed(-1.0),
              "nose down": rewards.track_pitch(0.5), "rise": rewards.track_height(0.1, 0.2)}
    run = rollout(dmpc(models, forward, n=preset.n, every=2, seed=preset.seed), Simulator(task, 1),
                  max(preset.moments) + 1, torch.Generator().manual_seed(preset.seed))
    starts = {name: run.episodes.states[0, t] for name, t in zip(("at rest", "starting"), preset.moments, strict=True)}
    recorded = shipped_episodes()
    starts["running"] = recorded.states[recorded.rewards.sum(dim=1).argmax(), preset.recorded].to(preset.device)
    objectives = {name: planned(reward, discount=1.0) for name, reward in wishes.items()}
    found = fan(dmpc(models, forward, n=preset.n, seed=preset.seed), objectives, starts, dt=task.dt, n=preset.n)
    return Record.new(experiment="dmpc/plans", preset=preset, results=found, started=started)
