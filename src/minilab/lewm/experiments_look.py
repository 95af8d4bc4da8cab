"""What a frozen latent knows, what surprises a model, and the shape of what it learned."""

import dataclasses
import time
from dataclasses import dataclass, replace

import torch

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.lewm.baselines.arms import ARMS
from minilab.lewm.experiments_plan import PUSHT, SUCCESS
from minilab.lewm.probes import gather, probe
from minilab.lewm.straight import distance_curve, position_grid, principal, straightness
from minilab.lewm.study import QUICK, Ground, Setting, rooms
from minilab.lewm.surprise import FILMS, films, roc, watch


@dataclass(frozen=True)
class LookPreset:
    name: str
    settings: tuple[Setting, ...]  # one a world
    arms: tuple[str, ...] = ("sigreg", "pldm", "frozen_learned")
    frames: int = 10_000  # that probes read
    films: int = 200
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


PROBES = {
    "cpu": LookPreset("cpu", (QUICK,), arms=("sigreg",), frames=400, device="cpu"),
    "two-cores": LookPreset("two-cores", SUCCESS["two-cores"].settings, arms=("sigreg", "pldm"), device="cpu"),
    "gpu": LookPreset("gpu", SUCCESS["gpu"].settings, device="cuda"),
    "gpu-pusht": LookPreset("gpu-pusht", (PUSHT,), arms=("sigreg", "pldm_tuned"), device="cuda"),
}


@with_threads
def probes(preset: LookPreset) -> Record:
    """What can be read off one frozen latent, by a line and by a small network, on held-out episodes."""
    started, device = time.perf_counter(), pick_device(preset.device)
    worlds: dict[str, dict] = {}
    for setting in preset.settings:
        ground, rows = Ground(setting, device), worlds.setdefault(setting.world.name, {})
        for arm in preset.arms:
            found = []
            for seed in setting.seeds:
                read = gather(ground.trained(arm, seed).model, ground.held_out, preset.frames, ground.generator(4))
                found.append(probe(read, ground.generator(5)))
            rows[arm] = {"what": ARMS[arm].what} | {quantity: {kind: {part: _mean(
                [getattr(getattr(f[quantity], kind), part) for f in found]) for part in ("mse", "r")}
                for kind in ("linear", "mlp")} for quantity in found[0]}
    return Record.new(experiment="lewm/probes", preset=preset, results={"worlds": worlds}, started=started)


SURPRISE = {name: replace(preset, arms=preset.arms[:2]) for name, preset in PROBES.items()}


@with_threads
def surprise(preset: LookPreset) -> Record:
    """Surprise at a thing that jumps and at one that changes color: curves, paired tests, and detection."""
    started, device = time.perf_counter(), pick_device(preset.device)
    worlds: dict[str, dict] = {}
    for setting in preset.settings:
        ground, rows = Ground(setting, device), worlds.setdefault(setting.world.name, {})
        # As long as the episodes allow, up to ten blocks.
        frames = min(11, int(ground.unseen.ep_len.float().quantile(0.5)) // setting.skip)
        shown = films(ground.clips_of(ground.unseen, frames), preset.films, ground.generator(6))
        for arm in preset.arms:
            seeds = [watch(ground.trained(arm, seed).model, shown, ground.generator(7)) for seed in setting.seeds]
            first = seeds[0]
            usual = first.curves[FILMS[0]][:, first.event - 1]
            rows[arm] = {"what": ARMS[arm].what, "event": first.event,
                         "curves": {name: [part.tolist() for part in first.mean(name)] for name in FILMS},
                         "roc": {name: [part.tolist() for part in _thinned(
                             roc(first.curves[name][:, first.event - 1], usual))] for name in FILMS[1:]},
                         "detected": {name: [dataclasses.asdict(s.detected[name]) for s in seeds]
                                      for name in FILMS[1:]}}
    return Record.new(experiment="lewm/surprise", preset=preset, results={"worlds": worlds}, started=started)


def _thinned(curve: tuple[torch.Tensor, torch.Tensor], most: int = 100) -> tuple[torch.Tensor, ...]:
    """At most so many points of a curve, its ends among them."""
    which = torch.linspace(0, len(curve[0]) - 1, min(most, len(curve[0]))).round().long()
    return tuple(part.cpu()[which] for part in curve)


@dataclass(frozen=True)
class ShapePreset:
    name: str
    setting: Setting  # of Two Rooms
    arms: tuple[str, ...] = ("sigreg", "pldm", "prediction")
    side: int = 20  # of the grid of places that the map shows
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


SHAPE = {
    "cpu": ShapePreset("cpu", replace(QUICK, recipe=replace(QUICK.recipe, policy="smooth")), arms=("sigreg",), side=6,
                       device="cpu"),
    "two-cores": ShapePreset("two-cores", rooms(policy="smooth"), device="cpu"),
    "gpu": ShapePreset("gpu", rooms(episodes=10_000, steps=2000, policy="smooth", seeds=(0, 1, 2)), device="cuda"),
}


@with_threads
def shape(preset: ShapePreset) -> Record:
    """The shape of latents: how straight paths are, a map of the rooms, latent against true distance.

    The dot walks smoothly here: of a walk at random no path is straight, in any latents.
    """
    started, device, setting = time.perf_counter(), pick_device(preset.device), preset.setting
    ground, rows = Ground(setting, device), {}
    look = ground.clips_of(ground.unseen, 8).draw(256, ground.generator(8))
    agent = ground.world.quantities["agent xy"]
    places = position_grid(look.states[0, 0], agent, low=24.0, high=200.0, side=preset.side)
    for arm in preset.arms:
        straight, maps = [], []
        for seed in setting.seeds:
            model = ground.trained(arm, seed).model
            with torch.no_grad():
                z = model.encode(ground.clips.frames(places)[:, None])[:, 0]
                straight.append(float(straightness(model.encode(look.frames))))
            maps.append((principal(z, 2), distance_curve(z, places[:, agent], ground.generator(9))))
        found, curve = maps[0]
        rows[arm] = {"what": ARMS[arm].what, "straightness": straight, "map": found.coordinates.tolist(),
                     "explained": found.explained.tolist(), "distance": [part.tolist() for part in curve]}
    true = float(straightness(look.states[..., agent]))
    return Record.new(experiment="lewm/shape", preset=preset, started=started,
                      results={"arms": rows, "places": places[:, agent].tolist(), "straightness of the way": true})


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
