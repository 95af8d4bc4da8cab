"""What is installed, what is missing, and how to get it. Each function returns one section of the report."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from pathlib import Path

from minilab import __version__
from minilab.core.device import cache_dir, hardware, pick_device
from minilab.core.files import checkout_root, package_data
from minilab.core.records import records_dir
from minilab.core.weights import read_verified

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def report() -> tuple[str, bool]:
    """The whole report, and whether the core is sound (extras may be missing, assets may not be damaged)."""
    assets, sound = _assets()
    sections = {
        "versions": _versions(),
        "devices": _devices(),
        "threads": _threads(),
        "places": _places(),
        "assets": assets,
        "models": _models(),
        "extras": _extras(),
        "browser": _browser(),
    }
    blocks = [f"{title}\n" + "\n".join(f"  {line}" for line in lines) for title, lines in sections.items()]
    return "\n".join(blocks), sound


def _versions() -> list[str]:
    libraries = ("torch", "numpy", "matplotlib", "safetensors", "tokenizers", "ipywidgets", "mujoco", "gymnasium")
    found = ", ".join(f"{name} {_version(name) or 'missing'}" for name in libraries)
    return [f"minilab {__version__}, Python {platform.python_version()} ({sys.executable})", found]


def _devices() -> list[str]:
    facts = hardware()
    gpus = [f"{gpu['name']}, {gpu.get('memory_gib', '?')} GiB" for gpu in facts.get("gpus", [])]
    none = "no GPU that torch can use: the cpu presets are made for that"
    return [f"{facts['cpu']}, {facts['cores']} cores", *(gpus or [none]), f"auto picks {pick_device()}"]


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
    return [f"code {source}", f"records {records_dir()}", f"cache {cache_dir()} (MINILAB_CACHE moves it)"]


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
    for requirement in importlib.metadata.requires("minilab") or []:
        if extra := re.search(r"extra == ['\"]([\w-]+)['\"]", requirement):
            wanted.setdefault(extra[1], []).append(re.match(r"[\w.-]+", requirement)[0])
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


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
