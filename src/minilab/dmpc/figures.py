"""The figures of chapter 2: plain data or a record in, a matplotlib figure out."""

from collections.abc import Mapping, Sequence

import mujoco
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from minilab.core.style import INK, PALETTE, figure, use_style
from minilab.dmpc import linear
from minilab.dmpc.interactive import SHOWN, Fan, fan_html
from minilab.dmpc.pendulum import Pendulum, Swing, height
from minilab.dmpc.poses import Imagined, limbs, poses

REAL = {"facecolor": PALETTE.sky, "linewidth": 0}
IMAGINED = {"facecolor": "none", "edgecolor": PALETTE.orange, "linewidth": 1.3}


def swing_ups(swings: Mapping[str, Swing], plant: Pendulum, *, pushed: int | None = None, row: int = 0) -> Figure:
    """Height of the bob and torque of the motor against time, one line a swing-up; a push is marked at its step."""
    fig, (high, torque) = figure(2, 1, height=4.2, sharex=True, height_ratios=[3, 2])
    styles = zip(swings.items(), (PALETTE.pink, PALETTE.orange, PALETTE.blue), ((0, (2, 3)), "-", "-"), (3, 2, 2),
                 strict=False)
    for (name, swing), color, line, order in styles:  # dots on top, so that two lines that are one can be told
        t = plant.dt * np.arange(swing.states.shape[1])
        high.plot(t, height(swing.states[row]), linestyle=line, color=color, label=name, zorder=order)
        torque.step(t[:-1], plant.torque * swing.actions[row, :, 0].clamp(-1, 1), linestyle=line, color=color,
                    where="post", linewidth=1.2, zorder=order)
    if pushed is not None:
        for ax in (high, torque):
            ax.axvline(plant.dt * (pushed + 1), color=PALETTE.red, linewidth=1.2)
        high.annotate("push", (plant.dt * (pushed + 1), 0.9), xytext=(-5, 0), textcoords="offset points",
                      color=PALETTE.red, ha="right")
    high.set(ylabel="height of the bob\n(rod lengths)", ylim=(-1.1, 1.1))
    torque.set(xlabel="time (s)", ylabel="torque (N m)")
    fig.legend(*high.get_legend_handles_labels(), ncols=3, loc="outside lower center", frameon=False)
    return fig


def success(shares, horizons: Sequence[int], candidates: Sequence[int], *, dt: float) -> Figure:
    """Share of the last two seconds spent standing against the horizon, one line a number of candidates.

    The bars are one standard error over episodes; `shares` is what `pendulum.success` returns.
    """
    shares = np.asarray(shares)
    fig, ax = figure(height=3.4)
    seconds = dt * np.array(horizons)
    for i, (n, color) in enumerate(zip(candidates, PALETTE, strict=False)):
        error = shares[:, i].std(axis=1, ddof=1) / shares.shape[2] ** 0.5
        ax.errorbar(seconds, shares[:, i].mean(axis=1), yerr=error, fmt="o-", capsize=2, color=color, label=f"N = {n}")
    ax.set(xlabel="horizon (s)", ylabel="share of the last 2 s\nspent standing", ylim=(-0.04, 1.04), xlim=(0, None))
    fig.legend(*ax.get_legend_handles_labels(), ncols=len(candidates), loc="outside lower center", frameon=False)
    return fig


def compounding(*, angle: float = 0.2, error: float = 0.02, growths: Sequence[float] = (1.05, 1.0, 0.9), K: int = 64,
                seed: int = 0) -> Figure:
    """RMS error against steps ahead for three linear worlds, and for one of which half is hidden.

    Left, the one-step model is off by the same random matrix in each world, of RMS size `error`. Right, each model is
    the best that can be fitted.
    """
    generator = torch.Generator().manual_seed(seed)
    E = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    E *= error * 2**0.5 / torch.linalg.matrix_norm(E)
    fig, (left, right) = figure(1, 2, height=3.8)
    k = np.arange(1, K + 1)
    for growth, color in zip(growths, (PALETTE.red, PALETTE.orange, PALETTE.sky), strict=False):
        left.plot(k, linear.rolled_error(linear.rotation(angle, growth), E, K), color=color,
                  label=f"one step, rolled ({growth:g}×)")
    left.plot(k, linear.multi_step_error(E, K), "--", color=PALETTE.blue, label="one map for each k")
    left.set(xscale="log", yscale="log", xlabel="steps ahead k", ylabel="RMS error (spreads)",
             title="world grows by a factor a step")
    rolled, direct = linear.hidden(angle, K)
    right.plot(k, rolled, color=PALETTE.orange)
    right.plot(k, direct, "--", color=PALETTE.blue)
    right.set(xlabel="steps ahead k", title="half of it is hidden (1×)", ylim=(0, None))
    fig.legend(*left.get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    return fig


def overlay(model: mujoco.MjModel, found: Sequence[Imagined], *, shares: Sequence[float] = (0, 0.25, 0.5, 1)) -> Figure:
    """What the best plan imagined over what the physics did with its actions: bodies, and the torso's path.

    A row of bodies for each plan, drawn after these shares of its horizon. They start at the same place, so that a
    shift to the left or right is an error in speed, summed up. Below, the height of the torso along the way.
    """
    F = len(found[0].real) - 1
    at = [round(share * F) for share in shares]
    bodies = [[limbs(model, poses(states, one.dt)) for states in (one.real, one.imagined)] for one in found]
    shown = [both.ends[at] - [1, 0] * pair[0].torso[at, None, None] for pair in bodies for both in pair]
    reach, top = (float(np.abs(np.stack(shown)[..., i]).max()) + 0.12 for i in (0, 1))
    panel = 0.76 * top / reach  # inches high, when four of them share the width
    fig = figure(width=6.4, height=len(found) * (panel + 0.1) + 2.3)[0]
    fig.clear()
    with use_style():
        grid = fig.add_gridspec(len(found) + 1, len(at), height_ratios=[panel] * len(found) + [1.3])
        path = fig.add_subplot(grid[len(found), :])
    end = 0.0  # plans follow one another along the path, with a gap
    for i, (one, pair) in enumerate(zip(found, bodies, strict=True)):
        for j, k in enumerate(at):
            with use_style():
                ax = fig.add_subplot(grid[i, j])
            middle = pair[0].torso[k, 0]
            ax.axhline(0, color=INK, linewidth=0.8)
            ax.set(xlim=(middle - reach, middle + reach), ylim=(-0.05, top), aspect="equal", xticks=[], yticks=[])
            ax.spines[["left", "bottom"]].set_visible(False)
            for body, style in zip(pair, (REAL, IMAGINED), strict=True):
                _capsules(ax, body.ends[k], body.radius, **style)
            if i == 0:
                ax.set_title(f"after {k * one.dt:.2g} s" if k else "now", fontsize=10)
            if j == 0:
                ax.set_ylabel(f"plan at\n{one.moment * one.dt:.3g} s", fontsize=10, rotation=0, ha="right", va="center")
        ways = np.concatenate([body.torso[:, 0] for body in pair])
        start = end - ways.min()
        end += np.ptp(ways) + 0.3
        for body, color, line in zip(pair, (PALETTE.sky, PALETTE.orange), ("-", "--"), strict=True):
            x, z = (body.torso + (start, 0)).T
            path.plot(x, z, line, color=color)
            path.plot(x[at], z[at], "o", color=color, markersize=4)
        path.text(start, 0.99, f"{one.moment * one.dt:.3g} s", transform=path.get_xaxis_transform(), va="top",
                  fontsize=10)
    path.set(xlabel="way of the torso, one plan after the other (m)", ylabel="its height (m)")
    path.margins(y=0.25)
    fig.legend(handles=[Patch(**REAL, label="what the physics did"), Patch(**IMAGINED, label="what the plan imagined")],
               ncols=2, loc="outside lower center", frameon=False)
    return fig


def fan(data: Fan, *, start: str | None = None, objectives: Sequence[str] | None = None, n: int = 32) -> Figure:
    """The interactive figure for print: n candidates from one start, ranked by some objectives (the first two).

    A row an objective; the darker a path, the better its rank, and the best is orange.
    """
    fan_html(data, start=start, n=n)  # refuses what the data lack
    paths = next(s for s in data["starts"] if s["name"] == (start or data["starts"][0]["name"]))
    objectives = list(objectives or data["objectives"][:2])
    fig, axes = figure(len(objectives), len(SHOWN), width=6.4, height=1.7 * len(objectives) + 0.4, sharex=True,
                       sharey="col", squeeze=False)
    t = data["dt"] * np.arange(len(paths["speed"][0]))
    for row, name in zip(axes, objectives, strict=True):
        scores = np.array(paths["scores"][data["objectives"].index(name)][:n])
        order = np.argsort(-scores, kind="stable")  # of equal ones the first, as a planner does
        for ax, (what, label) in zip(row, SHOWN.items(), strict=True):
            for rank in range(n - 1, 0, -1):
                ax.plot(t, paths[what][order[rank]], color=PALETTE.blue, linewidth=0.9,
                        alpha=0.9 - 0.75 * rank / (n - 1))
            ax.plot(t, paths[what][order[0]], color=PALETTE.orange, linewidth=2.4)
            ax.set_ylabel(label, fontsize=10)
        title = f"{name}: best score {scores.max():.2f}, mean {scores.mean():.2f}"
        row[1].set_title(title.replace("-", "\N{MINUS SIGN}"), fontsize=10)
    for ax in axes[-1]:
        ax.set_xlabel("seconds ahead", fontsize=10)
    return fig


def _capsules(ax: Axes, ends, radius, **style) -> None:
    """Filled or outlined limbs, true to scale: `ends` is G 2 2, `radius` G."""
    turn = np.linspace(0, np.pi, 12)
    shapes = []
    for (a, b), r in zip(ends, radius, strict=True):
        heading = np.arctan2(*(b - a)[::-1]) + np.pi / 2
        half = [center + r * np.stack((np.cos(heading + side + turn), np.sin(heading + side + turn)), axis=1)
                for center, side in ((a, 0.0), (b, np.pi))]
        shapes.append(np.concatenate(half))
    ax.add_collection(PolyCollection(shapes, **style))
