"""The message is a code, and it is short where there is something to know."""

import itertools
import math

import pytest
import torch

from minilab.pacbayes.phenomena.labels import LabelsConfig, compress
from minilab.pacbayes.phenomena.mlp import FitConfig
from minilab.pacbayes.phenomena.task import Task


def test_the_lengths_of_all_possible_labels_fill_krafts_sum():
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    config = LabelsConfig(shares=(0,), blocks=(1, 2, 4), hidden=3, training=FitConfig(steps=20))
    total = 0.0
    for y in itertools.product((0, 1), repeat=4):
        sent = compress(Task(x, torch.tensor(y), x[:2], torch.tensor([0, 1])), config)
        total += 2 ** -float(sent.blocks.sum())
    assert total == pytest.approx(1, abs=1e-6)


def test_digits_compress_and_labels_without_meaning_do_not(digits):
    sent = compress(digits, LabelsConfig(blocks=(32, 64, 128, 256, 500)))
    assert sent.guessing == pytest.approx(500 * math.log2(10))
    assert sent.bits[0] < 0.3 * sent.guessing
    assert sent.bits[0] < sent.bits[1] < sent.guessing
    assert float(sent.bits[2]) == pytest.approx(sent.guessing + 1)
    per_label = sent.blocks[0] / torch.tensor([32, 32, 64, 128, 244])
    assert per_label[-1] < per_label[1] < per_label[0]  # it learns while it sends


def test_a_network_that_may_not_learn_sends_at_the_price_of_guessing(digits):
    sent = compress(digits, LabelsConfig(shares=(0,), blocks=(50, 100), training=FitConfig(steps=300, decay=100.0)))
    assert float(sent.blocks.sum()) == pytest.approx(sent.guessing, rel=1e-3)


def test_bad_input_says_what_to_give():
    with pytest.raises(ValueError, match="growing"):
        LabelsConfig(blocks=(10, 10))
    with pytest.raises(ValueError, match="guessing is 0"):
        LabelsConfig(guessing=0)
