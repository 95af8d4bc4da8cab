"""How much data a recipe is worth: the same recipes at several token counts, and what the standard one would need."""

import time
from dataclasses import dataclass, replace

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.ensembles.experiments_members import joined, joined_runs
from minilab.ensembles.experiments_size import of_fit, searched, searched_ahead
from minilab.ensembles.limits import data_efficiency, nested_limit
from minilab.ensembles.recipes import Grid, Place
from minilab.ensembles.runs import Stage, dry_run, parameters
from minilab.ensembles.scaling import PowerLaw, fit_power_law
from minilab.ensembles.study import LAPTOP, LOWER, QUICK, Study, place_of


@dataclass(frozen=True)
class DataPreset:
    name: str
    study: Study  # its places are for its own number of tokens
    tokens: tuple[int, ...]
    K: int = 4
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


def smaller(study: Study, sizes: int, *, seeds: int = 1) -> Study:
    """The first so many sizes of a study, with so many seeds where a search ends."""
    return replace(study, models=study.models[:sizes], standard=study.standard[:sizes],
                   regularized=study.regularized[:sizes], seeds=study.seeds[:seeds])


DATA = {
    "cpu": DataPreset("cpu", smaller(QUICK, 2), (512, 1024, 2048), K=3, device="cpu"),
    "two-cores": DataPreset("two-cores", smaller(LAPTOP, 3, seeds=3), (8192, 16_384, 32_768, 65_536), device="cpu"),
    "gpu": DataPreset("gpu", smaller(LOWER, 3, seeds=3), (2**18, 2**19, 2**20, 2**21), device="cuda"),
}
RECIPES = ("standard", "regularized", "joint")


@with_threads
def data(preset: DataPreset) -> Record:
    """Three recipes at several token counts: their losses, their laws over data, and how much data they save."""
    started, device = time.perf_counter(), str(pick_device(preset.device))
    N, rows = [parameters(model) for model in preset.study.models], {}
    studies = [moved(preset.study, tokens) for tokens in preset.tokens]
    found = searched(studies, ("standard", "regularized"), device)
    singles = [[place_of(row) for row in recipes["regularized"]] for recipes in found]
    trainings = [run for study, places in zip(studies, singles, strict=True)
                 for run in joined_runs(study, places, preset.K)]
    preset.study.carry(trainings, device, keep=True)  # all at once: they go side by side
    for tokens, study, recipes, places in zip(preset.tokens, studies, found, singles, strict=True):
        usual, heavy = recipes["standard"], recipes["regularized"]
        curves, _ = joined(study, places, preset.K, device, least=3)  # 1/K, also without one member
        size_law = fit_power_law(N, [row["loss"] for row in heavy], alpha=1.0)
        nested = nested_limit(N, [c.mean for c in curves], member_alpha=1.0, size_alpha=1.0,
                              left_out=[c.left_out for c in curves])
        rows[str(tokens)] = {
            "standard": {"loss": min(row["loss"] for row in usual),
                         "sizes": dict(zip(study.names, usual, strict=True))},
            "regularized": {"loss": size_law.law.E, "best": min(row["loss"] for row in heavy), "law": of_fit(size_law),
                            "sizes": dict(zip(study.names, heavy, strict=True))},
            "joint": {"loss": nested.limit, "best": min(float(c.mean[-1]) for c in curves),
                      "standard_error": nested.standard_error, "law": of_fit(nested.sizes),
                      "curves": dict(zip(study.names, [c.mean.tolist() for c in curves], strict=True))}}
    laws = {recipe: fit_power_law(preset.tokens, [row[recipe]["loss"] for row in rows.values()]) for recipe in RECIPES}
    return Record.new(experiment="ensembles/data", preset=preset, started=started, results={
        "parameters": N, "tokens": list(preset.tokens), "rows": rows,
        "laws": {recipe: of_fit(fit) for recipe, fit in laws.items()},
        "efficiency": {tokens: _saved(row, laws["standard"].law) for tokens, row in rows.items()}})


def data_ahead(preset: DataPreset) -> str:
    """The dry run of `data`."""
    studies = [moved(preset.study, tokens) for tokens in preset.tokens]
    ahead = searched_ahead(studies, ("standard", "regularized"))
    members = [run for study, ends in zip(studies, ahead.ends, strict=True)
               for run in joined_runs(study, ends["regularized"], preset.K)]
    return dry_run([Stage(ahead.runs), Stage(members, keep=True)], then=ahead.then("the seeds and members"))


def moved(study: Study, tokens: int) -> Study:
    """A study of another number of tokens, whose places keep AdamW's time scale in epochs: twice the tokens, half the
    decay, or what of the grid is nearest to it."""
    ratio = study.data.tokens / tokens

    def at(place: Place) -> Place:
        return replace(place, weight_decay=_nearest(study.grid, ratio * place.weight_decay))

    return replace(study.on(tokens), regularized=tuple(map(at, study.regularized)))


def _nearest(grid: Grid, decay: float) -> float:
    return min((value for value in grid.weight_decay if value), key=lambda value: abs(value / decay - 1))


def _saved(row: dict, standard: PowerLaw) -> dict[str, float | None]:
    """What multiple of the data the standard recipe needs for each recipe's loss; None if it never gets there."""
    at = standard.inverse(row["standard"]["loss"])
    found = {}
    for recipe in RECIPES:
        for kind in ("loss", "best"):
            if kind in row[recipe]:
                efficiency = data_efficiency(row[recipe][kind], standard, at=at)
                name = recipe if kind == "loss" else f"{recipe}, nothing extrapolated"
                found[name] = efficiency.value if efficiency.reached else None
    return found
