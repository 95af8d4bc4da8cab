"""What a lab becomes for instructors, for Gradescope and for nbgrader; and which submissions are called alike."""

import os
import zipfile
from pathlib import Path

import pytest

from minilab.grading import similarity, variants
from minilab.grading.lab import Lab
from minilab.grading.plumbing import read_notebook
from minilab.grading.reports import Grade
from minilab.grading.solutions import stub

LABS = sorted((Path(__file__).resolve().parents[2] / "labs").glob("*.ipynb"))
REPOSITORY = {"url": "https://github.com/somebody/a-copy", "branch": "spring"}


@pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)
def test_the_instructors_notebook_says_what_earns_every_point(path, tmp_path):
    variants.write_instructor_notebook(path, tmp_path / path.name)
    lab, cells = Lab(path), read_notebook(tmp_path / path.name).cells
    text = "\n".join(cell.source for cell in cells)
    assert {cell.cell_type for cell in cells} == {"markdown", "code"} and "TEST CONFIG" not in text
    total = sum(question.possible + question.by_hand for question in lab.questions.values())
    minutes = sum(question.minutes for question in lab.questions.values())
    assert f"| all | {minutes} | | {total:g} |" in cells[0].source
    for question in lab.questions.values():
        assert f"**Rubric of {question.name}**" in text and question.rubric in text
        assert all(f"test *{test.title}*" in text and test.source.strip() in text for test in question.tests)
        assert all(source in text for source in question.solutions)


@pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)
def test_nbgraders_source_marks_answers_and_tests_with_their_points(path, tmp_path):
    variants.write_nbgrader_source(path, tmp_path / path.name)
    lab, cells = Lab(path), read_notebook(tmp_path / path.name).cells
    marked = [cell for cell in cells if "nbgrader" in cell.metadata]
    names = [cell.metadata["nbgrader"]["grade_id"] for cell in marked]
    assert len(set(names)) == len(names) and not any(cell.cell_type == "raw" for cell in cells)
    points = sum(cell.metadata["nbgrader"].get("points", 0) for cell in marked)
    assert points == sum(question.possible + question.by_hand for question in lab.questions.values())
    for test in (test for question in lab.tested for test in question.tests):
        (cell,) = [cell for cell in marked if f"def {test.name}(" in cell.source and test.source.strip() in cell.source]
        assert cell.source.startswith("### BEGIN HIDDEN TESTS") == test.hidden
        assert cell.source.endswith("### END HIDDEN TESTS") == test.hidden
        assert f"\n{test.name}({', '.join(test.parameters)})" in cell.source, "the test is called"
        assert cell.metadata["nbgrader"]["locked"] and not cell.metadata["nbgrader"]["solution"]


def test_the_autograder_installs_from_the_repository_of_the_course_and_starts_by_itself(tmp_path):
    variants.write_autograder(LABS[0], tmp_path / "autograder.zip", REPOSITORY)
    with zipfile.ZipFile(tmp_path / "autograder.zip") as bundle:
        assert set(bundle.namelist()) == {"lab.ipynb", "setup.sh", "run_autograder"}
        assert bundle.read("lab.ipynb") == LABS[0].read_bytes()
        assert b"minilab[labs]@git+https://github.com/somebody/a-copy@spring" in bundle.read("setup.sh")
        assert bundle.read("run_autograder").startswith(b"#!")
        assert all(bundle.getinfo(name).external_attr >> 16 & os.X_OK for name in ("setup.sh", "run_autograder"))
    variants.write_autograder(LABS[0], tmp_path / "alone.zip", None)
    with zipfile.ZipFile(tmp_path / "alone.zip") as bundle:
        assert bundle.namelist() == ["lab.ipynb"], "away from a book there is no address to install from"


# ------------------------------------------------------------------------------------- similarity

KNOWN = frozenset({"torch", "residual", "len"})
WAY = """
def residual(p, q):
    short = (p - q).clamp(min=0)
    mass = short.sum(-1, keepdim=True)
    return torch.where(mass > 0, short / mass.clamp(min=1e-30), p)
"""
SAME_WAY = '''
def residual(a, b):  # my own work
    """Words."""
    rest = (a - b).clamp( min=0 )

    total = rest.sum(-1,
                     keepdim=True)
    return torch.where(total > 0, rest / total.clamp(min=1e-30), a)
'''
OTHER_WAY = """
def residual(p, q):
    out = torch.empty_like(p)
    for i in range(len(p)):
        missing = [max(0.0, float(x) - float(y)) for x, y in zip(p[i], q[i])]
        out[i] = torch.tensor(missing) / sum(missing) if sum(missing) else p[i]
    return out
"""


def test_other_names_layout_and_comments_are_the_same_answer_and_another_way_is_not():
    way, same, other = (similarity.runs(source, KNOWN) for source in (WAY, SAME_WAY, OTHER_WAY))
    assert way == same and similarity.alike(way, same) == 1
    assert similarity.alike(way, other) < 0.1
    assert similarity.alike(way, set(list(way)[: similarity.FEWEST - 1])) == 0, "too little to say"


def test_broken_code_is_compared_as_far_as_it_can_be_read():
    assert similarity.runs(WAY + "\nx = (", KNOWN) >= similarity.runs(WAY, KNOWN)


def test_what_was_handed_out_makes_nobody_alike():
    lab = Lab(LABS[0])
    handed_out = [*lab.given, *(stub(source) for question in lab.tested for source in question.solutions)]
    solved = [source for question in lab.tested for source in question.solutions]
    grades = [Grade("a.ipynb", cells=handed_out), Grade("b.ipynb", cells=handed_out), Grade("c.ipynb", cells=solved)]
    pairs = similarity.compare(grades, lab)
    assert {(a, b): share for share, a, b in pairs if share} == {("c.ipynb", similarity.SOLUTION): 1}
    assert [grade.most_alike for grade in grades] == [(0.0, "")] * 3, "the solution is no submission"


def test_the_page_of_pairs_is_text(tmp_path):
    lab = Lab(LABS[0])
    cells = [source.replace("shortfall", "x1") + "\n# <script>" for q in lab.tested for source in q.solutions]
    grades = [Grade("<b>.ipynb", cells=cells), Grade("c.ipynb", cells=cells)]
    page = similarity.write_similarity(grades, lab, tmp_path / "similarity.html").read_text(encoding="utf-8")
    assert "100%: &lt;b&gt;.ipynb and c.ipynb" in page and "<script>" not in page and "<b>.ipynb" not in page
