"""The polynomial: the fits that its script computes against `dual`, and what it says of them."""

import re

import numpy as np
import pytest
import torch
from lewm.figure_page import PAGE, cells, faults, page_faults, told, visible, without_javascript
from live import drawn, turn

from minilab.pacbayes.interactive import live_polynomial, polynomial_data, polynomial_html, show_polynomial, static
from minilab.pacbayes.phenomena.polynomials import TARGETS, PolynomialConfig, dual, order_penalty, polynomials

DATA = polynomial_data(PolynomialConfig())


def vector(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.double)


def fit(target: str, degree: int = 150, scale: float = 1e-4, growth: float = 1.1, noise: float | None = None
        ) -> tuple[np.ndarray, float, float]:
    """The fit on the grid, its residual at the points and its error against the truth."""
    x, grid, truth = vector(DATA["x"]), vector(DATA["grid"]), vector(DATA["truth"][target])
    noise = DATA["spread"][target] if noise is None else noise
    y = vector(DATA["values"][target]) + noise * vector(DATA["draws"][target])
    at = dual(x, y[:, None], torch.cat((x, grid)), order_penalty(degree, scale, growth))[:, 0]
    there, between = at[: len(x)], at[len(x):]
    return between.numpy(), *(float((a - b).square().mean().sqrt()) for a, b in ((there, y), (between, truth)))


def test_figure_begins_with_the_chapters_polynomials():
    """Six decimals of the points leave the errors of `polynomials`, and its fits to within some hundred times that."""
    curves = polynomials()
    for k, target in enumerate(TARGETS):
        ours, _, error = fit(target)
        np.testing.assert_allclose(ours, curves.fits[2, :, k], atol=1e-4)
        assert error == pytest.approx(float(curves.error[2, k]), abs=1e-5)


def test_polynomial_without_scripts_is_a_table():
    found = cells(polynomial_html())
    for degree, growth in ((3, 1.1), (19, 1.1), (150, 1.0), (150, 1.1)):
        assert found[f"degree {degree}, growth {growth}"] == [
            "{1:.2g} / {2:.2g}".format(*fit(target, degree, growth=growth)) for target in TARGETS]


def test_what_the_caption_says_is_so():
    """Of the spikes, the leap at as many weights as points, and the noise that a dearer fit does not follow."""
    spikes = fit("simple", growth=1.0)
    assert np.median(np.abs(spikes[0])) < 0.1 and spikes[1] < 1e-5
    assert fit("simple", 19)[2] > 10 * fit("simple")[2] and fit("noise", 19)[2] > 10 * fit("noise")[2]
    assert fit("simple", growth=1.5, scale=0.1, noise=0.4)[2] < 0.75 * fit("simple", noise=0.4)[2]


def test_figure_is_whole_and_small():
    assert faults(polynomial_html()) == [] and len(polynomial_html().encode()) < 40_000


@pytest.mark.parametrize("config, options, message", [
    (None, {"target": "sine"}, "no target called 'sine'; choose one of simple"),
    (PolynomialConfig(degree=200), {}, "degree = 200 lies beyond its slider: give 3 to 150"),
    (PolynomialConfig(scale=0), {}, "lies beyond its slider: give -6 to 2"),
])
def test_a_beginning_that_cannot_be_shown_is_refused(config, options, message):
    with pytest.raises(ValueError, match=message):
        polynomial_html(config, **options)


def test_show_prints_the_table_where_there_is_no_notebook(capsys):
    show_polynomial()
    assert "degree 150, growth 1.1: simple {1:.2g} / {2:.2g}".format(*fit("simple")) in capsys.readouterr().out


# With a kernel.


def live_numbers(html: str) -> list[str]:
    (row,) = cells(html).values()
    return row


@pytest.mark.parametrize("target", TARGETS)
def test_live_polynomial_begins_with_the_page(target):
    """Two solutions of one problem: `penalized` here, `dual` there."""
    assert live_numbers(drawn(live_polynomial(target=target)))[1] == f"{fit(target)[2]:.2g}"


def test_live_polynomial_follows_every_field():
    figure = live_polynomial()
    html = turn(figure, {"target": "complex", "noise σ": 0.4, "degree J": 500, "growth γ": 1.02, "scale": 0.01})
    assert live_numbers(html) == [f"{v:.2g}" for v in fit("complex", 500, 0.01, 1.02, noise=0.4)[1:]]
    assert html.count("<svg") == 1 and "degree 500" in html
    other = turn(figure, {"seed": 1})
    assert live_numbers(other) != live_numbers(html) and "its 31 points" in turn(figure, {"points n": 31})


def test_live_polynomial_takes_a_target_and_a_price_of_yours():
    """A price of nothing on the first two orders, and a ban on the rest: the straight line of least squares."""
    def line(J: int, scale: float, growth: float) -> torch.Tensor:
        return torch.cat((torch.zeros(2), torch.full((J - 1,), 1e12))).double()

    x, grid = vector(DATA["x"]).numpy(), vector(DATA["grid"]).numpy()
    slope, height = np.polyfit(x, np.round(np.exp(x), 6), 1)
    figure = live_polynomial(PolynomialConfig(noise=0.0), targets={"e": torch.exp}, target="e", price=line)
    away = np.sqrt(np.mean((slope * grid + height - np.exp(grid)) ** 2))
    assert live_numbers(drawn(figure))[1] == f"{away:.2g}"


@pytest.mark.parametrize("values, message", [
    ({"degree J": 0}, "give a degree of 1 to 1000"), ({"points n": 1}, "2 to 300 points"),
    ({"growth γ": -1.0}, "make no penalty"), ({"growth γ": 1e9}, "beyond what a number can be"),
])
def test_live_polynomial_says_what_is_wrong(values, message):
    assert message in turn(live_polynomial(), values)


# In a browser.


@pytest.fixture
def page(browser):
    page = browser.new_page()
    page.set_content(PAGE.format(figures=polynomial_html()))
    yield page
    page.close()


def move(page, **to) -> None:
    """Sets sliders as a hand would, with the event that it causes."""
    for name, value in to.items():
        page.locator(f"[name={name}]").evaluate(
            "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", str(value))


def numbers(page) -> tuple[float, float]:
    found = re.search(r"the fit is (\S+) from the 20 points and (\S+) from the truth", told(page).replace("−", "-"))
    return float(found[1]), float(found[2])


@pytest.mark.slow
@pytest.mark.parametrize("degree, scale, growth", [
    (3, 1e-4, 1.1), (19, 1e-4, 1.0), (19, 1e-6, 1.1), (77, 10, 1.3), (150, 1e-6, 1.0), (150, 1e-4, 1.1),
    (150, 1e-6, 1.5),
])
def test_script_fits_as_dual_does(page, degree, scale, growth):
    for target in TARGETS:
        y = vector(DATA["values"][target]) + DATA["spread"][target] * vector(DATA["draws"][target])
        found = page.evaluate(
            "([source, x, y, at, ...prices]) => new Function('x', 'y', 'at', 'prices', source + "
            "';return fitted(dualWeights(x, y, orderPenalty(...prices)), at)')(x, y, at, prices)",
            [static.read("dual.js"), DATA["x"], y.tolist(), DATA["grid"], degree, scale, growth])
        expected, *_ = fit(target, degree, scale, growth)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_residual_and_error_are_told_as_sliders_move(page):
    assert told(page).replace("−", "-").startswith("Degree 150, growth 1.10, scale 1e-4, noise 0.10: the fit is")
    for degree, power, growth, noise in ((19, -4, 1.1, 0.1), (150, -1, 1.3, 0.4), (60, 2, 1.0, 0)):
        move(page, degree=degree, scale=power, growth=growth, noise=noise)
        assert numbers(page) == pytest.approx(fit("simple", degree, 10**power, growth, noise)[1:], rel=0.06)


@pytest.mark.slow
def test_a_target_comes_with_its_noise(page):
    page.get_by_role("button", name="pure noise").click()
    assert page.locator("[name=noise]").input_value() == "1"
    assert numbers(page)[1] == pytest.approx(fit("noise")[2], rel=0.06)
    page.get_by_role("button", name="complex").click()
    assert numbers(page)[1] == pytest.approx(fit("complex")[2], rel=0.06)
    page.get_by_role("slider", name="growth").press("ArrowRight")
    assert "growth 1.11" in told(page)


@pytest.mark.slow
def test_the_drawn_fit_passes_through_the_points(page):
    curve, dots = (np.array(page.evaluate(script), dtype=float) for script in (
        "document.querySelector('polyline.fit').getAttribute('points').split(' ').map(p => p.split(','))",
        "[...document.querySelectorAll('circle.point')].map(e => [e.getAttribute('cx'), e.getAttribute('cy')])"))
    assert len(dots) == 20
    np.testing.assert_allclose(np.interp(dots[:, 0], curve[:, 0], curve[:, 1]), dots[:, 1], atol=0.5)


@pytest.mark.slow
def test_print_keeps_the_curves_and_a_page_without_scripts_the_table(browser, page):
    page.emulate_media(media="print")
    assert visible(page, "table, svg") == {True} and visible(page, "button, input") == {False}
    plain = without_javascript(browser, polynomial_html())
    assert visible(plain, "table") == {True} and visible(plain, "button, input, svg") == {False}
    plain.close()


@pytest.mark.slow
def test_two_on_a_page_pass_axe_and_fit_a_phone(browser, tmp_path):
    assert page_faults(browser, tmp_path, polynomial_html() + polynomial_html(target="noise")) == []
