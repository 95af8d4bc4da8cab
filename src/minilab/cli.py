"""The command line: minilab list | run | show | diff | doctor | fetch | assign | grade | new-chapter.

It adds nothing to the functions behind it but progress, saved records and plain messages: `minilab run
ensembles/asymptotes --preset gpu` equals `experiments.asymptotes(GPU)`. Exit codes: 0 done, 1 failed,
2 called wrongly, 3 done but results have drifted, 130 interrupted.
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
from typing import Any

from minilab.cli_parser import build

METHODS = ("speculative", "dmpc", "lewm", "pacbayes", "ensembles")
DRIFTED = 3  # the exit code that says so


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
    return build({
        "list": _list, "run": _run, "show": _show, "diff": _diff, "doctor": _doctor, "fetch": _fetch,
        "assign": _assign, "grade": _grade, "new-chapter": _new_chapter,
    })  # fmt: skip


def _list(_: argparse.Namespace) -> None:
    from minilab.core.records import list_records

    recorded = set(list_records())
    for name, experiment in _experiments().items():
        presets = ", ".join(p + ("*" if f"{name}.{p}" in recorded else "") for p in experiment.presets)
        print(f"{name:32} {presets:12} {experiment.summary}")
    print("* has a record: minilab show METHOD/EXPERIMENT --preset PRESET")


def _run(arguments: argparse.Namespace) -> int:
    from minilab.core.device import pick_device
    from minilab.core.records import Record
    from minilab.run_all import FRESH

    if arguments.all:
        return _run_all(arguments)
    if arguments.experiment is None or arguments.again or arguments.assets:
        raise WrongCall("give METHOD/EXPERIMENT (`minilab list` names them), or --all; --again, --assets go with --all")
    experiment, preset = _find(arguments.experiment, arguments.preset)
    tolerance, kept = _tolerance(arguments), None
    if arguments.compare and not arguments.dry_run:
        kept = Record.load(arguments.experiment, preset=arguments.preset)  # before anything takes its place
        arguments.records = arguments.records or FRESH
    given = _given(arguments)
    changes = _changes(preset, arguments.pair, arguments.set)
    if changes and arguments.records is None and not arguments.dry_run:
        raise WrongCall(
            f"with another {', '.join(changes)} the outcome is not the book's; say where its record goes: "
            "--records DIR"
        )
    preset = _replaced(preset, given | changes)
    if arguments.dry_run:
        if experiment.dry_run is None:
            able = ", ".join(name for name, other in _experiments().items() if other.dry_run) or "none"
            raise WrongCall(f"{arguments.experiment} has no dry run; these keep each training and have one: {able}")
        print(experiment.dry_run(preset))
        return 0
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
    return _compare([(kept, record)], tolerance) if kept else 0


def _run_all(arguments: argparse.Namespace) -> int:
    from minilab import run_all
    from minilab.core.records import Record, list_records, records_dir

    if arguments.experiment or arguments.pair or arguments.set or arguments.dry_run:
        raise WrongCall("--all takes each experiment as it is: without METHOD/EXPERIMENT, --pair, --set, --dry-run")
    tolerance, experiments = _tolerance(arguments), _experiments()
    out, recorded = arguments.records or run_all.FRESH, list_records() if arguments.compare else None
    if arguments.compare and out.resolve() == records_dir().resolve():
        raise WrongCall(f"--compare needs the kept records, and --records {out} would replace them; take another DIR")
    try:
        names, left = run_all.plan(experiments, arguments.preset, recorded=recorded, assets=arguments.assets)
    except ValueError as error:
        raise WrongCall(error) from error
    given = _given(arguments)
    presets = {name: dataclasses.replace(experiments[name].presets[arguments.preset], **given) for name in names}
    options = [word for field, value in given.items() for word in (f"--{field}", str(value))]
    outcomes = run_all.run_all(presets, out=out, again=arguments.again, options=options)
    for why in dict.fromkeys(outcome.why for outcome in left):
        print(f"left out, {why}: {', '.join(o.name for o in left if o.why == why)}")
    print(f"{run_all.summary([*outcomes, *left])}; the records are in {out}")
    code = 1 if any(outcome.state == "failed" for outcome in outcomes) else 0
    if arguments.compare:
        made = [{"experiment": o.name, "preset": arguments.preset} for o in outcomes if o.state != "failed"]
        code = code or _compare([(Record.load(**name), Record.load(**name, root=out)) for name in made], tolerance)
    return code


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields that a run has in place of the preset's."""
    given = {"device": arguments.device, "seed": arguments.seed}
    return {name: value for name, value in given.items() if value is not None}


def _diff(arguments: argparse.Namespace) -> int:
    from minilab.core.drift import pairs

    shared, alone = pairs(arguments.kept, arguments.fresh)
    code = _compare(shared, _tolerance(arguments))
    print("\n".join(alone), end="\n" if alone else "")
    return code


def _tolerance(arguments: argparse.Namespace) -> Any:
    from minilab.core.drift import Tolerance

    try:
        return Tolerance(rtol=arguments.rtol, atol=arguments.atol, times=arguments.times)
    except ValueError as error:
        raise WrongCall(error) from error


def _compare(records: Sequence[tuple[Any, Any]], tolerance: Any) -> int:
    """Print how each pair of a kept and a fresh record differs; the exit code says whether any drifted."""
    from minilab.core.drift import differences, drifted, table

    count = 0
    for kept, fresh in records:
        found = differences(kept, fresh, tolerance)
        count += drifted(found)
        print(f"{'DRIFTED' if drifted(found) else 'same   '}  {kept.name}.{kept.preset}")
        print(table(found), end="\n" if found else "")
    print(f"{count} of {len(records)} records drifted (rtol {tolerance.rtol:g}, atol {tolerance.atol:g})")
    return DRIFTED if count else 0


def _changes(preset: Any, pair: str | None, settings: Sequence[str]) -> dict[str, Any]:
    """What `--pair` and `--set` change in a preset. Raises WrongCall for an unknown field or a wrong value."""
    texts = dict(text.partition("=")[::2] for text in settings)
    texts |= {} if pair is None else {"pair": pair}
    changes = {}
    for name, text in texts.items():
        present = _present(preset, name)
        if (value := _value(text, present)) != present:
            changes[name] = value
    return changes


def _present(preset: Any, name: str) -> Any:
    """The value of a field, or of a field's field as "study.workers". Raises WrongCall with the valid names."""
    part, before = preset, ""
    for word in name.split("."):
        fields = [f.name for f in dataclasses.fields(part)] if dataclasses.is_dataclass(part) else []
        allowed = [before + f for f in fields if before or f not in ("name", "device", "seed")]
        if before + word not in allowed:
            there = ", ".join(allowed) or f"nothing in {before[:-1]}"
            raise WrongCall(f"preset {preset.name!r} has no field {name!r} to set; it has {there}")
        part, before = getattr(part, word), f"{before}{word}."
    return part


def _replaced(preset: Any, values: dict[str, Any]) -> Any:
    """The preset with other values in its fields, or in its fields' fields."""
    for name, value in values.items():
        first, _, rest = name.partition(".")
        part = _replaced(getattr(preset, first), {rest: value}) if rest else value
        preset = dataclasses.replace(preset, **{first: part})
    return preset


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

    options = {"jobs": arguments.jobs, "timeout": arguments.timeout, **({"walls": False} if arguments.no_walls else {})}
    print(grading.grade(arguments.submissions, arguments.autograder, arguments.out, **options))


def _new_chapter(arguments: argparse.Namespace) -> None:
    from minilab.new_chapter import make

    try:
        print(make(arguments.name, title=arguments.title, root=arguments.root))
    except ValueError as error:
        raise WrongCall(error) from error


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
