"""minilab: five papers you can run.

A chapter tells the story, a lab asks the questions, a subpackage is the method, a record is the evidence.
Importing this package is cheap: it sets the thread policy, which only works before torch is loaded, and
nothing else. Heavy libraries load when a subpackage that needs them is imported.
"""

from minilab.core.device import configure_threads

configure_threads()

__version__ = "0.1.0"
__all__ = ["__version__", "check", "timed"]


def __getattr__(name: str):
    if name in ("check", "timed"):
        # Importing the module binds its name on minilab.core, never here, so these are the functions for good.
        from minilab.core.check import check, timed

        globals().update(check=check, timed=timed)
        return globals()[name]
    raise AttributeError(f"module 'minilab' has no attribute {name!r}")
