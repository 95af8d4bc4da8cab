"""Lines of text about records: what they say must be what the record holds."""

import numpy as np
import pytest

from minilab.core.records import Record
from minilab.ensembles import tables

N = (1e5, 3e5, 1e6, 4e6)


def planted(A=1e5, E=3.0, alpha=1.0, seeds=(-0.01, 0.0, 0.01)) -> np.ndarray:
    """Losses of three seeds around a law; their deviation is 0.01."""
    return np.array([[A / n**alpha + E + seed for seed in seeds] for n in N])


def test_a_planted_law_is_told_with_the_noise_of_its_seeds():
    one, free, noise = tables.laws(N, planted()).splitlines()
    assert one.startswith("exponent 1.00: E 3.000, off by 0.000;")
    assert free.startswith("exponent 1.00 (free): E 3.000, off by 0.000;")
    assert noise.startswith(f"a mean is good to {0.01 / 3**0.5:.3f}, the exponent from 0.9")
    low, high = (float(end) for end in one.split("misfit, ")[1].removesuffix(" by seeds").split(" to "))
    assert low < 3 < high and high - low < 0.03


def test_a_floor_that_no_point_holds_is_open():
    flat = np.array([[3.0, 3.001], [3.0, 2.999], [3.001, 3.0], [3.0, 3.0]])
    assert "open" in tables.laws(N, flat)
    with pytest.raises(ValueError, match="two or more"):
        tables.laws(N, flat[:, :1])


@pytest.mark.parametrize("preset", ["gpu", "two-cores"])
def test_each_size_has_its_line_with_the_best_of_its_losses(preset):
    results = Record.load("ensembles/decay", preset=preset).results
    lines = tables.decays(results).splitlines()[2:]
    assert len(lines) == len(results["parameters"])
    for line, rows in zip(lines, map(results["rows"].get, map(tables.named, results["parameters"])), strict=True):
        best = min(rows.values(), key=lambda row: row["loss"])
        held = [float(x) for x in line.split(";")[1].split()]
        assert held[-1] == round(best["loss"], 3) == min(held) and held[1] == round(rows["0.1"]["loss"], 3)
        assert f": {best['weight_decay']:g} (" in line


def test_places_say_where_the_grid_ended_and_how_the_first_seed_came_out():
    results = Record.load("ensembles/sizes", preset="gpu").results
    for recipe in ("standard", "regularized"):
        lines, losses = tables.places(results, recipe).splitlines(), tables.losses_of(results, recipe)
        rows = [results["recipes"][recipe]["sizes"][tables.named(n)] for n in results["parameters"]]
        assert [bool(row["at_edge"]) for row in rows] == ["grid's end" in line for line in lines[1:-1]]
        assert not any("cut short" in line for line in lines) and all(row["certified"] for row in rows)
        assert lines[-1] == f"the seed that searched is the best at {(losses.argmin(axis=1) == 0).sum()} of 4 sizes"
        assert all(f"{mean:.3f}" in line for mean, line in zip(losses.mean(axis=1), lines[1:-1], strict=True))


def test_beyond_the_paper_each_change_is_told_by_its_mean_and_range_over_seeds():
    chain = {"own": [5.0, 4.9], "logits": [5.0, 4.6], "probabilities": [5.0, 4.5]}
    lower = {key: [x - 0.2 for x in losses] for key, losses in chain.items()}
    told = tables.beyond({
        "chains": {"16 epochs": {"independent": chain, "chained": [chain, lower]}},
        "changes": {"rows": {"a": {"losses": [4.5, 4.75]}, "b": {"losses": [4.0, 4.2]},
                             "tuned": {"losses": [4.5, 4.5]}}},
        "batches": {"16": {"steps": 8, "losses": [5.0]}, "4": {"steps": 32, "losses": [4.8]}}}).splitlines()
    assert told[1:3] == ["  16 epochs, independent: 4.900; 4.600 (4.500)",
                         "  16 epochs, chained: 4.800 [4.700, 4.900]; 4.500 [4.400, 4.600] (4.400 [4.300, 4.500])"]
    assert told[4:6] == ["  b: -0.400 [-0.500, -0.300], give or take 0.100",
                          "  a: +0.125 [+0.000, +0.250], give or take 0.125"]
    assert told[7:] == ["    4, 32 steps: 4.800", "   16, 8 steps: 5.000"]
