"""The figures of chapter 2: plain data or a record in, a matplotlib figure out."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from minilab.core.style import PALETTE, figure
from minilab.dmpc import linear
from minilab.dmpc.pendulum import Pendulum, Swing, height


def swing_ups(swings: Mapping[str, Swing], plant: Pendulum, *, pushed: int | None = None, row: int = 0) -> Figure:
    """Height of the bob and torque of the motor against time, one line a swing-up; a push is marked at its step."""
    fig, (high, torque) = figure(2, 1, height=4.2, sharex=True, height_ratios=[3, 2])
    for (name, swing), color, line in zip(swings.items(), (PALETTE.pink, PALETTE.orange, PALETTE.blue),
                                          ("--", "-", "-"), strict=False):
        t = plant.dt * np.arange(swing.states.shape[1])
        high.plot(t, height(swing.states[row]), line, color=color, label=name)
        torque.step(t[:-1], plant.torque * swing.actions[row, :, 0].clamp(-1, 1), line, color=color, where="post",
                    linewidth=1.2)
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
