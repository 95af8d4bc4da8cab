"""The time line: what it says without scripts, that its script simulates what Python does, and its still picture."""

import re

import numpy as np
import pytest

from minilab.core.style import figure_html
from minilab.speculative import theory, timeline
from minilab.speculative.interactive import explorer_html, static
from minilab.speculative.simulate import SCHEDULERS, Costs, Outcome, draw_outcomes, long_run, outcomes_from, simulate
from minilab.speculative.timeline import timeline_html

COSTS = Costs(verify=9e-3, step=6e-3, draft=1e-3, prepare=6e-3)


def table_of(html: str) -> str:
    return re.sub(r"<[^>]+>", "|", re.search(r"<table.*?</table>", html, re.DOTALL)[0])


def test_still_is_a_table_of_the_long_run():
    html = timeline_html(alpha=0.7, K=3, draft=0.2, verify=1.0, prepare=0.2, hit_rate=0.9, batch=4)
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>.*?</tr>", html)[1:]]
    E = theory.expected_tokens(0.7, 3)
    gains = [1.0, theory.speedup(0.7, 3, 0.2),
             theory.ssd_batch_speedup(4, 0.9, E_hit=E, E_miss=E, T_p=0.8, T_b=0.6)]
    assert [row[2] for row in cells] == [f"{gain:.2f}×" for gain in gains]
    assert [row[0] for row in cells] == ["4.00", f"{4 * E:.2f}", f"{4 * E:.2f}"]
    assert [float(row[3].split()[0]) for row in cells[:2]] == [0, round(100 * 0.6 / 1.6)]


def test_figure_is_small_whole_and_free_of_ids_and_addresses():
    html = timeline_html()
    assert html == timeline_html() and len(html.encode()) < 25_000
    assert not re.search(r"\$[a-z]|\bid=|https?://|//cdn|require\(|\bimport\b", html)
    for tag in ("figure", "style", "script", "table", "tr", "td", "th", "svg", "div", "p", "span", "label"):
        assert html.count(f"</{tag}>") == len(re.findall(rf"<{tag}[\s>]", html)), tag


@pytest.mark.parametrize("start, message", [
    ({"alpha": 1.2}, "the slider goes from 0 to 1"),
    ({"K": 0}, "from 1 to 12"),
    ({"contention": 0.5}, "from 1 to 2"),
    ({"fanout": 3}, "no slider fanout; there are alpha, hit_rate"),
])
def test_start_that_no_slider_reaches_is_refused(start, message):
    with pytest.raises(ValueError, match=message):
        timeline_html(**start)


def test_show_prints_the_long_run_where_there_is_no_notebook(capsys):
    timeline.show_timeline(alpha=0.8, K=4, draft=0.1, verify=1.0, prepare=0.2, hit_rate=1.0)
    said = capsys.readouterr().out
    E = theory.expected_tokens(0.8, 4)
    assert f"SD: {E:.2f} tokens in 1.40 target steps, speed-up {E / 1.4:.2f}×" in said
    assert f"SSD: {E:.2f} tokens in 1.00 target steps, speed-up {E:.2f}×" in said


# The picture by matplotlib.


def test_picture_shows_the_bars_of_the_simulation_and_counts_its_tokens():
    outcomes = [Outcome((k,), (hit,)) for k, hit in ((3, False), (0, True), (4, False), (2, True))]
    fig = timeline.figure(COSTS, outcomes, 4)
    ends = {name: simulate(name, COSTS, outcomes, 4).seconds for name in ("sd", "ssd")}
    until = min(ends.values())
    assert until == ends["ssd"] == pytest.approx(4 * 9e-3 + 2 * 4e-3)
    made = {"ar": 7, "sd": 4 + 1 + 5, "ssd": 4 + 1 + 5 + 3}  # 44 ms hold 7 steps of 6 ms, 3 rounds of 13 ms
    for ax, name in zip(fig.axes, SCHEDULERS, strict=True):
        assert ax.get_title(loc="left") == f"{timeline.NAMES[name]}: {made[name]} tokens"
        assert sum(int(text.get_text()) for text in ax.texts) == made[name]
        assert ax.get_xlim() == pytest.approx((0, until * 1e3))
    spans = [tuple(bars.get_paths()[0].get_extents().intervalx) for bars in fig.axes[2].collections]
    expected = [(e.start * 1e3, e.end * 1e3) for e in simulate("ssd", COSTS, outcomes, 4).events]
    np.testing.assert_allclose(spans, expected, atol=3.1 * until)  # in ms; a seam separates neighbors


def test_picture_ends_inside_the_lanes_that_are_slower_and_has_no_white_box():
    fig = timeline.figure(COSTS, draw_outcomes(0.8, 4, 0.7, 8, seed=1), 4)
    for ax in fig.axes:
        right = ax.get_xlim()[1]
        assert all(bars.get_paths()[0].get_extents().x1 <= right + 1e-9 for bars in ax.collections)
    assert [text.get_text() for text in fig.legends[0].texts] == ["target pass", "drafting", "preparing"]
    html = figure_html(fig, alt="Three schedulers.")
    assert "#ffffff" not in html and "#cccccc" not in html


# In a browser.

PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Figures</title>
<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width"><style>
body {{ margin: 0 1rem; color: #222832; background: #fff; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ced6dd; background: #121212; }} }}</style></head>
<body><main><article><h1>Figures</h1>{figures}</article></main></body></html>"""


@pytest.fixture
def page(browser):
    page = browser.new_page()
    page.set_content(PAGE.format(figures=timeline_html(seed=3)))
    page.wait_for_function("document.querySelectorAll('rect').length > 0")
    yield page
    page.close()


def titles(page) -> list[int]:
    return [int(re.search(r"(\d+) tokens", text)[1]) for text in page.locator("svg .ml-title").all_text_contents()]


@pytest.mark.slow
@pytest.mark.parametrize("costs, alpha, K, hit_rate, batch", [
    (Costs(verify=1.0, step=1.0, draft=0.1, prepare=0.7), 0.8, 4, 0.85, 1),
    (Costs(verify=1.3, step=0.9, draft=0.07, prepare=0.6, handshake=0.05, contention=1.37), 0.63, 5, 0.7, 3),
    (Costs(verify=1.1, step=1.0, draft=0.13, prepare=2.3, fallback=0.0, contention=2.0), 0.9, 7, 0.5, 16),
    (Costs(verify=0.7, step=1.0, draft=0.0, prepare=0.7, fallback=0.31, contention=1.5), 0.0, 1, 1.0, 2),
    (Costs(verify=2.0, step=1.0, draft=0.5, prepare=0.0), 1.0, 12, 0.0, 1),
])
def test_script_simulates_what_python_simulates(page, costs, alpha, K, hit_rate, batch):
    u = np.random.default_rng(0).random((40, batch, 2))
    found = page.evaluate("""([source, costs, u, alpha, K, hitRate, batch]) => {
        const f = new Function(source + "; return { SCHEDULERS, outcomesFrom, simulate, longRun, tokensBy, busy }")();
        const outcomes = f.outcomesFrom(u, alpha, K, hitRate);
        return { outcomes, lines: f.SCHEDULERS.map(name => {
            const line = f.simulate(name, costs, outcomes, K);
            const by = [0.5, 3, 7.7, 1e9].map(t => f.tokensBy(line, t));
            const mean = f.longRun(name, costs, K, alpha, hitRate, batch);
            return { ...line, by, mean, busy: [f.busy(line, "target"), f.busy(line, "draft")] }; }) };
    }""", [static.read("theory.js") + static.read("simulate.js"), vars(costs), u.tolist(), alpha, K, hit_rate, batch])
    outcomes = outcomes_from(u, alpha, K, hit_rate)
    assert [(tuple(o["accepted"]), tuple(o["hit"])) for o in found["outcomes"]] == [
        (o.accepted, o.hit) for o in outcomes]
    for name, js in zip(SCHEDULERS, found["lines"], strict=True):
        line = simulate(name, costs, outcomes, K)
        assert [tuple(e[key] for key in line.events[0]._fields) for e in js["events"]] == list(map(tuple, line.events))
        assert tuple(js["made"]) == line.made and js["seconds"] == line.seconds
        assert js["by"] == [line.tokens_by(t) for t in (0.5, 3, 7.7, 1e9)]
        assert js["busy"] == pytest.approx([line.busy("target"), line.busy("draft")])
        mean = long_run(name, costs, K, alpha=alpha, hit_rate=hit_rate, batch=batch)
        assert list(js["mean"].values()) == pytest.approx(list(mean), abs=1e-12)


@pytest.mark.slow
def test_live_table_is_the_still_one_and_follows_every_slider_by_keyboard(page):
    def live():
        return table_of(page.locator("table").evaluate("e => e.outerHTML"))

    def same(a, b):  # the parser writes no-break spaces as entities
        return a.replace("&nbsp;", "\N{NO-BREAK SPACE}") == b

    assert same(live(), table_of(timeline_html()))
    moved = {name: default for name, *_, default in timeline.SLIDERS}
    for name, what, *_, step, _, _ in timeline.SLIDERS:
        page.get_by_role("slider", name=what).press("ArrowRight")
        moved[name] += step
        assert same(live(), table_of(timeline_html(**moved))), name


@pytest.mark.slow
def test_lanes_fill_up_to_the_moment_with_the_simulations_tokens(page):
    at = {name: default for name, *_, default in timeline.SLIDERS}
    luck = page.evaluate("""source => {
        const random = new Function(source + "; return randomNumbers")()(3);
        return Array.from({ length: 16 }, () => Array.from({ length: 16 }, () => [random(), random()]));
    }""", static.read("theory.js"))
    outcomes = outcomes_from(np.array(luck)[:, :1], at["alpha"], at["K"], at["hit_rate"])
    costs = Costs(verify=at["verify"], step=1.0, draft=at["draft"], prepare=5 * at["prepare"])
    lines = [simulate(name, costs, outcomes, at["K"]) for name in SCHEDULERS]
    assert titles(page) == [line.tokens_by(16) for line in lines]
    slider = page.get_by_role("slider", name="moment")
    for _ in range(80):
        slider.press("ArrowLeft")
    assert slider.input_value() == "8"
    assert titles(page) == [line.tokens_by(8) for line in lines]
    filled = page.eval_on_selector_all("rect.verify:not(.ghost)", "all => Math.max(...all.map(e => +e.getAttribute('x')"
                                       " + +e.getAttribute('width')))")
    now = float(page.locator("line.now").get_attribute("x1"))
    assert filled <= now + 0.01
    assert page.locator("rect.verify.ghost").count() > page.locator("rect.verify:not(.ghost)").count()
    slider.press("Home")
    assert titles(page) == [0, 0, 0] and page.locator("rect:not(.ghost):not(.lane)").count() == 0


@pytest.mark.slow
def test_play_starts_over_and_pauses(page):
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("Number(document.querySelector('[name=moment]').value) >= 1.2")
    page.get_by_role("button", name="Pause").click()
    paused = float(page.locator("[name=moment]").input_value())
    assert 1.2 <= paused < 16 and titles(page)[0] == int(paused)
    page.wait_for_timeout(300)
    assert float(page.locator("[name=moment]").input_value()) == paused
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('Speed-up in the long run')")


@pytest.mark.slow
def test_page_without_scripts_and_print_show_the_table_alone(browser, page):
    context = browser.new_context(java_script_enabled=False)
    still = context.new_page()
    still.set_content(PAGE.format(figures=timeline_html()))
    page.emulate_media(media="print")
    for shown in (still, page):
        for selector, count in (("table", 1), ("figcaption", 1), ("button", 0), ("input", 0), ("svg", 0)):
            assert sum(e.is_visible() for e in shown.locator(selector).all()) == count, selector
    context.close()


@pytest.mark.slow
def test_two_beside_an_explorer_pass_axe_and_fit_a_phone(browser, tmp_path):
    from browser import THEMES, WIDTHS, serve, visit

    figures = timeline_html() + explorer_html() + timeline_html(batch=16, K=12)
    (tmp_path / "page.html").write_text(PAGE.format(figures=figures), encoding="utf-8")
    with serve(tmp_path) as site:
        for width in (360, *WIDTHS):
            for theme in THEMES:
                assert visit(browser, site, "page.html", width=width, theme=theme).faults == []
