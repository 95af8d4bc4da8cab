"""From an instructor notebook to the student's notebook and the autograder."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlparse

from minilab.grading import variants
from minilab.grading.lab import Lab
from minilab.grading.plumbing import child_environment, read_notebook, require_otter, tail, write_notebook

LABS_BRANCH = "labs"  # the release publishes each student folder there; badges point to it
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
AUTOGRADER = "autograder.zip"


def assign(notebook: Path, out: Path, *, run_tests: bool = True) -> Path:
    """Generate what students and graders get from an instructor notebook, into `out/<its name>/`.

    `student/` holds the notebook without solutions and the visible tests; `autograder/` the zip for `grade` and for
    Gradescope; `instructor/` the notebook with solutions, tests and rubric; `nbgrader/source/` the lab for nbgrader.
    With `run_tests` the solutions must earn full marks first. What stood there before is replaced only when all is
    made. Returns the folder.
    """
    require_otter()
    notebook, out = Path(notebook).resolve(), Path(out).resolve()
    if not notebook.is_file():
        raise FileNotFoundError(f"no instructor notebook at {notebook}")
    Lab(notebook)  # raises where there is no question
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=f".{notebook.stem}.") as scratch:
        made, repository = Path(scratch, "made"), _repository(notebook)
        _otter_assign(notebook, made, Path(scratch), run_tests=run_tests)
        shutil.rmtree(made / "autograder")  # Otter's runs the tests where the student's code could see them
        _make_self_contained(made / "student" / notebook.name, repository)
        variants.write_autograder(notebook, made / "autograder" / AUTOGRADER, repository)
        variants.write_instructor_notebook(notebook, made / "instructor" / notebook.name)
        variants.write_nbgrader_source(notebook, made / "nbgrader" / "source" / notebook.stem / notebook.name)
        destination = out / notebook.stem
        if destination.exists():
            destination.rename(Path(scratch, "before"))
        made.rename(destination)
    return destination


def _otter_assign(notebook: Path, made: Path, scratch: Path, *, run_tests: bool) -> None:
    """`otter assign` in a process of its own; RuntimeError with its complaint if it fails."""
    command = [sys.executable, "-m", "otter", "assign", str(notebook), str(made)]
    command += [] if run_tests else ["--no-run-tests"]
    done = subprocess.run(
        command,
        env=child_environment(scratch),
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise RuntimeError(f"otter assign refused {notebook.name}:\n{tail(done.stdout, lines=25)}")


def _make_self_contained(path: Path, repository: dict | None) -> None:
    """Put badge, install line and visible tests in the place of Otter's own first cell."""
    from nbformat.v4 import new_code_cell, new_markdown_cell

    notebook = read_notebook(path)
    first = notebook.cells.pop(0)
    if not first.source.startswith("# Initialize Otter"):
        raise RuntimeError(f"{path.name}: expected Otter's first cell, found {first.source[:60]!r}")
    folded = {"cellView": "form", "jupyter": {"source_hidden": True}}  # in Colab's words, and in Jupyter's
    opening = [new_code_cell(_visible_tests_cell(path.parent / "tests"), metadata=folded)]
    if repository:
        host, branch = repository["url"], repository.get("branch", "main")
        link = (
            f"https://colab.research.google.com/github{urlparse(host).path}"
            f"/blob/{LABS_BRANCH}/{path.stem}/{path.name}"
        )
        opening = [
            new_markdown_cell(f"[![Open in Colab]({BADGE})]({link})"),
            new_code_cell(_install_line(f"minilab@git+{host}@{branch}")),
            *opening,
        ]
    for cell in opening:
        cell.metadata.update(editable=False, deletable=False)
    notebook.cells = opening + notebook.cells
    write_notebook(notebook, path)


def _install_line(package: str) -> str:
    """One line that installs what is missing and touches nothing that is there."""
    wanted = f'[("minilab", "{package}"), ("otter", "otter-grader")]'
    return (
        "# Install what is missing (on Colab, on a fresh machine); does nothing where all is there.\n"
        'import importlib.util; [get_ipython().run_line_magic("pip", f"install -q {package}") '
        f"for module, package in {wanted} if importlib.util.find_spec(module) is None];"
    )


def _visible_tests_cell(tests: Path) -> str:
    """Code that writes the visible tests where Otter looks for them, and opens Otter.

    A notebook opened from a badge or a mail comes without the folder beside it. What is there stays.
    """
    files = sorted(tests.glob("*.py"))
    sources = {file.name: file.read_text(encoding="utf-8").strip() + "\n" for file in files}
    if bad := [name for name, source in sources.items() if "'''" in source]:
        raise ValueError(f"a test of {bad[0]} contains three single quotes; use double ones")
    entries = "".join(f"    {name!r}: r'''\n{source}''',\n" for name, source in sources.items())
    return (
        "#@title The visible tests of this lab, and the grader that runs them\n"
        "import pathlib\n\nimport otter\n\n"
        f"visible_tests = {{\n{entries}}}\n"
        'pathlib.Path("tests").mkdir(exist_ok=True)\n'
        "for file, source in visible_tests.items():\n"
        '    if not pathlib.Path("tests", file).exists():\n'
        '        pathlib.Path("tests", file).write_text(source.lstrip(), encoding="utf-8")\n'
        "grader = otter.Notebook()"
    )


def _repository(notebook: Path) -> dict | None:
    """The `repository` entry of the book's _config.yml above the notebook; None away from a book."""
    import yaml

    for folder in notebook.parents:
        config = folder / "_config.yml"
        if config.is_file():
            entry = (yaml.safe_load(config.read_text(encoding="utf-8")) or {}).get("repository") or {}
            return entry | {"url": entry["url"].rstrip("/")} if entry.get("url") else None
    return None
