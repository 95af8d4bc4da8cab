"""How the book's numbers came about: what each record says of its own run, as rows of a table.

Machines and sets of libraries repeat, so each gets a label (A, B, … and 1, 2, …) that the rows refer to. Labels
go by first use in time, over all records at once, so that tables of single chapters agree with each other.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from minilab.core.records import Record, list_records

COMMIT_DIGITS = 7


@dataclass(frozen=True)
class Run:
    """One record's provenance, each part as the text that a reader sees."""

    method: str  # the subpackage, such as "dmpc"
    command: str  # what to type to make the record again
    date: str  # UTC, year-month-day
    commit: str  # of the code, shortened; says so if the code had changes that were not committed
    machine: str  # a label of `Runs.machines`
    software: str  # a label of `Runs.software`
    seed: str
    took: str  # wall time


@dataclass(frozen=True)
class Runs:
    """All runs, and what their labels stand for."""

    rows: tuple[Run, ...]  # by method, then command
    machines: dict[str, str]  # label to processor, cores and accelerators
    software: dict[str, str]  # label to versions
    seconds: float  # wall time of all runs together
    first: str  # date of the oldest
    last: str  # date of the newest

    def of(self, method: str) -> tuple[Run, ...]:
        """The runs of one subpackage. Raises ValueError, with those that exist, if it has none."""
        found = tuple(run for run in self.rows if run.method == method)
        if not found:
            known = ", ".join(dict.fromkeys(run.method for run in self.rows))
            raise ValueError(f"there is no record of {method!r}; records exist of {known}")
        return found


def load_runs(root: Path | str | None = None) -> Runs:
    """What the records below `root` (default: where `minilab run` writes, and those shipped) say of their runs.

    Raises ValueError if there is no record, or if one is damaged or lacks a part of its provenance.
    """
    named = (name.rpartition(".") for name in list_records(root))  # "method/experiment.preset"
    return runs_of(Record.load(experiment, preset=preset, root=root) for experiment, _, preset in named)


def runs_of(records: Iterable[Record]) -> Runs:
    """The runs behind `records`. Raises ValueError without any, or for one without its provenance."""
    records = sorted(records, key=lambda r: (_when(r), r.name, r.preset))
    if not records:
        raise ValueError("there is no record to tell of; make one with `minilab run METHOD/EXPERIMENT`")
    machines: dict[str, str] = {}  # text to label, in the order of first use
    software: dict[str, str] = {}
    rows = []
    for record in records:
        facts = record.provenance
        machine = machines.setdefault(_machine(facts["hardware"]), _letters(len(machines)))
        versions = software.setdefault(_versions(facts["versions"]), str(len(software) + 1))
        rows.append(
            Run(record.method, facts["command"], _when(record).date().isoformat(), _commit(facts["commit"]),
                machine, versions, str(facts["seed"]), duration(facts["wall_s"]))
        )  # fmt: skip
    return Runs(
        rows=tuple(sorted(rows, key=lambda run: (run.method, run.command))),
        machines={label: text for text, label in machines.items()},
        software={label: text for text, label in software.items()},
        seconds=sum(record.provenance["wall_s"] for record in records),
        first=rows[0].date,
        last=rows[-1].date,
    )


def duration(seconds: float) -> str:
    """A time in a unit that keeps it short, as in "0.8 s", "48 s", "12 min" and "3.4 h"."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 99.5 else f"{minutes / 60:.1f} h"


def _when(record: Record) -> datetime.datetime:
    """When it was made. Raises ValueError if the record does not say all that a row tells."""
    needed = ("command", "commit", "date", "hardware", "seed", "versions", "wall_s")
    if lacking := [part for part in needed if part not in record.provenance]:
        raise ValueError(f"the record {record.name}.{record.preset} does not say its {', '.join(lacking)}")
    return datetime.datetime.fromisoformat(record.provenance["date"])


def _machine(hardware: dict) -> str:
    """Processor, cores, threads and accelerators as one phrase."""
    cores, threads = (_count(hardware[f"{kind}s"], kind.replace("_", " ")) for kind in ("core", "torch_thread"))
    text = f"{hardware['cpu']}, {cores}, {threads}; {hardware['system']}"
    for gpu in hardware.get("gpus", ()):
        memory = f", {gpu['memory_gib']:.0f} GiB" if "memory_gib" in gpu else ""
        text += f"; {gpu['name']}{memory}"
    return text


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def _versions(versions: dict[str, str]) -> str:
    first = ("python", "torch", "numpy")
    names = [*(n for n in first if n in versions), *sorted(versions.keys() - {*first})]
    return ", ".join(f"{'Python' if name == 'python' else name} {versions[name]}" for name in names)


def _commit(commit: str | None) -> str:
    if commit is None:
        return "unknown"
    digits, _, rest = commit.partition("-")
    return digits[:COMMIT_DIGITS] + (", with changes" if rest == "dirty" else "")


def _letters(n: int) -> str:
    """A, B, …, Z, AA, AB, …"""
    return (_letters(n // 26 - 1) if n >= 26 else "") + chr(ord("A") + n % 26)
