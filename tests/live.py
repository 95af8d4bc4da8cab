"""A live figure in a test: its controls, as a reader's hands move them, and what it shows."""

from collections.abc import Mapping
from typing import Any


def controls(figure: Any) -> dict[str, Any]:
    """Its controls by their labels."""
    return {control.description: control for control in figure.children[0].children}


def turn(figure: Any, values: Mapping[str, Any]) -> str:
    """Change controls, one after the other; what is shown then."""
    for label, value in values.items():
        controls(figure)[label].value = value
    return drawn(figure)


def press(figure: Any, label: str) -> str:
    """Press a button; what is shown then."""
    controls(figure)[label].click()
    return drawn(figure)


def drawn(figure: Any) -> str:
    """The HTML below the controls."""
    (output,) = figure.children[1].outputs
    return output["data"]["text/html"]
