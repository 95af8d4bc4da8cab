"""Lab 4: right answers earn all, plausible wrong ones lose exactly the tests that they should."""

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

LAB = Path(__file__).resolve().parents[1] / "labs" / "04-generalization-bounds.ipynb"
POINTS = {"q2": 4, "q3": 5, "q4": 5, "q6": 3, "q7": 3}


def test_each_question_has_visible_and_hidden_tests_worth_its_points(lab):
    check_points(lab, POINTS)


@pytest.mark.parametrize("question", [pytest.param(q, marks=[pytest.mark.slow] * (q == "q7")) for q in POINTS])
def test_solutions_pass_and_stubs_fail_every_test(lab, solved, question):
    check_solution_and_stub(lab, solved, question)


RISKS, CERTIFICATES = "test_risks_by_hand", "test_certificates_by_hand"
CURVE, REFUSED = "test_the_curve_is_met", "test_what_is_no_certificate"
HEAPS, BITS, SUM = "test_three_heaps", "test_bits_by_hand", "test_all_messages_of_a_length"
LLOYD, AWKWARD = "test_the_rule_of_lloyd", "test_awkward_numbers"
CLAIMS, COUNTS = "test_claims_without_luck", "test_caught_by_hand"
CLOSED, ASKED, TAIL = "test_how_often_in_closed_form", "test_what_the_bound_is_asked", "test_where_the_tail_begins"
THREE, OPEN, ONCE = "test_three_files", "test_files_that_nobody_can_open", "test_each_is_judged_once"
OPENS, TIGHT, OTHERS = "test_the_entry_opens", "test_the_entry_is_tight", "test_other_pictures"
EVERY_RISK = {RISKS, CURVE, CERTIFICATES, REFUSED}  # whoever inverts wrongly certifies wrongly
EVERY_CERTIFICATE = {CERTIFICATES, REFUSED}
EVERY_ROUNDING, EVERY_BIT = {HEAPS, LLOYD, AWKWARD}, {BITS, SUM}
EVERY_FAILURE, EVERY_WINNER, EVERY_ENTRY = {CLAIMS, CLOSED, ASKED}, {THREE, OPEN, ONCE}, {OPENS, TIGHT, OTHERS}

INVERSE = """
    def kl_inverse(q, c):
        def xlogy(x, y):
            return x * math.log(y) if x else 0.0
        low, high = q, 1.0
        while high - low > 1e-13:
            p = (low + high) / 2
            if xlogy(q, q) - xlogy(q, p) + xlogy(1 - q, 1 - q) - xlogy(1 - q, 1 - p) > c:
                high = p
            else:
                low = p
        return high
    """
NEWTON = """
    def kl_inverse(q, c):
        if q == 1 or c == math.inf:
            return 1.0
        log = lambda x, y: x * math.log(x / y) if x > 0 else 0.0
        p = min(q + math.sqrt(c / 2), 1.0)
        p = max(p, q) if p < 1 else 1 - (1 - q) / 2
        low, high = q, 1.0
        for _ in range(300):
            off = log(q, p) + log(1 - q, 1 - p) - c
            low, high = (low, p) if off > 0 else (p, high)
            slope = (p - q) / (p * (1 - p)) if 0 < p < 1 else 0
            p = p - off / slope if slope else p
            p = p if low < p < high else (low + high) / 2
            if p in (low, high):
                break
        return p
    """
CERTIFIED = """
    def certified(errors, n, nats, delta):
        if errors not in range(n + 1):
            raise ValueError(f"{errors} of {n}")
        if nats < 0:
            raise ValueError(f"{nats} nats")
        if not 0 < delta < 1:
            raise ValueError(f"delta = {delta}")
        return kl_inverse(errors / n, (nats + math.log(1 / delta)) / n)
    """
ROUNDED = """
    def rounded(v, L):
        c = torch.quantile(v, torch.linspace(0.5 / L, 1 - 0.5 / L, L))
        for _ in range(50):
            k = torch.cdist(v[:, None], c[:, None]).argmin(1)
            for j in range(L):
                if (k == j).any():
                    c[j] = v[k == j].mean()
        if c.abs().max() > torch.finfo(torch.float16).max:
            raise ValueError("too large")
        c = c.half()
        return c, (v[:, None] - c.float()).abs().argmin(1)
    """
UNEVEN = """
    def rounded(v, L):
        c = v.sort().values[((torch.arange(L) + 0.5) / L * len(v)).long().clamp(max=len(v) - 1)]
        for _ in range(200):
            edges = (c[1:] + c[:-1]) / 2
            k = torch.bucketize(v, edges)
            own = torch.zeros(L).index_add(0, k, v) / torch.bincount(k, minlength=L)
            c = torch.where(own.isnan(), c, own).sort().values
        if c.half().isinf().any():
            raise ValueError("float16 ends at 65504")
        return c.half(), (v[:, None] - c.half()).abs().min(1).indices
    """
MESSAGE = """
    def message_bits(symbols, L):
        n, bits = [0.5] * L, 16 * L + 2 * int(math.log2(L)) + 1
        for k in symbols.tolist():
            bits += math.log2(sum(n) / n[k])
            n[k] += 1
        return bits
    """
GAMMA = """
    def message_bits(symbols, L):
        n = symbols.bincount(minlength=L).double()
        half = torch.tensor(0.5).double()
        nats = torch.lgamma(n.sum() + L / 2) - torch.lgamma(L * half) - (n + half).lgamma().sum() + L * half.lgamma()
        return 16 * L + 2 * len(bin(L)) - 5 + float(nats) / math.log(2)
    """
FAILURES = """
    def failures(wrong, n, bound, sets, generator):
        count, risk = 0, wrong.float().mean(0)
        for _ in range(sets):
            seen = wrong[torch.randint(0, len(wrong), (n,), generator=generator)]
            errors = seen.sum(0)
            least, best = errors.min(0)
            if bound(least.item()) < risk[best]:
                count += 1
        return count
    """
TOGETHER = """
    def failures(wrong, n, bound, sets, generator):
        rows = torch.randint(len(wrong), (sets, n), generator=generator)
        errors, best = wrong[rows].sum(1).min(1)
        claims = torch.tensor([bound(k) for k in errors.tolist()], dtype=torch.float64)
        return int((wrong.double().mean(0)[best] > claims).sum())
    """
CAUGHT = """
    def caught(failed, sets, delta, alpha=0.001):
        chance, terms = 0.0, range(failed, sets + 1)
        for k in terms:
            ln = math.lgamma(sets + 1) - math.lgamma(k + 1) - math.lgamma(sets + 1 - k)
            chance += math.exp(ln + k * math.log(delta) + (sets - k) * math.log(1 - delta))
        return chance <= alpha
    """
BELOW = """
    def caught(failed, sets, delta, alpha=0.001):
        ln, below = sets * math.log(1 - delta), 0.0
        for k in range(failed):
            below += math.exp(ln)
            ln += math.log((sets - k) / (k + 1) * delta / (1 - delta))
        return 1 - below <= alpha
    """
WINNER = """
    def winner(files, judge):
        best, key = None, (math.inf, math.inf)
        for file in files:
            try:
                found = judge(file)
            except ValueError:
                continue
            if (found.bound.value, found.bits) < key:
                best, key = file, (found.bound.value, found.bits)
        if best is None:
            raise ValueError("nothing opens")
        return best
    """
COMPETE = """
    def compete(data):
        recipe = compress.Recipe(d=144, L=7, steps=300, rounded_steps=300)
        return compress.learn(data, recipe).file
    entry = compete(data)
    """
OWN = """
    def compete(data):
        from minilab.pacbayes.message import Message, encode, seal
        recipe = compress.Recipe(d=144, L=7)
        begun = compress.begun(recipe, data.shape, len(data.classes), compress.NETWORKS)
        compress.fit(begun, data, recipe, steps=300, lr=0.2)
        c, _ = rounded(begun.v.detach(), 7)
        values, inner = torch.nn.Parameter(c.float()), begun.v
        adam = torch.optim.Adam([{"params": [inner]}, {"params": [values]}], lr=0.04)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 300)
        g = torch.Generator().manual_seed(0)
        for _ in range(300):
            rows = torch.randint(len(data.train_y), (128,), generator=g)
            k = (inner.detach()[:, None] - values.detach()).abs().argmin(1)
            said = begun.at(values[k] + inner - inner.detach(), data.train_x[rows])
            loss = compress.bent_cross_entropy(said, data.train_y[rows], 0.5)
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
        c = values.detach().half()
        k = (inner.detach()[:, None] - values.detach()).abs().argmin(1)
        return seal(encode(Message(0, 0, 1, c, k)), begun.shapes)
    entry = compete(data)
    """
# As good as the solutions, and written in another way.
RIGHT_ANSWERS = [
    ("q2", "until the interval is short", INVERSE),
    ("q2", "Newton's steps", NEWTON),
    ("q2", "certified", CERTIFIED),
    ("q3", "value by value", ROUNDED),
    ("q3", "by the edges between values", UNEVEN),
    ("q3", "half a count to begin with", MESSAGE),
    ("q3", "by gamma functions", GAMMA),
    ("q4", "with a minimum", FAILURES),
    ("q4", "a risk in single precision", FAILURES.replace("< risk[best]:", "< risk[best].item():")),
    ("q4", "all data sets together", TOGETHER),
    ("q4", "term by term", CAUGHT),
    ("q4", "what lies below", BELOW),
    ("q6", "the best so far", WINNER),
    ("q7", "one recipe", COMPETE),
    ("q7", "a message of their own", OWN),
]  # fmt: skip

# What a student might well write: (question, what is wrong, the frame, the change, the tests that must fail).
WRONG_ANSWERS = [
    ("q2", "Pinsker's inequality", INVERSE, ("low, high = q, 1.0", "return min(1.0, q + math.sqrt(c / 2))"),
     EVERY_RISK),
    ("q2", "kl with its arguments swapped", INVERSE,
     ("xlogy(q, q) - xlogy(q, p) + xlogy(1 - q, 1 - q) - xlogy(1 - q, 1 - p)",
      "xlogy(p, p) - xlogy(p, max(q, 1e-300)) + xlogy(1 - p, 1 - p) - xlogy(1 - p, max(1 - q, 1e-300))"), EVERY_RISK),
    ("q2", "logarithms to base 2", INVERSE, ("math.log(y)", "math.log2(y)"), EVERY_RISK),
    ("q2", "searched from 0", INVERSE, ("low, high = q, 1.0", "low, high = 0.0, 1.0"), EVERY_RISK - {REFUSED}),
    ("q2", "the root below q", INVERSE, ("low, high = q, 1.0", "low, high = q, 0.0"), EVERY_RISK),
    ("q2", "0 ln 0 is an error", INVERSE, ("if x else 0.0", ""), EVERY_RISK),
    ("q2", "errors are never 0", INVERSE, ("low, high = q", "q = max(q, 1e-4)\n        low, high = q"), EVERY_RISK),
    ("q2", "heads alone", INVERSE, (" + xlogy(1 - q, 1 - q) - xlogy(1 - q, 1 - p)", ""), EVERY_RISK),
    ("q2", "the lower end of a long interval", INVERSE, ("return high", "return round(low, 5)"),
     EVERY_RISK - {REFUSED}),
    ("q2", "twenty steps", INVERSE, ("1e-13", "1e-6"), {CURVE}),
    ("q2", "the middle of a long interval", INVERSE, ("1e-13", "1e-7"), {CURVE}),
    ("q2", "delta is forgotten", CERTIFIED, ("nats + math.log(1 / delta)", "nats"), EVERY_CERTIFICATE),
    ("q2", "delta by itself", CERTIFIED, ("math.log(1 / delta)", "delta"), EVERY_CERTIFICATE),
    ("q2", "as if nats were bits", CERTIFIED, ("(nats +", "(math.log(2) * nats +"), EVERY_CERTIFICATE),
    ("q2", "half the examples", CERTIFIED, (") / n)", ") / (2 * n))"), EVERY_CERTIFICATE),
    ("q2", "Hoeffding's bound", CERTIFIED, ("return kl_inverse(errors / n, (nats + math.log(1 / delta)) / n)",
     "return min(1.0, errors / n + math.sqrt((nats + math.log(1 / delta)) / (2 * n)))"), EVERY_CERTIFICATE),
    ("q2", "as a posterior", CERTIFIED, ("1 / delta)", "2 * math.sqrt(n) / delta)"), EVERY_CERTIFICATE),
    ("q2", "n is not divided by", CERTIFIED, ("math.log(1 / delta)) / n)", "math.log(1 / delta)))"), {CERTIFICATES}),
    ("q2", "a count in place of a rate", CERTIFIED, ("kl_inverse(errors / n,", "kl_inverse(min(errors, 1),"),
     EVERY_CERTIFICATE),
    ("q2", "a rate passes", CERTIFIED, ("errors not in range(n + 1)", "not 0 <= errors <= n"), {REFUSED}),
    ("q2", "more errors than examples pass", CERTIFIED, ("errors not in range(n + 1)", "errors < 0 or errors % 1"),
     {REFUSED}),
    ("q2", "a negative price passes", CERTIFIED, ("nats < 0", "False"), {REFUSED}),
    ("q2", "percent pass", CERTIFIED, ("0 < delta < 1", "0 < delta"), {REFUSED}),
    ("q2", "certainty is not checked", CERTIFIED, ("0 < delta < 1", "delta < 1"), {REFUSED}),
    ("q3", "the quantiles alone", ROUNDED, ("range(50)", "range(0)"), EVERY_ROUNDING),
    ("q3", "one round", ROUNDED, ("range(50)", "range(1)"), {LLOYD}),
    ("q3", "from the least to the largest", ROUNDED, ("torch.quantile(v, torch.linspace(0.5 / L, 1 - 0.5 / L, L))",
     "torch.linspace(float(v.min()), float(v.max()), L)\n        return c.half(), "
     "(v[:, None] - c.half().float()).abs().argmin(1)"), EVERY_ROUNDING),
    ("q3", "as many numbers for each value", ROUNDED, ("k = torch.cdist(v[:, None], c[:, None]).argmin(1)",
     "k = v.argsort().argsort() * L // len(v)"), {HEAPS, LLOYD}),
    ("q3", "medians", ROUNDED, ("v[k == j].mean()", "v[k == j].median()"), {HEAPS, LLOYD}),
    ("q3", "float32", ROUNDED, ("c = c.half()", "pass"), {HEAPS, AWKWARD}),
    ("q3", "values that nobody takes are NaN", ROUNDED, ("if (k == j).any():", "if True:"), {AWKWARD}),
    ("q3", "too large is infinite", ROUNDED, ("c.abs().max() > torch.finfo(torch.float16).max", "False"), {AWKWARD}),
    ("q3", "too large is cut off", ROUNDED, ("raise ValueError(\"too large\")", "c = c.clamp(-65504, 65504)"),
     {AWKWARD}),
    ("q3", "the rounded numbers in place of symbols", ROUNDED,
     ("return c, (v[:, None] - c.float()).abs().argmin(1)",
      "return c, c[(v[:, None] - c.float()).abs().argmin(1)]"), EVERY_ROUNDING),
    ("q3", "the farthest value", ROUNDED, ("return c, (v[:, None] - c.float()).abs().argmin(1)",
     "return c, (v[:, None] - c.float()).abs().argmax(1)"), EVERY_ROUNDING),
    ("q3", "only the values in use", ROUNDED, ("c = c.half()", "c = c[k.unique()].half()"), {AWKWARD}),
    ("q3", "v itself is rounded", ROUNDED, ("c = c.half()",
     "c = c.half()\n        v[:] = c[(v[:, None] - c.float()).abs().argmin(1)]"), {LLOYD, AWKWARD}),
    ("q3", "the entropy", MESSAGE, ("for k in symbols.tolist():",
     "n = [float((symbols == k).sum()) for k in range(L)]\n"
     "        return bits + sum(m * math.log2(len(symbols) / m) for m in n if m)\n"
     "        for k in symbols.tolist():"), EVERY_BIT),
    ("q3", "counted before it is sent", MESSAGE, ("bits += math.log2(sum(n) / n[k])\n            n[k] += 1",
     "n[k] += 1\n            bits += math.log2(sum(n) / n[k])"), EVERY_BIT),
    ("q3", "plain symbols", MESSAGE, ("math.log2(sum(n) / n[k])", "math.log2(L)"), EVERY_BIT),
    ("q3", "whole bits for each symbol", MESSAGE, ("math.log2(sum(n) / n[k])", "math.ceil(math.log2(sum(n) / n[k]))"),
     EVERY_BIT),
    ("q3", "one count each to begin with", MESSAGE, ("[0.5] * L", "[1.0] * L"), {BITS}),
    ("q3", "nats", MESSAGE, ("math.log2(sum", "math.log(sum"), EVERY_BIT),
    ("q3", "the codebook is free", MESSAGE, ("16 * L", "0"), EVERY_BIT),
    ("q3", "a codebook in float32", MESSAGE, ("16 * L", "32 * L"), EVERY_BIT),
    ("q3", "nobody is told L", MESSAGE, (" + 2 * int(math.log2(L)) + 1", ""), EVERY_BIT),
    ("q3", "L in a code that does not end", MESSAGE, ("2 * int(math.log2(L)) + 1", "L.bit_length()"), EVERY_BIT),
    ("q3", "never counted", MESSAGE, ("n[k] += 1", "pass"), EVERY_BIT),
    ("q3", "as many kinds as occur", MESSAGE, ("n, bits = [0.5] * L",
     "n, bits = [0.5] * (int(symbols.max()) + 1 if len(symbols) else 0)"), EVERY_BIT),
    ("q4", "one draw of examples for all", FAILURES, ("for _ in range(sets):\n            seen",
     "once = wrong[torch.randint(len(wrong), (n,), generator=generator)]\n        for _ in range(sets):\n"
     "            seen = once\n            other"), {CLOSED, ASKED}),
    ("q4", "without replacement", FAILURES, ("torch.randint(0, len(wrong), (n,), generator=generator)",
     "torch.randperm(len(wrong), generator=generator)[:n]"), {CLOSED}),
    ("q4", "the best in truth", FAILURES, ("least, best = errors.min(0)",
     "best = int(risk.argmin())\n            least = errors[best]"), {ASKED, CLOSED}),
    ("q4", "the worst", FAILURES, ("errors.min(0)", "errors.max(0)"), EVERY_FAILURE),
    ("q4", "the first", FAILURES, ("errors.min(0)", "errors[0], 0"), EVERY_FAILURE),
    ("q4", "the risk on the sample", FAILURES, ("risk[best]", "seen.float().mean(0)[best]"), {CLAIMS, CLOSED}),
    ("q4", "the mean risk", FAILURES, ("risk[best]", "risk.mean()"), {CLAIMS}),
    ("q4", "claims that are met are false", FAILURES, ("< risk[best]", "<= risk[best]"), {CLAIMS, CLOSED}),
    ("q4", "true claims are counted", FAILURES, ("< risk[best]", ">= risk[best]"), {CLAIMS, CLOSED}),
    ("q4", "a share, not a count", FAILURES, ("return count", "return count / sets"), {CLAIMS, CLOSED}),
    ("q4", "the bound gets a rate", FAILURES, ("least.item()", "least.item() / n"), {CLOSED, ASKED}),
    ("q4", "draws from nowhere", FAILURES, (", generator=generator", ""), {ASKED}),
    ("q4", "a bound for each network", FAILURES, ("least, best = errors.min(0)",
     "least, best = errors.min(0)\n            [bound(k) for k in errors.tolist()]"), {ASKED}),
    ("q4", "one data set too few", FAILURES, ("range(sets)", "range(sets - 1)"), {CLAIMS, ASKED}),
    ("q4", "any excess is caught", CAUGHT, ("chance, terms", "return failed > delta * sets\n        chance, terms"),
     {COUNTS, TAIL}),
    ("q4", "the normal curve", CAUGHT, ("chance, terms",
     "return math.erfc((failed - delta * sets) / math.sqrt(2 * sets * delta * (1 - delta))) / 2 <= alpha\n"
     "        chance, terms"), {COUNTS, TAIL}),
    ("q4", "the normal curve, moved by a half", CAUGHT, ("chance, terms",
     "x = (failed - 0.5 - delta * sets) / math.sqrt(2 * sets * delta * (1 - delta))\n"
     "        return math.erfc(x) / 2 <= alpha\n        chance, terms"), {COUNTS, TAIL}),
    ("q4", "more than so many", CAUGHT, ("range(failed, sets + 1)", "range(failed + 1, sets + 1)"), {COUNTS, TAIL}),
    ("q4", "exactly so many", CAUGHT, ("range(failed, sets + 1)", "[failed]"), {TAIL}),
    ("q4", "so many or fewer", CAUGHT, ("range(failed, sets + 1)", "range(failed + 1)"), {COUNTS, TAIL}),
    ("q4", "not all of them", CAUGHT, ("range(failed, sets + 1)", "range(failed, sets)"), {COUNTS}),
    ("q4", "binomials as floats", CAUGHT, ("ln = math.lgamma(sets + 1) - math.lgamma(k + 1) - "
     "math.lgamma(sets + 1 - k)", "ln = math.log(float(math.comb(sets, k)))"), {COUNTS, TAIL}),
    ("q4", "a fixed level", CAUGHT, ("<= alpha", "<= 0.001"), {TAIL}),
    ("q4", "Chernoff's bound", CAUGHT, ("chance, terms",
     "p = failed / sets\n        kl = p * math.log(max(p, 1e-9) / delta) + (1 - p) * math.log(max(1 - p, 1e-9) / "
     "(1 - delta))\n        return p > delta and math.exp(-sets * kl) <= alpha\n        chance, terms"),
     {TAIL}),
    ("q6", "the fewest errors in training", WINNER, ("found.bound.value", "found.train_error"), {THREE, ONCE}),
    ("q6", "the fewest errors in the test", WINNER, ("found.bound.value", "found.test_error"), {THREE, ONCE}),
    ("q6", "the shortest message", WINNER, ("(found.bound.value, found.bits)", "(found.bits, 0)"), {THREE, ONCE}),
    ("q6", "the largest bound", WINNER, ("found.bound.value", "-found.bound.value"), EVERY_WINNER),
    ("q6", "the first of equal ones", WINNER, ("(found.bound.value, found.bits)", "(found.bound.value, 0)"), {ONCE}),
    ("q6", "the last of equal ones", WINNER, ("(found.bound.value, found.bits) < key",
     "(found.bound.value, 0) <= key[:1] + (0,)"), {ONCE}),
    ("q6", "damage ends the race", WINNER, ("except ValueError:\n                continue",
     "except ZeroDivisionError:\n                continue"), {OPEN}),
    ("q6", "bugs pass in silence", WINNER, ("except ValueError", "except Exception"), {OPEN}),
    ("q6", "none is no error", WINNER, ("if best is None", "if False"), {OPEN}),
    ("q6", "vacuous files are out", WINNER, ("if (found", "if found.bound.value < 1 and (found"), {ONCE}),
    ("q6", "judged twice", WINNER, ("found = judge(file)", "found = judge(file) and judge(file)"), {ONCE}),
    ("q6", "the files are counted first", WINNER, ("best, key", "assert len(files)\n        best, key"), {OPEN, ONCE}),
    ("q6", "what the judge said", WINNER, ("best, key = file,", "best, key = found,"), EVERY_WINNER),
]  # fmt: skip
# The same for the competition, where each answer trains networks.
WRONG_ENTRIES = [
    ("q7", "two values", COMPETE, ("L=7", "L=2"), EVERY_ENTRY),
    ("q7", "256 values", COMPETE, ("L=7", "L=256"), EVERY_ENTRY),
    ("q7", "too many numbers", COMPETE, ("d=144, L=7", "d=900, L=9"), EVERY_ENTRY),
    ("q7", "hardly trained", COMPETE, ("steps=300, rounded_steps=300", "steps=20, rounded_steps=20"), EVERY_ENTRY),
    ("q7", "learned from the test set", COMPETE, ("learn(data", "learn(__import__('dataclasses').replace(data, "
     "train_x=data.test_x, train_y=data.test_y)"), EVERY_ENTRY),
    ("q7", "a file that was made before", COMPETE, ("entry = compete(data)",
     "entry = compete(data)\n    compete = lambda data: entry"), {OTHERS}),
    ("q7", "sized for the fewest errors", COMPETE, ("d=144, L=7", "d=400, L=16"), EVERY_ENTRY),
    ("q7", "a message without its seal", COMPETE, (".file", ".file[:-8]"), EVERY_ENTRY),
    ("q7", "a network in place of a file", COMPETE, ("return compress.learn(data, recipe).file",
     "return compress.rebuild(compress.learn(data, recipe).file, data.shape, 10)"), EVERY_ENTRY),
]  # fmt: skip


@pytest.mark.parametrize("wrong", cases(WRONG_ANSWERS + WRONG_ENTRIES, slow="q7"))
def test_a_wrong_answer_loses_exactly_the_marks_it_should(lab, solved, wrong):
    check_wrong_answer(lab, solved, wrong)


@pytest.mark.parametrize("right", cases(RIGHT_ANSWERS, slow="q7"))
def test_other_right_answers_earn_all(lab, solved, right):
    assert failing_with(lab, solved, right[0], right[2]) == set()


def test_each_hidden_test_rejects_two_wrong_answers(lab):
    assert rejected_less_than_twice(lab, WRONG_ANSWERS + WRONG_ENTRIES) == []
