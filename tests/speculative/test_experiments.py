"""Experiments measure what they say, and their figures can be drawn from them, live or from the file."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from minilab.core.records import Record
from minilab.core.style import PALETTE
from minilab.speculative import data, experiments, figures
from minilab.speculative.decoding import Round, autoregressive, collect
from minilab.speculative.experiments import (
    ACCEPTANCE,
    EXPERIMENTS,
    AcceptancePreset,
    BandwidthPreset,
    SpeedPreset,
)
from minilab.speculative.pairs import Pair
from minilab.speculative.sampling import Sampling

ACCEPT = AcceptancePreset("cpu", prompts=4, new_tokens=24, K=3, temperatures=(0.0, 0.4, 1.0), device="cpu")
SPEED = SpeedPreset("cpu", lookaheads=(1, 3), prompts=2, new_tokens=10, repeats=3, device="cpu")
WIDTHS = BandwidthPreset("cpu", widths=(1, 4, 9), repeats=2, prefix=8, device="cpu")


@pytest.fixture(scope="module")
def pair(random_model):
    """Two models of the shipped vocabulary, small and often of one mind: they look at the newest token."""
    target, draft = (random_model(0, 4096, dim=dim, layers=1) for dim in (16, 16))
    draft.blocks[0].ffn.down.weight.data *= 0.7
    return Pair("tiny", target, draft, data.load_tokenizer(), stop=(0,))


@pytest.fixture(scope="module")
def records(pair):
    """One run of each measurement on the tiny pair; ceilings of the machine are given, not measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "load_pair_for", lambda name, device: pair)
        patch.setattr(experiments, "read_bandwidth", lambda device: 1e10)
        patch.setattr(experiments, "product_rate", lambda device: 2e10)
        return {
            "bandwidth": experiments.bandwidth(WIDTHS),
            "acceptance": experiments.acceptance(ACCEPT),
            "speed": experiments.speed(SPEED),
        }


def test_every_experiment_has_both_presets_under_their_names():
    for name, experiment in EXPERIMENTS.items():
        assert set(experiment.presets) >= {"cpu", "gpu"}, name
        for key, preset in experiment.presets.items():
            assert preset.name == key and isinstance(preset.seed, int) and isinstance(preset.device, str)
            with pytest.raises(dataclasses.FrozenInstanceError):
                preset.seed = 1
        assert experiment.summary.endswith("."), "the command line shows it"
        assert experiment.run.__name__ == name, "the record is saved under this name"


def test_records_are_named_after_their_experiment_and_survive_the_file(records, tmp_path):
    for name, record in records.items():
        assert (record.name, record.preset) == (f"speculative/{name}", "cpu")
        record.save(tmp_path)
        assert Record.load(f"speculative/{name}", root=tmp_path) == record


def test_acceptance_counts_are_rounds_and_its_law_is_a_distribution(records, pair):
    prompts = data.prompts(ACCEPT.prompts)
    curves = records["acceptance"].results["curves"]
    assert list(curves) == ["0.0", "0.4", "1.0"]
    for temperature, curve in curves.items():
        rounds = [
            k
            for r in pair.generate(
                prompts, K=3, max_new_tokens=24, sampling=Sampling(float(temperature))
            ).rounds
            for k in r.accepted
            if r.drafted == 3
        ]
        assert (
            curve["counts"] == [rounds.count(k) for k in range(4)] and sum(curve["counts"]) == len(rounds) > 0
        )
        assert curve["tokens_per_round"] == pytest.approx(np.mean(rounds) + 1, rel=1e-5)
        pmf, alpha = np.array(curve["predicted_pmf"]), curve["acceptance_rate"]
        assert pmf.sum() == pytest.approx(1, abs=1e-5) and (pmf >= 0).all()
        assert (pmf * np.arange(1, 5)).sum() == pytest.approx(curve["predicted_tokens_per_round"], rel=1e-4)
        assert pmf[0] == pytest.approx(1 - alpha, abs=1e-5)
        passed = [sum(k > i for k in rounds) for i in range(3)]
        tested = [sum(k >= i for k in rounds) for i in range(3)]
        assert curve["rate_by_position"] == [
            pytest.approx(a / n, rel=1e-4) if n else None for a, n in zip(passed, tested, strict=True)
        ]
    assert any(0 < c["acceptance_rate"] < 1 for c in curves.values()), "this test needs partial acceptance"


def test_speed_divides_tokens_by_time_and_predicts_from_costs(records, pair):
    found = records["speed"].results
    prompts = [pair.encode(p) for p in data.prompts(SPEED.prompts)]
    plain = collect(autoregressive(pair.target, prompts, max_new_tokens=10), 2)
    assert sum(map(len, plain.tokens)) == 20, "no stop token: every run writes as much"
    assert found["autoregressive_tokens_per_s"] > 0 and [p["K"] for p in found["curve"]] == [1, 3]
    cost = found["cost"]
    for point in found["curve"]:
        K, per_round = point["K"], point["tokens_per_round"]
        assert 1 <= per_round <= K + 1
        assert 20 / per_round == pytest.approx(round(20 / per_round), abs=1e-3), "rounds are whole"
        gain = point["speedup"]
        assert 0 < gain["low"] <= gain["median"] <= gain["high"]
        for key, verify in (
            ("predicted_speedup", cost["verify"][str(K)]),
            ("predicted_speedup_free_verify", 1),
        ):
            assert point[key] == pytest.approx(per_round / (K * cost["draft"][str(K)] + verify), rel=1e-4)


def test_acceptance_along_the_text_counts_a_round_where_it_began():
    """Row 0 begins rounds at 0, 3 and 4, row 1 at 0 and 1; the third draft token after a rejection is untested."""
    rounds = [Round([0, 1], [[1, 2, 3], [1]], [2, 0], 3), Round([0, 1], [[4], [2, 3, 4, 5]], [0, 3], 3),
              Round([0], [[5, 6]], [1], 3)]
    # first four places: 2 of 3, 0 of 1, 0 of 1 and 3 of 3; after them: 1 of 2
    assert experiments.acceptance_along(rounds, 4) == [5 / 8, 1 / 2]


def test_speed_up_is_taken_within_a_turn(pair, monkeypatch):
    """A machine that is slow in one turn slows both sides of its ratio."""
    turns = {"None": [1.0, 10.0, 2.0], "1": [0.5, 5.0, 4.0], "3": [2.0, 20.0, 8.0]}
    monkeypatch.setattr(experiments, "load_pair_for", lambda name, device: pair)
    monkeypatch.setattr(experiments, "interleaved", lambda fns, **_: {n: turns.get(n, [1.0] * 3) for n in fns})
    found = experiments.speed(SPEED).results
    assert [point["speedup"]["median"] for point in found["curve"]] == [2.0, 0.5]
    assert [point["tokens_per_s"] for point in found["curve"]] == [20 / 4, pytest.approx(20 / 8)]
    assert found["autoregressive_tokens_per_s"] == 20 / 2


def test_bandwidth_times_each_width_of_both_models(records, pair):
    found = records["bandwidth"].results
    assert found["widths"] == [1, 4, 9]
    for role, model in (("target", pair.target), ("draft", pair.draft)):
        curve = found["curves"][role]
        assert set(curve["seconds"]) == {"1", "4", "9"} and curve["parameters"] == model.num_parameters()
        assert all(0 < t["low"] <= t["median"] <= t["high"] for t in curve["seconds"].values())
        assert curve["weight_bytes"] == 4 * model.num_parameters(), "float32; a tied head is read once"


def test_ceilings_of_the_machine_are_plausible():
    cpu = torch.device("cpu")
    assert 1e8 < experiments.read_bandwidth(cpu, size=2**22) < 1e13
    assert 1e8 < experiments.product_rate(cpu, size=128) < 1e14


def drawn(records):
    law = np.array([0.5, 0.3, 0.2])
    yield "bandwidth", figures.bandwidth(records["bandwidth"])
    yield "accepted_counts", figures.accepted_counts(records["acceptance"])
    yield "speed", figures.speed(records["speed"])
    yield "overlap", figures.overlap(law, law[::-1], ["a", "b", "c"])
    yield "tokens_per_round", figures.tokens_per_round()


def test_figures_draw_and_name_their_axes_with_units(records):
    for name, fig in drawn(records):
        fig.canvas.draw()
        shared = fig.axes[0].get_ylabel()
        for ax in fig.axes:
            assert ax.get_xlabel() and shared, f"{name}: an axis without a label"
            assert ax.get_legend() is not None
            for line in ax.get_lines():
                assert np.isfinite(np.asarray(line.get_ydata(), dtype=float)).all(), name
    units = {name: fig.axes[0].get_ylabel() for name, fig in drawn(records)}
    assert "(ms)" in units["bandwidth"] and "probability" in units["overlap"]


def test_bandwidth_figure_shows_milliseconds_and_the_higher_of_two_floors(records):
    found = records["bandwidth"].results["curves"]["target"]
    lines = {
        line.get_label(): line.get_ydata() for line in figures.bandwidth(records["bandwidth"]).axes[0].lines
    }
    floor = [max(found["weight_bytes"] / 1e10, 2 * found["parameters"] * w / 2e10) * 1e3 for w in (1, 4, 9)]
    assert lines["target, floor"] == pytest.approx(floor)


def test_a_figure_of_the_file_is_the_figure_of_the_live_record(records, tmp_path):
    """A file's keys are sorted, draft before target: colors must not follow the order of keys."""

    def look(record):
        draw = (
            figures.accepted_counts
            if record.experiment == "acceptance"
            else getattr(figures, record.experiment)
        )
        handles, labels = draw(record).axes[0].get_legend_handles_labels()
        artists = [handle[0] if isinstance(handle, tuple) else handle for handle in handles]  # of a container
        return {
            label: to_hex(a.get_facecolor() if hasattr(a, "get_facecolor") else a.get_color())
            for a, label in zip(artists, labels, strict=True)
        }

    for name, record in records.items():
        record.save(tmp_path)
        assert look(Record.load(f"speculative/{name}", root=tmp_path)) == look(record)
    assert look(records["bandwidth"])["target, measured"] == PALETTE.blue


def test_accepted_counts_compare_the_extreme_temperatures_by_value(records):
    curves = records["acceptance"].results["curves"]
    fig = figures.accepted_counts(records["acceptance"])
    assert [ax.get_title() for ax in fig.axes] == ["temperature 0", "temperature 1"]
    for ax, temperature in zip(fig.axes, ("0.0", "1.0"), strict=True):
        shares = [bar.get_height() for bar in ax.patches]
        assert shares == pytest.approx(
            np.array(curves[temperature]["counts"]) / sum(curves[temperature]["counts"])
        )
    one = Record(
        **{**dataclasses.asdict(records["acceptance"]), "results": {"K": 3, "curves": {"0.4": curves["0.4"]}}}
    )
    assert [ax.get_title() for ax in figures.accepted_counts(one).axes] == ["temperature 0.4"]


def test_overlap_figure_stacks_to_the_larger_of_p_and_q():
    p, q = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5])
    ax = figures.overlap(p, q).axes[0]
    both, residual, rejected = np.zeros((3, 3))
    for heights, bars in zip((both, residual, rejected), ax.containers, strict=True):
        for bar in bars:  # where there is nothing to show there is no bar
            assert bar.get_height() > 0
            heights[round(bar.get_x() + bar.get_width() / 2)] = bar.get_height()
    assert both == pytest.approx(np.minimum(p, q)) and residual.sum() == pytest.approx(rejected.sum())
    assert both + residual == pytest.approx(p) and both + rejected == pytest.approx(q)
    assert "0.60 in all" in ax.get_legend().get_texts()[0].get_text()


def test_tokens_per_round_curves_are_sums_of_powers():
    lines = figures.tokens_per_round((0.5, 0.9), longest=6).axes[0].get_lines()
    for alpha, line in zip((0.5, 0.9), lines[::2], strict=True):
        assert line.get_ydata() == pytest.approx(list(itertools.accumulate(alpha**k for k in range(7))))


@pytest.mark.slow
def test_shipped_draft_guesses_half_of_the_targets_greedy_tokens(shipped, monkeypatch):
    monkeypatch.setattr(experiments, "load_pair_for", lambda name, device: shipped)
    preset = dataclasses.replace(ACCEPTANCE["cpu"], prompts=6, new_tokens=40, temperatures=(0.0,))
    found = experiments.acceptance(preset).results["curves"]["0.0"]
    assert 0.5 <= found["acceptance_rate"] < 0.95
    assert found["tokens_per_round"] > 1.9
