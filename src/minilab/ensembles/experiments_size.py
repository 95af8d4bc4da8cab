"""One model at a time: epochs, weight decay, size; and the law over sizes when each is tuned."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

from minilab.core.device import pick_device, with_threads
from minilab.core.parallel import parallel_map
from minilab.core.records import Record
from minilab.ensembles.recipes import Grid, Place, runs_at, standard
from minilab.ensembles.runs import Run, Stage, dry_run, parameters
from minilab.ensembles.scaling import Fit, bootstrap, fit_power_law, percentiles, profile_interval
from minilab.ensembles.search import outlook, search
from minilab.ensembles.study import CARD, LAPTOP, LOWER, QUICK, Study, best, runs_of, told


@dataclass(frozen=True)
class EpochsPreset:
    name: str
    study: Study
    size: int  # which of the study's
    epochs: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    lr: tuple[float, ...] = (3e-3, 1e-2)  # the better of these at each number of epochs
    decays: tuple[float, ...] = (0.1, 1.6)
    seeds: tuple[int, ...] = (0,)
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


EPOCHS = {
    "cpu": EpochsPreset("cpu", QUICK, 0, epochs=(1, 2), lr=(1e-2,), device="cpu"),
    "two-cores": EpochsPreset("two-cores", LAPTOP, 2, device="cpu"),
    "gpu": EpochsPreset("gpu", CARD, 2, lr=(1e-3, 3e-3), seeds=(0, 1, 2), device="cuda"),
}


@with_threads
def epochs(preset: EpochsPreset) -> Record:
    """Validation and training loss against epochs, with the usual weight decay and with a heavy one."""
    started, device = time.perf_counter(), str(pick_device(preset.device))
    task, rows = preset.study.task(preset.size), {}
    preset.study.carry(epochs_runs(preset), device)  # all at once: they can share programs
    for (decay, n), some in _epochs_places(preset).items():
        outcomes = preset.study.carry(runs_of(task, some, preset.seeds), device)
        rows.setdefault(f"{decay:g}", {})[str(n)] = best(task, some, preset.seeds, outcomes)
    return Record.new(experiment="ensembles/epochs", preset=preset, started=started, results={
        "parameters": parameters(task.model), "tokens": task.data.tokens, "steps_an_epoch": task.steps, "rows": rows})


def _epochs_places(preset: EpochsPreset) -> dict[tuple[float, int], list[Place]]:
    """For each decay and number of epochs, those of which the best is shown."""
    return {(decay, n): [Place(n, lr, decay) for lr in preset.lr] for decay in preset.decays for n in preset.epochs}


def epochs_runs(preset: EpochsPreset) -> list[Run]:
    task = preset.study.task(preset.size)
    return [run for some in _epochs_places(preset).values() for run in runs_of(task, some, preset.seeds)]


@dataclass(frozen=True)
class DecayPreset:
    name: str
    study: Study
    decays: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
    seeds: tuple[int, ...] = (0, 1, 2)
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


DECAY = {
    "cpu": DecayPreset("cpu", QUICK, decays=(0.1, 0.4, 1.6), seeds=(0,), device="cpu"),
    "two-cores": DecayPreset("two-cores", LAPTOP, seeds=(0,), device="cpu"),
    "gpu": DecayPreset("gpu", CARD, device="cuda"),
}


@with_threads
def decay(preset: DecayPreset) -> Record:
    """Validation loss against weight decay at each size, with epochs and learning rate held: where it is least."""
    started, device = time.perf_counter(), str(pick_device(preset.device))
    rows, study = {}, preset.study
    study.carry(decay_runs(preset), device)  # all at once: they can share programs
    for i, name in enumerate(study.names):
        task, places, n = study.task(i), _decay_places(preset, i), len(preset.seeds)
        outcomes = study.carry(runs_of(task, places, preset.seeds), device)
        rows[name] = {f"{place.weight_decay:g}": told(task, place, outcomes[k * n : (k + 1) * n])
                      for k, place in enumerate(places)}
    return Record.new(experiment="ensembles/decay", preset=preset, started=started, results={
        "tokens": study.data.tokens, "parameters": [parameters(model) for model in study.models], "rows": rows})


def _decay_places(preset: DecayPreset, size: int) -> list[Place]:
    return [replace(preset.study.regularized[size], weight_decay=decay) for decay in preset.decays]


def decay_runs(preset: DecayPreset) -> list[Run]:
    return [run for i in range(len(preset.study.models))
            for run in runs_of(preset.study.task(i), _decay_places(preset, i), preset.seeds)]


@dataclass(frozen=True)
class SizesPreset:
    name: str
    study: Study
    recipes: tuple[str, ...] = ("standard", "regularized")
    draws: int = 1000  # of the bootstrap
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


SIZES = {
    "cpu": SizesPreset("cpu", QUICK, draws=50, device="cpu"),
    "two-cores": SizesPreset("two-cores", LAPTOP, device="cpu"),
    "gpu": SizesPreset("gpu", CARD, device="cuda"),
    "gpu-lower": SizesPreset("gpu-lower", LOWER, ("standard",), device="cuda"),
}


@with_threads
def sizes(preset: SizesPreset) -> Record:
    """Both recipes tuned at each size until no neighbor is better, and the law over sizes with its asymptote."""
    started, device = time.perf_counter(), str(pick_device(preset.device))
    study, N = preset.study, [parameters(model) for model in preset.study.models]
    recipes = {recipe: {"sizes": dict(zip(study.names, rows, strict=True)),
                        "law": law(N, [row["losses"] for row in rows], draws=preset.draws, seed=preset.seed)}
               for recipe, rows in searched([study], preset.recipes, device)[0].items()}
    return Record.new(experiment="ensembles/sizes", preset=preset, started=started, results={
        "tokens": study.data.tokens, "parameters": N, "recipes": recipes})


def searched(studies: Sequence[Study], recipes: Sequence[str], device: str) -> list[dict[str, list[dict]]]:
    """For each study and recipe where the search ends at each size, the searches side by side; all study alike."""
    jobs = [_Search(study, size, recipe, device)
            for study in studies for recipe in recipes for size in range(len(study.models))]
    longest = sorted(range(len(jobs)), key=lambda j: -jobs[j].flops)  # first, or it would end alone
    done = parallel_map(_tuned, [jobs[j] for j in longest], workers=studies[0].workers, engine=studies[0].engine)
    rows = dict(zip(longest, done, strict=True))
    ordered = iter(rows[j] for j in range(len(jobs)))
    return [{recipe: [next(ordered) for _ in study.models] for recipe in recipes} for study in studies]


class _Search(NamedTuple):
    study: Study
    size: int
    recipe: str
    device: str

    @property
    def flops(self) -> float:
        """Of its first run: a measure of how long it takes."""
        return runs_at(self.study.task(self.size), _begun(self.study, self.size, self.recipe)[0], (0,))[0].flops


def _tuned(job: _Search) -> dict:
    """Where the search of a recipe ends at one size, and what several seeds come to there."""
    # A task of Ray that waits for other tasks holds its core, and with all cores held none would begin.
    study, task = replace(job.study, workers=1, engine="processes"), job.study.task(job.size)
    start, grid = _begun(job.study, job.size, job.recipe)
    found = search(task, start, grid, seeds=study.seeds[:1], carry=lambda runs: study.carry(runs, job.device))
    outcomes = study.carry(runs_at(task, found.place, study.seeds), job.device)
    return told(task, found.place, outcomes) | {"certified": found.certified, "at_edge": list(found.at_edge),
                                               "tried": [asdict(place) | {"loss": None if math.isnan(loss) else loss}
                                                         for place, loss in found.tried.items()]}


def _begun(study: Study, size: int, recipe: str) -> tuple[Place, Grid]:
    """Where a recipe's search begins, and over what."""
    if recipe == "standard":
        return study.standard[size], standard(study.grid)
    return study.regularized[size], study.grid


class Ahead(NamedTuple):
    """What `searched` trains, as far as kept outcomes tell."""

    runs: list[Run]
    ends: list[dict[str, list[Place | None]]]  # as `searched` gives them; None where a search has not ended

    def then(self, after: str) -> str:
        """A line for `dry_run`: how many searches have not ended, and what comes `after` them."""
        ends = [end for recipes in self.ends for row in recipes.values() for end in row]
        if None not in ends:
            return ""
        return (f"{ends.count(None)} of {len(ends)} searches have not ended: their further moves, and {after} where "
                "they end, depend on these outcomes")


def searched_ahead(studies: Sequence[Study], recipes: Sequence[str]) -> Ahead:
    """Walk each search through what is kept, and on to its seeds or to the first move with a run that is missing."""
    runs: list[Run] = []

    def end(study: Study, size: int, recipe: str) -> Place | None:
        task = study.task(size)
        asked, found = outlook(task, *_begun(study, size, recipe), seeds=study.seeds[:1])
        runs.extend(asked + (runs_at(task, found.place, study.seeds) if found else []))
        return found.place if found else None

    ends = [{recipe: [end(study, size, recipe) for size in range(len(study.models))] for recipe in recipes}
            for study in studies]
    return Ahead(runs, ends)


def sizes_ahead(preset: SizesPreset) -> str:
    """The dry run of `sizes`."""
    ahead = searched_ahead([preset.study], preset.recipes)
    return dry_run([Stage(ahead.runs)], then=ahead.then("the other seeds"))


def law(x: list[float], losses: list[list[float]], *, draws: int, seed: int) -> dict:
    """A / x^alpha + E through the means of several seeds, with intervals by profile and by bootstrap over seeds."""
    means, generator = [sum(row) / len(row) for row in losses], np.random.default_rng(seed)
    free, reciprocal = fit_power_law(x, means), fit_power_law(x, means, alpha=1.0)
    found = {"free": of_fit(free), "alpha = 1": of_fit(reciprocal)}
    if min(map(len, losses)) > 1:
        laws = bootstrap(x, losses, generator, draws=draws)
        interval = percentiles(laws.E)
        found["free"]["over seeds"] = [interval.low, interval.high]
    return found


def of_fit(fit: Fit) -> dict:
    """A fit as a record holds it; its profile interval if there are points to spare."""
    found = {"A": fit.law.A, "alpha": fit.law.alpha, "E": fit.law.E, "exponent": fit.exponent,
             "residuals": fit.residuals.tolist()}
    if fit.spare > 0:
        interval = profile_interval(fit)
        found["profile"] = [interval.low, interval.high]
        found["open"] = [interval.open_low, interval.open_high]
    return found
