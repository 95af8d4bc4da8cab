"""Are members of one recipe in two groups because some of them learn to copy? What each does while it learns."""

import time
from dataclasses import dataclass

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.ensembles.copying import saved_by_copying
from minilab.ensembles.members import RunConfig, train_members, validation_loss
from minilab.ensembles.model import Stack
from minilab.ensembles.recipes import Place, for_ensembles, runs_at
from minilab.ensembles.runs import parameters, worth_compiling
from minilab.ensembles.study import QUICK, TUNED, Study


@dataclass(frozen=True)
class CopyingPreset:
    name: str
    study: Study
    size: int
    place: Place
    K: int = 8
    windows: int = 64  # of random tokens, and of text held out, at each look
    looks: int = 64  # at even distances
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


COPYING = {
    "cpu": CopyingPreset("cpu", QUICK, 0, Place(2, 1e-2, 0.4), K=2, windows=4, looks=2, device="cpu"),
    "gpu": CopyingPreset("gpu", TUNED, 1, for_ensembles(TUNED.regularized[1]), device="cuda"),
}


@with_threads
def copying(preset: CopyingPreset) -> Record:
    """Members as they learn: the loss on text held out, and what they save on tokens that they read again."""
    started, device = time.perf_counter(), pick_device(preset.device)
    task, place = preset.study.task(preset.size), preset.place
    text = task.data.corpus()
    valid, steps = text.valid[: preset.windows].to(device), place.epochs * task.steps
    looks: dict[str, list] = {"epochs": [], "valid": [], "saved": []}

    def look(done: int, members: Stack) -> None:
        looks["epochs"].append(done / task.steps)
        looks["valid"].append(validation_loss(members, valid).tolist())
        looks["saved"].append(saved_by_copying(members, task.data.length, n=preset.windows).tolist())

    run = RunConfig(place.epochs, task.batch, precision=task.precision, log_every=max(1, steps // preset.looks),
                    compile=worth_compiling(device, steps))
    found = train_members(text.train.to(device), task.model,
                          [run.hyper for run in runs_at(task, place, range(preset.K))], run, on_log=look)
    return Record.new(experiment="ensembles/copying", preset=preset, started=started, results={
        "parameters": parameters(task.model), "tokens": task.data.tokens,
        "losses": validation_loss(found.model, text.valid).tolist(),
        **looks})
