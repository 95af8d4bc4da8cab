"""The figures of chapter 4's certificates: a record in, a matplotlib figure out. Shares are in percent.

Notable: a bar is the error on the examples of the bound, and what the bound adds to it. A bar is the mean of several
seeds, and a dot is one of them. A dash is the mean error before rounding.
"""

import textwrap
from collections.abc import Collection, Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minilab.core.records import Record
from minilab.core.style import INK, PALETTE, figure
from minilab.pacbayes.inverses import kl, kl_inverse, kl_inverse_lower

DOT = {"marker": "o", "linestyle": "", "markersize": 3.5, "markeredgewidth": 0, "color": INK, "alpha": 0.6}
DASH = {"marker": "_", "linestyle": "", "markersize": 13, "markeredgewidth": 1.6, "color": INK}
TEST = {"marker": "D", "linestyle": "", "markersize": 5, "markeredgewidth": 0, "color": PALETTE.green}
ERROR, COMPLEXITY = PALETTE.blue, PALETTE.orange
WIDEST = 112  # percent
CHANGES = ("as it is", "pixels permuted", "labels shuffled")  # of `structure`, from all structure to none


def ladder(record: Record) -> Figure:
    """What each bound certifies: the error that was seen, what it adds, and the error on test examples.

    A bar that leaves the picture says how far it would go.
    """
    rows = record.results["seeds"]
    names = sorted(rows, key=lambda name: np.mean(rows[name]["bound"]))
    rows = {name: rows[name] for name in names}
    seen, bound, tested = (_means(rows, part, 100) for part in ("train_error", "bound", "test_error"))
    fig, ax = figure(height=1.9 + 0.34 * len(names))
    names = [textwrap.fill(name, 24) for name in names]
    ax.barh(names, seen, color=ERROR, label="error on the bound's examples")
    ax.barh(names, np.minimum(bound, 2 * WIDEST) - seen, left=seen, color=COMPLEXITY, label="what the bound adds")
    ax.plot(tested, range(len(names)), label="error on test examples", **TEST)
    for y, (value, row) in enumerate(zip(bound, rows.values(), strict=True)):
        each = [100 * one for one in row["bound"]]
        ax.plot(each, [y] * len(each), **DOT)
        inside, guess = value < WIDEST, 100 * record.results["guess"]  # a long number ends before the line of guessing
        ax.annotate(f"{value:.1f}" if inside else f"{value:,.0f} →", (max(each) if inside else guess, y),
                    (4 if inside else -4, 0), textcoords="offset points", va="center",
                    ha="left" if inside else "right", fontsize=8)
    _guess(ax.axvline, record.results["guess"])
    ax.set(xlabel="percent", xlim=(0, WIDEST))
    return _with_legend(fig, ax, columns=1)


def dimension(record: Record) -> Figure:
    """Error and complexity over the numbers that were trained, and the bits of the file."""
    rows = _by_number(record.results["rows"])
    fig, (left, right) = figure(1, 2, height=3.4)
    _stacked(left, rows)
    left.set(xlabel="numbers trained, d", ylabel="percent")
    right.plot(range(len(rows)), _means(rows, "bits"), "o-", color=PALETTE.blue)
    right.set(xlabel="numbers trained, d", ylabel="bits of the file", ylim=(0, None))
    _slanted(rows, left, right)
    return _with_legend(fig, left)


def width(record: Record) -> Figure:
    """The bound and the file's bits against the width of the network, as many numbers being trained in each."""
    rows = _by_number(record.results["rows"])
    fig, (left, right) = figure(1, 2, height=3.4)
    _stacked(left, rows)
    left.set(xlabel="width", ylabel="percent")
    for i, row in enumerate(rows.values()):
        right.plot([i] * len(row["bits"]), row["bits"], **DOT)
    right.plot(range(len(rows)), _means(rows, "bits"), "-", color=PALETTE.blue)
    right.set(xlabel="width", ylabel="bits of the file", ylim=(0, None))
    _slanted(rows, left, right)
    return _with_legend(fig, left)


def structure(record: Record) -> Figure:
    """Two networks on data with structure, and with less of it."""
    found = record.results["rows"]
    rows = {name: found[name] for name in sorted(found, key=lambda name: (name.split(", ")[0], CHANGES.index(
        name.split(", ")[1])))}
    fig, ax = figure(height=3.2)
    _stacked(ax, rows)
    ax.set_xticks(range(len(rows)), [textwrap.fill(name, 12) for name in rows], fontsize=8)
    _guess(ax.axhline, record.results["guess"])
    ax.set(ylabel="percent")
    return _with_legend(fig, ax)


def inverse(q: float, c: float) -> Figure:
    """kl(q || p) over p, the price c, and the two risks at which they meet; beside it what Pinsker's parabola says."""
    reach = 2.5 * (c / 2) ** 0.5  # the parabola meets the price before that
    low, high = max(0, q - reach), min(1, q + reach)
    p = low + (high - low) * torch.linspace(1e-4, 1 - 1e-4, 500, dtype=torch.float64)
    fig, ax = figure(height=3.0)
    ax.plot(p, kl(q, p), color=PALETTE.blue, label="kl(q ‖ p)")
    ax.plot(p, 2 * (p - q).square(), "--", color=PALETTE.orange, label="2 (p − q)², Pinsker")
    ax.axhline(c, color=INK, linewidth=1, linestyle=":", label="price c")
    for meet in (kl_inverse_lower(q, c), kl_inverse(q, c)):
        ax.plot([meet, meet], [0, c], color=PALETTE.blue, linewidth=1)
        ax.plot(meet, c, "o", color=PALETTE.blue)
    ax.plot(q + (c / 2) ** 0.5, c, "s", color=PALETTE.orange)
    ax.set(xlabel="risk p", ylabel="nats", ylim=(0, 3 * c), xlim=(low, high))
    return _with_legend(fig, ax)


def coverage(record: Record) -> Figure:
    """How often each statement about the true risk was false, against how often it may be."""
    rates = record.results["failures"]
    fig, ax = figure(height=0.9 + 0.3 * len(rates))
    names = list(rates)[::-1]
    ax.barh(names, [100 * rates[name] for name in names],
            color=[PALETTE.blue if name.endswith(", paid") else PALETTE.orange for name in names])
    ax.axvline(100 * record.config["delta"], color=INK, linewidth=1, linestyle=":", label="δ")
    ax.set(xlabel="data sets on which it fails (percent)")
    return _with_legend(fig, ax)


def prequential(record: Record) -> Figure:
    """What a token costs as a text goes on, to models that learn along; the file's model stays as it is.

    Dashed: what the model at the end loses on the whole text.
    """
    rows, tokens, guess = (record.results[part] for part in ("rows", "tokens", "guess"))
    fig, ax = figure(height=3.4)
    for (name, row), color in zip(reversed(rows.items()), (PALETTE.blue, PALETTE.green, PALETTE.orange), strict=True):
        if curve := row.get("curve"):
            edges = np.linspace(0, tokens / 1000, len(curve) + 1)
            ax.stairs(curve, edges, baseline=None, color=color, linewidth=1.5, label=name)
            ax.axhline(row["final_loss"], color=color, linewidth=1, linestyle="--")
        else:
            ax.axhline(row["loss"], color=color, linewidth=1.5, label=f"{name} of {row['bits']:,} bits")
    ax.axhline(guess, color=INK, linewidth=1, linestyle=":", label="guessing")
    ax.set(xlabel="tokens read (thousands)", ylabel="bits a token", ylim=(None, guess + 0.3))
    return _with_legend(fig, ax)


def _by_number(rows: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """In the order of the numbers that name them: a file sorts them as words."""
    return dict(sorted(rows.items(), key=lambda row: float(row[0])))


def _stacked(ax: Axes, rows: Mapping[str, Mapping]) -> None:
    """A bar for each row: its error, and what the bound adds; dots are files."""
    x, seen, bound = range(len(rows)), _means(rows, "train_error", 100), _means(rows, "bound", 100)
    ax.bar(x, seen, color=ERROR, label="training error of the file")
    ax.bar(x, bound - seen, bottom=seen, color=COMPLEXITY, label="what the bound adds")
    ax.plot(x, _means(rows, "test_error", 100), label="test error", **TEST)
    ax.plot(x, _means(rows, "exact_error", 100), label="training error before rounding", **DASH)
    for i, row in enumerate(rows.values()):
        ax.plot([i] * len(row["bound"]), [100 * value for value in row["bound"]], **DOT)


def _slanted(names: Collection[str], *axes: Axes) -> None:
    """A name below each place; eight stand side by side on half a page only if they lean."""
    for ax in axes:
        ax.set_xticks(range(len(names)), names, fontsize=8, rotation=45)


def _means(rows: Mapping[str, Mapping], part: str, scale: float = 1.0) -> np.ndarray:
    return np.array([scale * np.mean(row[part]) for row in rows.values()])


def _guess(line, guess: float) -> None:
    line(100 * guess, color=INK, linewidth=1, linestyle=":", label="guessing: a bound beyond is vacuous")


def _with_legend(fig: Figure, ax: Axes, *, columns: int = 2) -> Figure:
    fig.legend(*ax.get_legend_handles_labels(), ncols=columns, loc="outside lower center", frameon=False)
    return fig
