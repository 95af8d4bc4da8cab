"""What one instructor notebook becomes besides the students' copy: with a rubric, for Gradescope, for nbgrader.

All are made from the source and never edited, so none can drift from it.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from minilab.core.files import replacing
from minilab.grading.lab import CONFIG, LEFT_OUT, MARKER, Lab, Question
from minilab.grading.plumbing import read_notebook, write_notebook
from minilab.grading.submissions import KEY

SETUP = """#!/usr/bin/env bash
# Gradescope runs this once, when it builds the image of the autograder.
set -euo pipefail
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv git
python3 -m venv /opt/minilab
/opt/minilab/bin/pip install -q torch --index-url https://download.pytorch.org/whl/cpu
/opt/minilab/bin/pip install -q "minilab[labs]@git+{address}@{branch}"
"""
RUN = """#!/usr/bin/env bash
# Gradescope runs this for each submission.
exec /opt/minilab/bin/python -m minilab.grading.gradescope /autograder
"""


def write_autograder(notebook: Path, path: Path, repository: dict | None) -> None:
    """The zip that `minilab grade` and Gradescope take: the lab, and how to install and start its grader."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr(KEY, notebook.read_bytes())
        if repository:
            setup = SETUP.format(address=repository["url"], branch=repository.get("branch", "main"))
            for name, script in {"setup.sh": setup, "run_autograder": RUN}.items():
                entry = zipfile.ZipInfo(name)
                entry.external_attr = 0o755 << 16
                bundle.writestr(entry, script)


def write_instructor_notebook(notebook: Path, path: Path) -> None:
    """Solutions and all tests as cells that run, and what each question is worth, to whom and for what."""
    from nbformat.v4 import new_markdown_cell

    lab, source = Lab(notebook), read_notebook(notebook)
    cells, block = [], ""
    for cell in source.cells:
        if cell.cell_type == "raw":
            marker = MARKER.match(cell.source)
            block = marker[2] if marker and marker[1] == "BEGIN" else ""
            if block == "QUESTION":
                cells.append(new_markdown_cell(_rubric(lab.questions[_name(cell.source)])))
            continue
        if block == "SOLUTION" and cell.cell_type == "markdown":
            cell.source = "**What earns the points**\n\n" + cell.source
        cell.source = CONFIG.sub("", cell.source)
        cells.append(cell)
    source.cells = [new_markdown_cell(_overview(lab)), *cells]
    for cell in source.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    write_notebook(source, path)


def write_nbgrader_source(notebook: Path, path: Path) -> None:
    """The lab as a source of nbgrader, whose own command makes the release version of it."""
    lab, source = Lab(notebook), read_notebook(notebook)
    cells, block, question, count = [], "", None, 0
    for cell in source.cells:
        if cell.cell_type == "raw":
            if marker := MARKER.match(cell.source):
                block = marker[2] if marker[1] == "BEGIN" else ""
                question = lab.questions[_name(cell.source)] if block == "QUESTION" else question
            continue
        if block in ("SOLUTION", "TESTS"):
            count += 1
            cell.metadata["nbgrader"] = _marks(cell, block, question, f"{question.name}-{count}")
        if block == "TESTS":
            test = next(test for test in question.tests if f"def {test.name}(" in cell.source)
            call = f"{test.source}\n{test.name}({', '.join(test.parameters)})"
            cell.source = f"### BEGIN HIDDEN TESTS\n{call}\n### END HIDDEN TESTS" if test.hidden else call
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if LEFT_OUT & set(cell.metadata.get("tags", ())):
                cell.metadata["tags"] = [tag for tag in cell.metadata["tags"] if tag not in LEFT_OUT]
        cells.append(cell)
    source.cells = cells
    write_notebook(source, path)


def _marks(cell, block: str, question: Question, name: str) -> dict:
    """nbgrader's metadata of a cell: an answer, an answer that a human grades, or a test."""
    by_hand = block == "SOLUTION" and cell.cell_type == "markdown"
    marks = {"schema_version": 3, "grade_id": name, "cell_type": cell.cell_type, "task": False,
             "solution": block == "SOLUTION", "grade": by_hand or block == "TESTS", "locked": block == "TESTS"}
    if block == "TESTS":
        marks["points"] = next(t.points for t in question.tests if f"def {t.name}(" in cell.source)
    elif by_hand:
        marks["points"] = question.by_hand
    return marks


def _name(marker: str) -> str:
    import yaml

    return yaml.safe_load(marker.split("\n", 1)[1])["name"]


def _overview(lab: Lab) -> str:
    """The table of questions: time, difficulty, and points of visible tests, of hidden ones, and by hand."""
    rows = ["**For instructors.** Points of visible tests + of hidden tests + by hand.", "",
            "| Question | Minutes | Difficulty | Points |", "|---|---:|---|---:|"]
    for q in lab.questions.values():
        rows.append(f"| {q.title} | {q.minutes} | {'●' * q.difficulty}{'○' * (3 - q.difficulty)} | {_points(q)} |")
    total = sum(q.possible + q.by_hand for q in lab.questions.values())
    rows.append(f"| all | {sum(q.minutes for q in lab.questions.values())} | | {total:g} |")
    return "\n".join(rows)


def _rubric(question: Question) -> str:
    lines = [f"**Rubric of {question.name}**, {question.minutes} minutes, {_points(question)} points:", ""]
    lines += [f"- {t.points:g} for the {'hidden' if t.hidden else 'visible'} test *{t.title}*"
              + (f": {t.hint}" if t.hint else "") for t in question.tests]
    lines += [f"- {question.by_hand:g} by hand, as the solution says"] if question.by_hand else []
    return "\n".join(lines)


def _points(question: Question) -> str:
    if not question.tests:
        return f"{question.by_hand:g} by hand"
    seen, unseen = (sum(t.points for t in question.tests if t.hidden == hidden) for hidden in (False, True))
    return f"{seen:g} + {unseen:g}"
