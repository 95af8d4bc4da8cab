"""What bounds say about networks of many widths, directions of four kinds, labels and pixels that were mixed up, and
which file to take."""

import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from minilab.core.device import pick_device, with_threads
from minilab.core.parallel import parallel_map
from minilab.core.progress import progress
from minilab.core.records import Record
from minilab.pacbayes import bounds
from minilab.pacbayes.compress import Recipe, certificate, error_rate, learn, rebuild
from minilab.pacbayes.data import permuted_pixels, shuffled_labels
from minilab.pacbayes.experiments_certify import QUICK, SETS, SMALL, certified
from minilab.pacbayes.networks import cnn, mlp
from minilab.pacbayes.subspace import PROJECTIONS


@dataclass(frozen=True)
class WidthPreset:
    name: str
    data: str  # of SETS
    recipe: Recipe
    widths: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    seeds: tuple[int, ...] = (1, 2, 3)
    delta: float = 0.05
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


WIDTH = {
    "cpu": WidthPreset("cpu", "digits", QUICK, widths=(16, 64), seeds=(1,), device="cpu"),
    "two-cores": WidthPreset("two-cores", "mnist5k", SMALL, device="cpu"),
    "gpu": WidthPreset("gpu", "fashion_mnist", Recipe(), widths=(16, 32, 64, 128, 256, 512, 1024, 2048),
                       seeds=(1, 2, 3, 4, 5), device="cuda"),
}


@with_threads
def width(preset: WidthPreset) -> Record:
    """As many trained numbers in networks of growing width: what their files certify, and whether width correlates."""
    started, device = time.perf_counter(), pick_device(preset.device)
    data, rows = SETS[preset.data]().to(device), {}
    for w in preset.widths:
        build = partial(mlp, width=w)
        recipe = replace(preset.recipe, network=build)
        found = certified(data, recipe, preset.seeds, preset.delta, networks=(build,))
        rows[str(w)] = {"weights": sum(p.numel() for p in build(data.shape, len(data.classes)).parameters()), **found}
    log_width = torch.tensor([w for w in preset.widths for _ in preset.seeds], dtype=torch.float64).log()
    slopes = {part: rank_correlation(log_width, torch.tensor([x for row in rows.values() for x in row[part]]))
              for part in ("bound", "bits", "train_error", "test_error")}
    return Record.new(experiment="pacbayes/width", preset=preset, started=started, results={
        "data": data.name, "n": len(data.train_y), "rows": rows, "correlation": slopes})


def rank_correlation(x: torch.Tensor, y: torch.Tensor, *, draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """Spearman's correlation and its 95 % interval by a bootstrap of the points."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.cat((torch.arange(len(x))[None], torch.randint(len(x), (draws, len(x)), generator=generator)))
    found = torch.stack([_spearman(x[rows], y[rows].double()) for rows in which])
    low, high = found[1:].nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"value": float(found[0]), "low": low, "high": high}


def _spearman(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.corrcoef(torch.stack([_ranks(x), _ranks(y)]))[0, 1]


def _ranks(x: torch.Tensor) -> torch.Tensor:
    """Ranks, with the mean of theirs where values are equal."""
    return ((x[:, None] > x).sum(dim=1) + (x[:, None] >= x).sum(dim=1)).double()


@dataclass(frozen=True)
class ProjectionsPreset:
    name: str
    data: str
    recipe: Recipe
    seeds: tuple[int, ...] = (1, 2, 3)
    delta: float = 0.05
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


PROJECTED = {
    "cpu": ProjectionsPreset("cpu", "digits", QUICK, seeds=(1,), device="cpu"),
    "two-cores": ProjectionsPreset("two-cores", "fashion_mnist", Recipe(d=400, steps=1000, rounded_steps=1000),
                                   device="cpu"),
    "gpu": ProjectionsPreset("gpu", "fashion_mnist", Recipe(), device="cuda"),
}


@with_threads
def projections(preset: ProjectionsPreset) -> Record:
    """As many numbers along directions of four kinds: what their files certify, and the seconds that they took."""
    started, device = time.perf_counter(), pick_device(preset.device)
    data, rows = SETS[preset.data]().to(device), {}
    for kind in PROJECTIONS:
        began = time.perf_counter()
        found = certified(data, replace(preset.recipe, projection=kind), preset.seeds, preset.delta)
        rows[kind.__name__] = {"seconds": (time.perf_counter() - began) / len(preset.seeds), **found}
    return Record.new(experiment="pacbayes/projections", preset=preset, started=started, results={
        "data": data.name, "n": len(data.train_y), "rows": rows})


@dataclass(frozen=True)
class StructurePreset:
    name: str
    data: str
    recipe: Recipe
    convolution: Recipe
    seeds: tuple[int, ...] = (1, 2, 3)
    delta: float = 0.05
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


STRUCTURE = {
    "cpu": StructurePreset("cpu", "digits", QUICK, replace(QUICK, network=cnn), seeds=(1,), device="cpu"),
    "two-cores": StructurePreset("two-cores", "fashion_mnist", Recipe(), Recipe(network=cnn), seeds=(1,),
                                 device="cpu"),
    "gpu": StructurePreset("gpu", "fashion_mnist", Recipe(steps=6000, rounded_steps=6000),
                           Recipe(network=cnn, steps=6000, rounded_steps=6000), device="cuda"),
}


@with_threads
def structure(preset: StructurePreset) -> Record:
    """The same two networks and recipes on the data, with pixels in another order, and with labels shuffled."""
    started, device = time.perf_counter(), pick_device(preset.device)
    whole, generator = SETS[preset.data](), torch.Generator().manual_seed(preset.seed)
    sets = {"as it is": whole, "pixels permuted": permuted_pixels(whole, generator),
            "labels shuffled": shuffled_labels(whole, generator)}
    recipes = {"convolution": preset.convolution, "fully connected": preset.recipe}
    rows = {f"{name}, {change}": certified(data.to(device), recipe, preset.seeds, preset.delta)
            for (name, recipe), (change, data) in product(recipes.items(), sets.items())}
    guess = 1 - float(whole.train_y.bincount().max()) / len(whole.train_y)
    return Record.new(experiment="pacbayes/structure", preset=preset, started=started, results={
        "data": whole.name, "n": len(whole.train_y), "guess": guess, "rows": rows})


@dataclass(frozen=True)
class ChoosePreset:
    name: str
    data: str
    recipe: Recipe
    n: int  # examples to learn and to choose with
    d: tuple[int, ...] = (49, 100, 196, 400, 900)
    L: tuple[int, ...] = (3, 5, 7)
    validated: float = 0.2  # share of the n that the other way keeps from learning
    repeats: int = 3
    workers: int = 1  # processes, each with repeats of its own
    delta: float = 0.05
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


CHOOSE = {
    "cpu": ChoosePreset("cpu", "digits", QUICK, n=500, d=(49, 100), L=(3,), repeats=1, device="cpu"),
    "two-cores": ChoosePreset("two-cores", "mnist5k", replace(SMALL, steps=1000, rounded_steps=1000), n=2000,
                              device="cpu"),
    "gpu": ChoosePreset("gpu", "fashion_mnist", Recipe(), n=10_000, d=(49, 100, 196, 400, 900, 1600), repeats=10,
                        workers=10, device="cuda"),
}


@with_threads
def choose(preset: ChoosePreset) -> Record:
    """A file by its bound, learned from all n examples, or by its errors on a fifth of them, learned from the others.

    Both choose among the same recipes, and the test examples say who chose better.
    """
    started, device = time.perf_counter(), pick_device(preset.device)
    data, generator = SETS[preset.data](), torch.Generator().manual_seed(preset.seed)
    rows = [torch.randperm(len(data.train_y), generator=generator)[: preset.n] for _ in range(preset.repeats)]
    jobs = [_Choice(preset, repeat, rows[repeat], str(device)) for repeat in range(preset.repeats)]
    found = list(progress(parallel_map(_chosen, jobs, workers=preset.workers), desc="choices", total=len(jobs),
                          unit="choice"))
    means = {way: {part: sum(row[way][part] for row in found) / len(found) for part in found[0][way]}
             for way in found[0]}
    return Record.new(experiment="pacbayes/choose", preset=preset, started=started, results={
        "data": data.name, "n": preset.n, "recipes": len(preset.d) * len(preset.L), "means": means, "choices": found})


class _Choice(NamedTuple):
    preset: ChoosePreset
    repeat: int
    rows: Int64[Tensor, "n"]  # of the training set
    device: str


def _chosen(job: _Choice) -> dict[str, dict[str, float]]:
    preset, data = job.preset, SETS[job.preset.data]()
    kept = round(preset.validated * preset.n)
    whole = replace(data, train_x=data.train_x[job.rows], train_y=data.train_y[job.rows]).to(job.device)
    part = replace(whole, train_x=whole.train_x[kept:], train_y=whole.train_y[kept:])
    validation = whole.train_x[:kept], whole.train_y[:kept]
    places = [replace(preset.recipe, d=d, L=L, seed=1 + job.repeat) for d, L in product(preset.d, preset.L)]
    by_bound, by_validation = [], []
    for recipe in progress(places, desc=f"choice {job.repeat}", unit="recipe"):
        certain = certificate(learn(whole, recipe).file, whole, delta=preset.delta)
        by_bound.append((certain.bound.value, certain.test_error, recipe.d, recipe.L))
        network = rebuild(learn(part, recipe).file, whole.shape, len(whole.classes)).to(job.device)
        by_validation.append((error_rate(network, *validation), error_rate(network, whole.test_x, whole.test_y),
                              recipe.d, recipe.L))
    (bound, *chosen), (error, *other) = min(by_bound), min(by_validation)
    tested = bounds.occam_binomial(round(error * kept), kept, bounds.uniform_nats(len(places)), preset.delta)
    return {"by bound": dict(zip(("test_error", "d", "L"), chosen, strict=True)) | {"certified": bound},
            "by validation": dict(zip(("test_error", "d", "L"), other, strict=True)) | {"certified": tested},
            "best of all": {"test_error": min(row[1] for row in by_bound)}}
