"""A figure that the reader sets in motion: candidate plans fan out, and an objective picks one of them.

D-MPC proposes and predicts without knowing what is wanted; only the ranking does. So the figure draws the candidates of
each start once, and every objective ranks the same ones: `fan` asks a planner for them and returns plain data, which a
record can hold. The first n of N candidates are what a planner with n would have drawn.

`fan_html` is one self-contained piece of HTML as in chapter 1: no kernel, no library, nothing fetched, no ids. Without
scripts a table stays, in print the table and the curves as the reader left them. With a kernel, `live_fan` plans anew.

Shapes: B starts, N candidates, F1 states of a plan with the present one, S numbers in a state.
"""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.core.display import display_html
from minilab.core.records import Record
from minilab.core.widget import Static, choices, ending, live, plain_text, slider
from minilab.dmpc.agent import Planner
from minilab.dmpc.rewards import quantities
from minilab.planning.rank import Objective, checked

Fan = Mapping[str, Any]  # what `fan` returns
SHOWN = {"speed": "speed (m/s)", "height": "height (m)", "pitch": "pitch (rad)"}
CAPTION = (
    "All candidates come from one proposal, which does not know what is wanted; the objective ranks them and the best "
    "(orange) is run. Another objective picks another of the same candidates, and nothing is trained. More candidates "
    "raise the best score, at first fast and then hardly, and never beyond what the proposal can draw."
)
MOST_BYTES = 200_000
_static = Static("minilab.dmpc")


def fan(planner: Planner, objectives: Mapping[str, Objective], starts: Mapping[str, Float[Tensor, "S"]], *, dt: float,
        n: int = 64) -> dict:
    """N candidates of a planner from each start, as paths of speed, height and pitch, and each objective's scores.

    The planner's own objective is not asked. `dt` is the seconds of one action. Raises ValueError if there is no
    objective or start, and for an objective that returns NaN or another shape.
    """
    if not objectives or not starts:
        raise ValueError("a fan needs at least one objective and one start")
    state = torch.stack([s.float() for s in starts.values()]).to(planner.device)
    with torch.no_grad():
        actions = planner.propose(state, n)
        after = planner.predict(state, actions)
        states = torch.cat((state[:, None, None].expand(-1, n, 1, -1), after), dim=2)  # B N F1 S
        scores = [checked(objective(states, actions), actions) for objective in objectives.values()]
    of = quantities(states)
    return {"dt": dt, "objectives": list(objectives), "starts": [
        {"name": name, **{what: _rounded(getattr(of, what)(states[i]), 3) for what in SHOWN},
         "scores": [_rounded(score[i], 4) for score in scores]} for i, name in enumerate(starts)]}


def fan_html(data: Fan | Record, *, objective: str | None = None, start: str | None = None, n: int = 16,
             caption: str = CAPTION) -> str:
    """The candidates with buttons for objective and start and a slider for their number; the options set what shows.

    Raises ValueError for an objective, start or n that the data lack, and for data too large for a page.
    """
    data = data.results if isinstance(data, Record) else data
    objective, start = _checked(data, objective, start, n)
    names, N = [s["name"] for s in data["starts"]], len(data["starts"][0]["speed"])
    html = _static.fill(
        "fan.html", style=_static.style("fan.css"), plots=_plots(),
        objectives=choices("objective", {name: name for name in data["objectives"]}, objective),
        starts=choices("start", {name: name for name in names}, start),
        slider=slider(n, "n", "candidates N", 1, N, 1, 0),
        ending=ending(*_still(data, names.index(start)), caption=caption, data=data, script=_static.read("fan.js")))
    if len(html.encode()) > MOST_BYTES:
        raise ValueError(f"the figure takes {len(html) / 1e3:.0f} kB, above {MOST_BYTES / 1e3:.0f} kB: give fewer "
                         "starts or candidates")
    return html


def show_fan(data: Fan | Record, **options: Any) -> None:
    """Display the candidates, with the options of `fan_html`; in plain text, the table of the start shown."""
    html, plain = fan_html(data, **options), data.results if isinstance(data, Record) else data
    name = options.get("start") or plain["starts"][0]["name"]
    still = _still(plain, [s["name"] for s in plain["starts"]].index(name))
    display_html(html, plain_text("candidate plans", *still))


def live_fan(compute: Callable[[int], Fan], **options: Any) -> Any:
    """The same with a kernel, as `live` says: a button that calls `compute(seed)` with the next seed."""
    seeds = count()
    return live({"plan again": lambda: None}, lambda: fan_html(compute(next(seeds)), **options))


def best_of(scores: list[float], n: int) -> int:
    """The best of the first n candidates: what a planner with n of them would run."""
    return max(range(n), key=scores.__getitem__)


def _still(data: Fan, start: int) -> tuple[str, list[str], list[list[str]]]:
    """A table of one start: the best score for a few N, and where the best of all ends."""
    paths = data["starts"][start]
    N = len(paths["speed"])
    counts = sorted({n for n in (1, 4, 16) if n < N} | {N})
    rows = []
    for name, scores in zip(data["objectives"], paths["scores"], strict=True):
        best = best_of(scores, N)
        rows.append([name, *(_signed(scores[best_of(scores, n)]) for n in counts),
                     *(_signed(paths[what][best][-1]) for what in SHOWN)])
    seconds = data["dt"] * (len(paths["speed"][0]) - 1)
    title = (f"Start: {paths['name']}. The best score among N candidates, and speed (m/s), height (m) and pitch (rad) "
             f"that the best of {N} is predicted to have after {seconds:.2g} seconds")
    return title, ["", *(f"N = {n}" for n in counts), *SHOWN], rows


def _plots() -> str:
    """Empty pictures that the script fills."""
    titles = {what: f"{label}, predicted" for what, label in SHOWN.items()}
    titles |= {"scores": "scores, above or below their mean", "gain": "best score among the first N"}
    return "".join(
        f'<div><p class="ml-small">{title}</p><svg data-plot="{what}" viewBox="0 0 340 170" role="img" '
        f'aria-label="{title}"></svg></div>' for what, title in titles.items())


def _checked(data: Fan, objective: str | None, start: str | None, n: int) -> tuple[str, str]:
    """The names to begin with."""
    found = []
    for what, name, known in (("objective", objective, data["objectives"]),
                              ("start", start, [s["name"] for s in data["starts"]])):
        if name is not None and name not in known:
            raise ValueError(f"no {what} called {name!r}; choose one of {', '.join(known)}")
        found.append(name or known[0])
    N = len(data["starts"][0]["speed"])
    if not 1 <= n <= N:
        raise ValueError(f"the data hold {N} candidates, so that n can be 1 to {N}, not {n}")
    return found[0], found[1]


def _rounded(x: Tensor, digits: int) -> list:
    """Nested lists with few digits, for a small page."""
    def cut(value: Any) -> Any:
        return [cut(v) for v in value] if isinstance(value, list) else round(value, digits) + 0.0  # no -0.0

    return cut(x.double().cpu().tolist())


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
