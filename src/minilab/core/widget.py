"""What interactive figures are put together from: templates, style, sliders, tables.

Templates, style sheets and scripts are files: what all figures share in `core/static/`, the rest in the `static/` of
each method.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from minilab.core.style import PALETTE


@dataclass(frozen=True)
class Static:
    """The files in the `static/` of a package."""

    package: str

    def read(self, name: str) -> str:
        """One file."""
        return (files(self.package) / "static" / name).read_text(encoding="utf-8")

    def style(self, name: str) -> str:
        """The style sheet that all figures share and one of their own, in the book's colors."""
        return Template(Static("minilab.core").read("figure.css") + self.read(name)).substitute(PALETTE._asdict())

    def fill(self, name: str, **parts: str) -> str:
        """A template with its parts put in."""
        return Template(self.read(name)).substitute(parts)


def ending(title: str, head: list[str], rows: list[list[str]], *, caption: str, script: str,
           data: Mapping[str, Any] | None = None) -> str:
    """How a figure that a script sets in motion ends: its table, its caption, what the script reads, the script.

    Every script finds before it what they all draw with, `plot.js`.
    """
    embedded = json.dumps(data or {}, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c")
    shared = Static("minilab.core")
    return shared.fill("ending.html", table=table(head, rows, title=title), caption=escape(caption), data=embedded,
                       script=shared.read("plot.js") + script).rstrip("\n")


def plain_text(what: str, title: str, head: list[str], rows: list[list[str]]) -> str:
    """A figure's table for front ends without HTML."""
    lines = [f"  {row}: " + ", ".join(map(" ".join, zip(head[1:], cells, strict=True))) for row, *cells in rows]
    return "\n".join([f"Interactive figure: {what}. {title}", *lines])


def slider(start: float, name: str, what: str, low: float, high: float, step: float, digits: int) -> str:
    """A labelled range input that starts at `start` and shows its value with so many digits."""
    return (f'<label><span>{what} <b aria-hidden="true">{start:.{digits}f}</b></span>'
            f'<input type="range" name="{name}" min="{low}" max="{high}" step="{step}" autocomplete="off" '
            f'value="{start:.{digits}f}" data-digits="{digits}"></label>')


def choices(name: str, options: Mapping[str, str], start: str) -> str:
    """A row of buttons of which one is pressed: values and their texts."""
    return "".join(f'<button type="button" data-{name}="{escape(value)}" aria-pressed="{str(value == start).lower()}">'
                   f"{escape(text)}</button>" for value, text in options.items())


def table(head: list[str], rows: list[list[str]], *, title: str = "") -> str:
    """A table of texts whose first column holds the rows' names; it stays where no script runs."""
    caption = f"<caption>{escape(title)}</caption>" if title else ""
    columns = "".join(f'<th scope="col">{escape(h)}</th>' if h else "<td></td>" for h in head)
    body = ""
    for name, *cells in rows:
        values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        body += f'<tr><th scope="row">{escape(name)}</th>{values}</tr>'
    return f'<table class="ml-still">{caption}<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>'
