"""Tests that call a student's function by message say what they say when they call it directly.

The reference is the direct call of `tests/instructor.py`, whose verdicts on each wrong answer the labs' tests hold.
"""

import textwrap
from concurrent.futures import ProcessPoolExecutor

import pytest
import test_grading
import test_lab_dmpc
import test_lab_ensembles
import test_lab_lewm
import test_lab_pacbayes
import torch
from instructor import check_times

from minilab.grading import jail
from minilab.grading.judge import Judge
from minilab.grading.lab import Lab
from minilab.grading.submissions import FORKS

if reason := jail.possible():
    pytest.skip(f"no walls here: {reason}", allow_module_level=True)
MODULES = {module.LAB.stem: module for module in (
    test_grading, test_lab_dmpc, test_lab_lewm, test_lab_pacbayes, test_lab_ensembles)}  # fmt: skip
TRAINS = {"02-diffusion-mpc": "q7", "04-generalization-bounds": "q7", "05-infinite-compute": "q8"}


def wrong_answers(name: str) -> list[tuple[str, str, str, set[str]]]:
    """One of each question that trains nothing: (question, what is wrong, the answer, the tests that fail)."""
    found = {}
    for question, what, answer, *rest in MODULES[name].WRONG_ANSWERS:
        answer = answer.replace(*rest[0]) if len(rest) == 2 else answer
        found[question] = question, what, textwrap.dedent(answer), rest[-1]
    return [one for question, one in found.items() if TRAINS.get(name) != question]


def verdicts(name: str) -> tuple[dict, dict]:
    """Which tests each wrong answer should fail, and which it fails by message. For a process without other threads."""
    torch.set_num_threads(1)
    limits = jail.Limits(seconds=6000)
    pid, connection = jail.fork(limits, walls=True)
    judge = Judge(Lab(MODULES[name].LAB), limits, pid, connection)
    judge.ends = float("inf")
    directly, by_message = {}, {}
    with judge.wired() as peer:
        assert not any([judge._run(peer, source) for source in judge.lab.namespace_cells()])
        for question, what, answer, failing in wrong_answers(name):
            asked = judge.lab.questions[question]
            assert judge._run(peer, answer) == "", what
            judge.env |= {one: judge._answer(peer, one) for one in asked.answers}
            directly[question, what] = failing
            by_message[question, what] = {t.name for t in asked.tests if not judge._examine(peer, t)["passed"]}
            assert not any([judge._run(peer, solution) for solution in asked.solutions])
            judge.env |= {one: judge._answer(peer, one) for one in asked.answers}
    return directly, by_message


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_a_wrong_answer_fails_the_same_tests_by_message(name):
    with ProcessPoolExecutor(1, FORKS) as pool:  # a fork of this process could hang: it has threads
        directly, by_message = pool.submit(verdicts, name).result()
    assert len(directly) >= 4 and by_message == directly


def test_a_lab_is_read_as_its_own_tests_read_it():
    for name, module in MODULES.items():
        lab = Lab(module.LAB)
        assert {q.name: len(q.tests) for q in lab.tested} == module.POINTS, name
        assert all(q.title and q.answers for q in lab.tested), name


def test_times_and_difficulties_are_in_the_metadata_as_students_read_them():
    for module in MODULES.values():
        check_times(module.LAB)


@pytest.mark.parametrize("name", MODULES)
def test_each_question_has_two_wrong_answers_that_a_visible_test_with_a_hint_rejects(name):
    module, lab = MODULES[name], Lab(MODULES[name].LAB)
    wrong = module.WRONG_ANSWERS + getattr(module, "WRONG_ENTRIES", [])
    for question in lab.tested:
        visible = {test.name: test.hint for test in question.tests if not test.hidden}
        assert visible and all(visible.values()), question.name
        told = [what for asked, what, *_, failing in wrong if asked == question.name and failing & set(visible)]
        assert len(set(told)) >= 2, question.name
