"""The figures of chapter 2's experiments: a record in, a matplotlib figure out. Bars are 95 % intervals."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from torch import Tensor

from minilab.core.records import Record
from minilab.core.style import INK, PALETTE, figure

COLORS = {"diffusion": PALETTE.blue, "regression": PALETTE.orange, "auto-regressive": PALETTE.green}
CONDITIONS = {"clear": "clear sight", "noisy": "noisy sensors", "hidden": "joint speeds hidden"}
OURS = ("D-MPC", "multi-step diffusion", "rewards and value", "dynamics adapted")


def denoising(paths: Float[Tensor, "L n"]) -> Figure:
    """Samples on their way from noise to data, a line each; those that end above zero in blue."""
    fig, ax = figure(height=3.0)
    calls = np.arange(len(paths))
    for path in paths.T:
        ax.plot(calls, path, color=PALETTE.blue if path[-1] > 0 else PALETTE.orange, linewidth=0.7, alpha=0.7)
    ax.set(xlabel="calls of the denoiser", ylabel="x", xlim=(0, len(paths) - 1))
    return fig


def fixed(*records: Record) -> Figure:
    """Return of each system on each tier of data, over the behavior's mean (solid) and 90th percentile (dotted)."""
    tiers = [tier for record in records for tier in record.results["tiers"].items()]
    fig, axes = figure(len(tiers), 1, height=0.7 + 1.8 * len(tiers), sharex=True, squeeze=False)
    for ax, (name, tier) in zip(axes[:, 0], tiers, strict=True):
        _dots(ax, _by_mean(tier["returns"]))
        ax.axvline(tier["behavior"]["mean"], color=INK, linewidth=1)
        ax.axvline(tier["behavior"]["p90"], color=INK, linewidth=1, linestyle=":")
        ax.set(title=name)
    axes[-1, 0].set(xlabel="return of an episode")
    return fig


def compounding(record: Record) -> Figure:
    """Error against the horizon under each condition: multi-step models solid, single-step ones dashed."""
    conditions = record.results
    fig, axes = figure(1, len(conditions), height=3.6, sharey=True, squeeze=False)
    for ax, (name, found) in zip(axes[0], conditions.items(), strict=True):
        for model, curve in found["rmsd"].items():
            color = next(color for law, color in COLORS.items() if law in model)
            ax.plot(np.arange(1, len(curve) + 1), curve, "-" if "multi" in model else "--", color=color, label=model)
        ax.set(title=CONDITIONS[name], xlabel="steps ahead k", xscale="log")
    axes[0][0].set(ylabel="median error of the positions\n(spreads)", ylim=(0, None))
    fig.legend(*axes[0][0].get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    return fig


def worth(record: Record) -> Figure:
    """What each model of the dynamics is worth to the planner, under each condition."""
    fig, axes = figure(len(record.results), 1, height=0.7 + 1.5 * len(record.results), sharex=True, squeeze=False)
    for ax, (name, found) in zip(axes[:, 0], record.results.items(), strict=True):
        _dots(ax, _by_mean(found["return"]))
        ax.set(title=CONDITIONS[name])
    axes[-1, 0].set(xlabel="return of an episode")
    return fig


def wishes(record: Record) -> Figure:
    """What came against what was asked for, one panel a quantity; on the diagonal every wish is granted.

    A quantity of which only one value was asked for has no panel.
    """
    rows = {name: row for name, row in record.results["wishes"].items() if row["target"] is not None}
    asked_for = Counter(name.split()[0] for name in rows)
    quantities = [quantity for quantity, n in asked_for.items() if n > 1]
    fig, axes = figure(1, len(quantities), height=3.6, squeeze=False)
    for ax, quantity in zip(axes[0], quantities, strict=True):
        mine = sorted((row for name, row in rows.items() if name.split()[0] == quantity), key=lambda row: row["target"])
        asked = np.array([row["target"] for row in mine])
        ax.plot(asked, asked, color=INK, linewidth=1, linestyle=":")
        for who, color, mark in (("D-MPC", PALETTE.blue, "o-"), ("Diffuser", PALETTE.orange, "s--"),
                                 ("no planning", PALETTE.pink, "^:")):
            mean, error = _bars([row[who]["achieved"] for row in mine])
            ax.errorbar(asked, mean, yerr=error, fmt=mark, capsize=2, color=color, label=who)
        ax.set(title=quantity, xlabel=f"asked for ({mine[0]['unit']})")
        ax.locator_params(axis="x", nbins=3, steps=[1, 2, 4, 5, 10])
    axes[0][0].set(ylabel="came")
    fig.legend(*axes[0][0].get_legend_handles_labels(), ncols=3, loc="outside lower center", frameon=False)
    return fig


def defects(record: Record) -> Figure:
    """Returns in each broken body: D-MPC before and after, what the true dynamics would give, and the controls."""
    returns = {name: rows for name, rows in record.results["returns"].items() if name != "intact"}
    order = ("D-MPC before", "dynamics adapted", "adapted on half old data", "dynamics and proposal adapted",
             "the true dynamics", "Diffuser before", "Diffuser adapted", "oracle, no proposal")
    fig, axes = figure(len(returns), 1, height=0.7 + 1.8 * len(returns), sharex=True, squeeze=False)
    for ax, (name, rows) in zip(axes[:, 0], returns.items(), strict=True):
        _dots(ax, {row: rows[row] for row in reversed(order)})
        ax.axvline(record.results["returns"]["intact"]["D-MPC"]["mean"], color=INK, linewidth=1, linestyle=":")
        ax.set(title=name)
    axes[-1, 0].set(xlabel="return of an episode")
    return fig


def ablation(record: Record) -> Figure:
    """The return with one part exchanged; D-MPC's own part is blue."""
    parts = record.results
    fig, axes = figure(len(parts), 1, height=0.7 + 1.6 * len(parts), squeeze=False, sharex=True)
    for ax, (part, rows) in zip(axes[:, 0], parts.items(), strict=True):
        _dots(ax, _by_mean(rows))
        ax.set(title=part)
    axes[-1, 0].set(xlabel="return of an episode")
    return fig


def effort(record: Record) -> Figure:
    """Return against candidates, horizon, sampling steps and actions run of a plan, with decisions a second above."""
    what = {"candidates": "candidates N", "horizon": "horizon F\n(steps)", "sampling": "denoising\nsteps",
            "chunk": "actions run\nof a plan"}
    fig, axes = figure(2, len(what), height=4.6, sharex="col", sharey="row", height_ratios=[2, 3],
                       width_ratios=[1 + len(record.results[name]) for name in what])
    for (rate, score), (name, label) in zip(axes.T, what.items(), strict=True):
        rows = dict(sorted(record.results[name].items(), key=lambda row: int(row[0].split()[0])))
        x = np.arange(len(rows))
        rate.plot(x, [row["decisions_per_s"] for row in rows.values()], "o-", color=PALETTE.green)
        mean, error = _bars([row["return"] for row in rows.values()])
        score.errorbar(x, mean, yerr=error, fmt="o-", capsize=2, color=PALETTE.blue)
        score.set_xticks(x, [name.replace(" + ", "\n+") for name in rows], fontsize=8)
        score.set_xlabel(label)
    axes[0][0].set(ylabel="decisions / s", yscale="log")
    axes[0][0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[0][0].yaxis.set_major_formatter(ScalarFormatter())
    axes[0][0].yaxis.set_minor_formatter(NullFormatter())
    axes[1][0].set(ylabel="return of an episode")
    return fig


def _by_mean(rows: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """The worst first, which a plot draws at the bottom."""
    return dict(sorted(rows.items(), key=lambda row: row[1]["mean"]))


def _bars(found: list[Mapping]) -> tuple[np.ndarray, np.ndarray]:
    """Means, and how far each interval reaches below and above."""
    mean = np.array([f["mean"] for f in found])
    return mean, np.abs(np.array([[f["low"], f["high"]] for f in found]).T - mean)


def _dots(ax: Axes, rows: Mapping[str, Mapping]) -> None:
    """One line a row: the mean and its interval."""
    mean, error = _bars(list(rows.values()))
    at = np.arange(len(rows))
    for i, name in enumerate(rows):
        color = PALETTE.blue if name in OURS else PALETTE.orange
        ax.errorbar(mean[i], at[i], xerr=error[:, i : i + 1], fmt="o", capsize=2, color=color)
    ax.set_yticks(at, rows)
    ax.grid(axis="y", visible=False)
