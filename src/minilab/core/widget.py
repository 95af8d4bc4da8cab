"""What interactive figures are put together from: templates, style, sliders, tables, and controls of a kernel.

Templates, style sheets and scripts are files: what all figures share in `core/static/`, the rest in the `static/` of
each method. Such a figure works in a page; one made by `live` asks Python, and so takes any number and any function.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from matplotlib.figure import Figure

from minilab.core.style import PALETTE, figure_html


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


@dataclass(frozen=True)
class Choice:
    """A control of `live`: buttons of which one is pressed, by their texts."""

    options: Mapping[str, Any]
    start: Any  # one of the values

    def __post_init__(self) -> None:
        if self.start not in self.options.values():
            known = ", ".join(map(str, self.options.values()))
            raise ValueError(f"{self.start!r} has no button; choose one of {known}")


Control = int | float | Choice | Callable[[], object]


def live(controls: Mapping[str, Control], draw: Callable[..., str]) -> Any:
    """A figure that a kernel draws: controls by their labels, and below them the HTML that `draw` makes of them.

    A number becomes a field to type in, and a function a button that calls it. `draw` gets the values of fields and
    choices, in order, at once and after each change; a ValueError after a change is shown as its text. Returns the
    widget to display; its cell carries the tags nbval-skip and skip-execution. Raises ImportError, with what to
    install, if ipywidgets is missing.
    """
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError("live figures need ipywidgets: pip install ipywidgets; the page's own figures work without"
                          ) from error
    shown, widgets, fields = ipywidgets.Output(), [], []  # an Output runs scripts, which ipywidgets.HTML does not

    def put(html: str) -> None:
        shown.outputs = ({"output_type": "display_data", "data": {"text/html": html}, "metadata": {}},)

    def redraw(_: Any) -> None:
        try:
            put(draw(*(field.value for field in fields)))
        except ValueError as error:
            put(f'<p role="alert">{escape(str(error))}</p>')

    for label, control in controls.items():
        if callable(control):
            button = ipywidgets.Button(description=label)
            button.on_click(lambda _, act=control: act())
            button.on_click(redraw)
            widgets.append(button)
            continue
        wide = {"description": label, "style": {"description_width": "9rem"}}
        if isinstance(control, Choice):
            field = ipywidgets.ToggleButtons(options=list(control.options.items()), value=control.start, **wide)
        else:
            field = (ipywidgets.IntText if isinstance(control, int) else ipywidgets.FloatText)(control, **wide)
        field.observe(redraw, "value")
        widgets.append(field)
        fields.append(field)
    put(draw(*(field.value for field in fields)))
    return ipywidgets.VBox([ipywidgets.Box(widgets, layout={"flex_flow": "row wrap"}), shown])


def told(text: str, head: list[str], rows: list[list[str]], fig: Figure, *, alt: str) -> str:
    """What most of them draw: a sentence, a table without a title, a picture with its alternative text."""
    return f"<p>{escape(text)}</p>" + table(head, rows) + figure_html(fig, alt=alt)
