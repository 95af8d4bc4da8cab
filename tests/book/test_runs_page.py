"""The directive behind "How this book was run" shows each run in one row, ready to be typed."""

import pytest
from docutils import nodes
from minilab_runs import HEAD, content

from minilab.core.provenance import Run, Runs

RUNS = Runs(
    rows=(
        Run("dmpc", "minilab run dmpc/fixed --preset gpu --seed 3", "2026-11-26", "0123456", "A", "1", "3", "12 min"),
        Run("dmpc", "python benchmarks/dmpc.py --device cpu", "2026-11-27", "0123456", "B", "1", "0", "9.0 s"),
    ),
    machines={"A": "a CPU, 2 cores", "B": "another"},
    software={"1": "Python 3.11.7"},
    seconds=729.0,
    first="2026-11-26",
    last="2026-11-27",
)


def cells(table: nodes.table) -> list[list[str]]:
    return [[entry.astext() for entry in row.findall(nodes.entry)] for row in table.findall(nodes.row)]


def test_a_table_has_a_row_for_each_run():
    head, first, second = cells(content(RUNS, "dmpc"))
    assert head == list(HEAD)
    assert first == ["dmpc/fixed --preset gpu", "3", "2026-11-26", "0123456", "A", "1", "12 min"]
    assert second[0] == "python benchmarks/dmpc.py --device cpu"  # no run of minilab's: the whole command


def test_labels_are_explained():
    assert cells(content(RUNS, "machines"))[1:] == [["A", "a CPU, 2 cores"], ["B", "another"]]
    assert cells(content(RUNS, "software"))[1:] == [["1", "Python 3.11.7"]]


def test_the_summary_counts_records_and_time():
    text = content(RUNS, "summary").astext()
    assert text == "2 records, made from 2026-11-26 to 2026-11-27 (UTC) in 12 min of machine time."


def test_a_method_without_records_is_refused():
    with pytest.raises(ValueError, match="no record of 'lewm'"):
        content(RUNS, "lewm")
