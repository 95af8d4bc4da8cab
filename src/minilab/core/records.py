"""A record is the evidence: the outcome of one named experiment, with what is needed to make it again.

One JSON file each, `records/<method>/<experiment>.<preset>.json`. Keys are sorted and floats rounded to six
significant digits, so that a new run shows up in a diff as the numbers that changed. The rounding happens
when a Record is made, not when it is saved: a figure of the live record equals a figure of the file.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilab.core.device import declared_commit, hardware
from minilab.core.files import checkout_root, package_data, replacing

SIGNIFICANT_DIGITS = 6


@dataclass
class Record:
    """The outcome of one experiment with one preset."""

    method: str  # the subpackage, such as "speculative"
    experiment: str  # the experiment's name within it, such as "speed"
    preset: str  # "cpu" or "gpu"
    config: dict  # every field of the preset
    results: dict  # what was found, as plain JSON values
    provenance: dict  # command, seed, versions, hardware, commit, date, wall_s

    def __post_init__(self) -> None:
        for part in (self.method, self.experiment, self.preset):
            if not re.fullmatch(r"[A-Za-z0-9_-]+", part):
                raise ValueError(f"{part!r} cannot name a record: use letters, digits, '-' and '_'")
        self.config = _plain(self.config, "config")
        self.results = _plain(self.results, "results")
        self.provenance = _plain(self.provenance, "provenance")

    @classmethod
    def new(cls, *, experiment: str, preset: Any, results: Mapping, started: float) -> Record:
        """The record of a run that ends now.

        `experiment` is "method/name", `preset` the frozen dataclass it ran with (with `name` and `seed`),
        `started` the value of `time.perf_counter()` when it began. Raises ValueError for a bad name and
        TypeError for a result that JSON cannot hold.
        """
        method, name = _split(experiment)
        provenance = {
            "command": f"{command_for(experiment, preset.name)} --seed {preset.seed}",
            "seed": preset.seed,
            "versions": _versions(),
            "hardware": hardware(),
            "commit": commit_of_code(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "wall_s": time.perf_counter() - started,
        }
        return cls(method, name, preset.name, config_of(preset), dict(results), provenance)

    @property
    def name(self) -> str:
        """The experiment's full name, "method/experiment"."""
        return f"{self.method}/{self.experiment}"

    def save(self, root: Path | str | None = None) -> Path:
        """Write the record below `root` (default: `records_dir()`) in one step; return its path."""
        path = _path(Path(root) if root else records_dir(), self.name, self.preset)
        fields = dataclasses.asdict(self)
        text = json.dumps(fields, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
        with replacing(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, experiment: str, *, preset: str = "cpu", root: Path | str | None = None) -> Record:
        """Read the record of "method/name".

        Without `root` it looks where `save` writes, then among the records shipped with the package. Raises
        FileNotFoundError with the command that makes a missing record, and ValueError for a damaged file.
        """
        roots = [Path(root)] if root else [records_dir(), package_data("records")]
        path = next((p for r in roots if (p := _path(r, experiment, preset)).is_file()), None)
        if path is None:
            found = ", ".join(list_records(root)) or "none yet"
            raise FileNotFoundError(
                f"no record of {experiment} with preset {preset!r}; "
                f"make it with: {command_for(experiment, preset)}\nRecords that exist: {found}"
            )
        return cls.read(path)

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read one file. Raises FileNotFoundError for none, and ValueError for a damaged one."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            experiment, _, preset = path.stem.partition(".")
            raise ValueError(
                f"{path} is not a whole record ({error}); restore it with `git checkout -- {path}` "
                f"or make it again with: {command_for(f'{path.parent.name}/{experiment}', preset)}"
            ) from error

    def compare(self, other: Record, rtol: float) -> list[str]:
        """The keys of config and results that differ between two records, sorted.

        Numbers may differ by `rtol` times the larger one; everything else must be equal. A key that only one
        of them has differs.
        """
        mine = dict(flatten({"config": self.config, "results": self.results}))
        theirs = dict(flatten({"config": other.config, "results": other.results}))
        absent = object()
        return sorted(
            key
            for key in mine.keys() | theirs.keys()
            if not close(mine.get(key, absent), theirs.get(key, absent), rtol=rtol)
        )


@dataclass(frozen=True)
class Experiment:
    """A named experiment: a function from preset to record, and the presets it offers."""

    run: Callable[[Any], Record]
    presets: dict[str, Any]  # "cpu" and "gpu", frozen dataclasses with at least name, seed and device
    dry_run: Callable[[Any], str] | None = None  # what a run with a preset would train, for those that keep their runs

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.run.__doc__ or "").strip().split("\n")[0]


def config_of(preset: Any) -> dict:
    """A preset as the `config` of its record: every field, as plain JSON values."""
    return _plain(_spelled(dataclasses.asdict(preset)), "config")


def _spelled(value: Any) -> Any:
    """What a preset holds, with functions and classes by their names: a record is numbers and words."""
    if isinstance(value, dict):
        return {key: _spelled(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(part) for part in value]
    if isinstance(value, functools.partial):
        options = ", ".join(f"{name}={option}" for name, option in value.keywords.items())
        return f"{_spelled(value.func)}({options})"
    return value.__qualname__ if callable(value) else value


def records_dir() -> Path:
    """Where new records go: the checkout's records/ if the package runs from one, else ./records."""
    return (checkout_root() or Path.cwd()) / "records"


def list_records(root: Path | str | None = None) -> list[str]:
    """The records below `root` (default: written and shipped ones) as "method/experiment.preset", sorted."""
    roots = [Path(root)] if root else [records_dir(), package_data("records")]
    found = {path.relative_to(r).with_suffix("") for r in roots for path in r.glob("*/[!.]*.json")}
    return sorted(path.as_posix() for path in found)


def command_for(experiment: str, preset: str) -> str:
    """The command line that makes a record."""
    return f"minilab run {experiment} --preset {preset}"


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk nested dicts and lists to their leaves, as in ("results.loss[3]", 0.5). An empty one is a leaf."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flatten(item, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            yield from flatten(item, f"{prefix}[{i}]")
    else:
        yield prefix, value


def close(a: Any, b: Any, *, rtol: float, atol: float = 0.0) -> bool:
    """True if two leaves of records are equal, numbers up to `atol` or to `rtol` times the larger one."""
    numbers = (int, float)
    if type(a) in numbers and type(b) in numbers:  # a bool is an int to isinstance, and not a number here
        return math.isclose(a, b, rel_tol=rtol, abs_tol=atol)
    return type(a) is type(b) and a == b


def _split(experiment: str) -> tuple[str, str]:
    method, slash, name = experiment.partition("/")
    if not (method and slash and name):
        raise ValueError(f"experiment is {experiment!r}; give method/name, such as speculative/speed")
    return method, name


def _path(root: Path, experiment: str, preset: str) -> Path:
    method, name = _split(experiment)
    return root / method / f"{name}.{preset}.json"


def _plain(value: Any, key: str) -> Any:
    """`value` as JSON holds it: text keys, lists, rounded floats; NaN and infinity become null."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{key}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{key}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "tolist"):  # numpy and torch, arrays and scalars
        return _plain(value.tolist(), key)
    raise TypeError(f"{key} is a {type(value).__name__}; a record holds numbers, text, lists and dicts")


def _versions() -> dict[str, str]:
    """Python, minilab, and those libraries with a say in the numbers that this run has loaded."""
    from minilab import __version__

    libraries = ("torch", "numpy", "tokenizers", "transformers", "mujoco", "gymnasium")
    loaded = {name: importlib.metadata.version(name) for name in libraries if name in sys.modules}
    return {"python": sys.version.split()[0], "minilab": __version__, **loaded}


def commit_of_code() -> str | None:
    """What `MINILAB_COMMIT` declares; else the checkout's commit, marked -dirty if src/ has changes."""
    if declared_commit():
        return declared_commit()
    root = checkout_root()
    if root and (root / ".git").exists():
        git = functools.partial(subprocess.check_output, cwd=root, text=True, stderr=subprocess.DEVNULL)
        try:
            changes = git(["git", "status", "--porcelain", "--", "src"])
            return git(["git", "rev-parse", "HEAD"]).strip() + ("-dirty" if changes else "")
        except (OSError, subprocess.CalledProcessError):
            pass  # no git program, or no commit yet
    return None
