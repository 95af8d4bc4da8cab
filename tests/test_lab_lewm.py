"""Lab 3: right answers earn all, plausible wrong ones lose exactly the tests that they should."""

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

LAB = Path(__file__).resolve().parents[1] / "labs" / "03-leworldmodel.ipynb"
POINTS = {"q1": 3, "q2": 4, "q3": 4, "q4": 5, "q6": 5, "q7": 5}


def test_each_question_has_visible_and_hidden_tests_worth_its_points(lab):
    check_points(lab, POINTS)


@pytest.mark.parametrize("question", POINTS)
def test_solutions_pass_and_stubs_fail_every_test(lab, solved, question):
    check_solution_and_stub(lab, solved, question)


KNOWN, PAIRS, KNOTS = "test_values_to_know", "test_a_sum_over_pairs", "test_knots_shapes_and_slopes"
STEPS, WEIGHTS = "test_each_step_has_its_own_shadows", "test_weights_by_hand"
SPHERE, PRESSURE = "test_directions_are_fresh_seeded_and_uniform", "test_the_same_pressure"
BOWL, FEWER = "test_a_flow_with_a_known_end", "test_the_same_shadows_in_fewer_dimensions"
TRACE, AWKWARD = "test_a_flow_leaves_no_trace", "test_awkward_directions"
PATIENTS, SCALE, NOISE = "test_four_patients", "test_scale_and_place_prove_nothing", "test_noise_with_a_perfect_score"
TWO, ONE = "test_two_directions_are_enough", "test_one_direction_is_not_enough"
COSTS, LINEAR, STARTS = "test_costs_by_hand", "test_a_linear_world_with_a_known_answer", "test_who_starts_where"
FOLLOWED, BROKEN = "test_each_iteration_followed", "test_broken_plans_and_one_elite"
SCORES, LEVELS, PROMISE = "test_scores_by_hand", "test_levels_by_hand", "test_the_promise"
WINDOWS, CALM = "test_windows_and_broken_films", "test_calm_films_set_the_level"
EVERY_EP, EVERY_WEIGHT = {KNOWN, PAIRS, KNOTS}, {WEIGHTS, PRESSURE}
EVERY_FLOW, EVERY_FLAT = {BOWL, TRACE}, {FEWER, AWKWARD}
EVERY_PATIENT, EVERY_COST, EVERY_CEM = {PATIENTS, SCALE, NOISE, TWO, ONE}, {COSTS, STARTS}, {LINEAR, FOLLOWED, BROKEN}
EVERY_SCORE, EVERY_LEVEL = {SCORES, WINDOWS}, {LEVELS, PROMISE}

EP = """
    def epps_pulley(h, knots=17, t_max=3.0):
        total = 0
        for k in range(knots):
            t = k * t_max / (knots - 1)
            phi = math.exp(-t * t / 2)
            C, S = torch.cos(t * h).mean(-2), torch.sin(t * h).mean(-2)
            end = 0.5 if k in (0, knots - 1) else 1.0
            total = total + end * phi * ((C - phi) ** 2 + S**2)
        return 2 * total * h.shape[-2] * t_max / (knots - 1)
    """
COMPLEX = """
    def epps_pulley(h, knots=17, t_max=3.0):
        t = torch.linspace(-t_max, t_max, 2 * knots - 1)
        phi = torch.exp(-t * t / 2)
        seen = torch.exp(1j * h[..., None] * t).mean(-3)
        return h.shape[-2] * torch.trapezoid((seen - phi).abs() ** 2 * phi, t, dim=-1)
    """
SIGREG = """
    def sigreg(z, statistic, M, generator):
        A = torch.empty(z.shape[-1], M, dtype=z.dtype).normal_(generator=generator)
        A = torch.nn.functional.normalize(A, dim=0)
        return statistic(torch.einsum("tnd,dm->tnm", z, A)).mean()
    """
CARRIED = """
    def carried_over(lam, batch, new_batch, processes=1, shared=True):
        seen = new_batch
        if not shared:
            seen, rest = divmod(new_batch, processes)
            if rest:
                raise ValueError("uneven parts")
        return lam * batch / seen
    """
FLOW = """
    def flow(z, draw, statistic, steps, lr):
        z = z.detach().clone().requires_grad_()
        for _ in range(steps):
            statistic(z @ draw()).mean().backward()
            with torch.no_grad():
                z -= lr * z.grad
            z.grad = None
        return z.detach()
    """
SGD = """
    def flow(z, draw, statistic, steps, lr):
        points = torch.nn.Parameter(z.detach().clone())
        optimizer = torch.optim.SGD([points], lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            statistic(points @ draw()).mean().backward()
            optimizer.step()
        return points.data
    """
FLATTENED = """
    def flattened(z, A):
        Q, s, _ = torch.linalg.svd(A, full_matrices=False)
        Q = Q[:, s > 1e-5 * s[0]]
        return z @ Q @ Q.T
    """
COLLAPSED = """
    def collapsed(z):
        z = z.double()
        x = z.flatten(0, 1)
        x = x - x.mean(0)
        value, vector = torch.linalg.eigh(x.T @ x / len(x))
        keep = value > 1e-9 * value[-1]
        u = z @ (vector[:, keep] / value[keep].sqrt())
        d = (u[:, 1:] - u[:, :-1]).flatten(0, 1)
        r = torch.linalg.eigvalsh(d.T @ d / len(d)) / 2
        return len(r[r < 0.3]) < 2
    """
GOAL = """
    def goal_cost(imagine, z, z_goal, blocks):
        B, N, H, K = blocks.shape
        ends = imagine(z.repeat_interleave(N, 0)[:, None], blocks.reshape(B * N, H, K))[:, -1]
        return (ends - z_goal.repeat_interleave(N, 0)).pow(2).sum(-1).view(B, N)
    """
CEM = """
    def cem(cost, shape, samples, elites, iterations, generator):
        mean, std = torch.zeros(shape), torch.ones(shape)
        for _ in range(iterations):
            noise = torch.randn(shape[0], samples, *shape[1:], generator=generator)
            plans = mean[:, None] + std[:, None] * noise
            price = cost(plans)
            price = torch.where(price.isfinite(), price, torch.inf)
            best = price.topk(elites, dim=1, largest=False).indices
            chosen = torch.stack([p[i] for p, i in zip(plans, best)])
            mean, std = chosen.mean(1), chosen.std(1, correction=0)
        return mean
    """
FILM = """
    def film_score(traces, window=1):
        B, L = traces.shape
        if window < 1 or window > L:
            raise ValueError("window")
        means = [traces[:, i : i + window].sum(1) / window for i in range(L - window + 1)]
        score = torch.stack(means, 1).max(1).values
        score[traces.isnan().any(1)] = torch.inf
        return score
    """
LEVEL = """
    def alarm_level(calm, rate):
        n = len(calm)
        k = n + 1 - math.floor(round((n + 1) * rate, 6))
        if k > n:
            needed = next(m for m in range(1, 10**6) if round((m + 1) * rate, 6) >= 1)
            raise ValueError(f"{needed} films")
        return float(torch.sort(calm).values[k - 1])
    """
ALARMS = """
    def alarms(traces, calm, score, level):
        highest = level(score(calm))
        return torch.tensor([bool(math.isnan(s) or s > highest) for s in score(traces)])
    """
# As good as the solutions, and written in another way.
RIGHT_ANSWERS = [
    ("q1", "knot by knot", EP),
    ("q1", "complex numbers on the whole axis", COMPLEX),
    ("q2", "sigreg", SIGREG),
    ("q2", "directions in rows", SIGREG.replace("z.shape[-1], M, dtype", "M, z.shape[-1], dtype")
     .replace("dim=0)", "dim=1).T")),
    ("q2", "other directions for each step", SIGREG.replace("torch.empty(", "torch.empty(len(z), ")
     .replace("dim=0", "dim=1").replace("tnd,dm", "tnd,tdm")),
    ("q2", "carried_over", CARRIED),
    ("q3", "flow", FLOW),
    ("q3", "an optimizer's flow", SGD),
    ("q3", "flattened", FLATTENED),
    ("q3", "in double precision", FLATTENED.replace("svd(A,", "svd(A.double(),").replace(
        "z @ Q @ Q.T", "(z.double() @ Q @ Q.T).to(z.dtype)")),
    ("q4", "by the covariance", COLLAPSED),
    ("q4", "in single precision", COLLAPSED.replace("z = z.double()", "z = z - z.mean((0, 1))")
     .replace("1e-9", "1e-6")),
    ("q4", "another threshold", COLLAPSED.replace("r < 0.3", "r < 0.12")),
    ("q4", "by the correlation of neighbors", COLLAPSED.replace(
        "r = torch.linalg.eigvalsh(d.T @ d / len(d)) / 2",
        "a, b = ((u - u.mean((0, 1)))[:, i].flatten(0, 1) for i in (slice(None, -1), slice(1, None)))\n"
        "        r = 1 - torch.linalg.eigvalsh((a.T @ b + b.T @ a) / (2 * len(a)))")),
    ("q6", "goal_cost", GOAL),
    ("q6", "cem", CEM),
    ("q6", "NaN is sorted last anyway", CEM.replace("price = torch.where(price.isfinite(), price, torch.inf)", "")),
    ("q6", "problem by problem", CEM.replace("noise = torch.randn(shape[0], samples, *shape[1:], generator=generator)",
     "noise = torch.stack([torch.randn(samples, *shape[1:], generator=generator) for _ in range(shape[0])])")),
    ("q7", "film_score", FILM),
    ("q7", "by running sums", FILM.replace(
        "means = [traces[:, i : i + window].sum(1) / window for i in range(L - window + 1)]",
        "sums = torch.cat((torch.zeros(B, 1), traces.cumsum(1)), dim=1)\n"
        "        means = list(((sums[:, window:] - sums[:, :-window]) / window).unbind(1))")),
    ("q7", "alarm_level", LEVEL),
    ("q7", "alarms", ALARMS),
]  # fmt: skip

R_TRACE = "return float(d.square().sum() / x.square().sum()) > 0.6"
# What a student might well write: (question, what is wrong, the frame, the change, the tests that must fail).
WRONG_ANSWERS = [
    ("q1", "half of the axis", EP, ("2 * total", "total"), EVERY_EP),
    ("q1", "N is forgotten", EP, ("* h.shape[-2]", ""), EVERY_EP),
    ("q1", "the ends count whole", EP, ("0.5 if", "1.0 if"), {KNOTS}),
    ("q1", "only the first knot counts half", EP, ("k in (0, knots - 1)", "k == 0"), {KNOTS}),
    ("q1", "no step of t", EP, ("* t_max / (knots - 1)\n    ", "\n    "), EVERY_EP),
    ("q1", "knots a little too close", EP, ("t = k * t_max / (knots - 1)", "t = k * t_max / knots"), EVERY_EP),
    ("q1", "no weight", EP, ("end * phi *", "end *"), EVERY_EP),
    ("q1", "the weight twice", EP, ("end * phi *", "end * phi**2 *"), EVERY_EP),
    ("q1", "a density as the weight", EP, ("end * phi *", "end * phi / math.sqrt(2 * math.pi) *"), EVERY_EP),
    ("q1", "sines are forgotten", EP, (" + S**2", ""), EVERY_EP),
    ("q1", "lengths are compared", EP, ("(C - phi) ** 2 + S**2", "(C**2 + S**2).sqrt() - phi) ** 2 + 0 * (S"),
     EVERY_EP),
    ("q1", "the distance is not squared", EP, ("((C - phi) ** 2 + S**2)", "((C - phi) ** 2 + S**2).sqrt()"), EVERY_EP),
    ("q1", "a sum over the sample", EP, ("torch.cos(t * h).mean(-2)", "torch.cos(t * h).sum(-2)"), EVERY_EP),
    ("q1", "standardized first", EP, ("total = 0",
     "total, h = 0, (h - h.mean(-2, True)) / (h.std(-2, True, correction=0) + 1e-9)"), EVERY_EP),
    ("q1", "centered first", EP, ("total = 0", "total, h = 0, h - h.mean(-2, True)"), EVERY_EP),
    ("q1", "one number for all columns", EP, ("return 2 * total", "return 2 * total.mean(-1)"), EVERY_EP),
    ("q1", "the sample is the last dimension", EP, ("(t * h).mean(-2)", "(t * h).mean(-1)"), EVERY_EP),
    ("q1", "the sample is the first dimension", EP, (".mean(-2)", ".mean(0)"), {KNOTS}),
    ("q1", "always 17 knots", EP, ("total = 0", "total, knots = 0, 17"), {PAIRS, KNOTS}),
    ("q1", "always up to 3", EP, ("total = 0", "total, t_max = 0, 3.0"), {PAIRS, KNOTS}),
    ("q1", "no gradient", EP, ("total = 0", "total, h = 0, h.detach()"), {KNOTS}),
    ("q1", "single precision", EP, ("total = 0", "total, h = 0, h.float()"), {KNOTS}),
    ("q2", "uniform numbers, normalized", SIGREG, (".normal_(generator=generator)",
     ".uniform_(-1, 1, generator=generator)"), {SPHERE}),
    ("q2", "only positive directions", SIGREG, (".normal_(generator=generator)", ".uniform_(generator=generator)"),
     {SPHERE}),
    ("q2", "the axes", SIGREG, ("A = torch.nn.functional.normalize(A, dim=0)",
     "A = torch.eye(len(A), dtype=z.dtype)[torch.randint(len(A), (M,), generator=generator)].T"), {SPHERE, PRESSURE}),
    ("q2", "not normalized", SIGREG, ("torch.nn.functional.normalize(A, dim=0)", "A"), {STEPS, SPHERE}),
    ("q2", "normalized along the wrong dimension", SIGREG, ("dim=0", "dim=1"), {STEPS, SPHERE}),
    ("q2", "normalized as a whole", SIGREG, ("torch.nn.functional.normalize(A, dim=0)", "A / A.norm()"),
     {STEPS, SPHERE}),
    ("q2", "of length 1 on average", SIGREG, ("torch.nn.functional.normalize(A, dim=0)", "A / len(A) ** 0.5"),
     {STEPS, SPHERE}),
    ("q2", "the same directions in all calls", SIGREG, ("generator=generator",
     "generator=torch.Generator().manual_seed(0)"), {SPHERE}),
    ("q2", "directions from nowhere", SIGREG, ("generator=generator", ""), {SPHERE, PRESSURE}),
    ("q2", "all steps in one batch", SIGREG, ('"tnd,dm->tnm", z', '"tnd,dm->tnm", z.flatten(0, 1)[None]'), {STEPS}),
    ("q2", "time and sample swapped", SIGREG, ("tnd,dm->tnm", "tnd,dm->ntm"), {STEPS, SPHERE, PRESSURE}),
    ("q2", "one call a step", SIGREG, ('statistic(torch.einsum("tnd,dm->tnm", z, A))',
     "torch.stack([statistic((x @ A)[None])[0] for x in z])"), {STEPS}),
    ("q2", "a sum over directions", SIGREG, (".mean()", ".sum(-1).mean()"), {STEPS}),
    ("q2", "the worst direction", SIGREG, (".mean()", ".amax(-1).mean()"), {STEPS}),
    ("q2", "the first step alone", SIGREG, (".mean()", "[0].mean()"), {STEPS, PRESSURE}),
    ("q2", "one direction too few", SIGREG, ("z.shape[-1], M,", "z.shape[-1], M - 1,"), {STEPS, SPHERE}),
    ("q2", "always single precision", SIGREG, (", dtype=z.dtype", ""), {PRESSURE}),
    ("q2", "upside down", CARRIED, ("lam * batch / seen", "lam * seen / batch"), EVERY_WEIGHT),
    ("q2", "the same weight everywhere", CARRIED, ("lam * batch / seen", "lam"), EVERY_WEIGHT),
    ("q2", "the root, as for learning rates", CARRIED, ("lam * batch / seen", "lam * (batch / seen) ** 0.5"),
     EVERY_WEIGHT),
    ("q2", "parts are ignored", CARRIED, ("not shared", "False"), EVERY_WEIGHT),
    ("q2", "always parts", CARRIED, ("not shared", "True"), EVERY_WEIGHT),
    ("q2", "shared the wrong way round", CARRIED, ("not shared", "shared"), EVERY_WEIGHT),
    ("q2", "the batch is that of each process", CARRIED, ("seen = new_batch", "seen = new_batch * processes"),
     EVERY_WEIGHT),
    ("q2", "uneven parts pass", CARRIED, ("if rest", "if False"), {PRESSURE}),
    ("q2", "uneven parts are refused when shared too", CARRIED, ("seen = new_batch\n",
     "seen = new_batch\n        if new_batch % processes:\n            raise ValueError()\n"), {PRESSURE}),
    ("q3", "slopes pile up", FLOW, ("z.grad = None", "pass"), EVERY_FLOW),
    ("q3", "the cloud itself flows", FLOW, (".clone()", ""), EVERY_FLOW),
    ("q3", "drawn once", FLOW, ("for _ in", "A = draw()\n        draw = lambda: A\n        for _ in"), {TRACE}),
    ("q3", "drawn twice", FLOW, ("z.grad = None", "z.grad, _ = None, draw()"), {TRACE}),
    ("q3", "up the hill", FLOW, ("z -= lr", "z += lr"), EVERY_FLOW),
    ("q3", "a sum over directions", FLOW, (".mean().backward()", ".sum().backward()"), EVERY_FLOW),
    ("q3", "a step too few", FLOW, ("range(steps)", "range(steps - 1)"), EVERY_FLOW),
    ("q3", "directions normalized again", FLOW, ("draw())", "torch.nn.functional.normalize(draw(), dim=0))"),
     EVERY_FLOW),
    ("q3", "steps of one length", FLOW, ("lr * z.grad", "lr * z.grad / z.grad.norm()"), EVERY_FLOW),
    ("q3", "asks for a gradient", FLOW, ("return z.detach()", "return z"), {TRACE}),
    ("q3", "momentum", SGD, ("lr=lr", "lr=lr, momentum=0.9"), EVERY_FLOW),
    ("q3", "Adam", SGD, ("optim.SGD", "optim.Adam"), EVERY_FLOW),
    ("q3", "the slope of the start", FLOW,
     ("z = z.detach().clone().requires_grad_()\n        for _ in range(steps):\n",
     "start = z.detach().clone()\n        for _ in range(steps):\n            z = start.clone().requires_grad_()\n"),
     EVERY_FLOW),
    ("q3", "dependent directions get a dimension each", FLATTENED, ("Q = Q[:, s > 1e-5 * s[0]]",
     "Q = torch.linalg.qr(A).Q"), {AWKWARD}),
    ("q3", "the normal equations", FLATTENED, ("Q @ Q.T", "A @ torch.linalg.inv(A.T @ A) @ A.T"), {AWKWARD}),
    ("q3", "no inverse", FLATTENED, ("Q @ Q.T", "A @ A.T"), EVERY_FLAT),
    ("q3", "columns of length 1 are not orthogonal", FLATTENED, ("z @ Q @ Q.T",
     "z @ (A / A.norm(dim=0).clamp(min=1e-9)) @ (A / A.norm(dim=0).clamp(min=1e-9)).T"), EVERY_FLAT),
    ("q3", "what no direction sees", FLATTENED, ("return z @", "return z - z @"), EVERY_FLAT),
    ("q3", "the first numbers alone", FLATTENED, ("z @ Q @ Q.T", "z * (torch.arange(z.shape[1]) < A.shape[1])"),
     EVERY_FLAT),
    ("q3", "the main directions of the cloud", FLATTENED, ("svd(A,", "svd(z.T @ z,"), EVERY_FLAT),
    ("q3", "nothing is flattened", FLATTENED, ("z @ Q @ Q.T", "z"), EVERY_FLAT),
    ("q3", "shadows in place of points", FLATTENED, ("z @ Q @ Q.T", "z @ A"), EVERY_FLAT),
    ("q3", "short directions are thrown away", FLATTENED, ("1e-5 * s[0]", "0.1 * s[0]"), {AWKWARD}),
    ("q4", "all is dead", COLLAPSED, ("z = z.double()", "return True"), EVERY_PATIENT),
    ("q4", "all lives", COLLAPSED, ("z = z.double()", "return False"), EVERY_PATIENT),
    ("q4", "the spread", COLLAPSED, ("z = z.double()", "return z.std((0, 1)).mean() < 0.1"), EVERY_PATIENT),
    ("q4", "SIGReg", COLLAPSED, ("z = z.double()",
     "return sigreg(z.transpose(0, 1), epps_pulley, 64, torch.Generator()) / len(z) > 0.2"), EVERY_PATIENT),
    ("q4", "the effective rank", COLLAPSED, ("z = z.double()",
     "s = torch.linalg.svdvals((z - z.mean((0, 1))).flatten(0, 1)).clamp(min=1e-12)\n"
     "        return torch.special.entr(s / s.sum()).sum().exp() < 1.7"), EVERY_PATIENT),
    ("q4", "the raw loss of a copy", COLLAPSED, ("z = z.double()", "return z.diff(dim=1).square().mean() < 1e-3"),
     EVERY_PATIENT),
    ("q4", "all directions together", COLLAPSED, ("z = z.double()",
     "return z.diff(dim=1).square().mean() > 1.2 * z.var((0, 1)).mean()"), {PATIENTS, TWO, ONE}),
    ("q4", "number by number", COLLAPSED, ("r = torch.linalg.eigvalsh(d.T @ d / len(d)) / 2",
     "r = z.diff(dim=1).square().mean((0, 1)) / (2 * z.var((0, 1)))"), {PATIENTS, TWO, ONE}),
    ("q4", "the two main directions alone", COLLAPSED, ("vector[:, keep] / value[keep].sqrt()",
     "vector[:, -2:] / value[-2:].sqrt()"), {PATIENTS, TWO}),
    ("q4", "whitened number by number", COLLAPSED, ("vector[:, keep] / value[keep].sqrt()",
     "(1 / (x.std(0) + 1e-12)).diag()"), {PATIENTS, NOISE, ONE}),
    ("q4", "from the end of one clip to the next", COLLAPSED, ("(u[:, 1:] - u[:, :-1]).flatten(0, 1)",
     "u.flatten(0, 1).diff(dim=0)"), {TWO}),
    ("q4", "one direction is enough", COLLAPSED, ("< 2", "< 1"), {PATIENTS, ONE}),
    ("q4", "three are needed", COLLAPSED, ("< 2", "< 3"), {TWO, ONE}),
    ("q4", "not centered", COLLAPSED, ("x = x - x.mean(0)", "pass"), {ONE}),
    ("q4", "what never changes is slow", COLLAPSED, ("keep = value > 1e-9 * value[-1]",
     "keep, value = value > -1, value.clamp(min=1e-12)"), {PATIENTS, ONE}),
    ("q4", "a fixed size of what counts", COLLAPSED, ("1e-9 * value[-1]", "1e-3"), {SCALE, TWO}),
    ("q4", "a small share is thrown away", COLLAPSED, ("1e-9 *", "1e-2 *"), {TWO}),
    ("q4", "the fastest directions", COLLAPSED, ("r < 0.3", "r > 0.3"), EVERY_PATIENT),
    ("q4", "the wrong way round", COLLAPSED, ("< 2", ">= 2"), EVERY_PATIENT),
    ("q4", "frames of other clips", COLLAPSED, ("u[:, 1:] - u[:, :-1]", "u[1:] - u[:-1]"), EVERY_PATIENT),
    ("q6", "starts in the wrong order", GOAL, ("z.repeat_interleave(N, 0)[:, None]", "z.repeat(N, 1)[:, None]"),
     EVERY_COST),
    ("q6", "goals in the wrong order", GOAL, ("z_goal.repeat_interleave(N, 0)", "z_goal.repeat(N, 1)"), EVERY_COST),
    ("q6", "how far from the start", GOAL, ("- z_goal.", "- z."), EVERY_COST),
    ("q6", "starts at the goal", GOAL, ("imagine(z.", "imagine(z_goal."), EVERY_COST),
    ("q6", "one start for all", GOAL, ("imagine(z.", "imagine(z[:1].expand_as(z)."), EVERY_COST),
    ("q6", "one goal for all", GOAL, ("- z_goal.", "- z_goal[:1].expand_as(z)."), EVERY_COST),
    ("q6", "a mean over D", GOAL, (".sum(-1)", ".mean(-1)"), EVERY_COST),
    ("q6", "not squared", GOAL, (".pow(2).sum(-1)", ".norm(dim=-1)"), EVERY_COST),
    ("q6", "a score, not a cost", GOAL, ("return (", "return -("), EVERY_COST),
    ("q6", "the first imagined latent", GOAL, ("[:, -1]", "[:, 0]"), EVERY_COST),
    ("q6", "a mean over the way", GOAL, ("[:, -1]", ".mean(1)"), EVERY_COST),
    ("q6", "plans and problems swapped", GOAL, (".view(B, N)", ".view(N, B).T"), EVERY_COST),
    ("q6", "one call a plan", GOAL, ("imagine(z.repeat_interleave(N, 0)[:, None], blocks.reshape(B * N, H, K))[:, -1]",
     "torch.stack([imagine(z[:, None], blocks[:, n])[:, -1] for n in range(N)], 1).flatten(0, 1)"), EVERY_COST),
    ("q6", "the dearest are the elites", CEM, ("largest=False", "largest=True"), EVERY_CEM),
    ("q6", "one problem chooses for all", CEM, ("zip(plans, best)", "zip(plans, best[:1].expand_as(best))"), EVERY_CEM),
    ("q6", "the elites of all problems together", CEM, ("torch.stack([p[i] for p, i in zip(plans, best)])",
     "plans.flatten(0, 1)[price.flatten().topk(elites, largest=False).indices].expand(len(plans), -1, -1, -1)"),
     EVERY_CEM),
    ("q6", "the spread stays", CEM, ("chosen.std(1, correction=0)", "std"), EVERY_CEM),
    ("q6", "the mean stays", CEM, ("mean, std = chosen.mean(1),", "mean, std = mean,"), EVERY_CEM),
    ("q6", "the spread of all draws", CEM, ("chosen.std(1,", "plans.std(1,"), EVERY_CEM),
    ("q6", "one spread for all numbers", CEM, ("chosen.std(1, correction=0)",
     "chosen.std((1, 2, 3), correction=0)[:, None, None].expand(shape)"), EVERY_CEM),
    ("q6", "one spread for all problems", CEM, ("chosen.std(1, correction=0)",
     "chosen.std(1, correction=0).mean(0).expand(shape)"), {FOLLOWED}),
    ("q6", "the variance as spread", CEM, ("chosen.std(1, correction=0)", "chosen.var(1, correction=0)"),
     {LINEAR, FOLLOWED}),
    ("q6", "one elite has no spread", CEM, ("chosen.std(1, correction=0)",
     "(chosen - chosen.mean(1, True)).square().sum(1).div(elites - 1).sqrt()"), {BROKEN}),
    ("q6", "a spread that never dies", CEM, ("correction=0)", "correction=0).clamp(min=0.3)"), EVERY_CEM),
    ("q6", "a spread of 2 at first", CEM, ("torch.ones(shape)", "2 * torch.ones(shape)"), {FOLLOWED}),
    ("q6", "the best plan in place of the mean", CEM, ("return mean", "return chosen[:, 0]"), {FOLLOWED}),
    ("q6", "an iteration too few", CEM, ("range(iterations)", "range(iterations - 1)"), {FOLLOWED, BROKEN}),
    ("q6", "cut to what motors can do", CEM, ("mean[:, None] + std[:, None] * noise",
     "(mean[:, None] + std[:, None] * noise).clamp(-1, 1)"), {FOLLOWED}),
    ("q6", "uniform draws", CEM, ("torch.randn(shape[0], samples, *shape[1:], generator=generator)",
     "3.46 * (torch.rand(shape[0], samples, *shape[1:], generator=generator) - 0.5)"), {FOLLOWED}),
    ("q6", "draws from nowhere", CEM, (", generator=generator", ""), {FOLLOWED}),
    ("q6", "draws around 0", CEM, ("mean[:, None] + ", ""), EVERY_CEM),
    ("q6", "all elites weigh by their cost", CEM, ("chosen.mean(1)",
     "(chosen * (-price.gather(1, best)).softmax(1)[..., None, None]).sum(1)"), {FOLLOWED}),
    ("q6", "NaN is a bargain", CEM, ("torch.where(price.isfinite(), price, torch.inf)", "price.nan_to_num(nan=0.0)"),
     {BROKEN}),
    ("q6", "the broken are free", CEM, ("torch.where(price.isfinite(), price, torch.inf)",
     "torch.where(price.isfinite(), price, 0.0)"), {BROKEN}),
    ("q7", "a sum over the window", FILM, (".sum(1) / window", ".sum(1)"), EVERY_SCORE),
    ("q7", "the window is ignored", FILM, ("B, L = traces.shape", "B, L = traces.shape\n        window = 1"),
     EVERY_SCORE),
    ("q7", "a mean over the film", FILM, (".max(1).values", ".mean(1)"), EVERY_SCORE),
    ("q7", "the lowest window", FILM, (".max(1)", ".min(1)"), EVERY_SCORE),
    ("q7", "the highest in a window, then a mean", FILM, ("].sum(1) / window", "].amax(1)"), EVERY_SCORE),
    ("q7", "the last window is missed", FILM, ("range(L - window + 1)", "range(max(1, L - window))"), EVERY_SCORE),
    ("q7", "windows side by side", FILM, ("range(L - window + 1)", "range(0, L - window + 1, window)"), {WINDOWS}),
    ("q7", "windows that hang over the edge", FILM, ("range(L - window + 1)", "range(1 - window, L)"), {WINDOWS}),
    ("q7", "one score for all films", FILM, (".max(1).values", ".max(1).values.max().expand(B).clone()"), EVERY_SCORE),
    ("q7", "NaN hides", FILM, ("B, L = traces.shape",
     "B, L = traces.shape\n        traces = traces.nan_to_num(nan=0.0)"), {WINDOWS}),
    ("q7", "NaN spreads", FILM, ("score[traces.isnan().any(1)] = torch.inf", "pass"), {WINDOWS}),
    ("q7", "windows are not checked", FILM, ("window < 1 or window > L", "False"), {WINDOWS}),
    ("q7", "a window of 0 passes", FILM, ("window < 1 or", ""), {WINDOWS}),
    ("q7", "between two scores", LEVEL, ("n = len(calm)", "return float(calm.quantile(1 - rate))"), EVERY_LEVEL),
    ("q7", "three standard deviations", LEVEL, ("n = len(calm)", "return float(calm.mean() + 3 * calm.std())"),
     EVERY_LEVEL),
    ("q7", "the highest", LEVEL, ("n = len(calm)", "return float(calm.max())"), EVERY_LEVEL),
    ("q7", "the new film is not counted", LEVEL, ("(n + 1) * rate, 6", "n * rate + 1, 6"), EVERY_LEVEL),
    ("q7", "a share of N", LEVEL, ("math.floor(round((n + 1) * rate, 6))", "max(1, math.floor(n * rate))"),
     EVERY_LEVEL),
    ("q7", "rounded the wrong way", LEVEL, ("math.floor", "math.ceil"), EVERY_LEVEL),
    ("q7", "one too high", LEVEL, ("values[k - 1]", "values[min(k, n - 1)]"), EVERY_LEVEL),
    ("q7", "one too low", LEVEL, ("values[k - 1]", "values[k - 2]"), EVERY_LEVEL),
    ("q7", "the other end", LEVEL, ("values[k - 1]", "values[n - k]"), EVERY_LEVEL),
    ("q7", "not sorted", LEVEL, ("torch.sort(calm).values", "calm"), EVERY_LEVEL),
    ("q7", "sorted by size alone", LEVEL, ("torch.sort(calm)", "torch.sort(calm.abs())"), {PROMISE}),
    ("q7", "ties count once", LEVEL, ("n = len(calm)", "calm = calm.unique()\n        n = len(calm)"), {PROMISE}),
    ("q7", "rounded down what is whole", LEVEL, ("round((n + 1) * rate, 6)", "(n + 1) * rate"), {PROMISE}),
    ("q7", "too few films will do", LEVEL, ("if k > n", "k = min(k, n)\n        if False"), {PROMISE}),
    ("q7", "a message that says nothing", LEVEL, ('f"{needed} films"', '"too few films"'), {PROMISE}),
    ("q7", "the judged set the level", ALARMS, ("score(calm)", "score(traces)"), {CALM}),
    ("q7", "the judged have a say", ALARMS, ("score(calm)", "torch.cat((score(calm), score(traces)))"), {CALM}),
    ("q7", "steps set the level", ALARMS, ("score(calm)", "calm.flatten()"), {CALM}),
    ("q7", "the highest of the calm", ALARMS, ("level(score(calm))", "score(calm).max()"), {CALM}),
    ("q7", "a tie is an alarm", ALARMS, ("s > highest", "s >= highest"), {CALM}),
    ("q7", "NaN is calm", ALARMS, ("math.isnan(s) or ", ""), {CALM}),
    ("q7", "infinity is calm", ALARMS, ("s > highest", "highest < s < math.inf"), {CALM}),
    ("q7", "the calm are the alarms", ALARMS, ("s > highest", "s < highest"), {CALM}),
    ("q7", "one verdict for all", ALARMS, ("return torch.tensor(", "return any("), {CALM}),
    ("q7", "numbers in place of verdicts", ALARMS, ("bool(math.isnan(s) or s > highest)", "float(s > highest)"),
     {CALM}),
]  # fmt: skip


@pytest.mark.parametrize("wrong", cases(WRONG_ANSWERS))
def test_a_wrong_answer_loses_exactly_the_marks_it_should(lab, solved, wrong):
    check_wrong_answer(lab, solved, wrong)


@pytest.mark.parametrize("right", cases(RIGHT_ANSWERS))
def test_other_right_answers_earn_all(lab, solved, right):
    assert failing_with(lab, solved, right[0], right[2]) == set()


def test_each_hidden_test_rejects_two_wrong_answers(lab):
    assert rejected_less_than_twice(lab, WRONG_ANSWERS) == []
