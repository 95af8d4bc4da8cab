"""Lab 2: right answers earn all, plausible wrong ones lose exactly the tests that they should."""

import copy
from pathlib import Path

import pytest
from instructor import (
    cases,
    check_points,
    check_solution_and_stub,
    check_wrong_answer,
    failing_with,
    rejected_less_than_twice,
)

LAB = Path(__file__).resolve().parents[1] / "labs" / "02-diffusion-mpc.ipynb"
POINTS = {"q1": 3, "q2": 4, "q3": 3, "q4": 4, "q5": 5, "q7": 4}


def test_each_question_has_visible_and_hidden_tests_worth_its_points(lab):
    check_points(lab, POINTS)


@pytest.mark.parametrize("question", [pytest.param(q, marks=[pytest.mark.slow] * (q == "q7")) for q in POINTS])
def test_solutions_pass_and_stubs_fail_every_test(lab, solved, question):
    check_solution_and_stub(lab, solved, question)


HAND, SHAPES, REFUSED = "test_a_plan_worked_by_hand", "test_awkward_shapes", "test_rewards_of_a_wrong_shape"
CART, WINNER = "test_the_cart_stops_at_the_right_place", "test_each_robot_has_its_own_winner"
GIVEN, UNRANKED = "test_what_each_function_is_given", "test_what_cannot_be_ranked"
LOOP, DONE, NOISE = "test_a_drive_followed_by_hand", "test_it_records_what_was_done", "test_the_noise"
SITTING, ROBOT = "test_sitting_beats_what_is_not_sitting", "test_the_robot_sits"
BOUNDS, EACH = "test_shapes_bounds_and_fantasies", "test_each_property_counts_by_itself"
UNIFORM, SUBSETS = "test_uniform_scores_have_a_closed_form", "test_all_subsets_one_by_one"
LARGE, ENOUGH, CURVES = "test_large_and_impossible_n", "test_enough_by_hand", "test_curves_of_other_shapes"
UNSEEN, UNTOUCHED = "test_the_error_on_unseen_play_falls", "test_nothing_else_was_touched"
REMEMBERED, FROZEN = "test_the_old_world_is_not_forgotten", "test_frozen_seeded_and_shared"

SCORE = """
    def plan_score(states, actions, reward, discount=1.0, value=None):
        F = actions.shape[-2]
        r = reward(states[..., :-1, :], actions, states[..., 1:, :])
        if r.shape != actions.shape[:-1]:
            raise ValueError(f"{tuple(r.shape)} is not {tuple(actions.shape[:-1])}")
        J = sum(discount**k * r[..., k] for k in range(F))
        if value is not None:
            J = J + discount**F * value(states[..., -1, :])
        return J
    """
PLAN = """
    def plan(state, propose, predict, objective, n):
        if n < 1:
            raise ValueError(f"n = {n}")
        actions = propose(state, n)
        after = predict(state, actions)
        now = state[:, None].repeat(1, n, 1)[:, :, None]
        states = torch.cat([now, after], 2)
        scores = objective(states, actions)
        if tuple(scores.shape) != (len(state), n):
            raise ValueError(f"shape {tuple(scores.shape)}")
        if scores.isnan().any():
            raise ValueError("NaN")
        return torch.stack([a[s.argmax()] for a, s in zip(actions, scores)]), scores
    """
DRIVE = """
    def drive(decide, simulator, steps, generator, every=1, noise=0.0):
        states, actions = [simulator.reset(generator)], []
        for t in range(steps):
            if t % every == 0:
                chosen = decide(states[-1])
            a = chosen[:, t % every]
            a = a + noise * torch.randn(a.shape, generator=generator)
            a = a.clamp(-1, 1)
            actions.append(a)
            states.append(simulator.step(a).state)
        return torch.stack(states, 1), torch.stack(actions, 1)
    """
SIT = """
    def sit(s, a, after):
        off = 10 * (after[..., 0] + 0.25).abs() + after[..., 8].abs() + after[..., 1].abs()
        return 1 / (1 + off + 0.1 * a.square().sum(-1))
    """
BEST_OF = """
    def best_of(scores, n, by=None):
        M = scores.shape[-1]
        if n < 1 or n > M:
            raise ValueError("n")
        order = (scores if by is None else by).argsort(-1)
        x = torch.take_along_dim(scores, order, -1)
        w = [math.comb(i - 1, n - 1) / math.comb(M, n) for i in range(1, M + 1)]
        return (x * torch.tensor(w).to(x)).sum(-1)
    """
ENOUGH_OF = """
    def enough(curve, share=0.9):
        first = curve[min(curve)]
        goal = first + share * (max(curve.values()) - first) - 1e-9
        for n in sorted(curve):
            if curve[n] >= goal:
                return n
    """
REPAIR = """
    def repair(models, old, new, steps=150, lr=1e-3, batch=128, seed=0):
        g = torch.Generator().manual_seed(seed)
        dynamics = copy.deepcopy(models.dynamics)
        dynamics.requires_grad_(True)
        optimizer = torch.optim.Adam(dynamics.parameters(), lr=lr)
        for _ in range(steps):
            a, b = old.draw(batch // 2, g), new.draw(batch // 2, g)
            window = Window(*map(torch.cat, zip(a, b)))
            loss = dynamics.training_loss(window, g)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        dynamics.requires_grad_(False)
        return dataclasses.replace(models, dynamics=dynamics)
    """
FRAMES = [("q1", SCORE), ("q2", PLAN), ("q3", DRIVE), ("q4", SIT), ("q5", BEST_OF), ("q5", ENOUGH_OF),
          ("q7", REPAIR)]  # fmt: skip

STACK = "torch.stack([a[s.argmax()] for a, s in zip(actions, scores)])"
CALLS = "g = torch.Generator().manual_seed(seed)\n"
# What a student might well write: (question, what is wrong, the frame, the change, the tests that must fail).
WRONG_ANSWERS = [
    ("q1", "the state before the action", SCORE, ("states[..., 1:, :])", "states[..., :-1, :])"), {HAND, SHAPES}),
    ("q1", "before and after swapped", SCORE, ("states[..., :-1, :], actions, states[..., 1:, :]",
                                               "states[..., 1:, :], actions, states[..., :-1, :]"), {HAND, SHAPES}),
    ("q1", "the first step is discounted", SCORE, ("discount**k", "discount ** (k + 1)"), {HAND, SHAPES}),
    ("q1", "no discount", SCORE, ("discount**k * r", "r"), {HAND, SHAPES}),
    ("q1", "mean over time", SCORE, ("for k in range(F))", "for k in range(F)) / F"), {HAND, SHAPES}),
    ("q1", "value of the present state", SCORE, ("value(states[..., -1, :])", "value(states[..., 0, :])"),
     {HAND, SHAPES}),
    ("q1", "value not discounted", SCORE, ("discount**F * value", "value"), {HAND, SHAPES}),
    ("q1", "value one step early", SCORE, ("discount**F", "discount ** (F - 1)"), {HAND, SHAPES}),
    ("q1", "value forgotten", SCORE, ("value is not None", "False"), {HAND, SHAPES}),
    ("q1", "time is the second dimension", SCORE, ("states[..., :-1, :], actions, states[..., 1:, :]",
                                                   "states[:, :-1], actions, states[:, 1:]"), {HAND, SHAPES}),
    ("q1", "any shape will do", SCORE, ("r.shape != actions.shape[:-1]", "False"), {REFUSED}),
    ("q1", "only the number of steps is checked", SCORE, ("r.shape != actions.shape[:-1]", "r.shape[-1:] != (F,)"),
     {REFUSED}),
    ("q1", "a message that says nothing", SCORE, ('f"{tuple(r.shape)} is not {tuple(actions.shape[:-1])}"', '"bad"'),
     {REFUSED}),
    ("q2", "ranked over robots", PLAN, (STACK, "actions[torch.arange(len(state)), scores.argmax(0)[: len(state)]]"),
     {CART, WINNER, GIVEN}),
    ("q2", "one winner for all robots", PLAN,
     (STACK, "actions.flatten(0, 1)[scores.argmax()].repeat(len(state), 1, 1)"), {WINNER, GIVEN}),
    ("q2", "robot 0's winner for all", PLAN, (STACK, "actions[:, scores[0].argmax()]"), {WINNER, GIVEN}),
    ("q2", "the mean of the plans", PLAN, (STACK, "actions.mean(1)"), {CART, WINNER, GIVEN}),
    ("q2", "weighted by the scores", PLAN, (STACK, "(scores.softmax(1)[..., None, None] * actions).sum(1)"),
     {CART, WINNER, GIVEN}),
    ("q2", "the worst plan", PLAN, ("s.argmax()", "s.argmin()"), {CART, WINNER, GIVEN}),
    ("q2", "the first plan", PLAN, ("s.argmax()", "0"), {CART, WINNER, GIVEN}),
    ("q2", "the present state is left out", PLAN, ("torch.cat([now, after], 2)", "after"), {GIVEN}),
    ("q2", "the last state is left out", PLAN, ("[now, after]", "[now, after[:, :, :-1]]"), {GIVEN}),
    ("q2", "present state of another robot", PLAN, ("state[:, None].repeat(1, n, 1)",
                                                    "state.repeat(n, 1).view(len(state), n, -1)"), {GIVEN}),
    ("q2", "one call a plan", PLAN, ("predict(state, actions)",
                                     "torch.cat([predict(state, actions[:, [i]]) for i in range(n)], 1)[:, :n]"),
     {GIVEN}),
    ("q2", "one action in place of a plan", PLAN, (STACK, STACK + "[:, 0]"), {CART, WINNER, GIVEN, UNRANKED}),
    ("q2", "a NaN wins", PLAN, ("scores.isnan().any()", "False"), {UNRANKED}),
    ("q2", "only all NaN is refused", PLAN, ("isnan().any()", "isnan().all()"), {UNRANKED}),
    ("q2", "minus infinity is refused too", PLAN, ("scores.isnan().any()", "not scores.isfinite().all()"), {UNRANKED}),
    ("q2", "any shape of scores", PLAN, ("tuple(scores.shape) != (len(state), n)", "False"), {UNRANKED}),
    ("q2", "n not checked", PLAN, ("n < 1", "False"), {UNRANKED}),
    ("q3", "open loop from the first plan", DRIVE, ("t % every == 0", "t == 0"), {LOOP}),
    ("q3", "a new plan at every step", DRIVE, ("t % every == 0", "True"), {LOOP}),
    ("q3", "always the first action", DRIVE, ("chosen[:, t % every]", "chosen[:, 0]"), {LOOP, DONE}),
    ("q3", "the last action of the plan", DRIVE, ("chosen[:, t % every]", "chosen[:, -1]"), {LOOP, DONE}),
    ("q3", "decides from the first state", DRIVE, ("decide(states[-1])", "decide(states[0])"), {LOOP}),
    ("q3", "the first state is lost", DRIVE, ("torch.stack(states, 1)", "torch.stack(states[1:], 1)"), {LOOP, DONE}),
    ("q3", "records what was asked for", DRIVE, ("a = a.clamp(-1, 1)\n            actions.append(a)",
                                                 "actions.append(a)"), {DONE}),
    ("q3", "records before the noise", DRIVE, (
        "            a = a + noise * torch.randn(a.shape, generator=generator)\n"
        "            a = a.clamp(-1, 1)\n            actions.append(a)\n",
        "            actions.append(a.clamp(-1, 1))\n"
        "            a = (a + noise * torch.randn(a.shape, generator=generator)).clamp(-1, 1)\n"), {DONE, NOISE}),
    ("q3", "noise is ignored", DRIVE, ("noise * ", "0 * "), {NOISE}),
    ("q3", "one noise for all robots", DRIVE, ("torch.randn(a.shape,", "torch.randn(1, a.shape[1],"), {NOISE}),
    ("q3", "one noise for all motors", DRIVE, ("torch.randn(a.shape,", "torch.randn(len(a), 1,"), {NOISE}),
    ("q3", "uniform noise", DRIVE, ("torch.randn(", "torch.rand("), {NOISE}),
    ("q3", "noise from nowhere", DRIVE, ("torch.randn(a.shape, generator=generator)", "torch.randn(a.shape)"), {NOISE}),
    ("q4", "the state before", SIT, ("after):\n", "after):\n        after = s\n"), {EACH}),
    ("q4", "low is all that counts", SIT, ("+ after[..., 8].abs() + after[..., 1].abs()", ""), {SITTING, EACH}),
    ("q4", "pitch is forgotten", SIT, (" + after[..., 1].abs()", ""), {SITTING, EACH}),
    ("q4", "speed is forgotten", SIT, (" + after[..., 8].abs()", ""), {SITTING, EACH}),
    ("q4", "effort is forgotten", SIT, ("0.1 *", "0.0 *"), {SITTING, EACH}),
    ("q4", "height is forgotten", SIT, ("10 *", "0 *"), {SITTING, ROBOT, EACH}),
    ("q4", "the lower the better", SIT, ("(after[..., 0] + 0.25).abs()", "(after[..., 0] + 0.5).clamp(min=0)"),
     {SITTING, EACH}),
    ("q4", "the wrong way up", SIT, ("(after[..., 0] + 0.25)", "(after[..., 0] - 0.25)"), {SITTING, ROBOT, EACH}),
    ("q4", "backward is fine", SIT, ("after[..., 8].abs()", "after[..., 8].clamp(min=0)"), {SITTING, EACH}),
    ("q4", "braking pays", SIT, ("after[..., 8].abs()", "after[..., 8]"), {BOUNDS, EACH}),
    ("q4", "a penalty without a floor", SIT, ("1 / (1 + off + 0.1 * a.square().sum(-1))",
                                              "1 - off - 0.1 * a.square().sum(-1)"), {BOUNDS}),
    ("q4", "sums over time", SIT, ("return 1 / (1 + off + 0.1 * a.square().sum(-1))",
                                   "return (1 / (1 + off + 0.1 * a.square().sum(-1))).sum()"), {ROBOT, BOUNDS}),
    ("q4", "first index, not last", SIT, ("(after[..., 0]", "(after[0]"), {SITTING, ROBOT, BOUNDS}),
    ("q4", "a needle", SIT, ("1 / (1 + off + 0.1", "torch.exp(-20 * off.square() - 0.01"), {EACH}),
    ("q5", "with replacement", BEST_OF,
     ("math.comb(i - 1, n - 1) / math.comb(M, n)", "(i / M) ** n - ((i - 1) / M) ** n"), {UNIFORM, SUBSETS, LARGE}),
    ("q5", "one too many below", BEST_OF, ("math.comb(i - 1, n - 1)", "math.comb(i, n - 1)"),
     {UNIFORM, SUBSETS, LARGE}),
    ("q5", "sorted downward", BEST_OF, (".argsort(-1)", ".argsort(-1, descending=True)"), {UNIFORM, SUBSETS, LARGE}),
    ("q5", "the first n", BEST_OF, ("(x * torch.tensor(w).to(x)).sum(-1)", "scores[..., :n].amax(-1)"),
     {UNIFORM, SUBSETS, LARGE}),
    ("q5", "the mean of the n best", BEST_OF, ("(x * torch.tensor(w).to(x)).sum(-1)", "x[..., M - n :].mean(-1)"),
     {UNIFORM, SUBSETS, LARGE}),
    ("q5", "`by` is ignored", BEST_OF, ("(scores if by is None else by)", "scores"), {SUBSETS}),
    ("q5", "the winner's `by` counts", BEST_OF, ("torch.take_along_dim(scores,",
                                                 "torch.take_along_dim(scores if by is None else by,"), {SUBSETS}),
    ("q5", "all robots in one sum", BEST_OF, (".sum(-1)", ".sum()"), {SUBSETS}),
    ("q5", "n not checked", BEST_OF, ("n < 1 or n > M", "False"), {LARGE}),
    ("q5", "binomials as floats", BEST_OF, ("math.comb(i - 1, n - 1) / math.comb(M, n)",
                                            "float(math.comb(i - 1, n - 1)) / float(math.comb(M, n))"), {LARGE}),
    ("q5", "a share of the best, not of the gain", ENOUGH_OF, ("first + share * (max(curve.values()) - first)",
                                                               "share * max(curve.values())"), {ENOUGH, CURVES}),
    ("q5", "the gain to the last N", ENOUGH_OF, ("max(curve.values())", "curve[max(curve)]"), {CURVES}),
    ("q5", "more than the share", ENOUGH_OF, (" - 1e-9", " + 1e-9"), {ENOUGH, CURVES}),
    ("q5", "in the order given", ENOUGH_OF, ("sorted(curve)", "curve"), {CURVES}),
    ("q5", "begins at N = 1", ENOUGH_OF, ("curve[min(curve)]", "curve[1]"), {CURVES}),
    ("q5", "the score, not the N", ENOUGH_OF, ("return n", "return curve[n]"), {ENOUGH, CURVES}),
    ("q7", "taught in place", REPAIR, ("copy.deepcopy(models.dynamics)", "models.dynamics"),
     {UNSEEN, UNTOUCHED, FROZEN}),
    ("q7", "a shallow copy", REPAIR, ("copy.deepcopy(", "copy.copy("), {UNSEEN, UNTOUCHED, FROZEN}),
    ("q7", "not thawed", REPAIR, ("dynamics.requires_grad_(True)", "dynamics.requires_grad_(False)"),
     {UNSEEN, UNTOUCHED, REMEMBERED, FROZEN}),
    ("q7", "left thawed", REPAIR, ("dynamics.requires_grad_(False)", "pass"), {FROZEN}),
    ("q7", "new play alone", REPAIR, ("old.draw(batch // 2, g)", "new.draw(batch // 2, g)"), {REMEMBERED, FROZEN}),
    ("q7", "old data alone", REPAIR, ("new.draw(batch // 2, g)", "old.draw(batch // 2, g)"), {UNSEEN, FROZEN}),
    ("q7", "a whole batch of each", REPAIR, ("new.draw(batch // 2, g)", "new.draw(batch, g)"), {FROZEN}),
    ("q7", "the old models come back", REPAIR, ("dataclasses.replace(models, dynamics=dynamics)", "models"),
     {UNSEEN, UNTOUCHED, FROZEN}),
    ("q7", "everything is copied", REPAIR, ("replace(models, dynamics", "replace(copy.deepcopy(models), dynamics"),
     {FROZEN}),
    ("q7", "the seed is ignored", REPAIR, (CALLS, "g = torch.Generator().manual_seed(0)\n"), {FROZEN}),
    ("q7", "unseeded noise of the diffusion", REPAIR, ("training_loss(window, g)", "training_loss(window, None)"),
     {FROZEN}),
    ("q7", "never steps", REPAIR, ("optimizer.step()", "pass"), {UNSEEN, UNTOUCHED, FROZEN}),
]  # fmt: skip


@pytest.mark.parametrize("wrong", cases(WRONG_ANSWERS, slow="q7"))
def test_a_wrong_answer_loses_exactly_the_marks_it_should(lab, solved, wrong):
    own = solved | {"models": copy.deepcopy(solved["models"])}  # some wrong answers spoil what they are given
    check_wrong_answer(lab, own, wrong)


@pytest.mark.parametrize(("question", "frame"), [
    pytest.param(q, frame, marks=[pytest.mark.slow] * (q == "q7")) for q, frame in FRAMES])  # fmt: skip
def test_the_frames_of_wrong_answers_are_right_without_their_change(lab, solved, question, frame):
    assert failing_with(lab, solved, question, frame) == set()


def test_each_hidden_test_rejects_two_wrong_answers(lab):
    assert rejected_less_than_twice(lab, WRONG_ANSWERS) == []
