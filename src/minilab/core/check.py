"""One line that holds a number of a chapter to its claim, on whatever machine it runs, or shows a time of this one."""

from __future__ import annotations

import html
from typing import SupportsFloat

from minilab.core.display import display_html


def check(name: str, value: SupportsFloat, low: SupportsFloat, high: SupportsFloat) -> None:
    """Pass if low <= value <= high.

    Prints the name and the band, which are the same everywhere, and displays the exact value apart, which is
    not (tests compare the first and skip the second). Raises AssertionError outside the band, NaN included,
    and ValueError if the band is empty.
    """
    number, low, high = float(value), float(low), float(high)
    if not low <= high:
        raise ValueError(f"the band of {name!r} is empty: low {low:g} is above high {high:g}")
    assert low <= number <= high, f"{name} is {number:.6g}, outside [{low:g}, {high:g}]"
    print(f"{name}: within [{low:g}, {high:g}]")
    _display(name, number)


def timed(name: str, value: SupportsFloat) -> None:
    """Show a measured time, or a ratio of times: every machine has its own, so no band holds it.

    Prints the name, which is the same everywhere, and displays the value apart, which tests skip. Raises
    AssertionError if the value is no positive number: then nothing was measured.
    """
    number = float(value)
    assert number > 0, f"{name} is {number:.6g}: a time, or a ratio of times, is positive"
    print(f"{name}: measured on this machine")
    _display(name, number)


def _display(name: str, number: float) -> None:
    shown = f"{name} = {number:.6g}"
    display_html(f'<span class="minilab-value">{html.escape(shown)}</span>', f"minilab-value: {shown}")
