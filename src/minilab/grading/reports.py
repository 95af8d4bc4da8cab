"""What comes back from grading: a row in the table, and a page of feedback for each student."""

import csv
import html
from dataclasses import dataclass, field
from pathlib import Path

from minilab.core.files import replacing
from minilab.grading import page
from minilab.grading.lab import Lab


@dataclass
class Grade:
    """What one submission earned. `error` says what went wrong with it as a whole, and cost what follows it."""

    file: str
    questions: list[dict] = field(default_factory=list)  # as judge.py reports them
    raised: list[str] = field(default_factory=list)  # the errors that its own cells raised
    answers: list[str] = field(default_factory=list)  # written answers, for the human who grades them
    cells: list[str] = field(default_factory=list)  # its code
    most_alike: tuple[float, str] = (0.0, "")  # the share that another submission has too, and which
    error: str = ""

    @property
    def points(self) -> dict[str, float]:
        return {question["name"]: float(question["points"]) for question in self.questions}


def write_table(grades: list[Grade], possible: dict[str, float], path: Path) -> Path:
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "total", "possible", *possible, "alike", "most like", "error"])
        for grade in grades:
            points = [grade.points.get(name, 0) for name in possible]
            numbers = [f"{number:g}" for number in (sum(points), sum(possible.values()), *points)]
            share, other = grade.most_alike
            table.writerow([_text(grade.file), *numbers, f"{share:.2f}", _text(other), _text(grade.error)])
    return path


def write_feedback(grade: Grade, lab: Lab, folder: Path) -> None:
    """One page: points, what each visible test found with its hint, and hidden tests by title only."""
    out_of = sum(question.possible for question in lab.tested)
    parts = [f"<p><strong>{sum(grade.points.values()):g} of {out_of:g} points</strong></p>"]
    if grade.error:
        parts.append(f"<p>What went wrong with the notebook as a whole: {html.escape(grade.error)}.</p>")
    for question in grade.questions:
        title = lab.questions[question["name"]].title or question["name"]
        parts.append(f"<h2>{html.escape(title)}: {question['points']:g} of {question['possible']:g}</h2>")
        parts.append("<ul>" + "".join(_case(case) for case in question["cases"]) + "</ul>")
    if grade.raised:
        parts.append("<h2>Cells that raised an error</h2>" + _code("\n".join(grade.raised[:10])))
    for answer in grade.answers:
        parts.append("<h2>A written answer, to be graded by hand</h2>" + _code(answer))
    with replacing(folder / Path(grade.file).with_suffix(".html")) as path:
        path.write_text(page.whole(f"Feedback: {grade.file}", parts), encoding="utf-8", errors="replace")


def _case(case: dict) -> str:
    kind, verdict = "hidden test" if case["hidden"] else "test", "passed" if case["passed"] else "failed"
    line = f"{kind} <strong>{html.escape(case['name'])}</strong>: {verdict} ({_points(case['points'])})"
    if not case["passed"] and not case["hidden"]:
        line += f"<p>Hint: {html.escape(case['hint'])}</p>" if case["hint"] else ""
        line += _code(case["message"])
    return f"<li>{line}</li>"


def _points(number: int | float) -> str:
    return f"{number:g} point{'' if number == 1 else 's'}"


def _code(text: str) -> str:
    return f"<pre tabindex=0>{html.escape(text)}</pre>"


def _text(text: str) -> str:
    """A cell that a spreadsheet will not take for a formula, and that has one line."""
    text = " ".join(text.split())
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
