"""The command line: minilab list | run | show | doctor | fetch | assign | grade.

It adds nothing to the functions behind it but progress, saved records and plain messages: `minilab run
ensembles/asymptotes --preset gpu` equals `experiments.asymptotes(GPU)`. Exit codes: 0 done, 1 failed,
2 called wrongly, 130 interrupted.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import importlib.util
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from minilab import __version__

METHODS = ("speculative", "dmpc", "lewm", "pacbayes", "ensembles")


class WrongCall(Exception):
    """The command line names something that does not exist; the message lists what does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments) or 0
    except KeyboardInterrupt:
        print("\nminilab: interrupted; what was saved before is whole", file=sys.stderr)
        return 130
    except WrongCall as error:
        print(f"minilab: {error}", file=sys.stderr)
        return 2
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if arguments.traceback:
            raise
        print(f"minilab: {error}\n(`minilab --traceback ...` shows where)", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minilab", description="Run the experiments of the book and look at records."
    )
    parser.add_argument("--version", action="version", version=f"minilab {__version__}")
    parser.add_argument("--traceback", action="store_true", help="on an error, show the whole traceback")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, function: Any, summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(command=function)
        return command

    add("list", _list, "List the experiments, their presets, and which records exist.")

    run = add("run", _run, "Run an experiment and save its record.")
    run.add_argument("experiment", metavar="METHOD/EXPERIMENT")
    run.add_argument("--preset", default="cpu", help="cpu (the default) or gpu")
    run.add_argument("--device", help="auto, cpu, mps, cuda or cuda:N, instead of the preset's")
    run.add_argument("--seed", type=int, help="a seed instead of the preset's")
    run.add_argument(
        "--pair",
        metavar="TARGET+DRAFT",
        help="models instead of the preset's: two Hugging Face names or folders, or shipped, or smollm2",
    )
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="any other field of the preset, such as prompts=8; may be repeated",
    )
    run.add_argument("--records", type=Path, metavar="DIR", help="where to save, instead of records/")
    run.add_argument("--dry-run", action="store_true", help="only say which trainings are missing and what they cost")

    show = add("show", _show, "Print a record: its results and where they come from.")
    show.add_argument("experiment", metavar="METHOD/EXPERIMENT")
    show.add_argument("--preset", default="cpu", help="cpu (the default) or gpu")
    show.add_argument("--records", type=Path, metavar="DIR", help="where to look, instead of records/")

    add("doctor", _doctor, "Report versions, devices, what is missing and how to get it.")

    fetch = add("fetch", _fetch, "Download a pre-trained model into the cache and verify it.")
    fetch.add_argument("model", choices=["smollm2"])

    assign = add("assign", _assign, "Make the student version and the autograder of instructor notebooks.")
    assign.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    assign.add_argument(
        "-o", "--out", type=Path, default=Path("build/labs"), metavar="DIR", help="default: build/labs"
    )

    grade = add("grade", _grade, "Grade a folder of submissions into a table and a page of feedback each.")
    grade.add_argument("submissions", type=Path)
    grade.add_argument(
        "--autograder", type=Path, required=True, metavar="ZIP", help="made by `minilab assign`"
    )
    grade.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    grade.add_argument("--jobs", type=int, default=1, metavar="N", help="submissions at a time (default 1)")
    grade.add_argument(
        "--timeout", type=float, default=600, metavar="S", help="seconds for one (default 600)"
    )
    return parser


def _list(_: argparse.Namespace) -> None:
    from minilab.core.records import list_records

    recorded = set(list_records())
    for name, experiment in _experiments().items():
        presets = ", ".join(p + ("*" if f"{name}.{p}" in recorded else "") for p in experiment.presets)
        print(f"{name:32} {presets:12} {experiment.summary}")
    print("* has a record: minilab show METHOD/EXPERIMENT --preset PRESET")


def _run(arguments: argparse.Namespace) -> None:
    from minilab.core.device import pick_device

    experiment, preset = _find(arguments.experiment, arguments.preset)
    given = {"device": arguments.device, "seed": arguments.seed}
    given = {k: v for k, v in given.items() if v is not None}
    changes = _changes(preset, arguments.pair, arguments.set)
    if changes and arguments.records is None and not arguments.dry_run:
        raise WrongCall(
            f"with another {', '.join(changes)} the outcome is not the book's; say where its record goes: "
            "--records DIR"
        )
    preset = dataclasses.replace(preset, **given, **changes)
    if arguments.dry_run:
        if experiment.dry_run is None:
            raise WrongCall(f"{arguments.experiment} does not keep its trainings, so a dry run has nothing to say")
        print(experiment.dry_run(preset))
        return
    try:
        device = pick_device(preset.device)
    except ValueError as error:
        raise WrongCall(error) from error
    print(f"{arguments.experiment}, preset {preset.name}, seed {preset.seed}, on {device}", flush=True)
    for name, value in changes.items():
        print(f"  with {name} {value}", flush=True)
    if preset.name != "cpu" and experiment.presets[preset.name].device != "cpu" and device.type == "cpu":
        print("this preset is for a GPU and may take hours on a CPU (--preset cpu takes minutes)", flush=True)
    started = time.perf_counter()
    record = experiment.run(preset)
    for name, value in changes.items():
        record.provenance["command"] += f" --set {shlex.quote(f'{name}={value}')}"
    path = record.save(arguments.records)
    print(_table(record.results))
    print(f"saved {path} after {time.perf_counter() - started:.0f} s")


def _changes(preset: Any, pair: str | None, settings: Sequence[str]) -> dict[str, Any]:
    """What `--pair` and `--set` change in a preset. Raises WrongCall for an unknown field or a wrong value."""
    texts = dict(text.partition("=")[::2] for text in settings)
    texts |= {} if pair is None else {"pair": pair}
    fields = [f.name for f in dataclasses.fields(preset) if f.name not in ("name", "device", "seed")]
    changes = {}
    for name, text in texts.items():
        if name not in fields:
            raise WrongCall(f"preset {preset.name!r} has no field {name!r} to set; it has {', '.join(fields)}")
        if (value := _value(text, getattr(preset, name))) != getattr(preset, name):
            changes[name] = value
    return changes


def _value(text: str, present: Any) -> Any:
    """What `text` says, in the type of the field's present value. Raises WrongCall if it cannot be."""
    try:
        value = text if isinstance(present, str) else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(present, tuple):
        values = value if isinstance(value, tuple) else (value,)
        return tuple(_value(str(v), present[0]) for v in values) if present else values
    if isinstance(present, float) and type(value) is int:
        value = float(value)
    if present is not None and type(value) is not type(present):
        raise WrongCall(f"{text!r} cannot stand for {present!r}: give a value of the same type")
    return value


def _show(arguments: argparse.Namespace) -> None:
    from minilab.core.records import Record

    record = Record.load(arguments.experiment, preset=arguments.preset, root=arguments.records)
    for title, part in (
        ("results", record.results),
        ("config", record.config),
        ("provenance", record.provenance),
    ):
        print(f"{title}\n{_table(part)}")


def _doctor(_: argparse.Namespace) -> int:
    from minilab.doctor import report

    text, sound = report()
    print(text)
    return 0 if sound else 1


def _fetch(_: argparse.Namespace) -> None:
    from minilab.speculative import smollm

    print(f"SmolLM2-135M-Instruct is in {smollm.fetch()}")


def _assign(arguments: argparse.Namespace) -> None:
    from minilab import grading

    for notebook in arguments.notebooks:
        print(grading.assign(notebook, arguments.out))


def _grade(arguments: argparse.Namespace) -> None:
    from minilab import grading

    options = {"jobs": arguments.jobs, "timeout": arguments.timeout}
    print(grading.grade(arguments.submissions, arguments.autograder, arguments.out, **options))


def _experiments(methods: Sequence[str] | None = None) -> dict[str, Any]:
    """Every experiment of `methods` as "method/name"; a method whose subpackage does not exist has none."""
    found = {}
    for method in METHODS if methods is None else methods:
        if importlib.util.find_spec(f"minilab.{method}") is not None:
            module = importlib.import_module(f"minilab.{method}.experiments")
            found |= {f"{method}/{name}": experiment for name, experiment in module.EXPERIMENTS.items()}
    return found


def _find(name: str, preset: str) -> tuple[Any, Any]:
    """The experiment and its preset. Raises WrongCall with the valid names."""
    method = name.partition("/")[0]
    experiment = _experiments([method] if method in METHODS else []).get(name)
    if experiment is None:
        there = "\n".join(f"  {known}" for known in _experiments()) or "  none"
        raise WrongCall(f"unknown experiment {name!r}; there are:\n{there}")
    if preset not in experiment.presets:
        raise WrongCall(f"unknown preset {preset!r} of {name}; there are: {', '.join(experiment.presets)}")
    return experiment, experiment.presets[preset]


def _table(part: dict) -> str:
    rows = list(_rows(part))
    width = max((len(key) for key, _ in rows), default=0)
    return "\n".join(f"  {key:{width}}  {text}" for key, text in rows)


def _rows(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """A line for each leaf, and for each entry of a table; a longer list of values is told by its range."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _rows(item, f"{key}.{name}" if key else name)
        return
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        for i, entry in enumerate(value):
            yield f"{key}.{i}", ", ".join(f"{name} {text}" for name, text in _rows(entry))
        return
    numbers = isinstance(value, list) and all(type(v) in (int, float) for v in value)
    if isinstance(value, list) and len(value) > 6:
        yield key, f"{len(value)} values" + (f" from {min(value):g} to {max(value):g}" if numbers else "")
    elif numbers:
        yield key, ", ".join(f"{v:g}" for v in value)
    else:
        yield key, str(value)


if __name__ == "__main__":
    sys.exit(main())
