"""Every experiment of chapter 4 runs from end to end in small, and what it says of its parts is true of them."""

import json
import math
from dataclasses import replace

import pytest
import torch

from minilab.core.records import flatten
from minilab.pacbayes import bounds
from minilab.pacbayes.compress import TRIED
from minilab.pacbayes.experiments import EXPERIMENTS
from minilab.pacbayes.experiments_compare import rank_correlation
from minilab.pacbayes.experiments_phenomena import listed


def run(name: str, **changes) -> dict:
    preset = EXPERIMENTS[name].presets["cpu"]
    record = EXPERIMENTS[name].run(replace(preset, **changes))
    assert len(dict(flatten(record.results))) > 4 and json.dumps(record.config)
    return record.results


def test_the_ladder_orders_its_bounds_as_theory_does():
    found = run("ladder")
    rows = {name: row["bound"] for name, row in found["rows"].items()}
    assert rows["file, binomial"] <= rows["file, kl"] <= rows["file, Catoni"]
    assert rows["file, kl"] <= rows["file, Hoeffding"] < rows["file, 32 bits a weight"]
    assert rows["file, norms of its weights"] > rows["file, 32 bits a weight"] > 1
    by_seed = {name: row["bound"] for name, row in found["seeds"].items()}
    assert {name: bounds[0] for name, bounds in by_seed.items()} == rows
    assert all(len(values) == 2 and values[0] != values[1] for name, values in by_seed.items() if "half" not in name)
    file = found["rows"]["file, kl"]
    nats = bounds.nats_of(file["bits"]) + math.log(TRIED)
    assert file["bound"] == pytest.approx(bounds.occam_kl(file["train_error"], found["n"], nats, 0.05))
    alone = found["rows"]["prior from half the data, alone"]
    assert alone["nats"] == pytest.approx(math.log(16), abs=1e-3)
    tested = found["rows"]["mean of that prior, tested on the other half"]
    n = found["n"] - found["n"] // 2
    errors = round(tested["train_error"] * n)
    assert tested["bound"] == pytest.approx(bounds.clopper_pearson(errors, n, 0.05), rel=1e-4)


def test_bounds_that_pay_hold_and_those_that_do_not_fail():
    """The best of 32 networks on 20 examples: its errors alone nearly always promise too much."""
    found = run("coverage", sets=150, n=20, networks=32)["failures"]
    paid = [rate for name, rate in found.items() if name.endswith(", paid")]
    assert max(paid) <= 0.05
    assert found["errors alone"] > 0.5 and found["binomial, not paid"] > max(paid)


@pytest.mark.parametrize("name", ["dimension", "width", "projections", "structure"])
def test_rows_have_one_entry_a_seed(name):
    for row in run(name)["rows"].values():
        assert len(row["bound"]) == 1 and row["train_error"][0] < row["bound"][0] and row["bits"][0] > 0


def test_the_whole_network_is_tried_beside_its_directions():
    found = run("dimension")
    assert found["whole"]["train_error"][0] < 0.5  # untrained, it errs on nine of ten
    accuracy = {int(d): 1 - row["exact_error"][0] for d, row in found["rows"].items()}
    near = [d for d, share in accuracy.items() if share >= 0.9 * (1 - found["whole"]["train_error"][0])]
    assert found["intrinsic"] == min(near, default=None)


def test_both_ways_choose_among_the_same_recipes():
    found = run("choose")
    assert found["recipes"] == 2
    for choice in found["choices"]:
        assert choice["best of all"]["test_error"] <= choice["by bound"]["test_error"]
        assert choice["by validation"]["d"] in (49, 100)


def test_phenomena_of_the_preset_are_there_and_finite_where_they_are_numbers():
    found = run("phenomena")
    assert set(found) == {"polynomials", "selection", "process", "features", "lunch"}
    assert found["process"]["train_error"][0] == 0
    d, error = found["features"]["d"], torch.tensor(found["features"]["test_error"])[:, 0]
    assert abs(d[int(error.argmax())] - 200) <= 5


def test_speed_has_a_certificate_and_a_code_near_its_ideal():
    found = run("speed", symbols=5000)
    assert found["bits_over_ideal"] < 0.01 and found["times_ordinary"]["median"] > 0
    assert set(found["product_s"]) == set(found["stored"]) == {"Kronecker", "Sparse", "Dense", "Hadamard"}
    D, d = 9610, 100  # the digits' network
    assert found["stored"]["Dense"] == D * d and found["stored"]["Hadamard"] == D + d


def test_a_language_model_that_learned_next_to_nothing_is_near_guessing():
    found = run("language")
    row = found["rows"]["width 32"]
    assert found["documents"] == 2 and row["loss"] == pytest.approx(found["guess"], abs=0.5)
    assert row["tokens"]["value"] > row["loss"] and row["foreseen"]["value"] > row["loss"]


def test_a_language_model_of_another_seed_is_another_file():
    found = run("language", seeds=(1, 2))
    one, other = found["seeds"]["width 32"]
    assert one == found["rows"]["width 32"]["foreseen"]["value"] != other


def test_the_rows_of_one_text_with_a_file_and_without_add_up():
    found = run("prequential")
    file, some, every = (found["rows"][name] for name in
                         ("a file", "as it goes, the same numbers", "as it goes, all weights"))
    assert found["documents"] == 3 and found["tokens"] <= 3 * 2 * 64
    assert file["all_bits"] == pytest.approx(file["bits"] + file["loss"] * found["tokens"], rel=1e-5)
    assert file["numbers"] == some["numbers"] == 100 < every["numbers"]
    for row in (some, every):
        assert row["bits"] == 0 and row["all_bits"] == pytest.approx(row["loss"] * found["tokens"], rel=1e-5)
        assert row["learned_bits"] == pytest.approx(row["all_bits"] - row["final_loss"] * found["tokens"], rel=1e-3)
        assert len(row["curve"]) == 4 and min(row["curve"]) <= row["loss"] <= max(row["curve"])
        nats = math.log(TRIED) + math.log(8)
        tokens = row["tokens"]
        span = math.log(1 + (1 - tokens["alpha"]) * tokens["V"] / tokens["alpha"])
        price = span * math.sqrt((nats - math.log(0.05)) / (2 * found["tokens"]))
        assert tokens["value"] == pytest.approx(tokens["loss"] + price / math.log(2), rel=1e-4)
        assert row["final_as_a_message"]["value"] > row["documents"]["value"] > tokens["value"]


def test_rank_correlation_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    x, y = torch.tensor([1.0, 1, 2, 3, 3, 5]), torch.tensor([2.0, 1, 4, 3, 3, 7])
    assert rank_correlation(x, y)["value"] == pytest.approx(stats.spearmanr(x, y).statistic)
    found = rank_correlation(torch.arange(40.0), torch.arange(40.0).square())
    assert found["value"] == pytest.approx(1) and found["low"] == pytest.approx(1)


def test_what_is_not_finite_is_nothing_in_a_record():
    assert listed(torch.tensor([[1.0, math.nan], [math.inf, 2.0]])) == [[1.0, None], [None, 2.0]]
