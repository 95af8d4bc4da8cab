"""A time line of three schedulers: set in motion by the reader, or drawn once by matplotlib.

`show_timeline` displays one self-contained piece of HTML, made as those of `interactive.py`: no kernel, nothing
fetched, no ids. Its script repeats `simulate.py` in the browser (`static/simulate.js`). Without scripts, and in
print, a table of the long run stays; with them the same table follows the sliders.
"""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from minilab.core import style
from minilab.core.display import display_html
from minilab.core.style import PALETTE
from minilab.core.widget import Static, ending, slider
from minilab.speculative.simulate import SCHEDULERS, Costs, Outcome, long_run, simulate

static = Static("minilab.speculative")
CAPTION = (
    "Three schedulers on one time axis; above each pass of the target stand the tokens that it made. Where the "
    "draft's lane is orange, the target waits. Speculating while the target verifies removes that wait from every "
    "round that hits. Lower the hit rate or add rows (one miss holds up the whole batch), and the orange comes "
    "back. Raise the contention to 2, one device on which two tasks at once take as long as one after the other, "
    "and preparing costs more time than it saves."
)
NAMES = {"ar": "autoregressive (AR)", "sd": "speculative (SD)", "ssd": "speculative speculative (SSD)"}
SLIDERS = (  # name, what it is, smallest, largest, step, digits, start; times are in target steps
    ("alpha", "acceptance rate α", 0, 1, 0.01, 2, 0.8),
    ("hit_rate", "hit rate", 0, 1, 0.01, 2, 0.85),
    ("K", "lookahead K", 1, 12, 1, 0, 4),
    ("draft", "draft pass, K a round", 0, 0.5, 0.01, 2, 0.12),
    ("prepare", "preparing pass, K + 1 a round", 0, 0.5, 0.01, 2, 0.16),
    ("verify", "verification", 1, 3, 0.05, 2, 1.1),
    ("contention", "contention while both run", 1, 2, 0.05, 2, 1),
    ("batch", "rows in the batch", 1, 16, 1, 0, 1),
)
MOMENT = ("moment", "moment, in target steps", 0, 16, 0.1, 1)
COLUMNS = ["", "tokens", "target steps", "speed-up", "target idle", "draft idle"]
COLORS = {"verify": PALETTE.blue, "step": PALETTE.blue, "draft": PALETTE.orange, "fallback": PALETTE.orange,
          "prepare": PALETTE.green, "handshake": PALETTE.pink}


def timeline_html(*, seed: int = 0, **start: float) -> str:
    """The schedulers' lanes over 16 target steps with sliders, and a table of the long run.

    `start` moves the sliders by their names in SLIDERS. Times are in target steps: an autoregressive pass is 1.
    `draft` and `prepare` are single passes: a preparation has K + 1 of them, and the fallback after a miss K draft
    passes. `seed` fixes which rounds are lucky. Raises ValueError for what the sliders cannot reach.
    """
    title, rows = _still(start)
    sliders = "\n".join(slider(start.get(name, default), name, *rest) for name, *rest, default in SLIDERS)
    return static.fill(
        "timeline.html", style=static.style("timeline.css"), sliders=sliders, moment=slider(MOMENT[3], *MOMENT),
        ending=ending(title, COLUMNS, rows, caption=CAPTION, data={"seed": seed}, script="".join(
            static.read(f"{name}.js") for name in ("theory", "simulate", "timeline"))))


def show_timeline(*, seed: int = 0, **start: float) -> None:
    """Display the time line, with the options of `timeline_html`; in plain text, the long run at the start."""
    html = timeline_html(seed=seed, **start)
    title, rows = _still(start)
    lines = [f"  {name}: {tokens} tokens in {steps} target steps, speed-up {gain}"
             for name, tokens, steps, gain, *_ in rows]
    display_html(html, "\n".join([f"Interactive figure: time lines of three schedulers. {title}", *lines]))


def figure(costs: Costs, outcomes: Sequence[Outcome], K: int) -> Figure:
    """The lanes of the three schedulers over the same outcomes, until the first of the two speculative ones is done.

    Above each target pass stand the tokens it made; the titles count those made by the end of the axis. Use few
    outcomes (`draw_outcomes(..., rounds=8)`, or the engine's by `outcomes_of`). Costs are in seconds.
    """
    lines = {name: simulate(name, costs, outcomes, K) for name in ("sd", "ssd")}
    until = min(line.seconds for line in lines.values())
    lines["ar"] = simulate("ar", costs, [outcomes[0]] * math.ceil(until / costs.step), K)
    fig, axes = style.figure(3, 1, height=4.6, sharex=True, height_ratios=[3, 5, 5])
    for ax, name in zip(axes, SCHEDULERS, strict=True):
        line, lanes = lines[name], ("target",) if name == "ar" else ("draft", "target")
        for event in line.events:
            if event.start < until:
                start, end, y = event.start * 1e3, min(event.end, until) * 1e3, lanes.index(event.lane)
                seam = min(0.3 * (end - start), 3 * until)  # in ms: 0.3 % of the axis, to tell neighbors apart
                ax.broken_barh([(start, end - start - seam)], (y - 0.36, 0.72), color=COLORS[event.kind], linewidth=0)
                if event.lane == "target" and event.end <= until:
                    ax.text((start + end) / 2, y + 0.4, f"+{line.made[event.round]}", ha="center", fontsize=9)
        ax.set(xlim=(0, until * 1e3), ylim=(-0.5, len(lanes)))
        ax.set_yticks(range(len(lanes)), lanes)
        ax.set_title(f"{NAMES[name]}: {line.tokens_by(until)} tokens", loc="left")
        ax.grid(axis="y", visible=False)
    axes[-1].set_xlabel("time (ms)")
    shown = {"verify": "target pass", "draft": "drafting", "prepare": "preparing"}
    shown |= {"handshake": "handshake"} if costs.handshake else {}
    fig.legend(handles=[Patch(color=COLORS[kind], label=label) for kind, label in shown.items()], ncols=4,
               loc="outside lower center", frameon=False)
    return fig


def _still(start: dict[str, float]) -> tuple[str, list[list[str]]]:
    """The table of the long run at a position of the sliders: its title and rows."""
    if unknown := set(start) - {name for name, *_ in SLIDERS}:
        raise ValueError(f"there is no slider {', '.join(sorted(unknown))}; there are "
                         f"{', '.join(name for name, *_ in SLIDERS)}")
    at = {name: start.get(name, default) for name, *_, default in SLIDERS}
    for name, what, low, high, *_ in SLIDERS:
        if not low <= at[name] <= high:
            raise ValueError(f"{what}: the slider goes from {low} to {high}, which leaves out {at[name]}")
    K, batch = int(at["K"]), int(at["batch"])
    costs = Costs(verify=at["verify"], step=1.0, draft=at["draft"], prepare=(K + 1) * at["prepare"],
                  contention=at["contention"])
    means = [long_run(name, costs, K, alpha=at["alpha"], hit_rate=at["hit_rate"], batch=batch) for name in SCHEDULERS]
    rows = [[name.upper(), f"{mean.tokens:.2f}", f"{mean.seconds:.2f}", f"{mean.tokens / mean.seconds / batch:.2f}×",
             *(f"{100 * idle:.0f}\N{NO-BREAK SPACE}%" for idle in (mean.idle_target, mean.idle_draft))]
            for name, mean in zip(SCHEDULERS, means, strict=True)]
    settings = (f"{what} {at[name]:.{digits}f}" for name, what, _, _, _, digits, _ in SLIDERS)
    return f"A round in the long run: {'; '.join(settings)}", rows
