"""From a folder of submissions to scores: one process, folder and time limit for each."""

import json
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from minilab.core.progress import progress
from minilab.grading.plumbing import (
    child_environment,
    first_line,
    kill_with_children,
    read_notebook,
    require_otter,
    tail,
    write_notebook,
)
from minilab.grading.reports import Grade, write_feedback, write_table

ANSWER_TAG = "otter_answer_cell"  # Otter's mark on the cells that a student fills in


def grade(submissions: Path, autograder: Path, out: Path, *, jobs: int = 1, timeout: float = 600.0) -> Path:
    """Grade every notebook under `submissions` with an autograder zip; returns the path of `out/scores.csv`.

    A row of the table is a file, its total, the points of each question, and the error if nothing could be
    graded: not a notebook, a dead kernel, more than `timeout` seconds. `out/feedback/` holds a page for each
    student. Interrupted, it still writes the rows that are done.
    """
    require_otter()
    submissions, autograder, out = Path(submissions), Path(autograder), Path(out)
    if jobs < 1 or timeout <= 0:
        raise ValueError(f"jobs is {jobs} and timeout {timeout}; give at least one job and a positive time")
    files = _submitted(submissions)
    root = submissions if submissions.is_dir() else submissions.parent
    possible, titles = _read_bundle(autograder)

    live: set[subprocess.Popen] = set()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        arguments = autograder.resolve(), possible, timeout, live
        waiting = [pool.submit(_grade_one, file, file.relative_to(root), *arguments) for file in files]
        try:
            for future in progress(as_completed(waiting), desc="grading", total=len(files), unit="notebook"):
                write_feedback(future.result(), possible, titles, out / "feedback")
        except BaseException:  # Ctrl-C: keep what is done, start nothing more, end what runs
            write_table(_finished(waiting), possible, out / "scores.csv")
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(live):
                kill_with_children(process)
            raise
    return write_table(_finished(waiting), possible, out / "scores.csv")


def _finished(waiting: list[Future]) -> list[Grade]:
    done = [future for future in waiting if future.done() and not future.cancelled()]
    return [future.result() for future in done if not future.exception()]


def _submitted(submissions: Path) -> list[Path]:
    """The notebooks in a folder, however an LMS has nested them."""
    if not submissions.exists():
        raise FileNotFoundError(f"no submissions at {submissions}: give a folder of notebooks, one a student")
    found = [submissions] if submissions.is_file() else sorted(submissions.rglob("*.ipynb"))
    found = [file for file in found if ".ipynb_checkpoints" not in file.parts and file.is_file()]
    if not found:
        raise ValueError(f"no submissions in {submissions}: there is no .ipynb file in it")
    return found


def _read_bundle(autograder: Path) -> tuple[dict[str, float], dict[str, str]]:
    """Points of each question as Otter counts them, and a readable title for each of Otter's test names."""
    from otter.nbmeta_config import NBMetadataConfig
    from otter.test_files import create_test_file

    advice = "give the autograder.zip that `minilab assign` made"
    if not autograder.is_file():
        raise FileNotFoundError(f"no autograder at {autograder}: {advice}")
    if not zipfile.is_zipfile(autograder):
        raise ValueError(f"{autograder} is not a zip file: {advice}")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(autograder) as bundle:
        tests = sorted(n for n in bundle.namelist() if n.startswith("tests/") and n.endswith(".py"))
        if not tests:
            raise ValueError(f"{autograder} holds no tests: {advice}")
        files = [create_test_file(bundle.extract(name, folder), NBMetadataConfig()) for name in tests]
    titles = {case.name: _title(case) for file in files for case in file.test_cases}
    return {file.name: float(file.possible) for file in files}, titles


def _title(case) -> str:
    """Otter's "q1 - 2" says nothing; the name of the test function does (doctest-style tests have none)."""
    function = getattr(case.body, "test_func", None)
    return function.__name__.removeprefix("test_").replace("_", " ") if function else case.name


def _grade_one(
    submission: Path, name: Path, autograder: Path, possible: dict[str, float], timeout: float, live: set
) -> Grade:
    """Grade one submission in its own process and folder. Whatever it does, a Grade comes back."""
    grade = Grade(name.as_posix())
    with tempfile.TemporaryDirectory(prefix="minilab-grade-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        try:
            grade.answers = _prepare(submission, folder / "submission.ipynb")
        except Exception as problem:  # a student can hand in anything; the others must still be graded
            grade.error = f"not a readable notebook: {first_line(problem)}"
            return grade
        with open(folder / "log.txt", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "minilab.grading", "submission.ipynb", str(autograder), "result.json"],
                cwd=folder,
                env=child_environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        live.add(process)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            grade.error = f"stopped after {timeout:g} seconds: a cell that does not end, or too much work"
            return grade
        finally:
            kill_with_children(process)
            live.discard(process)
        if not (folder / "result.json").is_file():
            log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
            grade.error = (
                "the kernel died: the notebook ended its own process or ran out of memory"
                if "DeadKernelError" in log
                else f"Otter failed: {tail(log, lines=1)}"
            )
            return grade
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    if {q["name"]: q["possible"] for q in result["questions"]} != possible:
        grade.error = result["error"] or "the tests that ran are not the autograder's: look at this notebook"
        return grade
    grade.questions, grade.raised = result["questions"], result["raised"]
    return grade


def _prepare(submission: Path, copy: Path) -> list[str]:
    """Copy a submission without its outputs, for the kernel that is here; returns its written answers.

    The kernel that a student's machine called "conda-env-course" or "colab" exists only there.
    """
    notebook = read_notebook(submission)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    write_notebook(notebook, copy)
    return [
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "markdown" and ANSWER_TAG in cell.metadata.get("tags", [])
    ]
