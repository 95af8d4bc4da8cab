"""What an ensemble is good for beyond its loss: teaching one model, answering questions, and learning a new domain."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilab.core.device import pick_device, with_threads
from minilab.core.progress import progress
from minilab.core.records import Record
from minilab.ensembles.average import soup
from minilab.ensembles.data import tokenizer
from minilab.ensembles.distill import Imitation, distilled, retention, sample_windows
from minilab.ensembles.downstream import accuracy, averaged, questions, score, without_context
from minilab.ensembles.evaluate import subset_losses
from minilab.ensembles.experiments_members import ensemble, predicting
from minilab.ensembles.members import Hyper, RunConfig, train_members
from minilab.ensembles.model import Stack, stack
from minilab.ensembles.recipes import Place, for_ensembles
from minilab.ensembles.runs import Data, Task, worth_compiling
from minilab.ensembles.study import LAPTOP, QUICK, TUNED, Study
from minilab.nn.transformer import Transformer


def window_losses(model: Stack, windows: Int[Tensor, "R T1"], *, average: str = "logits") -> Float[Tensor, "R"]:
    """Nats a token on each window: of the ensemble, or of a stack of one."""
    whole = torch.ones(1, model.K, dtype=torch.bool)
    return subset_losses(predicting(model), windows.to(model.device), whole, average=average)[0]


@dataclass(frozen=True)
class DistillPreset:
    name: str
    study: Study
    size: int
    single: Place  # the regularized recipe's
    teacher: Place  # of the ensemble's members
    student: Place  # lighter decay: text that is written anew needs no heavy one
    K: int = 8
    pool: float = 10.0  # sampled tokens, as a multiple of the real ones
    w: float = 0.75  # share of samples in a batch
    at_once: int = 512  # windows that are written side by side
    seeds: tuple[int, ...] = (0,)  # of students
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


DISTILL = {
    "cpu": DistillPreset("cpu", QUICK, 0, Place(2, 1e-2, 0.4), Place(2, 1e-2, 0.2), Place(1, 1e-2, 0.1), K=3, pool=2.0,
                         device="cpu"),
    "two-cores": DistillPreset("two-cores", LAPTOP, 1, Place(16, 1e-2, 0.4), Place(32, 1e-2, 0.2),
                               Place(16, 1e-2, 0.1), pool=5.0, device="cpu"),
    "gpu": DistillPreset("gpu", TUNED, 1, TUNED.regularized[1], for_ensembles(TUNED.regularized[1]), TUNED.standard[1],
                         at_once=2048, seeds=(0, 1, 2), device="cuda"),
} | {  # at which size it begins to work
    name: DistillPreset(name, TUNED, size, TUNED.regularized[size], for_ensembles(TUNED.regularized[size]),
                        TUNED.standard[size], at_once=1024, device="cuda")
    for name, size in (("gpu-smaller", 0), ("gpu-larger", 2))
}


@with_threads
def distill(preset: DistillPreset) -> Record:
    """A student of one member's size, taught by samples of the ensemble, of one member, and by probabilities."""
    started, device = time.perf_counter(), pick_device(preset.device)
    task = preset.study.task(preset.size)
    text = task.data.corpus()
    real, valid = text.train.to(device), text.valid.to(device)
    best = ensemble(preset.study, task, preset.single, 1, str(device))[0]
    teachers = ensemble(preset.study, task, preset.teacher, preset.K, str(device))[0]
    alone = stack([teachers.member(0)])
    losses = {"regularized": [window_losses(best, valid)], "one teacher": [window_losses(alone, valid)],
              "ensemble": [window_losses(teachers, valid)]}
    for seed in progress(preset.seeds, desc="students", unit="seed"):
        generator = torch.Generator().manual_seed(preset.seed + 1000 * seed)
        n = round(preset.pool * len(real))
        first = real[torch.randint(len(real), (n,), generator=generator).to(device), 0]  # as real windows begin
        pools = {source: sample_windows(teachers, n, task.data.length, generator, start_token=first, source=source,
                                        batch=preset.at_once)
                 for source in ("mixture", "ensemble", 0)}
        mixed = {source: distilled(real, pool, preset.w) for source, pool in pools.items()}
        arms = {"from a mixture of members": {"windows": mixed["mixture"].windows, "draw": mixed["mixture"].order},
                "from the ensemble": {"windows": mixed["ensemble"].windows, "draw": mixed["ensemble"].order},
                "from one teacher": {"windows": mixed[0].windows, "draw": mixed[0].order},
                "from its probabilities": {"windows": real, "loss": Imitation(teachers, 1.0).losses},
                "real text alone": {"windows": real}}
        arms["samples alone"] = {"windows": pools[0], "epochs": max(1, round(
            preset.student.epochs * len(real) / (1 - preset.w) / n))}
        for arm, given in arms.items():
            losses.setdefault(arm, []).append(window_losses(_student(task, preset.student, seed, **given), valid))
    rows = {arm: {"losses": [float(row.mean()) for row in found]} for arm, found in losses.items()}
    kept = {}
    for arm in ("from a mixture of members", "from the ensemble", "from its probabilities"):
        try:
            kept[arm] = list(retention(losses["regularized"][0], torch.stack(losses[arm]).mean(dim=0),
                                       losses["ensemble"][0], torch.Generator().manual_seed(preset.seed)))
        except ValueError:  # an ensemble that gains nothing leaves nothing to keep
            kept[arm] = None
    return Record.new(experiment="ensembles/distill", preset=preset, started=started,
                      results={"rows": rows, "retention": kept, "tokens": task.data.tokens})


def _student(task: Task, place: Place, seed: int, *, windows: Int[Tensor, "n T1"],
             epochs: int | None = None, **given) -> Stack:
    epochs = epochs or place.epochs
    run = RunConfig(epochs, task.batch, precision=task.precision,
                    compile=worth_compiling(windows.device, epochs * task.steps))
    hyper = Hyper(place.lr, place.weight_decay, 100 + seed, 100 + seed)  # not a teacher's
    return train_members(windows, task.model, [hyper], run, **given).model


@dataclass(frozen=True)
class DownstreamPreset:
    name: str
    study: Study
    size: int
    standard: Place
    single: Place
    members: Place
    K: int = 8
    questions: int | None = None  # of each kind; None takes all
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


DOWNSTREAM = {
    "cpu": DownstreamPreset("cpu", QUICK, 0, Place(1, 1e-2, 0.1), Place(2, 1e-2, 0.4), Place(2, 1e-2, 0.2), K=2,
                            questions=8, device="cpu"),
    "two-cores": DownstreamPreset("two-cores", LAPTOP, 1, Place(16, 1e-2, 0.1), Place(16, 1e-2, 0.4),
                                  Place(32, 1e-2, 0.2), questions=1000, device="cpu"),
    "gpu": DownstreamPreset("gpu", TUNED, 1, TUNED.standard[1], TUNED.regularized[1],
                            for_ensembles(TUNED.regularized[1]), device="cuda"),
}


@with_threads
def downstream(preset: DownstreamPreset) -> Record:
    """Questions with four endings, of which one is real: standard, regularized and ensemble, beside their losses."""
    started, device = time.perf_counter(), pick_device(preset.device)
    task, rows = preset.study.task(preset.size), {}
    valid, words = task.data.corpus().valid.to(device), tokenizer(task.data.vocab)
    models = {"standard": ensemble(preset.study, task, preset.standard, 1, str(device))[0],
              "regularized": ensemble(preset.study, task, preset.single, 1, str(device))[0]}
    members = ensemble(preset.study, task, preset.members, preset.K, str(device))[0]
    models |= {"one member": stack([members.member(0)]), f"{preset.K} members": members}
    for name, model in models.items():
        predict = averaged(predicting(model))
        rows[name] = {"loss": float(window_losses(model, valid).mean())}
        for kind in ("easy", "hard"):
            asked = questions(kind)[: preset.questions]
            plain = score(predict, asked, words, device=device)
            gain = plain - score(predict, without_context(asked), words, device=device)
            rows[name][kind] = {"score": list(accuracy(plain, asked)[0]), "gain": list(accuracy(gain, asked)[0])}
    return Record.new(experiment="ensembles/downstream", preset=preset, started=started, results={
        "guess": 0.25, "questions": {kind: len(questions(kind)[: preset.questions]) for kind in ("easy", "hard")},
        "rows": rows})


@dataclass(frozen=True)
class ContinuedPreset:
    name: str
    study: Study  # of the first domain; the base model is its single best
    size: int
    base: Place
    tokens: int  # of the new domain
    valid_tokens: int = 32_768  # of the new domain, which is small
    epochs: tuple[int, ...] = (1, 4, 8)
    lr: float = 3e-3
    weight_decay: float = 0.1
    K: int = 8
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


CONTINUED = {
    "cpu": ContinuedPreset("cpu", QUICK, 0, Place(2, 1e-2, 0.4), 512, 512, epochs=(1, 2), K=2, device="cpu"),
    "two-cores": ContinuedPreset("two-cores", LAPTOP, 1, Place(16, 1e-2, 0.4), 16_384, device="cpu"),
    "gpu": ContinuedPreset("gpu", TUNED, 1, TUNED.regularized[1], 2**17, 2**16, lr=1e-3, device="cuda"),
}


@with_threads
def continued(preset: ContinuedPreset) -> Record:
    """From the kernel's pages to Python's: more epochs, an ensemble, a soup; and the soup of models begun apart."""
    started, device = time.perf_counter(), pick_device(preset.device)
    task = preset.study.task(preset.size)
    new = replace(task, data=new_domain(preset))
    valid = new.data.corpus().valid.to(device)
    apart = ensemble(preset.study, task, preset.base, preset.K, str(device))[0]
    base, rows = apart.member(0), {}
    for epochs in preset.epochs:
        members = _continued(new, base, epochs, preset)
        rows[f"{epochs} epochs"] = _ways(members, valid)
    scratch = ensemble(preset.study, new, Place(preset.base.epochs, preset.base.lr, preset.base.weight_decay), 1,
                       str(device))[0]
    own = task.data.corpus().valid.to(device)
    return Record.new(experiment="ensembles/continued", preset=preset, started=started, results={
        "tokens": preset.tokens, "base": float(window_losses(stack([base]), valid).mean()),
        "from scratch": float(window_losses(scratch, valid).mean()), "rows": rows, "begun apart": _ways(apart, own),
        "guess": float(torch.tensor(float(task.data.vocab)).log())})


def new_domain(preset: ContinuedPreset) -> Data:
    return replace(preset.study.data, name="manual", tokens=preset.tokens, valid_tokens=preset.valid_tokens)


def _continued(task: Task, base: Transformer, epochs: int, preset: ContinuedPreset) -> Stack:
    hypers: Sequence[Hyper] = [Hyper(preset.lr, preset.weight_decay, k, k) for k in range(preset.K)]
    run = RunConfig(epochs, task.batch, precision=task.precision,
                    compile=worth_compiling(base.device, epochs * task.steps))
    return train_members(task.data.corpus().train.to(base.device), task.model, hypers, run, start=base).model


def _ways(members: Stack, valid: Int[Tensor, "R T1"]) -> dict[str, float]:
    """One member, the ensemble, and the soup, in nats a token."""
    return {"one member": float(window_losses(stack([members.member(0)]), valid).mean()),
            "ensemble": float(window_losses(members, valid).mean()),
            "soup": float(window_losses(stack([soup(members)]), valid).mean())}
