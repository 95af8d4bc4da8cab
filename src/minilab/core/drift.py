"""Has a result drifted: a fresh record beside the one that is kept.

- Numbers may differ by a tolerance, everything else must be equal, and what one record has the other must have.
- What a record keeps cut to decimals may end in another last one: see `_roundings`.
- Times, rates and what is computed from them belong to a machine. They are told and not judged.
- A setting that only the fresh record has is told and not judged: presets gain fields, whose defaults do what was
  done before. A setting that has another value is drift: then the two are not of one experiment.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from minilab.core.records import Record, close, flatten, list_records

# A key is a time if one of its parts, between dots, is one of these.
TIMES = "|".join([
    r".*seconds", r".*_s", "per_s", "ns_each",  # times, rates
    r".*speedup.*", r"times_.*", "ratios", "share_of_rate", r".*_share", r".*_gib",  # of times, and memory
    r"(?:.*_)?over_ar|(?:s?sd|speculative)_over_.*", "cost", "slope",  # of times, in chapters 1 and 3
])  # fmt: skip


ONE_IN = 20  # of so many numbers of a list, one may be off by a unit of the last decimal


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()  # stands for a value that a record does not have (null is a value)


@dataclass(frozen=True)
class Tolerance:
    """How far numbers may lie apart: by `atol`, or by `rtol` times the larger one."""

    rtol: float = 1e-3
    atol: float = 1e-9
    times: str = ""  # a further expression for parts of keys that are times

    def __post_init__(self) -> None:
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value:g}; give a number from 0 upward")
        try:
            re.compile(self.times)
        except re.error as error:
            raise ValueError(f"{self.times!r} is no regular expression: {error}") from error

    def holds(self, kept: Any, fresh: Any) -> bool:
        """True if two leaves of records are as good as equal."""
        return close(kept, fresh, rtol=self.rtol, atol=self.atol)

    def is_time(self, key: str) -> bool:
        """True for keys such as "results.seconds.LeWM.median"."""
        return any(re.fullmatch(f"{TIMES}|{self.times or '(?!)'}", part) for part in _parts(key))


class Difference(NamedTuple):
    """One leaf that two records do not share; `kind` is "drift", "time" or "setting"."""

    kind: str
    key: str
    kept: Any
    fresh: Any


def differences(kept: Record, fresh: Record, tolerance: Tolerance = Tolerance()) -> list[Difference]:
    """What differs between two records of one experiment, in the order of the keys.

    Raises ValueError if they are records of two experiments, or of two presets.
    """
    names = [f"{record.name}.{record.preset}" for record in (kept, fresh)]
    if names[0] != names[1]:
        raise ValueError(f"these are records of two things, {names[0]} and {names[1]}: give two of the same")
    before, after = (dict(flatten({"config": r.config, "results": r.results})) for r in (kept, fresh))
    found = []
    for key in kept.compare(fresh, rtol=0.0):
        old, new = before.get(key, ABSENT), after.get(key, ABSENT)
        if key.startswith("config."):
            kind = "setting" if old is ABSENT else "drift"
        elif tolerance.holds(old, new):
            continue
        else:
            both = all(type(value) in (int, float) for value in (old, new))
            kind = "time" if both and tolerance.is_time(key) else "drift"
        found.append(Difference(kind, key, old, new))
    rounded = _roundings(found, before)
    return [difference for difference in found if difference.key not in rounded]


def table(found: Iterable[Difference], *, rows: int = 20) -> str:
    """What differs, for a terminal: a line for each key that drifted, one for the times, one for new settings.

    Entries of one list share a line, which shows the worst of them; `rows` lines at most.
    """
    kinds: dict[str, list[Difference]] = {"drift": [], "setting": [], "time": []}
    for difference in found:
        kinds[difference.kind].append(difference)
    groups: dict[str, list[Difference]] = {}
    for difference in kinds["drift"]:
        groups.setdefault(_list_of(difference.key), []).append(difference)
    shown = list(groups.items())[:rows]
    width = max((len(key) for key, _ in shown), default=0)
    lines = [f"  drift    {key:{width}}  {_worst(group)}" for key, group in shown]
    if len(groups) > rows:
        lines.append(f"  drift    and {len(groups) - rows} keys more")
    if kinds["setting"]:
        names = ", ".join(f"{d.key.removeprefix('config.')}={d.fresh}" for d in kinds["setting"])
        lines.append(f"  setting  new since then, not judged: {names}")
    if ratios := [d.fresh / d.kept for d in kinds["time"] if d.kept]:
        lines.append(
            f"  time     {len(ratios)} numbers, not judged: fresh / kept from {min(ratios):.3g} to {max(ratios):.3g}, "
            f"median {statistics.median(ratios):.3g}"
        )
    return "\n".join(lines)


def drifted(found: Iterable[Difference]) -> bool:
    """True if any difference is to be judged."""
    return any(difference.kind == "drift" for difference in found)


def pairs(kept: Path, fresh: Path) -> tuple[list[tuple[Record, Record]], list[str]]:
    """The records that two places share, and the names of those that only one has.

    A place is a record's file, or a folder of records as `minilab run --records` fills it. Raises ValueError if
    one is a file and the other is not, or if two folders share no record, and FileNotFoundError for no such place.
    """
    for place in (kept, fresh):
        if not place.exists():
            raise FileNotFoundError(f"there is no {place}; give two records, or two folders of records")
    if kept.is_file() != fresh.is_file():
        raise ValueError(f"one of {kept} and {fresh} is a file and the other a folder: give two of the same kind")
    if kept.is_file():
        return [(Record.read(kept), Record.read(fresh))], []
    names = [set(list_records(place)) for place in (kept, fresh)]
    both = sorted(names[0] & names[1])
    if not both:
        raise ValueError(f"{kept} and {fresh} share no record; a folder of records holds METHOD/EXPERIMENT.PRESET.json")
    files = [[place / f"{name}.json" for place in (kept, fresh)] for name in both]
    alone = [f"only in {place}: {name}" for place, own in ((kept, names[0]), (fresh, names[1]))
             for name in sorted(own - set(both))]  # fmt: skip
    return [(Record.read(old), Record.read(new)) for old, new in files], alone


def _roundings(found: Iterable[Difference], kept: Mapping[str, Any]) -> set[str]:
    """The keys of those differences that are only another rounding of a number between two decimals.

    Figures for a page are kept with few decimals, such as -0.010, and the last digit of a sum decides whether it is
    -0.011. So numbers of a list whose decimals all end at one place, the second or a later one, may be a unit of it
    apart: at most one in `ONE_IN`, since a shift of the whole list is drift.
    """
    lists: dict[str, list[float]] = {}
    for key, value in kept.items():
        if type(value) is float:
            lists.setdefault(_list_of(key), []).append(value)
    near: dict[str, list[str]] = {}
    for difference in found:
        name = _list_of(difference.key)
        if difference.kind == "drift" and type(difference.kept) is type(difference.fresh) is float:
            last = min(Decimal(repr(value)).as_tuple().exponent for value in lists[name])
            if last <= -2 and abs(difference.fresh - difference.kept) < 1.5 * 10.0**last:
                near.setdefault(name, []).append(difference.key)
    return {key for name, keys in near.items() if len(keys) * ONE_IN <= len(lists[name]) for key in keys}


def _list_of(key: str) -> str:
    return re.sub(r"\[\d+\]", "[*]", key)


def _parts(key: str) -> list[str]:
    return re.sub(r"\[\d+\]", "", key).split(".")[1:]


def _worst(group: list[Difference]) -> str:
    """The difference of a group that is worst: a value of another kind, else the largest relative change."""

    def size(difference: Difference) -> float:
        old, new = difference.kept, difference.fresh
        if type(old) not in (int, float) or type(new) not in (int, float):
            return math.inf
        return abs(new - old) / max(abs(old), abs(new))

    worst = max(group, key=size)
    change = f" ({100 * (worst.fresh - worst.kept) / abs(worst.kept):+.2g} %)" \
        if size(worst) < math.inf and worst.kept else ""
    many = f", the worst of {len(group)}" if len(group) > 1 else ""
    return f"{_text(worst.kept)} -> {_text(worst.fresh)}{change}{many}"


def _text(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
