"""Minari: the public home of offline data. Reads its sets of our tasks, and writes ours for other libraries.

Notable:

- Its MuJoCo sets act every 4 or 5 physics steps, as Gymnasium does by default. Reading one therefore returns the task
  with that frame skip too: plan for that one. Our Hopper and Walker2d act every 16.
- Nothing is downloaded here: `minari download NAME` does that, where there is a network.

Shapes: E episodes, T steps, S numbers in a state, A in an action.
"""

import copy
import importlib
import warnings
from types import ModuleType

import numpy as np
import torch

from minilab.dmpc.data import Episodes, checked_for
from minilab.dmpc.envs import Task, task_named

GYM_FRAME_SKIP = {"HalfCheetah-v5": 5, "Hopper-v5": 4, "Walker2d-v5": 4}  # unless a set says otherwise


def read_minari(name: str, *, most: int | None = None) -> tuple[Task, Episodes]:
    """A Minari set on this machine, such as "mujoco/hopper/medium-v0", and the task that it is of.

    At most `most` episodes are read, from the first on. Raises ImportError if Minari is not installed,
    FileNotFoundError if the set is not on this machine, and ValueError if it is not of one of our tasks.
    """
    minari = _minari()
    try:
        dataset = minari.load_dataset(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no Minari set {name!r} on this machine. Where there is a network: minari download {name}. Without one, "
            "minilab makes its own data: minilab.dmpc.collect.collect(task, \"mixed\")") from error
    task = _task_of(dataset, name)
    chosen = range(dataset.total_episodes if most is None else min(most, dataset.total_episodes))
    if not chosen:
        raise ValueError(f"no episode to read: {name} has {dataset.total_episodes}, and at most {most} are asked for")
    read = list(dataset.iterate_episodes(chosen))
    for space, what in ((read[0].observations, "observations"), (read[0].actions, "actions")):
        if not isinstance(space, np.ndarray) or space.ndim != 2:
            raise ValueError(f"the {what} of {name} are no vectors of numbers but {type(space).__name__}: "
                             f"it is not a set of {task.name} as Gymnasium observes it")
    lengths = torch.tensor([len(e.rewards) for e in read])
    E, T, S, A = len(read), int(lengths.max()), read[0].observations.shape[1], read[0].actions.shape[1]
    states, actions, rewards = torch.zeros(E, T + 1, S), torch.zeros(E, T, A), torch.zeros(E, T)
    for i, (episode, n) in enumerate(zip(read, lengths.tolist(), strict=True)):
        seen = torch.from_numpy(episode.observations).float()
        states[i] = torch.cat((seen, seen[-1:].expand(T - n, S)))
        actions[i, :n] = torch.from_numpy(episode.actions).float().clamp(-1, 1)
        rewards[i, :n] = torch.from_numpy(episode.rewards).float()
    fell = torch.tensor([bool(e.terminations[-1]) for e in read])
    return task, checked_for(Episodes(task.name, states, actions, rewards, lengths, fell, (name,) * E), task)


def write_minari(episodes: Episodes, name: str, *, description: str = "") -> None:
    """Keep a set as a Minari set of this name, such as "minilab/halfcheetah/mixed-v0", in Minari's own folder.

    Raises ImportError if Minari is not installed, and ValueError if there is a set of that name already.
    """
    minari = _minari()
    buffer_type = importlib.import_module("minari.data_collector.episode_buffer").EpisodeBuffer
    gymnasium = importlib.import_module("gymnasium")
    task = task_named(episodes.task)
    spec = copy.deepcopy(gymnasium.spec(task.environment))  # else every later environment would be ours
    spec.kwargs["frame_skip"] = task.frame_skip
    buffers = []
    for i, n in enumerate(episodes.lengths.tolist()):
        ends = np.zeros(n, dtype=bool)
        ends[-1] = True
        fell, never = bool(episodes.fell[i]), np.zeros(n, dtype=bool)
        buffers.append(buffer_type(
            id=i, observations=episodes.states[i, : n + 1].double().numpy(), actions=episodes.actions[i, :n].numpy(),
            rewards=episodes.rewards[i, :n].double().numpy(), terminations=ends if fell else never,
            truncations=never if fell else ends))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it misses an e-mail address
        acted = ", ".join(dict.fromkeys(source.split()[0] for source in episodes.source if source))
        minari.create_dataset_from_buffers(
            name, buffers, env=spec, algorithm_name=acted, author="minilab",
            description=description or f"{task.name}, simulated by minilab")


def _task_of(dataset, name: str) -> Task:
    """Our task of a set's environment, with its frame skip."""
    spec = dataset.env_spec
    environment = spec.id if spec else "an environment that it does not name"
    if environment not in GYM_FRAME_SKIP:
        raise ValueError(f"{name} is of {environment}; minilab has {', '.join(GYM_FRAME_SKIP)}: choose a set of those")
    if "xml_file" in spec.kwargs:
        raise ValueError(f"{name} is of another body, {spec.kwargs['xml_file']}: choose a set of Gymnasium's own")
    return task_named(f"{environment}@{spec.kwargs.get('frame_skip', GYM_FRAME_SKIP[environment])}")


def _minari() -> ModuleType:
    try:
        return importlib.import_module("minari")
    except ImportError as error:
        raise ImportError("Minari sets need the library: pip install 'minilab[minari]'") from error
