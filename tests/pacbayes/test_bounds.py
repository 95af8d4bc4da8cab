"""Each bound against its formula in fifty digits, the papers' code, and the frequency with which it fails."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
import torch
from mpmath import mp, mpf
from pacbayes.digits import mp_inverse

from minilab.pacbayes import bounds
from minilab.pacbayes.bounds import (
    Certificate,
    catoni,
    catoni_at,
    classic,
    clopper_pearson,
    gibbs,
    kl_inverse,
    maurer,
    mcallester,
    nats_of,
    occam_binomial,
    occam_hoeffding,
    occam_kl,
    prefix_free_bits,
    quadratic,
    ranked_nats,
    thiemann,
    thiemann_lam,
    uniform_nats,
    unseen,
    warn_if_dependent,
    xi,
)

CASES = [(0.18, 60_000, 1500.0, 0.05), (0.0, 500, 3.0, 0.01), (0.45, 1437, 60.0, 0.1), (0.7, 60, 100.0, 0.05),
         (0.02, 10, 0.0, 0.5)]
NAMES = ("occam_hoeffding", "occam_kl", "maurer", "mcallester", "classic", "quadratic")


# Values.


def in_fifty_digits(name: str, risk, n, nats, delta) -> mpf:
    r, n, K, d = (mpf(x) for x in (risk, n, nats, delta))
    B = (K + mp.log(2 * mp.sqrt(n) / d)) / (2 * n)
    return {
        "occam_hoeffding": lambda: r + mp.sqrt((K + mp.log(1 / d)) / (2 * n)),
        "occam_kl": lambda: mp_inverse(r, (K + mp.log(1 / d)) / n, 1),
        "maurer": lambda: mp_inverse(r, 2 * B, 1),
        "mcallester": lambda: r + mp.sqrt((K + mp.log(1 / d) + mp.log(n)) / (2 * n - 1)),
        "classic": lambda: r + mp.sqrt(B),
        "quadratic": lambda: (mp.sqrt(r + B) + mp.sqrt(B)) ** 2,
    }[name]()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_formulas_agree_with_fifty_digits(name, case):
    found = getattr(bounds, name)(*case)
    assert isinstance(found, float)
    assert found == pytest.approx(float(in_fifty_digits(name, *case)), rel=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_catoni_finds_the_best_lambda_of_fifty_digits(case):
    r, n, K, d = (mpf(x) for x in case)

    def at(log_lam):
        lam, a = mp.exp(log_lam), mpf("1.0001")
        q = r + a / lam * (K + mp.log(1 / d) + 2 * mp.log(2 + log_lam / mp.log(a)))
        return (1 - mp.exp(-lam * q / n)) / (1 - mp.exp(-lam / n))

    low, high = mpf(0), mp.log(50 * n)
    for _ in range(60):  # golden section, by thirds
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, b) if at(a) < at(b) else (a, high)
    assert catoni(*case) == pytest.approx(float(at(low)), rel=1e-9)


def test_the_sheet_of_one_setting():
    setting = (0.18, 60_000, 1500.0, 0.05)
    found = [f(*setting) for f in (occam_hoeffding, occam_kl, maurer, catoni, classic, quadratic, mcallester)]
    assert found == pytest.approx([0.291915, 0.275769, 0.275984, 0.276575, 0.292145, 0.303580, 0.292324], abs=1e-6)
    assert occam_binomial(10_800, *setting[1:]) == pytest.approx(0.275609, abs=1e-6)


@pytest.mark.parametrize("n, risk, bits, percent", [
    (50_000, 0.38848, 4788.4359 - 2, 57.0633), (50_000, 0.3216, 8258.0148, 55.9651),
    (60_000, 0.042283, 4614.3298, 14.1601), (50_000, 0.13624, 8488.0942, 35.1236),
    (50_000, 0.45886, 22490.9107, 81.2918), (73_257, 0.100223, 11355.936, 29.1258)])
def test_rows_that_the_code_of_lotfi_et_al_has_stored(n, risk, bits, percent):
    assert 100 * catoni(risk, n, nats_of(bits), 0.05) == pytest.approx(percent, abs=2e-4)


@pytest.mark.parametrize("n, risk, bits, percent", [
    (12_000, 0.7008, 636.55, 81.37), (60_000, 0.7042, 5724, 84.80), (60_000, 0.8082, 776, 85.72)])
def test_rows_where_their_search_ran_off_to_one_hundred(n, risk, bits, percent):
    assert 100 * occam_kl(risk, n, nats_of(bits), 0.05) == pytest.approx(percent, abs=0.01)
    assert percent < 100 * catoni(risk, n, nats_of(bits), 0.05) < percent + 0.5


@pytest.mark.parametrize("k, n, exact, chernoff", [(18, 360, 0.073246, 0.083174), (5, 360, 0.028980, 0.034708),
                                                   (50, 1000, 0.062863, 0.068685), (100, 10_000, 0.011797, 0.012635)])
def test_a_test_set(k, n, exact, chernoff):
    assert clopper_pearson(k, n, 0.05) == pytest.approx(exact, abs=1e-6)
    assert occam_kl(k / n, n, 0.0, 0.05) == pytest.approx(chernoff, abs=1e-6)
    fitted = scipy.stats.binomtest(k, n, alternative="less").proportion_ci(0.95, method="exact").high
    assert clopper_pearson(k, n, 0.05) == pytest.approx(fitted, rel=1e-9)


@pytest.mark.parametrize("draws, both_sides", [(200, 0.0834), (1000, 0.0484), (10_000, 0.0337), (150_000, 0.0294)])
def test_what_drawing_classifiers_costs(draws, both_sides):
    """Published code pays ln(2/delta'), as if the other side mattered too."""
    inner = occam_kl(0.028, draws, 0.0, 0.005)
    assert inner == pytest.approx(both_sides, abs=5e-5)
    assert gibbs(0.028, draws, 55_000, 5144.0, 0.025, 0.005) == maurer(inner, 55_000, 5144.0, 0.025)
    assert gibbs(0.028, draws, 55_000, 5144.0, 0.025, 0.01) < gibbs(0.028, draws, 55_000, 5144.0, 0.025, 0.005)


# How they lie to each other.


@pytest.mark.parametrize("case", CASES)
def test_orderings(case):
    risk, n, nats, delta = case
    exact = occam_binomial(round(risk * n), n, nats, delta)
    by_kl = occam_kl(round(risk * n) / n, n, nats, delta)
    assert exact <= by_kl <= occam_hoeffding(round(risk * n) / n, n, nats, delta)
    assert occam_kl(*case) <= min(maurer(*case), catoni(*case)) + 1e-12
    assert maurer(*case) <= min(1, classic(*case), quadratic(*case))
    assert classic(*case) <= mcallester(*case)
    assert maurer(*case, sharp=True) < maurer(*case) or maurer(*case) == 1


@pytest.mark.parametrize("case", CASES)
def test_what_is_smallest_over_a_parameter_is_another_bound(case):
    lam = torch.linspace(0.0005, 1.9995, 4000, dtype=torch.float64)
    best = thiemann_lam(*case)
    assert quadratic(*case) == pytest.approx(thiemann(*case, best), rel=1e-12)
    assert quadratic(*case) <= float(thiemann(*case, lam).min()) <= quadratic(*case) * (1 + 1e-4)
    beta = torch.logspace(-3, 1.7, 20_000, dtype=torch.float64)
    assert occam_kl(*case) == pytest.approx(float(catoni_at(*case, beta).min()), rel=2e-6)


def test_the_constant_of_maurer_is_an_expectation_that_does_not_depend_on_p():
    n, k = 100, np.arange(101)
    for p in (0.02, 0.4, 0.9):
        growth = [math.exp(n * coins_kl(j / n, p)) for j in k]
        assert scipy.stats.binom.pmf(k, n, p) @ growth == pytest.approx(xi(n), rel=1e-9)
    assert all(math.sqrt(n) <= xi(n) <= 2 * math.sqrt(n) + 1e-12 for n in range(1, 300))
    assert [xi(n) for n in (100, 1437, 4000, 60_000)] == pytest.approx([13.21, 48.18, 79.93, 307.67], abs=5e-3)


def coins_kl(q: float, p: float) -> float:
    return float(scipy.stats.entropy([q, 1 - q], [p, 1 - p]))


@pytest.mark.parametrize("bound", [occam_hoeffding, occam_kl, maurer, catoni, mcallester, classic, quadratic])
def test_objectives_have_the_gradient_of_finite_differences_and_work_on_lists(bound):
    risk = torch.tensor([0.05, 0.3], dtype=torch.float64, requires_grad=True)
    nats = torch.tensor([[20.0], [200.0]], dtype=torch.float64, requires_grad=True)
    n = torch.tensor([1000, 1000])
    assert torch.autograd.gradcheck(lambda r, K: bound(r, n, K, 0.05), (risk, nats), atol=1e-6)
    assert bound(risk, n, nats, 0.05)[1, 0].item() == bound(0.05, 1000, 200.0, 0.05)


def test_counts_work_on_lists():
    found = clopper_pearson(torch.tensor([0, 3, 50]), torch.tensor([10, 1000, 50]), 0.05)
    assert found.tolist() == [clopper_pearson(0, 10, 0.05), clopper_pearson(3, 1000, 0.05), 1.0]


# How often they fail.


@pytest.mark.parametrize("n", [1, 13, 200])
def test_a_test_set_fails_with_probability_delta_and_more_with_one_error_less(n):
    """Exact, over all true risks. With one error less the chance of failure passes delta."""
    delta, k = 0.1, torch.arange(n + 1)
    bound = clopper_pearson(k, n, delta).numpy()
    risks = np.union1d(np.linspace(0.001, 0.999, 501), bound[bound < 1] + 1e-9)
    seen = scipy.stats.binom.pmf(k.numpy(), n, risks[:, None])
    assert ((bound < risks[:, None]) * seen).sum(axis=1).max() == pytest.approx(delta, abs=1e-6)
    fewer = clopper_pearson((k - 1).clamp(min=0), n, delta).numpy()
    assert ((fewer < risks[:, None]) * seen).sum(axis=1).max() > 1.5 * delta


DELTA = 0.05


@pytest.mark.parametrize("bound", [occam_hoeffding, occam_kl, occam_binomial])
def test_the_best_of_many_needs_its_nats_and_delta(bound):
    """200 independent hypotheses, of which the one with the fewest errors is kept: it looks better than it is."""
    g, n, K = np.random.default_rng(1), 60, 200
    risks = np.linspace(0.25, 0.35, K)
    errors = g.binomial(n, risks, size=(4000, K))
    best = errors.argmin(axis=1)
    seen, true = torch.from_numpy(errors.min(axis=1)), risks[best]
    seen = seen if bound is occam_binomial else seen / n

    def failures(nats: float, delta: float) -> float:
        return (bound(seen, n, nats, delta).numpy() < true).mean()

    assert failures(uniform_nats(K), DELTA) <= DELTA
    assert failures(0.0, DELTA) > 3 * DELTA
    if bound is occam_binomial:  # a union over independent hypotheses loses little: also ln 1/delta is needed
        assert failures(uniform_nats(K), DELTA) > DELTA / 5
        assert failures(uniform_nats(K), 0.999) > 5 * DELTA


@pytest.mark.parametrize("bound", [maurer, mcallester, classic, quadratic, catoni])
def test_a_posterior_needs_its_kl(bound):
    """A table of 400 answers, each learned from an example or two, of which the labels are coins. All tables are wrong
    half of the time, and the posterior follows the majority in each cell."""
    g, n, cells = np.random.default_rng(2), 400, 400
    count = g.multinomial(n, np.full(cells, 1 / cells), size=4000)
    heads = g.binomial(count, 0.5)
    says_heads = 1 / (1 + np.exp(-2.0 * (2 * heads - count)))
    seen = (heads * (1 - says_heads) + (count - heads) * says_heads).sum(axis=1) / n
    kl = (math.log(2) - scipy.stats.bernoulli.entropy(says_heads)).sum(axis=1)
    seen, kl = torch.from_numpy(seen), torch.from_numpy(kl)
    assert (bound(seen, n, kl, DELTA) < 0.5).double().mean() <= DELTA
    assert (bound(seen, n, 0.0, DELTA) < 0.5).double().mean() > 0.5


def test_a_posterior_needs_its_delta_even_where_it_does_not_move():
    """Exact: with Q = P and delta = 1e-4, what ln 2√n alone would allow fails a hundred times as often."""
    n, risk, delta, k = 50, 0.3, 1e-4, np.arange(51)
    chance = scipy.stats.binom.pmf(k, n, risk)
    assert chance @ (maurer(torch.from_numpy(k / n), n, 0.0, delta).numpy() < risk) <= delta
    without = kl_inverse(torch.from_numpy(k / n), math.log(2 * math.sqrt(n)) / n).numpy()
    assert chance @ (without < risk) > 50 * delta


def test_a_measured_empirical_risk_needs_the_term_for_its_draws():
    """n is so large that only the 30 draws are uncertain."""
    g, true, draws, n = np.random.default_rng(3), 0.3, 30, 10**9
    measured = torch.from_numpy(g.binomial(draws, true, size=4000) / draws)
    assert (gibbs(measured, draws, n, 0.0, 0.01, DELTA) < true).double().mean() <= DELTA
    assert (maurer(measured, n, 0.0, 0.01) < true).double().mean() > 0.3


def test_a_learned_prior_has_used_up_its_examples():
    """Labels are coins, and the prior knows half of them by heart. Risk and n of all examples certify it; wrongly."""
    g, n = np.random.default_rng(4), 100
    rest = unseen(n, torch.arange(0, n, 2))
    assert rest.tolist() == list(range(1, n, 2))
    fresh = torch.from_numpy(g.binomial(len(rest), 0.5, size=4000))
    assert (occam_binomial(fresh, len(rest), 0.0, DELTA) < 0.5).double().mean() <= DELTA
    assert (occam_binomial(fresh, n, 0.0, DELTA) < 0.5).double().mean() > 0.9


# What complexity costs.


def test_messages_that_say_where_they_end_are_a_prior():
    """Of each length there are 2^bits. Over the lengths below 2^J the sum is 1 - 2^-J: nothing is wasted."""
    mass = sum(Fraction(2**bits, 2 ** prefix_free_bits(bits)) for bits in range(1, 2**10))
    assert mass == 1 - Fraction(1, 2**10)
    assert all(abs(prefix_free_bits(bits) - (bits + 2 * math.log2(bits))) <= 1 for bits in (1, 2, 1000, 2187, 10**12))


def test_settings_in_an_endless_list_are_a_prior():
    assert sum(math.exp(-ranked_nats(j)) for j in range(1, 1000)) == pytest.approx(1 - 1 / 1000)
    assert sum(math.exp(-uniform_nats(12)) for _ in range(12)) == pytest.approx(1)
    assert nats_of(3) == pytest.approx(uniform_nats(8))


def test_a_budget_of_bits():
    """Percent at 60,000 examples: the sheet's table."""
    for risk, row in ((0.05, (6.8, 7.7, 9.0, 11.1, 14.4)), (0.1, (12.5, 13.5, 15.2, 17.7, 21.5)),
                      (0.2, (23.2, 24.5, 26.5, 29.4, 33.8))):
        bits = torch.tensor([250, 500, 1000, 2000, 4000])
        assert (100 * occam_kl(risk, 60_000, bits * math.log(2), 0.05)).tolist() == pytest.approx(row, abs=0.06)


# What is said and refused.


def test_a_bound_above_a_guess_is_vacuous_and_not_clipped():
    assert occam_hoeffding(0.9, 100, 500.0, 0.05) > 1.5
    shuffled = Certificate(0.953, guess=0.9)
    assert shuffled.vacuous and "vacuous" in str(shuffled)
    assert not Certificate(0.279, guess=0.9).vacuous and str(Certificate(0.279)) == "27.9%"
    assert Certificate(1.0).vacuous and Certificate(math.inf).vacuous
    with pytest.raises(ValueError, match="guess"):
        Certificate(math.nan)


@pytest.mark.parametrize("bound", [occam_hoeffding, occam_kl, maurer, catoni, mcallester, classic, quadratic])
def test_a_hypothesis_without_prior_mass_has_no_bound_and_a_warning(bound):
    with pytest.warns(UserWarning, match="no mass"):
        assert bound(0.1, 1000, math.inf, 0.05) >= 1


@pytest.mark.parametrize("bound", [occam_hoeffding, occam_kl, maurer, catoni, mcallester, classic, quadratic])
@pytest.mark.parametrize("risk, n, nats, delta, match", [
    (1.2, 100, 1.0, 0.05, "largest possible loss"), (-0.1, 100, 1.0, 0.05, "largest possible loss"),
    (math.nan, 100, 1.0, 0.05, "largest possible loss"), (0.1, 0, 1.0, 0.05, "at least 1 example"),
    (0.1, 100, -1.0, 0.05, "never negative"), (0.1, 100, math.nan, 0.05, "never negative"),
    (0.1, 100, 1.0, 0.0, "between 0 and 1"), (0.1, 100, 1.0, 1.0, "between 0 and 1")])
def test_bad_input_is_refused(bound, risk, n, nats, delta, match):
    with pytest.raises(ValueError, match=match):
        bound(risk, n, nats, delta)
    with pytest.raises(ValueError, match=match):
        bound(torch.tensor([0.1, risk]), n, nats, delta)


def test_bad_counts_and_parameters_are_refused():
    for errors in (11, -1, 0.5):
        with pytest.raises(ValueError, match="not a rate"):
            clopper_pearson(errors, 10, 0.05)
    with pytest.raises(ValueError, match="between 0 and 2"):
        thiemann(0.1, 100, 1.0, 0.05, 2.0)
    with pytest.raises(ValueError, match="positive"):
        catoni_at(0.1, 100, 1.0, 0.05, 0.0)
    for given in (lambda: prefix_free_bits(0), lambda: uniform_nats(0), lambda: ranked_nats(0)):
        with pytest.raises(ValueError):
            given()
    with pytest.raises(ValueError, match="seen all 3"):
        unseen(3, torch.arange(3))


def test_examples_that_hang_together_are_noticed_and_independent_ones_are_not():
    g = torch.Generator().manual_seed(5)
    coins = (torch.rand(5000, generator=g) < 0.2).double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(200):
            warn_if_dependent(coins[torch.randperm(5000, generator=g)])
        warn_if_dependent(torch.zeros(10))
    for together in (coins.sort().values, coins.repeat_interleave(2)):  # sorted by class; each example twice
        with pytest.warns(UserWarning, match="not independent"):
            warn_if_dependent(together)
