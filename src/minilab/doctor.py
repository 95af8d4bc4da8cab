"""What is installed, what is missing, and how to get it: a report to paste into a question or an issue.

Each function returns one section. Paths below the home folder begin with ~, so that the report names nobody.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from minilab import __version__
from minilab.core.device import cache_dir, hardware, pick_device
from minilab.core.files import checkout_root, package_data
from minilab.core.records import commit_of_code, records_dir
from minilab.core.weights import read_verified

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOSTS = {  # Binder is a JupyterHub, so it comes first
    "Colab": ("COLAB_RELEASE_TAG", "COLAB_GPU"),
    "Kaggle": ("KAGGLE_KERNEL_RUN_TYPE",),
    "Binder": ("BINDER_SERVICE_HOST", "BINDER_LAUNCH_HOST"),
    "JupyterHub": ("JUPYTERHUB_USER", "JUPYTERHUB_API_URL"),
}
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # of containers


def report() -> tuple[str, bool]:
    """The whole report, and whether the core is sound (extras may be missing, assets may not be damaged)."""
    assets, sound = _assets()
    sections = {
        "system": _system(),
        "versions": _versions(),
        "devices": _devices(),
        "threads": _threads(),
        "places": _places(),
        "assets": assets,
        "models": _models(),
        "extras": _extras(),
        "browser": _browser(),
        "grading": _grading(),
    }
    blocks = [f"{title}\n" + "\n".join(f"  {line}" for line in lines) for title, lines in sections.items()]
    return "\n".join(blocks), sound


def _system() -> list[str]:
    """The operating system, where the notebooks run, memory, disk, and how busy the machine is."""
    try:
        release = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except (OSError, AttributeError):  # not Linux
        release = ""
    lines = [f"{release} ({platform.platform()})" if release else platform.platform(), f"runs in {_host()}"]
    memory = _memory_gib()
    places = {"working folder": Path.cwd(), "cache": cache_dir()}
    free = ", ".join(f"{_free_gib(path):.1f} GiB at the {name}" for name, path in places.items())
    lines.append(f"memory {f'{memory:.1f} GiB' if memory else 'unknown'}; free on disk {free}")
    if hasattr(os, "getloadavg"):
        lines.append(f"processes that wanted a core, over the last minute: {os.getloadavg()[0]:.1f}")
    return lines


def _host() -> str:
    """The service that this is, by the variables that each of them sets."""
    named = (name for name, variables in HOSTS.items() if any(os.environ.get(v) for v in variables))
    return next(named, "no notebook service that we know")


def _memory_gib() -> float | None:
    """The memory that this process may use: the machine's, or a container's limit where that is lower."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return None
    for limit in LIMITS:
        text = limit.read_text().strip() if limit.is_file() else ""
        found = min(found, int(text)) if text.isdecimal() else found
    return found / 2**30


def _free_gib(path: Path) -> float:
    there = next(p for p in (path.resolve(), *path.resolve().parents) if p.exists())
    return shutil.disk_usage(there).free / 2**30


def _versions() -> list[str]:
    """Python, and every package that minilab requires, in its own order."""
    required = [name for name, extra in _requirements() if extra is None]
    found = ", ".join(f"{name} {_version(name) or 'missing'}" for name in required)
    hash_, dirty, _ = (commit_of_code() or "").partition("-dirty")
    commit = f", commit {hash_[:12]}{dirty}" if hash_ else ""
    return [f"minilab {__version__}{commit}, Python {platform.python_version()} ({_tilde(sys.executable)})", found]


def _devices() -> list[str]:
    facts = hardware()
    gpus = [f"{gpu['name']}, {gpu.get('memory_gib', '?')} GiB" for gpu in facts.get("gpus", [])]
    none = "no GPU that torch can use: the cpu presets are made for that"
    return [
        f"{facts['cpu']}, {platform.machine()}, {facts['cores']} cores for this process of {os.cpu_count()}",
        *(gpus or [none]),
        f"{_torch_build()}; auto picks {pick_device()}",
        f"MuJoCo draws with MUJOCO_GL={os.environ.get('MUJOCO_GL', 'not set')}",
    ]


def _torch_build() -> str:
    import torch

    if torch.version.cuda:
        return f"torch is built for CUDA {torch.version.cuda}"
    return "torch is built for ROCm" if torch.version.hip else "torch is built without CUDA"


def _threads() -> list[str]:
    settings = ", ".join(
        f"{name}={os.environ.get(name, 'not set')}" for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    )
    lines = [f"torch uses {hardware()['torch_threads']}; {settings} (MINILAB_THREADS=N sets the number)"]
    if os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive":
        lines.append(
            "threads that wait spin: on a busy machine that is many times slower; unset OMP_WAIT_POLICY"
        )
    return lines


def _places() -> list[str]:
    source = checkout_root() or Path(__file__).parent
    places = {"code": source, "records": records_dir(), "cache": cache_dir()}
    moved = " (MINILAB_CACHE moves it)"
    return [f"{name} {_tilde(path)}{moved if name == 'cache' else ''}" for name, path in places.items()]


def _tilde(path: Path | str) -> str:
    """A path with the home folder as ~."""
    try:
        return f"~/{Path(path).relative_to(Path.home()).as_posix()}"
    except (ValueError, RuntimeError):  # elsewhere, or no home
        return str(path)


def _assets() -> tuple[list[str], bool]:
    lines, sound = [], True
    for path in sorted(package_data("assets").rglob("*.safetensors")):
        try:
            data, card = read_verified(path)
            lines.append(f"ok: {path.parent.name}/{path.name}, {len(data) / 2**20:.1f} MiB, {card['dtype']}")
        except (OSError, ValueError) as error:
            sound = False
            lines.append(f"damaged: {error}")
    return lines or ["no weights are shipped with this copy"], sound


def _models() -> list[str]:
    from minilab.speculative import smollm

    if smollm.available():
        return ["ok: SmolLM2-135M-Instruct"]
    return [
        "missing: SmolLM2-135M-Instruct (chapter 1 uses our own pair); get it with: minilab fetch smollm2"
    ]


def _extras() -> list[str]:
    """Each extra of the package, from the installed metadata: complete, or what it lacks."""
    wanted: dict[str, list[str]] = {}
    for name, extra in _requirements():
        if extra is not None:
            wanted.setdefault(extra, []).append(name)
    lines = []
    for extra, names in wanted.items():
        lacking = [name for name in names if _version(name) is None]
        state = f"missing: [{extra}] lacks {', '.join(lacking)}; " if lacking else f"ok: [{extra}]"
        lines.append(state + (f'get it with: pip install "minilab[{extra}]"' if lacking else ""))
    return lines


def _browser() -> list[str]:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found:
        return [f"ok: {found}"]
    return ["missing: Chromium, for the page tests only; on Debian or Ubuntu: apt-get install chromium"]


def _grading() -> list[str]:
    """Whether `minilab grade` can judge submissions behind walls."""
    try:
        from minilab.grading import jail
    except ImportError:  # Windows has none of what it is made of
        why = f"{platform.system()} has no namespaces"
    else:
        why = jail.possible()
    if not why:
        return ["ok: submissions are judged in Linux namespaces"]
    return [f"missing: walls for `minilab grade`: {why}; for instructors only: grade on a Linux machine of your own, "
            "or, in a container that holds nothing else, add --no-walls"]  # fmt: skip


def _requirements() -> Iterator[tuple[str, str | None]]:
    """The packages that the installed metadata asks for, each with the extra that it belongs to, if any."""
    for requirement in importlib.metadata.requires("minilab") or []:
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        yield re.match(r"[\w.-]+", requirement)[0], extra[1] if extra else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
