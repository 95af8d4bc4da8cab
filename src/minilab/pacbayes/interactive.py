"""Two figures that the reader sets in motion: a calculator of bounds, and a polynomial with a price on each order.

Each is one self-contained piece of HTML as in the chapters before: no kernel, no library, nothing fetched, no ids.
Without scripts a table stays, in print also what the reader had made of it. With a kernel, `live_calculator` and
`live_polynomial` ask the package, for any numbers, and for targets and prices of yours. Notable:

- The page computes: the bounds by the bisection of `inverses.py`, the polynomial by the n equations of its dual. Only
  what is fixed comes from here: numbers to begin with, what is wrong with bad input, targets and draws of noise.
- The draws of noise are those of `phenomena/polynomials.py`, so that the polynomial begins with the chapter's.
- The calculator takes bits as they are. A file that does not say itself where it ends costs some more
  (`prefix_free_bits`), and so does each setting that was chosen on the same examples (`uniform_nats`).

Shapes: n numbers, of points or of places to look at.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.core.display import display_html
from minilab.core.style import PALETTE, figure
from minilab.core.widget import Choice, Static, choices, ending, live, plain_text, slider, told
from minilab.pacbayes import figures
from minilab.pacbayes.arguments import RULES
from minilab.pacbayes.bounds import Certificate, maurer, nats_of, occam_hoeffding, occam_kl
from minilab.pacbayes.inverses import kl_inverse
from minilab.pacbayes.phenomena.polynomials import (
    TARGETS,
    PolynomialConfig,
    chebyshev,
    dual,
    order_penalty,
    penalized,
)

static = Static("minilab.pacbayes")

CALCULATOR_CAPTION = (
    "Type the size of a model of yours: without compression its bits usually outnumber the examples, and nothing is "
    "certified. At a training error of 0 kl gains most over Hoeffding. A file that does not say where it ends costs "
    "some 2 log₂(bits) more, and a setting that was chosen on the same examples log₂ of how many were tried."
)
UNITS = {"bits": 1, "bytes": 8, "KiB": 8 * 1024, "MiB": 8 * 1024**2}
DELTAS = (0.01, 0.05, 0.1)
FORMULAS = {  # key: name, formula
    "hoeffding": ("Occam, Hoeffding", occam_hoeffding),
    "kl": ("Occam, kl", occam_kl),
    "maurer": ("as a posterior (Maurer)", maurer),
}
ADVICE = {name: advice for names, (_, advice) in RULES.items() for name in names}


@dataclass(frozen=True)
class Given:
    """What the calculator begins with."""

    n: int = 60_000
    risk: float = 0.2
    bits: float = 2_000
    guess: float = 0.9
    delta: float = 0.05  # one of DELTAS


def calculator_html(given: Given | None = None, *, caption: str = CALCULATOR_CAPTION) -> str:
    """Fields and sliders for what a bound needs, three certificates, and the inverse of kl drawn.

    Raises ValueError for a beginning that the bounds refuse, and for a delta that no button has.
    """
    given = given or Given()
    if given.delta not in DELTAS:
        raise ValueError(f"delta = {given.delta} has no button; choose one of {', '.join(map(str, DELTAS))}")
    data = {"advice": {"n": ADVICE["n"], "risk": ADVICE["risk"], "size": ADVICE["nats"],
                       "guess": "the risk of guessing lies in (0, 1], and is 0.9 for ten classes of equal size"}}
    knobs = (_knob("n", "examples n", given.n, 2, 7, 0.01, log=True)
             + _knob("risk", "training error", given.risk, 0, 0.9, 0.001)
             + _knob("size", "size of the file", given.bits, 0, 6, 0.01, log=True)
             + _knob("guess", "error of guessing", given.guess, 0.05, 1, 0.01))
    live = "".join(f'<tr><th scope="row">{name}</th><td data-bound="{key}"></td><td data-verdict="{key}"></td></tr>'
                   for key, (name, _) in FORMULAS.items())
    return static.fill(
        "calculator.html", style=static.style("calculator.css"), knobs=knobs, rows=live,
        units=choices("unit", {str(size): unit for unit, size in UNITS.items()}, "1"),
        deltas=choices("delta", {str(d): str(d) for d in DELTAS}, str(given.delta)),
        ending=ending(*_calculator_still(given), caption=caption, data=data,
                      script="".join(map(static.read, ("bounds.js", "calculator.js")))))


def show_calculator(given: Given | None = None, **options: Any) -> None:
    """Display the calculator, with the options of `calculator_html`; in plain text, its table."""
    html = calculator_html(given, **options)
    display_html(html, plain_text("a calculator of bounds", *_calculator_still(given or Given())))


def live_calculator(given: Given | None = None) -> Any:
    """The same with a kernel, as `live` says: fields, three certificates, and the inverse of kl drawn.

    Raises ValueError as `calculator_html` does.
    """
    given = given or Given()
    controls = {
        "examples n": given.n, "training error": float(given.risk), "size of the file": float(given.bits),
        "size in": Choice(UNITS, 1), "error of guessing": float(given.guess),
        "δ": Choice({str(d): d for d in DELTAS}, given.delta)}

    def draw(n: int, risk: float, size: float, unit: int, guess: float, delta: float) -> str:
        return _certified(Given(n, risk, size * unit, guess, delta))

    return live(controls, draw)


def _certified(given: Given) -> str:
    """The table of one file, and where its price meets kl."""
    rows = [[FORMULAS[key][0], str(found)] for key, found in certificates(given).items()]
    c = (nats_of(given.bits) - math.log(given.delta)) / given.n
    text = f"{given.bits:,.0f} bits and {given.n:,} examples: c = {c:.2g} nats an example"
    alt = f"kl of {given.risk:.1%} over the true risk meets the price {c:.2g} at {kl_inverse(given.risk, c):.1%}"
    return told(text, ["", "risk at most"], rows, figures.inverse(given.risk, c), alt=alt)


def certificates(given: Given) -> dict[str, Certificate]:
    """What each of `FORMULAS` says, by its key. Raises ValueError for numbers that the bounds refuse."""
    return {key: Certificate(formula(given.risk, given.n, nats_of(given.bits), given.delta), given.guess)
            for key, (_, formula) in FORMULAS.items()}


def _calculator_still(given: Given) -> tuple[str, list[str], list[list[str]]]:
    """Certificates of files of several sizes."""
    rows = []
    for bits in (given.bits, 10 * given.bits, 100 * given.bits):
        found = certificates(replace(given, bits=bits)).values()
        rows.append([f"{bits:,.0f} bits", *map(str, found)])
    title = (f"What files of several sizes certify with a training error of {given.risk:.1%} on {given.n:,} "
             f"examples, with confidence {1 - given.delta:.0%}")
    return title, ["", *(name for name, _ in FORMULAS.values())], rows


def _knob(name: str, what: str, start: float, low: float, high: float, step: float, *, log: bool = False) -> str:
    """A number field and a slider that moves it; with `log` the slider's numbers are powers of ten."""
    return (f'<div><label>{what} <input type="number" name="{name}" value="{start:.12g}" step="any" autocomplete="off">'
            f'</label><input type="range" data-of="{name}" {"data-log" if log else ""} aria-label="{what}" '
            f'min="{low}" max="{high}" step="{step}" autocomplete="off"></div>')


POLYNOMIAL_CAPTION = (
    "All orders are there, and growth says how much dearer each is than the one before. At 1.00 none is preferred: the "
    "fit meets the points in spikes and is about 0 between them. At 1.10 it is smooth where the points are. Lower the "
    "degree to 19, where there is one weight for each of the 20 points, and the fit leaps between them: the peak of "
    "double descent. With more noise raise growth and scale: the fit leaves the points and comes nearer to the truth."
)
SPACES = ((3, 1.1), (19, 1.1), (150, 1.0), (150, 1.1))  # degree and growth, in the table
MOST_DEGREE, MOST_POINTS = 1_000, 300  # with a kernel: a second for each fit
Target = Callable[[Float[Tensor, "n"]], Float[Tensor, "n"]]


def polynomial_html(config: PolynomialConfig | None = None, *, target: str = "simple",
                    caption: str = POLYNOMIAL_CAPTION) -> str:
    """A polynomial through points, its weights, and sliders for what it costs.

    Raises ValueError for a target that there is none of, and for a beginning beyond the sliders.
    """
    if target not in TARGETS:
        raise ValueError(f"no target called {target!r}; choose one of {', '.join(TARGETS)}")
    config = config or PolynomialConfig()
    data = polynomial_data(config)
    sliders = (  # start, name, what it is, smallest, largest, step, digits
        (config.degree, "degree", "degree", 3, 150, 1, 0),
        (config.growth, "growth", "growth γ", 1, 1.5, 0.01, 2),
        (math.log10(config.scale) if config.scale > 0 else -math.inf, "scale", "log₁₀ of the scale", -6, 2, 0.5, 1),
        (data["spread"][target], "noise", "noise σ", 0, 1, 0.05, 2),
    )
    for start, _, what, low, high, *_ in sliders:
        if not low <= start <= high:
            raise ValueError(f"{what} = {start:g} lies beyond its slider: give {low} to {high}")
    return static.fill(
        "polynomial.html", style=static.style("polynomial.css"), sliders="".join(slider(*one) for one in sliders),
        targets=choices("target", {name: name if name != "noise" else "pure noise" for name in TARGETS}, target),
        ending=ending(*_polynomial_still(config), caption=caption, data=data,
                      script="".join(map(static.read, ("dual.js", "polynomial.js")))))


def show_polynomial(config: PolynomialConfig | None = None, **options: Any) -> None:
    """Display the polynomial, with the options of `polynomial_html`; in plain text, its table."""
    html = polynomial_html(config, **options)
    display_html(html, plain_text("a polynomial with a price on each order",
                                   *_polynomial_still(config or PolynomialConfig())))


def live_polynomial(config: PolynomialConfig | None = None, *, target: str = "simple",
                    targets: Mapping[str, Target] = TARGETS,
                    price: Callable[[int, float, float], Float[Tensor, "J1"]] = order_penalty) -> Any:
    """The same with a kernel, as `live` says: any degree, noise and number of points, and functions of yours.

    `targets` are functions on [-1, 1] by name, and `price` gives what the orders 0 to J cost from J, scale and growth.
    The fit is `penalized`, so that a price may be 0. Raises ValueError for a target that there is none of.
    """
    config = config or PolynomialConfig()
    controls = {
        "target": Choice({name: name for name in targets}, target), "points n": config.points, "seed": config.seed,
        "noise σ": 1.0 if target == "noise" else float(config.noise), "degree J": config.degree,
        "growth γ": float(config.growth), "scale": float(config.scale)}

    def draw(name: str, points: int, seed: int, noise: float, degree: int, growth: float, scale: float) -> str:
        if not (1 <= degree <= MOST_DEGREE and 2 <= points <= MOST_POINTS):
            raise ValueError(f"degree {degree} through {points} points: give a degree of 1 to {MOST_DEGREE}, and 2 to "
                             f"{MOST_POINTS} points")
        chosen = replace(config, points=points, seed=seed, noise=noise, degree=degree, growth=growth, scale=scale)
        return _polynomial_drawn(chosen, name, targets, price(degree, scale, growth))

    return live(controls, draw)


def _polynomial_drawn(config: PolynomialConfig, name: str, targets: Mapping[str, Target],
                      penalty: Float[Tensor, "J1"]) -> str:
    """The fit and its weights, and how far it is from the points and from the truth."""
    if not (penalty >= 0).all() or not penalty.isfinite().all():
        raise ValueError("a price below 0, or beyond what a number can be: lower the growth or the degree")
    data = polynomial_data(config, targets)
    x, grid, truth = _double(data["x"]), _double(data["grid"]), _double(data["truth"][name])
    y = _double(data["values"][name]) + config.noise * _double(data["draws"][name])
    w = penalized(chebyshev(x, config.degree), y[:, None], penalty)[:, 0]
    fit = chebyshev(grid, config.degree) @ w
    fig, (left, right) = figure(1, 2, width=8, height=3.2, width_ratios=(2, 1))
    left.plot(grid, truth, ":", color=PALETTE.green, label="truth")
    left.plot(grid, fit, color=PALETTE.blue, label="fit")
    left.plot(x, y, "o", color=PALETTE.orange, markersize=4, label="points")
    left.set(xlabel="x", ylim=(-3, 3))
    left.legend(ncols=3, loc="upper center")
    right.plot(w.abs().clamp(min=1e-12), ".", color=PALETTE.blue, markersize=3)
    right.set(xlabel="order j", ylabel="size of its weight", yscale="log")
    away = [f"{_rms(chebyshev(x, config.degree) @ w - y):.2g}", f"{_rms(fit - truth):.2g}"]
    alt = f"A fit of degree {config.degree}, {away[0]} from its {config.points} points and {away[1]} from the truth."
    return told("How far the fit is, as a root mean square", ["", "from the points", "from the truth"],
                [[f"degree {config.degree}", *away]], fig, alt=alt)


def polynomial_data(config: PolynomialConfig, targets: Mapping[str, Target] = TARGETS) -> dict:
    """Points, places to look at, and by target its values, its draws of N(0, 1) and the noise it begins with."""
    x, grid = (torch.linspace(-1, 1, count, dtype=torch.double) for count in (config.points, config.grid))
    generator = torch.Generator().manual_seed(config.seed)
    draws = torch.randn(config.points, len(targets), generator=generator, dtype=torch.double)
    return {"x": _six(x), "grid": _six(grid), "draws": dict(zip(targets, map(_six, draws.T), strict=True)),
            "values": {name: _six(f(x)) for name, f in targets.items()},
            "truth": {name: _six(f(grid)) for name, f in targets.items()},
            "spread": {name: 1.0 if name == "noise" else config.noise for name in targets}}


def _polynomial_still(config: PolynomialConfig) -> tuple[str, list[str], list[list[str]]]:
    """How far some fits are from the points and from the truth."""
    data, rows = polynomial_data(config), []
    x, grid = _double(data["x"]), _double(data["grid"])
    for degree, growth in SPACES:
        penalty, cells = order_penalty(degree, config.scale, growth), []
        for name in TARGETS:
            y = _double(data["values"][name]) + data["spread"][name] * _double(data["draws"][name])
            away = [dual(x, y[:, None], at, penalty)[:, 0] - meant
                    for at, meant in ((x, y), (grid, _double(data["truth"][name])))]
            cells.append(" / ".join(f"{_rms(differences):.2g}" for differences in away))
        rows.append([f"degree {degree}, growth {growth}", *cells])
    title = (f"How far fits to {config.points} points are from the points / from the truth, as root mean squares, at a "
             f"scale of {config.scale:g}")
    return title, ["", *TARGETS], rows


def _rms(differences: Float[Tensor, "n"]) -> float:
    return float(differences.square().mean().sqrt())


def _six(values: Float[Tensor, "n"]) -> list[float]:
    """Six decimals: what Python and the page both compute with."""
    return [round(v, 6) + 0.0 for v in values.tolist()]


def _double(values: list[float]) -> Float[Tensor, "n"]:
    return torch.tensor(values, dtype=torch.double)
