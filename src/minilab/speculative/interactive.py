"""Two figures of chapter 1 that the reader sets in motion: a race of decodings, and what speculation buys.

Each is one self-contained piece of HTML: no kernel, no library, nothing fetched. What must be read is in the
page before any script runs, so it also stands in print, in an untrusted notebook and without scripts:

- the race holds both texts, its picture and a table; the script only hides what has not arrived yet;
- the explorer holds a table from `theory`, which the script replaces by sliders and curves. With a kernel
  `live_explorer` takes any numbers, and a pass that costs more for each token that it checks.

Nothing in them has an id, so that one page can hold the same figure twice. The templates are in `static/`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from minilab.core.display import display_html
from minilab.core.records import Record
from minilab.core.style import INK, PALETTE, figure
from minilab.core.widget import Static, ending, live, slider, told
from minilab.speculative import theory

static = Static("minilab.speculative")

Stream = Mapping[str, Any]  # label, pieces, tokens, seconds: see `race_html`

RACE_CAPTION = (
    "One prompt, one target model, several decodings, replayed at the speed that was measured. Each bar is "
    "one pass of the target. Autoregressive decoding gets one token from it; a speculative round brings "
    "several at once, so the text arrives in bursts, and the bursts are long where the text is easy to guess."
)
EXPLORER_CAPTION = (
    "With a constant acceptance rate, a longer draft pays until its last tokens are too seldom reached. "
    "The cost c is one step of the draft, v one pass of the target over K + 1 tokens. Lower α and the best K "
    "moves left; raise c or v and the curve sinks, at last below the dashed line, where decoding without a "
    "draft is faster."
)
SPEEDS = {1: "1×", 0.5: "½×", 0.25: "¼×"}  # of a replay: the first is set
SLOW = {1 / 40: "1/40×", 1 / 10: "1/10×", 1: "1×"}  # for texts that a GPU writes before one can look
ALPHAS, LOOKAHEADS = (0.5, 0.6, 0.7, 0.8, 0.9), (1, 2, 4, 6, 8, 12, 16)
SLIDERS = (  # name, what it is, smallest, largest, step, digits
    ("alpha", "acceptance rate α", 0, 1, 0.01, 2),
    ("K", "lookahead K, draft tokens a round", 1, 16, 1, 0),
    ("c", "draft cost c, in target steps", 0, 1, 0.01, 2),
    ("v", "verification cost v, in target steps", 1, 5, 0.05, 2),
)
FARTHEST = 200  # lookahead, with a kernel


def time_stream(label: str, rounds: Iterable, decode: Callable[[list[int]], str]) -> dict:
    """Run a decoding of one prompt and note when its tokens arrive: a stream for `race_html`.

    `rounds` are `Round`s, `decode` turns tokens into text. Run each decoding once before, to warm up.
    """
    arrived, started = [], time.perf_counter()
    for step in rounds:
        if step.rows:
            arrived.append((time.perf_counter() - started, step.tokens[0], step.accepted[0]))
    seconds = time.perf_counter() - started
    texts = iter(token_texts([t for _, tokens, _ in arrived for t in tokens], decode))
    pieces = [{"text": [next(texts) for _ in tokens], "t": t, "accepted": min(accepted, len(tokens))}
              for t, tokens, accepted in arrived]
    tokens = sum(len(p["text"]) for p in pieces)
    return {"label": label, "pieces": pieces, "tokens": tokens, "seconds": seconds}


def token_texts(tokens: list[int], decode: Callable[[list[int]], str]) -> list[str]:
    """The text that each token adds; one that ends inside a character adds none, the next one all of it."""
    texts, known = [], 0
    for n in range(1, len(tokens) + 1):
        text = decode(tokens[:n])
        whole = n == len(tokens) or not text.endswith("\N{REPLACEMENT CHARACTER}")
        texts.append(text[known:] if whole else "")
        known = len(text) if whole else known
    return texts


def race_html(streams: Sequence[Stream], *, caption: str = RACE_CAPTION, speeds: Mapping[float, str] = SPEEDS,
              one_paragraph: bool = False) -> str:
    """Decodings side by side, replayed at their measured speeds, or at a choice of multiples of them.

    A stream is {"label", "pieces", "tokens", "seconds"}. A piece is what arrived at once: "t" seconds since
    the start, "accepted" draft tokens (0 for plain decoding), and "text", a list with the text of each token,
    the accepted ones first. A piece of one token may give its text as a string. With `one_paragraph` line breaks
    are shown as ¶, which keeps a long text short.

    Raises ValueError for a stream whose numbers contradict each other.
    """
    if not streams:
        raise ValueError("a race needs at least one stream")
    for stream in streams:
        _check_stream(stream)
    if one_paragraph:
        streams = [{**s, "pieces": [{**p, "text": [re.sub(r"\n+", " ¶ ", t) for t in _texts(p)]} for p in s["pieces"]]}
                   for s in streams]
    end = max(s["seconds"] for s in streams)
    most = max(len(_texts(p)) for s in streams for p in s["pieces"])
    rows = [[s["label"], str(s["tokens"]), str(len(s["pieces"])), f"{s['tokens'] / len(s['pieces']):.2f}",
             f"{s['seconds']:.2f} s", f"{s['tokens'] / s['seconds']:.1f} tokens/s"] for s in streams]
    columns = "\n".join(_column(s, end, most) for s in streams)
    buttons = "\n".join(f'<button type="button" data-speed="{speed:g}" aria-pressed="{str(i == 0).lower()}">{label}'
                        "</button>" for i, (speed, label) in enumerate(speeds.items()))
    head = ["", "tokens", "target passes", "tokens a pass", "time", "speed"]
    return static.fill("race.html", style=static.style("race.css"), columns=columns, speeds=buttons,
                       ending=ending("", head, rows, caption=caption, script=static.read("race.js")))


def explorer_html(*, alpha: float = 0.8, K: int = 5, cost: float = 0.05, verify: float = 1.0, seed: int = 0,
                  caption: str = EXPLORER_CAPTION) -> str:
    """The speed-up against K with sliders for the acceptance rate and the costs, and rounds drawn one by one.

    The arguments are where the sliders start; `seed` fixes the rounds. Raises ValueError for a start that the
    sliders cannot reach.
    """
    start = {"alpha": alpha, "K": K, "c": cost, "v": verify}
    for name, what, low, high, *_ in SLIDERS:
        if not low <= start[name] <= high:
            raise ValueError(f"{what}: the slider goes from {low} to {high}, which leaves out {start[name]}")
    sliders = "\n".join(slider(start[name], name, *rest) for name, *rest in SLIDERS)
    gains = {a: theory.speedup(a, np.array(LOOKAHEADS), cost, verify) for a in ALPHAS}
    rows = [[f"α = {a}", *(f"{gain:.2f}" for gain in gains[a])] for a in ALPHAS]
    title = f"Speed-up over autoregressive decoding at draft cost c = {cost:g}, verification v = {verify:g}"
    return static.fill("explorer.html", style=static.style("explorer.css"), sliders=sliders, ending=ending(
        title, ["", *(f"K = {k}" for k in LOOKAHEADS)], rows, caption=caption, data={"seed": seed},
        script=static.read("theory.js") + static.read("explorer.js")))


def show_race(record: Record | Sequence[Stream], **options: Any) -> None:
    """Display the race of a record (its `results["streams"]`) or of streams; in plain text, the totals.

    `options` are those of `race_html`.
    """
    streams = record.results["streams"] if isinstance(record, Record) else record
    html = race_html(streams, **options)
    lines = ["Interactive figure: decodings side by side, replayed as measured."]
    for s in streams:
        lines.append(f"  {s['label']}: {s['tokens']} tokens in {len(s['pieces'])} target passes, "
                     f"{s['seconds']:.2f} s, {s['tokens'] / s['seconds']:.1f} tokens/s")
    display_html(html, "\n".join(lines))


def show_explorer(**start: Any) -> None:
    """Display the explorer, with the options of `explorer_html`; in plain text, the start and its best K."""
    html = explorer_html(**start)
    alpha, cost, verify = (start.get(name, default) for name, default in
                           (("alpha", 0.8), ("cost", 0.05), ("verify", 1.0)))
    K = np.arange(1, SLIDERS[1][3] + 1)
    gains = theory.speedup(alpha, K, cost, verify)
    best = int(np.argmax(gains))
    display_html(html, f"Interactive figure: what speculation buys. At acceptance rate {alpha:g}, draft cost "
                       f"{cost:g} and verification cost {verify:g} the largest speed-up with a draft is "
                       f"{gains[best]:.2f}, at K = {K[best]}.")


def live_explorer(*, alpha: float = 0.8, K: int = 5, cost: float = 0.05, verify: float = 1.0, token: float = 0.0
                  ) -> Any:
    """The speed-up against K with a kernel, as `live` says: any lookahead and costs, by the closed forms of `theory`.

    What the page's explorer has not: a pass over K + 1 tokens costs `verify` + K `token` target steps. Raises
    ValueError for what is no probability, lookahead or cost.
    """
    controls = {"acceptance rate α": float(alpha), "lookahead K": K, "draft cost c": float(cost),
                "verification v": float(verify), "and a token more": float(token)}
    return live(controls, _explored)


def _explored(alpha: float, K: int, cost: float, verify: float, token: float) -> str:
    """The curve of speed-ups, the law of accepted tokens at K, and the numbers at K and at the best lookahead."""
    if not (0 <= alpha <= 1 and 1 <= K <= FARTHEST and cost >= 0 and verify > 0 and token >= 0):
        raise ValueError(f"give an acceptance rate of 0 to 1, a lookahead of 1 to {FARTHEST}, a verification that "
                         "takes some time, and no cost below 0")
    Ks = np.arange(1, FARTHEST + 1)
    gains = theory.speedup(alpha, Ks, cost, verify + token * Ks)
    best = int(Ks[np.argmax(gains)])
    fig, (left, right) = figure(1, 2, width=8, height=3.2)
    left.axhline(1, color=INK, linewidth=1, linestyle="--")
    left.plot(Ks, gains, color=PALETTE.blue)
    left.plot(best, gains[best - 1], "s", color=PALETTE.green, label=f"best, K = {best}")
    left.plot(K, gains[K - 1], "o", color=PALETTE.orange, label=f"K = {K}")
    left.set(xlabel="lookahead K", ylabel="speed-up", xlim=(0, max(16, 2 * K, 1.2 * best)), ylim=(0, None))
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend()
    right.bar(np.arange(K + 1), theory.accepted_pmf(alpha, K), 0.7, color=PALETTE.blue)
    right.set(xlabel=f"draft tokens accepted of {K}", ylabel="share of rounds")
    rows = [[f"{name}K = {k}", f"{theory.expected_tokens(alpha, k):.2f}", f"{k * cost + verify + token * k:.2f}",
             f"{gains[k - 1]:.2f}"] for name, k in (("", K), ("best, ", best))]
    alt = f"The speed-up is {gains[K - 1]:.2f} at K = {K} and largest, {gains[best - 1]:.2f}, at K = {best}."
    text = f"A draft {'pays' if gains[best - 1] > 1 else 'does not pay'}; at best, decoding is {gains[best - 1]:.2f} " \
           "times as fast as without."
    return told(text, ["", "tokens a round", "target steps a round", "speed-up"], rows, fig, alt=alt)


def _texts(piece: Mapping[str, Any]) -> list[str]:
    """The text of each token of a piece."""
    return [piece["text"]] if isinstance(piece["text"], str) else list(piece["text"])


def _check_stream(stream: Stream) -> None:
    label, pieces = stream["label"], stream["pieces"]
    counted = sum(len(_texts(p)) for p in pieces)
    if not pieces or counted != stream["tokens"]:
        raise ValueError(f"the pieces of {label!r} hold {counted} tokens, but the stream says "
                         f"{stream['tokens']}: the text of a piece is a list with one string a token")
    for piece in pieces:
        if not 0 <= piece["accepted"] <= len(_texts(piece)):
            raise ValueError(f"a piece of {label!r} accepts {piece['accepted']} draft tokens but holds "
                             f"{len(_texts(piece))} tokens: its text is a list with one string a token")
    arrivals = [0.0, *(p["t"] for p in pieces), stream["seconds"]]
    if arrivals != sorted(arrivals) or not 0 < arrivals[-1] < float("inf"):
        raise ValueError(f"the pieces of {label!r} must arrive in order, between 0 and {stream['seconds']} s")


def _column(stream: Stream, end: float, most: int) -> str:
    """One decoding: its name, a running meter, the text, and a bar for each pass of the target."""
    text = []
    for piece in stream["pieces"]:
        tokens = [escape(t, quote=False) for t in _texts(piece)]
        n = piece["accepted"]
        words = "".join(f"<i>{t}</i>" for t in tokens[:n]) + "".join(tokens[n:])
        # A unit stands behind each time: nbval hides measured times by it, and parseFloat stops there.
        text.append(f'<span data-t="{piece["t"]:.4f} s" data-n="{len(tokens)}">{words}</span>')
    label = escape(stream["label"])
    return (f'<div role="group" aria-label="{label}" data-seconds="{stream["seconds"]:.4f} s">'
            f'<p class="ml-title">{label}</p><p class="ml-live ml-num ml-small" data-meter hidden></p>'
            f'<p class="ml-text">{"".join(text)}</p>{_bars(stream, end, most)}</div>')


def _bars(stream: Stream, end: float, most: int) -> str:
    """A stream's arrivals on the time axis that all streams share; a bar's height is its round's tokens."""
    left, width, bottom, height = 30, 300, 70, 48
    unit = height / max(most, 2)
    gaps = np.diff([0.0, *(p["t"] for p in stream["pieces"])])
    bar = float(np.clip(0.7 * width / end * np.median(gaps), 0.8, 7))
    accepted = sum(p["accepted"] for p in stream["pieces"])
    alt = (f"Tokens of each target pass over time: {len(stream['pieces'])} passes brought {stream['tokens']} "
           f"tokens, {accepted} of them from the draft, in {stream['seconds']:.2f} s.")
    out = [f'<svg viewBox="0 0 340 100" role="img" aria-label="{alt}">']
    for n in sorted({1, most}):
        out.append(f'<text x="22" y="{bottom - unit * n + 4:.1f}" text-anchor="end">{n}</text>')
    out.append('<text x="0" y="12">tokens in a pass</text>')
    for t in _ticks(end):
        x = left + width * t / end
        out.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{t:g}</text>')
    out.append(f'<text x="{left + width}" y="{bottom + 29}" text-anchor="end">seconds</text>')
    for piece in stream["pieces"]:
        x, n, tokens = left + width * piece["t"] / end - bar / 2, piece["accepted"], len(_texts(piece))
        out.append(f'<g data-t="{piece["t"]:.4f}">' + "".join(
            f'<rect class="{kind}" x="{x:.2f}" y="{bottom - unit * high:.2f}" width="{bar:.2f}" '
            f'height="{unit * (high - low):.2f}"/>'
            for kind, low, high in (("draft", 0, n), ("own", n, tokens)) if high > low) + "</g>")
    out.append(f'<line class="axis" x1="{left}" x2="{left + width}" y1="{bottom}" y2="{bottom}"/>'
               f'<line class="now" y1="16" y2="{bottom}"/></svg>')
    return "".join(out)


def _ticks(end: float) -> list[float]:
    """Round times from 0, at most five steps."""
    scale = 10.0 ** np.floor(np.log10(end / 5))
    step = next(scale * m for m in (1, 2, 5, 10) if end / (scale * m) <= 5)
    return [round(float(i * step), 9) for i in range(int(end / step + 1e-9) + 1)]
