"""Notebooks on disk, and child processes that run them."""

import contextlib
import importlib.util
import os
from pathlib import Path

from minilab.core.files import replacing


def require_otter() -> None:
    if importlib.util.find_spec("otter") is None:
        raise ModuleNotFoundError(
            'labs need Otter-Grader, which is not installed: pip install "minilab[labs]"'
        )


def child_environment(folder: Path) -> dict[str, str]:
    """For a child process: this interpreter's kernel before any other, quiet, and all litter in `folder`."""
    here = {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "IPYTHONDIR": str(folder / ".ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / ".runtime"),
        "TMPDIR": str(folder),
        "MPLBACKEND": "Agg",
        "MINILAB_PROGRESS": "0",
        "PYTHONIOENCODING": "utf-8",
    }
    return {"OMP_NUM_THREADS": "1"} | os.environ | here


def read_notebook(path: Path):
    import nbformat

    return nbformat.read(path, as_version=4)


def write_notebook(notebook, path: Path) -> None:
    import nbformat

    with replacing(path) as temporary:
        temporary.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def first_line(problem: object) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0][:300]


def tail(text: str, *, lines: int) -> str:
    kept = [line for line in text.splitlines() if line.strip()]
    return "\n".join(kept[-lines:])[:4000] or "no output"


def kill_tree(number: int) -> None:
    """End a process that we have started, and all that it started."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(number)
        _kill([*parent.children(recursive=True), parent])


def end_children() -> None:
    """End all that this process has started or adopted."""
    import psutil

    while children := psutil.Process().children(recursive=True):
        _kill(children)
        psutil.wait_procs(children, timeout=5)


def _kill(processes: list) -> None:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
