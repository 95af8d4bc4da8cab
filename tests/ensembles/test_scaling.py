"""Planted laws, scipy's fits, published numbers, and how often an interval holds the truth."""

import math
import warnings

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

from minilab.ensembles.evaluate import KCurve, all_subsets
from minilab.ensembles.laws import MUENNIGHOFF, Chinchilla, Muennighoff, fit_chinchilla
from minilab.ensembles.limits import data_efficiency, efficiency_between, nested_limit, two_member_limit
from minilab.ensembles.scaling import (
    GRID,
    HIGHEST,
    LOWEST,
    PowerLaw,
    bootstrap,
    fit_power_law,
    nonnegative,
    percentiles,
    profile_interval,
)

# Kim et al. (2025), kept in their plotting code: the limit over members at 0.15, 0.3, 0.6 and 1.4 billion parameters.
SIZES = [0.15, 0.3, 0.6, 1.4]
ASYMPTOTES = {"200M": [3.495, 3.273, 3.212, 3.174], "400M": [3.400, 3.150, 3.052, 3.003],
              "800M": [3.358, 3.102, 2.906, 2.868], "1.6B": [3.300, 3.017, 2.826, 2.752]}
# Their laws over billions of tokens.
STANDARD, REGULARIZED, JOINT = PowerLaw(1.30, 0.23, 1.89), PowerLaw(1.03, 0.23, 1.96), PowerLaw(0.88, 0.24, 1.90)

LAWS = [PowerLaw(0.25, 1.02, 3.34), PowerLaw(0.05, 1.02, 3.43), PowerLaw(1.3, 0.23, 1.89), PowerLaw(0.016, 1.59, 3.169),
        PowerLaw(5.0, 0.5, 0.0)]
KS = np.arange(1.0, 9.0)


def rng(seed=0):
    return np.random.default_rng(seed)


# The fit.


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("x", [KS, np.array([0.15, 0.3, 0.6, 1.4]), np.array([0.2, 0.4, 0.8])])
def test_a_planted_law_comes_back(law, x):
    fit = fit_power_law(x, law(x))
    assert (fit.law.A, fit.law.alpha, fit.law.E) == pytest.approx((law.A, law.alpha, law.E), rel=1e-5, abs=1e-5)
    assert fit.exponent == "found" and np.abs(fit.residuals).max() < 1e-9


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("weighted", [False, True])
def test_the_squares_are_as_few_as_scipy_finds(seed, weighted):
    g, law = rng(seed), LAWS[seed % 4]
    x = np.geomspace(0.15, 8, 7)
    losses, weights = law(x) + 0.01 * g.standard_normal(7), g.uniform(0.5, 2, 7) if weighted else np.ones(7)
    fit = fit_power_law(x, losses, weights=weights)
    (A, alpha, E), _ = scipy.optimize.curve_fit(
        lambda x, A, alpha, E: A / x**alpha + E, x, losses, p0=(law.A, law.alpha, law.E), sigma=weights**-0.5,
        bounds=([0, LOWEST, 0], [np.inf, HIGHEST, np.inf]), xtol=1e-14, ftol=1e-14, gtol=1e-14, max_nfev=20_000)
    reference = weights @ (losses - A / x**alpha - E) ** 2
    assert fit.rss <= reference * (1 + 1e-9)
    assert fit.rss == pytest.approx(reference, rel=1e-6)
    assert (fit.law.A, fit.law.alpha, fit.law.E) == pytest.approx((A, alpha, E), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_nonnegative_least_squares_are_those_of_scipy(p):
    g = rng(p)
    for _ in range(50):
        M, y, weights = g.standard_normal((6, p)), g.standard_normal(6), g.uniform(0.5, 2, 6)
        found, rss = nonnegative(list(M.T), y, weights)
        reference, norm = scipy.optimize.nnls(M * weights[:, None] ** 0.5, y * weights**0.5)
        assert found == pytest.approx(reference, abs=1e-9) and float(rss) == pytest.approx(norm**2)


@pytest.mark.parametrize("unit", [1e-9, 1e6, 1e9])
def test_units_of_x_change_A_alone(unit):
    x, losses = np.array(SIZES), np.array(ASYMPTOTES["800M"])
    fit, scaled = fit_power_law(x, losses), fit_power_law(x * unit, losses)
    assert scaled.law.alpha == pytest.approx(fit.law.alpha, rel=1e-6)
    assert scaled.law.E == pytest.approx(fit.law.E, rel=1e-8)
    assert scaled.law.A == pytest.approx(fit.law.A * unit**fit.law.alpha, rel=1e-5)
    assert scaled.profile.rss == pytest.approx(fit.profile.rss, rel=1e-6)
    for parameter in ("E", "alpha"):
        a, b = (profile_interval(f, parameter, noise=0.02) for f in (fit, scaled))
        assert (a.low, a.high) == pytest.approx((b.low, b.high), rel=1e-6)


def test_the_profile_is_the_best_fit_at_each_exponent_and_rises_on_both_sides():
    law, g = LAWS[0], rng(1)
    losses = law(KS) + 0.005 * g.standard_normal(8)
    fit = fit_power_law(KS, losses)
    for i in (0, 60, 90, 127):
        given = fit_power_law(KS, losses, alpha=GRID[i])
        assert given.exponent == "given" and given.rss == pytest.approx(fit.profile.rss[i], rel=1e-9)
        laws = fit.profile.laws
        assert (laws.A[i], laws.E[i]) == pytest.approx((given.law.A, given.law.E))
    best = int(fit.profile.rss.argmin())
    assert (np.diff(fit.profile.rss[: best + 1]) <= 1e-15).all() and (np.diff(fit.profile.rss[best:]) >= -1e-15).all()
    assert fit.rss <= fit.profile.rss.min() and abs(GRID[best] / fit.law.alpha - 1) < 0.04


def test_an_exponent_given_is_a_straight_line_in_its_power():
    losses = 0.3 / KS + 3 + 0.01 * rng(2).standard_normal(8)
    line = scipy.stats.linregress(1 / KS, losses)
    fit = fit_power_law(KS, losses, alpha=1)
    assert (fit.law.A, fit.law.E) == pytest.approx((line.slope, line.intercept)) and fit.spare == 6
    interval = profile_interval(fit)
    half = scipy.stats.t.ppf(0.975, 6) * line.intercept_stderr
    assert (interval.low, interval.high) == pytest.approx((line.intercept - half, line.intercept + half), rel=1e-7)


def test_an_exponent_at_its_end_is_said():
    step = np.array([4.0, 3, 3, 3, 3, 3, 3, 3])
    fit = fit_power_law(KS, step)
    assert fit.exponent == "highest" and fit.law.alpha == pytest.approx(HIGHEST)
    assert profile_interval(fit, "alpha", noise=0.1).open_high
    logarithm = fit_power_law(KS, 60 - np.log(KS))  # the law of exponent 0
    assert logarithm.exponent == "lowest" and logarithm.law.alpha == pytest.approx(LOWEST)
    rising = fit_power_law(KS, 3 + 0.1 * KS)
    assert rising.exponent == "any" and rising.law.A == 0 and rising.law.E == pytest.approx(3.45)


def test_an_asymptote_is_not_negative():
    """Losses that fall in a line have their asymptote below 0."""
    fit = fit_power_law(KS, 5 - 0.6 * KS)
    assert fit.law.E == 0 and fit.law.A > 0


# Intervals.


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("spare", [1, 2, 5, 30])
def test_the_quantiles_are_those_of_F(level, spare):
    """Read off the interval of a straight line, of which the exact one is known."""
    x, g = np.linspace(1, 9, spare + 2), rng(spare)
    losses = 20 + 5 / x + 0.01 * g.standard_normal(spare + 2)
    line = scipy.stats.linregress(1 / x, losses)
    half = scipy.stats.t.ppf((1 + level) / 2, spare) * line.intercept_stderr
    interval = profile_interval(fit_power_law(x, losses, alpha=1), level=level)
    assert (interval.low, interval.high) == pytest.approx((line.intercept - half, line.intercept + half), rel=1e-7)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """Of 120 with level 0.8, 96 are expected and 83 to 109 are three deviations; with the noise known and unknown."""
    g, law, held = rng(3), LAWS[0], np.zeros(4)
    for _ in range(120):
        fit = fit_power_law(KS, law(KS) + 0.004 * g.standard_normal(8))
        for i, (parameter, truth) in enumerate((("E", law.E), ("alpha", law.alpha))):
            for j, noise in enumerate((None, 0.004)):
                interval = profile_interval(fit, parameter, level=0.8, noise=noise)
                held[2 * i + j] += interval.low <= truth <= interval.high
    assert (held >= 83).all() and (held <= 109).all()


def test_at_the_edge_of_an_interval_the_squares_are_what_chance_allows():
    """By scipy's constrained fits, which share nothing with our search."""
    losses = LAWS[0](KS) + 0.01 * rng(4).standard_normal(8)
    fit = fit_power_law(KS, losses)
    allowed = fit.rss * (1 + scipy.stats.f.ppf(0.95, 1, 5) / 5)
    interval = profile_interval(fit)
    for E in (interval.low, interval.high):
        best = scipy.optimize.least_squares(lambda p, E=E: p[0] / KS ** p[1] + E - losses, (0.3, 1.0), xtol=1e-14)
        assert 2 * best.cost == pytest.approx(allowed, rel=1e-5)
    interval = profile_interval(fit, "alpha")
    for alpha in (interval.low, interval.high):
        assert fit_power_law(KS, losses, alpha=alpha).rss == pytest.approx(allowed, rel=1e-6)


def test_four_points_hardly_determine_the_published_limit():
    """One spare point: at 95 percent nearly every asymptote fits what the paper fits with 3.17."""
    interval = profile_interval(fit_power_law(SIZES, ASYMPTOTES["200M"]))
    assert interval.low == 0 and interval.open_low and interval.high > 3.25


def test_a_flat_line_bounds_the_asymptote_of_losses_that_hardly_fall():
    """The interval then ends where the mean would, which no exponent has a part in."""
    losses = 3 + 0.1 * np.array([0.3, -1, 1, -1, 1, 0, -1, 0.7])
    interval = profile_interval(fit_power_law(KS, losses), noise=0.1)
    spread = ((losses - losses.mean()) ** 2).sum()
    fit = fit_power_law(KS, losses)
    room = fit.rss + 0.1**2 * scipy.stats.chi2.ppf(0.95, 1) - spread
    assert interval.high == pytest.approx(losses.mean() + (room / 8) ** 0.5, rel=1e-9) and not interval.open_high


def test_an_edge_that_only_the_range_of_exponents_makes_is_open():
    losses = 60 - np.log(KS)
    interval = profile_interval(fit_power_law(KS, losses), noise=0.001)
    assert interval.open_low and interval.low > 0


def test_resampled_means_vary_as_means_do():
    """With alpha given a law is linear in the means; E then has a variance that can be written down."""
    g = rng(5)
    groups = [0.3 / k + 3 + 0.02 * g.standard_normal(3) for k in KS]
    laws = bootstrap(KS, groups, g, draws=20_000, alpha=1)
    M = np.stack((1 / KS, np.ones(8)), axis=1)
    weight = np.linalg.pinv(M)[1]
    expected = (weight**2 @ [group.var(ddof=1) / 3 for group in groups]) ** 0.5
    assert laws.E.std() == pytest.approx(expected, rel=0.03)
    assert laws.E.mean() == pytest.approx(fit_power_law(KS, [x.mean() for x in groups], alpha=1).law.E, abs=1e-3)


def test_each_resampled_law_is_a_fit():
    groups = [LAWS[0](k) + 0.01 * rng(int(k)).standard_normal(2) for k in KS]
    laws = bootstrap(KS, groups, rng(6), draws=3)
    again = rng(6)
    picks = [group[again.integers(2, size=(3, 2))].mean(axis=1) for group in groups]
    for r in range(3):
        means = [group.mean() + 2**0.5 * (pick[r] - group.mean()) for group, pick in zip(groups, picks, strict=True)]
        law = fit_power_law(KS, means).law
        assert (laws.A[r], laws.alpha[r], laws.E[r]) == pytest.approx((law.A, law.alpha, law.E), rel=1e-6)


def test_percentiles_count_what_is_infinite():
    values = np.array([1.0] * 5 + [2.0] * 85 + [math.inf] * 10)
    interval = percentiles(values, level=0.9)
    assert interval.low == 1 and interval.high == math.inf
    assert percentiles(values, level=0.5).high == 2


# Limits.


def test_the_second_member_gives_the_limit_of_one_over_k():
    assert two_member_limit(0.25 + 3.34, 0.125 + 3.34) == pytest.approx(3.34)
    assert two_member_limit(3.57, 3.46) == pytest.approx(3.35)  # the paper's two losses; its fit over K has 3.34


@pytest.mark.parametrize("data, limit, tolerance", [("200M", 3.169, 6e-4), ("400M", 2.980, 1.1e-3),
                                                    ("800M", 2.789, 6e-4), ("1.6B", 2.657, 6e-4)])
def test_the_published_asymptotes_have_the_published_limit(data, limit, tolerance):
    fit = fit_power_law(SIZES, ASYMPTOTES[data])
    assert fit.law.E == pytest.approx(limit, abs=tolerance)
    if data == "200M":
        assert round(fit.law.E, 2) == 3.17


def nested_table(noise=0.0, members=6, seed=0):
    """Curves over members at four sizes, from a law of both."""
    g = rng(seed)
    K = np.arange(1, members + 1)
    return [0.05 / N**0.9 + 3.1 + (0.2 + 0.1 * N) / K + noise * g.standard_normal(members) for N in SIZES]


def test_a_planted_double_limit_comes_back():
    for member_alpha in (None, 1.0):
        nested = nested_limit(SIZES, nested_table(), member_alpha=member_alpha)
        assert nested.limit == pytest.approx(3.1, abs=1e-4) and nested.sizes.law.alpha == pytest.approx(0.9, rel=1e-3)
        assert [fit.law.A for fit in nested.members] == pytest.approx([0.2 + 0.1 * N for N in SIZES], rel=1e-4)
        assert nested.standard_error is None


def test_the_error_of_a_double_limit_is_that_of_its_members():
    """With both exponents given the limit is linear in the curves, so that the jackknife is exact: members whose loss
    lies e_k above a common curve move L(K) by the mean of e."""
    g, members = rng(8), 5
    excess = 0.02 * g.standard_normal((4, members))
    K = np.arange(1, members + 1)
    base = [0.05 / N + 3.1 for N in SIZES]
    curves = [b + 0.2 / K + e.mean() for b, e in zip(base, excess, strict=True)]
    left_out = [np.stack([b + 0.2 / K[:-1] + np.delete(e, k).mean() for k in range(members)])
                for b, e in zip(base, excess, strict=True)]
    nested = nested_limit(SIZES, curves, member_alpha=1, size_alpha=1, left_out=left_out)
    weight = np.linalg.pinv(np.stack((1 / np.array(SIZES), np.ones(4)), axis=1))[1]
    assert nested.standard_error == pytest.approx((weight**2 @ (excess.var(axis=1, ddof=1) / members)) ** 0.5, rel=1e-6)


def test_the_curves_of_an_ensemble_go_in_as_they_are():
    """Losses of all subsets at three sizes, as `evaluate` has them: no member differs, so that nothing is uncertain."""
    subsets = all_subsets(5)
    curves = [KCurve(subsets, (3 + 0.2 / N + 0.3 / subsets.sum(dim=1).double())[:, None]) for N in (1, 2, 4)]
    nested = nested_limit([1, 2, 4], [c.mean for c in curves], left_out=[c.left_out for c in curves])
    assert nested.limit == pytest.approx(3, abs=1e-5) and nested.standard_error == pytest.approx(0, abs=1e-5)
    assert fit_power_law(torch.arange(1, 6), curves[0].mean).law.E == pytest.approx(3.2, abs=1e-6)


# Data.


@pytest.mark.parametrize("law, losses", [(STANDARD, [3.752, 3.478, 3.244, 3.044]),
                                         (REGULARIZED, [3.435, 3.218, 3.032, 2.874]),
                                         (JOINT, [3.180, 2.984, 2.818, 2.677])])
def test_the_published_laws_have_these_losses(law, losses):
    assert [round(law(D), 3) for D in (0.21, 0.42, 0.84, 1.68)] == pytest.approx(losses, abs=1.1e-3)


@pytest.mark.parametrize("loss, times, tolerance", [(3.462, 2.09, 0.02), (3.43, 2.29, 0.03), (3.26, 3.75, 0.05),
                                                    (3.17, 5.17, 0.11)])
def test_the_published_efficiencies_as_far_as_rounded_constants_go(loss, times, tolerance):
    found = data_efficiency(loss, STANDARD, at=STANDARD.inverse(3.74974))
    assert found.value == pytest.approx(times, abs=tolerance) and found.reached


def test_laws_with_one_exponent_and_asymptote_have_one_ratio():
    new = PowerLaw(0.9, 0.23, 1.89)
    for D in (0.2, 1.0, 30.0):
        assert data_efficiency(new(D), STANDARD, at=D).value == pytest.approx((1.3 / 0.9) ** (1 / 0.23))


def test_a_hundredth_of_a_nat_near_3_2_is_three_percent_of_the_data():
    """The slope, against a finite difference, and the figure that the sheet warns of."""
    found = data_efficiency(3.2, STANDARD, at=0.21)
    around = [data_efficiency(3.2 + h, STANDARD, at=0.21).value for h in (-1e-6, 1e-6)]
    assert found.slope == pytest.approx(math.log(around[1] / around[0]) / 2e-6, rel=1e-6)
    assert abs(found.slope) * 0.01 == pytest.approx(0.033, abs=0.001)


def test_efficiency_without_a_law_goes_along_lines_and_on_with_the_last():
    tokens, losses = [100, 200, 400], [5.0, 4.5, 4.3]
    for at, loss in zip(tokens, losses, strict=True):
        assert efficiency_between(loss, tokens, losses, at=at) == pytest.approx(1)
    assert efficiency_between(4.4, tokens, losses, at=200) == pytest.approx(2**0.5)  # half of the way
    assert efficiency_between(4.1, tokens, losses, at=400) == pytest.approx(2)  # one doubling more
    assert efficiency_between(5.5, tokens, losses, at=100) == pytest.approx(0.5)  # one less
    law, close = PowerLaw(3.0, 0.2, 0.0), np.geomspace(1, 16, 400)
    by_law = data_efficiency(2.0, law, at=1).value
    assert efficiency_between(2.0, close, law(close), at=1) == pytest.approx(by_law, rel=1e-4)


@pytest.mark.parametrize("losses", [[5.0], [5.0, 5.1], [5.0, 4.5, 4.0]])
def test_efficiency_without_a_law_needs_losses_that_fall(losses):
    with pytest.raises(ValueError, match="fall as tokens rise"):
        efficiency_between(4.4, [100, 200][: max(1, len(losses))], losses, at=100)


def test_the_interval_of_an_efficiency_is_that_of_what_it_came_from():
    g = rng(9)
    losses = 3.2 + 0.01 * g.standard_normal(4000)
    found = data_efficiency(3.2, STANDARD, at=0.21, losses=losses)
    for end, z in ((found.interval.low, 1.96), (found.interval.high, -1.96)):
        assert end == pytest.approx(found.value * math.exp(found.slope * 0.01 * z), rel=0.01)
    laws = PowerLaw(1.3 + 0 * losses, 0.23 + 0 * losses, 1.89 + (losses - 3.2))
    moved = data_efficiency(3.2, STANDARD, at=0.21, laws=laws).interval
    assert (moved.low, moved.high) == pytest.approx((found.interval.low, found.interval.high), rel=0.02)
    together = data_efficiency(3.2, STANDARD, at=0.21, losses=losses, laws=laws)
    assert together.interval.low == pytest.approx(together.interval.high)  # both moved alike


def test_a_loss_at_or_below_the_asymptote_is_never_reached():
    for loss in (1.89, 1.5):
        found = data_efficiency(loss, STANDARD, at=0.21)
        assert found.value == math.inf and not found.reached
    draws = np.array([1.8] * 10 + [1.95] * 90)
    assert data_efficiency(1.95, STANDARD, at=0.21, losses=draws).interval.high == math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert STANDARD.inverse(np.array([1.0, 1.89, 3.19])).tolist() == pytest.approx([math.inf, math.inf, 1.0])


@pytest.mark.parametrize("law", LAWS)
def test_the_inverse_undoes_the_law(law):
    x = np.geomspace(0.01, 100, 7)
    assert law.inverse(law(x)) == pytest.approx(x, rel=1e-9)


# Laws of two variables.


@pytest.mark.parametrize("N, D, U, loss", [(6.34e9, 242e9, 25e9, 2.22564), (8.67e9, 178e9, 25e9, 2.22696)])
def test_values_in_the_readme_of_muennighoff_et_al(N, D, U, loss):
    assert round(MUENNIGHOFF(N, D, U), 5) == loss


def test_without_repeats_and_without_excess_it_is_chinchilla():
    fresh = MUENNIGHOFF.fresh
    N = fresh.best_size(1e9) / 2
    assert MUENNIGHOFF(N, 1e9, 1e9) == pytest.approx(fresh(N, 1e9), rel=1e-12)


def test_repeats_are_worth_as_much_as_fresh_tokens_at_first_and_R_D_more_at_most():
    def worth(D):  # of the fresh tokens that would do as well
        rest = MUENNIGHOFF(1e6, D, 1e9) - MUENNIGHOFF(1e6, 1e300, 1e300)
        return (MUENNIGHOFF.fresh.B / rest) ** (1 / MUENNIGHOFF.fresh.beta) / 1e9

    assert worth(1.001e9) == pytest.approx(1.001, abs=1e-6)
    assert worth(4e9) == pytest.approx(4, rel=0.08)  # four epochs are nearly as good
    assert worth(1e15) == pytest.approx(1 + MUENNIGHOFF.R_D, rel=1e-6)
    losses = [MUENNIGHOFF(1e8, D, 1e9) for D in np.geomspace(1e9, 2e11, 40)]
    assert (np.diff(losses) < 0).all()  # it cannot overfit


def test_the_best_size_is_where_compute_buys_the_lowest_loss():
    law = Chinchilla(400.0, 0.34, 410.0, 0.28, 1.7)
    D = 20e9
    N = law.best_size(D)
    best = scipy.optimize.minimize_scalar(lambda log_n: law(math.exp(log_n), N * D / math.exp(log_n)),
                                          bounds=(math.log(1e7), math.log(1e13)), method="bounded",
                                          options={"xatol": 1e-9})
    assert math.log(N) == pytest.approx(best.x, abs=1e-4)


GRID_N, GRID_D = (x.ravel() for x in np.meshgrid(np.geomspace(4e7, 1e10, 5), np.geomspace(1e9, 2e11, 5)))


@pytest.mark.parametrize("law", [Chinchilla(400.0, 0.34, 410.0, 0.28, 1.7), Chinchilla(520.0, 0.35, 1490.0, 0.35, 1.87),
                                 Chinchilla(2e6, 0.9, 30.0, 0.2, 0.0)])
def test_a_planted_law_of_two_variables_comes_back(law):
    fit = fit_chinchilla(GRID_N, GRID_D, law(GRID_N, GRID_D))
    assert (fit.law.alpha, fit.law.beta, fit.law.E) == pytest.approx((law.alpha, law.beta, law.E), rel=1e-5, abs=1e-5)
    assert fit.exponents == ("found", "found") and np.abs(fit.residuals).max() < 1e-8


def test_a_noisy_law_of_two_variables_has_as_few_squares_as_scipy_finds():
    law = Chinchilla(400.0, 0.34, 410.0, 0.28, 1.7)
    losses = law(GRID_N, GRID_D) + 0.01 * rng(11).standard_normal(25)
    fit = fit_chinchilla(GRID_N, GRID_D, losses)
    n, d = GRID_N / 1e9, GRID_D / 1e10
    reference = scipy.optimize.least_squares(lambda p: p[0] / n ** p[1] + p[2] / d ** p[3] + p[4] - losses,
                                             (0.4, 0.34, 0.6, 0.28, 1.7), xtol=1e-14, ftol=1e-14, gtol=1e-14)
    assert float(fit.residuals @ fit.residuals) == pytest.approx(2 * reference.cost, rel=1e-6)
    assert (fit.law.alpha, fit.law.beta) == pytest.approx((reference.x[1], reference.x[3]), rel=1e-3)


# Bad input.


@pytest.mark.parametrize("call, says", [
    (lambda: fit_power_law([1, 2], [3, 2]), "2 different x for 3 parameters.*fix alpha"),
    (lambda: fit_power_law([1, 1, 2], [3, 3, 2]), "2 different x"),
    (lambda: fit_power_law([1, 1], [3, 3], alpha=1), "1 different x for 2"),
    (lambda: fit_power_law([0, 1, 2], [3, 2, 1]), "above 0"),
    (lambda: fit_power_law([1, 2, 3], [3, math.nan, 1]), "diverged"),
    (lambda: fit_power_law([1, 2, 3], [3, 2]), "one of each"),
    (lambda: fit_power_law([1, 2, 3], [3, 2, 1], weights=[1, 1, 0]), "1 / variance"),
    (lambda: fit_power_law([1, 2, 3], [3, 2, 1], alpha=0.0), "positive exponent"),
    (lambda: profile_interval(fit_power_law([1, 2, 3], [3, 2.5, 2.4])), "more points, or the `noise`"),
    (lambda: profile_interval(fit_power_law(KS, 1 / KS, alpha=1), "alpha"), "was given"),
    (lambda: profile_interval(fit_power_law(KS, 1 / KS), level=95), "as 0.95"),
    (lambda: profile_interval(fit_power_law(KS, 1 / KS), "A"), "choose E or alpha"),
    (lambda: profile_interval(fit_power_law(KS, 1 / KS), noise=0.0), "positive deviation"),
    (lambda: bootstrap([1, 2, 3], [[3.0], [2.0], [1.0]], rng()), "at least 2 at each x"),
    (lambda: nested_limit(SIZES, [[3.0, 2.0, 1.5]]), "4 sizes and 1 curves"),
    (lambda: data_efficiency(3.0, STANDARD, at=0.0), "number of tokens"),
    (lambda: data_efficiency(math.nan, STANDARD, at=1.0), "finite loss"),
    (lambda: MUENNIGHOFF(1e9, 1e9, 2e9), "only tokens that were seen"),
    (lambda: Muennighoff(MUENNIGHOFF.fresh, 15.0, 5.0)(-1.0, 1e9, 1e9), "positive counts"),
    (lambda: fit_chinchilla(GRID_N[:4], GRID_D[:4], np.full(4, 3.0)), "5 runs"),
    (lambda: fit_chinchilla(GRID_N, np.full(25, 1e9), np.full(25, 3.0)), "1 different D"),
    (lambda: fit_chinchilla(GRID_N, GRID_D, np.full(25, math.inf)), "diverged"),
])
def test_bad_input_says_what_to_do(call, says):
    with pytest.raises(ValueError, match=says):
        call()
