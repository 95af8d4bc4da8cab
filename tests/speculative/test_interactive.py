"""The two interactive figures: what they say without scripts, and what their scripts do in a browser."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from checkout import ROOT
from lewm.figure_page import cells as table_cells
from live import drawn, turn
from nbval.plugin import get_sanitize_patterns

from minilab.core.records import Record
from minilab.speculative import theory
from minilab.speculative.interactive import (
    SLOW,
    explorer_html,
    live_explorer,
    race_html,
    show_explorer,
    show_race,
    time_stream,
    token_texts,
)

SANITIZE = ROOT / "tests" / "nbval_sanitize.cfg"
PLAIN = {"label": "autoregressive", "tokens": 4, "seconds": 0.8, "pieces": [
    {"text": t, "t": 0.2 * (i + 1), "accepted": 0} for i, t in enumerate(["One", " <b>", " &", " four."])]}
FAST = {"label": "speculative, K = 2", "tokens": 4, "seconds": 0.5, "pieces": [
    {"text": ["One", " <b>", " &"], "t": 0.25, "accepted": 2}, {"text": [" four."], "t": 0.5, "accepted": 0}]}
RACE = [PLAIN, FAST]


def without_scripts(html: str) -> str:
    return re.sub(r"(?s)<(script|style)>.*?</\1>", "", html)


def text_of(html: str) -> str:
    return re.sub(r"<[^>]+>", "", without_scripts(html))


def test_both_texts_and_the_totals_are_in_the_page_before_any_script():
    text = text_of(race_html(RACE))
    assert text.count("One &lt;b&gt; &amp; four.") == 2
    for total in ("5.0 tokens/s", "8.0 tokens/s", "0.80 s", "0.50 s"):
        assert total in text


def test_accepted_tokens_are_marked_and_the_bonus_is_not():
    words = re.findall(r'data-n="\d+">(.*?)</span>', race_html([FAST]))
    assert words == ["<i>One</i><i> &lt;b&gt;</i> &amp;", " four."]


def test_bars_share_one_axis_in_time_and_tokens():
    plain, fast = re.findall(r"(?s)<svg.*?</svg>", race_html(RACE))
    bars = re.findall(r"<g .*?</g>", fast)
    heights = [sum(map(float, re.findall(r'height="([\d.]+)"', bar))) for bar in bars]
    assert heights == pytest.approx([3 * heights[1], heights[1]], rel=1e-3)
    rect = re.compile(r'<rect[^>]* x="([\d.]+)"[^>]* width="([\d.]+)"')
    centers = [[float(x) + float(w) / 2 for x, w in rect.findall(svg)] for svg in (plain, fast)]
    assert centers[0][-1] == pytest.approx(330, abs=0.01)  # 0.8 s is the end of the axis
    assert centers[1][-1] == pytest.approx(30 + 300 * 0.5 / 0.8, abs=0.01)


@pytest.mark.parametrize("html", [race_html(RACE), explorer_html()], ids=["race", "explorer"])
def test_figure_is_small_whole_and_free_of_ids_and_addresses(html):
    assert len(html.encode()) < 25_000
    assert not re.search(r"\$[a-z]|\bid=|https?://|//cdn|require\(|\bimport\b", html)
    for tag in ("figure", "style", "script", "table", "tr", "td", "th", "svg", "div", "p", "span"):
        assert html.count(f"</{tag}>") == len(re.findall(rf"<{tag}[\s>]", html)), tag


def test_same_payload_gives_same_markup():
    assert race_html(RACE) == race_html(RACE) and explorer_html(seed=3) == explorer_html(seed=3)


def test_nbval_sees_the_tokens_of_a_race_and_not_its_times():
    def sanitized(streams):
        html = race_html(streams)
        for pattern, replacement in get_sanitize_patterns(SANITIZE.read_text(encoding="utf-8")):
            html = re.sub(pattern, replacement, html)
        return html

    def slowed(s):
        return {**s, "seconds": s["seconds"] * 11, "pieces": [{**p, "t": p["t"] * 11} for p in s["pieces"]]}

    slower = [slowed(s) for s in RACE]
    assert race_html(slower) != race_html(RACE) and sanitized(slower) == sanitized(RACE)
    five = {"text": " five.", "t": 0.8, "accepted": 0}
    other = [{**PLAIN, "pieces": [*PLAIN["pieces"][:3], five]}, FAST]
    assert sanitized(other) != sanitized(RACE)


@pytest.mark.parametrize("change, complaint", [
    ({"pieces": []}, "hold 0 tokens, but the stream says 4"),
    ({"tokens": 5}, "hold 4 tokens, but the stream says 5"),
    ({"pieces": [{"text": "One two", "t": 0.1, "accepted": 3}], "tokens": 1}, "accepts 3 draft .* holds 1"),
    ({"seconds": 0.4}, "must arrive in order, between 0 and 0.4 s"),
    ({"pieces": FAST["pieces"][::-1]}, "must arrive in order"),
])
def test_contradicting_stream_is_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        race_html([PLAIN, {**FAST, **change}])


def test_empty_race_is_refused():
    with pytest.raises(ValueError, match="at least one stream"):
        race_html([])


def test_time_stream_notes_rounds_as_they_come():
    def rounds():
        yield SimpleNamespace(rows=[0], tokens=[[65, 66, 67]], accepted=[2])
        yield SimpleNamespace(rows=[0], tokens=[[68]], accepted=[2])  # cut inside the accepted tokens

    stream = time_stream("speculative", rounds(), lambda tokens: bytes(tokens).decode(errors="replace"))
    assert [(p["text"], p["accepted"]) for p in stream["pieces"]] == [(["A", "B", "C"], 2), (["D"], 1)]
    assert stream["tokens"] == 4
    assert 0 < stream["pieces"][0]["t"] <= stream["pieces"][1]["t"] <= stream["seconds"]
    race_html([stream])


def test_character_of_several_tokens_is_shown_once_whole():
    tokens = list("aé😀b".encode())
    texts = token_texts(tokens, lambda t: bytes(t).decode(errors="replace"))
    assert texts == ["a", "", "é", "", "", "", "😀", "b"]


def test_cut_off_character_at_the_end_is_not_lost():
    texts = token_texts([97, 0xC3], lambda t: bytes(t).decode(errors="replace"))
    assert texts == ["a", "\N{REPLACEMENT CHARACTER}"]


def test_replay_offers_the_speeds_that_were_asked_for_and_starts_with_the_first():
    found = re.findall(r'data-speed="(.*?)" aria-pressed="(.*?)">(.*?)<', race_html(RACE, speeds=SLOW))
    assert found == [("0.025", "true", "1/40×"), ("0.1", "false", "1/10×"), ("1", "false", "1×")]


def test_a_long_text_can_be_shown_in_one_paragraph():
    stream = {"label": "x", "tokens": 3, "seconds": 1.0, "pieces": [{"text": ["One.\n\n", "## ", "Two"], "t": 1.0,
                                                                    "accepted": 1}]}
    assert ">One.\n\n<" in race_html([stream])
    assert "<i>One. ¶ </i>## Two<" in race_html([stream], one_paragraph=True)


def test_show_prints_the_numbers_where_there_is_no_notebook(capsys):
    record = Record("speculative", "race", "cpu", {}, {"streams": RACE}, {})
    show_race(record)
    assert "speculative, K = 2: 4 tokens in 2 target passes, 0.50 s, 8.0 tokens/s" in capsys.readouterr().out
    show_explorer(alpha=0.9, cost=0.1)
    gains = theory.speedup(0.9, np.arange(1, 17), 0.1)
    assert f"is {gains.max():.2f}, at K = {gains.argmax() + 1}." in capsys.readouterr().out


def test_explorer_without_scripts_is_a_table_of_the_theory():
    rows = re.findall(r'<th scope="row">α = ([\d.]+)</th>(.*?)</tr>', explorer_html(cost=0.1, verify=1.25))
    assert len(rows) >= 4
    for alpha, cells in rows:
        gains = theory.speedup(float(alpha), np.array([1, 2, 4, 6, 8, 12, 16]), 0.1, 1.25)
        assert re.findall(r"<td>(.*?)</td>", cells) == [f"{g:.2f}" for g in gains]


@pytest.mark.parametrize("start", [{"alpha": 1.2}, {"K": 0}, {"cost": -0.1}, {"verify": 0.5}])
def test_start_beyond_the_sliders_is_refused(start):
    with pytest.raises(ValueError, match="the slider goes from"):
        explorer_html(**start)


# With a kernel.


def rounds_of(alpha: float, K: int, n: int = 200_000) -> float:
    """Tokens a round, drawn: accepted ones up to the first rejection, and one more."""
    accepted = np.random.default_rng(0).random((n, K)) < alpha
    return float(accepted.cumprod(axis=1).sum(axis=1).mean()) + 1


def test_live_explorer_weighs_drawn_rounds_against_their_costs():
    tokens, steps, gain = map(float, table_cells(turn(live_explorer(), {
        "acceptance rate α": 0.9, "lookahead K": 24, "draft cost c": 0.1, "verification v": 2.5,
        "and a token more": 0.02}))["K = 24"])
    assert tokens == pytest.approx(rounds_of(0.9, 24), rel=0.01)
    assert steps == pytest.approx(24 * 0.1 + 2.5 + 24 * 0.02) and gain == pytest.approx(tokens / steps, abs=0.006)


def test_live_explorer_begins_with_the_page_and_finds_the_best_lookahead():
    found = table_cells(drawn(live_explorer(K=4)))
    assert found["K = 4"][2] == table_cells(explorer_html())["α = 0.8"][2]
    best = theory.best_lookahead(0.8, 0.05)
    assert found[f"best, K = {best}"][2] == f"{theory.speedup(0.8, best, 0.05):.2f}"
    far = theory.best_lookahead(0.99, 0.01, longest=200)  # beyond the sixteen of the page
    assert f"best, K = {far}" in table_cells(drawn(live_explorer(alpha=0.99, cost=0.01))) and 16 < far < 200
    dearer = turn(live_explorer(), {"and a token more": 0.3})
    assert next(int(row.split("= ")[1]) for row in table_cells(dearer) if "best" in row) < best
    assert "A draft does not pay" in turn(live_explorer(), {"draft cost c": 3.0}) and "A draft pays" in dearer


@pytest.mark.parametrize("label, value", [("acceptance rate α", 1.01), ("lookahead K", 0), ("lookahead K", 201),
                                          ("draft cost c", -0.1), ("verification v", 0.0), ("and a token more", -1.0)])
def test_live_explorer_says_what_is_wrong(label, value):
    assert "give an acceptance rate of 0 to 1" in turn(live_explorer(), {label: value})


# In a browser.

PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Figures</title>
<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width"><style>
body {{ margin: 0 1rem; color: #222832; background: #fff; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ced6dd; background: #121212; }} }}</style></head>
<body><main><article><h1>Figures</h1>{figures}</article></main></body></html>"""


@pytest.fixture
def page(browser):
    page = browser.new_page()
    page.set_content(PAGE.format(figures=race_html(RACE) + explorer_html()))
    yield page
    page.close()


def shown(page, selector: str) -> list[str]:
    return page.eval_on_selector_all(
        selector,
        "all => all.filter(e => e.checkVisibility({ visibilityProperty: true })).map(e => e.textContent)")


@pytest.mark.slow
def test_two_of_each_on_a_page_pass_axe_and_do_not_overflow(browser, tmp_path):
    from browser import THEMES, WIDTHS, serve, visit

    figures = race_html(RACE) * 2 + explorer_html(K=16) * 2
    (tmp_path / "page.html").write_text(PAGE.format(figures=figures), encoding="utf-8")
    with serve(tmp_path) as site:
        for width in WIDTHS:
            for theme in THEMES:
                assert visit(browser, site, "page.html", width=width, theme=theme).faults == []


@pytest.mark.slow
def test_script_computes_what_theory_computes(page):
    from minilab.speculative.interactive import static

    alphas, costs = [0.0, 0.01, 0.3, 0.5, 0.77, 0.8, 0.99, 0.999, 1.0], [0.0, 0.05, 0.3, 1.0]
    longest = 16
    found = page.evaluate("""([source, alphas, costs, longest]) => {
        const f = new Function(source + "; return { expectedTokens, speedup, bestLookahead }")();
        const K = Array.from({ length: longest + 1 }, (_, k) => k);
        return alphas.map(a => ({
            tokens: K.map(k => f.expectedTokens(a, k)),
            gains: costs.map(c => [1, 1.4, 5].map(v => K.map(k => f.speedup(a, k, c, v)))),
            best: costs.map(c => [1, 1.4, 5].map(v => f.bestLookahead(a, c, v, longest))) }));
    }""", [static.read("theory.js"), alphas, costs, longest])
    K = np.arange(longest + 1)
    for alpha, js in zip(alphas, found, strict=True):
        np.testing.assert_allclose(js["tokens"], theory.expected_tokens(alpha, K), rtol=0, atol=1e-9)
        for i, cost in enumerate(costs):
            assert js["best"][i][0] == theory.best_lookahead(alpha, cost, longest=longest)
            for j, verify in enumerate((1, 1.4, 5)):
                expected = theory.speedup(alpha, K, cost, verify)
                np.testing.assert_allclose(js["gains"][i][j], expected, rtol=0, atol=1e-9)
                # K = 0 is plain decoding: its pass is over one token, whatever K + 1 tokens cost.
                gains = theory.speedup(alpha, K, cost, np.where(K == 0, 1.0, verify))
                assert gains[js["best"][i][j]] == pytest.approx(gains.max(), abs=1e-12)


@pytest.mark.slow
def test_drawn_rounds_follow_the_law_of_accepted_tokens(page):
    from minilab.speculative.interactive import static

    counts = np.array(page.evaluate("""source => {
        const f = new Function(source + "; return { randomNumbers, drawRound }")();
        const random = f.randomNumbers(7), counts = [0, 0, 0, 0, 0];
        for (let i = 0; i < 40000; i++) counts[f.drawRound(0.7, 4, random).accepted] += 1;
        return counts;
    }""", static.read("theory.js")))
    expected = 40000 * theory.accepted_pmf(0.7, 4)
    assert ((counts - expected) ** 2 / expected).sum() < 18.5  # chi-square, 4 degrees of freedom: p = 0.001


@pytest.mark.slow
def test_sliders_move_the_numbers_by_keyboard(page):
    chosen, best = page.locator("[data-out=chosen]"), page.locator("[data-out=best]")
    tokens = theory.expected_tokens(0.8, 5)
    assert chosen.inner_text() == f"K = 5: {tokens:.2f} tokens in 1.25 target steps, {tokens / 1.25:.2f}×"
    page.get_by_role("slider", name="lookahead K").press("ArrowRight")
    for _ in range(10):
        page.get_by_role("slider", name="verification cost v").press("ArrowRight")
    gains = theory.speedup(0.8, np.arange(1, 17), 0.05, 1.5)
    assert chosen.inner_text().startswith("K = 6:") and chosen.inner_text().endswith(f"{gains[5]:.2f}×")
    assert best.inner_text() == f"best K = {gains.argmax() + 1}: {gains.max():.2f}×"
    page.get_by_role("slider", name="acceptance rate").press("Home")
    assert best.inner_text().startswith("best: no speculation")
    page.wait_for_function(
        "document.querySelector('.minilab-explorer [role=status]').textContent.includes('no speculation')")


@pytest.mark.slow
def test_rounds_step_to_a_verdict_and_average_to_the_formula(page):
    verdict, mean = page.locator("[data-out=verdict]"), page.locator("[data-out=mean]")
    for _ in range(7):
        page.get_by_role("button", name="Next token").click()
        if verdict.inner_text().startswith("Round 1:"):
            break
    accepted = page.locator(".minilab-explorer .accepted").count()
    assert page.locator(".minilab-explorer .rejected").count() == (accepted < 5)
    assert f"{accepted + 1} token" in verdict.inner_text()
    assert f"average of 1 round: {accepted + 1:.3f} tokens" in mean.inner_text()
    for _ in range(20):
        page.get_by_role("button", name="100 rounds").click()
    average = float(re.search(r"average of 2001 rounds: ([\d.]+)", mean.inner_text())[1])
    assert average == pytest.approx(theory.expected_tokens(0.8, 5), abs=4 * 1.8 / 2001**0.5)
    page.get_by_role("button", name="Reset").click()
    assert "no round yet" in mean.inner_text()


@pytest.mark.slow
def test_replay_hides_what_has_not_arrived_and_ends_whole(page):
    everything = ["One", " <b>", " &", " four.", "One <b> &", " four."]
    assert shown(page, ".ml-text span") == everything
    assert shown(page, "table") == []
    page.get_by_role("button", name="¼×").click()
    page.get_by_role("button", name="Play").click()
    assert shown(page, ".ml-text span") == []
    page.wait_for_function("document.querySelectorAll('.ml-text .on').length >= 2")
    page.get_by_role("button", name="Pause").click()
    seen = shown(page, ".ml-text span")
    assert "One" in seen and len(seen) < len(everything)
    page.get_by_role("button", name="1×", exact=True).click()
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(
        "document.querySelector('.minilab-race [role=status]').textContent.includes('ive is done: 4')")
    assert shown(page, ".ml-text span") == everything
    meters = shown(page, "[data-meter]")
    assert meters == ["4 tokens · 0.80 s · 5.0 tokens/s", "4 tokens · 0.50 s · 8.0 tokens/s"]


@pytest.mark.slow
def test_slow_replay_is_slow_before_any_button_was_pressed(browser):
    page = browser.new_page()
    page.set_content(PAGE.format(figures=race_html(RACE, speeds=SLOW)))
    page.get_by_role("button", name="Play").click()
    page.wait_for_timeout(1500)  # the whole race takes 0.8 s
    assert 0 < float(page.locator("[data-clock]").inner_text().split()[0]) < 0.2
    page.close()


@pytest.mark.slow
def test_print_in_mid_replay_shows_the_still(page):
    page.get_by_role("button", name="¼×").click()
    page.get_by_role("button", name="Restart").click()
    page.emulate_media(media="print")
    assert len(shown(page, ".ml-text span")) == 6 and len(shown(page, "table")) == 2
    assert shown(page, "button") == [] and shown(page, "input") == []


@pytest.mark.slow
def test_page_without_scripts_shows_the_still(browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_content(PAGE.format(figures=race_html(RACE) + explorer_html()))
    for selector, count in ((".ml-text span", 6), ("table", 2), ("button", 0), ("input", 0)):
        assert sum(e.is_visible() for e in page.locator(selector).all()) == count, selector
    context.close()


@pytest.mark.slow
def test_reduced_motion_stops_the_moving_line_and_not_the_text(browser):
    page = browser.new_page(reduced_motion="reduce")
    page.set_content(PAGE.format(figures=race_html(RACE)))
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelectorAll('.ml-text .on').length >= 1")
    assert page.locator(".now").first.evaluate("e => getComputedStyle(e).visibility") == "hidden"
    assert page.evaluate("document.getAnimations().length") == 0
    page.close()
