"""One line that holds a number of a chapter to its claim, on whatever machine it runs."""

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
    shown = f"{name} = {number:.6g}"
    display_html(f'<span class="minilab-value">{html.escape(shown)}</span>', f"minilab-value: {shown}")
