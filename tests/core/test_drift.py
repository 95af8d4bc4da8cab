"""Drift: what a fresh record must share with the kept one, and what it need not."""

from dataclasses import dataclass, replace

import pytest

from minilab.core.drift import ABSENT, Tolerance, differences, drifted, pairs, table
from minilab.core.records import Record, list_records


@dataclass(frozen=True)
class Preset:
    name: str = "cpu"
    seed: int = 3


def make(results, **config) -> Record:
    base = Record.new(experiment="toy/speed", preset=Preset(), results=results, started=0.0)
    return replace(base, config=base.config | config)


def kinds(kept, fresh, **tolerance):
    return {d.key: d.kind for d in differences(kept, fresh, Tolerance(**tolerance))}


def test_numbers_drift_beyond_the_tolerance_and_not_within():
    kept, fresh = make({"loss": 2.0, "small": 1e-12}), make({"loss": 2.001, "small": -1e-12})
    assert kinds(kept, fresh) == {}  # 0.0005 apart, and two numbers of next to nothing
    assert kinds(kept, fresh, rtol=1e-4) == {"results.loss": "drift"}
    assert kinds(kept, fresh, rtol=0, atol=0.01) == {}
    assert kinds(kept, fresh, rtol=0, atol=0) == {"results.loss": "drift", "results.small": "drift"}


def test_what_is_no_number_must_be_equal_and_be_there():
    kept = make({"a": "x", "b": [1, 2], "c": True, "d": None, "e": {"f": 1}})
    fresh = make({"a": "y", "b": [1], "c": 1, "d": 0, "e": 1})
    found = {d.key: (d.kept, d.fresh) for d in differences(kept, fresh)}
    assert found == {
        "results.a": ("x", "y"), "results.b[1]": (2, ABSENT), "results.c": (True, 1), "results.d": (None, 0),
        "results.e": (ABSENT, 1), "results.e.f": (1, ABSENT),
    }  # fmt: skip
    assert drifted(differences(kept, fresh)) and not drifted(differences(kept, kept))


def test_another_rounding_of_what_was_cut_to_decimals_is_no_drift():
    exact = [0.0137 * (i - 20) for i in range(40)]
    kept = make({"curve": [[round(x, 3) for x in exact]]})
    one = make({"curve": [[round(x, 3) + (0.001 if i == 21 else 0) for i, x in enumerate(exact)]]})
    assert kinds(kept, one) == {}
    assert kinds(kept, make({"curve": [[x + 0.001 for x in kept.results["curve"][0]]]}))  # the list has shifted
    two_units = make({"curve": [[round(x, 3) + (0.002 if i == 21 else 0) for i, x in enumerate(exact)]]})
    assert kinds(kept, two_units) == {"results.curve[0][21]": "drift"}


@pytest.mark.parametrize(
    ("values", "step"),
    [([0.25] * 19, 0.01), ([0.5] * 40, 0.1), ([2.0] * 40, 1.0), ([7] * 40, 1), ([i / 3 + 1 for i in range(40)], 0.01)],
)
def test_what_was_not_cut_has_no_unit_to_be_off_by(values, step):
    """Too few to tell, tenths, whole numbers, counts, and numbers with all their digits."""
    kept, fresh = make({"x": values}), make({"x": [values[0] + step, *values[1:]]})
    assert kinds(kept, fresh) == {"results.x[0]": "drift"}


@pytest.mark.parametrize(
    "key", ["seconds", "wall_s", "tokens_per_s", "speedup", "act_s", "times_diffuser", "step_seconds", "ns_each",
            "sd_over_ar", "speculative_over_generate", "peak_gib"]  # fmt: skip
)
def test_times_are_told_and_not_judged(key):
    kept, fresh = make({"K": {key: {"median": 1.0}}}), make({"K": {key: {"median": 30.0}}})
    found = differences(kept, fresh)
    assert [d.kind for d in found] == ["time"] and not drifted(found)
    assert "from 30 to 30" in table(found)
    gone = differences(kept, make({"K": {key: {}}}))
    assert drifted(gone)  # a time that is no longer measured


@pytest.mark.parametrize("key", ["loss", "bits_over_entropy", "speed", "steps", "acceptance_rate", "mean cost"])
def test_what_only_sounds_like_a_time_is_judged(key):
    assert kinds(make({key: 1.0}), make({key: 2.0})) == {f"results.{key}": "drift"}
    assert kinds(make({key: 1.0}), make({key: 2.0}), times=key) == {f"results.{key}": "time"}


def test_another_setting_is_drift_and_a_new_one_is_told():
    found = differences(make({}), make({}, seed=4, workers=1))
    assert [(d.kind, d.key) for d in found] == [("drift", "config.seed"), ("setting", "config.workers")]
    assert kinds(make({}, lr=1.0), make({}, lr=1.0001)) == {"config.lr": "drift"}  # no tolerance here
    assert kinds(make({}, lr=1.0), make({})) == {"config.lr": "drift"}
    assert "workers=1" in table(found)


def test_table_has_a_line_for_a_list_with_the_worst_of_it():
    kept, fresh = make({"curve": [1.0, 2.0, 4.0], "name": "a"}), make({"curve": [1.1, 3.0, 4.0], "name": "b"})
    lines = table(differences(kept, fresh)).splitlines()
    assert len(lines) == 2
    assert lines[0].split() == "drift results.curve[*] 2.0 -> 3.0 (+50 %), the worst of 2".split()
    assert "'a' -> 'b'" in lines[1]
    many = differences(make({f"k{i}": 1 for i in range(30)}), make({f"k{i}": 2 for i in range(30)}))
    assert table(many).splitlines()[-1].strip() == "drift    and 10 keys more"


def test_records_of_two_things_are_not_compared():
    with pytest.raises(ValueError, match="toy/speed.cpu and toy/speed.gpu"):
        differences(make({}), replace(make({}), preset="gpu"))


@pytest.mark.parametrize("wrong", [{"rtol": -1}, {"atol": float("nan")}, {"rtol": float("inf")}, {"times": "("}])
def test_a_tolerance_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError):
        Tolerance(**wrong)


def test_folders_are_compared_by_what_they_share(tmp_path):
    kept, fresh = tmp_path / "kept", tmp_path / "fresh"
    make({"loss": 1}).save(kept)
    replace(make({}), preset="gpu").save(kept)
    path = make({"loss": 2}).save(fresh)
    shared, alone = pairs(kept, fresh)
    assert [(a.results, b.results) for a, b in shared] == [({"loss": 1}, {"loss": 2})]
    assert alone == [f"only in {kept}: toy/speed.gpu"]
    assert pairs(kept / "toy" / "speed.cpu.json", path)[0] == shared
    assert list_records(fresh) == ["toy/speed.cpu"]
    for places in ((kept, path), (kept, tmp_path / "absent"), (kept, tmp_path / "fresh" / "toy")):
        with pytest.raises((ValueError, FileNotFoundError)):
            pairs(*places)
