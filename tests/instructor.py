"""An instructor notebook taken apart: what students see, the solutions, the tests, and what wrong answers earn."""

import ast
import contextlib
import csv
import io
import re
import textwrap
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from minilab import grading
from minilab.grading import lab as grading_lab
from minilab.grading import student

nbformat = pytest.importorskip("nbformat")
# The tags of cells that no question's tests need: they measure, or show what came of it, or need a screen.
LEFT_OUT = {"measures", "skip-execution"}
SOLUTION = re.compile(r"^( *)# BEGIN SOLUTION\n(.*?)^ *# END SOLUTION\n?", re.DOTALL | re.MULTILINE)


class Lab:
    """An instructor notebook taken apart along its markers, without Otter."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.public: list[str] = []  # cells that students see as they are
        self.solutions: dict[str, str] = {}  # question -> solution cell
        self.tests: dict[str, dict[str, tuple[str, bool]]] = {}  # question -> test -> (source, hidden)
        question = block = ""
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "raw":
                marker = re.match(r"# (BEGIN|END) (\w+)", cell.source)
                if marker and marker[2] != "QUESTION":
                    block = marker[2] if marker[1] == "BEGIN" else ""
                elif marker and marker[1] == "BEGIN":
                    question = re.search(r"^name: (\w+)$", cell.source, re.M)[1]
            elif block == "SOLUTION":
                self.solutions[question] = cell.source
            elif block == "TESTS":
                name = re.search(r"^def (test_\w+)", cell.source, re.M)[1]
                known = self.tests.setdefault(question, {})
                assert name not in known, f"{question} has two tests called {name}: Otter keeps only the last"
                known[name] = (cell.source, "hidden: true" in cell.source)
            elif cell.cell_type == "code":
                self.public.append(cell.source)

    def namespace(self) -> dict:
        """The lab's variables after all cells but tests and those left out have run, solutions included."""
        env: dict = {}
        cells = nbformat.read(self.path, as_version=4).cells
        with contextlib.redirect_stdout(io.StringIO()):
            for cell in cells:
                if cell.cell_type != "code" or LEFT_OUT & set(cell.metadata.get("tags", ())):
                    continue
                if "BEGIN TEST CONFIG" not in cell.source:
                    exec(TransformerManager().transform_cell(cell.source), env)  # %pip is not Python
        return env

    def failing(self, question: str, env: dict) -> set[str]:
        """The tests of a question that fail in these variables, each called as Otter calls it."""
        failed = set()
        for name, (source, _) in self.tests[question].items():
            alone: dict = {}  # Otter gives a test no name but its parameters
            exec(source.rsplit(f"\n\n{name}(", 1)[0], alone)
            parameters = alone[name].__code__.co_varnames[: alone[name].__code__.co_argcount]
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    alone[name](*(env.get(parameter) for parameter in parameters))
            except Exception:
                failed.add(name)
        return failed


def failing_with(lab: Lab, env: dict, question: str, answer: str) -> set[str]:
    """The tests of a question that fail when `answer` runs in place of the solution."""
    exec(textwrap.dedent(answer), env)
    try:
        return lab.failing(question, env)
    finally:
        exec(lab.solutions[question], env)


def rejected_less_than_twice(lab: Lab, wrong: list[tuple]) -> list[str]:
    """Hidden tests that fewer than two of the wrong answers fail: (question, what, frame, change, tests failed)."""
    return [f"{name} of {question}" for question, tests in lab.tests.items() for name, (_, hidden) in tests.items()
            if hidden and sum(w[0] == question and name in w[4] for w in wrong) < 2]


def lines_that_matter(source: str) -> set[str]:
    """Lines long enough to give something away, without spaces and quotes: Otter rewrites both."""
    return {line for line in map(plain, source.splitlines()) if len(line) >= 16}


def plain(text: str) -> str:
    return re.sub(r"[\s\"'()]", "", text)


def secrets(lab: Lab) -> dict[str, set[str]]:
    """What no student file may hold: lines of solutions and hidden tests that no public cell has."""
    visible = [source for tests in lab.tests.values() for source, hidden in tests.values() if not hidden]
    public = plain("\n".join(lab.public + visible))
    found = {}
    for question, cell in lab.solutions.items():
        body = "".join(match[2] for match in SOLUTION.finditer(cell)) or cell  # a written one is all secret
        found[f"solution of {question}"] = {line for line in lines_that_matter(body) if line not in public}
    for question, tests in lab.tests.items():
        for name, (source, hidden) in tests.items():
            if hidden:
                lines = lines_that_matter(source) | lines_that_matter(ast.unparse(ast.parse(source)))
                found[f"{name} of {question}"] = {line for line in lines if line not in public}
    return found


def leaks(secret: dict[str, set[str]], text: str) -> set[str]:
    text = plain(text)
    return {owner for owner, lines in secret.items() if any(line in text for line in lines)}


def handed_out_in_secret(build: Path, lab: Lab) -> None:
    """Asserts that what `minilab assign` made for students is the notebook and its tests, with nothing secret."""
    secret = secrets(lab)
    assert all(secret.values()), "a solution or hidden test without a line of its own cannot be guarded"
    handed_out = [file for file in (build / "student").rglob("*") if file.is_file()]
    assert {file.name for file in handed_out} == {lab.path.name, *(f"{question}.py" for question in lab.tests)}
    for file in handed_out:
        text = file.read_text(encoding="utf-8")
        assert leaks(secret, text.replace("\\n", "\n").replace('\\"', '"')) == set(), file.name
        assert "hidden=True" not in text and "SOLUTION" not in text


def check_same_outside_gaps(build: Path, lab: Lab) -> None:
    """Assert that students get the source's cells, in order, with nothing changed but what stands in the gaps."""
    block, code, text = "", [], []
    for cell in nbformat.read(lab.path, as_version=4).cells:
        if marker := re.match(r"# (BEGIN|END) (\w+)", cell.source) if cell.cell_type == "raw" else None:
            block = marker[2] if marker[1] == "BEGIN" else ""
        elif cell.cell_type == "code" and block != "TESTS":
            code.append(SOLUTION.sub(r"\1...\n", cell.source).strip() if block == "SOLUTION" else cell.source.strip())
        elif cell.cell_type == "markdown" and block != "SOLUTION":
            text.append(cell.source.strip())
    cells = nbformat.read(build / "student" / lab.path.name, as_version=4).cells
    got = [cell.source.strip() for cell in cells if cell.cell_type == "code" and "grader.check" not in cell.source]
    assert got[2:] == code, "the first two install what is missing and write the visible tests"
    added = re.compile(r"<!-- (BEGIN|END) QUESTION -->\s*|\s*_Points:_ \d+\s*$")
    got = [added.sub("", cell.source).strip() for cell in cells if cell.cell_type == "markdown"]
    got = [source for source in got if source not in ("", "_Type your answer here, replacing this text._")]
    assert got[1:-1] == text, "a badge stands before, and a word about the last check after"


def marks(build: Path, lab: Lab, folder: Path) -> dict[str, dict[str, str]]:
    """The row of `scores.csv` for the instructors' and for the untouched notebook, once both are graded."""
    inbox = folder / "inbox"
    inbox.mkdir()
    (inbox / "solved.ipynb").write_bytes((build / "instructor" / lab.path.name).read_bytes())
    (inbox / "untouched.ipynb").write_bytes((build / "student" / lab.path.name).read_bytes())
    table = grading.grade(inbox, build / "autograder" / student.AUTOGRADER, folder / "out", timeout=600.0)
    with open(table, newline="", encoding="utf-8") as file:
        return {row["file"].removesuffix(".ipynb"): row for row in csv.DictReader(file)}


def cases(answers: list[tuple], *, slow: str = "") -> list:
    """Answers, (question, what it does, ...), as parameters of a test; those to the question `slow` take their time."""
    return [pytest.param(answer, marks=[pytest.mark.slow] * (answer[0] == slow), id=f"{answer[0]}: {answer[1]}")
            for answer in answers]


def check_wrong_answer(lab: Lab, env: dict, wrong: tuple) -> None:
    """Assert that a right answer with one change, (question, what, right, change, tests failed), fails just those."""
    question, _, right, change, expected = wrong
    assert change[0] in right
    assert failing_with(lab, env, question, right.replace(*change)) == expected


def check_points(lab: Lab, points: dict[str, int]) -> None:
    """Assert that each question has so many tests, some that students see and some that they do not."""
    assert {name: len(tests) for name, tests in lab.tests.items()} == points
    for name, tests in lab.tests.items():
        assert {hidden for _, hidden in tests.values()} == {True, False}, name


def check_times(path: Path) -> None:
    """Assert that each question of a lab says time, difficulty and importance in words and, alike, in its metadata."""
    text = path.read_text(encoding="utf-8")
    for question in grading_lab.Lab(path).questions.values():
        assert question.minutes > 0 and {question.difficulty, question.importance} <= {1, 2, 3}, question.name
        dots = ["●" * n + "○" * (3 - n) for n in (question.difficulty, question.importance)]
        line = f"Difficulty {dots[0]} · importance {dots[1]} · {question.minutes} minutes"
        heading = f'"## {question.title}\\n",\n    "\\n",\n    "{line}'
        assert heading in text, (path.name, heading)


def check_solution_and_stub(lab: Lab, solved: dict, question: str) -> None:
    """Assert that the solution passes every test of a question, and what students begin with passes none."""
    assert lab.failing(question, solved) == set()
    stub = SOLUTION.sub(r"\1...\n", lab.solutions[question])
    assert "SOLUTION" not in stub and stub != lab.solutions[question]
    assert failing_with(lab, solved, question, stub) == set(lab.tests[question])
