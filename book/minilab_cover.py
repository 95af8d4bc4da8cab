"""The cover of the EPUB, drawn: the title, and a sketch of each chapter's idea in the book's colors.

The sketches show no data. They are made of fixed numbers, so that the same versions of matplotlib and Pillow draw the
same bytes, and without small print, since most readers show a cover as small as a stamp.
"""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from minilab.core.style import PALETTE, use_style

INCHES, DPI = (6.0, 9.6), 200  # 1,200 by 1,920 pixels
PAPER, INK, PALE = "#ffffff", "#1b2430", "#c9ced6"
COLORS = 64  # of the file: edges keep their shades, and a third of the bytes is left
WORDS = ("Cover: {title}. {subtitle}. Under the title are five sketches: a row of guessed words, the last one "
         "replaced; a bundle of plans, one of which is taken; points on a ring, joined to where they go next; a curve "
         "under its bound; and curves that fall toward a floor.")  # fmt: skip


def cover(title: str, subtitle: str, author: str) -> bytes:
    """The cover as a PNG file."""
    with use_style():
        fig = Figure(figsize=INCHES, dpi=DPI, facecolor=PAPER)
        fig.text(0.1, 0.875, title, fontsize=66, fontweight="bold", color=INK)
        fig.text(0.105, 0.825, subtitle, fontsize=21, color=INK)
        fig.text(0.105, 0.045, author, fontsize=14, color=INK)
        sketches = (_guesses, _plans, _world, _bound, _ensemble)
        for row, (sketch, color) in enumerate(zip(sketches, PALETTE, strict=False)):
            axes = fig.add_axes((0.1, 0.665 - 0.137 * row, 0.8, 0.105))
            axes.set(xlim=(0, 10), ylim=(0, 2))
            axes.set_axis_off()
            sketch(axes, color)
            for mark in axes.get_children():
                mark.set_clip_on(False)
        file = io.BytesIO()
        fig.savefig(file, format="png", dpi=DPI, facecolor=PAPER)
    small = io.BytesIO()
    Image.open(file).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def words(title: str, subtitle: str) -> str:
    """The cover's alternative text."""
    return WORDS.format(title=title, subtitle=subtitle)


def _guesses(axes: Axes, color: str) -> None:
    """Chapter 1: guesses are kept up to the first that is not, and that one is replaced."""
    for k in range(5):
        at, kept = 2.1 * k, k < 4
        line = {"edgecolor": color} if kept else {"edgecolor": PALETTE.orange, "linestyle": "--"}
        box = "round,pad=0,rounding_size=0.2"
        axes.add_patch(FancyBboxPatch((at, 0.4), 1.6, 1.2, box, facecolor=f"{color}40" if kept else PAPER,
                                      linewidth=3, **line))  # fmt: skip
    axes.plot([8.75, 9.65], [0.75, 1.25], color=PALETTE.orange, linewidth=3)
    axes.plot([8.75, 9.65], [1.25, 0.75], color=PALETTE.orange, linewidth=3)


def _plans(axes: Axes, color: str) -> None:
    """Chapter 2: many plans from one place, and the one that ends best is taken."""
    t = np.linspace(0, 1, 60)
    for end in np.linspace(-0.9, 0.9, 9):
        best = abs(end - 0.675) < 1e-9
        y = 1.05 + 0.85 * end * t**1.5 + 0.15 * np.sin(9 * t + 4 * end) * t
        axes.plot(0.15 + 9.85 * t, y, color=color if best else PALE, linewidth=5 if best else 2.5, zorder=1 + best)
    axes.plot(0.15, 1.05, "o", color=INK, markersize=11, zorder=3)


def _world(axes: Axes, color: str) -> None:
    """Chapter 3: where the world is, as points, and where the model says that it goes next."""
    turn = np.linspace(0, 2 * np.pi, 2000)
    ring = np.stack((4.85 * np.cos(turn), 0.85 * np.sin(turn)))
    gone = np.concatenate(([0], np.hypot(*np.diff(ring)).cumsum()))
    x, y = (np.interp(np.linspace(0, gone[-1], 15), gone, places) for places in ring + [[5], [1]])  # evenly apart
    for k in range(14):
        arrow = {"arrowstyle": "-|>", "color": PALE, "linewidth": 2.5, "shrinkA": 8, "shrinkB": 7}
        axes.annotate("", (x[k + 1], y[k + 1]), (x[k], y[k]), arrowprops=arrow)
    axes.plot(x[:-1], y[:-1], "o", color=color, markersize=10)


def _bound(axes: Axes, color: str) -> None:
    """Chapter 4: a curve of errors, and the bound above it."""
    x = np.linspace(0, 1, 100)
    error, bound = 0.35 + 1.5 * (x - 0.55) ** 2, 0.75 + 3.1 * (x - 0.5) ** 2
    axes.fill_between(10 * x, error, bound, color=color, alpha=0.15, linewidth=0)
    axes.plot(10 * x, bound, color=color, linewidth=5)
    axes.plot(10 * x, error, color=INK, linewidth=3, linestyle=(0, (3, 1.5)))


def _ensemble(axes: Axes, color: str) -> None:
    """Chapter 5: losses of larger and larger ensembles, and the floor that they fall toward."""
    x = np.linspace(0, 1, 100)
    for k, width in enumerate((2.5, 2.5, 5)):
        y = 0.3 + 0.28 * (2 - k) + 1.1 * np.exp(-4.5 * x) * (1 - 0.1 * k)
        axes.plot(10 * x, y, color=color if k == 2 else PALE, linewidth=width)
    axes.plot([0, 10], [0.12, 0.12], color=INK, linewidth=3, linestyle=(0, (3, 1.5)))
