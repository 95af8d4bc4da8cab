"""Which submissions are alike: runs of tokens that two answers share, and that nobody was given.

An answer is cut into runs of a few tokens. Names that the student chose count as one and the same, comments, layout and
texts not at all, so that a copy with other names is still a copy. What stands in the handed-out notebook is taken out.
The rest is a set of runs; two submissions are as alike as the smaller set lies within the larger one.
"""

from __future__ import annotations

import builtins
import html
import io
import itertools
import keyword
import tokenize
from pathlib import Path

from minilab.core.files import replacing
from minilab.grading import page
from minilab.grading.lab import Lab, defined_names
from minilab.grading.reports import Grade
from minilab.grading.solutions import stub

RUN = 8  # tokens
FEWEST = 20  # runs; a smaller answer is like too many others
SHOWN = 0.5  # the share from which on a pair is shown
SOLUTION = "the published solution"
SKIPPED = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.STRING,
           tokenize.ENCODING, tokenize.ENDMARKER)


def tokens(source: str, known: frozenset[str]) -> list[str]:
    """The tokens of a cell, each name that is neither `known` nor an attribute replaced by one letter."""
    found, before = [], ""
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type in SKIPPED:
                continue
            text = token.string
            own = token.type == tokenize.NAME and before != "." and not keyword.iskeyword(text) and text not in known
            found.append("n" if own else text)
            before = text
    except (tokenize.TokenError, SyntaxError):
        pass  # as far as it can be read
    return found


def runs(source: str, known: frozenset[str] = frozenset()) -> set[tuple[str, ...]]:
    """All runs of tokens in a cell."""
    parts = tokens(source, known)
    return {tuple(parts[i : i + RUN]) for i in range(len(parts) - RUN + 1)}


def fingerprints(submissions: dict[str, list[str]], lab: Lab) -> dict[str, set]:
    """For each submission of code cells, the runs of its answers that no student was given."""
    names = {name for question in lab.tested for name in question.answers}
    known = frozenset(names | set(dir(builtins)))
    given = set().union(*(runs(source, known) for source in _handed_out(lab)))
    return {who: set().union(*(runs(source, known) for source in _answers(cells, names))) - given
            for who, cells in submissions.items()}


def alike(one: set, other: set) -> float:
    """The share of the smaller set that lies in the other; 0 where there is too little to say."""
    fewer = min(len(one), len(other))
    return len(one & other) / fewer if fewer >= FEWEST else 0.0


def compare(grades: list[Grade], lab: Lab) -> list[tuple[float, str, str]]:
    """All pairs of submissions, and each with the published solution, the most alike first.

    Each grade is told what it is most like, the solution aside.
    """
    solution = {SOLUTION: [source for question in lab.tested for source in question.solutions]}
    found = fingerprints({grade.file: grade.cells for grade in grades} | solution, lab)
    pairs = sorted(((alike(found[a], found[b]), a, b) for a, b in itertools.combinations(found, 2)), reverse=True)
    for grade in grades:
        among = [(share, b if a == grade.file else a) for share, a, b in pairs
                 if grade.file in (a, b) and b != SOLUTION]
        grade.most_alike = among[0] if among and among[0][0] else (0.0, "")
    return pairs


def write_similarity(grades: list[Grade], lab: Lab, path: Path) -> Path:
    """The pairs that are alike, with their answers side by side."""
    names = {name for question in lab.tested for name in question.answers}
    cells = {grade.file: grade.cells for grade in grades}
    cells[SOLUTION] = [source for question in lab.tested for source in question.solutions]
    shown = [pair for pair in compare(grades, lab) if pair[0] >= SHOWN]
    parts = ["<p>The share of the smaller answer's runs of tokens that the other has too. What was handed out does not "
             "count, nor do names, comments and layout. A share is a reason to read both, and proves nothing: a short "
             "answer has few ways to be right.</p>"]
    rows = "".join(f"<tr><td>{share:.0%}</td><td>{html.escape(a)}</td><td>{html.escape(b)}</td></tr>"
                   for share, a, b in shown)
    parts.append(f"<table><tr><th>share</th><th>one</th><th>other</th></tr>{rows}</table>" if shown
                 else f"<p>No two submissions share more than {SHOWN:.0%}.</p>")
    for share, a, b in shown:
        columns = "".join(f"<pre tabindex=0>{html.escape(_joined(cells[who], names))}</pre>" for who in (a, b))
        title = f"{share:.0%}: {html.escape(a)} and {html.escape(b)}"
        parts.append(f"<details><summary>{title}</summary><div class=beside>{columns}</div></details>")
    with replacing(path) as temporary:
        temporary.write_text(page.whole("Submissions that are alike", parts), encoding="utf-8")
    return path


def _handed_out(lab: Lab) -> list[str]:
    tests = [test.source for question in lab.tested for test in question.tests if not test.hidden]
    return [*lab.given, *tests, *(stub(source) for question in lab.tested for source in question.solutions)]


def _answers(cells: list[str], names: set[str]) -> list[str]:
    """The cells that define something which was asked for."""
    found = []
    for source in cells:
        try:
            if names & set(defined_names(source)):
                found.append(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # no Python, or magics
    return found


def _joined(cells: list[str], names: set[str]) -> str:
    return "\n\n\n".join(_answers(cells, names))[:50_000]
