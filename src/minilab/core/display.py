"""Show a piece of HTML where there is a notebook, and its plain text where there is none."""

from __future__ import annotations

import sys


def display_html(html: str, text: str) -> None:
    """Display `html` in the running notebook, with `text` for front ends without HTML; else print `text`."""
    ipython = sys.modules.get("IPython")  # not loaded means that no notebook is running
    if ipython is not None and ipython.get_ipython() is not None:
        from IPython.display import display

        display({"text/html": html, "text/plain": text}, raw=True)
    else:
        print(text)
