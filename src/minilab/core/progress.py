"""Progress bars that fit a terminal and a notebook, fall silent in tests, and survive Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterable

from tqdm.auto import tqdm

from minilab.core.device import show_progress


def progress(iterable: Iterable, *, desc: str, total: int | None = None, unit: str = "it") -> tqdm:
    """Iterate over `iterable` behind a bar with the time left; silent when `MINILAB_PROGRESS=0`.

    The bar closes itself when the loop ends, breaks or is interrupted. What is returned is tqdm's own object,
    so that a loop can add to the line with `set_postfix_str`.
    """
    return tqdm(iterable, desc=desc, total=total, unit=unit, disable=not show_progress(), dynamic_ncols=True)
