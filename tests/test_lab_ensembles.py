"""Lab 5: right answers earn all, plausible wrong ones lose exactly the tests that they should."""

from pathlib import Path

import pytest
import torch
from instructor import (
    cases,
    check_points,
    check_solution_and_stub,
    check_wrong_answer,
    failing_with,
    rejected_less_than_twice,
)

LAB = Path(__file__).resolve().parents[1] / "labs" / "05-infinite-compute.ipynb"
POINTS = {"q1": 4, "q2": 5, "q3": 5, "q4": 3, "q5": 4, "q7": 4, "q8": 3}


def test_each_question_has_visible_and_hidden_tests_worth_its_points(lab):
    check_points(lab, POINTS)


@pytest.mark.parametrize("question", [pytest.param(q, marks=[pytest.mark.slow] * (q == "q8")) for q in POINTS])
def test_solutions_pass_and_stubs_fail_every_test(lab, solved, question):
    check_solution_and_stub(lab, solved, question)


SCALES, SHARES = "test_scales_by_hand", "test_shares_by_hand"
BACK, ADAMW = "test_there_and_back", "test_a_real_optimizer"
BOWLS, MONEY, CORNERS = "test_bowls", "test_the_money_runs_out", "test_edges_and_corners"
CERTIFICATES, DIVERGED = "test_every_certificate", "test_diverged_and_off_the_grid"
TWO, CURVES, PLAIN = "test_two_members_by_hand", "test_curves_by_hand", "test_against_plain_numbers"
NEVER, TAILS = "test_never_worse_than_the_mean", "test_far_tails"
PREDICTED, LAWS, FEWEST = "test_predictions_by_hand", "test_laws_that_hold", "test_the_fewest_members"
SQUARES, INTERVALS = "test_squares_by_hand", "test_intervals_by_hand"
TRUE, PACKAGE = "test_true_laws_and_none", "test_against_the_package"
RUNS, COPY, SEARCH, MANY = ("test_runs_by_hand", "test_a_copy_cut_elsewhere", "test_against_a_plain_search",
                            "test_many_windows_and_no_run")  # fmt: skip
BEATS, HOLDS, GOOD = "test_the_entry_beats_the_baseline", "test_it_holds_on_other_text", "test_it_is_good"
EVERY_TUNING = {BOWLS, MONEY, CORNERS, CERTIFICATES, DIVERGED}
EVERY_LOSS, EVERY_PROFILE = {TWO, PLAIN, TAILS}, {SQUARES, TRUE, PACKAGE}
EVERY_OVERLAP, EVERY_ENTRY = {RUNS, COPY, SEARCH, MANY}, {BEATS, HOLDS, GOOD}

SCALE = """
    def time_scale(lr, decay, steps):
        rate = lr * decay
        if rate == 0:
            return float("inf")
        return 1 / rate / steps
    """
DECAY = """
    def decay_for(epochs, lr, steps):
        if min(epochs, lr, steps) <= 0:
            raise ValueError(f"{epochs}, {lr}, {steps}: give positive numbers")
        rate = 1 / (epochs * steps)
        if rate >= 1:
            raise ValueError(f"{epochs} epochs of {steps} steps are no more than one step")
        return rate / lr
    """
REMEMBERED = """
    def remembered(lrs, decay):
        shrinks = 1 - decay * torch.tensor(lrs, dtype=torch.float64)
        return torch.tensor([float(shrinks[t:].prod()) for t in range(len(lrs) + 1)])
    """
BACKWARD = """
    def remembered(lrs, decay):
        shrinks = torch.tensor([1.0] + [1 - lr * decay for lr in lrs[::-1]], dtype=torch.float64)
        return shrinks.cumprod(0).flip(0)
    """
TUNE = """
    def tune(loss_of, epochs, decays, start, budget):
        if budget < 1:
            raise ValueError("no budget")
        i, j = epochs.index(start[0]), decays.index(start[1])
        known = {}

        def run(a, b):
            if (a, b) not in known and len(known) < budget:
                loss = loss_of(epochs[a], decays[b])
                known[a, b] = loss if loss == loss else float("inf")

        def around(a, b):
            steps = [(a + 1, b), (a - 1, b), (a, b + 1), (a, b - 1)]
            return [(x, y) for x, y in steps if x in range(len(epochs)) and y in range(len(decays))]

        run(i, j)
        while True:
            for a, b in around(i, j):
                run(a, b)
            best = min(known, key=known.get)
            if known[best] >= known[i, j]:
                break
            i, j = best
        complete = all(place in known for place in around(i, j))
        return (epochs[i], decays[j]), complete and known[i, j] < float("inf")
    """
GREEDY = """
    def tune(loss_of, epochs, decays, start, budget):
        if start[0] not in epochs or start[1] not in decays or budget < 1:
            raise ValueError(f"{start}, {budget}")
        known, best = {}, start
        lost = lambda x: (x != x, x)

        def try_(e, d):
            nonlocal best
            if (e, d) not in known:
                if len(known) == budget:
                    return False
                known[e, d] = loss_of(e, d)
                if lost(known[e, d]) < lost(known[best]):
                    best = e, d
            return True

        try_(*start)
        while True:
            here, i, j = best, epochs.index(best[0]), decays.index(best[1])
            near = [(e, best[1]) for e in epochs[max(i - 1, 0) : i + 2]]
            near += [(best[0], d) for d in decays[max(j - 1, 0) : j + 2]]
            if not all([try_(*place) for place in near]):
                return best, False
            if best == here:
                return best, known[best] == known[best]
    """
SINGLE = """
    def ensemble_loss(logp, targets, chosen, average):
        if len(chosen) == 0 or average not in ("logits", "probabilities"):
            raise ValueError(f"{chosen}, {average}")
        part = logp[list(chosen)]
        if average == "logits":
            together = part.mean(0).log_softmax(-1)
        else:
            together = part.logsumexp(0) - torch.log(torch.tensor(len(chosen)))
        return torch.tensor([-float(row[y]) for row, y in zip(together, targets)]).mean()
    """
SINGLE_CURVE = """
    def k_curve(logp, targets, average):
        of = lambda chosen: ensemble_loss(logp, targets, chosen, average)
        sizes = range(1, len(logp) + 1)
        return [torch.tensor([of(c) for c in combinations(range(len(logp)), k)]).mean().item() for k in sizes]
    """
LOSS = """
    def ensemble_loss(logp, targets, chosen, average):
        chosen = list(chosen)
        if not chosen:
            raise ValueError("nobody")
        rows = torch.arange(len(targets))
        if average == "logits":
            mean = sum(logp[k] for k in chosen) / len(chosen)
            losses = mean.logsumexp(1) - mean[rows, targets]
        elif average == "probabilities":
            right = torch.stack([logp[k][rows, targets] for k in chosen])
            losses = math.log(len(chosen)) - right.logsumexp(0)
        else:
            raise ValueError(average)
        return losses.mean().item()
    """
CURVE = """
    def k_curve(logp, targets, average):
        K, sums = len(logp), {}
        for bits in range(1, 2 ** len(logp)):
            chosen = [k for k in range(K) if bits >> k & 1]
            sums.setdefault(len(chosen), []).append(ensemble_loss(logp, targets, chosen, average))
        return [sum(sums[k]) / len(sums[k]) for k in sorted(sums)]
    """
PREDICT = """
    def predicted(one, two, K):
        c = 2 * (one - two)
        if c < 0 or K < 1:
            raise ValueError(f"{one}, {two}, {K}")
        return one - c + c / K
    """
MEMBERS = """
    def members_for(loss, one, two):
        if loss >= one:
            return 1
        c = 2 * (one - two)
        if loss <= one - c:
            return math.inf
        K = max(1, math.floor(c / (loss - one + c)))
        while one - c + c / K > loss:
            K += 1
        return K
    """
PROFILE = """
    def profile(x, losses, asymptotes, alphas):
        best = torch.full_like(asymptotes, math.inf)
        for alpha in alphas:
            z, above = x ** -alpha, losses - asymptotes[:, None]
            A = torch.relu(above @ z / (z @ z))
            best = torch.minimum(best, ((above - A[:, None] * z) ** 2).sum(1))
        return best
    """
PYTHAGORAS = """
    def profile(x, losses, asymptotes, alphas):
        z = x[:, None] ** -alphas
        z = z / z.norm(dim=0)
        above = losses[None] - asymptotes[:, None]
        along = (above @ z).clamp(min=0).amax(1)
        return above.square().sum(1) - along**2
    """
INTERVAL = """
    def interval(asymptotes, squares, noise):
        limit = min(squares) + (1.96 * noise) ** 2
        inside = [float(E) for E, s in zip(asymptotes, squares) if s <= limit]
        return inside[0], inside[-1], bool(squares[0] <= limit or squares[-1] <= limit)
    """
OVERLAP = """
    def overlap(train, valid, n):
        if not 1 <= n <= train.shape[1] or n > valid.shape[1] or not len(train) or not len(valid):
            raise ValueError(f"runs of {n}")
        seen = set()
        for page in train.tolist():
            for i in range(len(page) - n + 1):
                seen.add(tuple(page[i : i + n]))
        shares = []
        for page in valid.tolist():
            hits = [tuple(page[i : i + n]) in seen for i in range(len(page) - n + 1)]
            shares.append(sum(hits) / len(hits))
        return shares
    """
UNFOLD = """
    def overlap(train, valid, n):
        if n < 1 or n > train.shape[1] or n > valid.shape[1] or min(len(train), len(valid)) < 1:
            raise ValueError("no run")
        seen = set(map(tuple, train.unfold(1, n, 1).flatten(0, 1).tolist()))
        cut = valid.unfold(1, n, 1)
        hits = torch.tensor([tuple(run) in seen for run in cut.flatten(0, 1).tolist()])
        return hits.view(cut.shape[:2]).double().mean(1)
    """
ENTRY = """
    entry = {"members": 3, "dim": 20, "weight_decay": 0.8}
    """
# As good as the solutions, and written in another way.
RIGHT_ANSWERS = [
    ("q1", "a rate first", SCALE),
    ("q1", "what a step takes away", DECAY),
    ("q1", "products of the rest", REMEMBERED),
    ("q1", "a running product", BACKWARD),
    ("q2", "from the best of all", TUNE),
    ("q2", "by values in place of numbers", GREEDY),
    ("q3", "member by member", LOSS),
    ("q3", "subsets as bits", CURVE),
    ("q3", "in float32", SINGLE),
    ("q3", "means in float32", SINGLE_CURVE),
    ("q4", "c first", PREDICT),
    ("q4", "one more at a time", MEMBERS),
    ("q5", "exponent by exponent", PROFILE),
    ("q5", "by Pythagoras", PYTHAGORAS),
    ("q5", "a list of what is allowed", INTERVAL),
    ("q7", "page by page", OVERLAP),
    ("q7", "unfolded", UNFOLD),
    ("q8", "three wider members", ENTRY),
]  # fmt: skip

# What a student might well write: (question, what is wrong, the frame, the change, the tests that must fail).
WRONG_ANSWERS = [
    ("q1", "in steps", SCALE, ("1 / rate / steps", "1 / rate"), {SCALES, BACK}),
    ("q1", "the inverse", SCALE, ("1 / rate / steps", "rate * steps"), {SCALES, BACK}),
    ("q1", "no decay is an error", SCALE, ("if rate == 0", "if False"), {SCALES}),
    ("q1", "the decay alone", SCALE, ("lr * decay", "decay"), {SCALES, BACK}),
    ("q1", "the learning rate is forgotten", DECAY, ("rate / lr", "rate"), {BACK}),
    ("q1", "times the learning rate", DECAY, ("rate / lr", "rate * lr"), {BACK}),
    ("q1", "zero epochs pass", DECAY, ("min(epochs, lr, steps) <= 0", "epochs * steps == 0"), {BACK}),
    ("q1", "weights turn round", DECAY, ("rate >= 1", "False"), {BACK}),
    ("q1", "shrunk by its own step", REMEMBERED, ("shrinks[t:]", "shrinks[max(t - 1, 0):]"), {SHARES, ADAMW}),
    ("q1", "shrunk by the steps before", REMEMBERED, ("shrinks[t:]", "shrinks[:t]"), {SHARES, ADAMW}),
    ("q1", "the initial weights are left out", REMEMBERED, ("range(len(lrs) + 1)", "range(1, len(lrs) + 1)"),
     {SHARES, ADAMW}),
    ("q1", "decay without the learning rate", REMEMBERED, ("decay * torch.tensor(lrs, dtype=torch.float64)",
     "decay * torch.ones(len(lrs))"), {SHARES, ADAMW}),
    ("q1", "to first order", REMEMBERED, ("float(shrinks[t:].prod())", "1 - decay * sum(lrs[t:])"), {SHARES, ADAMW}),
    ("q2", "the whole grid", TUNE, ("run(i, j)\n        while",
     "for a in range(len(epochs)):\n            for b in range(len(decays)):\n                run(a, b)\n"
     "        while"), {BOWLS, CERTIFICATES}),
    ("q2", "a place is run again", TUNE, ("if (a, b) not in known and len(known) < budget", "if True"),
     EVERY_TUNING - {DIVERGED}),
    ("q2", "one run too many", TUNE, ("len(known) < budget", "len(known) <= budget"), {MONEY, CERTIFICATES}),
    ("q2", "always certified", TUNE, ("complete and known[i, j] < float(\"inf\")", "True"),
     {MONEY, CERTIFICATES, DIVERGED}),
    ("q2", "never certified", TUNE, ("complete and known[i, j] < float(\"inf\")", "False"),
     EVERY_TUNING - {MONEY}),
    ("q2", "where all diverged it is certified", TUNE, (" and known[i, j] < float(\"inf\")", ""), {DIVERGED}),
    ("q2", "an edge is not certified", TUNE, ("complete = all(place in known for place in around(i, j))",
     "complete = len(around(i, j)) == 4 and all(place in known for place in around(i, j))"), {CORNERS, CERTIFICATES}),
    ("q2", "epochs alone", TUNE, ("steps = [(a + 1, b), (a - 1, b), (a, b + 1), (a, b - 1)]",
     "steps = [(a + 1, b), (a - 1, b)]"), EVERY_TUNING),
    ("q2", "upward alone", TUNE, (", (a - 1, b), (a, b + 1), (a, b - 1)]", ", (a, b + 1)]"),
     EVERY_TUNING - {DIVERGED}),
    ("q2", "round the edge", TUNE, ("if x in range(len(epochs)) and y in range(len(decays))",
     "if x < len(epochs) and y < len(decays)"), {CORNERS, CERTIFICATES, DIVERGED}),
    ("q2", "NaN as it is", GREEDY, ("(x != x, x)", "x"), {DIVERGED}),
    ("q2", "the first place", TUNE, ("i, j = best", "break"), EVERY_TUNING),
    ("q2", "where it stands, not the best", TUNE, ("known[best] >= known[i, j]", "known[best] >= known[i, j] or "
     "len(known) == budget"), {MONEY, CERTIFICATES}),
    ("q2", "equal is lower", TUNE, ("complete = all(place in known for place in around(i, j))",
     "complete = all(known.get(place, 0) > known[i, j] for place in around(i, j))"), {CORNERS}),
    ("q2", "any budget", GREEDY, (" or budget < 1", ""), {DIVERGED}),
    ("q2", "off the grid is the nearest place", GREEDY, ("if start[0] not in epochs or start[1] not in decays or",
     "start = min(epochs, key=lambda e: abs(e - start[0])), min(decays, key=lambda d: abs(d - start[1]))\n"
     "        if"), {DIVERGED}),
    ("q3", "not normalized", LOSS, ("mean.logsumexp(1) - mean", "-mean"), EVERY_LOSS | {CURVES, NEVER}),
    ("q3", "a mean of losses", LOSS, ("right.logsumexp(0)", "right.mean(0) + math.log(len(chosen))"),
     EVERY_LOSS | {CURVES, NEVER}),
    ("q3", "all members", LOSS, ("chosen = list(chosen)", "chosen = list(range(len(logp) if len(chosen) else 0))"),
     EVERY_LOSS | {CURVES, NEVER}),
    ("q3", "probabilities that underflow", LOSS, ("right.logsumexp(0)", "right.exp().sum(0).log()"), {TAILS}),
    ("q3", "clamped probabilities", LOSS, ("right.logsumexp(0)", "right.exp().sum(0).clamp(min=1e-30).log()"), {TAILS}),
    ("q3", "the sum of probabilities", LOSS, ("math.log(len(chosen)) - right", "-right"), EVERY_LOSS | {CURVES, NEVER}),
    ("q3", "the averages are swapped", LOSS, ("average == \"logits\"", "average != \"logits\""),
     EVERY_LOSS | {CURVES, NEVER}),
    ("q3", "any other average", LOSS, ("raise ValueError(average)", "return 0.0"), {TAILS}),
    ("q3", "nobody is an ensemble", LOSS, ("if not chosen", "if False"), {TAILS}),
    ("q3", "a sum over tokens", LOSS, ("losses.mean()", "losses.sum()"), {TWO, PLAIN}),
    ("q3", "bits", LOSS, ("losses.mean()", "losses.mean() / math.log(2)"), EVERY_LOSS | {CURVES, NEVER}),
    ("q3", "the first k", CURVE, ("for bits in range(1, 2 ** len(logp))",
     "for bits in [2**k - 1 for k in range(1, K + 1)]"), {CURVES, NEVER}),
    ("q3", "neighbors only", CURVE, ("chosen = [k for k in range(K) if bits >> k & 1]",
     "chosen = [k for k in range(K) if bits >> k & 1]\n            if chosen[-1] - chosen[0] >= len(chosen): continue"),
     {CURVES, NEVER}),
    ("q3", "the best subset", CURVE, ("sum(sums[k]) / len(sums[k])", "min(sums[k])"), {CURVES, NEVER}),
    ("q3", "from two on", CURVE, ("sorted(sums)", "sorted(sums)[1:]"), {CURVES, NEVER}),
    ("q4", "the limit for any K", PREDICT, ("one - c + c / K", "one - c"), {PREDICTED, LAWS}),
    ("q4", "the gain once", PREDICT, ("2 * (one - two)", "one - two"), {PREDICTED, LAWS, FEWEST}),
    ("q4", "halved for each member", PREDICT, ("c / K", "c / 2 ** (K - 1)"), {PREDICTED, LAWS}),
    ("q4", "like a standard deviation", PREDICT, ("c / K", "c / math.sqrt(K)"), {PREDICTED, LAWS}),
    ("q4", "a line", PREDICT, ("one - c + c / K", "one - (K - 1) * (one - two)"),
     {PREDICTED, LAWS, FEWEST}),
    ("q4", "two are worse", PREDICT, ("c < 0 or", ""), {LAWS}),
    ("q4", "no member", PREDICT, ("or K < 1", ""), {LAWS}),
    ("q4", "one too few", MEMBERS, ("return K", "return max(1, K - 1)"), {FEWEST}),
    ("q4", "rounded down", MEMBERS, ("K += 1", "break"), {FEWEST}),
    ("q4", "below, not at most", MEMBERS, ("c / K > loss", "c / K >= loss"), {FEWEST}),
    ("q4", "out of reach is an error", MEMBERS, ("return math.inf", "raise ValueError(loss)"), {FEWEST}),
    ("q4", "a float", MEMBERS, ("return K", "return float(K)"), {FEWEST}),
    ("q5", "A may be negative", PROFILE, ("torch.relu(above @ z / (z @ z))", "above @ z / (z @ z)"), {SQUARES, TRUE}),
    ("q5", "the first exponent", PROFILE, ("for alpha in alphas", "for alpha in alphas[:1]"), EVERY_PROFILE),
    ("q5", "a power that grows", PROFILE, ("x ** -alpha", "x ** alpha"), EVERY_PROFILE),
    ("q5", "means, not sums", PROFILE, ("** 2).sum(1)", "** 2).mean(1)"), EVERY_PROFILE),
    ("q5", "absolute values", PROFILE, ("((above - A[:, None] * z) ** 2)", "(above - A[:, None] * z).abs()"),
     EVERY_PROFILE),
    ("q5", "A = 1", PROFILE, ("torch.relu(above @ z / (z @ z))", "torch.ones_like(asymptotes)"), EVERY_PROFILE),
    ("q5", "the worst exponent", PROFILE, ("torch.minimum(best, ", "torch.maximum(best.nan_to_num(posinf=0.0), "),
     EVERY_PROFILE),
    ("q5", "one sigma", INTERVAL, ("1.96 * noise", "noise"), {INTERVALS, PACKAGE}),
    ("q5", "not squared", INTERVAL, ("(1.96 * noise) ** 2", "1.96 * noise"), {INTERVALS, PACKAGE}),
    ("q5", "from zero", INTERVAL, ("min(squares) + ", ""), {INTERVALS, PACKAGE}),
    ("q5", "never open", INTERVAL, ("bool(squares[0] <= limit or squares[-1] <= limit)", "False"), {INTERVALS}),
    ("q5", "open only where both are", INTERVAL, ("or squares[-1]", "and squares[-1]"), {INTERVALS}),
    ("q7", "whole windows", OVERLAP, ("sum(hits) / len(hits)", "float(page in train.tolist())"), EVERY_OVERLAP),
    ("q7", "every n-th run", OVERLAP, ("for i in range(len(page) - n + 1):",
     "for i in range(0, len(page) - n + 1, n):"), EVERY_OVERLAP),
    ("q7", "the last run is missed", OVERLAP, ("for i in range(len(page) - n + 1)]", "for i in range(len(page) - n)]"),
     EVERY_OVERLAP),
    ("q7", "any run", OVERLAP, ("sum(hits) / len(hits)", "float(any(hits))"), EVERY_OVERLAP),
    ("q7", "kinds of runs", UNFOLD, ("hits = torch", "return [len({tuple(r) for r in page.tolist()} & seen) / "
     "len({tuple(r) for r in page.tolist()}) for page in cut]\n        hits = torch"), {SEARCH}),
    ("q7", "tokens in any order", OVERLAP, ("seen = set()", "tuple = frozenset\n        seen = set()"), {RUNS, SEARCH}),
    ("q7", "over the windows' edges", OVERLAP, ("for page in train.tolist()", "for page in [train.flatten().tolist()]"),
     {RUNS, COPY, SEARCH}),
    ("q7", "one share for all", OVERLAP, ("return shares", "return [sum(shares) / len(shares)]"),
     EVERY_OVERLAP - {COPY}),
    ("q7", "any n", OVERLAP, ("not 1 <= n <= train.shape[1] or n > valid.shape[1] or not len(train)", "not len(train)"),
     {MANY}),
    ("q7", "no window to learn from", OVERLAP, ("or not len(train)", ""), {MANY}),
    ("q7", "no window to judge", OVERLAP, ("or not len(valid)", ""), {MANY}),
]  # fmt: skip
# The same for the competition, where the course trains what the answer says.
WRONG_ENTRIES = [
    ("q8", "the baseline", ENTRY, ("\"members\": 3, \"dim\": 20, \"weight_decay\": 0.8", ""), EVERY_ENTRY),
    ("q8", "one model, tuned", ENTRY, ("\"members\": 3, \"dim\": 20, \"weight_decay\": 0.8",
     "\"epochs\": 16, \"weight_decay\": 3.2"), {GOOD}),
    ("q8", "members alone", ENTRY, ("\"members\": 3, \"dim\": 20, \"weight_decay\": 0.8", "\"members\": 4"), {GOOD}),
    ("q8", "too dear", ENTRY, ("\"members\": 3", "\"members\": 30"), EVERY_ENTRY),
    ("q8", "a name that there is not", ENTRY, ("weight_decay", "decay"), EVERY_ENTRY),
    ("q8", "an odd width", ENTRY, ("20", "18"), EVERY_ENTRY),
    ("q8", "another average", ENTRY, ("\"members\"", "\"average\": \"losses\", \"members\""), EVERY_ENTRY),
]  # fmt: skip


@pytest.mark.parametrize("wrong", cases(WRONG_ANSWERS + WRONG_ENTRIES, slow="q8"))
def test_a_wrong_answer_loses_exactly_the_marks_it_should(lab, solved, wrong):
    check_wrong_answer(lab, solved, wrong)


@pytest.mark.parametrize("right", cases(RIGHT_ANSWERS, slow="q8"))
def test_other_right_answers_earn_all(lab, solved, right):
    assert failing_with(lab, solved, right[0], right[2]) == set()


def test_the_fewest_members_are_right_where_the_law_meets_the_loss(solved):
    g, predicted, members_for = torch.Generator().manual_seed(0), solved["predicted"], solved["members_for"]
    for one, gain, K in torch.rand(2000, 3, generator=g).double().tolist():
        one, two, K = 3 + one, 3 + one - gain - 0.01, 2 + int(99 * K)
        assert members_for(predicted(one, two, K), one, two) == K


def test_each_hidden_test_rejects_two_wrong_answers(lab):
    assert rejected_less_than_twice(lab, WRONG_ANSWERS + WRONG_ENTRIES) == []
