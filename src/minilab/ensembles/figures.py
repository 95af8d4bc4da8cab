"""The figures of chapter 5: the results of an experiment in, a matplotlib figure out. Losses are in nats a token.

A file sorts the rows of a record as words, so each figure puts them in the order of the numbers that they stand for.
Where an asymptote lies far below the losses, the axis ends above it.

Shapes: n points, K members.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minilab.core.style import INK, PALETTE, figure
from minilab.ensembles.copying import COPIES
from minilab.ensembles.scaling import Numbers, PowerLaw
from minilab.ensembles.study import named

Results = Mapping[str, Any]
LOSS = "loss (nats a token)"
SEED = {"marker": "o", "linestyle": "", "markersize": 3, "markeredgewidth": 0, "alpha": 0.6}


def epochs_sweep(results: Results) -> Figure:
    """Validation loss (solid, a dot a seed) and training loss (dashed) over epochs, a color for each weight decay.

    `results["rows"][decay][epochs]` holds `loss`, the `losses` of its seeds and `train`; both keys are texts.
    """
    fig, ax = figure()
    counts: set[float] = set()
    for color, (decay, rows) in zip(cycle(PALETTE), _by_number(results["rows"]), strict=False):
        epochs, rows = zip(*_by_number(rows), strict=True)
        counts.update(epochs)
        ax.plot(epochs, [row["loss"] for row in rows], color=color, label=f"decay {decay:g}, validation")
        ax.plot(epochs, [row["train"] for row in rows], "--", color=color, label=f"decay {decay:g}, training")
        for n, row in zip(epochs, rows, strict=True):
            ax.plot([n] * len(row["losses"]), row["losses"], color=color, **SEED)
    _ticks(ax, sorted(counts))
    ax.set(xlabel="epochs", ylabel=LOSS)
    return _with_legend(fig, ax)


def decay_sweep(results: Results) -> Figure:
    """Validation loss of each size over weight decay, and over AdamW's time scale; a star is the least.

    Sizes differ in learning rate, so a decay does not say the time scale: it has a picture of its own.
    `results["rows"][size][decay]` holds `loss` and `time_scale` (epochs); `parameters` lists N of the sizes.
    """
    fig, (left, right) = figure(1, 2, height=3.6, sharey=True)
    every: set[float] = set()
    for color, N in zip(cycle(PALETTE), results["parameters"], strict=False):
        found = _by_number(results["rows"][named(N)])
        decays, rows = [decay for decay, _ in found], [row for _, row in found]
        every.update(decays)
        losses, scales = [row["loss"] for row in rows], [row["time_scale"] for row in rows]
        least = int(np.argmin(losses))
        for ax, x in ((left, decays), (right, scales)):
            kept = [i for i, decay in enumerate(decays) if decay > 0]  # without decay there is no time scale
            ax.plot([x[i] for i in kept], [losses[i] for i in kept], "o-", color=color, label=named(N))
            if least in kept:
                ax.plot(x[least], losses[least], "*", color=color, markersize=14)
        if 0 in decays:
            left.axhline(losses[decays.index(0)], color=color, linewidth=1, linestyle=":")
    _ticks(left, sorted(every - {0}), size=8)
    right.set_xscale("log")
    left.set(xlabel="weight decay λ (dotted: none)", ylabel=LOSS)
    right.set(xlabel="memory 1/(ηλS) (epochs)")
    return _with_legend(fig, left, columns=4)


def k_curves(results: Results, *, average: str = "logits") -> Figure:
    """Loss over the number of members for each choice of epochs and decay, with the fit A/K + E and its limit (dotted).

    `results["places"][name]` holds `epochs`, `weight_decay`, and under the average `losses` (K), the `standard_error`
    of all but the last (the band, twice it to each side) and the law under `1/K`.
    """
    fig, ax = figure(height=3.8)
    places = sorted(results["places"].values(), key=lambda row: (row["epochs"], row["weight_decay"]))
    for color, row in zip(cycle(PALETTE), places, strict=False):
        curve, label = row[average], f"{row['epochs']} epochs, decay {row['weight_decay']:g}"
        losses, error = np.array(curve["losses"]), np.array(curve["standard_error"])
        K = np.arange(1, len(losses) + 1)
        ax.fill_between(K[:-1], losses[:-1] - 2 * error, losses[:-1] + 2 * error, color=color, alpha=0.15, linewidth=0)
        _law(ax, K, losses, curve["1/K"], color=color, label=label)
    most = max(len(row[average]["losses"]) for row in places)
    _ticks(ax, [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= 8 * most])
    ax.set(xlabel="members K", ylabel=LOSS)
    return _with_legend(fig, ax)


def size_law(results: Results, *, law: str = "free") -> Figure:
    """Loss over parameters for each recipe, its law, the asymptote (dotted) and the profile interval of that (shaded).

    `results["recipes"][recipe]` holds `sizes`, each with the `loss` and `losses` of its seeds (dots; a band from least
    to most), and under `law` two laws of which one is chosen ("free", "alpha = 1"). `parameters` lists N of the sizes.
    A standard recipe follows no such law once more parameters raise its loss: look at its points.
    """
    fig, ax = figure(height=3.8)
    N, shown = results["parameters"], []
    recipes = dict(sorted(results["recipes"].items(), key=lambda row: -_losses(row[1]["sizes"], N).min()))
    for color, (recipe, rows) in zip(cycle(PALETTE), recipes.items(), strict=False):
        losses, fit = _losses(rows["sizes"], N), rows["law"][law]
        seeds = [rows["sizes"][named(n)]["losses"] for n in N]
        ax.fill_between(N, [min(some) for some in seeds], [max(some) for some in seeds], color=color, alpha=0.15,
                        linewidth=0)
        for n, some in zip(N, seeds, strict=True):
            ax.plot([n] * len(some), some, color=color, **SEED)
        _law(ax, N, losses, fit, color=color, label=recipe)
        shown.append(losses)
    _floor(ax, np.concatenate(shown))
    for color, rows in zip(cycle(PALETTE), recipes.values(), strict=False):
        _interval(ax, rows["law"][law], color=color)
    _ticks(ax, N, [named(n) for n in N])
    ax.set(xlabel="parameters N", ylabel=LOSS)
    return _with_legend(fig, ax)


def scaling_plane(results: Results) -> Figure:
    """Is it better to train one larger model or more members? Both over all parameters together.

    `results["sizes"][name]` holds the `single` model's loss when it is tuned alone, and the `losses` (K) of an
    ensemble; `parameters` lists N of the sizes.
    """
    fig, ax = figure(height=3.8)
    N = results["parameters"]
    rows = [results["sizes"][named(n)] for n in N]
    ax.plot(N, [row["single"] for row in rows], "s-", color=INK, label="one model, tuned")
    for color, n, row in zip(cycle(PALETTE), N, rows, strict=False):
        K = np.arange(1, len(row["losses"]) + 1)
        ax.plot(n * K, row["losses"], "o-", color=color, label=f"members of {named(n)}")
    _ticks(ax, N, [named(n) for n in N])
    ax.set(xlabel="parameters of all members together", ylabel=LOSS)
    return _with_legend(fig, ax)


def data_law(results: Results) -> Figure:
    """Loss over unique tokens for each recipe, with its law; and how many times the data the standard recipe needs.

    `results["rows"][tokens][recipe]["loss"]`, with tokens as text, `results["laws"][recipe]`, and
    `results["efficiency"][tokens][recipe]`, None where the standard recipe never gets there. Hollow, where a loss is
    the limit of a fit: the `best` that was measured, and its efficiency.
    """
    fig, (left, right) = figure(1, 2, height=3.6)
    tokens, rows = zip(*_by_number(results["rows"]), strict=True)
    saved = [row for _, row in _by_number(results["efficiency"])]
    losses = {recipe: np.array([row[recipe]["loss"] for row in rows]) for recipe in results["laws"]}
    recipes = sorted(losses, key=lambda recipe: -losses[recipe].min())
    for color, recipe in zip(cycle(PALETTE), recipes, strict=False):
        _law(left, tokens, losses[recipe], results["laws"][recipe], color=color, label=recipe, beyond=2)
        for name, style in ((recipe, {"linestyle": "-"}),
                            (f"{recipe}, nothing extrapolated", {"linestyle": "--", "markerfacecolor": "none"})):
            right.plot(tokens, [row.get(name) or np.nan for row in saved], marker="o", color=color, **style)
        left.plot(tokens, [row[recipe].get("best", np.nan) for row in rows], "o", color=color, markerfacecolor="none")
    _floor(left, np.concatenate(list(losses.values())))
    for ax in (left, right):
        _ticks(ax, tokens, [named(n) for n in tokens], size=8)
    left.set(xlabel="unique tokens D", ylabel=LOSS)
    right.set(xlabel="unique tokens D", ylabel="data efficiency D′/D (times)", ylim=(0, None))
    return _with_legend(fig, left, columns=3)


def students(results: Results, *, marks: Sequence[str] = ("regularized", "ensemble")) -> Figure:
    """Losses of students and of their teachers, the best at the bottom; dashed lines are what is to be bettered.

    `results["rows"][arm]["losses"]` holds one loss a seed; `marks` are the arms that the lines go through.
    """
    fig, ax = figure(height=3.4)
    rows = {arm: row["losses"] for arm, row in results["rows"].items()}
    arms = sorted(rows, key=lambda arm: -float(np.mean(rows[arm])))
    for color, mark in zip(PALETTE, marks, strict=False):
        ax.axvline(float(np.mean(rows[mark])), color=color, linestyle="--", linewidth=1)
    for y, arm in enumerate(reversed(arms)):
        color = PALETTE[marks.index(arm)] if arm in marks else INK
        ax.plot([np.mean(rows[arm])], [y], "o", color=color, markersize=7)
        ax.plot(rows[arm], [y] * len(rows[arm]), color=color, **SEED)
    ax.set_yticks(range(len(arms)), list(reversed(arms)))
    ax.set(xlabel=LOSS)
    ax.grid(axis="y", visible=False)
    return fig


def copying(results: Results) -> Figure:
    """Members as they learn: the loss on text held out, and nats saved on random tokens that are read again.

    `results` holds `epochs` (n looks), and `valid` and `saved` (n K). A color says who copies at the end.
    """
    fig, (left, right) = figure(1, 2, height=3.4)
    valid, saved = np.array(results["valid"]), np.array(results["saved"])
    for copies, color, label in ((True, PALETTE.blue, "copies in the end"), (False, PALETTE.orange, "does not")):
        for k in np.flatnonzero((saved[-1] > COPIES) == copies):
            left.plot(results["epochs"], valid[:, k], color=color, label=label)
            right.plot(results["epochs"], saved[:, k], color=color)
            label = None
    left.set(xlabel="epochs", ylabel=LOSS)
    right.set(xlabel="epochs", ylabel="saved by reading again (nats)")
    return _with_legend(fig, left, columns=2)


def chained(results: Results, *, average: str = "logits") -> Figure:
    """Members that learn from the one before (solid) beside independent ones (dashed), a color for each place.

    Left, each member's own loss, which has a mean where members are independent; a dot is a chain's. Right, the first k
    of the chain averaged, and any k of the others.
    `results["chains"][name]` holds `epochs`, `weight_decay`, and losses (K): of each of the `chained`, and of the
    `independent`, their `own` and of the `average`, which for the latter is under `any`.
    """
    fig, (left, right) = figure(1, 2, height=3.6)
    places = sorted(results["chains"].values(), key=lambda row: (row["epochs"], row["weight_decay"]))
    for color, row in zip(cycle(PALETTE), places, strict=False):
        place, others = f"{row['epochs']} epochs, decay {row['weight_decay']:g}", row["independent"]
        k = np.arange(1, len(others["own"]) + 1)
        mean = [np.mean(others["own"])] * len(k)
        for ax, key, apart in ((left, "own", mean), (right, average, others["any"][average])):
            losses = np.array([chain[key] for chain in row["chained"]])
            ax.plot(k, apart, "--", color=color, label=f"{place}, independent")
            ax.plot(k, losses.mean(axis=0), color=color, label=f"{place}, chained")
            for chain in losses:
                ax.plot(k, chain, color=color, **SEED)
            ax.set_xticks(k)
    left.set(xlabel="place in the chain", ylabel=LOSS)
    right.set(xlabel="members averaged")
    return _with_legend(fig, left, size=8)


def _law(ax: Axes, x: Numbers, losses: Float[np.ndarray, "n"], law: Results, *, color: str, label: str,
         beyond: float = 8) -> None:
    """Points, the law on to so many times the last x, and its asymptote."""
    at = np.geomspace(x[0], beyond * x[-1], 200)
    ax.plot(x, losses, "o", color=color)
    ax.plot(at, PowerLaw(law["A"], law["alpha"], law["E"])(at), color=color, label=label)
    ax.axhline(law["E"], color=color, linewidth=1, linestyle=":")


def _interval(ax: Axes, law: Results, *, color: str) -> None:
    """The interval of the asymptote. An open side ends with the axis, which stays as it is."""
    if "profile" not in law:
        return
    bottom, top = ax.get_ylim()
    low, high = (end if open_ else value for value, open_, end in
                 zip(law["profile"], law["open"], (bottom, top), strict=True))
    ax.axhspan(max(low, bottom), min(high, top), color=color, alpha=0.12, linewidth=0)
    ax.set_ylim(bottom, top)


def _floor(ax: Axes, losses: Float[np.ndarray, "n"]) -> None:
    """Ends the axis near the losses if an asymptote lies further below them than they are apart."""
    low, high = float(losses.min()), float(losses.max())
    bottom, apart = ax.get_ylim()[0], high - low
    ax.set_ylim(bottom if bottom > low - apart - 0.05 else low - apart / 4, high + 0.08 * apart + 0.01)


def _losses(sizes: Results, N: Sequence[float]) -> Float[np.ndarray, "n"]:
    return np.array([sizes[named(n)]["loss"] for n in N])


def _by_number(rows: Mapping[str, Any]) -> list[tuple[float, Any]]:
    """Rows in the order of the numbers that name them."""
    return sorted(((float(name), row) for name, row in rows.items()), key=lambda row: row[0])


def _ticks(ax: Axes, values: Sequence[float], labels: Sequence[str] | None = None, *, size: float = 10) -> None:
    """A logarithmic axis with these ticks alone."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(values, labels or [f"{value:g}" for value in values], fontsize=size)
    ax.minorticks_off()


def _with_legend(fig: Figure, ax: Axes, *, columns: int = 2, size: float | None = None) -> Figure:
    fig.legend(*ax.get_legend_handles_labels(), ncols=columns, loc="outside lower center", frameon=False, fontsize=size)
    return fig
