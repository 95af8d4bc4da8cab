"""Each figure of the talk's paper at our scale, in one record."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from minilab.core.device import pick_device, with_threads
from minilab.core.progress import progress
from minilab.core.records import Record
from minilab.pacbayes.data import digits
from minilab.pacbayes.phenomena.features import FeaturesConfig, descent
from minilab.pacbayes.phenomena.guess import GuessConfig, Guessed, guess_and_check
from minilab.pacbayes.phenomena.labels import LabelsConfig, compress
from minilab.pacbayes.phenomena.lunch import accuracies
from minilab.pacbayes.phenomena.memorize import MemorizeConfig, memorize
from minilab.pacbayes.phenomena.mlp import FitConfig
from minilab.pacbayes.phenomena.modes import ModesConfig, modes
from minilab.pacbayes.phenomena.polynomials import PolynomialConfig, polynomials
from minilab.pacbayes.phenomena.process import ProcessConfig, noisy_labels
from minilab.pacbayes.phenomena.selection import SelectionConfig, selection
from minilab.pacbayes.phenomena.task import rows
from minilab.pacbayes.phenomena.volume import VolumeConfig, minima
from minilab.pacbayes.phenomena.widths import WidthConfig, Widths, widths


@dataclass(frozen=True)
class PhenomenaPreset:
    name: str
    only: tuple[str, ...] | None = None  # names; None takes all
    polynomials: PolynomialConfig = PolynomialConfig()
    selection: SelectionConfig = SelectionConfig()
    process: ProcessConfig = ProcessConfig()
    chosen: ProcessConfig = ProcessConfig(lengths=(0.75, 1.0, 1.5, 2.0, 3.0), noises=(1e-4, 1e-3, 1e-2, 0.1))
    features: FeaturesConfig = FeaturesConfig()
    memorize: MemorizeConfig = MemorizeConfig()
    widths: WidthConfig = WidthConfig()
    volume: VolumeConfig = VolumeConfig()
    guess: GuessConfig = GuessConfig()
    modes: ModesConfig = ModesConfig()
    labels: LabelsConfig = LabelsConfig()
    points: int = 9  # that the functions of no free lunch label
    prices: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0)
    seed: int = 0
    threads: int | None = 1
    device: str = "cpu"


PHENOMENA = {
    "cpu": PhenomenaPreset("cpu", only=("polynomials", "selection", "process", "features", "lunch"),
                           selection=SelectionConfig(repeats=20), process=ProcessConfig(samples=300),
                           features=FeaturesConfig(repeats=1)),
    "two-cores": PhenomenaPreset(
        "two-cores",
        widths=WidthConfig(widths=(2, 4, 6, 8, 10, 12, 16, 24, 32, 64), samples=300, seeds=3,
                           training=FitConfig(steps=2000))),
}


@with_threads
def phenomena(preset: PhenomenaPreset) -> Record:
    """Polynomials, a Gaussian process, double descent, flat minima and the others, on the digits or on no data."""
    started, task = time.perf_counter(), rows(digits().to(pick_device(preset.device)))
    experiments: dict[str, Callable[[], dict]] = {
        "polynomials": lambda: numbers(polynomials(preset.polynomials)),
        "selection": lambda: {"sizes": preset.selection.sizes, **numbers(selection(preset.selection))},
        "process": lambda: {"shares": preset.process.shares, **numbers(noisy_labels(task, preset.process))},
        "chosen": lambda: {"shares": preset.chosen.shares, **numbers(noisy_labels(task, preset.chosen))},
        "features": lambda: {"d": preset.features.features, **numbers(descent(preset.features))},
        "memorize": lambda: {"shares": preset.memorize.shares, **numbers(memorize(task, preset.memorize))},
        "widths": lambda: _widths(preset, widths(task, preset.widths)),
        "volume": lambda: {"poison": preset.volume.poison, **numbers(minima(task, preset.volume))},
        "guess": lambda: _guessed(preset, guess_and_check(task.pair(0, 1), preset.guess)),
        "modes": lambda: {name: numbers(path) for name, path in modes(task, preset.modes)._asdict().items()},
        "labels": lambda: {"shares": preset.labels.shares, **numbers(compress(task, preset.labels))},
        "lunch": lambda: {"prices": preset.prices} | {
            name: listed(found) for name, found in accuracies(preset.points, preset.prices).items()},
    }
    wanted = {name: run for name, run in experiments.items() if preset.only is None or name in preset.only}
    results = {}
    for name in progress(wanted, desc="phenomena", unit="experiment"):
        results[name] = wanted[name]()
    return Record.new(experiment="pacbayes/phenomena", preset=preset, results=results, started=started)


def numbers(found: tuple) -> dict:
    """A named tuple of tensors and numbers as lists and numbers."""
    return {name: listed(value) if isinstance(value, torch.Tensor) else value
            for name, value in found._asdict().items()}


def listed(x: torch.Tensor) -> list | float | None:
    """A tensor as nested lists, with None for what is not finite: a mean of nothing, the log of no chance."""
    if x.dim():
        return [listed(part) for part in x]
    return x.item() if x.isfinite() else None


def _widths(preset: PhenomenaPreset, found: Widths) -> dict:
    kept = {name: value for name, value in numbers(found).items() if name != "eigenvalues"}
    return {"widths": preset.widths.widths, **kept, "effective_dimension": listed(found.effective_dimension())}


def _guessed(preset: PhenomenaPreset, found: Guessed) -> dict:
    return {"widths": preset.guess.widths, "samples": preset.guess.samples, **numbers(found),
            "nats": listed(found.nats)}
