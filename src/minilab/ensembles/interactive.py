"""A figure that the reader sets in motion: the law through a few losses, and how little holds its asymptote.

One self-contained piece of HTML as in the chapters before: no kernel, no library, nothing fetched, no ids. Without
scripts a table stays, in print also what the reader had made of it. Notable:

- The page fits as `scaling.fit_power_law` does, and judges E as `scaling.profile_interval` does; the tests hold both
  equal. The range of exponents, its grid and the quantile come from here.
- Points count alike. Where losses have errors of different size, fit with `weights` in Python instead.
- The data efficiency carries the interval of E alone. The law of the standard recipe is taken as known.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count
from statistics import NormalDist
from typing import Any

import numpy as np

from minilab.core.display import display_html
from minilab.core.widget import Static, choices, ending, live, plain_text
from minilab.ensembles.limits import data_efficiency
from minilab.ensembles.scaling import (
    GRID,
    HIGHEST,
    LOWEST,
    ZOOMS,
    Fit,
    Interval,
    Numbers,
    PowerLaw,
    fit_power_law,
    profile_interval,
)

static = Static("minilab.ensembles")

CAPTION = (
    "Switch a point off, or move one by 0.005 with an arrow key, and see how far the asymptote goes. Three points "
    "determine three parameters: the law meets them all, none is left to judge the noise by, and there is no interval "
    "unless you say how noisy a loss is. The second picture shows why: exponents far apart fit about as well, and each "
    "has an E of its own. A fixed α removes that freedom; where no theory gives it, it is an assumption."
)
LEVEL = 0.95
STEP, FARTHEST = 0.005, 0.1  # of a point's shift, in the unit of the loss
NOISES = (0.005, 0.01, 0.02)
MOST_POINTS = 12


@dataclass(frozen=True)
class Series:
    """Losses of one recipe over what grows: parameters, members or tokens."""

    name: str  # on its button
    x: Numbers
    losses: Numbers
    axis: str  # what x is, with its unit
    unit: str = "nats a token"  # of the losses
    tokens: float | None = None  # that all runs used, in the unit of the standard law; None leaves out the efficiency


def fit_html(series: Sequence[Series], *, standard: PowerLaw | None = None, start: str | None = None,
             alpha: float | None = None, noise: float | None = None, noises: Sequence[float] = NOISES,
             caption: str = CAPTION) -> str:
    """Points to switch and to move, the law through them, and the E of each exponent; the options set what shows.

    `standard` is the standard recipe's loss over tokens. `alpha` is None (free) or 1. `noise` is the known deviation of
    a loss, one of `noises`, or None: then what the fit left tells it. Raises ValueError for an option without a button,
    and for series that cannot be fitted or told apart.
    """
    begin = _checked(series, start, alpha, noise, noises)
    data = {
        "series": [{"x": _floats(s.x), "losses": _floats(s.losses), "axis": s.axis, "unit": s.unit, "tokens": s.tokens}
                   for s in series],
        "standard": None if standard is None else _floats([standard.A, standard.alpha, standard.E]),
        "search": {"lowest": LOWEST, "highest": HIGHEST, "grid": len(GRID), "zooms": ZOOMS, "level": LEVEL,
                   "normal": NormalDist().inv_cdf((1 + LEVEL) / 2) ** 2}}
    kinds = {"E": "E", "interval": f"{LEVEL:.0%} interval of E", "alpha": "α"}
    if standard is not None:
        kinds |= {"efficiency": "data efficiency at E", "saved": "with E in its interval"}
    return static.fill(
        "fit.html", style=static.style("fit.css"), step=f"{STEP:g}",
        names=choices("series", {str(i): s.name for i, s in enumerate(series)}, str(_names(series).index(begin.name))),
        alphas=choices("alpha", {"": "free", "1": "1"}, "" if alpha is None else "1"),
        noises=choices("noise", {"": "as the fit tells"} | {str(v): f"{v:.2g}" for v in noises},
                       "" if noise is None else str(noise)),
        points="".join(_points(i, s) for i, s in enumerate(series)),
        rows="".join(f'<tr><th scope="row">{what}</th><td data-given="{key}"></td><td data-now="{key}"></td></tr>'
                     for key, what in kinds.items()),
        ending=ending(*_still(series, begin, standard, alpha, noise), caption=caption, data=data,
                      script="".join(map(static.read, ("law.js", "fit.js")))))


def show_fit(series: Sequence[Series], *, standard: PowerLaw | None = None, start: str | None = None,
             alpha: float | None = None, noise: float | None = None, noises: Sequence[float] = NOISES,
             caption: str = CAPTION) -> None:
    """Display the fit, with the options of `fit_html`; in plain text, its table."""
    html = fit_html(series, standard=standard, start=start, alpha=alpha, noise=noise, noises=noises, caption=caption)
    begin = _checked(series, start, alpha, noise, noises)
    display_html(html, plain_text("a fit through a few points", *_still(series, begin, standard, alpha, noise)))


def live_fit(compute: Callable[[int], Sequence[Series]], **options: Any) -> Any:
    """The same with a kernel, as `live` says: a button that calls `compute(seed)` with the next seed."""
    seeds = count()
    return live({"other seeds": lambda: None}, lambda: fit_html(compute(next(seeds)), **options))


def _checked(series: Sequence[Series], start: str | None, alpha: float | None, noise: float | None,
             noises: Sequence[float]) -> Series:
    """The series to begin with."""
    named = dict(zip(_names(series), series, strict=True))
    if not series or len(named) < len(series):
        raise ValueError(f"{len(series)} series with {len(named)} names: give one at least, each with its own name")
    if start is not None and start not in named:
        raise ValueError(f"no series called {start!r}; choose one of {', '.join(named)}")
    if alpha not in (None, 1):
        raise ValueError(f"alpha = {alpha} has no button; choose None (free) or 1")
    if noise is not None and noise not in noises:
        raise ValueError(f"noise = {noise} has no button; choose one of {', '.join(map(str, noises))}, or give noises")
    if not all(v > 0 for v in noises):
        raise ValueError(f"noises = {list(noises)}: give positive deviations; 'as the fit tells' is always there")
    for s in series:
        fit_power_law(s.x, s.losses)  # raises for what cannot be fitted
        if len(s.x) > MOST_POINTS:
            raise ValueError(f"{s.name} has {len(s.x)} points: give at most {MOST_POINTS}, as each gets a row")
        if s.tokens is not None and not s.tokens > 0:
            raise ValueError(f"{s.name} has tokens = {s.tokens}: give how many were used, in the standard law's unit")
    return named[start] if start is not None else series[0]


def _names(series: Sequence[Series]) -> list[str]:
    return [s.name for s in series]


def _points(i: int, series: Series) -> str:
    """A row for each point: a box to switch it, a slider to move its loss, the loss."""
    rows = "".join(
        f'<div class="ml-point"><label><input type="checkbox" checked autocomplete="off"> {x:.4g}</label>'
        f'<input type="range" min="{-FARTHEST}" max="{FARTHEST}" step="{STEP}" value="0" autocomplete="off" '
        f'aria-label="shift of the loss at {x:.4g}"><span class="ml-num" data-loss>{loss:.3f}</span></div>'
        for x, loss in zip(series.x, series.losses, strict=True))
    return (f'<div class="ml-points" data-points="{i}" role="group" '
            f'aria-label="points of {escape(series.name)}, {escape(series.axis)}" hidden>{rows}</div>')


def _still(series: Sequence[Series], begin: Series, standard: PowerLaw | None, alpha: float | None,
           noise: float | None) -> tuple[str, list[str], list[list[str]]]:
    """The first series with all points, with the other choice of exponent, and without each point; then the others."""
    fits = [(f"{begin.name}, all points", begin, fit_power_law(begin.x, begin.losses, alpha=alpha))]
    other = None if alpha is not None else 1
    fits.append((f"{begin.name}, α {'free' if other is None else 'fixed at 1'}", begin,
                 fit_power_law(begin.x, begin.losses, alpha=other)))
    parameters = 3 if alpha is None else 2
    for i, x in enumerate(begin.x):
        kept = [np.delete(np.asarray(values, dtype=float), i) for values in (begin.x, begin.losses)]
        if len(np.unique(kept[0])) >= parameters:
            fits.append((f"{begin.name}, without {x:.4g}", begin, fit_power_law(*kept, alpha=alpha)))
    fits += [(f"{s.name}, all points", s, fit_power_law(s.x, s.losses, alpha=alpha))
             for s in series if s.name != begin.name]
    rows = [[name, *_cells(fit, s, standard, noise)] for name, s, fit in fits]
    title = (f"The asymptote E in {begin.unit} of laws A / x^α + E through losses over {begin.axis}, with α "
             f"{'free' if alpha is None else 'fixed at 1'} unless a row says otherwise, and noise "
             f"{'as the fit tells it' if noise is None else f'{noise:g}'}")
    head = ["", "E", f"{LEVEL:.0%} interval of E", "α"]
    return title, head + (["data efficiency at E"] if standard is not None else []), rows


def _cells(fit: Fit, series: Series, standard: PowerLaw | None, noise: float | None) -> list[str]:
    interval = "none"
    if noise is not None or fit.spare >= 1:
        interval = _between(profile_interval(fit, level=LEVEL, noise=noise))
    cells = [f"{fit.law.E:.3f}", interval, "any" if fit.exponent == "any" else f"{fit.law.alpha:.2f}"]
    if standard is None:
        return cells
    if series.tokens is None:
        return [*cells, ""]
    return [*cells, f"{data_efficiency(fit.law.E, standard, at=series.tokens).value:.2f}".replace("inf", "∞")]


def _between(interval: Interval) -> str:
    if interval.open_low and interval.open_high:
        return "no limits"
    low = "no lower limit" if interval.open_low else f"{interval.low:.3f}"
    return f"{low} to {'no upper limit' if interval.open_high else f'{interval.high:.3f}'}"


def _floats(values: Numbers) -> list[float]:
    return np.asarray(values, dtype=float).tolist()
