"""The fan of candidate plans: its data, what it says without scripts, and what its script does in a browser."""

import json
import re

import numpy as np
import pytest
import torch
from live import drawn, press
from matplotlib.colors import to_hex

from minilab.core.records import Record
from minilab.core.style import PALETTE
from minilab.dmpc import figures
from minilab.dmpc.agent import Planner
from minilab.dmpc.interactive import best_of, fan, fan_html, live_fan, show_fan
from minilab.dmpc.rewards import planned, track_pitch, track_speed
from minilab.planning.rank import sample_score_rank

S, A, F, N = 17, 6, 8, 32
STARTS = {"at rest": torch.zeros(S), "in motion": torch.full((S,), 1.5)}
OBJECTIVES = {"1 m/s": planned(track_speed(1.0), discount=0.9), "nose < up": planned(track_pitch(-0.5), discount=0.9)}


def walk(state, actions):
    """Every number of a state drifts by the mean action: a model that can be checked by hand."""
    return state[:, None, None] + actions.mean(dim=-1, keepdim=True).cumsum(dim=2).expand(*actions.shape[:3], S)


def planner(seed: int = 0) -> Planner:
    g = torch.Generator().manual_seed(seed)
    return Planner(lambda s, n: 2 * torch.rand(len(s), n, F, A, generator=g) - 1, walk, OBJECTIVES["1 m/s"], n=N)


def made(seed: int = 0) -> dict:
    return fan(planner(seed), OBJECTIVES, STARTS, dt=0.05, n=N)


DATA = made()


def without_scripts(html: str) -> str:
    return re.sub(r"(?s)<(script|style)\b.*?</\1>", "", html)


def test_data_are_the_plans_that_the_ranking_would_draw():
    """The same draws through `sample_score_rank`, for each objective."""
    for j, objective in enumerate(OBJECTIVES.values()):
        other = planner()
        plans = sample_score_rank(torch.stack(list(STARTS.values())), other.propose, walk, objective, N)
        for i, start in enumerate(DATA["starts"]):
            np.testing.assert_allclose(start["scores"][j], plans.scores[i], atol=1e-4)
            np.testing.assert_allclose(start["speed"], plans.states[i, ..., 8], atol=6e-4)
            np.testing.assert_allclose(start["height"], plans.states[i, ..., 0], atol=6e-4)
            np.testing.assert_allclose(start["pitch"], plans.states[i, ..., 1], atol=6e-4)
            assert best_of(start["scores"][j], N) == int(plans.best[i])


def test_data_survive_a_record_and_give_the_same_page(tmp_path):
    record = Record("dmpc", "fan", "cpu", {}, DATA, {})
    record.save(tmp_path)
    again = Record.load("dmpc/fan", root=tmp_path)
    assert fan_html(again) == fan_html(record) and json.loads(json.dumps(again.results)) == record.results


def test_a_shipped_size_of_candidates_fits_the_page():
    states = {name: torch.randn(S) for name in ("a", "b", "c")}
    many = {f"objective {i}": OBJECTIVES["1 m/s"] for i in range(5)}
    wide = Planner(lambda s, n: 2 * torch.rand(len(s), n, 16, A) - 1, walk, OBJECTIVES["1 m/s"], n=64)
    assert len(fan_html(fan(wide, many, states, dt=0.05, n=64)).encode()) < 200_000
    with pytest.raises(ValueError, match="above 200 kB: give fewer starts or candidates"):
        fan_html(fan(wide, many, states, dt=0.05, n=400))


def test_figure_is_whole_and_free_of_ids_and_addresses():
    html = fan_html(DATA)
    assert html == fan_html(made())
    assert not re.search(r"\$[a-z]|\bid=|https?://|//cdn|require\(|\bimport\b", html)
    for tag in ("figure", "style", "script", "table", "tr", "td", "th", "svg", "div", "p", "span", "label"):
        assert html.count(f"</{tag}>") == len(re.findall(rf"<{tag}[\s>]", html)), tag
    assert "nose < up" not in html and "nose &lt; up" in html


def test_table_without_scripts_has_the_best_scores_and_where_the_best_ends():
    cells = {row: re.findall(r"<td>(.*?)</td>", rest) for row, rest in
             re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', without_scripts(fan_html(DATA, start="in motion")))}
    start = DATA["starts"][1]
    for row, scores in zip(("1 m/s", "nose &lt; up"), start["scores"], strict=True):
        best = int(np.argmax(scores))
        expected = [max(scores[:n]) for n in (1, 4, 16, N)] + [start[w][best][-1] for w in ("speed", "height", "pitch")]
        assert [float(c.replace("\N{MINUS SIGN}", "-")) for c in cells[row]] == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("options, message", [
    ({"objective": "jump"}, "no objective called 'jump'; choose one of 1 m/s, nose < up"),
    ({"start": "asleep"}, "no start called 'asleep'; choose one of at rest, in motion"),
    ({"n": 0}, "n can be 1 to 32, not 0"),
    ({"n": 33}, "n can be 1 to 32, not 33"),
])
def test_what_the_data_lack_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fan_html(DATA, **options)


def test_no_objectives_and_one_that_is_nan_are_refused():
    with pytest.raises(ValueError, match="at least one objective"):
        fan(planner(), {}, STARTS, dt=0.05)
    with pytest.raises(ValueError, match="the objective is NaN for 64 of 64 plans"):
        fan(planner(), {"bad": lambda s, a: s[..., 0, 0] * float("nan")}, STARTS, dt=0.05, n=N)


def test_show_prints_the_table_where_there_is_no_notebook(capsys):
    show_fan(DATA, start="in motion")
    said = capsys.readouterr().out
    best = max(DATA["starts"][1]["scores"][0])
    assert "Start: in motion." in said and f"N = {N} {best:.2f}".replace("-", "\N{MINUS SIGN}") in said


def test_live_figure_plans_anew_with_the_next_seed():
    figure = live_fan(made, start="in motion")
    assert drawn(figure) == fan_html(made(0), start="in motion")
    assert press(figure, "plan again") == fan_html(made(1), start="in motion") != fan_html(made(0), start="in motion")


def test_still_figure_draws_n_paths_and_the_best_in_orange():
    fig = figures.fan(DATA, start="in motion", n=16)
    for i, row in enumerate(np.array(fig.axes).reshape(2, 3)):
        best = best_of(DATA["starts"][1]["scores"][i], 16)
        for ax, what in zip(row, ("speed", "height", "pitch"), strict=True):
            orange = [line for line in ax.lines if to_hex(line.get_color()) == PALETTE.orange]
            assert len(ax.lines) == 16 and len(orange) == 1
            assert list(orange[0].get_ydata()) == DATA["starts"][1][what][best]


# In a browser.

PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Figures</title>
<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width"><style>
body {{ margin: 0 1rem; color: #222832; background: #fff; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ced6dd; background: #121212; }} }}</style></head>
<body><main><article><h1>Figures</h1>{figures}</article></main></body></html>"""


@pytest.fixture
def page(browser):
    page = browser.new_page()
    page.set_content(PAGE.format(figures=fan_html(DATA, n=8)))
    yield page
    page.close()


def told(page) -> str:
    return page.locator("[data-out=told]").inner_text().replace("\N{MINUS SIGN}", "-")


def expected(start: int, objective: int, n: int) -> str:
    paths = DATA["starts"][start]
    scores = paths["scores"][objective][:n]
    best = int(np.argmax(scores))
    return (f"candidate {best + 1}, score {scores[best]:.2f}; their mean is {np.mean(scores):.2f}. It ends at speed "
            f"{paths['speed'][best][-1]:.2f} m/s, height {paths['height'][best][-1]:.2f} m, "
            f"pitch {paths['pitch'][best][-1]:.2f} rad.")


@pytest.mark.slow
def test_script_picks_the_candidate_that_the_planner_picks(page):
    assert expected(0, 0, 8) in told(page)
    page.get_by_role("button", name="nose < up").click()
    assert expected(0, 1, 8) in told(page)
    page.get_by_role("button", name="in motion").click()
    assert expected(1, 1, 8) in told(page)
    page.get_by_role("slider", name="candidates N").press("ArrowRight")
    assert expected(1, 1, 9) in told(page)
    page.get_by_role("slider", name="candidates N").press("End")
    assert expected(1, 1, N) in told(page)
    page.wait_for_function("document.querySelector('.minilab-fan [role=status]').textContent.includes('Best of 32')")
    assert page.locator("[data-objective][aria-pressed=true]").all_inner_texts() == ["nose < up"]


@pytest.mark.slow
def test_as_many_paths_and_bars_as_candidates_and_the_best_stands_first(page):
    for n in (8, N):
        assert page.locator("[data-plot=speed] polyline").count() == n
        assert page.locator("[data-plot=scores] rect").count() == n
        boxes = [r.bounding_box() for r in page.locator("[data-plot=scores] rect").all()]
        assert boxes[0]["y"] <= min(b["y"] for b in boxes) and boxes[0]["x"] <= min(b["x"] for b in boxes)
        chosen = page.locator("[data-plot=speed] polyline").last
        assert chosen.get_attribute("class") == "chosen"
        page.get_by_role("slider").press("End")
    page.get_by_role("slider").press("Home")
    assert told(page).startswith("One candidate")
    assert page.locator("[data-plot=pitch] polyline").count() == 1


@pytest.mark.slow
def test_print_keeps_curves_and_table_and_a_page_without_scripts_the_table(browser, page):
    page.emulate_media(media="print")
    assert page.locator("table").is_visible() and page.locator("[data-plot=speed]").is_visible()
    assert not page.get_by_role("slider").is_visible() and not page.locator("button").first.is_visible()
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.set_content(PAGE.format(figures=fan_html(DATA)))
    assert plain.locator("table").is_visible()
    assert not any(e.is_visible() for e in plain.locator("button, input, svg").all())
    context.close()


@pytest.mark.slow
def test_two_on_a_page_pass_axe_and_fit_a_phone(browser, tmp_path):
    from browser import THEMES, WIDTHS, serve, visit

    (tmp_path / "page.html").write_text(PAGE.format(figures=fan_html(DATA) + fan_html(DATA, n=1)), encoding="utf-8")
    with serve(tmp_path) as site:
        for width in WIDTHS:
            for theme in THEMES:
                assert visit(browser, site, "page.html", width=width, theme=theme).faults == []
