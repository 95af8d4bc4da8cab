"""The calculator: the bounds that its script computes against `bounds.py`, and what it says of bad input."""

import itertools

import numpy as np
import pytest
from lewm.figure_page import PAGE, cells, faults, page_faults, told, visible, without_javascript
from live import drawn, turn

from minilab.pacbayes.bounds import maurer, nats_of, occam_hoeffding, occam_kl
from minilab.pacbayes.interactive import Given, calculator_html, live_calculator, show_calculator, static

FIELDS = {"n": "examples n", "risk": "training error", "size": "size of the file", "unit": "size in",
          "guess": "error of guessing", "delta": "δ"}
BOUNDS = {"hoeffding": occam_hoeffding, "kl": occam_kl, "maurer": maurer}


def test_calculator_without_scripts_is_a_table_of_certificates():
    found = cells(calculator_html())
    for bits in (2_000, 20_000, 200_000):
        values = [bound(0.2, 60_000, bits * np.log(2), 0.05) for bound in BOUNDS.values()]
        assert found[f"{bits:,} bits"] == [f"{v:.1%}" + " (vacuous: guessing has 90.0%)" * (v >= 0.9) for v in values]
    assert "vacuous" in found["200,000 bits"][0]
    assert cells(calculator_html(Given(risk=0.1712, bits=1_672)))["1,672 bits"][1] == "25.3%"  # as the ladder records


def test_figure_is_whole_and_small():
    assert faults(calculator_html()) == [] and len(calculator_html().encode()) < 25_000


@pytest.mark.parametrize("options, message", [
    ({"n": 0}, "n = 0: a bound needs at least 1 example"),
    ({"risk": 1.5}, "risk = 1.5: a risk is a mean of losses"),
    ({"bits": -1}, "never negative"),
    ({"guess": 0.0}, "guess lies in"),
    ({"delta": 0.2}, "delta = 0.2 has no button; choose one of 0.01, 0.05, 0.1"),
])
def test_a_beginning_that_the_bounds_refuse_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        calculator_html(Given(**options))


def test_show_prints_the_table_where_there_is_no_notebook(capsys):
    show_calculator(Given(n=1_000_000))
    out = capsys.readouterr().out
    assert "1,000,000 examples" in out
    assert f"2,000 bits: Occam, Hoeffding {occam_hoeffding(0.2, 1_000_000, nats_of(2_000), 0.05):.1%}" in out


# With a kernel.


def turned(**values):
    """The live calculator with some of its fields changed as a reader would."""
    return turn(live_calculator(), {FIELDS[name]: value for name, value in values.items()})


def live_numbers(html: str) -> dict[str, str]:
    return dict(zip(BOUNDS, (cell for (cell,) in cells(html).values()), strict=True))


@pytest.mark.parametrize("values, given", [
    ({}, Given()),
    ({"n": 1_400, "risk": 0.05, "size": 25.5, "unit": 8, "delta": 0.01}, Given(1_400, 0.05, 204, delta=0.01)),
    ({"guess": 0.2}, Given(guess=0.2)),
    ({"size": 3.0, "unit": 8 * 1024**2}, Given(bits=3 * 8 * 1024**2)),
    ({"n": 1, "risk": 1.0, "size": 0.0}, Given(1, 1.0, 0)),
])
def test_live_calculator_shows_the_numbers_of_the_page(values, given):
    live = turned(**values)
    found = live_numbers(live)
    assert list(found.values()) == cells(calculator_html(given))[f"{given.bits:,.0f} bits"]
    value = occam_kl(given.risk, given.n, given.bits * np.log(2), given.delta)
    assert found["kl"].startswith(f"{value:.1%}") and ("vacuous" in found["kl"]) == (value >= given.guess)
    assert f"{(given.bits * np.log(2) + np.log(1 / given.delta)) / given.n:.2g} nats an example" in live
    assert live.count("<svg") == 1


def test_live_calculator_says_what_is_wrong_and_goes_on():
    for values, message in (({"n": 0}, "n = 0: a bound needs at least 1 example"), ({"size": -1.0}, "never negative"),
                            ({"guess": 1.2}, "the guess lies in"), ({"risk": 1.5}, "risk = 1.5")):
        live = turned(**values)
        assert message in live and "<svg" not in live
    figure = live_calculator()
    before = drawn(figure)
    assert turn(figure, {"examples n": 0}) != before
    assert turn(figure, {"examples n": 60_000}) == before


@pytest.mark.parametrize("given, message", [(Given(delta=0.2), "has no button"), (Given(n=0), "n = 0")])
def test_live_calculator_refuses_what_the_page_refuses(given, message):
    with pytest.raises(ValueError, match=message):
        live_calculator(given)


# In a browser.


@pytest.fixture
def page(browser):
    page = browser.new_page()
    page.set_content(PAGE.format(figures=calculator_html()))
    yield page
    page.close()


def put(page, **values) -> None:
    for name, value in values.items():
        page.locator(f"[name={name}]").fill(str(value))


def certified(page) -> dict[str, float]:
    return {key: float(page.locator(f"[data-bound={key}]").inner_text().rstrip("%")) / 100 for key in BOUNDS}


def pieces(page, kind: str) -> int:
    return page.locator(f"[data-plot=inverse] .{kind}").count()


@pytest.mark.slow
def test_script_computes_the_bounds_of_python(page):
    cases = list(itertools.product((0.0, 1e-4, 0.2, 0.5, 1.0), (1, 100, 60_000, 10_000_000),
                                   (0.0, 1.0, 1_159.0, 1e6), (0.01, 0.1)))
    found = page.evaluate(
        "([source, cases]) => new Function('cases', source + `;return cases.map(a => "
        "[occamHoeffding(...a), occamKl(...a), maurer(...a)])`)(cases)", [static.read("bounds.js"), cases])
    expected = [[bound(*case) for bound in BOUNDS.values()] for case in cases]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_certificates_follow_fields_units_and_delta(page):
    put(page, n=1_400, risk=0.05, size=25.5)
    page.get_by_role("button", name="bytes").click()
    page.get_by_role("button", name="0.01").click()
    expected = {key: bound(0.05, 1_400, nats_of(204), 0.01) for key, bound in BOUNDS.items()}
    assert certified(page) == pytest.approx(expected, abs=5.1e-5)
    assert told(page) == ("204 bits and 1,400 examples: c = 0.1 nats an example. With 5.00% training errors the true "
                          f"risk is at most {expected['kl']:.2%}, with confidence 99%.")
    put(page, guess=0.2)
    assert told(page).endswith("vacuous, guessing has 20.00%.")
    assert page.locator("[data-verdict]").all_inner_texts() == ["no, vacuous"] * 3


@pytest.mark.slow
def test_script_and_kernel_say_the_same(page):
    put(page, n=3_000, risk=0.12, size=777, guess=0.4)
    live = live_numbers(turned(n=3_000, risk=0.12, size=777.0, guess=0.4))
    assert {key: float(text.split("%")[0]) / 100 for key, text in live.items()} == pytest.approx(
        certified(page), abs=5.6e-4)
    vacuous = [verdict.startswith("no") for verdict in page.locator("[data-verdict]").all_inner_texts()]
    assert vacuous == ["vacuous" in text for text in live.values()]


@pytest.mark.slow
def test_a_slider_moves_its_field_and_a_field_its_slider(page):
    slider = page.get_by_role("slider", name="examples n")
    slider.press("End")
    assert page.locator("[name=n]").input_value() == "10000000" == slider.get_attribute("aria-valuetext")
    put(page, n=1_000)
    assert float(slider.input_value()) == pytest.approx(3)
    page.get_by_role("slider", name="training error").press("Home")
    expected = {key: bound(0.0, 1_000, nats_of(2_000), 0.05) for key, bound in BOUNDS.items()}
    assert certified(page) == pytest.approx(expected, abs=5.1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name, value", [("n", 0), ("risk", 1.5), ("risk", -0.1)])
def test_bad_input_gets_the_words_of_python(page, name, value):
    good = {"risk": 0.2, "n": 60_000, "nats": nats_of(2_000), "delta": 0.05}
    with pytest.raises(ValueError) as error:
        occam_kl(**{**good, name: value})
    put(page, **{name: value})
    assert told(page) == str(error.value)
    assert page.locator("[data-bound]").all_inner_texts() == ["–"] * 3 and pieces(page, "kl") == 0
    assert page.locator("[aria-invalid=true]").get_attribute("name") == name
    put(page, **{name: good[name]})
    assert certified(page)["kl"] == pytest.approx(occam_kl(**good), abs=5.1e-5)


@pytest.mark.slow
def test_an_empty_field_a_negative_size_and_a_guess_beyond_1_are_refused(page):
    for name, value, message in (("size", "", "size is no number"), ("size", "-1", "size = -1: a complexity"),
                                 ("guess", "1.2", "guess = 1.2: the risk of guessing lies in (0, 1]")):
        put(page, **{name: value})
        assert told(page).startswith(message)
        put(page, size=8, guess=0.9)


@pytest.mark.slow
def test_the_curve_passes_through_the_point_that_is_marked(page):
    """The orange point lies on the blue curve and on the orange line, the green one on the parabola and the line."""
    for values in ({}, {"n": 10_000_000, "size": 100}, {"risk": 0, "n": 5_000}):
        put(page, **values)
        dots = page.evaluate("""() => ['met', 'late'].map(kind => document.querySelector(`circle.${kind}`))
            .map(e => [Number(e.getAttribute('cx')), Number(e.getAttribute('cy'))])""")
        price = float(page.locator("line.price").first.get_attribute("y1"))
        for (x, y), kind in zip(dots, ("kl", "parabola"), strict=True):
            curve = np.array([point.split(",") for point in
                              page.locator(f"polyline.{kind}").get_attribute("points").split()], dtype=float)
            right = curve[curve[:, 1].argmax():]
            assert y == price and np.interp(x, right[:, 0], right[:, 1]) == pytest.approx(y, abs=0.6)


@pytest.mark.slow
def test_print_keeps_the_certificates_and_a_page_without_scripts_the_table(browser, page):
    page.emulate_media(media="print")
    assert visible(page, "table, svg") == {True} and visible(page, "button, input") == {False}
    plain = without_javascript(browser, calculator_html())
    assert visible(plain, "table.ml-still") == {True} and visible(plain, "button, input, svg") == {False}
    plain.close()


@pytest.mark.slow
def test_two_on_a_page_pass_axe_and_fit_a_phone(browser, tmp_path):
    assert page_faults(browser, tmp_path, calculator_html() + calculator_html(Given(n=500, bits=1e5))) == []

