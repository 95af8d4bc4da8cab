"""What the experiments share: sizes, grids, and how runs are carried out and told."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean

from minilab.ensembles.recipes import Grid, Place, runs_at, time_scale
from minilab.ensembles.runs import Data, Outcome, Run, Task, carry_out, parameters
from minilab.nn.transformer import TransformerConfig


def sized(dim: int, layers: int, *, vocab: int, length: int) -> TransformerConfig:
    """A decoder as the paper's, made narrow: heads of 32 numbers or less, a feed-forward of 3.5 times the width."""
    heads = max(2, dim // 32)
    return TransformerConfig(vocab, dim, layers, heads, heads, hidden_dim=7 * dim // 2, context=length,
                             tie_embeddings=False)


@dataclass(frozen=True)
class Study:
    """A ladder of sizes on one corpus, and where the search for each begins."""

    data: Data
    models: tuple[TransformerConfig, ...]  # from small to large
    standard: tuple[Place, ...]  # where the search of the standard recipe begins, one a size
    regularized: tuple[Place, ...]
    grid: Grid = Grid()
    batch: int = 2  # windows a step
    precision: str = "fp32"
    seeds: tuple[int, ...] = (0, 1, 2)  # at the places that a search has found
    workers: int = 1  # processes that train
    most: int = 16  # runs in one program
    engine: str = "processes"  # whose workers they are: this machine's "processes", or tasks of "ray"

    def __post_init__(self) -> None:
        if not len(self.models) == len(self.standard) == len(self.regularized):
            raise ValueError(f"{len(self.models)} sizes, {len(self.standard)} and {len(self.regularized)} places: "
                             "give a place of each recipe a size")

    def task(self, size: int) -> Task:
        return Task(self.data, self.models[size], self.batch, self.precision)

    @property
    def names(self) -> list[str]:
        """Of the sizes: their parameters in thousands or millions."""
        return [named(parameters(model)) for model in self.models]

    def carry(self, runs: Sequence[Run], device: str, *, keep: bool = False) -> list[Outcome]:
        return carry_out(runs, device=device, workers=self.workers, engine=self.engine, keep=keep,
                         most=self.most)

    def on(self, tokens: int) -> "Study":
        """The same with another number of tokens."""
        return replace(self, data=replace(self.data, tokens=tokens))


def named(count: float) -> str:
    return f"{count / 1e6:.3g}M" if count >= 1e6 else f"{count / 1e3:.3g}k"


def told(task: Task, place: Place, outcomes: Sequence[Outcome]) -> dict:
    """A place and what its sound runs came to, as a record holds them; `diverged` counts the others, if any."""
    sound = [found for found in outcomes if found.sound]
    row = {"epochs": place.epochs, "lr": place.lr, "weight_decay": place.weight_decay,
           "time_scale": min(time_scale(task, place), 1e9),  # JSON has no infinity
           "losses": [found.valid for found in sound],
           "loss": mean(found.valid for found in sound) if sound else math.nan,
           "train": mean(found.train[-1] for found in sound) if sound else math.nan}
    return row if len(sound) == len(outcomes) else row | {"diverged": len(outcomes) - len(sound)}


def place_of(row: dict) -> Place:
    """The place that `told` told."""
    return Place(row["epochs"], row["lr"], row["weight_decay"])


def best(task: Task, places: Sequence[Place], seeds: Sequence[int], outcomes: Sequence[Outcome]) -> dict:
    """The best of several places by the mean over seeds; `outcomes` are in the order of places, then seeds."""
    n = len(seeds)
    rows = [told(task, place, outcomes[i * n : (i + 1) * n]) for i, place in enumerate(places)]
    sound = [row for row in rows if "diverged" not in row]  # a place that some seeds do not survive is none
    if not sound:
        raise ValueError(f"all {len(places)} places diverged: give lower learning rates")
    return min(sound, key=lambda row: row["loss"])


def runs_of(task: Task, places: Sequence[Place], seeds: Sequence[int]) -> list[Run]:
    return [run for place in places for run in runs_at(task, place, seeds)]


# Two cores: 32,768 tokens, 128 steps an epoch. The places are those near which the searches end.
LAPTOP_DATA = Data(32_768)
LAPTOP = Study(
    LAPTOP_DATA,
    models=tuple(sized(d, n, vocab=1024, length=128) for d, n in ((16, 2), (32, 2), (48, 3), (80, 3))),
    standard=(Place(16, 1e-2, 0.1), Place(16, 1e-2, 0.1), Place(8, 1e-2, 0.1), Place(8, 3e-3, 0.1)),
    regularized=(Place(16, 1e-2, 0.8), Place(16, 1e-2, 0.8), Place(16, 1e-2, 0.8), Place(16, 3e-3, 1.6)),
    workers=2, most=4,
)
# One GPU: 2^20 tokens, 256 steps an epoch of 4,096 tokens. 0.4 to 8 parameters a token; the paper has 0.75 to 7.
CARD_DATA = Data(2**20, vocab=2048, length=256, valid_tokens=2**18)
CARD = Study(
    CARD_DATA,
    models=tuple(sized(d, n, vocab=2048, length=256) for d, n in ((64, 2), (96, 4), (160, 5), (288, 6))),
    standard=(Place(16, 3e-3, 0.1), Place(8, 3e-3, 0.1), Place(8, 3e-3, 0.1), Place(4, 3e-3, 0.1)),
    regularized=(Place(32, 3e-3, 0.8), Place(16, 3e-3, 1.6), Place(16, 3e-3, 1.6), Place(16, 3e-3, 1.6)),
    batch=16, precision="bf16", workers=8, most=8,
)
# The same, with searches that begin where those of `sizes` ended.
TUNED = replace(
    CARD,
    standard=(Place(16, 1e-2, 0.1), Place(16, 3e-3, 0.1), Place(8, 1e-3, 0.1), Place(8, 1e-3, 0.1)),
    regularized=(Place(64, 3e-3, 1.6), Place(32, 3e-3, 1.6), Place(16, 3e-3, 1.6), Place(16, 3e-3, 3.2)),
)
# Two of its searches end at the lowest rate: here is one below it.
LOWER = replace(TUNED, grid=replace(TUNED.grid, lr=(3e-4, *TUNED.grid.lr)))
# For tests and the live preset: it has learned next to nothing.
QUICK = Study(
    Data(1024, length=32, valid_tokens=512),
    models=tuple(sized(d, 1, vocab=1024, length=128) for d in (8, 12, 16, 24)),
    standard=(Place(2, 1e-2, 0.1),) * 4, regularized=(Place(2, 1e-2, 0.4),) * 4,
    grid=Grid((1, 2), (1e-2,), (0.1, 0.4)), seeds=(0, 1),
)
