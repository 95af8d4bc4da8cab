"""One function over many items: here, in processes, or on a Ray cluster. We write no scheduler."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")
ENGINES = ("processes", "ray")


def parallel_map(
    fn: Callable[[Item], Result], items: Sequence[Item], *, workers: int = 1, engine: str = "processes"
) -> Iterator[Result]:
    """Yield fn(item) for each item, in order, each as soon as it is there, with at most `workers` at work.

    One worker runs in this process, and more in processes of their own with one torch thread each. With the engine
    "ray" they are Ray tasks: on the cluster that `RAY_ADDRESS` names, or on this machine. `fn` is then a function
    of a module, and items and results can be pickled. What one item raises is raised here, and no other is begun.
    Raises ValueError for fewer than 1 worker or an unknown engine, and ImportError if Ray is not installed.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; give at least 1")
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; choose one of {', '.join(ENGINES)}")
    if engine == "ray":
        return _on_ray(_ray(), fn, items, workers)
    return map(fn, items) if workers == 1 else _in_processes(fn, items, min(workers, max(1, len(items))))


def _in_processes(fn: Callable, items: Sequence, workers: int) -> Iterator:
    # A forked child of a process with threads (torch, MuJoCo) can hang: start it anew.
    with ProcessPoolExecutor(workers, get_context("spawn"), _one_thread) as pool:
        waiting = [pool.submit(fn, item) for item in items]
        try:
            for future in waiting:
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _on_ray(ray, fn: Callable, items: Sequence, workers: int) -> Iterator:
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    # Ray takes plain functions only, where `fn` may be a builtin or a partial.
    task, waiting = ray.remote(num_cpus=1)(lambda item: fn(item)), deque()
    try:
        for item in items:
            if len(waiting) == workers:
                yield ray.get(waiting.popleft())
            waiting.append(task.remote(item))
        while waiting:
            yield ray.get(waiting.popleft())
    finally:
        for left in waiting:
            ray.cancel(left)


def _ray():
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ImportError("the engine 'ray' needs Ray: pip install 'minilab[cluster]'") from error
