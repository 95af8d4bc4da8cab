"""The data that we make: four tiers for a task, the same for the same seed.

- medium: one policy from the middle of a search, the D4RL idea of a policy half trained.
- mixed: every policy of the search, from standing still to its best, as in D4RL's medium-replay.
- expert-mix: half medium, half the oracle.
- diverse: mixed, and two fifths from searches for something else, for rewards that are only given at run time.

All but the oracle are linear policies that feed back the state, blurred by noise of a strength that differs from
episode to episode. Data of gaits that follow a clock would be easier to make, but whoever imitates them from the state
alone cannot know the time. Episodes are made in shards, each from a seed of its own, so that neither the number of
workers nor an interruption changes them.
"""

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import mujoco
import torch
from torch import Tensor

from minilab.core.device import cache_dir
from minilab.core.parallel import parallel_map
from minilab.core.progress import progress
from minilab.core.weights import load_weights, save_weights
from minilab.dmpc.data import LICENCE, Episodes, joined, load_episodes, save_episodes
from minilab.dmpc.envs import HOPPER, WALKER, Simulator, Task, with_frame_skip
from minilab.dmpc.oracle import Oracle, OracleConfig
from minilab.dmpc.policies import WALKER_MIRROR, Linear, Search, ars, stacked, two_legged
from minilab.dmpc.rewards import Quantities, Reward, planned, run, track_pitch, track_speed, weighted
from minilab.dmpc.rollout import Noisy, rollout

TIERS = ("medium", "mixed", "expert-mix", "diverse")
FALL_COST = 10.0  # to the oracle
VERSION = 2  # of this file's recipes: a new number makes all data anew
FALLING = 2  # of the recipes for bodies that fall


# What a search needs to get far enough. A body that falls takes smaller steps, and learns from its own short episodes.
SEARCHES = {
    "HalfCheetah-v5": Search(iterations=120),
    "Hopper-v5": Search(iterations=100, directions=12, top=6, noise=0.025, step=0.015),
    "Walker2d-v5": Search(iterations=90, noise=0.025, step=0.02, alive=0.1),
}
HOPPER_STEP = 68  # of Hopper's ladder, from which Walker2d begins: it hops, and does not yet dash
STEADY = Search(iterations=70, noise=0.015, step=0.012, alive=0.1)  # Walker2d's second search, with blurred actions


@dataclass(frozen=True)
class Sizes:
    """How much is made, and from how long a search."""

    episodes: int
    steps: int = 200  # of an episode
    search: Search | None = None  # by default the task's own (`SEARCHES`)
    other: Search = Search(iterations=36, directions=12, top=6, steps=120)  # for each other objective
    noise: float = 0.3  # the strongest blur of an action; of a body that falls at most a tenth
    oracle: OracleConfig = OracleConfig()
    shard: int = 50  # episodes that are made side by side
    seed: int = 0  # of the episodes; a search has its own


CPU = Sizes(episodes=100)
SIZES = {"cpu": CPU, "full": Sizes(episodes=1000), "million": Sizes(episodes=5000)}


class Skill(NamedTuple):
    """Something else to want: a reward, and whether its search starts from the ladder instead of from nothing."""

    reward: Reward
    from_ladder: bool = False


def skills(task: Task) -> dict[str, Skill]:
    """The other objectives of the diverse tier. To be upright counts in all of them, where the body can fall.

    Such a body starts from the end of its ladder wherever it has to keep moving.
    """
    own, q = run(task), Quantities((task.state_dim - 1) // 2)
    slow, brisk, lean = (1.0, 2.5, 0.5) if task.environment == "HalfCheetah-v5" else (0.5, 1.0, 0.1)

    def upright(s: Tensor, a: Tensor, after: Tensor) -> Tensor:
        return task.alive * task.upright(after)

    def also(reward: Reward) -> Reward:
        return weighted((1.0, upright), (1.0, reward))

    return {
        "backward": Skill(lambda s, a, after: own(s, a, after) - q.speed(s) - q.speed(after)),
        "slow": Skill(also(track_speed(slow)), from_ladder=task.falls),
        "brisk": Skill(also(track_speed(brisk)), from_ladder=True),
        "pitch": Skill(also(track_pitch(lean)), from_ladder=task.falls),
        "height": Skill(also(lambda s, a, after: q.height(after) - 0.3 * q.pitch(after).abs())),
        "hop": Skill(also(lambda s, a, after: q.bounce(after) - 0.5 * q.pitch(after).abs()),
                     from_ladder=task.falls),
    }


def collect(task: Task, tier: str, sizes: Sizes = CPU, *, workers: int = 1, engine: str = "processes",
            folder: Path | None = None) -> Episodes:
    """The episodes of a tier, from the cache (or `folder`) if they were made before.

    Raises ValueError for an unknown tier.
    """
    path = dataset_path(task, tier, sizes, folder=folder)
    if (kept := _kept(path, task)) is not None:
        return kept
    shards = _shards(task, tier, sizes, workers, engine, path.parent)
    parts = [path.with_suffix("") / f"{shard.number}.safetensors" for shard in shards]
    made = [_kept(part, task) for part in parts]  # what an interrupted call left
    missing = [i for i, episodes in enumerate(made) if episodes is None]
    fresh = parallel_map(_run, [shards[i] for i in missing], workers=workers, engine=engine)
    for i, episodes in zip(missing, progress(fresh, desc=tier, total=len(missing), unit="shard"), strict=True):
        made[i] = episodes
        _keep(episodes, parts[i], tier, sizes)
    _keep(joined(made), path, tier, sizes)
    shutil.rmtree(path.with_suffix(""))
    return load_episodes(path, task)  # as any later call will see them, rounded to float16


def dataset_path(task: Task, tier: str, sizes: Sizes = CPU, *, folder: Path | None = None) -> Path:
    """Where a tier is kept: another task, size, seed or MuJoCo has another file."""
    if tier not in TIERS:
        raise ValueError(f"no tier {tier!r}; choose one of {', '.join(TIERS)}")
    return _file(task, tier, sizes, folder, *([FALLING] if task.falls else []))


def ladder(task: Task, search: Search, *, skill: str | None = None, start: Linear | None = None,
           folder: Path | None = None, **options: object) -> list[tuple[Linear, float]]:
    """What a search finds step by step (`policies.ars`, with its `options`), unless it was made before or ships."""
    begins = None if start is None else start.weights.tolist()
    path = _file(task, skill or "ladder", search, folder, begins, *([options] if options else []))
    kept = _kept_ladder(path) or _kept_ladder(Path("dmpc") / path.name)  # an asset
    if kept is None:
        found = ars(task, search, reward=None if skill is None else skills(task)[skill].reward, start=start,
                    **options)
        policies, returns = stacked([policy for policy, _ in found]), torch.tensor([value for _, value in found])
        kept = {"weights": policies.weights, "mean": policies.mean, "std": policies.std, "returns": returns}
        save_weights(kept, path, dtype="fp32", card={
            "what": f"linear policies for {task.name}: {skill or 'its own reward'}", "licence": LICENCE,
            "how_made": "minilab.dmpc.collect.ladder", "search": dataclasses.asdict(search)})
    return [(Linear(kept["weights"][i], kept["mean"][i], kept["std"][i]), float(kept["returns"][i]))
            for i in range(len(kept["returns"]))]


def main_ladder(task: Task, *, folder: Path | None = None) -> list[tuple[Linear, float]]:
    """The ladder of a task's own search (`SEARCHES`).

    Walker2d's goes on from Hopper's. It has two parts: legs that move alike learn to go, then to bear a blur. The first
    hangs on the last bit of a float, and another processor may find less (of three seeds, two came past eight meters):
    so these ladders ship with minilab. Four minutes on one core make them anew.
    """
    search = SEARCHES[task.environment]
    if task.environment != WALKER.name:
        return ladder(task, search, folder=folder)
    hopper = main_ladder(with_frame_skip(HOPPER, task.frame_skip), folder=folder)[HOPPER_STEP][0]
    found = ladder(task, search, start=two_legged(hopper), mirror=WALKER_MIRROR, folder=folder)
    return found + ladder(task, STEADY, start=found[-1][0], mirror=WALKER_MIRROR, blur=0.1, keep_moments=True,
                          folder=folder)


def middle(found: list[tuple[Linear, float]]) -> int:
    """The first step of a search that comes half the way from its first return to its best."""
    returns = torch.tensor([value for _, value in found])
    return int((returns >= (returns[0] + returns.max()) / 2).nonzero()[0, 0])


class _Search(NamedTuple):
    """One search of several that run side by side."""

    task: Task
    search: Search
    skill: str
    start: Linear | None
    folder: Path


def _search(job: _Search) -> list[tuple[Linear, float]]:
    if not job.task.falls:
        return ladder(job.task, job.search, skill=job.skill, start=job.start, folder=job.folder)
    mirror = WALKER_MIRROR if job.task.environment == WALKER.name else None
    search = dataclasses.replace(job.search, noise=0.03, step=0.03)
    if job.start is not None:  # small moves, or the gait is lost
        search = dataclasses.replace(job.search, noise=STEADY.noise, step=STEADY.step)
    return ladder(job.task, search, skill=job.skill, start=job.start, mirror=mirror, keep_moments=job.start is not None,
                  folder=job.folder)


class _Shard(NamedTuple):
    """Episodes that are made side by side: each by a policy of its own, or by the oracle where there is none."""

    task: Task
    sizes: Sizes
    number: int
    sources: tuple[str, ...]
    policies: tuple[Linear, ...]


def _shards(task: Task, tier: str, sizes: Sizes, workers: int, engine: str, folder: Path) -> list[_Shard]:
    """Who acts in which episode."""
    E = sizes.episodes
    found = main_ladder(task, folder=folder) if sizes.search is None else ladder(task, sizes.search, folder=folder)
    main = [(f"ladder {i}", policy) for i, (policy, _) in enumerate(found)]
    if tier == "mixed":
        acting = _spread(main, E)
    elif tier == "diverse":
        n, other = round(0.6 * E), skills(task)
        begin = found[-1 if task.falls else middle(found)][0]
        jobs = [_Search(task, sizes.other, name, begin if skill.from_ladder else None, folder)
                for name, skill in other.items()]
        acting = _spread(main, n)
        for i, steps in enumerate(parallel_map(_search, jobs, workers=workers, engine=engine)):
            able = [(f"{jobs[i].skill} {k}", policy) for k, (policy, _) in enumerate(steps)][len(steps) // 2 :]
            acting += _spread(able, (E - n) * (i + 1) // len(jobs) - (E - n) * i // len(jobs))
    else:
        acting = [main[middle(found)]] * (E if tier == "medium" else E // 2)
    groups = [acting[i : i + sizes.shard] for i in range(0, len(acting), sizes.shard)]
    left = E - len(acting)  # the oracle's
    groups += [[("oracle", None)] * min(sizes.shard, left - i) for i in range(0, left, sizes.shard)]
    return [_Shard(task, sizes, number, tuple(name for name, _ in group),
                   tuple(policy for _, policy in group if policy is not None)) for number, group in enumerate(groups)]


def _spread(items: list, n: int) -> list:
    """n of them, from the first to the last, evenly."""
    return [items[round(i)] for i in torch.linspace(0, len(items) - 1, n, dtype=torch.float64).tolist()]


def _run(shard: _Shard) -> Episodes:
    task, sizes = shard.task, shard.sizes
    digest = _digest([sizes.seed, task.name, shard.number, shard.sources])
    generator = torch.Generator().manual_seed(int(digest[:12], 16))
    simulator = Simulator(task, len(shard.sources))
    if shard.policies:
        noise = min(sizes.noise, 0.1) if task.falls else sizes.noise
        controller = Noisy(stacked(shard.policies), noise, generator)
    else:
        objective = planned(run(task), discount=1.0, falls=task, fall_cost=FALL_COST)
        controller = Oracle(simulator, objective, sizes.oracle, seed=int(digest[12:24], 16))
    made = rollout(controller, simulator, sizes.steps, generator, desc=shard.sources[0])
    return dataclasses.replace(made.episodes, source=shard.sources)


def _file(task: Task, name: str, settings: Sizes | Search, folder: Path | None, *more: object) -> Path:
    key = _digest([VERSION, mujoco.__version__, dataclasses.asdict(task), name, dataclasses.asdict(settings), *more])
    return (folder or cache_dir() / "dmpc") / f"{task.name}-{name}-{key[:12]}.safetensors"


def _digest(settings: list) -> str:
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def _kept(path: Path, task: Task) -> Episodes | None:
    """The episodes of a file of the cache; None if there is none, or if it is damaged."""
    try:
        return load_episodes(path, task)
    except (FileNotFoundError, ValueError):
        return None


def _kept_ladder(path: Path) -> dict[str, Tensor] | None:
    """The policies of a file or an asset; None if there is none, or if it is damaged."""
    try:
        return load_weights(path)[0]
    except (FileNotFoundError, ValueError):
        return None


def _keep(episodes: Episodes, path: Path, tier: str, sizes: Sizes) -> None:
    save_episodes(episodes, path, what=f"{tier} episodes of {episodes.task}",
                  how_made=f"minilab.dmpc.collect.collect with {sizes}")
