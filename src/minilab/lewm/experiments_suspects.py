"""Who is to blame for a goal that is not reached: the imagination, the distance, or the search?

Each part of a planner is replaced by the truth while the others stay: the world imagines in place of the model, the
true distance of places ranks plans in place of that of latents, and a better search takes the place of the paper's.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.lewm.experiments_plan import PLANNERS, PUSHT, SUCCESS, by_case, methods, shipped
from minilab.lewm.experiments_reach import way
from minilab.lewm.model import LeWM
from minilab.lewm.oracle import Reader, TrueWorld, drawn, learn_reader, places, read, watched
from minilab.lewm.planner import Distance, squared
from minilab.lewm.rollout import Attempts, Planner, attempt
from minilab.lewm.study import QUICK, Ground, Setting, share
from minilab.lewm.worlds import World, pusht


@dataclass(frozen=True)
class SuspectsPreset:
    name: str
    setting: Setting
    methods: tuple[str, ...] = ("cem", "icem")  # of `experiments_plan.methods`
    parts: tuple[str, ...] | None = None  # which "who imagines, distance"; None takes all
    shipped: bool = False  # blame the model that comes with minilab, and train none
    pictures: int = 20_000  # that the reader of places learns from
    reader_steps: int = 1500
    pairs: int = 4000  # of states whose latents are compared
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


def far(setting: Setting, ahead: int = 100, **options) -> Setting:
    """The same with goals farther away, and twice as many steps allowed."""
    return replace(setting, ahead=ahead, budget=2 * ahead, **options)


SUSPECTS = {
    "cpu": SuspectsPreset("cpu", replace(QUICK, tasks=4, budget=10), methods=("icem",), pictures=500, reader_steps=20,
                          pairs=200, device="cpu"),
    "two-cores": SuspectsPreset("two-cores", SUCCESS["two-cores"].settings[1], device="cpu"),
    "two-cores-rooms": SuspectsPreset("two-cores-rooms", far(SUCCESS["two-cores"].settings[0], tasks=40),
                                      methods=("cem",), device="cpu"),
    "gpu": SuspectsPreset("gpu", SUCCESS["gpu"].settings[1], device="cuda"),
    "gpu-rooms": SuspectsPreset("gpu-rooms", far(SUCCESS["gpu"].settings[0]), device="cuda"),
    "gpu-pusht": SuspectsPreset("gpu-pusht", replace(PUSHT, tasks=20), methods=("icem",), threads=12,
                                device="cuda"),  # the simulator takes as many
    # How far the planners of `planners` come if nothing is learned, on the same goals.
    "two-cores-pusht": SuspectsPreset("two-cores-pusht", PLANNERS["two-cores-pusht"].setting,
                                      methods=PLANNERS["two-cores-pusht"].methods, parts=("world, pose",), shipped=True,
                                      device="cpu"),
}


@with_threads
def suspects(preset: SuspectsPreset) -> Record:
    """How often goals are reached with each part of the planner learned or true, by what a task asks for, and why.

    `rows` are "who imagines, distance, search". Of each row in which the model imagines and plans are run to their end,
    `promises` says how far from the goal the first ones end: as imagined and read, and in truth. `metric` says how far
    latents are apart when only one of a state's quantities differs, as a share of the distance of two states that have
    nothing in common.
    """
    started, setting = time.perf_counter(), preset.setting
    ground = Ground(setting, pick_device(preset.device))
    ok: dict[str, list[Tensor]] = {}
    found: dict[str, dict[str, list]] = {"promises": {}, "metric": {}, "reading": {}}
    for seed in setting.seeds:
        model = (shipped(setting) if preset.shipped else ground.trained("sigreg", seed)).model
        reader = learn_reader(model, ground.clips_of(ground.seen, 1), frames=preset.pictures,
                              steps=preset.reader_steps, seed=seed)
        chance = ground.agent(ground.trained("chance", seed), seed)
        ok.setdefault("chance", []).append(ground.reached(chance, seed))
        for name, planner, world in planners(model, reader, ground, preset, seed):
            start, goal = ground.tasks(setting.tasks, seed)
            tried = attempt(world, planner, start, goal, budget=setting.budget, size=setting.config.vision.image)
            ok.setdefault(name, []).append(tried.success)
            if planner.model is model and planner.config.execute == planner.config.horizon:
                found["promises"].setdefault(name, []).append(promise(planner, reader, ground.world, tried, goal))
        for part, numbers in (("metric", metric(model, ground.world, preset.pairs, ground.generator(seed))),
                              ("reading", reading(model, reader, ground, preset.pairs, seed))):
            for name, number in numbers.items():
                found[part].setdefault(name, []).append(number)
    rows = {name: share(groups) | by_case(ground, groups) for name, groups in ok.items()}
    return Record.new(experiment="lewm/suspects", preset=preset, started=started,
                      results={"world": setting.world.name, "rows": rows, **found})


class Noted(Planner):
    """A planner that keeps its first plan, and what it started from."""

    def start(self, goal: Tensor) -> None:
        super().start(goal)
        self.first = None

    def _plan(self) -> Tensor:
        found = super()._plan()
        if self.first is None:
            self.first = self.seen[0], found[:, 0]
        return found


def planners(model: LeWM, reader: Reader, ground: Ground, preset: SuspectsPreset, seed: int
             ) -> list[tuple[str, Noted, World]]:
    """Each combination of who imagines, what ranks and how is searched, in the world that it must act in."""
    world, scale = watched(ground.world), ground.seen.scale
    truth, true = TrueWorld(world, model.config, scale), true_distances(ground.world)
    learned = {"latents": squared} | {name: read(reader, distance) for name, distance in true.items()}
    known = {"latents": drawn(model, ground.world, squared)} | true
    return [(f"{who}, {name}, {method}",
             Noted(imagines, methods(preset.setting.plan)[method], scale, ground.generator(seed), distance=distance),
             world)
            for method in preset.methods
            for who, imagines, distances in (("model", model, learned), ("world", truth, known))
            for name, distance in distances.items()
            if preset.parts is None or f"{who}, {name}" in preset.parts]


def true_distances(world: World) -> dict[str, Distance]:
    """What a planner in this world should want, and what else it may be given; the first counts for success."""
    if world.name == "disc":
        return {"disc": places(world, "disc xy"), "disc and agent": places(world)}
    if world.name == "rooms":
        return {"place": places(world), "way": lambda state, goal: way(state.flatten(0, -2), goal.flatten(0, -2)).view(
            state.shape[:-1])}
    if world.name == "pusht":
        return {"pose": pusht.apart}
    raise ValueError(f"no true distances are known for the world {world.name!r}; take the disc, rooms or pusht")


@torch.no_grad()
def promise(planner: Noted, reader: Callable[[Tensor], Tensor], world: World, tried: Attempts,
            goal: Float[Tensor, "n S"]) -> dict[str, float]:
    """How far from the goal the first plans end, in the world's units: as imagined and read, in truth, and untouched.

    Only what counts for success is measured. Means over tasks.
    """
    z, blocks = planner.first
    imagined = reader(planner.model.imagine(z[:, None], blocks)[:, -1])
    k = planner.config.execute * planner.model.config.actions // len(planner.scale.mean)
    distance = next(iter(true_distances(world).values()))
    ends = {"promised": imagined, "kept": tried.states[:, min(k, tried.states.shape[1] - 1)], "at the start":
            tried.states[:, 0]}
    return {name: float(distance(end, goal).sqrt().mean()) for name, end in ends.items()}


@torch.no_grad()
def metric(model: LeWM, world: World, n: int, generator: torch.Generator) -> dict[str, float]:
    """Squared latent distance when only one quantity is another state's, over that of two independent states.

    Mixed states that the world would not leave alone, such as two things in one place, are left out.
    """
    a, b = (world.reset(n, generator) for _ in range(2))

    def latents(state: Float[Tensor, "n S"]) -> Float[Tensor, "n D"]:
        return model.encode(world.render(state, model.config.vision.image)[:, None])[:, 0]

    apart = float(squared(latents(a), latents(b)).mean())
    found = {"two states": apart}
    for name, where in world.quantities.items():
        mixed = a.clone()
        mixed[:, where] = b[:, where]
        stays = (world.step(mixed, mixed.new_zeros(n, world.action_dim)) - mixed).abs().amax(dim=1) < 1e-2
        found[name] = float(squared(latents(a[stays]), latents(mixed[stays])).mean()) / apart
    return found


@torch.no_grad()
def reading(model: LeWM, reader: Reader, ground: Ground, n: int, seed: int) -> dict[str, float]:
    """Mean errors of what is read off latents, in the world's units, from pictures that were held out.

    "seen" is read off true pictures. The others are ends of a plan's length: "recorded" of the actions that the data
    took there, "drawn" of what a search draws first, as imagined and read; and, "unmoved", the error of saying that
    nothing has moved by then.
    """
    H, scale = ground.setting.plan.horizon, ground.seen.scale
    clip = ground.clips_of(ground.unseen, H + 1).draw(n, ground.generator(seed))
    start, z = clip.states[:, 0], model.encode(clip.frames[:, :1])
    law = torch.randn(n, H, model.config.actions, generator=ground.generator(seed + 1), device=z.device)
    world = TrueWorld(ground.world, model.config, scale)
    distance = next(iter(true_distances(ground.world).values()))

    def off(said: Float[Tensor, "n S"], true: Float[Tensor, "n S"]) -> float:
        return float(distance(said, true).sqrt().mean())

    found = {"seen": off(reader(z[:, 0]), start)}
    for name, blocks in (("recorded", clip.actions[:, :H]), ("drawn", law)):
        end = world.imagine(start[:, None], blocks)[:, -1]
        found |= {name: off(reader(model.imagine(z, blocks)[:, -1]), end), f"{name}, unmoved": off(start, end)}
    return found
