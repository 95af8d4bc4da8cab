"""Goals in the other room: what the paper's distance makes of them, a learned one, and one that knows the way."""

import time
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.lewm.experiments_plan import SUCCESS
from minilab.lewm.model import LeWM
from minilab.lewm.planner import Distance, small, squared
from minilab.lewm.reach import ReachConfig, blocks_of, learn_reach
from minilab.lewm.rollout import Planner
from minilab.lewm.study import QUICK, Ground, Setting, rooms, share
from minilab.lewm.worlds.rooms import DOOR, WALL, left


@dataclass(frozen=True)
class CrossingPreset:
    name: str
    setting: Setting  # of Two Rooms
    reach: ReachConfig = ReachConfig()
    blocks: int = 50_000  # that the distance is learned from
    places: int = 2000  # that the guide knows
    budget: int = 150  # steps to a goal in the other room
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


CROSSING = {
    "cpu": CrossingPreset("cpu", replace(QUICK, tasks=4, budget=10), ReachConfig(steps=20), blocks=500, places=100,
                          budget=10, device="cpu"),
    "two-cores": CrossingPreset("two-cores", rooms(tasks=60, plan=small(samples=64, elites=8, iterations=3)),
                                device="cpu"),
    "gpu": CrossingPreset("gpu", SUCCESS["gpu"].settings[0], device="cuda"),
}


@with_threads
def crossing(preset: CrossingPreset) -> Record:
    """How often goals in the other room are reached, and near ones, with three distances and two costs, and by chance.

    The planner looks after each block. "squared" is the paper's distance, "reach" is learned from single blocks, and
    "way" cheats. `ranks` are Spearman's correlations of each with the shortest ways to the goals in the other room.
    """
    started, setting = time.perf_counter(), preset.setting
    ground = Ground(setting, pick_device(preset.device))
    ok: dict[str, dict[str, list[Tensor]]] = {}
    ranks: dict[str, list[float]] = {}
    for seed in setting.seeds:
        model = ground.trained("sigreg", seed).model
        tasks = {"opposite": (ground.world.opposite(setting.tasks, ground.generator(seed)), preset.budget),
                 "near": (ground.tasks(setting.tasks, seed), setting.budget)}
        start, goal = tasks["opposite"][0]
        agents = {"chance": ground.agent(ground.trained("chance", seed), seed)}
        for name, distance in distances(model, ground, preset, seed).items():
            far = distance(latents(model, ground, start), latents(model, ground, goal))
            ranks.setdefault(name, []).append(spearman(far, way(start, goal)))
            for cost in ("last", "mean"):
                plan = replace(setting.plan, execute=1, cost=cost)
                agents[f"{name}, {cost}"] = Planner(model, plan, ground.seen.scale, ground.generator(seed),
                                                    bounded=True, distance=distance)
        for name, agent in agents.items():
            for where, (ends, budget) in tasks.items():
                reached = ground.reached(agent, seed, tasks=ends, budget=budget)
                ok.setdefault(name, {}).setdefault(where, []).append(reached)
    rows = {name: {where: share(groups) for where, groups in found.items()} for name, found in ok.items()}
    return Record.new(experiment="lewm/crossing", preset=preset, started=started,
                      results={"world": setting.world.name, "rows": rows, "ranks": ranks})


def distances(model: LeWM, ground: Ground, preset: CrossingPreset, seed: int) -> dict[str, Distance]:
    """The paper's, the learned one, and the length of the shortest way between places that are looked up."""
    z = blocks_of(model, ground.clips_of(ground.seen, 2), preset.blocks, ground.generator(seed))
    place = ground.world.reset(preset.places, ground.generator(seed))
    known = latents(model, ground, place)

    def cheat(z: Float[Tensor, "*b D"], z_goal: Float[Tensor, "*b D"]) -> Float[Tensor, "*b"]:
        # A latent's place is that of the nearest among those of places we know.
        here, there = (place[torch.cdist(x, known).argmin(dim=-1)] for x in (z.flatten(0, -2), z_goal.flatten(0, -2)))
        return way(here, there).view(z.shape[:-1])

    return {"squared": squared, "reach": learn_reach(z, preset.reach, seed=seed), "way": cheat}


@torch.no_grad()
def latents(model: LeWM, ground: Ground, states: Float[Tensor, "n S"]) -> Float[Tensor, "n D"]:
    """What the model sees in pictures of states."""
    return model.encode(ground.world.render(states, ground.setting.config.vision.image)[:, None])[:, 0]


def way(start: Float[Tensor, "n 2"], goal: Float[Tensor, "n 2"]) -> Float[Tensor, "n"]:
    """The length of the shortest way; to the other room it is taken to lead by the middle of the door."""
    door = start.new_tensor([WALL, DOOR])
    by_door = (start - door).norm(dim=1) + (goal - door).norm(dim=1)
    return torch.where(left(start) == left(goal), (start - goal).norm(dim=1), by_door)


def spearman(a: Float[Tensor, "n"], b: Float[Tensor, "n"]) -> float:
    """The correlation of two lists' ranks."""
    ranks = torch.stack([x.argsort().argsort().double() for x in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])
