"""The figures of chapter 3's experiments: a record in, a matplotlib figure out.

Notable: bars are 95 percent intervals over goals. They do not hold what another training would change, so where a model
was trained several times a small dot stands for each training.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minilab.core.records import Record
from minilab.core.style import INK, PALETTE, figure

LABELS = {"sigreg": "LeWM: SIGReg", "prediction": "prediction alone", "stop_gradient": "stop-gradient",
          "ema": "moving average", "hinge": "variance hinge", "pldm": "PLDM", "frozen_random": "frozen random tokens",
          "frozen_learned": "frozen learned tokens", "frozen_dino": "frozen DINOv2 tokens",
          "reconstruction": "pictures drawn", "cloning": "cloning", "pldm_tuned": "PLDM, tuned for it",
          "chance": "random actions"}
# The norm in the heads of arms whose rows say that of the setting, which these do not follow; "" stands for no heads.
NORMS = {"frozen_random": "", "frozen_learned": "", "frozen_dino": "", "reconstruction": "batch",
         "sigreg_reconstruction": "batch"}
COLORS = {"sigreg": PALETTE.blue, "pldm": PALETTE.orange, "pldm_tuned": PALETTE.orange,
          "prediction": PALETTE.red, "frozen_learned": PALETTE.green}
FILMS = {"nominal": ("untouched", INK), "recolored": ("recolored", PALETTE.orange),
         "teleported": ("teleported", PALETTE.blue)}
WORLDS = {"rooms": "Two Rooms", "disc": "push a disc", "pusht": "Push-T", "cube": "cube"}
KNOBS = {"lam": "weight λ", "batch, lam held": "batch, λ held", "batch, lam * batch held": "batch, λ · batch held",
         "directions": "directions M", "knots": "knots K", "latent": "latent width D", "history": "history N",
         "heads": "norm in the heads", "encoder": "encoder"}
DECIDERS = {"LeWM": PALETTE.blue, "patch tokens": PALETTE.green}
PROCESSORS = {"cpu": "core", "cuda": "GPU"}
# A group of points in one row stands this far apart.
APART = 0.22
TRAINING = {"marker": "o", "linestyle": "", "markersize": 3.5, "markeredgewidth": 0, "alpha": 0.5}


def by_heads(rows: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """The rows of a record of `collapse`, each under its arm and the norm that its heads have: "ema, layer".

    Frozen tokens have no heads and stand under the name of the arm alone.
    """
    named = {}
    for key, row in rows.items():
        arm, norm = key.split(", ")
        named[", ".join(filter(None, (arm, NORMS.get(arm, norm))))] = row
    return named


def collapse(record: Record) -> Figure:
    """Success of each arm with LayerNorm, with BatchNorm or without heads, over the share that chance reaches."""
    arms = by_heads(record.results["arms"])
    names = sorted({key.split(", ")[0] for key in arms}, key=lambda a: _either(arms, a)["success"]["mean"])
    fig, ax = figure(height=0.9 + 0.42 * len(names))
    for end, label, color, mark, shift in ((", layer", "LayerNorm heads", PALETTE.orange, "o", -APART / 2),
                                           (", batch", "BatchNorm heads", PALETTE.blue, "s", APART / 2),
                                           ("", "no heads", PALETTE.green, "D", 0.0)):
        if rows := [(i, arms[name + end]["success"]) for i, name in enumerate(names) if name + end in arms]:
            _shares(ax, [i + shift for i, _ in rows], [row for _, row in rows], color, mark, label)
    ax.axvline(100 * record.results["chance"]["mean"], color=INK, linewidth=1, linestyle=":", label="chance")
    ax.set_yticks(range(len(names)), [LABELS[name] for name in names])
    ax.set(xlabel="goals reached (percent)", xlim=(0, 102))
    fig.legend(*ax.get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    return fig


def curves(record: Record, *, heads: str = "layer", arms: Sequence[str] = ("sigreg", "prediction", "ema")) -> Figure:
    """Prediction loss and spread of the latents while some arms learn."""
    fig, axes = figure(1, 2, height=3.2)
    for arm, style in zip(arms, ("-", "--", ":"), strict=True):
        curve = record.results["curves"][f"{arm}, {heads}"]
        color = COLORS.get(arm, PALETTE.pink)
        axes[0].plot(curve["step"], curve["prediction"], style, color=color, label=LABELS[arm])
        axes[1].plot(curve["step"], curve["std"], style, color=color)
    axes[0].set(yscale="log", xlabel="step", ylabel="prediction loss")
    axes[1].set(yscale="log", xlabel="step", ylabel="spread of latents")
    fig.legend(*axes[0].get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    return fig


def knobs(record: Record, names: Sequence[str] = ("lam", "directions", "latent", "batch, lam held")) -> Figure:
    """Success against the position of each knob, the others as usual."""
    fig, axes = figure(-(-len(names) // 2), 2, height=0.6 + 1.9 * -(-len(names) // 2), sharey=True)
    for ax, name in zip(axes.flat, names, strict=True):
        rows = dict(sorted(record.results["knobs"][name].items(), key=as_number))
        mean, error = _bars([row["success"] for row in rows.values()])
        ax.errorbar(range(len(rows)), 100 * mean, yerr=100 * error, fmt="o-", capsize=2, color=PALETTE.blue)
        ax.plot(*_trainings(range(len(rows)), [row["success"] for row in rows.values()]), color=PALETTE.blue,
                **TRAINING)
        ax.set_xticks(range(len(rows)), rows, fontsize=8)
        ax.set(xlabel=KNOBS[name], ylim=(0, 102))
    for ax in axes[:, 0]:
        ax.set(ylabel="goals reached\n(percent)")
    return fig


def success(*records: Record) -> Figure:
    """Near goals reached in each world by each rival, of records of different worlds or rivals."""
    worlds: dict[str, dict] = {}
    for record in records:
        for world, rows in record.results["worlds"].items():
            worlds.setdefault(world, {}).update(rows)
    fig, axes = figure(len(worlds), 1, height=0.7 + 1.5 * len(worlds), sharex=True, squeeze=False)
    for ax, (world, rows) in zip(axes[:, 0], worlds.items(), strict=True):
        found = {arm: row["near"] for arm, row in rows.items()}
        order = sorted(found, key=lambda arm, found=found: found[arm]["mean"])
        for i, arm in enumerate(order):
            _shares(ax, [i], [found[arm]], COLORS.get(arm, PALETTE.pink), "o")
        ax.set_yticks(range(len(order)), [LABELS[arm] for arm in order])
        ax.set(title=WORLDS[world], xlim=(0, 102))
        ax.grid(axis="y", visible=False)
    axes[-1, 0].set(xlabel="goals reached (percent)")
    return fig


def planners(record: Record) -> Figure:
    """Goals reached with each planner, by LeWM and by PLDM."""
    rows = record.results["rows"]
    fig, ax = figure(height=0.9 + 0.42 * len(rows))
    names, arms = list(reversed(rows)), list(next(iter(rows.values())))
    for i, arm in enumerate(arms):
        at = [y + APART * (i - (len(arms) - 1) / 2) for y in range(len(names))]
        _shares(ax, at, [rows[name][arm] for name in names], COLORS.get(arm, PALETTE.pink), "os"[i % 2], LABELS[arm])
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="goals reached (percent)", title=WORLDS[record.results["world"]])
    fig.legend(*ax.get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    return fig


def crossing(record: Record) -> Figure:
    """Goals reached with each distance and cost: near ones, and those in the other room."""
    rows = record.results["rows"]
    names = list(reversed(rows))
    fig, ax = figure(height=0.9 + 0.42 * len(names))
    for where, color, mark, shift in (("near", PALETTE.orange, "s", APART / 2), ("opposite", PALETTE.blue, "o",
                                                                              -APART / 2)):
        label = {"near": "goals near", "opposite": "goals in the other room"}[where]
        _shares(ax, [i + shift for i in range(len(names))], [rows[name][where] for name in names], color, mark, label)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="goals reached (percent)", xlim=(0, 102))
    fig.legend(*ax.get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    return fig


def suspects(record: Record, case: str = "to be pushed") -> Figure:
    """Goals reached with each part of a planner learned or true, by method, of one case of the tasks if there is it."""
    rows = {name: row.get("cases", {}).get(case, row) for name, row in record.results["rows"].items()}
    chance = rows.pop("chance")
    methods = record.config["methods"]
    names = list(dict.fromkeys(name.rpartition(", ")[0] for name in reversed(rows)))
    fig, ax = figure(height=1.1 + 0.42 * len(names))
    for i, method in enumerate(methods):
        at = [y + APART * ((len(methods) - 1) / 2 - i) for y in range(len(names))]
        _shares(ax, at, [rows[f"{name}, {method}"] for name in names], PALETTE[i], "os^D"[i % 4], method)
    ax.axvline(100 * chance["mean"], color=INK, linewidth=1, linestyle=":", label="chance")
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="goals reached (percent)", xlim=(-2, 102))
    fig.legend(*ax.get_legend_handles_labels(), ncols=3, loc="outside lower center", frameon=False)
    return fig


def diet(record: Record, case: str = "to be pushed") -> Figure:
    """By what the recordings show: goals reached with each method, and how far off a place is five blocks ahead."""
    names, methods = record.config["policies"][::-1], record.config["methods"]
    rows = [record.results["policies"][name] for name in names]
    fig, (left, right) = figure(1, 2, height=1.3 + 0.42 * len(names), sharey=True)
    for i, method in enumerate(methods):
        at = [y + APART * ((len(methods) - 1) / 2 - i) for y in range(len(names))]
        _shares(left, at, [row[method].get("cases", {}).get(case, row[method]) for row in rows], PALETTE[i],
                "os^D"[i % 4], method)
    left.set_yticks(range(len(names)), names)
    left.set(xlabel="goals reached (percent)", xlim=(-2, 102))
    for color, mark, blocks in ((PALETTE.red, "s", "drawn"), (PALETTE.green, "^", "recorded")):
        found = [row["reading"][blocks] for row in rows]
        right.plot([np.mean(each) for each in found], range(len(names)), mark, color=color, label=f"{blocks} actions")
        right.plot([x for each in found for x in each], [y for y, each in enumerate(found) for _ in each], color=color,
                   **TRAINING)
    right.axvline(np.mean(rows[0]["reading"]["drawn, unmoved"]), color=INK, linewidth=1, linestyle=":",
                  label="drawn, unmoved")
    right.set(xlabel="imagined place, off by (pixels)")
    right.set_xlim(left=0)
    handles, labels = (a + b for a, b in zip(left.get_legend_handles_labels(), right.get_legend_handles_labels(),
                                             strict=True))
    fig.legend(handles, labels, ncols=3, loc="outside lower center", frameon=False)
    return fig


def recordings(record: Record, case: str = "to be pushed") -> Figure:
    """By the number of recordings, as they were made and mirrored: goals reached by each method, of one case of the
    tasks if there is it, and the error at a plan's end in episodes that were held out and in those learned from."""
    rows = dict(sorted(record.results["episodes"].items(), key=lambda row: int(row[0])))
    at = range(len(rows))
    fig, (left, right) = figure(1, 2, height=3.6)
    for how, color in (("as recorded", PALETTE.orange), ("mirrored", PALETTE.blue)):
        found = [row[how] for row in rows.values()]
        for method, style in zip(record.config["methods"], ("o--", "s-"), strict=False):
            mean, error = _bars([row[method].get("cases", {}).get(case, row[method]) for row in found])
            left.errorbar(at, 100 * mean, yerr=100 * error, fmt=style, capsize=2, color=color, label=f"{how}, {method}")
        for part, style, shown in (("foresight", "^-", "held out"), ("hindsight", "v:", "learned from")):
            right.plot(at, [row[part]["imagined"][-1] for row in found], style, color=color, label=f"{how}, {shown}")
    for ax in (left, right):
        ax.set_xticks(at, rows)
        ax.set(xlabel="recordings", ylim=(0, None))
    left.set(ylabel="goals reached (percent)")
    right.set(ylabel="error at the plan's end")
    handles, labels = (a + b for a, b in zip(left.get_legend_handles_labels(), right.get_legend_handles_labels(),
                                             strict=True))
    fig.legend(handles, labels, ncols=2, loc="outside lower center", frameon=False)
    return fig


def probes(record: Record, world: str) -> Figure:
    """Errors of linear (hollow) and MLP (filled) probes of each quantity; 1 is chance."""
    rows = record.results["worlds"][world]
    quantities = [name for name in next(iter(rows.values())) if name != "what"]
    fig, ax = figure(height=0.9 + 0.5 * len(quantities))
    for i, (arm, found) in enumerate(rows.items()):
        at = [y + APART * (i - (len(rows) - 1) / 2) for y in range(len(quantities))]
        color = COLORS.get(arm, PALETTE.pink)
        for kind, fill in (("linear", "none"), ("mlp", color)):
            ax.plot([max(found[q][kind]["mse"], 1e-4) for q in quantities], at, "o", color=color, markerfacecolor=fill,
                    label=LABELS[arm] if kind == "mlp" else None)
    ax.axvline(1, color=INK, linewidth=1, linestyle=":")
    ax.set_yticks(range(len(quantities)), quantities)
    ax.set(xscale="log", xlabel="error (1 is chance)")
    fig.legend(*ax.get_legend_handles_labels(), ncols=3, loc="outside lower center", frameon=False)
    return fig


def surprise(record: Record, world: str, arm: str = "sigreg") -> Figure:
    """Mean surprise around the event, with standard errors, and how well a threshold detects each kind of event."""
    found = record.results["worlds"][world][arm]
    fig, axes = figure(1, 2, height=3.2)
    for film, (label, color) in FILMS.items():
        mean, error = np.array(found["curves"][film])
        step = np.arange(1, len(mean) + 1) - found["event"]
        axes[0].fill_between(step, mean - error, mean + error, color=color, alpha=0.25, linewidth=0)
        axes[0].plot(step, mean, color=color, label=label)
        if film in found["roc"]:
            axes[1].plot(*found["roc"][film], color=color)
    axes[1].plot([0, 1], [0, 1], ":", color=INK, linewidth=1)
    axes[0].set(yscale="log", xlabel="blocks from the event", ylabel="surprise")
    axes[0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes[1].set(xlabel="false alarms (share)", ylabel="detected (share)")
    fig.legend(*axes[0].get_legend_handles_labels(), ncols=3, loc="outside lower center", frameon=False)
    return fig


def maps(record: Record) -> Figure:
    """Places on a grid, colored by how far right they are, along the two main directions of their latents."""
    arms, places = record.results["arms"], np.array(record.results["places"])
    fig, axes = figure(1, len(arms), height=2.6, squeeze=False)
    for ax, (arm, found) in zip(axes[0], arms.items(), strict=True):
        x, y = np.array(found["map"]).T
        ax.scatter(x, y, c=places[:, 0], cmap="viridis", s=6, linewidths=0)
        ax.set(title=LABELS[arm], xlabel=f"{100 * sum(found['explained']):.0f} % of variance", xticks=[], yticks=[])
    return fig


def distance(record: Record) -> Figure:
    """Latent against true distance of pairs of places: the mean, and the middle eight tenths."""
    fig, ax = figure(height=3.0)
    for arm, found in record.results["arms"].items():
        true, latent, low, high = np.array(found["distance"])
        scale = latent.max()
        color = COLORS.get(arm, PALETTE.pink)
        ax.fill_between(true, low / scale, high / scale, color=color, alpha=0.15, linewidth=0)
        ax.plot(true, latent / scale, color=color, label=LABELS[arm])
    ax.set(xlabel="true distance (pixels of 224)", ylabel="latent distance\n(largest mean = 1)", ylim=(0, None))
    ax.legend()
    return fig


def planning(*records: Record) -> Figure:
    """Seconds of one decision with one token a picture and with many, the slowest way to run it on top; their ratio."""
    ways = [len(record.results["times_lewm"]) for record in records]
    fig, axes = figure(len(records), 1, height=0.8 + 0.35 * len(records) + 0.3 * sum(ways), sharex=True, squeeze=False,
                       height_ratios=[0.6 + n for n in ways])
    for ax, record in zip(axes[:, 0], records, strict=True):
        found = record.results
        rows = {way: [found["seconds"][f"{model}, {way}"]["median"] for model in DECIDERS]
                for way in found["times_lewm"]}
        rows = dict(sorted(rows.items(), key=lambda row: row[1]))
        for y, (way, seconds) in enumerate(rows.items()):
            ax.plot(seconds, [y, y], color=INK, linewidth=0.8, zorder=1)
            ax.annotate(f"{found['times_lewm'][way]['median']:.0f} times", (np.prod(seconds) ** 0.5, y), (0, 2),
                        textcoords="offset points", ha="center", va="bottom", fontsize=9)
        for i, (model, color) in enumerate(DECIDERS.items()):
            ax.plot([seconds[i] for seconds in rows.values()], range(len(rows)), "o", color=color, label=model)
        ax.set_yticks(range(len(rows)), rows)
        ax.set(ylim=(-0.4, len(rows) - 0.2), xscale="log",
               title=f"{found['tokens']['patch tokens']} tokens for 1, one {PROCESSORS[record.config['device']]}")
        ax.grid(axis="y", visible=False)
    axes[-1, 0].set(xlabel="time of one decision (s)")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    return fig


def _either(arms: Mapping[str, Mapping], name: str) -> Mapping:
    return next(arms[name + end] for end in (", layer", ", batch", "") if name + end in arms)


def as_number(row: tuple[str, Mapping]) -> float:
    """To sort a knob's positions."""
    return float(row[0]) if row[0].replace(".", "", 1).isdigit() else 0.0


def _bars(found: Sequence[Mapping]) -> tuple[np.ndarray, np.ndarray]:
    """Means, and how far each interval reaches below and above."""
    mean = np.array([f["mean"] for f in found])
    return mean, np.abs(np.array([[f["low"], f["high"]] for f in found]).T - mean)


def _trainings(at: Sequence[float], rows: Sequence[Mapping]) -> tuple[list[float], list[float]]:
    """Where each training of each row belongs, and its percentage; nothing for rows with one training."""
    several = [(x, 100 * share) for x, row in zip(at, rows, strict=True) if len(row["each"]) > 1
               for share in row["each"]]
    return [x for x, _ in several], [share for _, share in several]


def _shares(ax: Axes, at: Sequence[float], rows: Sequence[Mapping], color: str, mark: str, label: str | None = None
            ) -> None:
    """Shares in percent with their intervals, one a height."""
    mean, error = _bars(rows)
    ax.errorbar(100 * mean, at, xerr=100 * error, fmt=mark, capsize=2, color=color, label=label)
    where, each = _trainings(at, rows)
    ax.plot(each, where, color=color, **TRAINING)
