"""Many models together: the loss against the number of members, against one larger model, and in both limits."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from minilab.core.device import pick_device, with_threads
from minilab.core.progress import progress
from minilab.core.records import Record
from minilab.ensembles.evaluate import KCurve, Predict, calibration, jackknife_error, k_curve, top_predictions
from minilab.ensembles.experiments_size import of_fit, searched, searched_ahead
from minilab.ensembles.limits import nested_limit, two_member_limit
from minilab.ensembles.model import Stack
from minilab.ensembles.recipes import Place, for_ensembles, runs_at
from minilab.ensembles.runs import Run, Stage, Task, dry_run, members, parameters
from minilab.ensembles.scaling import fit_power_law
from minilab.ensembles.study import LAPTOP, QUICK, TUNED, Study, named, place_of, told


@dataclass(frozen=True)
class MembersPreset:
    name: str
    study: Study
    size: int
    places: tuple[Place, ...]  # the first is the best of a single model
    K: int = 8
    calibrated: int = 128  # windows of which the calibration is taken
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


MEMBERS = {
    "cpu": MembersPreset("cpu", QUICK, 0, (Place(1, 1e-2, 0.4), Place(2, 1e-2, 0.2)), K=3, calibrated=4, device="cpu"),
    "two-cores": MembersPreset("two-cores", LAPTOP, 1, (Place(16, 1e-2, 0.4), Place(32, 1e-2, 0.2),
                                                        Place(32, 1e-2, 0.4), Place(8, 1e-2, 0.8)), device="cpu"),
    "gpu": MembersPreset("gpu", TUNED, 1, (TUNED.regularized[1], for_ensembles(TUNED.regularized[1]),
                                           Place(64, 3e-3, 1.6), Place(16, 3e-3, 3.2)), device="cuda"),
}


@with_threads
def together(preset: MembersPreset) -> Record:
    """Loss against the number of members, at several places: averaged logits, averaged probabilities, and the limit."""
    started, device = time.perf_counter(), pick_device(preset.device)
    study, task, rows = preset.study, preset.study.task(preset.size), {}
    study.carry(together_runs(preset), str(device), keep=True)  # all at once: they can share programs
    for place in progress(preset.places, desc="places", unit="place"):
        stack, row = ensemble(study, task, place, preset.K, str(device), least=2)  # the fewest that have a K-curve
        valid = task.data.corpus().valid.to(device)
        for average in ("logits", "probabilities"):
            row[average] = of_curve(k_curve(predicting(stack), valid, stack.K, average=average))
        row["calibration"] = {
            "one": _calibrated(predicting(stack, 1), valid[: preset.calibrated]),
            "all": _calibrated(predicting(stack), valid[: preset.calibrated])}
        rows[f"{place.epochs} epochs, decay {place.weight_decay:g}"] = row
    return Record.new(experiment="ensembles/together", preset=preset, started=started, results={
        "tokens": task.data.tokens, "parameters": parameters(task.model), "places": rows})


def together_runs(preset: MembersPreset) -> list[Run]:
    task = preset.study.task(preset.size)
    return [run for place in preset.places for run in runs_at(task, place, range(preset.K))]


def ensemble(study: Study, task: Task, place: Place, K: int, device: str, *, least: int = 1) -> tuple[Stack, dict]:
    """K trained members, and what they come to alone.

    Members that diverged are left out, with a warning that names them; `told` counts them. Raises ValueError if fewer
    than `least` remain.
    """
    runs = runs_at(task, place, range(K))
    outcomes = study.carry(runs, device, keep=True)
    sound = [run for run, found in zip(runs, outcomes, strict=True) if found.sound]
    if len(sound) < K:
        lost = ", ".join(f"{run.hyper.init_seed} at {'its end' if found.diverged is None else f'step {found.diverged}'}"
                         for run, found in zip(runs, outcomes, strict=True) if not found.sound)
        what = f"of {K} members of {named(parameters(task.model))} at {place} these diverged: seed {lost}"
        if len(sound) < least:
            raise ValueError(f"{what}. At least {least} must be left: lower the learning rate, or add members")
        warnings.warn(f"{what}. They are left out", stacklevel=2)
    return members(sound, device=device), told(task, place, outcomes)


def predicting(stack: Stack, K: int | None = None) -> Predict:
    """The first K members, all reading the same tokens."""
    K = K or stack.K
    return lambda tokens: stack(tokens.expand(stack.K, *tokens.shape))[:K]


def of_curve(curve: KCurve) -> dict:
    """A K-curve as a record holds it, with its law, free and as 1/K, and the shortcut of two members."""
    losses = curve.mean.tolist()
    K = range(1, len(losses) + 1)
    found = {"losses": losses, "standard_error": curve.standard_error.tolist(),
             "1/K": of_fit(fit_power_law(K, losses, alpha=1.0)), "two members": two_member_limit(*losses[:2])}
    if len(losses) > 2:
        floors = [fit_power_law(K[:-1], without, alpha=1.0).law.E for without in curve.left_out.tolist()]
        found["1/K"]["standard_error"] = float(jackknife_error(torch.tensor(floors)))  # of the floor, for other members
        found["free"] = of_fit(fit_power_law(K, losses))
    return found


def _calibrated(predict: Predict, windows: torch.Tensor) -> dict:
    found = calibration(*top_predictions(predict, windows))
    return {"error": found.error, "overconfidence": found.overconfidence}


@dataclass(frozen=True)
class JointPreset:
    name: str
    study: Study
    K: int = 5
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


JOINT = {
    "cpu": JointPreset("cpu", QUICK, K=4, device="cpu"),
    "two-cores": JointPreset("two-cores", LAPTOP, K=4, device="cpu"),
    "gpu": JointPreset("gpu", TUNED, device="cuda"),
}


@with_threads
def joint(preset: JointPreset) -> Record:
    """Members without end of models without end: K-curves at each size by the paper's rule, and the limit of limits."""
    started, device = time.perf_counter(), str(pick_device(preset.device))
    study, rows = preset.study, {}
    singles = searched([study], ("regularized",), device)[0]["regularized"]
    # Three numbers are fitted, to each curve also without one member.
    curves, alone = joined(study, [place_of(row) for row in singles], preset.K, device, least=4)
    for name, single, row, curve in zip(study.names, singles, alone, curves, strict=True):
        rows[name] = {"single": single["loss"], **row, **of_curve(curve)}
    N = [parameters(model) for model in study.models]
    found = {law: nested_limit(N, [c.mean for c in curves], member_alpha=alpha, left_out=[c.left_out for c in curves])
             for law, alpha in (("free", None), ("1/K", 1.0))}
    return Record.new(experiment="ensembles/joint", preset=preset, started=started, results={
        "tokens": study.data.tokens, "parameters": N, "sizes": rows, "limits": {
            law: {"C": [fit.law.E for fit in nested.members], "standard_error": nested.standard_error,
                  **of_fit(nested.sizes)} for law, nested in found.items()}})


def joint_ahead(preset: JointPreset) -> str:
    """The dry run of `joint`."""
    ahead = searched_ahead([preset.study], ("regularized",))
    members_there = joined_runs(preset.study, ahead.ends[0]["regularized"], preset.K)
    return dry_run([Stage(ahead.runs), Stage(members_there, keep=True)], then=ahead.then("the seeds and members"))


def joined(study: Study, singles: Sequence[Place], K: int, device: str, *, least: int
           ) -> tuple[list[KCurve], list[dict]]:
    """By the paper's rule, from the best single model of each size: the K-curve there, and what members come to alone.

    Raises ValueError if at one of them fewer than `least` members are sound.
    """
    study.carry(joined_runs(study, singles, K), device, keep=True)  # all at once: they can share programs
    curves, rows = [], []
    for i, single in enumerate(progress(singles, desc="ensembles", unit="size")):
        task = study.task(i)
        stack, row = ensemble(study, task, for_ensembles(single), K, device, least=least)
        curves.append(k_curve(predicting(stack), task.data.corpus().valid.to(device), stack.K))
        rows.append(row)
    return curves, rows


def joined_runs(study: Study, singles: Sequence[Place | None], K: int) -> list[Run]:
    """What `joined` trains, at the sizes whose place is known."""
    return [run for i, single in enumerate(singles) if single
            for run in runs_at(study.task(i), for_ensembles(single), range(K))]
