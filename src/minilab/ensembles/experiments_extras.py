"""Beyond the paper: members that teach the next one, hidden inputs, smaller batches, and what a weight decay decays."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from minilab.core.device import pick_device, with_threads
from minilab.core.parallel import parallel_map
from minilab.core.progress import progress
from minilab.core.records import Record
from minilab.ensembles.distill import imitation_chains
from minilab.ensembles.evaluate import AVERAGES, k_curve, subset_losses
from minilab.ensembles.experiments_members import ensemble, predicting
from minilab.ensembles.masking import MaskedInputs, unused_token
from minilab.ensembles.members import Hyper, RunConfig, decays, train_members, validation_loss
from minilab.ensembles.model import Stack
from minilab.ensembles.recipes import USUAL_DECAY, Place, for_ensembles, runs_at
from minilab.ensembles.runs import Run, Stage, Task, dry_run, parameters, worth_compiling
from minilab.ensembles.study import LAPTOP, QUICK, TUNED, Study, runs_of


@dataclass(frozen=True)
class ExtrasPreset:
    name: str
    study: Study
    size: int
    tuned: Place  # of one model: where hidden inputs and other masks are tried
    chained: tuple[Place, ...]  # of members that teach the next one, and of others beside them
    lr: float  # of batches of all sizes
    K: int = 8
    chains: int = 2  # of the same seeds in other orders
    weight: float = 1.0  # of what the member before says, where the text has 1
    batches: tuple[float, ...] = (0.5, 1, 2, 4)  # as multiples of the study's
    seeds: tuple[int, ...] = (0, 1, 2)  # of all but the chains
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


EXTRAS = {
    "cpu": ExtrasPreset("cpu", QUICK, 0, Place(1, 1e-2, 0.4), (Place(1, 1e-2, 0.4),), 1e-2, K=3, seeds=(0, 1),
                        device="cpu"),
    "two-cores": ExtrasPreset("two-cores", LAPTOP, 1, Place(16, 1e-2, 0.4), (Place(16, 1e-2, 0.4),
                                                                             Place(32, 1e-2, 0.2)), 1e-2,
                              seeds=tuple(range(8)), device="cpu"),
    "gpu": ExtrasPreset("gpu", TUNED, 1, TUNED.regularized[1], (TUNED.regularized[1],
                                                                for_ensembles(TUNED.regularized[1])),
                        TUNED.standard[1].lr, chains=3, device="cuda"),
}
MASKS: dict[str, Callable[[str], bool]] = {  # which parameters decay, where `decays` is the usual
    "embedding decays too": lambda name: decays(name) or name == "embed.weight",
    "norms decay too": lambda name: decays(name) or "norm" in name,
    "all decays": lambda name: True,
}
HIDDEN = "hidden inputs"


@with_threads
def extras(preset: ExtrasPreset) -> Record:
    """Four changes to the recipe: members in a chain, hidden inputs, a decay of all parameters, other batches."""
    started, device = time.perf_counter(), str(pick_device(preset.device))
    study, task = preset.study, preset.study.task(preset.size)
    places, once = sorted(preset.chained, key=lambda place: -place.epochs), batch_runs(preset)
    study.carry(_alone_runs(preset), device, keep=True)  # they go side by side
    apart = [_apart(ensemble(study, task, place, preset.K, device)[0], task) for place in places]
    tuned = study.carry(runs_at(task, preset.tuned, preset.seeds), device)
    jobs = [partial(_chained, preset, place, device) for place in places]
    jobs += [partial(_changed, preset, name, device) for name in (HIDDEN, *MASKS)]  # the longest first
    done = list(progress(parallel_map(_call, jobs, workers=study.workers, engine=study.engine), desc="trainings",
                         total=len(jobs), unit="job"))
    chains = {}
    for i, place in enumerate(places):
        chains[f"{place.epochs} epochs, decay {place.weight_decay:g}"] = {
            "epochs": place.epochs, "lr": place.lr, "weight_decay": place.weight_decay, "independent": apart[i],
            "chained": done[i]}
    changes = dict(zip((HIDDEN, *MASKS), done[len(places) :], strict=True))
    rows = {"tuned": [found.valid for found in tuned], **changes}
    return Record.new(experiment="ensembles/extras", preset=preset, started=started, results={
        "tokens": task.data.tokens, "parameters": parameters(task.model), "chains": chains,
        "changes": {"rows": {name: {"losses": losses} for name, losses in rows.items()}},
        "batches": {str(batch): {"losses": [found.valid for found in study.carry(runs, device)],
                                 "steps": runs[0].task.steps} for batch, runs in once.items()}})


def _alone_runs(preset: ExtrasPreset) -> list[Run]:
    """The independent members, and the batches of all sizes: the longest first."""
    task, places = preset.study.task(preset.size), sorted(preset.chained, key=lambda place: -place.epochs)
    return runs_of(task, places, range(preset.K)) + [run for runs in batch_runs(preset).values() for run in runs]


def extras_ahead(preset: ExtrasPreset) -> str:
    """The dry run of `extras`."""
    tuned = runs_at(preset.study.task(preset.size), preset.tuned, preset.seeds)
    return dry_run([Stage(_alone_runs(preset), keep=True), Stage(tuned)],
                   then="chains, hidden inputs and other masks are not kept: every run trains them")


def batch_runs(preset: ExtrasPreset) -> dict[int, list[Run]]:
    """One epoch with the usual decay, by windows a step. All see the same tokens: those that fill the largest batch.

    Raises ValueError for a batch that is no whole number of windows.
    """
    task = preset.study.task(preset.size)
    sizes = [times * task.batch for times in preset.batches]
    if any(size != int(size) or size < 1 for size in sizes):
        raise ValueError(f"batches of {sizes} windows: give multiples of {task.batch} that are whole numbers")
    fitting = int(max(sizes)) * task.data.length
    data = replace(task.data, tokens=task.data.tokens // fitting * fitting)
    place = Place(1, preset.lr, USUAL_DECAY)
    return {int(size): runs_at(replace(task, data=data, batch=int(size)), place, preset.seeds) for size in sizes}


def in_order(members: Stack, valid: Int[Tensor, "R T1"]) -> dict[str, list[float]]:
    """Each member's own loss, and that of the first 1, 2, ... K averaged: members of a chain are not exchangeable."""
    K = members.K
    subsets = torch.cat((torch.eye(K), torch.ones(K, K).tril())).bool()
    losses = {average: subset_losses(predicting(members), valid, subsets, average=average).mean(dim=1).tolist()
              for average in AVERAGES}
    return {"own": losses[AVERAGES[0]][:K], **{average: found[K:] for average, found in losses.items()}}


def _apart(members: Stack, task: Task) -> dict[str, Any]:
    """Of independent members, which are exchangeable, also the mean over all that are as many."""
    valid = task.data.corpus().valid.to(members.device)
    return {**in_order(members, valid), "any": {
        average: k_curve(predicting(members), valid, members.K, average=average).mean.tolist()
        for average in AVERAGES}}


def _chained(preset: ExtrasPreset, place: Place, device: str) -> list[dict[str, list[float]]]:
    """Chains of members with the seeds of the independent ones, in the same round but each begun elsewhere."""
    task = preset.study.task(preset.size)
    text, first = task.data.corpus(), [i * preset.K // preset.chains for i in range(preset.chains)]
    hypers = [_hypers(place, [(begin + k) % preset.K for k in range(preset.K)]) for begin in first]
    chains = imitation_chains(text.train.to(device), task.model, hypers, _run(task, place, device),
                              weight=preset.weight)
    return [in_order(members, text.valid.to(device)) for members in chains]


def _changed(preset: ExtrasPreset, name: str, device: str) -> list[float]:
    """The losses of models that begin and read as the tuned ones do, with one change."""
    task, place = preset.study.task(preset.size), preset.tuned
    change = {"decay_mask": MASKS[name]} if name in MASKS else {
        "loss": MaskedInputs(unused_token(task.data.vocab)).losses}
    text = task.data.corpus()
    found = train_members(text.train.to(device), task.model, _hypers(place, preset.seeds), _run(task, place, device),
                          **change)
    return validation_loss(found.model, text.valid).tolist()


def _hypers(place: Place, seeds: Sequence[int]) -> list[Hyper]:
    return [Hyper(place.lr, place.weight_decay, seed, seed) for seed in seeds]


def _run(task: Task, place: Place, device: str) -> RunConfig:
    return RunConfig(place.epochs, task.batch, precision=task.precision,
                     compile=worth_compiling(device, place.epochs * task.steps))


def _call(job: Callable[[], Any]) -> Any:
    return job()
