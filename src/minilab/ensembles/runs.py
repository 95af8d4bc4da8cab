"""Runs that are kept: trained once, read from then on.

Every experiment of this chapter is a set of runs, and many sets share runs: a sweep over decays, an ensemble, a search.
So a run has a name made of everything that it depends on, and its outcome lies in the cache folder under that name. An
interrupted sweep goes on with those that are missing. Notable:

- Missing runs of one task and length are trained as members of one stack, since all else may differ from row to row.
- A run that diverged has an outcome too: it says when.
- Nothing is stopped early on a promise. A cosine that ends at zero and a heavy decay both look bad until their end.

Shapes: K members.
"""

import functools
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

from minilab.core.device import cache_dir, pick_device
from minilab.core.files import replacing
from minilab.core.parallel import parallel_map
from minilab.core.progress import progress
from minilab.ensembles.data import Corpus, corpus, text_sha256
from minilab.ensembles.members import (
    Hyper,
    Members,
    RunConfig,
    train_members,
    validation_loss,
)
from minilab.ensembles.model import Stack
from minilab.ensembles.stored import load_members, save_member
from minilab.nn.transformer import TransformerConfig

VERSION = 1  # of what a run does: a new number trains everything anew
LICENCE = "CC0-1.0"


@dataclass(frozen=True)
class Data:
    """What is learned from, and what it is measured on."""

    tokens: int  # D, to predict in one epoch
    vocab: int = 1024
    length: int = 128  # T, of a window
    valid_tokens: int = 32_768
    name: str = "web"

    def corpus(self) -> Corpus:
        return _corpus(self)


@functools.lru_cache(maxsize=4)
def _corpus(data: Data) -> Corpus:
    return corpus(data.name, vocab_size=data.vocab, length=data.length, tokens=data.tokens,
                  valid_tokens=data.valid_tokens)


@dataclass(frozen=True)
class Task:
    """What no recipe changes."""

    data: Data
    model: TransformerConfig
    batch: int = 2  # windows a step
    precision: str = "fp32"  # not "auto": a run must not have two outcomes on two devices

    @property
    def steps(self) -> int:
        """S: steps in an epoch."""
        return self.data.tokens // self.data.length // self.batch


@dataclass(frozen=True)
class Run:
    """One training."""

    task: Task
    epochs: int
    hyper: Hyper

    @property
    def key(self) -> str:
        texts = [text_sha256(f"{self.task.data.name}-{part}") for part in ("train", "valid")]
        text = json.dumps([VERSION, texts, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def flops(self) -> float:
        """6 for each weight of a product and each token, and 12 L T d for attention: forward, and twice that backward.
        """
        m, tokens = self.task.model, self.task.data.tokens * self.epochs
        return tokens * (6 * (parameters(m) - m.vocab_size * m.dim) + 12 * m.n_layers * self.task.data.length * m.dim)


class Outcome(NamedTuple):
    """What came out of a run, in nats a token; NaN for one that diverged."""

    valid: float
    train: tuple[float, ...]  # the mean of each epoch
    diverged: int | None  # step

    @property
    def sound(self) -> bool:
        """Whether it can be used: a run may also diverge in its last step, whose loss nobody took."""
        return self.diverged is None and math.isfinite(self.valid)


def parameters(config: TransformerConfig, *, embedding: bool = True) -> int:
    """Parameters of a model with a head of its own; without `embedding` neither table nor head counts."""
    d, heads, kv = config.dim, config.n_heads, config.n_kv_heads
    block = config.head_dim * d * (2 * heads + 2 * kv) + 3 * d * config.hidden_dim + 2 * d
    return config.n_layers * block + d + (2 * config.vocab_size * d if embedding else 0)


def carry_out(runs: Sequence[Run], *, device: str = "auto", workers: int = 1, engine: str = "processes",
              keep: bool = False, most: int = 16, folder: Path | None = None) -> list[Outcome]:
    """The outcomes of runs, in their order. What is missing is trained, `most` at a time in one program, on `workers`
    processes or Ray tasks; with `keep` their weights stay, too, for `members`.

    Ray's tasks must see the same cache folder. Raises what a training raises, other outcomes being kept by then.
    """
    folder, device = folder or runs_folder(), str(pick_device(device))
    missing = [run for run in dict.fromkeys(runs) if not is_kept(run, weights=keep, folder=folder)]
    groups = [_Group(tuple(part), device, keep, folder) for part in grouped(missing, most)]
    groups.sort(key=lambda group: -sum(run.flops for run in group.runs))  # or the longest would come last, alone
    for _ in progress(parallel_map(_train, groups, workers=workers, engine=engine), desc="runs", total=len(groups),
                      unit="stack"):
        pass
    return [outcome(run, folder=folder) for run in runs]


class Stage(NamedTuple):
    """What one call of `carry_out` is asked for."""

    runs: Sequence[Run]
    keep: bool = False


def dry_run(stages: Sequence[Stage], *, then: str = "", folder: Path | None = None) -> str:
    """What these calls of `carry_out` would train one after the other, and what it would cost. `then` is a last line,
    for what nobody can list before it is trained."""
    asked: dict[Run, bool] = {}  # and whether with its weights
    missing, count = [], 0
    for stage in stages:
        for run in stage.runs:
            if run in asked and asked[run] >= stage.keep:
                continue
            asked[run], count = stage.keep, count + 1
            if not is_kept(run, weights=stage.keep, folder=folder):
                missing.append(run)
    lines = [f"{len(missing)} of {count} runs are missing, {sum(run.flops for run in missing):.1e} "
             "floating-point operations"]
    for run in missing:
        lost = "; its outcome is there, its weights are not" if is_kept(run, folder=folder) else ""
        lines.append(f"  {parameters(run.task.model):,} parameters, {run.task.data.tokens:,} tokens x {run.epochs}, "
                     f"lr {run.hyper.lr:g}, decay {run.hyper.weight_decay:g}, seed {run.hyper.init_seed}: "
                     f"{run.flops:.1e}{lost}")
    return "\n".join([*lines, then] if then else lines)


def is_kept(run: Run, *, weights: bool = False, folder: Path | None = None) -> bool:
    """Whether a run needs no training: its outcome is there, and its weights if they are asked for and exist."""
    folder = folder or runs_folder()
    if not (folder / f"{run.key}.json").is_file():
        return False
    return not weights or _weights(run, folder).is_file() or outcome(run, folder=folder).diverged is not None


def outcome(run: Run, *, folder: Path | None = None) -> Outcome:
    """The outcome of a run that was carried out. Raises FileNotFoundError for one that was not."""
    path = (folder or runs_folder()) / f"{run.key}.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run} was not carried out: no {path}. Train it with `carry_out([run])`")
    found = json.loads(path.read_text(encoding="utf-8"))["outcome"]
    nan = [math.nan if x is None else x for x in (found["valid"], *found["train"])]
    return Outcome(nan[0], tuple(nan[1:]), found["diverged"])


def members(runs: Sequence[Run], *, device: str = "auto", folder: Path | None = None) -> Stack:
    """The trained members of runs whose weights were kept. Raises FileNotFoundError if one's were not, and ValueError
    if one diverged."""
    folder = folder or runs_folder()
    if lost := [run.hyper for run in runs if is_kept(run, folder=folder) and not outcome(run, folder=folder).sound]:
        raise ValueError(f"{lost} diverged: leave them out, or train them with a lower learning rate")
    paths = [_weights(run, folder) for run in runs]
    if absent := [path.name for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"no weights {', '.join(absent)}: train the runs with `carry_out(runs, keep=True)`")
    return load_members(paths, device=pick_device(device))[0]


def runs_folder() -> Path:
    return cache_dir() / "ensembles" / "runs"


def grouped(runs: Sequence[Run], most: int) -> Iterator[list[Run]]:
    """Runs that can share a program: of one task and length, at most so many."""
    alike: dict[tuple[Task, int], list[Run]] = {}
    for run in runs:
        alike.setdefault((run.task, run.epochs), []).append(run)
    for group in alike.values():
        for start in range(0, len(group), most):
            yield group[start : start + most]


def worth_compiling(device: torch.device | str, steps: int) -> bool:
    """Whether a run is on a GPU with a compiler for it, and long enough to win back the time that compiling takes."""
    return torch.device(device).type == "cuda" and find_spec("triton") is not None and steps >= 2000


class _Group(NamedTuple):
    runs: tuple[Run, ...]
    device: str
    keep: bool
    folder: Path


def _train(group: _Group) -> None:
    runs, task = group.runs, group.runs[0].task
    name = hashlib.sha256(" ".join(run.key for run in runs).encode()).hexdigest()[:20]
    checkpoint = group.folder / f"unfinished-{name}.safetensors"
    text = task.data.corpus()
    config = RunConfig(runs[0].epochs, task.batch, precision=task.precision, checkpoint=checkpoint,
                       checkpoint_every=5000, compile=worth_compiling(group.device, runs[0].epochs * task.steps))
    found = train_members(text.train.to(group.device), task.model, [run.hyper for run in runs], config)
    valid = validation_loss(found.model, text.valid).tolist()
    for k, run in enumerate(runs):
        if group.keep and found.diverged[k] is None:
            card = {"what": "a member of chapter 5", "how_made": "minilab.ensembles.runs.carry_out",
                    "licence": LICENCE}
            save_member(found, k, _weights(run, group.folder), card=card)
        _write(run, Outcome(valid[k], _epochs(found, k, task.steps), found.diverged[k]), group.folder)
    checkpoint.unlink(missing_ok=True)


def _epochs(found: Members, k: int, steps: int) -> tuple[float, ...]:
    return tuple(found.losses[k].view(-1, steps).mean(dim=1).tolist())


def _write(run: Run, found: Outcome, folder: Path) -> None:
    sound = [None if found.diverged is not None or math.isnan(x) else x for x in (found.valid, *found.train)]
    content = {"run": asdict(run),
               "outcome": {"valid": sound[0], "train": sound[1:], "diverged": found.diverged}}
    with replacing(folder / f"{run.key}.json") as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _weights(run: Run, folder: Path) -> Path:
    return folder / f"{run.key}-weights.safetensors"
