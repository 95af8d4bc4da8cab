"""Make the episodes that a model learns from, once: the same bytes for the same recipe.

Episodes are made in shards, side by side, each shard from a seed of its own. So neither the number of workers nor an
interruption changes them, and what an interrupted call has finished is not made again.

Shapes: B episodes, T steps, S numbers in a state, A in an action.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilab.core.device import cache_dir
from minilab.core.parallel import parallel_map
from minilab.core.progress import progress
from minilab.lewm.data import Trajectories, load_trajectories, save_trajectories
from minilab.lewm.worlds import Policy, World, world_named

VERSION = 1  # of this file: a new number makes all data anew


@dataclass(frozen=True)
class Recipe:
    """Everything that a set depends on, but for the versions of this file and of the world."""

    world: str
    episodes: int
    policy: str = ""  # by default the world's first
    steps: int = 100  # of an episode at most
    seed: int = 0
    shard: int = 250  # episodes that are made side by side


def collect(recipe: Recipe, *, workers: int = 1, engine: str = "processes", folder: Path | None = None) -> Trajectories:
    """The episodes of a recipe, from the cache (or `folder`) if they were made before.

    Raises ValueError for an unknown world or policy, and for fewer than 1 episode, step or episode a shard.
    """
    path = dataset_path(recipe, folder=folder)
    if (kept := _kept(path)) is not None:
        return kept
    shards = [_Shard(recipe, number) for number in range(-(-recipe.episodes // recipe.shard))]
    parts = [path.with_suffix("") / f"{shard.number}.safetensors" for shard in shards]
    made = [_kept(part) for part in parts]  # what an interrupted call left
    missing = [i for i, trajectories in enumerate(made) if trajectories is None]
    fresh = parallel_map(_run, [shards[i] for i in missing], workers=workers, engine=engine)
    for i, trajectories in zip(missing, progress(fresh, desc=recipe.world, total=len(missing), unit="shard"),
                               strict=True):
        made[i] = trajectories
        save_trajectories(trajectories, parts[i], _card(recipe))
    save_trajectories(joined(made), path, _card(recipe))
    shutil.rmtree(path.with_suffix(""))
    return load_trajectories(path)


def dataset_path(recipe: Recipe, *, folder: Path | None = None) -> Path:
    """Where a set is kept: another recipe, or another version of the world, has another file."""
    world, policy = world_named(recipe.world), _policy(recipe)
    if policy not in world.policies:
        raise ValueError(f"the world {world.name!r} has no policy {policy!r}; choose one of "
                         f"{', '.join(world.policies)}")
    if min(recipe.episodes, recipe.steps, recipe.shard) < 1:
        raise ValueError(f"{recipe} makes nothing: episodes, steps and shard are at least 1")
    key = _digest([VERSION, world.version, asdict(replace(recipe, policy=policy))])[:12]
    name = f"{recipe.world}-{policy}-{recipe.episodes}-{key}.safetensors"
    return (folder or cache_dir() / "lewm") / name


@torch.no_grad()
def rollout(world: World, policy: Policy, state: Float[Tensor, "B S"], steps: int
            ) -> tuple[Float[Tensor, "B T1 S"], Float[Tensor, "B T A"], Int[Tensor, "B"]]:
    """B episodes side by side from `state`: states, actions, and how many actions each took until it was done.

    All are stepped on until the last is done. What lies past an episode's end is no part of it.
    """
    states, actions = [state], []
    lengths = torch.zeros(len(state), dtype=torch.long, device=state.device)
    done = torch.zeros(len(state), dtype=torch.bool, device=state.device)
    for _ in range(steps):
        actions.append(policy.act(states[-1]))
        states.append(world.step(states[-1], actions[-1]))
        lengths += ~done
        done |= policy.done(states[-1])
        if done.all():
            break
    return torch.stack(states, dim=1), torch.stack(actions, dim=1), lengths


def joined(sets: list[Trajectories]) -> Trajectories:
    """Several whole sets of one world, end to end."""
    lengths = torch.cat([part.ep_len for part in sets])
    return Trajectories(sets[0].world, torch.cat([part.states for part in sets]),
                        torch.cat([part.actions for part in sets]), lengths, lengths.cumsum(0) - lengths)


class _Shard(NamedTuple):
    recipe: Recipe
    number: int


def _run(shard: _Shard) -> Trajectories:
    recipe, world = shard.recipe, world_named(shard.recipe.world)
    digest = _digest([recipe.seed, recipe.world, _policy(recipe), shard.number])
    generator = torch.Generator().manual_seed(int(digest[:12], 16))
    B = min(recipe.shard, recipe.episodes - shard.number * recipe.shard)
    start = world.reset(B, generator)
    states, actions, lengths = rollout(world, world.policy(_policy(recipe), B, generator), start, recipe.steps)
    actions = torch.cat((actions, torch.full_like(actions[:, :1], float("nan"))), dim=1)  # B T1 A
    row = torch.arange(states.shape[1])
    actions[row == lengths[:, None]] = float("nan")  # nothing leaves an episode's last state
    used = row <= lengths[:, None]  # B T1
    return Trajectories(recipe.world, states[used], actions[used], lengths + 1, (lengths + 1).cumsum(0) - lengths - 1)


def _policy(recipe: Recipe) -> str:
    return recipe.policy or world_named(recipe.world).policies[0]


def _card(recipe: Recipe) -> dict:
    return {"what": f"{recipe.episodes} episodes of the world {recipe.world!r}, policy {_policy(recipe)!r}",
            "how_made": f"minilab.lewm.collect.collect({recipe})", "recipe": asdict(recipe),
            "version": [VERSION, world_named(recipe.world).version]}


def _digest(settings: list) -> str:
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def _kept(path: Path) -> Trajectories | None:
    """The set of a file of the cache; None if there is none, or if it is damaged."""
    try:
        return load_trajectories(path)
    except (FileNotFoundError, ValueError):
        return None
