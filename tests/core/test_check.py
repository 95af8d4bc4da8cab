"""The check of a chapter's numbers, alone and in a real notebook beside a figure."""

import math

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from minilab import check, timed


@pytest.mark.parametrize("value", [1, 2.5, 3, np.float32(2), torch.tensor(2.0)])
def test_the_line_is_the_same_for_every_value_inside(capsys, value):
    check("acceptance rate", value, 1, 3)
    assert capsys.readouterr().out.splitlines()[0] == "acceptance rate: within [1, 3]"


@pytest.mark.parametrize("value", [0.999, 3.001, math.nan, math.inf, -math.inf])
def test_outside_the_band_raises_with_the_value(capsys, value):
    with pytest.raises(AssertionError, match=rf"rate is {value:.6g}, outside \[1, 3\]"):
        check("rate", value, 1, 3)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("low, high", [(3, 1), (math.nan, 1)])
def test_empty_band_is_refused(low, high):
    with pytest.raises(ValueError, match="band of 'rate' is empty"):
        check("rate", 2, low, high)


@pytest.mark.parametrize("value", [1e-9, 2.5, torch.tensor(1e9), math.inf])
def test_a_time_has_no_band(capsys, value):
    timed("speed-up", value)
    assert capsys.readouterr().out.splitlines()[0] == "speed-up: measured on this machine"


@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_a_time_that_nothing_measured_is_refused(value):
    with pytest.raises(AssertionError, match=f"speed-up is {value:.6g}: a time"):
        timed("speed-up", value)


def test_notebook_compares_the_line_and_can_hide_the_value_and_the_figure():
    cells = [
        "import minilab\nminilab.check('rate <1>', 0.123456789, 0, 1)",
        "from minilab.core.style import figure, show\nfig, ax = figure()\nshow(fig, alt='two axes')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    line, value = notebook.cells[0].outputs
    assert line.output_type == "stream" and line.name == "stdout" and line.text == "rate <1>: within [0, 1]\n"
    assert value.data["text/html"] == '<span class="minilab-value">rate &lt;1&gt; = 0.123457</span>'
    assert value.data["text/plain"] == "minilab-value: rate <1> = 0.123457"
    (picture,) = notebook.cells[1].outputs  # once, and nothing on stderr
    assert picture.data["text/html"].startswith('<figure class="minilab-figure"')
    assert picture.data["text/plain"] == "Figure: two axes"
