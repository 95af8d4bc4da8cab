"""Files on disk: where the checkout and the package data are, and a write that cannot be seen half done."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def checkout_root() -> Path | None:
    """The root of the repository that this package runs from, or None when it is installed elsewhere."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pyproject.toml").is_file() and (root / "src" / "minilab").is_dir() else None


def package_data(name: str) -> Path:
    """The folder `name` ("assets", "records") as shipped: in a wheel with an underscore, else at the root."""
    installed = Path(__file__).resolve().parents[1] / f"_{name}"
    root = checkout_root()
    return root / name if root and not installed.is_dir() else installed


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the body succeeds, it takes the place of `path` in one step.

    A reader sees the old file or the whole new one, at whatever moment the writer dies. When the body raises
    (Ctrl-C included) the temporary file is removed and `path` is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # the bytes must reach the disk before the name does
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
