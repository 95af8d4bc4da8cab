"""The book's figures: one style, and one SVG that is right in light, dark and print.

- The ink (axes, ticks, text) is black while matplotlib draws. `show` then replaces black by `currentColor`,
  so that the ink is whatever color the page's text has. The background is transparent.
- PALETTE keeps a contrast of at least 3:1 on white and on the dark backgrounds #121212 and #1a1a1a, and its
  colors stay apart for readers with protanopia, deuteranopia and tritanopia.
- Matplotlib gives the same ids to the glyphs and markers of every figure. In one page the second figure would
  borrow the first one's shapes, so ids that are used get a prefix made of the figure's hash; the others go.
- Text is drawn as paths: the same on every machine, at some 20 kB a figure. The alternative text stands in
  for it where it is read aloud.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import sys
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

from minilab.core.display import display_html


class Palette(NamedTuple):
    """Colors by name, in the order in which lines take them."""

    blue: str = "#3078d8"
    orange: str = "#e46c24"
    green: str = "#307860"
    pink: str = "#c0789c"
    sky: str = "#009cd8"
    red: str = "#c03c3c"


PALETTE = Palette()
INK = "#000000"  # becomes the color of the page's text

STYLE: dict[str, Any] = {
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "normal",
    "axes.labelsize": 11,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "mathtext.fontset": "dejavusans",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "path",
    "svg.hashsalt": "minilab",
}


def use_style() -> AbstractContextManager[None]:
    """The book's matplotlib settings for the length of a `with` block."""
    return matplotlib.rc_context(STYLE)


def figure(
    nrows: int = 1, ncols: int = 1, *, width: float = 5.6, height: float = 3.5, **options: Any
) -> tuple[Figure, Any]:
    """A figure in the book's style and its axes, as `plt.subplots` returns them (width and height in inches).

    The width is chosen so that the text can still be read when a phone shrinks the figure to its screen.
    It is not registered with pyplot, so that no notebook shows it a second time. `options` go to
    `Figure.subplots` (sharex, squeeze, width_ratios, ...).
    """
    with use_style():
        fig = Figure(figsize=(width, height), layout="constrained")
        return fig, fig.subplots(nrows, ncols, **options)


def show(fig: Figure, *, alt: str, caption: str | None = None) -> None:
    """Display `fig` as one inline SVG with alternative text and a caption, and close it.

    Raises ValueError for an empty `alt`: say what the figure shows, as to someone on the phone.
    """
    if not alt.strip():
        raise ValueError("alt is empty; describe what the figure shows in a sentence or two")
    markup = figure_html(fig, alt=alt, caption=caption)
    if "matplotlib.pyplot" in sys.modules:  # else no figure can be open there
        sys.modules["matplotlib.pyplot"].close(fig)
    display_html(markup, f"Figure: {alt}")


def figure_html(fig: Figure, *, alt: str, caption: str | None = None) -> str:
    """The <figure> element that `show` displays: the same text for the same figure."""
    for axes in fig.axes:
        if axes.get_legend() is not None:
            axes.get_legend().set_frame_on(False)  # its default box is white, also on a dark page
    buffer = io.StringIO()
    with use_style():
        fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = _adapt(buffer.getvalue(), alt)
    note = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="minilab-figure" style="margin:0">{svg}{note}</figure>'


def _adapt(svg: str, alt: str) -> str:
    """Matplotlib's SVG file as an element of a page: named, sized, inked, compact, with ids of its own."""
    svg = svg[svg.index("<svg") :]
    # The <style> of a figure would apply to the whole page; its two settings go to the root instead.
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    width, height = (float(n) * 96 / 72 for n in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    box = re.search(r'viewBox="[^"]+"', svg).group()
    root = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box} '
        f'width="{width:.0f}" height="{height:.0f}" style="max-width:100%;height:auto" '
        'fill="currentColor" stroke-linejoin="round" stroke-linecap="butt" '  # matplotlib omits a black fill
        f'role="img" aria-label="{html.escape(alt)}">'
    )
    svg = re.sub(r"<svg[^>]*>", lambda _: root, svg, count=1)
    svg = svg.replace(INK, "currentColor")
    svg = re.sub(r' d="[^"]*"', lambda m: _round_numbers(m.group()), svg)
    svg = re.sub(r">\s+<", "><", svg).strip()

    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    prefix = "f" + hashlib.sha256((svg + alt).encode()).hexdigest()[:8]
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", svg)
    return re.sub(r'((?:href="|url\()#)', rf"\g<1>{prefix}-", svg)


def _round_numbers(path: str) -> str:
    """A path's coordinates with two decimals: a hundredth of a point is not seen, and it halves the file."""
    rounded = re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m.group()):.2f}".rstrip("0").rstrip("."), path)
    return re.sub(r"\s+", " ", rounded)
