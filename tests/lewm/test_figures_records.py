"""Figures of chapter 3's records say what is true of the arms that they show."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from minilab.core.records import Record
from minilab.lewm import figures_records
from minilab.lewm.baselines.arms import ARMS, Setting
from minilab.lewm.experiments_learn import EIGHT
from minilab.lewm.learn import small
from minilab.lewm.model import Head, cpu


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_an_arm_stands_under_the_norm_that_its_heads_have(norm):
    config = cpu(10, head_norm=norm)
    clip = SimpleNamespace(frames=torch.zeros(4, 4, 3, 32, 32, dtype=torch.uint8))
    setting = Setting(config, small(2), lambda n, generator: clip, None, 0, torch.device("cpu"))
    for arm in (*EIGHT, "sigreg_reconstruction"):
        heads = [module for module in ARMS[arm].build(setting).modules() if isinstance(module, Head)]
        kinds = {type(head.norm) for head in heads}
        told = {nn.LayerNorm: f"{arm}, layer", nn.BatchNorm1d: f"{arm}, batch"}[kinds.pop()] if heads else arm
        assert not kinds and list(figures_records.by_heads({f"{arm}, {norm}": {}})) == [told]


def test_collapse_draws_each_arm_in_the_series_of_its_heads():
    record = Record.load("lewm/collapse", preset="gpu")
    rows = figures_records.by_heads(record.results["arms"])
    assert len(rows) == len(record.results["arms"]) and {"reconstruction, batch", "frozen_random"} <= rows.keys()
    fig = figures_records.collapse(record)
    ax = fig.axes[0]
    names = {figures_records.LABELS[arm]: arm for arm in EIGHT}
    drawn = {}
    for series in ax.containers:
        for share, at in zip(*series[0].get_data(), strict=True):
            arm = names[ax.get_yticklabels()[round(float(at))].get_text()]
            drawn[arm, series.get_label()] = float(share)
    shown = [text.get_text() for text in fig.legends[0].get_texts()]
    plt.close(fig)
    labels = {"layer": "LayerNorm heads", "batch": "BatchNorm heads", "": "no heads"}
    expected = {}
    for name, row in rows.items():
        arm, _, norm = name.partition(", ")
        expected[arm, labels[norm]] = pytest.approx(100 * row["success"]["mean"])
    assert drawn == expected and set(shown) == {*labels.values(), "chance"}
