"""What the interactive figures draw with: numbers as text, ticks, and axes."""

import json

import pytest

from minilab.core.widget import Static

SCRIPT = Static("minilab.core").read("plot.js")


@pytest.fixture(scope="module")
def of(browser):
    """What an expression of the script comes to."""
    page = browser.new_page()
    yield lambda expression: json.loads(page.evaluate(
        "([source, expression]) => new Function(`${source}; return JSON.stringify(${expression})`)()",
        [SCRIPT, expression]))
    page.close()


def test_numbers_have_a_real_minus_and_no_minus_zero(of):
    assert of("[show(-1.005, 1), show(-0.001), show(2, 0), minus(-3)]") == ["−1.0", "0.00", "2", "−3"]
    values = "[0, 12345, -12345, 12.34, 0.01234, 0.00012, -0.00012].map(few)"
    assert of(values) == ["0", "12345", "−12345", "12", "0.012", "1e−4", "−1e−4"]


@pytest.mark.parametrize("low, high", [(0, 1), (-3, 3), (4.41, 4.63), (0, 1e-3), (1, 64), (-0.2, 900)])
def test_ticks_are_round_evenly_spaced_and_inside(of, low, high):
    found = of(f"ticks({low}, {high}, 5)")
    steps = [b - a for a, b in zip(found, found[1:], strict=False)]
    assert 2 <= len(found) <= 6 and low <= found[0] and found[-1] <= high
    assert steps == pytest.approx([steps[0]] * len(steps)) and steps[0] > (high - low) / 13
    assert float(f"{steps[0]:.1e}"[:3]) in (1, 2, 5)


def test_logarithmic_ticks_are_powers_of_ten_over_many_decades(of):
    assert of("logTicks(0.5, 40)") == [0.5, 1, 2, 5, 10, 20]
    assert of("logTicks(1e-3, 100)") == [0.001, 0.01, 0.1, 1, 10, 100]
    assert of("logTicks(0.01, 10, [1])") == [0.01, 0.1, 1, 10]


def test_axes_map_both_ends_to_the_edges_and_what_is_beyond_stays_there(of):
    box = "{ left: 10, right: 110, top: 20, bottom: 220, name: 'x', "
    found = of(f"(p => [0, 1, 2, 3, -1].map(v => [p.x(v), p.y(v)]))(axes({box} x0: 0, x1: 2, y0: 0, y1: 2 }}))")
    assert found == [[10, 220], [60, 120], [110, 20], [110, 20], [10, 220]]
    found = of(f"(p => [1, 10, 100, 0.1].map(v => [p.x(v), p.y(v)]))(axes({box} x0: 1, x1: 100, y0: 1, y1: 100, "
               "logx: true, logy: true }))")
    assert found == [[10, 220], [60, 120], [110, 20], [10, 220]]


def test_a_path_leaves_out_and_a_level_is_not_drawn_beyond_the_axes(of):
    box = "{ left: 0, right: 100, top: 0, bottom: 100, x0: 0, x1: 10, y0: 0, y1: 1, name: 'x' }"
    assert 'points="0,100 100,0"' in of(f"axes({box}).path('law', [0, 5, 10], [0, 2, 1])")
    assert of(f"axes({box}).level('floor', 2)") == "" and 'y1="50"' in of(f"axes({box}).level('floor', 0.5)")
    assert 'y="0" height="50.0"' in of(f"axes({box}).band('interval', 0.5, 3)")
