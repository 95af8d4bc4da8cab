"""An instructor notebook taken apart along its markers: what students are given, what they write, what tests it.

The markers are Otter-Grader's: raw cells with `# BEGIN QUESTION`, `# BEGIN SOLUTION` and `# BEGIN TESTS`, and in each
test cell a configuration between `# BEGIN TEST CONFIG` and `# END TEST CONFIG`.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from minilab.grading.plumbing import read_notebook

# The tags of cells that no question's tests need: they measure, or show what came of it, or need a screen.
LEFT_OUT = {"measures", "skip-execution"}
CONFIG = re.compile(r'""" # BEGIN TEST CONFIG\n(.*?)""" # END TEST CONFIG\n', re.DOTALL)
MARKER = re.compile(r"# (BEGIN|END) (\w+)")
HEADING = re.compile(r"^#+ (.*)$", re.M)


@dataclass
class Test:
    """One test of a question. `source` defines the function `name`."""

    name: str
    source: str
    parameters: list[str]
    points: float = 1.0
    hidden: bool = False
    hint: str = ""

    @property
    def title(self) -> str:
        return self.name.removeprefix("test_").replace("_", " ")


@dataclass
class Question:
    """A question with what it asks for and what it is worth."""

    name: str
    title: str = ""
    minutes: int = 0  # these three stand in the metadata of the question's text
    difficulty: int = 0  # 1 to 3
    importance: int = 0
    by_hand: float = 0.0  # points that a human gives
    rubric: str = ""  # the written solution of a question that is graded by hand
    answers: list[str] = field(default_factory=list)  # the names that the solution cell defines
    solutions: list[str] = field(default_factory=list)
    tests: list[Test] = field(default_factory=list)

    @property
    def possible(self) -> float:
        return sum(test.points for test in self.tests)


class Lab:
    """An instructor notebook, read: `questions`, and the code `cells` in order with what each is."""

    def __init__(self, path: Path) -> None:
        self.questions: dict[str, Question] = {}
        self.given: list[str] = []  # code that students get as it is
        self.left_out: list[str] = []  # of that, what no test needs
        self._needed: list[str] = []  # code that tests need, solutions among it
        question, block = None, ""
        for cell in read_notebook(path).cells:
            marker = MARKER.match(cell.source) if cell.cell_type == "raw" else None
            if marker and marker[2] == "QUESTION":
                question = self._begin(cell.source) if marker[1] == "BEGIN" else None
            elif marker:
                block = marker[2] if marker[1] == "BEGIN" else ""
            elif block == "TESTS" and cell.cell_type == "code":
                question.tests.append(_test(cell.source))
            elif block == "SOLUTION":
                self._solution(question, cell)
            elif cell.cell_type == "code":
                self._given(cell)
            elif question and not question.title and (heading := HEADING.search(cell.source)):
                question.title = heading[1]
                for fact, value in cell.metadata.get("minilab", {}).items():
                    setattr(question, fact, int(value))
        if not self.questions:
            raise ValueError(f"{path.name} has no question: mark each by a raw cell with '# BEGIN QUESTION'")

    @property
    def tested(self) -> list[Question]:
        """The questions that tests grade; the others are graded by hand."""
        return [question for question in self.questions.values() if question.tests]

    def namespace(self) -> dict:
        """The lab's variables, once all that its tests need has run, solutions included."""
        from IPython.core.inputtransformer2 import TransformerManager

        env: dict = {"__name__": "__main__"}
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            for source in self.namespace_cells():
                exec(TransformerManager().transform_cell(source), env)  # %pip is not Python
        return env

    def namespace_cells(self) -> list[str]:
        """The code that `namespace` runs."""
        return list(self._needed)

    def _begin(self, marker: str) -> Question:
        import yaml

        config = yaml.safe_load(marker.split("\n", 1)[1])
        by_hand = float(config.get("points", 0)) if config.get("manual") else 0.0
        return self.questions.setdefault(config["name"], Question(config["name"], by_hand=by_hand))

    def _solution(self, question: Question, cell) -> None:
        if cell.cell_type != "code":
            question.rubric += cell.source
            return
        self._needed.append(cell.source)
        question.solutions.append(cell.source)
        question.answers += defined_names(cell.source)

    def _given(self, cell) -> None:
        self.given.append(cell.source)
        if LEFT_OUT & set(cell.metadata.get("tags", ())):
            self.left_out.append(cell.source)
        else:
            self._needed.append(cell.source)


def defined_names(source: str) -> list[str]:
    """The functions, classes and variables that a cell defines."""
    names = []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return names


def _test(source: str) -> Test:
    import yaml

    config = yaml.safe_load(CONFIG.search(source)[1])
    code = CONFIG.sub("", source)
    function = next(node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef))
    return Test(
        function.name,
        "\n".join(code.splitlines()[: function.end_lineno]) + "\n",
        [argument.arg for argument in function.args.args],
        points=float(config.get("points", 1)),
        hidden=bool(config.get("hidden", False)),
        hint=config.get("failure_message", ""),
    )
