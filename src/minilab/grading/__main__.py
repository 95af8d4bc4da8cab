"""The process of one submission: `python -m minilab.grading NOTEBOOK AUTOGRADER RESULT`."""

import json
import sys
from pathlib import Path

from minilab.core.files import replacing


def run_otter(submission: str, autograder: str, result: str) -> None:
    """Grade one notebook by `otter run` and write the outcome as JSON."""
    from otter.run import main as otter_run

    outcome = otter_run(submission, autograder=autograder, output_dir=None, no_logo=True)
    cells = outcome.notebook.cells if outcome.notebook else []
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    report = {
        "error": "the notebook spoiled the grading cell at its end"
        if outcome.has_catastrophic_failure()
        else "",
        "questions": [_question_report(file) for file in outcome.results.values()],
        "raised": [f"{o.ename}: {o.evalue}"[:300] for o in outputs if o.output_type == "error"],
    }
    with replacing(Path(result)) as path:
        path.write_text(json.dumps(report), encoding="utf-8")


def _question_report(file) -> dict:
    cases = [
        {
            "name": outcome.test_case.name,
            "hidden": outcome.test_case.hidden,
            "points": outcome.test_case.points,
            "passed": outcome.passed,
            "hint": outcome.test_case.failure_message or "",
            "message": outcome.message or "",
        }
        for outcome in file.test_case_results
    ]
    return {"name": file.name, "points": round(file.score, 6), "possible": file.possible, "cases": cases}


if __name__ == "__main__":
    run_otter(*sys.argv[1:])
