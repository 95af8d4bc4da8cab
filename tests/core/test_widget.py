"""The parts of interactive figures: what a template gets, and what a reader without scripts sees."""

import re

import pytest

from minilab.core.style import PALETTE
from minilab.core.widget import Static, choices, slider, table


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
