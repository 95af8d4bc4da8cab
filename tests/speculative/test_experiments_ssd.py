"""Hit rates and the trade of Saguaro sampling, at a size that takes seconds."""

from dataclasses import replace

import numpy as np
import pytest

from minilab.core.records import Record
from minilab.core.style import figure_html
from minilab.speculative import experiments_ssd, fanout, figures
from minilab.speculative.engine import AsyncRound, Times


@pytest.fixture(scope="module")
def hits():
    preset = replace(experiments_ssd.HITS["cpu"], prompts=6, new_tokens=20, temperatures=(1.0,), budget=10)
    return experiments_ssd.hits(preset)


@pytest.fixture(scope="module")
def saguaro():
    preset = replace(experiments_ssd.SAGUARO["cpu"], prompts=6, new_tokens=20, constants=(1.0, 0.05))
    return experiments_ssd.saguaro(preset)


def step(accepted, ranks, hits, drafted=2):
    rows = list(range(len(accepted)))
    return AsyncRound(rows, [[0]] * len(rows), accepted, drafted, hits, ranks, [[]], [[]], [[]], [0], Times(0, 0, 0), 0)


def test_outcomes_are_those_of_full_rounds_and_of_the_asked_source():
    rounds = [step([2, 0], [5, 1], [False, True]), step([1], [3], [True]), step([1], [9], [False], drafted=1)]
    k, rank = experiments_ssd.outcomes(rounds, after_draft=True)
    assert k.tolist() == [2, 0, 1] and rank.tolist() == [5, 1, 3]
    k, rank = experiments_ssd.outcomes(rounds, after_draft=False)
    assert k.tolist() == [2] and rank.tolist() == [5]


def test_compared_hit_rates_are_those_of_counting():
    k, rank = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 3, 1, 2, 0, 7])
    found = experiments_ssd._compare(k, rank, K=2, budget=6, alpha=0.5, r=0.5)
    for name, fan_out in found["fan_out"].items():
        assert sum(fan_out) == 6
        assert found["hit_rate"][name] == pytest.approx(np.mean([r < fan_out[j] for j, r in zip(k, rank, strict=True)]))
    assert found["hit_rate"]["optimal"] == pytest.approx(4 / 6)


def test_miss_rates_fall_with_the_fan_out_and_the_fit_follows_them(hits):
    curve = hits.results["curves"]["1.0"]
    for source in ("primary", "backup"):
        miss = np.array(curve[source]["miss"])
        assert (np.diff(miss) <= 0).all() and 0 < miss[-1] < miss[0] < 1
        fit = 1 - fanout.power_law(hits.results["fan_outs"], curve[source]["A"], curve[source]["r"])
        assert np.abs(fit - miss).max() < 0.15
    rates = curve["hit_rate"]
    assert rates["optimal"] >= max(rates.values()) - 1e-9


def test_starving_the_guesses_buys_hits_with_acceptance(saguaro):
    plain, starved = saguaro.results["points"]
    assert starved["hit_rate"] > plain["hit_rate"] + 0.05
    assert starved["acceptance_rate"] < plain["acceptance_rate"] - 0.02


def test_records_survive_the_file_and_their_figures_are_drawn(hits, saguaro, tmp_path):
    for record, draw in ((hits, figures.miss_rates), (saguaro, figures.saguaro)):
        loaded = Record.load(record.name, preset="cpu", root=record.save(tmp_path).parents[1])
        assert loaded.results == record.results
        assert figure_html(draw(record), alt="x") == figure_html(draw(loaded), alt="x")
