"""A small classification task, and labels that were altered.

Shapes: N samples for training, M for testing, D inputs, S shares.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilab.pacbayes.data import Dataset


class Task(NamedTuple):
    """Inputs as rows of numbers near [0, 1], and labels from 0."""

    x: Float[Tensor, "N D"]
    y: Int[Tensor, "N"]
    test_x: Float[Tensor, "M D"]
    test_y: Int[Tensor, "M"]

    @property
    def classes(self) -> int:
        return int(torch.cat((self.y, self.test_y)).max()) + 1

    def generator(self, seed: int) -> torch.Generator:
        """Random numbers where the samples are."""
        return torch.Generator(self.x.device).manual_seed(seed)

    def first(self, n: int) -> "Task":
        """The same with n training samples. Raises ValueError if there are not as many."""
        if not 1 <= n <= len(self.x):
            raise ValueError(f"the task has {len(self.x)} training samples: give n from 1 to that, not {n}")
        return self._replace(x=self.x[:n], y=self.y[:n])

    def pair(self, first: int, second: int) -> "Task":
        """The samples of two classes, which become 0 and 1."""
        parts = []
        for x, y in ((self.x, self.y), (self.test_x, self.test_y)):
            chosen = (y == first) | (y == second)
            parts += [x[chosen], (y[chosen] == second).long()]
        return Task(*parts)


def rows(data: Dataset) -> Task:
    """A set of pictures as rows of numbers; bytes become shares of 255."""
    x, test_x = (part.flatten(1).float() / (255 if part.dtype == torch.uint8 else 1)
                 for part in (data.train_x, data.test_x))
    return Task(x, data.train_y, test_x, data.test_y)


def altered(y: Int[Tensor, "N"], shares: Sequence[float], classes: int, generator: torch.Generator
            ) -> Int[Tensor, "S N"]:
    """The labels with a share of them drawn anew, one row a share; a larger share alters what a smaller one does.

    A new label is uniform over all classes, and so is the old one now and then: at share 1 labels say nothing.
    Raises ValueError for a share outside [0, 1].
    """
    if not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"shares are {tuple(shares)}: give numbers from 0 to 1")
    order = torch.rand(len(y), generator=generator, device=y.device)
    new = torch.randint(classes, y.shape, generator=generator, device=y.device)
    return torch.stack([torch.where(order < share, new, y) for share in shares])
