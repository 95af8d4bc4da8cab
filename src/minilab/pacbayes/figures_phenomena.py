"""The figures of the phenomena: what the record of `phenomena` holds, in the order of the talk's paper."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from minilab.core.records import Record
from minilab.core.style import INK, PALETTE, figure
from minilab.pacbayes.phenomena.polynomials import TARGETS, Curves

MODELS = ("degree 3", "degree 150", "150, priced")
TARGETS_EACH = 10  # of a digit: the process sees one for each class, and its evidence is for one of them
THIN = {"linewidth": 1, "color": INK}


def polynomials(curves: Curves) -> Figure:
    """Three models on three data sets: fits, points, and the truth."""
    fig, axes = figure(3, 3, height=5.4, sharex=True, sharey=True)
    for i, model in enumerate(MODELS):
        for j, target in enumerate(TARGETS):
            ax = axes[i, j]
            ax.plot(curves.grid, curves.truth[:, j], ":", **THIN)
            ax.plot(curves.grid, curves.fits[i, :, j], color=PALETTE.blue)
            ax.plot(curves.x, curves.y[:, j], "o", markersize=3, color=PALETTE.orange)
            ax.set(ylim=(-3, 3))
            if i == 0:
                ax.set_title(target)
            if j == 0:
                ax.set_ylabel(model)
    for ax in axes[-1]:
        ax.set_xlabel("x")
    return fig


def selection(record: Record) -> Figure:
    """Test error against the number of points, for a small space, a large one, and a large one with prices."""
    found = record.results["selection"]
    fig, axes = figure(1, len(found["small"]), height=3.0, sharey=True)
    for ax, small, large, priced, name in zip(axes, found["small"], found["large"], found["priced"],
                                              ("x²", "cos 1.5πx", "degree 10"), strict=True):
        for values, label, style, color in ((small, "degree 2", "o--", PALETTE.orange),
                                            (large, "degree 10", "s:", PALETTE.red),
                                            (priced, "degree 10, orders priced", "D-", PALETTE.blue)):
            ax.plot(found["sizes"], values, style, color=color, label=label, markersize=4)
        ax.set(yscale="log", xlabel="points", title=name)
    axes[0].set_ylabel("squared error")
    fig.legend(*axes[0].get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    return fig


def noisy_labels(record: Record) -> Figure:
    """A Gaussian process and a network on labels of which a share was altered: errors, and what the evidence says."""
    process, chosen, net = (record.results[name] for name in ("process", "chosen", "memorize"))
    fig, axes = figure(1, 2, height=3.2)
    for found, name, mark, color in ((process, "process", "o", PALETTE.blue), (chosen, "process, chosen", "D",
                                                                               PALETTE.green),
                                     (net, "network", "s", PALETTE.orange)):
        share = [100 * s for s in found["shares"]]
        axes[0].plot(share, [100 * e for e in found["test_error"]], f"{mark}-", color=color, label=f"{name}, test")
        axes[0].plot(share, [100 * e for e in found["train_error"]], f"{mark}:", color=color, label=f"{name}, training")
        targets = 1 if name == "network" else TARGETS_EACH
        axes[1].plot(share, targets * _from_first(found["evidence"]), f"{mark}-", color=color)
    axes[0].set(xlabel="labels altered (percent)", ylabel="error (percent)")
    axes[1].set(xlabel="labels altered (percent)", ylabel="evidence a picture, less\nthat of true labels (nats)")
    fig.legend(*axes[0].get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    return fig


def descent(record: Record) -> Figure:
    """Double descent of random features in their number, and of a small network in its width."""
    features, net = record.results["features"], record.results["widths"]
    fig, axes = figure(2, 2, height=4.8)
    for column, (x, found, effective, names, ticks) in enumerate((
            (features["d"], features, features["posterior_dimension"], ("train_error", "test_error"), (10, 200, 1000)),
            (net["widths"], net, net["effective_dimension"], ("train_loss", "test_loss"), (2, 10, 64)))):
        for name, color, style in zip(names, (PALETTE.blue, PALETTE.orange), ("o--", "s-"), strict=True):
            axes[0, column].plot(x, _middle(found[name]), style, color=color, markersize=4,
                                 label="training" if name.startswith("train") else "test")
        axes[1, column].plot(x, _middle(effective), "D-", color=PALETTE.green, markersize=4)
        axes[1, column].set(ylabel="effective dimension")
        for ax in axes[:, column]:
            _log_ticks(ax, ticks)
    axes[0, 0].set(title="random features", ylabel="relative error", yscale="log", ylim=(1e-2, None))
    axes[0, 1].set(title="a small network", ylabel="loss (nats)")
    axes[1, 0].set(xlabel="features d")
    axes[1, 1].set(xlabel="width")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    return fig


def flat(record: Record) -> Figure:
    """How much room minima take that generalize and that do not, and networks that were guessed."""
    volume, guess = record.results["volume"], record.results["guess"]
    fig, (left, right) = figure(1, 2, height=3.2)
    error, room = (np.array(volume[part]) for part in ("test_error", "log_volume"))
    left.plot(100 * error, room - room[0], "o-", color=PALETTE.blue)
    left.set(xlabel="test error (percent)", ylabel="log-volume of the basin,\nless the first (nats)")
    _guessed(right, guess)
    fig.legend(*right.get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    return fig


def _guessed(ax: Axes, guess: dict) -> None:
    for row, (width, color) in enumerate(zip(guess["widths"], (PALETTE.orange, PALETTE.pink, PALETTE.blue),
                                             strict=True)):
        x, y = _known(guess["samples"], guess["error"][row])
        ax.plot(x, 100 * y, "o-", color=color, label=f"guessed, width {width}")
    x, y = _known(guess["samples"], guess["descended"][-1])
    ax.plot(x, 100 * y, "s:", color=INK, label="gradient descent")
    ax.set(xlabel="training samples", ylabel="test error (percent)")
    _log_ticks(ax, guess["samples"])


def modes(record: Record) -> Figure:
    """Losses along the line between two minima, and along a curve with one bend."""
    found = record.results["modes"]
    fig, axes = figure(1, 2, height=3.0, sharex=True)
    for name, color, style in (("line", PALETTE.orange, "--"), ("curve", PALETTE.blue, "-")):
        t = np.linspace(0, 1, len(found[name]["train_loss"]))
        axes[0].plot(t, found[name]["train_loss"], style, color=color, label=name)
        axes[1].plot(t, [100 * e for e in found[name]["test_error"]], style, color=color)
    axes[0].set(xlabel="place t", ylabel="training loss (nats)")
    axes[1].set(xlabel="place t", ylabel="test error (percent)")
    fig.legend(*axes[0].get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    return fig


def _log_ticks(ax: Axes, ticks: Sequence[int]) -> None:
    """A logarithmic axis with these numbers on it, and no others."""
    ax.set(xscale="log")
    ax.set_xticks(ticks, ticks)
    ax.xaxis.set_minor_locator(NullLocator())


def _middle(rows: list[list[float]]) -> np.ndarray:
    """The median over repeats."""
    return np.median(np.array(rows), axis=1)


def _from_first(values: list[float]) -> np.ndarray:
    return np.array(values) - values[0]


def _known(x: list, y: list) -> tuple[np.ndarray, np.ndarray]:
    """The points that have a value."""
    kept = [i for i, value in enumerate(y) if value is not None]
    return np.array(x)[kept], np.array([y[i] for i in kept])
