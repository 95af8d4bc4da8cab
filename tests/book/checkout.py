"""What belongs to the repository: what git tracks, or all but generated files where there is no git."""

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = {".git", ".venv", "_build", "build", "dist", "__pycache__", ".pytest_cache", ".ruff_cache"}


@functools.cache
def tracked() -> tuple[Path, ...]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode == 0:
        files = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        files = [p for p in ROOT.rglob("*") if not GENERATED & set(p.relative_to(ROOT).parts)]
    return tuple(sorted(p for p in files if p.is_file() and not p.is_symlink()))


def under(folder: str, *suffixes: str) -> list[Path]:
    inside = [p for p in tracked() if p.is_relative_to(ROOT / folder)]
    return [p for p in inside if not suffixes or p.suffix in suffixes]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
