"""Each lab as `minilab assign` makes it and `grade` grades it: nothing leaks, solutions earn all, and stubs nothing.

Lab 1 stands in `test_grading.py`, where the machinery is tested on it.
"""

from pathlib import Path

import pytest
from instructor import Lab, check_same_outside_gaps, handed_out_in_secret, marks

from minilab import grading

LABS = sorted((Path(__file__).resolve().parents[1] / "labs").glob("*.ipynb"))[1:]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=LABS, ids=lambda path: path.stem)
def made(request, tmp_path_factory) -> tuple[Path, Lab]:
    """What was assigned, and the lab taken apart."""
    pytest.importorskip("otter")
    return grading.assign(request.param, tmp_path_factory.mktemp("labs"), run_tests=False), Lab(request.param)


def test_no_solution_and_no_hidden_test_reaches_the_student(made):
    handed_out_in_secret(*made)


def test_the_students_file_is_the_source_outside_of_the_gaps(made):
    check_same_outside_gaps(*made)


def test_solutions_earn_all_and_the_untouched_notebook_nothing(made, tmp_path):
    rows, points = marks(*made, tmp_path), {question: len(tests) for question, tests in made[1].tests.items()}
    assert {q: float(rows["solved"][q]) for q in points} == points
    assert float(rows["solved"]["total"]) == sum(points.values())
    assert {q: float(rows["untouched"][q]) for q in points} == dict.fromkeys(points, 0)
    assert rows["solved"]["error"] == rows["untouched"]["error"] == ""
