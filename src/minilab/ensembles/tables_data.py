"""How sure it is what a recipe saves in text: the sums behind `tables.saved`.

How many times the text the standard recipe would need for a loss L, where it has the loss S with n tokens:

    by its law          ((S - C) / (L - C))^(1 / beta), the law made to go through S at n: `limits.data_efficiency`
    along lines         from one of its losses to the next: `limits.efficiency_between`

An interval is of the seeds: at each count those of the best size are drawn anew, with both recipes, and the law, its
exponent and floor are found again each time. It does not hold what a search made again would move, nor that the law
misses its points, nor other text. Of members a record of `ensembles/data` holds one average a size, and nothing of how
far another four would be from it; only their limit has an error by members.

Shapes: n token counts, S seeds, R draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from minilab.ensembles.limits import Efficiency, data_efficiency, efficiency_between
from minilab.ensembles.scaling import Interval, PowerLaw, bootstrap, percentiles, resampled
from minilab.ensembles.study import named


@dataclass(frozen=True)
class Saved:
    """What one recipe saves at one token count, with intervals of 95 percent by seeds."""

    law: PowerLaw  # of the standard recipe, over tokens, made to go through its loss
    between: float  # of the least measured loss, along straight lines
    between_span: Interval
    best: Efficiency  # of the same, by the law
    limit: Efficiency  # of the limit over sizes, by the law


def savings(results: Mapping[str, Any], *, draws: int = 1000, seed: int = 0) -> dict[str, dict[str, Saved]]:
    """Of a record of `ensembles/data`, for each token count, from the least on: what "regularized" and "joint" save.

    Raises ValueError for fewer than two seeds at a place that is the best one.
    """
    rows = dict(sorted(results["rows"].items(), key=lambda item: int(item[0])))
    tokens, losses = [int(n) for n in rows], [row["standard"]["loss"] for row in rows.values()]
    seeds = [_best(row["standard"]) for row in rows.values()]
    usual = resampled(seeds, np.random.default_rng(seed), draws=draws)  # R n
    laws = bootstrap(tokens, seeds, np.random.default_rng(seed), draws=draws)  # of the same draws, one by one
    law, found = PowerLaw(*(results["laws"]["standard"][key] for key in ("A", "alpha", "E"))), {}
    generator = np.random.default_rng(seed + 1)
    for i, (n, row) in enumerate(rows.items()):
        heavy, joint = row["regularized"], row["joint"]
        sizes = [heavy["sizes"][named(count)]["losses"] for count in results["parameters"]]
        drawn = {
            "regularized": (resampled([_best(heavy)], generator, draws=draws)[:, 0],
                            bootstrap(results["parameters"], sizes, generator, draws=draws, alpha=1.0).E),
            "joint": (np.full(draws, joint["best"]),
                      joint["loss"] + joint["standard_error"] * generator.standard_normal(draws))}
        through = _through(law, tokens[i], losses[i]), _through(laws, tokens[i], usual[:, i])
        found[n] = {recipe: Saved(
            through[0], efficiency_between(row[recipe]["best"], tokens, losses, at=tokens[i]),
            percentiles(np.array([efficiency_between(float(a), tokens, b, at=tokens[i])
                                  for a, b in zip(best, usual, strict=True)])),
            *(data_efficiency(row[recipe][kind], through[0], at=tokens[i], losses=some, laws=through[1])
              for kind, some in (("best", best), ("loss", limit)))) for recipe, (best, limit) in drawn.items()}
    return found


def _through(law: PowerLaw, tokens: int, loss: float | Float[np.ndarray, "R"]) -> PowerLaw:
    """A law of the same exponent and floor that has this loss there."""
    return PowerLaw((loss - law.E) * tokens**law.alpha, law.alpha, law.E)


def _best(row: Mapping[str, Any]) -> list[float]:
    """The losses of the seeds at the size whose mean is the least."""
    return min(row["sizes"].values(), key=lambda size: size["loss"])["losses"]
