"""`python -m minilab.grading.gradescope /autograder`: grade what Gradescope has put there, and write its results.json.

Gradescope's machines are containers made for one submission. Where they grant no namespaces, what a student wrote runs
as nobody, and root alone can read the tests.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from minilab.core.files import replacing
from minilab.grading import jail
from minilab.grading.reports import Grade
from minilab.grading.submissions import KEY, grade_one


def run(root: Path, *, seconds: float = 480.0) -> Path:
    """Grade `root/submission` with the lab in `root/source`; returns the path of `root/results/results.json`."""
    source, results = root / "source", root / "results"
    results.mkdir(exist_ok=True)
    for folder in (source, results):
        folder.chmod(0o700)
    found = sorted((root / "submission").rglob("*.ipynb"))
    if len(found) != 1:
        grade = Grade("submission", error=f"hand in one notebook; there are {len(found)}")
    else:
        walls = not jail.possible()
        with tempfile.TemporaryDirectory() as folder:  # the lab where only we can read it
            key = Path(folder, KEY)
            key.write_bytes((source / KEY).read_bytes())
            grade = grade_one(found[0], Path(found[0].name), key, jail.Limits(seconds=seconds), walls)
    with replacing(results / "results.json") as path:
        path.write_text(json.dumps(as_results(grade)), encoding="utf-8")
    return results / "results.json"


def as_results(grade: Grade) -> dict:
    """A grade in Gradescope's words. What hidden tests found is shown once grades are published, without messages."""
    tests = [_case(question["name"], case) for question in grade.questions for case in question["cases"]]
    said = [grade.error, *(f"a cell raised {problem}" for problem in grade.raised[:10])]
    return {"score": sum(grade.points.values()), "output": "\n".join(filter(None, said)), "tests": tests,
            "stdout_visibility": "hidden"}


def _case(question: str, case: dict) -> dict:
    shown = {} if case["hidden"] else {"output": "\n".join(filter(None, (case["hint"], case["message"])))}
    return {"name": f"{question}: {case['name']}", "score": case["points"] if case["passed"] else 0,
            "max_score": case["points"], "status": "passed" if case["passed"] else "failed",
            "visibility": "after_published" if case["hidden"] else "visible", **({} if case["passed"] else shown)}


if __name__ == "__main__":
    os.umask(0o077)
    run(Path(sys.argv[1]))
