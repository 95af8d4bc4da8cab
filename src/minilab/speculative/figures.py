"""The figures of chapter 1: each takes a record (or two distributions) and returns a matplotlib figure."""

import numpy as np
from matplotlib.figure import Figure

from minilab.core.records import Record
from minilab.core.style import PALETTE, figure
from minilab.speculative import theory


def bandwidth(record: Record) -> Figure:
    """Time of one pass against its tokens, over the two floors: reading the weights, doing the arithmetic."""
    widths = np.array(record.results["widths"])
    fig, ax = figure()
    for color, role in ((PALETTE.blue, "target"), (PALETTE.orange, "draft")):  # a file's keys are sorted
        curve = record.results["curves"][role]
        times = [curve["seconds"][str(w)] for w in widths]
        middle = np.array([t["median"] for t in times]) * 1e3
        error = np.abs([[t[end] * 1e3 - m for t, m in zip(times, middle, strict=True)] for end in ("low", "high")])
        ax.errorbar(widths, middle, yerr=error, marker="o", color=color, label=f"{role}, measured", capsize=2)
        memory = curve["weight_bytes"] / record.results["read_bytes_per_s"] * 1e3
        arithmetic = 2 * curve["parameters"] * widths / record.results["flops_per_s"] * 1e3
        ax.plot(widths, np.maximum(memory, arithmetic), "--", color=color, label=f"{role}, floor", linewidth=1.2)
    ax.set(xscale="log", yscale="log", xlabel="tokens in one pass", ylabel="time of the pass (ms)")
    ax.set_xticks(widths, [str(w) for w in widths])
    ax.minorticks_off()
    ax.legend(ncols=2)
    return fig


def overlap(p, q, names: list[str] | None = None) -> Figure:
    """Target p and draft q over a few tokens: what is accepted, what is rejected, where the residual lies."""
    p, q = np.asarray(p, dtype=float), np.asarray(q, dtype=float)
    x, both = np.arange(len(p)), np.minimum(p, q)
    fig, ax = figure(height=3.2)
    ax.bar(x, both, 0.62, color=PALETTE.blue, label=f"accepted: min(p, q), {both.sum():.2f} in all")
    more, less = p > q, q > p
    ax.bar(x[more], (p - q)[more], 0.62, bottom=both[more], color=PALETTE.green, hatch="//",
           label="residual: p - q, drawn after a rejection")
    ax.bar(x[less], (q - p)[less], 0.62, bottom=both[less], facecolor="none", edgecolor=PALETTE.orange,
           linestyle="--", linewidth=1.4, label="rejected: q - p")
    ax.set_xticks(x, names or [str(i) for i in x])
    ax.set(xlabel="token", ylabel="probability", ylim=(0, 1.45 * max(p.max(), q.max())))  # room for the legend
    ax.legend(loc="upper right")
    return fig


def accepted_counts(record: Record) -> Figure:
    """Share of rounds that accept exactly k draft tokens, beside the law of a constant acceptance rate."""
    curves, K = record.results["curves"], record.results["K"]
    shown = {t: curves[t] for t in (min(curves, key=float), max(curves, key=float))}
    fig, axes = figure(1, len(shown), height=3.2, sharey=True, squeeze=False)
    axes = axes[0]
    for ax, (temperature, curve) in zip(axes, shown.items(), strict=True):
        counts = np.array(curve["counts"])
        ax.bar(np.arange(K + 1), counts / counts.sum(), 0.7, color=PALETTE.blue, label="measured")
        ax.plot(np.arange(K + 1), curve["predicted_pmf"], "o--", color=PALETTE.orange,
                label=rf"constant $\alpha$ = {curve['acceptance_rate']:.2f}")
        ax.set(title=f"temperature {float(temperature):g}", xlabel="draft tokens accepted in a round",
               xticks=range(K + 1))
        ax.legend()
    axes[0].set_ylabel("share of rounds")
    return fig


def speed(record: Record) -> Figure:
    """Measured speed-up over autoregressive decoding against K, beside two predictions."""
    curve = record.results["curve"]
    K = [point["K"] for point in curve]
    middle = np.array([point["speedup"]["median"] for point in curve])
    error = np.abs([[point["speedup"][end] - m for point, m in zip(curve, middle, strict=True)]
                    for end in ("low", "high")])
    fig, ax = figure()
    ax.axhline(1, color=PALETTE.pink, linewidth=1, label="autoregressive")
    ax.plot(K, [point["predicted_speedup_free_verify"] for point in curve], ":", color=PALETTE.orange,
            label="theory, verification costs one step")
    ax.plot(K, [point["predicted_speedup"] for point in curve], "--", color=PALETTE.orange,
            label="theory, with the measured cost of verification")
    ax.errorbar(K, middle, yerr=error, marker="o", color=PALETTE.blue, capsize=2, label="measured")
    ax.set(xlabel="lookahead K (draft tokens a round)", ylabel="speed-up", xticks=K, ylim=(0, None))
    ax.legend()
    return fig


def tokens_per_round(alphas: tuple[float, ...] = (0.5, 0.7, 0.8, 0.9), longest: int = 16) -> Figure:
    """Expected tokens a round against K: why a long lookahead stops paying."""
    K = np.arange(longest + 1)
    fig, ax = figure(height=3.2)
    for alpha, color in zip(alphas, PALETTE, strict=False):
        ax.plot(K, theory.expected_tokens(alpha, K), "o-", markersize=3, color=color, label=rf"$\alpha$ = {alpha}")
        ax.axhline(1 / (1 - alpha), color=color, linestyle=":", linewidth=1)
    ax.set(xlabel="lookahead K", ylabel="expected tokens a round", ylim=(0, None))
    ax.legend(loc="upper left")
    return fig


def miss_rates(record: Record) -> Figure:
    """Miss rate against fan-out with its fitted power law, after the draft's and after a fallback's speculation."""
    curves, F = record.results["curves"], np.array(record.results["fan_outs"])
    fig, axes = figure(1, 2, height=3.4, sharey=True)
    for ax, source, title in zip(axes, ("primary", "backup"), ("after the draft", "after random tokens"), strict=True):
        for (temperature, curve), color in zip(curves.items(), PALETTE, strict=False):
            fit = curve[source]
            seen = np.array(fit["miss"]) > 0
            ax.plot(F[seen], np.array(fit["miss"])[seen], "o", color=color, label=f"T = {float(temperature):g}")
            ax.plot(F, fit["A"] * F ** -fit["r"], "--", color=color, linewidth=1.2)
        ax.set(xscale="log", yscale="log", title=title, xlabel="fan-out F")
        ax.set_xticks(F, [str(n) for n in F])
        ax.minorticks_off()
    axes[0].set_ylabel("miss rate")
    axes[0].legend()
    return fig


def saguaro(record: Record) -> Figure:
    """Hit rate against acceptance rate, one point for each constant C."""
    points = record.results["points"]
    x, y = ([p[key] for p in points] for key in ("acceptance_rate", "hit_rate"))
    fig, ax = figure(height=3.2)
    ax.plot(x, y, "o-", color=PALETTE.blue)
    for point in points:
        ax.annotate(f"C = {point['C']:g}", (point["acceptance_rate"], point["hit_rate"]), xytext=(7, 4),
                    textcoords="offset points")
    ax.set(xlabel="acceptance rate", ylabel="hit rate")
    ax.margins(x=0.15, y=0.15)
    return fig


NAMES = {"ar": "AR", "sd": "SD", "ssd": "SSD"}


def headline(record: Record) -> Figure:
    """Tokens per second of AR, SD and SSD, each at its best settings, a group of bars for each temperature."""
    temperatures = record.results["temperatures"]
    fig, ax = figure(height=1.2 + 1.1 * len(temperatures))
    for i, found in enumerate(temperatures.values()):
        for j, (kind, color) in enumerate(zip(NAMES, (PALETTE.pink, PALETTE.orange, PALETTE.blue), strict=True)):
            speed = found["tokens_per_s"][found["fastest"][kind]]
            error = [[speed["median"] - speed["low"]], [speed["high"] - speed["median"]]]
            ax.barh(i + 0.27 * (j - 1), speed["median"], 0.24, xerr=error, color=color,
                    label=NAMES[kind] if i == 0 else None)
        predicted = found["simulated"]["overlapped_tokens_per_s"]
        ax.plot([predicted] * 2, [i + 0.13, i + 0.41], color=PALETTE.green, linewidth=2.4,
                label="SSD, simulated from parts run one by one" if i == 0 else None)
    ax.set_yticks(range(len(temperatures)), [f"T = {float(t):g}" for t in temperatures])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="tokens per second", xlim=(0, None))
    fig.legend(ncols=2, loc="outside lower center", frameon=False)
    return fig


def temperature(record: Record) -> Figure:
    """Hit rate, and speed-up over AR, against the temperature, for SD and for SSD with two fan-outs."""
    points = record.results["points"]
    x = [point["temperature"] for point in points]
    fig, (hits, gain) = figure(1, 2, height=3.4)
    contestants = {"sd": ("SD", PALETTE.orange, "o-"), "uniform": ("SSD, uniform", PALETTE.blue, "o-"),
                   "geometric": ("SSD, geometric", PALETTE.green, "s--")}
    for name, (label, color, style) in contestants.items():
        middle = np.array([point["over_ar"][name]["median"] for point in points])
        error = np.abs([[point["over_ar"][name][end] - m for point, m in zip(points, middle, strict=True)]
                        for end in ("low", "high")])
        gain.errorbar(x, middle, yerr=error, fmt=style, capsize=2, color=color, label=label)
        if name != "sd":
            hits.plot(x, [point["hit_rate"][name] for point in points], style, color=color)
    hits.set(xlabel="temperature", ylabel="hit rate", ylim=(0, 1), xticks=x)
    gain.set(xlabel="temperature", ylabel="speed-up over AR", ylim=(0, None), xticks=x)
    fig.legend(*gain.get_legend_handles_labels(), ncols=3, loc="outside lower center", frameon=False)
    return fig


def batches(record: Record) -> Figure:
    """Speed-up over AR against the batch size, and throughput against the speed of one text."""
    points = record.results["points"]
    fig, (gain, frontier) = figure(1, 2, height=3.6)
    sizes = [point["batch"] for point in points]
    labels = {"ar": "AR", "sd": "SD", "jit": "SSD, just in time", "ngram": "SSD, n-gram", "random": "SSD, random"}
    for (name, label), color in zip(labels.items(), PALETTE, strict=False):
        if name not in points[0]["tokens_per_s"]:
            continue
        gain.plot(sizes, [point["over_ar"][name]["median"] for point in points], "o-", color=color, label=label)
        total = np.array([point["tokens_per_s"][name]["median"] for point in points])
        frontier.plot(total / sizes, total, "o-", color=color)
    gain.set(xscale="log", xlabel="texts in the batch", ylabel="speed-up over AR", ylim=(0, None))
    gain.set_xticks(sizes, [str(b) for b in sizes])
    gain.minorticks_off()
    frontier.set(xlabel="tokens/s of one text", ylabel="tokens/s of all texts", xlim=(0, None), ylim=(0, None))
    fig.legend(*gain.get_legend_handles_labels(), ncols=3, loc="outside lower center", frameon=False)
    return fig
