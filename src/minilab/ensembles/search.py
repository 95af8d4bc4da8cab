"""Tune a recipe until no neighbor is better: a certificate that it is locally optimal.

Kim et al. (2025), section 3.2 and appendix: from a place, try the neighbors one step of the grid away along each axis,
go to the best, and stop where all were tried and none is better. At an end of the grid there is no neighbor on that
side, and the result says so. Notable:

- A certificate costs at least seven runs of three axes, and is for the grid, the seeds and the validation set at hand.
- With several seeds a place's loss is their mean: a difference that is smaller than seeds make is none.
- Runs are kept (`runs.py`), so a search can be stopped, looked at with `outlook`, and taken up again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from minilab.ensembles.recipes import Grid, Place, runs_at
from minilab.ensembles.runs import Outcome, Run, Task, carry_out, is_kept, outcome

AXES = ("epochs", "lr", "weight_decay")
CarryOut = Callable[[Sequence[Run]], list[Outcome]]


@dataclass(frozen=True)
class Found:
    """Where a search ended."""

    place: Place
    loss: float  # mean over seeds, nats a token
    certified: bool  # no neighbor is better; False where the search was cut short
    at_edge: tuple[str, ...]  # axes on which the place is an end of the grid, and nothing was tried beyond
    tried: dict[Place, float]


def neighbors(place: Place, grid: Grid) -> list[Place]:
    """The places one step of the grid away on one axis. Raises ValueError for a place off the grid."""
    found = []
    for axis in AXES:
        values = getattr(grid, axis)
        if getattr(place, axis) not in values:
            raise ValueError(f"{axis} of {place} is not on the grid {values}: begin on the grid")
        i = values.index(getattr(place, axis))
        found += [replace(place, **{axis: values[j]}) for j in (i - 1, i + 1) if 0 <= j < len(values)]
    return found


def search(task: Task, start: Place, grid: Grid, *, seeds: Sequence[int] = (0,), most: int = 20,
           carry: CarryOut = carry_out) -> Found:
    """Coordinate descent from `start`, in at most `most` moves. `carry` trains runs, or reads them.

    A place where a seed diverged loses to every other. Raises ValueError if all that was tried diverged.
    """
    tried: dict[Place, float] = {}
    here, certified = start, False
    for _ in range(most):
        around = [place for place in (here, *neighbors(here, grid)) if place not in tried]
        runs = {place: runs_at(task, place, seeds) for place in around}
        carry([run for group in runs.values() for run in group])  # all at once: they can share programs
        for place, group in runs.items():
            losses = [found.valid for found in carry(group)]
            tried[place] = sum(losses) / len(losses)
        best = min((place for place in (here, *neighbors(here, grid))), key=lambda place: _rank(tried[place]))
        if _rank(tried[best]) >= _rank(tried[here]):
            certified = True
            break
        here = best
    if math.isnan(tried[here]):
        raise ValueError(f"all {len(tried)} places around {start} diverged: begin with a lower learning rate")
    edge = tuple(axis for axis in AXES if len(values := getattr(grid, axis)) > 1
                 and getattr(here, axis) in (values[0], values[-1]))
    return Found(here, tried[here], certified, edge, tried)


class Outlook(NamedTuple):
    """A search as far as kept outcomes lead it."""

    runs: list[Run]  # that it asks for, up to the first move with one that is missing
    found: Found | None  # where it ends, if none is missing


class _Missing(Exception):
    """A run that a search asks for is not there."""


def outlook(task: Task, start: Place, grid: Grid, *, seeds: Sequence[int] = (0,), folder: Path | None = None
            ) -> Outlook:
    """Walk a search without training: for `runs.dry_run`. Raises what `search` raises."""
    asked: dict[Run, None] = {}

    def look(runs: Sequence[Run]) -> list[Outcome]:
        asked.update(dict.fromkeys(runs))
        if not all(is_kept(run, folder=folder) for run in runs):
            raise _Missing
        return [outcome(run, folder=folder) for run in runs]

    try:
        found = search(task, start, grid, seeds=seeds, carry=look)
    except _Missing:
        found = None
    return Outlook(list(asked), found)


def _rank(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
