"""What comes back from grading: a row in the table, and a page of feedback for each student."""

import csv
from dataclasses import dataclass, field
from pathlib import Path

from minilab.core.files import replacing


@dataclass
class Grade:
    """What one submission earned. `error` says why it could not be graded at all; it then earned nothing."""

    file: str
    questions: list[dict] = field(default_factory=list)  # as __main__.py reports them
    raised: list[str] = field(default_factory=list)  # the errors that its own cells raised
    answers: list[str] = field(default_factory=list)  # written answers, for the human who grades them
    error: str = ""

    @property
    def points(self) -> dict[str, float]:
        return {question["name"]: float(question["points"]) for question in self.questions}


def write_table(grades: list[Grade], possible: dict[str, float], path: Path) -> Path:
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "total", "possible", *possible, "error"])
        for grade in grades:
            points = [grade.points.get(name, 0) for name in possible]
            numbers = [f"{number:g}" for number in (sum(points), sum(possible.values()), *points)]
            table.writerow([grade.file, *numbers, grade.error])
    return path


def write_feedback(grade: Grade, possible: dict[str, float], titles: dict[str, str], folder: Path) -> None:
    """One Markdown page: points, what each visible test found with its hint, hidden tests by title only."""
    total, out_of = sum(grade.points.values()), sum(possible.values())
    page = [f"# Feedback: {grade.file}", f"**{total:g} of {out_of:g} points**"]
    if grade.error:
        page.append(f"This notebook could not be graded: {grade.error}")
    for question in grade.questions:
        page.append(f"## {question['name']}: {question['points']:g} of {question['possible']:g}")
        page += [_case_feedback(case, titles.get(case["name"], case["name"])) for case in question["cases"]]
    if grade.raised:
        page.append("## Cells that raised an error\n\n" + _as_code("\n".join(grade.raised[:10])))
    for answer in grade.answers:
        page.append(f"## A written answer, to be graded by hand\n\n{answer}")
    with replacing(folder / Path(grade.file).with_suffix(".md")) as path:
        path.write_text("\n\n".join(page) + "\n", encoding="utf-8")


def _case_feedback(case: dict, title: str) -> str:
    kind, verdict = "hidden test" if case["hidden"] else "test", "passed" if case["passed"] else "failed"
    line = f"- {kind} **{title}**: {verdict} ({_points(case['points'])})"
    if case["passed"] or case["hidden"]:
        return line
    hint = f"\n\n  Hint: {case['hint']}" if case["hint"] else ""
    message = case["message"].split("\n", 1)[-1]  # Otter's first line only repeats the verdict
    return f"{line}{hint}\n\n{_as_code(message)}"


def _points(number: int | float) -> str:
    return f"{number:g} point{'' if number == 1 else 's'}"


def _as_code(text: str) -> str:
    return "\n".join("      " + line for line in text.splitlines())
