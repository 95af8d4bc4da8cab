"""The competition of lab 5: the lowest loss that a little text and a fixed amount of arithmetic can buy.

An entry is a handful of numbers, and the course trains it. So nothing that a student writes is run, and no training
can look at what is held out. Notable:

- A seed draws both the text to learn from and the windows that are held out. Students tune on seed 0. With another seed
  an entry shows what of its tuning was luck with those windows, of which one in ten comes again.
- What is limited is arithmetic, not parameters or members: a larger model, more of them and more epochs compete.

Shapes: K members, n and m windows of T tokens and one more.
"""

import ast
import csv
import functools
import re
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from minilab.core.files import replacing
from minilab.ensembles.data import corpus
from minilab.ensembles.evaluate import AVERAGES, subset_losses
from minilab.ensembles.members import Hyper, RunConfig, train_members
from minilab.ensembles.runs import Data, Run, Task
from minilab.ensembles.study import sized

DATA = Data(8192, length=64, valid_tokens=32_768)
BATCH = 2  # windows a step: 64 steps an epoch
BUDGET = 3.5e10  # floating-point operations of a training, of all members together
LEVEL = 0.02  # nats: twice what other seeds of the members move a loss by
GIVES = re.compile(r"\bentry\s*(\[[^]]*\]\s*)?[|]?=(?!=)")  # in a cell that is no Python


@dataclass(frozen=True)
class Entry:
    """What a student chooses. Raises ValueError for what cannot be trained, and for what costs more than `BUDGET`."""

    dim: int = 16
    layers: int = 1
    epochs: int = 8
    lr: float = 1e-2
    weight_decay: float = 0.1
    members: int = 1
    average: str = "logits"

    def __post_init__(self) -> None:
        whole = {name: getattr(self, name) for name in ("dim", "layers", "epochs", "members")}
        if bad := [f"{name}={value!r}" for name, value in whole.items() if type(value) is not int or value < 1]:
            raise ValueError(f"{', '.join(bad)}: give whole numbers of at least 1")
        if self.dim % 4:
            raise ValueError(f"dim={self.dim}: give a multiple of 4, for two heads of an even width")
        if self.average not in AVERAGES:
            raise ValueError(f"average={self.average!r}: choose {' or '.join(AVERAGES)}")
        if self.flops > BUDGET:
            raise ValueError(f"the entry costs {self.flops:.2e} operations of {BUDGET:.2e}: take fewer epochs or "
                             "members, or a smaller model")

    def run(self, k: int) -> Run:
        """The training of member k. Members differ by their seed."""
        task = Task(DATA, sized(self.dim, self.layers, vocab=DATA.vocab, length=DATA.length), BATCH)
        return Run(task, self.epochs, Hyper(self.lr, self.weight_decay, k, k))

    @property
    def runs(self) -> list[Run]:
        return [self.run(k) for k in range(self.members)]

    @property
    def flops(self) -> float:
        return self.members * self.run(0).flops  # without a list of members: an entry may ask for a billion


BASELINE = Entry(lr=3e-3)  # one model with a decay of 0.1, at the better of two rates and its best number of epochs


def split(seed: int) -> tuple[Int64[Tensor, "n T1"], Int64[Tensor, "m T1"]]:
    """Windows to learn from, and windows that are held out, from other pages."""
    text, generator = corpus(DATA.name, vocab_size=DATA.vocab, length=DATA.length), torch.Generator().manual_seed(seed)
    train, valid = (part[torch.randperm(len(part), generator=generator)[: tokens // DATA.length]]
                    for part, tokens in ((text.train, DATA.tokens), (text.valid, DATA.valid_tokens)))
    return train, valid


@functools.lru_cache(maxsize=64)
def score(entry: Entry, seed: int) -> float:
    """Train an entry on the text that a seed draws; its loss on what is held out, in nats a token. NaN if it diverged.
    """
    train, valid = split(seed)
    run = entry.runs[0]
    found = train_members(train, run.task.model, [run.hyper for run in entry.runs],
                          RunConfig(entry.epochs, BATCH, precision="fp32"))
    if any(step is not None for step in found.diverged):
        return float("nan")
    everyone = torch.ones(1, entry.members, dtype=torch.bool)
    losses = subset_losses(lambda tokens: found.model(tokens.expand(entry.members, *tokens.shape)), valid, everyone,
                           average=entry.average)
    return float(losses.mean())


def read_entry(notebook: Path) -> Entry:
    """The last `entry = {...}` of a notebook, taken as text. Raises ValueError if there is none, if it is no entry, and
    if what follows may change it, since then another entry would be ranked than the student's.
    """
    import nbformat

    found, doubt = None, ""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type != "code" or "entry" not in cell.source:
            continue
        try:
            statements = ast.parse(cell.source).body
        except SyntaxError:  # a magic, or a cell that the student left broken
            doubt = cell.source if GIVES.search(cell.source) else doubt
            continue
        for line in statements:
            if isinstance(line, ast.Assign) and any(getattr(name, "id", "") == "entry" for name in line.targets):
                found, doubt = line.value, ""
            elif any(map(_changes, ast.walk(line))):
                doubt = ast.unparse(line)
    if doubt:
        raise ValueError(f"{notebook.name} may change its entry in {doubt[:200]!r}: write one dict, in a cell without "
                         "magics, and change it nowhere else")
    if found is None:
        raise ValueError(f"no line `entry = {{...}}` in {notebook.name}: the entry is one dict, written out")
    try:
        return Entry(**ast.literal_eval(found))
    except (TypeError, ValueError) as error:
        names = ", ".join(field.name for field in fields(Entry))
        raise ValueError(f"{ast.unparse(found)[:200]} is no entry ({error}): write numbers for {names}") from error


def _changes(node: ast.AST) -> bool:
    """Whether it gives `entry` another value, or something in it, or calls what changes a dict."""
    if isinstance(node, ast.Call):
        node = node.func
        changes = getattr(node, "attr", "") in ("clear", "pop", "popitem", "setdefault", "update")
    else:
        changes = isinstance(getattr(node, "ctx", None), ast.Store | ast.Del)
    return changes and getattr(getattr(node, "value", node), "id", "") == "entry"


def leaderboard(submissions: Path, out: Path, *, seed: int) -> Path:
    """Rank the notebooks in a folder, and the course's baseline, in a CSV file; return its path.

    Take a seed that students do not know. A rank counts those who are better by more than `LEVEL`, so that others share
    it. An entry that cannot be read or trained stands last, without a rank and with the reason.
    """
    files = sorted(Path(submissions).rglob("*.ipynb"))
    if not files:
        raise ValueError(f"no .ipynb file in {submissions}: give the folder of the submitted notebooks")
    rows = []
    for file in (None, *files):
        name = "the course's baseline" if file is None else file.relative_to(submissions).as_posix()
        try:
            entry = BASELINE if file is None else read_entry(file)
            loss = score(entry, seed)
            rows.append((loss, name, entry, "" if loss == loss else "diverged"))
        except Exception as error:  # a student can hand in anything; the others must still be ranked
            rows.append((float("nan"), name, "", f"{type(error).__name__}: {error}"))
    rows.sort(key=lambda row: (row[0] != row[0], row[0], row[1]))
    with replacing(Path(out)) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["rank", "file", "loss", "entry", "error"])
        for loss, name, entry, error in rows:
            rank = 1 + sum(other < loss - LEVEL for other, *_ in rows) if loss == loss else ""
            table.writerow([rank, name, f"{loss:.4f}", entry, error])
    return Path(out)
