"""What chapter 4's figures draw is what their records hold."""

import numpy as np
import pytest

from minilab.core.records import Record
from minilab.pacbayes import figures, figures_phenomena
from minilab.pacbayes.inverses import kl_inverse
from minilab.pacbayes.phenomena.polynomials import PolynomialConfig, polynomials


def record(results: dict, **config) -> Record:
    return Record("pacbayes", "test", "cpu", config, results, {})


def row(bound, error, test, exact=0.1, bits=800):
    return {"bound": bound, "train_error": error, "test_error": test, "exact_error": exact, "bits": bits}


FEW = row([0.5, 0.54], [0.3, 0.34], [0.31, 0.35], [0.22, 0.24], [700, 720])
MANY = row([0.4, 0.42], [0.2, 0.2], [0.25, 0.21], [0.11, 0.13], [1300, 1320])
ROWS = {"1024": MANY, "256": FEW}  # as a file sorts them


def bars(ax) -> list[tuple[float, float]]:
    """Where each bar of a vertical chart begins and ends."""
    return [(patch.get_y(), patch.get_y() + patch.get_height()) for patch in ax.patches]


@pytest.mark.parametrize("draw", [figures.dimension, figures.width])
def test_a_bar_reaches_from_nothing_to_the_error_and_on_to_the_bound(draw):
    ax = draw(record({"rows": ROWS})).axes[0]
    np.testing.assert_allclose(bars(ax), [(0, 32), (0, 20), (32, 52), (20, 41)])
    dots = np.concatenate([line.get_ydata() for line in ax.lines if line.get_marker() == "o"])
    np.testing.assert_allclose(sorted(dots), [40, 42, 50, 54])
    (dashes,) = (line.get_ydata() for line in ax.lines if line.get_marker() == "_")
    np.testing.assert_allclose(dashes, [23, 12])


def test_structure_shows_where_guessing_is():
    rows = {"fully connected, labels shuffled": FEW, "fully connected, as it is": MANY}
    ax = figures.structure(record({"rows": rows, "guess": 0.9})).axes[0]
    np.testing.assert_allclose(bars(ax)[:2], [(0, 20), (0, 32)])
    assert [90, 90] in [list(line.get_ydata()) for line in ax.lines]


def test_a_ladder_has_means_for_bars_and_seeds_for_dots_and_says_how_far_a_cut_bar_goes():
    rows = {"count": row([9.0, 11.0], [0.2, 0.2], [0.21, 0.21]), "file": row([0.3, 0.32], [0.2, 0.24], [0.21, 0.25])}
    ax = figures.ladder(record({"seeds": rows, "guess": 0.9})).axes[0]
    assert {text.get_text() for text in ax.texts} == {"1,000 →", "31.0"}
    ends = [patch.get_x() + patch.get_width() for patch in ax.patches]
    assert max(ends) > ax.get_xlim()[1] and sorted(ends)[:3] == pytest.approx([20, 22, 31])
    dots = np.concatenate([line.get_xdata() for line in ax.lines if line.get_marker() == "o"])
    np.testing.assert_allclose(sorted(dots), [30, 32, 900, 1100])
    (tested,) = (line.get_xdata() for line in ax.lines if line.get_marker() == "D")
    np.testing.assert_allclose(tested, [23, 21])  # of the file and of the count: the tightest is first


def test_the_inverse_is_where_the_curve_meets_the_price():
    """Also where the price is so small that both are near the error, and so large that it leaves the picture."""
    for q, c in ((0.05, 0.05), (0.2, 1e-6), (0.0, 3e-7), (0.17, 5.0), (1.0, 0.1)):
        ax = figures.inverse(q, c).axes[0]
        points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if line.get_marker() == "o"]
        assert any(x == pytest.approx(kl_inverse(q, c)) and y == c for x, y in points)
        p, height = ax.lines[0].get_data()
        low, high = ax.get_xlim()
        assert low <= p.min() and p.max() <= high and p.max() - p.min() > 0.99 * (high - low)
        if c < 1 and q < 1:
            right = p > q
            assert np.interp(kl_inverse(q, c), p[right], height[right]) == pytest.approx(c, rel=1e-2)


def test_coverage_tells_who_paid_by_color():
    ax = figures.coverage(record({"failures": {"kl, paid": 0.01, "kl, not paid": 0.6}}, delta=0.05)).axes[0]
    widths = {patch.get_facecolor(): patch.get_width() for patch in ax.patches}
    assert sorted(widths.values()) == pytest.approx([1, 60]) and len(widths) == 2


def test_polynomials_pass_through_the_points_that_they_fit():
    curves = polynomials(PolynomialConfig(grid=41))
    fig = figures_phenomena.polynomials(curves)
    assert len(fig.axes) == 9
    fit = fig.axes[8].lines[1]  # the priced model on noise
    np.testing.assert_allclose(fit.get_ydata(), curves.fits[2, :, 2])


def test_phenomena_are_drawn_from_their_record():
    found = Record.load("pacbayes/phenomena", preset="two-cores")
    labels = figures_phenomena.noisy_labels(found)
    np.testing.assert_allclose(labels.axes[0].lines[0].get_ydata(), [100 * e for e in found.results["process"][
        "test_error"]])
    assert all(line.get_ydata()[0] == 0 for line in labels.axes[1].lines)
    peak = figures_phenomena.descent(found).axes[0].lines[1]
    assert abs(peak.get_xdata()[np.argmax(peak.get_ydata())] - 200) <= 5
    for draw in (figures_phenomena.selection, figures_phenomena.flat, figures_phenomena.modes):
        assert all(len(line.get_ydata()) > 1 for ax in draw(found).axes for line in ax.lines)


def test_what_a_token_costs_as_a_text_goes_on_is_drawn_beside_the_file_that_does_not_learn():
    learner = {"curve": [11.0, 9.0, 8.0, 8.5], "final_loss": 7.5, "bits": 0, "loss": 9.1}
    rows = {"a file": {"loss": 10.2, "bits": 3168}, "as it goes": learner, "all": {**learner, "final_loss": 7}}
    ax = figures.prequential(record({"rows": rows, "tokens": 8000, "guess": 12.0})).axes[0]
    steps = [patch.get_data() for patch in ax.patches]
    assert all(list(step.values) == learner["curve"] and list(step.edges) == [0, 2, 4, 6, 8] for step in steps)
    assert len(steps) == 2 and sorted(line.get_ydata()[0] for line in ax.lines) == [7, 7.5, 10.2, 12]
