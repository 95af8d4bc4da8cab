"""Double descent of least squares on random features: the peak at d = n, with no network in sight.

Wilson (2025), figure 1 (g), after the notebook of Maddox, Benton and Wilson (2020), whose recipe this is: n targets
y ~ N(0, 1), and d features y + N(0, 1) each, the first `informative` of them, beyond those noise alone. The fit is the
least-squares solution of smallest norm. Notable:

- At d = n one solution fits, and its norm explodes. With more features there are many, and the one of smallest norm is
  ever shorter: more parameters, a simpler fit.
- There are two effective dimensions, with the singular values s of the features. That of the data, Σ s²/(s² + l n),
  grows to n and shows no second descent. That of the posterior, Σ l n/(s² + l n) over the directions that the data
  touch, is what that notebook plots: it peaks where the test error does.
- An error is relative, |X w - y| / |y|: predicting 0 has 1.

Shapes: d numbers of features as asked for (F of them), R repeats, n samples.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.pacbayes.phenomena.dimension import effective_dimension


@dataclass(frozen=True)
class FeaturesConfig:
    """What is fitted. The defaults are the notebook's, with fewer and wider steps in d, and repeats."""

    n: int = 200  # samples to fit, and as many to test
    features: tuple[int, ...] = (5, 20, 50, 100, 150, 180, 190, 195, 200, 205, 210, 225, 250, 300, 400, 800, 1500)
    informative: int = 1000
    ridge: float = 0.001  # the l of the effective dimensions; the fit has none
    repeats: int = 5
    seed: int = 0


class Descent(NamedTuple):
    """One row a number of features, one column a repeat."""

    train_error: Float[Tensor, "F R"]
    test_error: Float[Tensor, "F R"]
    norm: Float[Tensor, "F R"]  # of the weights
    data_dimension: Float[Tensor, "F R"]
    posterior_dimension: Float[Tensor, "F R"]


def descent(config: FeaturesConfig | None = None) -> Descent:
    """Fit every number of features, each time to fresh data."""
    config = config or FeaturesConfig()
    generator = torch.Generator().manual_seed(config.seed)
    rows = [[_fit(d, config, generator) for _ in range(config.repeats)] for d in config.features]
    return Descent(*torch.tensor(rows, dtype=torch.double).movedim(2, 0))


def draw(d: int, config: FeaturesConfig, generator: torch.Generator) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n"]]:
    """n samples of d features, and their targets."""
    y = torch.randn(config.n, generator=generator, dtype=torch.double)
    X = torch.randn(config.n, d, generator=generator, dtype=torch.double)
    X[:, : config.informative] += y[:, None]
    return X, y


def minimum_norm(X: Float[Tensor, "n d"], y: Float[Tensor, "n"]) -> tuple[Float[Tensor, "d"], Float[Tensor, "r"]]:
    """The shortest w of those that fit best, and the singular values of X that are not 0."""
    U, s, Vh = torch.linalg.svd(X, full_matrices=False)
    kept = s > s[0] * max(X.shape) * torch.finfo(s.dtype).eps
    return Vh[kept].T @ ((U[:, kept].T @ y) / s[kept]), s[kept]


def _fit(d: int, config: FeaturesConfig, generator: torch.Generator) -> tuple[float, ...]:
    X, y = draw(d, config, generator)
    test_X, test_y = draw(d, config, generator)
    w, s = minimum_norm(X, y)
    decided = float(effective_dimension(s.square(), config.ridge * config.n))
    return (float((X @ w - y).norm() / y.norm()), float((test_X @ w - test_y).norm() / test_y.norm()), float(w.norm()),
            decided, len(s) - decided)
