"""Where a computation runs: devices, seeds, threads, and every environment variable that minilab reads.

- `MINILAB_THREADS`: the number of threads that torch may use.
- `MINILAB_CACHE`: the folder for downloaded models.
- `MINILAB_PROGRESS=0`: no progress bars (tests, stored notebooks).
- `MINILAB_COMMIT`: the commit to write into records, for copies whose own history is missing or another.

Threads deserve the care: on a busy two-core machine OpenMP workers that spin while they wait make two torch
threads 5 to 50 times slower than one. `OMP_WAIT_POLICY=passive` makes them sleep, and the OpenMP runtime
reads it once, when torch is loaded. So this module imports nothing heavy, and `import minilab` calls
`configure_threads` first.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def configure_threads() -> None:
    """Set OpenMP's wait policy, and the thread count if `MINILAB_THREADS` asks for one.

    A wait policy that is already set stays. Raises ValueError if `MINILAB_THREADS` is not a positive integer.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    asked = os.environ.get("MINILAB_THREADS")
    if not asked:
        return
    if not asked.isdecimal() or int(asked) < 1:
        raise ValueError(f"MINILAB_THREADS is {asked!r}; give a positive integer, or unset it")
    os.environ["OMP_NUM_THREADS"] = asked
    if "torch" in sys.modules:  # too late for the variable: tell torch itself
        sys.modules["torch"].set_num_threads(int(asked))


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" is the first of cuda, mps and cpu that works here.

    Raises ValueError if the name is unknown or the device is not there, with what was found instead.
    """
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cuda", "mps", "cpu"):
        raise ValueError(f"unknown device {name!r}; choose auto, cpu, mps, cuda or cuda:N")
    count = torch.cuda.device_count() if cuda else 0
    missing_cuda = device.type == "cuda" and (device.index or 0) >= count
    if missing_cuda or (device.type == "mps" and not mps):
        raise ValueError(
            f"device {name!r} is not available: found {_describe_accelerators()}. "
            "Use cpu (or auto); for a GPU, install a torch built for it and check the driver with nvidia-smi"
        )
    return device


def _describe_accelerators() -> str:
    import torch

    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = "".join(f" ({torch.cuda.get_device_name(i)})" for i in range(count))
    mps = "Apple MPS" if torch.backends.mps.is_available() else "no Apple MPS"
    return f"torch {torch.__version__} built {build}, CUDA devices: {count}{names}, {mps}"


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python, numpy and torch, and return a fresh CPU generator with the same seed.

    The global seeds serve what cannot be handed a generator (initialization of layers, dropout); everything
    else takes the generator. Raises ValueError outside 0 to 2**32 - 1, numpy's range.
    """
    import numpy
    import torch

    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; give an integer from 0 to {2**32 - 1}")
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Run the body with `n` torch threads, then put the old count back. Raises ValueError if n < 1."""
    import torch

    if n < 1:
        raise ValueError(f"threads is {n}; give at least 1")
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def with_threads(experiment: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An experiment that runs with its preset's `threads` where that is a number, and else as it finds torch.

    For a model of some ten million parameters a second thread costs more in waiting than it brings.
    """

    @functools.wraps(experiment)
    def run(preset: Any) -> Any:
        with threads(preset.threads) if preset.threads else contextlib.nullcontext():
            return experiment(preset)

    return run


def hardware() -> dict:
    """What a measurement ran on: cpu, cores, torch_threads, and gpus (name and memory) if there are any."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    facts = {
        "cpu": _cpu_model(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores,
        "torch_threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        facts["gpus"] = [{"name": d.name, "memory_gib": round(d.total_memory / 2**30, 1)} for d in devices]
    elif torch.backends.mps.is_available():
        facts["gpus"] = [{"name": "Apple MPS"}]
    return facts


def _cpu_model() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    with contextlib.suppress(OSError, StopIteration, subprocess.CalledProcessError):
        if sys.platform == "darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def cache_dir() -> Path:
    """The folder for downloaded models: `MINILAB_CACHE`, or minilab in the user's cache. It may be absent."""
    if asked := os.environ.get("MINILAB_CACHE"):
        return Path(asked).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "minilab"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/minilab"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minilab"


def show_progress() -> bool:
    """False when `MINILAB_PROGRESS=0` asks for silence."""
    return os.environ.get("MINILAB_PROGRESS") != "0"


def declared_commit() -> str | None:
    """The commit that `MINILAB_COMMIT` declares, for machines that have the files but not their history."""
    return os.environ.get("MINILAB_COMMIT") or None
