"""The figures of chapter 3 that are drawn from what runs live: clouds, pictures, learning curves, ways to a goal."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from minilab.core.style import INK, PALETTE, figure
from minilab.lewm.flow import Flow
from minilab.lewm.learn import History
from minilab.lewm.rollout import Attempts
from minilab.lewm.sigreg import expected
from minilab.lewm.worlds import World

STYLES = ("-", "--", ":", "-.")


def flows(found: Mapping[str, Flow]) -> Figure:
    """The statistic along fresh directions while points descend, and where the points end in two dimensions."""
    fig, axes = figure(1, len(found) + 1, height=2.9, width_ratios=[1.6] + [1] * len(found))
    for (name, flow), ax, color in zip(found.items(), axes[1:], PALETTE, strict=False):
        axes[0].plot(flow.values, color=color, label=name)
        ax.plot(*flow.points[:, :2].T, ".", color=color, markersize=3)
        ax.set(title=name, xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xticks=[], yticks=[])
    axes[0].axhline(expected(2, 0, 1), color=INK, linewidth=1, linestyle=":")
    axes[0].set(xlabel="step", ylabel="SIGReg", yscale="log")
    return fig


def scale(N: int) -> Figure:
    """What SIGReg makes of N numbers from N(mean, std²): against the std, and against the mean."""
    fig, axes = figure(1, 2, height=2.8, sharey=True)
    spread, shift = np.linspace(0, 3, 121), np.linspace(0, 3, 121)
    axes[0].plot(spread, [expected(N, 0, float(s)) for s in spread])
    axes[1].plot(shift, [expected(N, float(m), 1) for m in shift])
    axes[0].set(xlabel="standard deviation", ylabel=f"expected statistic (N = {N})", ylim=(0, None))
    axes[1].set(xlabel="mean")
    return fig


def pictures(rows: Mapping[str, UInt8[Tensor, "T 3 H W"]]) -> Figure:
    """Strips of pictures, one a name, from left to right."""
    T = max(len(strip) for strip in rows.values())
    fig, axes = figure(len(rows), T, height=0.15 + 5.6 / T * len(rows), squeeze=False)
    for line, (name, strip) in zip(axes, rows.items(), strict=True):
        for ax, picture in zip(line, strip, strict=False):
            ax.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        line[0].set_ylabel(name)
    return fig


def learning(histories: Mapping[str, History]) -> Figure:
    """Prediction loss and SIGReg of the batches, and the spread of held-out latents, while models learn."""
    fig, axes = figure(1, 3, height=2.9)
    for (name, history), style, color in zip(histories.items(), STYLES, PALETTE, strict=False):
        moments = history.moments
        step = [m.step for m in moments]
        axes[0].plot(step, [m.prediction for m in moments], style, color=color, label=name)
        axes[1].plot(step, [m.sigreg for m in moments], style, color=color)
        axes[2].plot(step, [m.held_out.std for m in moments], style, color=color)
    for ax, title in zip(axes, ("prediction loss", "SIGReg", "spread of latents"), strict=True):
        ax.set(yscale="log", xlabel="step", title=title)
    axes[1].set_yticks(ticks := [1, 2, 5, 10, 20, 50], ticks)  # less than two decades: powers of ten are too few
    axes[1].minorticks_off()
    fig.legend(*axes[0].get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    return fig


def ways(world: World, attempts: Attempts, goals: Float[Tensor, "B S"], which: Sequence[int], *, size: int = 112
         ) -> Figure:
    """The way of the first two numbers of the state in some attempts, over the world's picture at the end."""
    fig, axes = figure(1, len(which), height=5.6 / len(which) + 0.4, squeeze=False)
    scale = size / world.frame
    for ax, i in zip(axes[0], which, strict=True):
        ax.imshow(world.render(attempts.states[i, -1:], size)[0].permute(1, 2, 0).numpy(), interpolation="nearest")
        x, y = (attempts.states[i, :, :2] * scale).T
        ax.plot(x, y, color=PALETTE.blue, linewidth=1.2)
        ax.plot(*(goals[i, :2] * scale), "x", color=PALETTE.green, markersize=9, markeredgewidth=2)
        first = int(attempts.first[i])
        ax.set(xticks=[], yticks=[], title=f"there at {first}" if first > 0 else "not there")
    return fig
