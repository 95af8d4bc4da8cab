"""The parts of chapter 1's interactive figures: those of every chapter, with this one's `static/`."""

from minilab.core.widget import Static, slider, table

_static = Static("minilab.speculative")
read, style, fill = _static.read, _static.style, _static.fill

__all__ = ["fill", "read", "slider", "style", "table"]
