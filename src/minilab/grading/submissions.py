"""From a folder of submissions to scores: one judge, one jail and one time limit for each."""

import json
import multiprocessing
import os
import tempfile
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

from minilab.core.progress import progress
from minilab.grading import jail
from minilab.grading.judge import work
from minilab.grading.lab import Lab
from minilab.grading.plumbing import first_line, kill_tree, read_notebook, tail
from minilab.grading.reports import Grade, write_feedback, write_table
from minilab.grading.similarity import write_similarity

KEPT_VARIABLES = ("PATH", "LANG", "LD_LIBRARY_PATH", "MINILAB_CACHE", "XDG_CACHE_HOME", "HOME", "TMPDIR", "PYTHONPATH")
ANSWER_TAG = "otter_answer_cell"  # Otter's mark on the cells that a student fills in
KEY = "lab.ipynb"  # the instructor notebook in the autograder
# Judges are forks of one process that has loaded what all of them need, and no lab.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["minilab.grading.judge", "IPython.core.interactiveshell", "nbformat", "yaml"])
LIMITS = jail.Limits()
LARGEST = 20e6  # bytes of a notebook; one with a gigabyte of outputs would fill the grader's memory


def grade(submissions: Path, autograder: Path, out: Path, *, jobs: int = 1, timeout: float = 600.0,
          walls: bool = True) -> Path:
    """Grade every notebook under `submissions` with an autograder zip; returns the path of `out/scores.csv`.

    A row of the table is a file, its total, the points of each question, the submission that is most like it, and what
    went wrong with it as a whole. `out/feedback/` holds a page for each student, `out/similarity.html` the pairs that
    are alike. Interrupted, it still writes the rows that are done. Without `walls` a submission is kept from the tests
    but not from this machine: for containers that hold nothing else.
    """
    submissions, autograder, out = Path(submissions), Path(autograder), Path(out)
    if jobs < 1 or timeout <= 0:
        raise ValueError(f"jobs is {jobs} and timeout {timeout}; give at least one job and a positive time")
    limits = replace(LIMITS, seconds=timeout)
    files = _submitted(submissions)
    root = submissions if submissions.is_dir() else submissions.parent
    with tempfile.TemporaryDirectory(prefix="minilab-key-") as folder:
        key = _open_bundle(autograder, Path(folder))
        lab = Lab(key)
        possible = {question.name: question.possible for question in lab.tested}
        if walls and (reason := jail.possible()):
            raise RuntimeError(f"submissions cannot be kept from this machine: {reason}. Grade in a container or a "
                               "virtual machine that holds nothing else, and say so with --no-walls")
        _start_forks()
        live: set[BaseProcess] = set()
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            waiting = [pool.submit(grade_one, file, file.relative_to(root), key, limits, walls, live) for file in files]
            try:
                for future in progress(as_completed(waiting), desc="grading", total=len(files), unit="notebook"):
                    write_feedback(future.result(), lab, out / "feedback")
            except BaseException:  # Ctrl-C: keep what is done, start nothing more, end what runs
                write_table(_finished(waiting), possible, out / "scores.csv")
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(live):
                    kill_tree(process.pid)
                raise
    grades = _finished(waiting)
    write_similarity(grades, lab, out / "similarity.html")
    return write_table(grades, possible, out / "scores.csv")


def _start_forks() -> None:
    """The process that judges are forks of, without our environment: a submission could find it in its memory."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    whole = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(kept)
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(whole)


def _finished(waiting: list[Future]) -> list[Grade]:
    done = [future for future in waiting if future.done() and not future.cancelled()]
    return [future.result() for future in done if not future.exception()]


def _submitted(submissions: Path) -> list[Path]:
    """The notebooks in a folder, however an LMS has nested them."""
    if not submissions.exists():
        raise FileNotFoundError(f"no submissions at {submissions}: give a folder of notebooks, one a student")
    found = [submissions] if submissions.is_file() else sorted(submissions.rglob("*.ipynb"))
    found = [file for file in found if ".ipynb_checkpoints" not in file.parts and not file.is_dir()]
    if not found:
        raise ValueError(f"no submissions in {submissions}: there is no .ipynb file in it")
    return found


def _open_bundle(autograder: Path, folder: Path) -> Path:
    """The instructor notebook of an autograder, unpacked."""
    advice = "give the autograder.zip that `minilab assign` made"
    if not autograder.is_file():
        raise FileNotFoundError(f"no autograder at {autograder}: {advice}")
    if not zipfile.is_zipfile(autograder):
        raise ValueError(f"{autograder} is not a zip file: {advice}")
    with zipfile.ZipFile(autograder) as bundle:
        if KEY not in bundle.namelist():
            raise ValueError(f"{autograder} holds no lab: {advice}")
        return Path(bundle.extract(KEY, folder))


def grade_one(submission: Path, name: Path, key: Path, limits: jail.Limits, walls: bool,
              live: set[BaseProcess] | None = None) -> Grade:
    """Grade one submission in its own processes, kept in `live` meanwhile. Whatever it does, a Grade comes back."""
    live = set() if live is None else live
    if not walls and (closed := jail.closed_to_nobody()):
        raise RuntimeError(f"without walls a submission runs as nobody, who cannot enter {closed}: install Python and "
                           "minilab where every user can read them")
    grade = Grade(name.as_posix())
    with tempfile.TemporaryDirectory(prefix="minilab-grade-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        try:
            grade.cells, grade.answers = read_submission(submission)
        except Exception as problem:  # a student can hand in anything; the others must still be graded
            grade.error = f"not a readable notebook: {first_line(problem)}"
            return grade
        process = FORKS.Process(target=work, args=(key, grade.cells, limits, walls, folder))
        process.start()
        live.add(process)
        process.join(limits.seconds + 120)  # the judge keeps the time itself; this is for a judge that hangs
        late = process.is_alive()
        if late:
            kill_tree(process.pid)
        process.join()
        live.discard(process)
        if late:
            grade.error = f"stopped after {limits.seconds:g} seconds"
            return grade
        if not (folder / "result.json").is_file():
            log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
            grade.error = f"the grader failed: {tail(log, lines=1)}"
            return grade
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    grade.questions, grade.raised, grade.error = result["questions"], result["raised"], result["error"]
    return grade


def read_submission(submission: Path) -> tuple[list[str], list[str]]:
    """The code cells of a notebook and its written answers. Raises what reading a bad file raises."""
    if submission.is_symlink():
        raise ValueError("it is a link to another file")
    if submission.stat().st_size > LARGEST:
        raise ValueError(f"it has {submission.stat().st_size / 1e6:.0f} MB; clear its outputs")
    cells = read_notebook(submission).cells
    answers = [cell.source for cell in cells
               if cell.cell_type == "markdown" and ANSWER_TAG in cell.metadata.get("tags", [])]
    return [str(cell.source) for cell in cells if cell.cell_type == "code"], answers
