"""Each figure of an experiment shows the numbers of its record, in whatever order the file has them."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from minilab.core.records import Record
from minilab.core.style import PALETTE
from minilab.dmpc import figures_records as figures

TWO_CORES = {"fixed": figures.fixed, "wishes": figures.wishes, "defect": figures.defects, "ablation": figures.ablation,
             "compounding": figures.compounding, "effort": figures.effort}


@pytest.mark.parametrize("name", TWO_CORES)
def test_figures_draw_from_the_shipped_records_and_label_their_axes(name):
    fig = TWO_CORES[name](Record.load(f"dmpc/{name}", preset="two-cores"))
    assert fig.axes
    assert any(ax.get_xlabel() for ax in fig.axes)


def test_dots_stand_where_the_record_says_the_best_on_top_and_ours_in_blue():
    record = Record.load("dmpc/fixed", preset="two-cores")
    tier = next(iter(record.results["tiers"].values()))
    ax = figures.fixed(record).axes[0]
    names = [label.get_text() for label in ax.get_yticklabels()]
    means = [tier["returns"][name]["mean"] for name in names]
    assert means == sorted(means)
    drawn = [line for line in ax.lines if line.get_marker() == "o"]
    assert [float(line.get_xdata()[0]) for line in drawn] == means
    blue = [name for name, line in zip(names, drawn, strict=True) if to_hex(line.get_color()) == PALETTE.blue]
    assert blue == ["D-MPC"]


def test_efforts_are_in_rising_order_though_a_file_sorts_its_keys_as_text():
    axes = figures.effort(Record.load("dmpc/effort", preset="two-cores")).axes
    for ax in axes[len(axes) // 2 :]:
        numbers = [int(label.get_text().split()[0]) for label in ax.get_xticklabels()]
        assert numbers == sorted(numbers) and len(numbers) > 1


def test_no_effort_is_written_over_its_neighbor():
    fig = figures.effort(Record.load("dmpc/effort", preset="gpu"))
    FigureCanvasAgg(fig).draw()
    for ax in fig.axes[len(fig.axes) // 2 :]:
        boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_several_records_share_a_figure_and_each_panel_has_the_lines_of_its_own_behavior():
    records = [Record.load("dmpc/fixed", preset=preset) for preset in ("gpu", "gpu-expert")]
    tiers = [tier for record in records for tier in record.results["tiers"].values()]
    lines = [[float(line.get_xdata()[0]) for line in ax.lines[-2:]] for ax in figures.fixed(*records).axes]
    assert lines == [[tier["behavior"]["mean"], tier["behavior"]["p90"]] for tier in tiers]


def test_granted_wishes_lie_on_the_diagonal():
    record = Record.load("dmpc/wishes", preset="two-cores")
    ax = figures.wishes(record).axes[0]
    speeds = {row["target"]: row["D-MPC"]["achieved"]["mean"] for name, row in record.results["wishes"].items()
              if name.startswith("speed")}
    line = next(container for container in ax.containers if container.get_label() == "D-MPC")[0]
    np.testing.assert_allclose(line.get_xdata(), sorted(speeds))
    np.testing.assert_allclose(line.get_ydata(), [speeds[target] for target in sorted(speeds)])


def test_worth_has_a_panel_a_condition():
    record = Record.load("dmpc/compounding", preset="two-cores")
    assert len(figures.worth(record).axes) == len(record.results)
