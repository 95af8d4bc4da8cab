"""The fit in the page against `scaling.py`, and what it says as points are switched and moved."""

import re
from dataclasses import replace

import numpy as np
import pytest
from lewm.figure_page import PAGE, cells, faults, page_faults, told, visible, without_javascript
from live import drawn, press

from minilab.core.widget import Static
from minilab.ensembles.interactive import Series, fit_html, live_fit, show_fit, static
from minilab.ensembles.limits import data_efficiency
from minilab.ensembles.scaling import GRID, HIGHEST, LOWEST, ZOOMS, Interval, PowerLaw, fit_power_law, profile_interval

SCRIPTS = Static("minilab.core").read("plot.js") + static.read("law.js")
# Kim et al. (2025), kept in their plotting code: the limit over members at 200 million tokens, and their standard law.
PAPER = Series("paper, 200M", [0.15, 0.3, 0.6, 1.4], [3.495, 3.273, 3.212, 3.174], "parameters (billions)",
               tokens=0.2097152)
STANDARD = PowerLaw(1.30, 0.23, 1.89)
LAW = PowerLaw(0.25, 1.02, 3.34)
PLANTED = Series("planted", range(1, 9), [LAW(k) for k in range(1, 9)], "members K", tokens=0.2097152)
SEARCH = {"lowest": LOWEST, "highest": HIGHEST, "grid": len(GRID), "zooms": ZOOMS, "level": 0.95,
          "normal": 1.959963984540054**2}


def noisy(seed: int) -> tuple[list[float], list[float]]:
    g = np.random.default_rng(seed)
    x = np.geomspace(0.1, 3, 4 + seed)
    return x.tolist(), (LAW(x) + 0.01 * g.standard_normal(len(x))).tolist()


SETS = {"the paper's 200M": (PAPER.x, PAPER.losses), "its 800M": (PAPER.x, [3.358, 3.102, 2.906, 2.868]),
        "its 1.6B": (PAPER.x, [3.300, 3.017, 2.826, 2.752]), "four": noisy(0), "six": noisy(2), "seven": noisy(3),
        "repeated x": ([1, 1, 2, 2, 4, 4], [3.6, 3.61, 3.46, 3.47, 3.41, 3.4]),
        "toward 0": ([1, 2, 4, 8], [1.0, 0.5, 0.26, 0.12]), "below 0": ([1, 2, 4, 8], [8.0, 5.0, 2.0, 0.5]),
        "rising": ([1, 2, 4, 8], [3.1, 3.2, 3.25, 3.3]),
        "straight over log x": ([1, 10, 100, 1000], [104.0, 103.0, 102.0, 101.0])}


def python(x, losses, alpha=None, noise=None, level=0.95) -> list[float]:
    """A, alpha, E, squares, and the interval of E with its open sides."""
    fit = fit_power_law(x, losses, alpha=alpha)
    interval = profile_interval(fit, level=level, noise=noise)
    return [fit.law.A, fit.law.alpha, fit.law.E, fit.rss, interval.low, interval.high, interval.open_low,
            interval.open_high]


def between(interval: Interval) -> str:
    return spoken(f"{'no lower limit' if interval.open_low else f'{interval.low:.3f}'} to "
                  f"{'no upper limit' if interval.open_high else f'{interval.high:.3f}'}")


def spoken(limits: str) -> str:
    return limits.replace("no lower limit to no upper limit", "no limits")


def without(series: Series, i: int) -> tuple[np.ndarray, np.ndarray]:
    return np.delete(series.x, i), np.delete(series.losses, i)


# Without a browser.


def test_figure_without_scripts_is_a_table_of_fits():
    found = cells(fit_html([PAPER, PLANTED], standard=STANDARD))
    whole = fit_power_law(PAPER.x, PAPER.losses)
    efficiency = data_efficiency(whole.law.E, STANDARD, at=PAPER.tokens).value
    assert found["paper, 200M, all points"] == [f"{whole.law.E:.3f}", between(profile_interval(whole)),
                                                f"{whole.law.alpha:.2f}", f"{efficiency:.2f}"]
    assert found["paper, 200M, without 0.15"][:2] == [f"{fit_power_law(*without(PAPER, 0)).law.E:.3f}", "none"]
    assert found["paper, 200M, α fixed at 1"][0] == f"{fit_power_law(PAPER.x, PAPER.losses, alpha=1).law.E:.3f}"
    assert found["planted, all points"][0] == "3.340"


def test_what_the_caption_says_is_so():
    """Three points are met and leave no interval; exponents far apart fit four points about as well."""
    three = fit_power_law(*without(PAPER, 1))
    assert np.abs(three.residuals).max() < 1e-9
    with pytest.raises(ValueError, match="leave none to judge the noise by"):
        profile_interval(three)
    fit = fit_power_law(PAPER.x, PAPER.losses)
    free, fixed = (profile_interval(f, noise=0.01) for f in (fit, fit_power_law(PAPER.x, PAPER.losses, alpha=1)))
    alpha = profile_interval(fit, "alpha", noise=0.01)
    assert alpha.high > 1.5 * alpha.low and free.high - free.low > fixed.high - fixed.low


def test_figure_is_whole_and_small():
    html = fit_html([PAPER, PLANTED], standard=STANDARD)
    assert faults(html) == [] and len(html.encode()) < 40_000


@pytest.mark.parametrize("series, options, message", [
    ([], {}, "0 series with 0 names: give one"),
    ([PAPER, PAPER], {}, "each with its own name"),
    ([replace(PAPER, x=PAPER.x[:2], losses=PAPER.losses[:2])], {}, "2 different x for 3 parameters"),
    ([replace(PAPER, x=list(range(1, 14)), losses=[3.0] * 13)], {}, "has 13 points: give at most 12"),
    ([replace(PAPER, tokens=0.0)], {}, "tokens = 0.0: give how many were used"),
    ([PAPER], {"start": "ours"}, "no series called 'ours'; choose one of paper, 200M"),
    ([PAPER], {"alpha": 0.5}, "alpha = 0.5 has no button"),
    ([PAPER], {"noises": [0.0]}, "give positive deviations"),
    ([PAPER], {"noise": 0.3}, "noise = 0.3 has no button; choose one of 0.005"),
])
def test_what_cannot_be_shown_is_refused(series, options, message):
    with pytest.raises(ValueError, match=message):
        fit_html(series, **options)


def test_show_prints_the_table_where_there_is_no_notebook(capsys):
    show_fit([PAPER], noise=0.01)
    assert "paper, 200M, without 1.4: E 3." in capsys.readouterr().out


def test_names_and_numbers_survive_as_text():
    """A name is text, not markup; arrays are numbers as lists are."""
    html = fit_html([replace(PAPER, name="<b>", x=np.array(PAPER.x), losses=np.array(PAPER.losses)), PLANTED])
    assert "<b></button>" not in html and "&lt;b&gt;</button>" in html
    assert cells(html)["&lt;b&gt;, all points"] == cells(fit_html([PAPER]))["paper, 200M, all points"]


def test_live_figure_asks_for_the_next_seed_at_each_click():
    def compute(seed: int) -> list[Series]:
        return [replace(PAPER, losses=[v + 0.01 * seed for v in PAPER.losses])]

    figure = live_fit(compute, alpha=1)
    for seed, html in enumerate((drawn(figure), press(figure, "other seeds"), press(figure, "other seeds"))):
        (series,) = compute(seed)
        E = fit_power_law(series.x, series.losses, alpha=1).law.E
        assert cells(html)["paper, 200M, all points"][0] == f"{E:.3f}"


# In a browser.


@pytest.fixture(scope="module")
def page(browser):
    """One page, on which each test begins with the figure as given; errors of the script fail the test."""
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.errors = errors
    yield page
    page.close()


@pytest.fixture
def figure(page):
    page.set_content(PAGE.format(figures=fit_html([PAPER, PLANTED], standard=STANDARD)))
    yield page
    assert page.errors == []


def now(page) -> dict[str, str]:
    return {key: page.locator(f"[data-now={key}]").inner_text() for key in ("E", "interval", "alpha", "efficiency",
                                                                            "saved")}


def told_law(x, losses, *, alpha=None, noise=None, tokens=PAPER.tokens) -> dict[str, str]:
    """What the table should say."""
    fit = fit_power_law(x, losses, alpha=alpha)
    at = [data_efficiency(fit.law.E, STANDARD, at=tokens).value]
    said = {"E": f"{fit.law.E:.3f}", "interval": "none", "saved": "none"}
    if fit.spare or noise:
        interval = profile_interval(fit, noise=noise)
        at += [data_efficiency(E, STANDARD, at=tokens).value for E in (interval.high, interval.low)]
        said["interval"] = between(interval)
        said["saved"] = spoken(
            f"{'no lower limit' if interval.open_high else f'{at[1]:.2f}'} to "
            f"{'no upper limit' if interval.open_low else f'{at[2]:.2f}'}")
    return said | {"alpha": f"{fit.law.alpha:.2f}" + " (fixed)" * (alpha is not None), "efficiency": f"{at[0]:.2f}"}


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [None, 1.0])
@pytest.mark.parametrize("noise", [None, 0.01])
def test_script_fits_as_python_does(page, alpha, noise):
    found = page.evaluate(
        """([source, sets, alpha, noise, search]) => new Function('sets', 'alpha', 'noise', 'search', source + `
        return sets.map(([x, y]) => {
          const fit = fitPowerLaw(x, y, alpha, search);
          const interval = asymptotes(x, y, fit, allowance(fit, noise, search), search);
          return [fit.A, fit.alpha, fit.E, fit.rss, interval.low, interval.high, interval.openLow, interval.openHigh];
        })`)(sets, alpha, noise, search)""",
        [SCRIPTS, [list(map(list, s)) for s in SETS.values()], alpha, noise, SEARCH])
    expected = [python(*s, alpha=alpha, noise=noise) for s in SETS.values()]
    for name, ours, theirs in zip(SETS, found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_script_says_what_became_of_the_search_and_knows_the_quantile(page):
    found = page.evaluate(
        """([source, sets, search]) => new Function('sets', 'search', source + `return [
        sets.map(([x, y]) => fitPowerLaw(x, y, null, search).exponent),
        [1, 2, 5].map(nu => studentSquared(.95, nu))]`)(sets, search)""",
        [SCRIPTS, [list(map(list, s)) for s in SETS.values()], SEARCH])
    assert found[0] == [fit_power_law(*s).exponent for s in SETS.values()]
    assert {"found", "any", "lowest"} <= set(found[0])
    np.testing.assert_allclose(found[1], np.square([12.7062, 4.30265, 2.57058]), rtol=1e-4)  # tables of Student's t


@pytest.mark.slow
def test_a_dropped_point_leaves_what_python_finds_for_the_rest(figure):
    assert now(figure) == told_law(PAPER.x, PAPER.losses)
    for i, x in enumerate(PAPER.x):
        box = figure.get_by_role("checkbox", name=f"{x:g}", exact=True)
        box.focus()
        box.press("Space")
        assert now(figure) == told_law(*without(PAPER, i))
        assert "No interval" in told(figure) and "proves nothing" in told(figure)
        figure.get_by_role("button", name="0.01", exact=True).click()
        assert now(figure) == told_law(*without(PAPER, i), noise=0.01)
        figure.get_by_role("button", name="as the fit tells").click()
        box.press("Space")
    assert now(figure) == told_law(PAPER.x, PAPER.losses)
    assert [figure.locator(f"[data-given={key}]").inner_text() for key in now(figure)] == list(now(figure).values())


@pytest.mark.slow
def test_arrow_keys_shift_a_loss_by_0_005_and_the_button_takes_it_back(figure):
    slider = figure.get_by_role("slider", name="shift of the loss at 0.6")
    for _ in range(3):
        slider.press("ArrowRight")
    slider.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "0.010 nats a token, the loss is 3.222"
    losses = [3.495, 3.273, 3.222, 3.174]
    assert now(figure) == told_law(PAPER.x, losses)
    assert figure.locator("[data-given=E]").inner_text() == told_law(PAPER.x, PAPER.losses)["E"]
    figure.get_by_role("button", name="1", exact=True).click()
    assert now(figure) == told_law(PAPER.x, losses, alpha=1.0)
    figure.get_by_role("button", name="All points as given").click()
    assert now(figure) == told_law(PAPER.x, PAPER.losses, alpha=1.0)


@pytest.mark.slow
def test_too_few_points_are_told_and_come_back(figure):
    for x in ("0.3", "0.6"):
        figure.get_by_role("checkbox", name=x, exact=True).uncheck()
    assert told(figure) == ("2 of 4 points, α free: 3 parameters need as many different x. Switch points on, or fix α "
                            "at 1 and give 2.")
    assert set(now(figure).values()) == {"–"} and figure.locator("polyline").count() == 0
    figure.get_by_role("button", name="1", exact=True).click()
    assert now(figure) == told_law(PAPER.x[::3], PAPER.losses[::3], alpha=1.0)


@pytest.mark.slow
def test_a_click_in_the_picture_switches_a_point_and_each_series_keeps_its_own(figure):
    figure.locator("circle[data-n='3']").click()
    assert not figure.get_by_role("checkbox", name="1.4", exact=True).is_checked()
    assert now(figure) == told_law(*without(PAPER, 3))
    figure.get_by_role("button", name="planted").click()
    assert now(figure)["E"] == "3.340" and now(figure)["alpha"] == "1.02" and "8 of 8 points" in told(figure)
    assert figure.locator("[data-plot=law] text").last.text_content() == "members K"
    figure.get_by_role("button", name="paper, 200M").click()
    figure.locator("circle[data-n='3']").click()
    assert now(figure) == told_law(PAPER.x, PAPER.losses)


@pytest.mark.slow
def test_the_drawn_law_passes_by_the_points_and_nears_the_asymptote(figure):
    figure.get_by_role("button", name="planted").click()
    curve, dots = (np.array(figure.evaluate(script), dtype=float) for script in (
        "document.querySelector('polyline.law').getAttribute('points').split(' ').map(p => p.split(','))",
        "[...document.querySelectorAll('circle.point')].map(e => [e.getAttribute('cx'), e.getAttribute('cy')])"))
    np.testing.assert_allclose(np.interp(dots[:, 0], curve[:, 0], curve[:, 1]), dots[:, 1], atol=0.7)
    level = float(figure.locator("line.asymptote").get_attribute("y1"))
    assert 0 < level - curve[-1, 1] < 0.05 * (level - curve[0, 1])
    best = figure.locator("circle.best")
    assert re.search(r"3\.3\d\d at 1 ", figure.locator("[data-plot=profile]").get_attribute("aria-label"))
    assert best.count() == 1


@pytest.mark.slow
def test_an_asymptote_that_the_standard_recipe_cannot_reach_takes_endless_data(page):
    series = Series("low", [1, 2, 4, 8], [2.4, 2.0, 1.8, 1.7], "members K", tokens=1.0)
    page.set_content(PAGE.format(figures=fit_html([series], standard=STANDARD)))
    assert page.locator("[data-now=efficiency]").inner_text() == "∞" == cells(
        fit_html([series], standard=STANDARD))["low, all points"][-1]


@pytest.mark.slow
def test_print_keeps_the_pictures_and_a_page_without_scripts_the_table(browser, figure):
    figure.emulate_media(media="print")
    assert visible(figure, "table, svg") == {True} and visible(figure, "button, input") == {False}
    figure.emulate_media(media="screen")
    plain = without_javascript(browser, fit_html([PAPER]))
    assert visible(plain, "table.ml-still") == {True} and visible(plain, "button, input, svg") == {False}
    plain.close()


@pytest.mark.slow
def test_two_on_a_page_pass_axe_and_fit_a_phone(browser, tmp_path):
    figures = fit_html([PAPER, PLANTED], standard=STANDARD) + fit_html([PLANTED], alpha=1, noise=0.01)
    assert page_faults(browser, tmp_path, figures) == []
