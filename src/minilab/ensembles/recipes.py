"""Recipes: what is tuned, over which values, and how the members of an ensemble follow from it.

Kim et al. (2025), sections 3 to 5. A place is (epochs, learning rate, weight decay). Three recipes differ in what they
may choose of it:

    standard      weight decay 0.1, as everybody has it; epochs and learning rate tuned
    regularized   all three tuned, for each size
    ensemble      members at the regularized place, or at twice its epochs and half its decay: worse alone, better
                  together

What a weight decay means depends on the learning rate and on the steps. AdamW's weights are a moving average of its
updates that forgets in 1/(lr * decay) steps; `time_scale` counts it in epochs. The paper's best places have 0.26 to
0.52 epochs, whatever their decay.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from minilab.ensembles.members import Hyper
from minilab.ensembles.runs import Run, Task

USUAL_DECAY = 0.1


@dataclass(frozen=True)
class Place:
    """What is tuned."""

    epochs: int
    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Grid:
    """The values that each part of a place may have, from small to large."""

    epochs: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    lr: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2)
    weight_decay: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)

    def __post_init__(self) -> None:
        for name in ("epochs", "lr", "weight_decay"):
            values = getattr(self, name)
            if not values or list(values) != sorted(set(values)):
                raise ValueError(f"the grid's {name} are {values}: give at least one value, each once, in their order")


def standard(grid: Grid) -> Grid:
    """The same grid for the standard recipe, which does not tune the decay."""
    return Grid(grid.epochs, grid.lr, (USUAL_DECAY,))


def runs_at(task: Task, place: Place, seeds: Sequence[int]) -> list[Run]:
    """A run a seed, which sets both where it begins and the order of its data."""
    return [Run(task, place.epochs, Hyper(place.lr, place.weight_decay, seed, seed)) for seed in seeds]


def for_ensembles(place: Place) -> Place:
    """The paper's rule for many members: twice the epochs, half the decay (its section 4.2)."""
    return Place(2 * place.epochs, place.lr, place.weight_decay / 2)


def time_scale(task: Task, place: Place) -> float:
    """Epochs in which AdamW forgets at its peak learning rate: 1 / (lr * decay * steps an epoch); infinite without
    decay (Wang & Aitchison, 2024)."""
    rate = place.lr * place.weight_decay * task.steps
    return 1 / rate if rate else float("inf")
