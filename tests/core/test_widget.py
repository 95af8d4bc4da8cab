"""The parts of interactive figures: what a template gets, and what a reader without scripts sees."""

import re
import sys

import pytest
from live import drawn, press, turn

from minilab.core.style import PALETTE
from minilab.core.widget import Choice, Static, choices, live, slider, table


def test_style_is_the_shared_sheet_and_the_methods_own_in_the_books_colors():
    css = Static("minilab.speculative").style("timeline.css")
    assert ".minilab-live" in css and ".minilab-timeline" in css and PALETTE.blue in css and "$" not in css


def test_a_template_with_a_part_missing_is_an_error():
    with pytest.raises(KeyError, match="items"):
        Static("minilab.speculative").fill("cache.html", style="", before="", caption="")


def test_texts_are_escaped_and_one_choice_is_pressed():
    buttons = choices("task", {"a": "<A>", "b": "B & C"}, "b")
    assert re.findall(r'data-task="(.)" aria-pressed="(\w+)">([^<]*)<', buttons) == [
        ("a", "false", "&lt;A&gt;"), ("b", "true", "B &amp; C")]
    cells = table(["", "<x>"], [["row & co", "1 < 2"]], title="a > b")
    assert "&lt;x&gt;" in cells and "row &amp; co" in cells and "1 &lt; 2" in cells and "a &gt; b" in cells


def test_a_slider_shows_its_start_with_its_digits():
    html = slider(0.5, "x", "what", 0, 1, 0.05, 2)
    assert ">0.50</b>" in html and 'value="0.50"' in html


# With a kernel.


def root(n: int, x: float, sign: int) -> str:
    if x < 0:
        raise ValueError(f"x < 0: {x}")
    return f"{n} {sign * x**0.5:g}"


def rooted(**controls):
    return live({"n": 2, "x": 9.0, "sign": Choice({"plus": 1, "minus": -1}, 1), **controls}, root)


def test_a_live_figure_draws_the_values_of_its_controls_in_order_at_once_and_after_each_change():
    figure = rooted()
    assert drawn(figure) == "2 3"
    assert turn(figure, {"sign": -1}) == "2 -3"
    assert turn(figure, {"n": 7, "x": 2.25}) == "7 -1.5"


def test_an_error_is_text_and_the_next_value_is_drawn():
    figure = rooted()
    assert turn(figure, {"x": -4.0}) == '<p role="alert">x &lt; 0: -4.0</p>'
    assert turn(figure, {"x": 4.0}) == "2 2"


def test_a_button_calls_and_then_the_figure_is_drawn():
    pressed = []
    figure = live({"more": lambda: pressed.append(1), "n": 5}, lambda n: f"{n} {len(pressed)}")
    assert drawn(figure) == "5 0"
    assert press(figure, "more") == "5 1" and press(figure, "more") == "5 2"


def test_a_beginning_that_cannot_be_drawn_is_an_error():
    with pytest.raises(ValueError, match="x < 0"):
        live({"n": 1, "x": -1.0, "sign": 1}, root)
    with pytest.raises(ValueError, match="3 has no button; choose one of 1, -1"):
        Choice({"plus": 1, "minus": -1}, 3)


def test_without_ipywidgets_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match="pip install ipywidgets"):
        rooted()
