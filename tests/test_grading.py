"""The lab mechanism, and lab 1 through it: nothing leaks, right answers earn all, wrong ones a part.

The wrong answers run in this process against the notebook's own tests. What needs Otter or the grader shares one build
and one graded folder. `tests/grading/test_cheats.py` tries to cheat the grader.
"""

import csv
import html
import json
import os
import sys
import zipfile
from pathlib import Path

import pytest
from instructor import (
    check_points,
    check_same_outside_gaps,
    check_solution_and_stub,
    failing_with,
    handed_out_in_secret,
    leaks,
    secrets,
)

from minilab import grading
from minilab.grading import gradescope, reports, student, submissions, variants

nbformat = pytest.importorskip("nbformat")
ROOT = Path(__file__).resolve().parents[1]
LAB = ROOT / "labs" / "01-speculative-decoding.ipynb"
POINTS = {"q1": 2, "q2": 2, "q3": 4, "q4": 3, "q5a": 3, "q5b": 3, "q7": 4, "q8": 3, "q9": 4}


def test_each_question_has_visible_and_hidden_tests_worth_its_points(lab):
    check_points(lab, POINTS)


def test_solutions_pass_and_stubs_fail_every_test(lab, solved):
    for question in POINTS:
        check_solution_and_stub(lab, solved, question)


WORKED, ZEROS = "test_worked_example", "test_zeros_and_batches"
MASS, SAME = "test_kept_and_repaired_mass_add_up_to_the_target", "test_identical_rows_inside_a_batch"
HAND, LAW = "test_rounds_followed_by_hand", "test_two_guesses_leave_the_law_of_three_tokens_as_it_was"
LENGTHS, PERFECT = "test_other_lengths_of_draft", "test_a_perfect_draft_is_never_rejected"
VALUES, BEST, EXTREMES = "test_worked_values", "test_best_number_of_guesses", "test_extremes"
CAUGHT, ALONE = "test_the_suspect_is_caught_and_the_innocent_goes_free", "test_each_bug_is_caught_alone"
RARE = "test_rarer_bugs_are_caught"
GREEDY, AWKWARD, SAVES = "test_equals_greedy_decoding", "test_awkward_sizes", "test_a_good_draft_saves_passes"
SEVEN, SMALL = "test_theorem_12_with_seven_tokens_ahead", "test_small_lists_by_hand"
SLOPE, AWKWARD_LISTS = "test_slope_and_spike", "test_awkward_shares_and_lists"
FOLLOWED, SHORT = "test_texts_followed_by_hand", "test_short_texts_and_repetition"
MANY = "test_which_of_many_matches_decides"
SPEEDS, SWITCH = "test_speeds_by_hand", "test_the_switch_between_one_and_two"
SOURCES = "test_each_number_comes_from_the_right_fallback"
CROSSINGS = "test_crossings_with_their_own_numbers"
BEST_OF = "def best_k(a, c, k_max=32): return max({}, key=lambda K: speedup(a, K, c))"

# What a student might well write: (question, what is wrong, the answer, the tests that must fail).
WRONG_ANSWERS = [
    ("q1", "ratio upside down", "def accept_prob(p, q): return (q / p).clamp(max=1)", {WORKED, ZEROS}),
    ("q1", "0/0 is NaN", "def accept_prob(p, q): return (p / q).clamp(max=1)", {ZEROS}),
    ("q1", "no cap at 1", "def accept_prob(p, q): return p / q", {WORKED, ZEROS}),
    ("q1", "overlap over the whole batch", "def overlap(p, q): return torch.minimum(p, q).sum()", {ZEROS}),
    ("q1", "mean, not expectation", "def overlap(p, q): return accept_prob(p, q).mean(-1)", {WORKED, ZEROS}),
    ("q1", "half forgotten", "def overlap(p, q): return 1 - (p - q).abs().sum(-1)", {WORKED, ZEROS}),
    ("q2", "p in place of the residual", "def residual(p, q): return p", {MASS, SAME}),
    ("q2", "absolute difference", """
        def residual(p, q):
            r = (p - q).abs()
            return r / r.sum(-1, keepdim=True)
        """, {MASS, SAME}),
    ("q2", "NaN where p = q", """
        def residual(p, q):
            r = (p - q).clamp(min=0)
            return r / r.sum(-1, keepdim=True)
        """, {SAME}),
    ("q2", "zeros where p = q", """
        def residual(p, q):
            r = (p - q).clamp(min=0)
            return r / r.sum(-1, keepdim=True).clamp(min=1e-9)
        """, {SAME}),
    ("q2", "one row decides for the batch", """
        def residual(p, q):
            r = (p - q).clamp(min=0)
            mass = r.sum(-1, keepdim=True)
            return p if mass.min() == 0 else r / mass
        """, {SAME}),
    ("q2", "a small shortfall taken for none", """
        def residual(p, q):
            r = (p - q).clamp(min=0)
            mass = r.sum(-1, keepdim=True)
            return torch.where(mass > 1e-4, r / mass, p)
        """, {SAME}),
    ("q3", "accepts after a rejection", """
        def one_round(draft, p, q, u):
            kept = [t for i, t in enumerate(draft) if u[i] < accept_prob(p[i], q[i])[t]]
            if len(kept) == len(draft):
                return [*kept, pick(p[-1], u[-1])]
            return [*kept, pick(residual(p[len(kept)], q[len(kept)]), u[-1])]
        """, {HAND, LAW, LENGTHS}),
    ("q3", "p in place of the residual", """
        def one_round(draft, p, q, u):
            for i, t in enumerate(draft):
                if u[i] >= accept_prob(p[i], q[i])[t]:
                    return [*draft[:i], pick(p[i], u[-1])]
            return [*draft, pick(p[-1], u[-1])]
        """, {HAND, LAW, LENGTHS}),
    ("q3", "no bonus token", """
        def one_round(draft, p, q, u):
            for i, t in enumerate(draft):
                if u[i] >= accept_prob(p[i], q[i])[t]:
                    return [*draft[:i], pick(residual(p[i], q[i]), u[-1])]
            return list(draft)
        """, {HAND, LENGTHS, PERFECT}),  # the law is right all the same: a bonus is speed, not correctness
    ("q3", "bonus from the row before", """
        def one_round(draft, p, q, u):
            for i, t in enumerate(draft):
                if u[i] >= accept_prob(p[i], q[i])[t]:
                    return [*draft[:i], pick(residual(p[i], q[i]), u[-1])]
            return [*draft, pick(p[len(draft) - 1], u[-1])]
        """, {HAND, LAW, LENGTHS}),
    ("q3", "rejected token stays", """
        def one_round(draft, p, q, u):
            for i, t in enumerate(draft):
                if u[i] >= accept_prob(p[i], q[i])[t]:
                    return [*draft[:i + 1], pick(residual(p[i], q[i]), u[-1])]
            return [*draft, pick(p[-1], u[-1])]
        """, {HAND, LAW, LENGTHS, PERFECT}),
    ("q3", "residual of the next row", """
        def one_round(draft, p, q, u):
            for i, t in enumerate(draft):
                if u[i] >= accept_prob(p[i], q[i])[t]:
                    return [*draft[:i], pick(residual(p[i + 1], q[i]), u[-1])]
            return [*draft, pick(p[-1], u[-1])]
        """, {LAW, LENGTHS, PERFECT}),
    ("q3", "one random number for all guesses", """
        def one_round(draft, p, q, u):
            for i, t in enumerate(draft):
                if u[0] >= accept_prob(p[i], q[i])[t]:
                    return [*draft[:i], pick(residual(p[i], q[i]), u[-1])]
            return [*draft, pick(p[-1], u[-1])]
        """, {HAND, LAW, LENGTHS}),
    ("q3", "accept with p, not p / q", """
        def one_round(draft, p, q, u):
            for i, t in enumerate(draft):
                if u[i] >= p[i][t]:
                    return [*draft[:i], pick(residual(p[i], q[i]), u[-1])]
            return [*draft, pick(p[-1], u[-1])]
        """, {HAND, LAW, LENGTHS, PERFECT}),
    ("q3", "each place its own number", """
        def one_round(draft, p, q, u):
            for i, t in enumerate(draft):
                if u[i] >= accept_prob(p[i], q[i])[t]:
                    return [*draft[:i], pick(residual(p[i], q[i]), u[i + 1])]
            return [*draft, pick(p[-1], u[-1])]
        """, {HAND}),
    ("q3", "kept at 0 below 0", """
        def one_round(draft, p, q, u):
            for i, t in enumerate(draft):
                if u[i] > accept_prob(p[i], q[i])[t]:
                    return [*draft[:i], pick(residual(p[i], q[i]), u[-1])]
            return [*draft, pick(p[-1], u[-1])]
        """, {PERFECT}),
    ("q4", "bonus token not counted", "def expected_tokens(alpha, K): return sum(alpha**i for i in range(K))",
     {VALUES, BEST, EXTREMES}),
    ("q4", "0/0 at alpha = 1", "def expected_tokens(a, K): return (1 - a ** (K + 1)) / (1 - a)", {EXTREMES}),
    ("q4", "the target's pass is free", "def speedup(a, K, c): return expected_tokens(a, K) / max(K * c, c)",
     {VALUES, BEST, EXTREMES}),
    ("q4", "K + 1 draft steps", "def speedup(a, K, c): return expected_tokens(a, K) / (1 + (K + 1) * c)",
     {VALUES, BEST, EXTREMES}),
    ("q4", "K = 0 not tried", BEST_OF.format("range(1, k_max + 1)"), {EXTREMES}),
    ("q4", "k_max not tried", BEST_OF.format("range(k_max)"), {EXTREMES}),
    ("q4", "last of the ties", BEST_OF.format("range(k_max, -1, -1)"), {EXTREMES}),
    ("q4", "most tokens, not most speed", "def best_k(a, c, k_max=32): return k_max", {BEST, EXTREMES}),
    ("q5a", "everyone is guilty", "def catches(decode): return True", {CAUGHT, ALONE, RARE}),
    ("q5a", "nobody is", "def catches(decode): return False", {CAUGHT, ALONE, RARE}),
    ("q5a", "K = 1 only", """
        def catches(decode):
            return any(decode(*toy_pair(s), [1, 2], 20, 1) != greedy(toy_pair(s)[0], [1, 2], 20)
                       for s in range(9))
        """, {ALONE, RARE}),
    ("q5a", "short texts only", """
        def catches(decode):
            return any(decode(*toy_pair(s), [1, 2], 4, K) != greedy(toy_pair(s)[0], [1, 2], 4)
                       for s in range(9) for K in (1, 3))
        """, {RARE}),
    ("q5a", "one prompt, one K", """
        def catches(decode):
            return any(decode(*toy_pair(s), [1, 2], 20, 2) != greedy(toy_pair(s)[0], [1, 2], 20) for s in range(9))
        """, {RARE}),
    ("q5a", "lengths not compared", """
        def catches(decode):
            return any(decode(*toy_pair(s), [1, 2], 20, K)[:22] != greedy(toy_pair(s)[0], [1, 2], 20)
                       for s in range(9) for K in (1, 2, 4))
        """, {RARE}),
]  # fmt: skip

MENDED = """
    def mended(target, draft, prompt, n, K):
        out = list(prompt)
        for model in (target, draft):
            model.rollback(0)
            model.forward(out[:-1])
        while len(out) < len(prompt) + n:
            chain = [out[-1]]
            for _ in range(K):
                chain.append(int(draft.forward(chain[-1:])[-1].argmax()))
            draft.forward(chain[-1:])
            best = target.forward(chain).argmax(-1).tolist()
            agree = [a == b for a, b in zip(chain[1:], best)]
            kept = [*agree, False].index(False)
            out += best[: kept + 1]
            for model in (target, draft):
                model.rollback(len(out) - 1)
        return out[: len(prompt) + n]
    """
WRONG_ANSWERS += [
    ("q5b", what, MENDED.replace(*change), failing)
    for what, change, failing in [
        ("accepts after a rejection", ("[*agree, False].index(False)", "sum(agree)"), {GREEDY, AWKWARD}),
        ("one stale entry", ("rollback(len(out) - 1)", "rollback(len(out))"), {GREEDY, AWKWARD}),
        ("one entry lost", ("rollback(len(out) - 1)", "rollback(len(out) - 2)"), {GREEDY, AWKWARD, SAVES}),
        ("no roll-back", ("model.rollback(len(out) - 1)", "pass"), {GREEDY, AWKWARD, SAVES}),
        ("the draft keeps a stale entry", ("model.rollback(len(out) - 1)",
                                           "model.rollback(len(out) - (model is target))"), {AWKWARD, SAVES}),
        ("all guesses or none", ("[*agree, False].index(False)", "K * all(agree)"), {SAVES}),
        ("nothing is ever kept", ("[*agree, False].index(False)", "0"), {SAVES}),
        ("last guess not read", ("            draft.forward(chain[-1:])\n", ""), {AWKWARD, SAVES}),
        ("too many tokens", ("return out[: len(prompt) + n]", "return out"), {GREEDY, AWKWARD}),
    ]
]

SHARES = """
    def shares(budget, K, alpha, r):
        chance = [alpha**k * (1 - alpha) for k in range(K)] + [alpha**K]
        power = [p ** (1 / (1 + r)) for p in chance]
        return [budget * x / sum(power) for x in power]
    """
WRONG_ANSWERS += [
    ("q7", what, SHARES.replace(*change), {SEVEN, SLOPE})
    for what, change in [
        ("no spike at k = K", ("+ [alpha**K]", "+ [alpha**K * (1 - alpha)]")),
        ("no guess for k = K", ("+ [alpha**K]", "")),
        ("in proportion to the chance", ("p ** (1 / (1 + r))", "p")),
        ("exponent upside down", ("(1 / (1 + r))", "(1 + r)")),
        ("exponent 1 / r", ("(1 / (1 + r))", "(1 / r)")),
        ("the budget is the first share", ("sum(power)", "power[0]")),
        ("shares of one guess", ("budget * x", "x")),
        ("one k too many", ("range(K)", "range(K + 1)")),
    ]
]

REST = "below = sorted(range(len(real)), key=lambda k: F[k] - real[k])[: round(sum(real)) - sum(F)]"
WRONG_ANSWERS += [
    ("q7", "each rounded alone", "def whole(real): return [round(x) for x in real]", {SMALL, AWKWARD_LISTS}),
    ("q7", "rounded down, the rest for k = 0", """
        def whole(real):
            F = [int(x) for x in real]
            return [F[0] + round(sum(real)) - sum(F), *F[1:]]
        """, {SMALL, AWKWARD_LISTS}),
    ("q7", "rounded up, and the last pays", """
        def whole(real):
            F = [math.ceil(x) for x in real[:-1]]
            return [*F, round(sum(real)) - sum(F)]
        """, {SMALL, AWKWARD_LISTS}),
    ("q7", "largest remainders, zeros and all", f"""
        def whole(real):
            F = [int(x) for x in real]
            {REST}
            return [n + (k in below) for k, n in enumerate(F)]
        """, {SMALL, AWKWARD_LISTS}),
    ("q7", "zeros lifted to one beyond the budget", f"""
        def whole(real):
            F = [int(x) for x in real]
            {REST}
            return [max(1, n + (k in below)) for k, n in enumerate(F)]
        """, {SMALL, AWKWARD_LISTS}),
    ("q7", "zeros lifted to one, the first pays", f"""
        def whole(real):
            F = [int(x) for x in real]
            {REST}
            F = [max(1, n + (k in below)) for k, n in enumerate(F)]
            return [F[0] + round(sum(real)) - sum(F), *F[1:]]
        """, {AWKWARD_LISTS}),
    ("q7", "the largest share gets each guess", """
        def whole(real):
            F = [1] * len(real)
            F[real.index(max(real))] += round(sum(real)) - len(real)
            return F
        """, {SMALL, AWKWARD_LISTS}),
]  # fmt: skip
WRONG_ANSWERS += [
    ("q7", what, f"def hit_rate(F, outcomes): return {value}", {SMALL, AWKWARD_LISTS})
    for what, value in [
        ("ranks counted from one", "mean(rank <= F[k] for k, rank in outcomes)"),
        ("all guesses for every k", "mean(rank < sum(F) for _, rank in outcomes)"),
        ("k and rank swapped", "mean(k < F[min(rank, len(F) - 1)] for k, rank in outcomes)"),
        ("hits counted, not their share", "sum(rank < F[k] for k, rank in outcomes)"),
        ("each k weighs the same", "mean(mean(r < F[k] for k, r in outcomes if k == j) for j in dict(outcomes))"),
    ]
]

FOLLOW = """
    def follow(text, K, longest=3):
        for n in range(min(longest, len(text) - 1), 0, -1):
            for start in range(len(text) - n - 1, -1, -1):
                if text[start : start + n] == text[-n:]:
                    after = text[start + n :]
                    return (after * K)[:K]
        return None
    """
BACK, LENGTHS_OF_MATCH = "range(len(text) - n - 1, -1, -1)", "range(min(longest, len(text) - 1), 0, -1)"
WRONG_ANSWERS += [
    ("q8", what, FOLLOW.replace(*change), failing)
    for what, change, failing in [
        ("the first occurrence", (BACK, "range(len(text) - n)"), {FOLLOWED, SHORT, MANY}),
        ("the end matches itself", (BACK, "range(len(text) - n, -1, -1)"), {FOLLOWED, SHORT, MANY}),
        ("no overlap with the end", (BACK, "range(len(text) - 2 * n, -1, -1)"), {SHORT, MANY}),
        ("the last place is not tried", (BACK, "range(len(text) - n - 1, 0, -1)"), {FOLLOWED, SHORT, MANY}),
        ("shortest match first", (LENGTHS_OF_MATCH, "range(1, min(longest, len(text) - 1) + 1)"), {FOLLOWED, MANY}),
        ("single tokens only", (LENGTHS_OF_MATCH, "range(1, 0, -1)"), {FOLLOWED, MANY}),
        ("never less than the longest", (LENGTHS_OF_MATCH, "[longest]"), {FOLLOWED, SHORT, MANY}),
        ("always three", ("min(longest, ", "min(3, "), {MANY}),
        ("the match itself, not what follows", ("text[start + n :]", "text[start :]"), {FOLLOWED, SHORT, MANY}),
        ("no repetition", ("(after * K)[:K]", "after[:K]"), {SHORT, MANY}),
        ("the last token repeated", ("(after * K)[:K]", "(after + after[-1:] * K)[:K]"), {SHORT, MANY}),
        ("zeros in place of None", ("return None", "return [0] * K"), {FOLLOWED, SHORT, MANY}),
        ("a crash on the empty text", ("for n in", "text[-1]\n        for n in"), {SHORT}),
    ]
]  # fmt: skip

BATCH_SPEED = """
    def batch_speed(f, b, T_p=1.0):
        tokens, all_hit = f.p * f.E_hit + (1 - f.p) * f.E_miss, f.p**b
        return tokens / (all_hit * max(1.0, T_p) + (1 - all_hit) * (1 + f.T_b))
    """
CROSSING = """
    def crossing(slow, fast, sizes, T_p=1.0):
        for b in sizes:
            if batch_speed(fast, b, T_p) >= batch_speed(slow, b, T_p):
                return b
    """
B_STAR = """
    def b_star(slow, fast):
        tokens = slow.p * slow.E_hit + (1 - slow.p) * fast.E_miss
        all_hit = 1 + 1 / slow.T_b - slow.E_hit / (slow.T_b * tokens)
        return math.log(all_hit) / math.log(slow.p) if all_hit > 0 else math.inf
    """
ROW, LEVEL = "f.p * f.E_hit + (1 - f.p)", "batch_speed(fast, b, T_p) >= batch_speed(slow, b, T_p)"
LOGARITHMS = "math.log(all_hit) / math.log(slow.p)"
WRONG_ANSWERS += [
    ("q9", what, frame.replace(*change), failing)
    for frame, what, change, failing in [
        (BATCH_SPEED, "each row waits for itself only", ("f.p**b", "f.p"), {SPEEDS, SWITCH, CROSSINGS}),
        (BATCH_SPEED, "a batch of hits for the tokens too", (ROW, ROW.replace("f.p", "f.p**b")),
         {SPEEDS, SWITCH, CROSSINGS}),
        (BATCH_SPEED, "one hit is enough", ("f.p**b", "1 - (1 - f.p) ** b"), {SPEEDS, SWITCH, CROSSINGS}),
        (BATCH_SPEED, "preparation shorter than a check", ("max(1.0, T_p)", "T_p"), {SPEEDS}),
        (BATCH_SPEED, "preparation always hidden", ("max(1.0, T_p)", "1.0"), {SPEEDS, CROSSINGS}),
        (BATCH_SPEED, "a miss needs no check", ("(1 + f.T_b)", "f.T_b"), {SPEEDS, CROSSINGS}),
        (BATCH_SPEED, "tokens of all rows", ("return tokens", "return b * tokens"), {SPEEDS, CROSSINGS}),
        (CROSSING, "one p for both", ("(fast, b", "(fast._replace(p=slow.p), b"), {CROSSINGS}),
        (CROSSING, "level does not count", (">=", ">"), {CROSSINGS}),
        (CROSSING, "preparation forgotten", (LEVEL, LEVEL.replace(", T_p", "")), {CROSSINGS}),
        (CROSSING, "the other way round", (">=", "<="), {SWITCH, CROSSINGS}),
        (CROSSING, "the last size if none", ("return b\n", "return b\n        return b\n"), {CROSSINGS}),
        (CROSSING, "the position, not the size", ("in sizes:", "in range(len(sizes)):"), {CROSSINGS}),
        (CROSSING, "the formula in its place", (LEVEL, "b >= b_star(slow, fast)"), {CROSSINGS}),
        (B_STAR, "tokens of the slow one's misses", ("fast.E_miss", "slow.E_miss"), {SWITCH, SOURCES}),
        (B_STAR, "time of the fast one", ("slow.T_b", "fast.T_b"), {SWITCH, SOURCES}),
        (B_STAR, "chance of the fast one", ("slow.p", "fast.p"), {SOURCES}),
        (B_STAR, "hits of the fast one", ("slow.E_hit", "fast.E_hit"), {SOURCES}),
        (B_STAR, "a crash where the slow one always pays", ("if all_hit > 0 else math.inf", ""), {SOURCES}),
        (B_STAR, "zero where the slow one always pays", ("math.inf", "0"), {SOURCES}),
        (B_STAR, "logarithms the other way round", (LOGARITHMS, "math.log(slow.p) / math.log(all_hit)"),
         {SWITCH, SOURCES}),
        (B_STAR, "rounded up", (LOGARITHMS, f"math.ceil({LOGARITHMS})"), {SWITCH, SOURCES}),
    ]
]  # fmt: skip
FRAMES = [("q5b", MENDED), ("q7", SHARES), ("q8", FOLLOW), ("q9", BATCH_SPEED), ("q9", CROSSING), ("q9", B_STAR)]


@pytest.mark.parametrize("wrong", WRONG_ANSWERS, ids=lambda wrong: f"{wrong[0]}: {wrong[1]}")
def test_a_wrong_answer_loses_exactly_the_marks_it_should(lab, solved, wrong):
    question, _, answer, expected = wrong
    assert failing_with(lab, solved, question, answer) == expected


def test_the_frames_of_wrong_answers_are_right_without_their_change(lab, solved):
    for question, frame in FRAMES:
        assert failing_with(lab, solved, question, frame) == set()


def test_a_wrong_answer_differs_from_its_frame_and_each_hidden_test_rejects_two(lab):
    """A change whose text is not in its frame would leave the right answer as it is."""
    assert not {answer for _, _, answer, _ in WRONG_ANSWERS} & {frame for _, frame in FRAMES}
    for question, tests in lab.tests.items():
        for name, (_, hidden) in tests.items():
            rejected = [what for q, what, _, failing in WRONG_ANSWERS if q == question and name in failing]
            assert len(rejected) >= 2 or not hidden, f"{name} of {question} rejects {rejected}"


# ------------------------------------------------------------------------------ handed out and graded


@pytest.fixture(scope="session")
def build(tmp_path_factory) -> Path:
    """Lab 1 as `minilab assign` makes it (`graded` shows that its solutions earn full marks)."""
    pytest.importorskip("otter")
    return grading.assign(LAB, tmp_path_factory.mktemp("labs"), run_tests=False)


@pytest.mark.slow
def test_no_solution_and_no_hidden_test_reaches_the_student(build, lab):
    handed_out_in_secret(build, lab)
    cells = nbformat.read(build / "student" / LAB.name, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    secret = secrets(lab)
    master = "\n".join(cell.source for cell in nbformat.read(LAB, as_version=4).cells)
    assert leaks(secret, master) == set(secret), "the guard must see what it guards against"


@pytest.mark.slow
def test_the_students_file_is_the_source_outside_of_the_gaps(build, lab):
    check_same_outside_gaps(build, lab)


@pytest.mark.slow
def test_the_student_notebook_works_alone(build, solved, tmp_path, monkeypatch, capsys):
    """Opened from a badge there is only the notebook: it opens Colab, installs, and writes its own tests."""
    badge, install, tests = nbformat.read(build / "student" / LAB.name, as_version=4).cells[:3]
    repository = student._repository(LAB)
    address = "https://colab.research.google.com/github" + repository["url"].removeprefix(
        "https://github.com"
    )
    assert f"({address}/blob/labs/{LAB.stem}/{LAB.name})" in badge.source
    assert f"minilab@git+{repository['url']}@{repository['branch']}" in install.source
    monkeypatch.chdir(tmp_path)
    exec(install.source, {})  # all is here, so it must not even look for pip

    env = dict(solved)
    exec(tests.source, env)
    assert {file.stem for file in Path("tests").glob("*.py")} == set(POINTS)
    assert Path("tests/q1.py").read_text() == (build / "student/tests/q1.py").read_text().strip() + "\n"
    for question in POINTS:
        result = env["grader"].check(question, global_env=env)
        assert result.passed_all and result.all_public and result.test_cases
    Path("tests/q1.py").write_text("kept")
    exec(tests.source, env)  # while grading, the full tests lie here
    assert Path("tests/q1.py").read_text() == "kept"


def answer(cell: str) -> str:
    """A submission with one cell."""
    return nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]))


@pytest.fixture(scope="session")
def graded(build, tmp_path_factory) -> Path:
    """One folder as a course gets it: solved, the same with other names, untouched, and two that go wrong."""
    inbox, out = tmp_path_factory.mktemp("inbox"), tmp_path_factory.mktemp("graded")
    handout = (build / "student" / LAB.name).read_text(encoding="utf-8")
    nested = inbox / "as an LMS nests them"
    nested.mkdir()
    solved = (build / "instructor" / LAB.name).read_text(encoding="utf-8")
    (nested / "ada.ipynb").write_text(solved, encoding="utf-8")
    renamed = solved.replace("shortfall", "rest").replace("never_proposed", "zero")
    (inbox / "eve.ipynb").write_text(renamed, encoding="utf-8")
    elsewhere = handout.replace('"name": "python3"', '"name": "conda-env-of-mine"')
    assert elsewhere != handout
    (inbox / "untouched.ipynb").write_text(elsewhere, encoding="utf-8")
    (inbox / "crash.ipynb").write_text(answer("import os\nos._exit(1)"))
    (inbox / "truncated.ipynb").write_text(handout[: len(handout) // 2], encoding="utf-8")
    grading.grade(inbox, build / "autograder" / student.AUTOGRADER, out, jobs=2, timeout=300.0)
    return out


@pytest.fixture(scope="session")
def rows(graded) -> dict[str, dict[str, str]]:
    with open(graded / "scores.csv", newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def points_of(row: dict[str, str]) -> dict[str, float]:
    return {question: float(row[question]) for question in POINTS}


@pytest.mark.slow
def test_the_instructors_solutions_earn_full_marks(rows):
    row = rows["as an LMS nests them/ada.ipynb"]
    assert points_of(row) == POINTS and row["error"] == ""
    assert row["total"] == row["possible"] == "28"


@pytest.mark.slow
def test_the_untouched_notebook_earns_nothing(rows):
    """Its cells raise, and its kernel's name exists only on the student's machine: neither is an error."""
    assert points_of(rows["untouched.ipynb"]) == dict.fromkeys(POINTS, 0)
    assert rows["untouched.ipynb"]["error"] == ""


@pytest.mark.slow
@pytest.mark.parametrize(("file", "reason"), [
    ("crash.ipynb", "the process of the notebook has ended"),
    ("truncated.ipynb", "not a readable notebook"),
])  # fmt: skip
def test_a_submission_that_cannot_be_graded_gets_zero_and_the_reason(rows, graded, file, reason):
    assert rows[file]["total"] == "0" and rows[file]["error"].startswith(reason)
    assert reason in (graded / "feedback" / file).with_suffix(".html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_copy_with_other_names_is_alike_and_what_was_handed_out_is_not(rows, graded):
    eve = rows["eve.ipynb"]
    assert (float(eve["alike"]), eve["most like"]) == (1, "as an LMS nests them/ada.ipynb")
    assert rows["untouched.ipynb"]["alike"] == "0.00"
    page = (graded / "similarity.html").read_text(encoding="utf-8")
    assert "100%: as an LMS nests them/ada.ipynb and eve.ipynb" in page
    assert "untouched.ipynb" not in page


@pytest.mark.slow
def test_feedback_explains_visible_tests_and_only_names_hidden_ones(graded, rows, lab):
    assert len(list((graded / "feedback").rglob("*.html"))) == len(rows) == 5
    page = (graded / "feedback" / "untouched.html").read_text(encoding="utf-8")
    assert "<h2>Question 1. What survives the check: 0 of 2</h2>" in page
    assert "test <strong>worked example</strong>: failed (1 point)" in page
    assert "Hint: The ratio is target over draft" in page and "TypeError" in page
    assert "hidden test <strong>zeros and batches</strong>: failed" in page
    hidden = {owner: lines for owner, lines in secrets(lab).items() if owner.startswith("test_")}
    for file in (graded / "feedback").rglob("*.html"):
        assert leaks(hidden, html.unescape(file.read_text(encoding="utf-8"))) == set()


# ------------------------------------------------------------------------------------------- bad input


def test_away_from_a_book_the_student_notebook_has_tests_but_no_badge(tmp_path):
    """Installed from a wheel there is no _config.yml, so no address to point to or to install from."""
    assert student._repository(tmp_path / "lab.ipynb") is None
    cells = [
        nbformat.v4.new_code_cell("# Initialize Otter\nimport otter"),
        nbformat.v4.new_code_cell("x = 1"),
    ]
    (tmp_path / "lab.ipynb").write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells)))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "q1.py").write_text("name = 'q1'\n")
    student._make_self_contained(tmp_path / "lab.ipynb", None)
    first, second = nbformat.read(tmp_path / "lab.ipynb", as_version=4).cells
    assert "'q1.py': r" in first.source and "grader = otter.Notebook()" in first.source
    assert second.source == "x = 1"
    (tmp_path / "_config.yml").write_text("title: a book without an address\n")
    assert student._repository(tmp_path / "lab.ipynb") is None


@pytest.fixture
def tiny_bundle(tmp_path) -> Path:
    """An autograder with one question of two points."""
    raw, code = nbformat.v4.new_raw_cell, nbformat.v4.new_code_cell
    test = '""" # BEGIN TEST CONFIG\npoints: 2\n""" # END TEST CONFIG\ndef test_one(x):\n    assert x == 1'
    cells = [raw("# BEGIN QUESTION\nname: q1"), raw("# BEGIN SOLUTION"), code("x = 1"), raw("# END SOLUTION"),
             raw("# BEGIN TESTS"), code(test), raw("# END TESTS"), raw("# END QUESTION")]
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "tiny.ipynb").write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells)))
    variants.write_autograder(tmp_path / "lab" / "tiny.ipynb", tmp_path / "autograder.zip", None)
    return tmp_path / "autograder.zip"


def test_bad_input_is_named(tmp_path, tiny_bundle):
    pytest.importorskip("otter")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("tests/q1.py", "")
    inbox = tmp_path / "inbox"
    with pytest.raises(FileNotFoundError, match="no submissions at .*inbox"):
        grading.grade(inbox, tiny_bundle, tmp_path / "out")
    inbox.mkdir()
    with pytest.raises(ValueError, match="there is no .ipynb file in it"):
        grading.grade(inbox, tiny_bundle, tmp_path / "out")
    (inbox / "a.ipynb").write_text("{}")
    with pytest.raises(FileNotFoundError, match="no autograder at .*minilab assign"):
        grading.grade(inbox, tmp_path / "none.zip", tmp_path / "out")
    with pytest.raises(ValueError, match="is not a zip file"):
        grading.grade(inbox, inbox / "a.ipynb", tmp_path / "out")
    with pytest.raises(ValueError, match="holds no lab: .*minilab assign"):
        grading.grade(inbox, tmp_path / "other.zip", tmp_path / "out")
    with pytest.raises(ValueError, match="at least one job"):
        grading.grade(inbox, tiny_bundle, tmp_path / "out", jobs=0)
    with pytest.raises(FileNotFoundError, match="no instructor notebook"):
        grading.assign(tmp_path / "none.ipynb", tmp_path / "out")
    (inbox / "plain.ipynb").write_text(answer("x = 1"))
    with pytest.raises(ValueError, match="has no question"):
        grading.assign(inbox / "plain.ipynb", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_otter_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "otter", None)
    with pytest.raises(ModuleNotFoundError, match=r"minilab\[labs\]"):
        grading.assign(LAB, tmp_path)


NO_NOBODY = submissions.jail.closed_to_nobody()


def test_without_walls_grading_is_refused_and_says_what_to_do(tmp_path, tiny_bundle, monkeypatch):
    (tmp_path / "a.ipynb").write_text(answer("x = 1"))
    monkeypatch.setattr(submissions.jail, "possible", lambda: "this is a test")
    with pytest.raises(RuntimeError, match="this is a test.*container.*--no-walls"):
        grading.grade(tmp_path / "a.ipynb", tiny_bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    if NO_NOBODY:
        with pytest.raises(RuntimeError, match="who cannot enter"):
            grading.grade(tmp_path / "a.ipynb", tiny_bundle, tmp_path / "out", walls=False)
    else:
        table = grading.grade(tmp_path / "a.ipynb", tiny_bundle, tmp_path / "out", walls=False)
        assert list(csv.reader(table.open(newline="")))[1][:4] == ["a.ipynb", "2", "2", "2"]


def test_results_are_in_gradescopes_words():
    cases = [{"name": "one", "hidden": False, "points": 1, "passed": False, "hint": "think", "message": "KeyError: 3"},
             {"name": "two", "hidden": True, "points": 2, "passed": True, "hint": "", "message": ""},
             {"name": "three", "hidden": True, "points": 1, "passed": False, "hint": "no", "message": "expected 7"}]
    grade = reports.Grade("a.ipynb", questions=[{"name": "q1", "points": 2, "possible": 4, "cases": cases}])
    results = gradescope.as_results(grade)
    assert results["score"] == 2 and [test["score"] for test in results["tests"]] == [0, 2, 0]
    assert [test["visibility"] for test in results["tests"]] == ["visible", "after_published", "after_published"]
    assert results["tests"][0]["output"] == "think\nKeyError: 3" and "expected 7" not in json.dumps(results)


@pytest.mark.skipif(os.geteuid() != 0 or bool(NO_NOBODY), reason="only root becomes nobody, who must find Python")
def test_gradescope_gets_its_results_and_a_submission_cannot_read_the_tests(tmp_path, tiny_bundle, monkeypatch):
    """Its machines may grant no namespaces: then what a student wrote runs as nobody."""
    monkeypatch.setattr(gradescope.jail, "possible", lambda: "this is a test")
    root = tmp_path / "autograder"
    (root / "submission").mkdir(parents=True)
    with zipfile.ZipFile(tiny_bundle) as bundle:
        bundle.extractall(root / "source")
    looks = f"import glob\nfound = []\nfor file in glob.glob({str(root)!r} + '/**/*', recursive=True):\n    try:\n"
    looks += "        found.append(open(file).read())\n    except OSError: pass\n"
    looks += "x = 1 + any('def ' + 'test_one' in text for text in found)"
    (root / "submission" / "mine.ipynb").write_text(answer(looks))
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder != Path("/"):
            folder.chmod(0o755)
    results = json.loads(gradescope.run(root).read_text())
    assert results["score"] == 2
    assert results["tests"] == [
        {"name": "q1: one", "score": 2, "max_score": 2, "status": "passed", "visibility": "visible"}]
    (root / "submission" / "second.ipynb").write_text(answer("x = 1"))
    results = json.loads(gradescope.run(root).read_text())
    assert results["score"] == 0 and "hand in one notebook; there are 2" in results["output"]


def test_an_interrupted_run_keeps_the_rows_that_are_done(tmp_path, tiny_bundle, monkeypatch):
    for name in "abc":
        (tmp_path / f"{name}.ipynb").write_text(answer("x = 1"))
    (tmp_path / "lab" / "tiny.ipynb").unlink()

    def fake(submission, name, *_):
        if name == Path("b.ipynb"):
            raise KeyboardInterrupt
        return reports.Grade(str(name), questions=[{"name": "q1", "points": 2, "possible": 2, "cases": []}])

    monkeypatch.setattr(submissions, "grade_one", fake)
    with pytest.raises(KeyboardInterrupt):
        grading.grade(tmp_path, tiny_bundle, tmp_path / "out")
    rows = list(csv.reader((tmp_path / "out" / "scores.csv").open(newline="")))
    assert rows[0] == ["file", "total", "possible", "q1", "alike", "most like", "error"]
    assert ["a.ipynb", "2", "2", "2", "0.00", "", ""] in rows and not any(row[0] == "b.ipynb" for row in rows)


@pytest.mark.slow
def test_a_failed_assign_leaves_the_last_build_alone(tmp_path):
    pytest.importorskip("otter")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_raw_cell("# BEGIN QUESTION\nname: q1")])
    notebook.cells.append(nbformat.v4.new_raw_cell("# END TESTS"))
    (tmp_path / "lab.ipynb").write_text(nbformat.writes(notebook))
    (tmp_path / "out" / "lab").mkdir(parents=True)
    (tmp_path / "out" / "lab" / "kept").write_text("before")
    with pytest.raises(RuntimeError, match="otter assign refused lab.ipynb"):
        grading.assign(tmp_path / "lab.ipynb", tmp_path / "out")
    left = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*"))
    assert left == ["lab", "lab/kept"]
