"""The speculation cache of one round, drawn on real text: which futures were prepared, and which came true."""

from collections.abc import Callable
from html import escape

from minilab.core.display import display_html
from minilab.core.widget import Static
from minilab.speculative.engine import AsyncRound

static = Static("minilab.speculative")
Decode = Callable[[list[int]], str]


def show_cache(step: AsyncRound, before: list[int], decode: Decode, *, row: int = 0) -> None:
    """Display the cache of one row of a round; `before` are the tokens that its text had when the round began."""
    display_html(cache_html(step, before, decode, row=row), cache_text(step, before, decode, row=row))


def cache_html(step: AsyncRound, before: list[int], decode: Decode, *, row: int = 0) -> str:
    """The tree as nested lists: the draft's tokens down the trunk, and at each k the guessed bonus tokens.

    Every branch shows the K tokens that were prepared for it. What came true is marked. Raises IndexError for a row
    that the round does not have.
    """
    s, outcome, branches = _facts(step, row)
    items = []
    for k in range(len(s) + 1):
        came = k == outcome[0]
        trunk = "".join(f"<i>{_shown(decode, [t])}</i>" for t in s[:k])
        rejected = f" <s>{_shown(decode, [s[k]])}</s>" if k < len(s) else ""
        guesses = "".join(_branch(decode, bonus, tokens, (k, bonus) == outcome)
                          for (j, bonus), tokens in branches if j == k)
        if came and not any(key == outcome for key, _ in branches):
            guesses += f'<li class="missed"><b>{_shown(decode, [outcome[1]])}</b> came, and nothing was prepared</li>'
        kept = f"{k} accepted" if k < len(s) else f"all {k} accepted"
        items.append(f'<li{" class=came" if came else ""}><span class="ml-small">{kept}</span> {trunk}{rejected}'
                     f'<ul>{guesses or "<li class=none>no guess</li>"}</ul></li>')
    return static.fill("cache.html", style=static.style("cache.css"), before=_shown(decode, before[-12:]),
                       items="\n".join(items), caption=escape(_verdict(step, decode, row)))


def cache_text(step: AsyncRound, before: list[int], decode: Decode, *, row: int = 0) -> str:
    """The same for a terminal: one line a branch, a star where it came true."""
    s, outcome, branches = _facts(step, row)
    lines = [f"…{decode(before[-12:])!r}"]
    for (k, bonus), tokens in branches:
        mark = "*" if (k, bonus) == outcome else " "
        lines.append(f"{mark} k={k} {decode(s[:k])!r} + {decode([bonus])!r} -> {decode(tokens)!r}")
    return "\n".join([*lines, _verdict(step, decode, row)])


def _facts(step: AsyncRound, row: int):
    """s_1..s_K, the outcome (k, bonus token), and the branches with what was prepared for each."""
    s, k = step.speculation[row], step.accepted[row]
    return s, (k, step.bonus[row]), list(zip(step.guesses[row], step.prepared[row], strict=True))


def _branch(decode: Decode, bonus: int, tokens: list[int], hit: bool) -> str:
    mark = '<span class="ml-small">came true</span> ' if hit else ""
    return f'<li{" class=hit" if hit else ""}>{mark}<b>{_shown(decode, [bonus])}</b>{_shown(decode, tokens)}</li>'


def _shown(decode: Decode, tokens: list[int]) -> str:
    """Text in which line breaks can be seen."""
    return escape(decode(tokens)).replace("\n", "⏎")


def _verdict(step: AsyncRound, decode: Decode, row: int) -> str:
    s, outcome, branches = _facts(step, row)
    hit = any(key == outcome for key, _ in branches)
    return (f"The target accepted {outcome[0]} of {len(s)} tokens and added {decode([outcome[1]])!r}. Of "
            f"{len(branches)} prepared futures {'one was this: a hit' if hit else 'none was this: a miss'}.")
