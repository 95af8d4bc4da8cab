"""Records: what is saved is what was found, and can be made again."""

import json
import math
import os
import re
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from minilab.core import records
from minilab.core.records import Experiment, Record, list_records


@dataclass(frozen=True)
class Preset:
    name: str = "cpu"
    seed: int = 3
    device: str = "auto"
    sizes: tuple[int, ...] = (1, 2)


RESULTS = {
    "speed": 1 / 3,
    "curve": np.linspace(0, 1, 4),
    "tensor": torch.tensor([[1, 2], [3, 4]]),
    "scalar": np.float32(0.1),
    "by_k": {1: 2.0, 2: 4.0},
    "exact": True,
    "count": 12345678901,
    "nothing": None,
}


def make(results=RESULTS, preset=Preset(), name="speculative/speed") -> Record:
    return Record.new(experiment=name, preset=preset, results=results, started=time.perf_counter())


def test_saved_and_loaded_record_equals_the_live_one(tmp_path):
    record = make()
    path = record.save(tmp_path)
    assert path == tmp_path / "speculative" / "speed.cpu.json"
    assert Record.load("speculative/speed", root=tmp_path) == record


def test_results_are_plain_and_floats_have_six_significant_digits():
    results = make().results
    assert results["speed"] == 0.333333
    assert results["scalar"] == 0.1  # float32 would read 0.10000000149
    assert results["curve"] == [0.0, 0.333333, 0.666667, 1.0]
    assert results["tensor"] == [[1, 2], [3, 4]] and results["by_k"] == {"1": 2.0, "2": 4.0}
    assert results["exact"] is True and results["count"] == 12345678901
    assert make({"small": 1.23456789e-12}).results["small"] == 1.23457e-12  # digits, not decimals


def test_file_is_strict_json_with_sorted_keys(tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    path = make({"b": math.nan, "a": -math.inf, "curve": [1.0, math.inf]}).save(tmp_path)
    data = json.loads(path.read_text(), parse_constant=refuse)
    assert data["results"] == {"a": None, "b": None, "curve": [1.0, None]}
    assert list(data) == sorted(data) and list(data["results"]) == ["a", "b", "curve"]


def test_a_value_that_json_cannot_hold_is_named_at_once():
    with pytest.raises(TypeError, match=r"results\.runs\[1\]\.model is a object"):
        make({"runs": [{}, {"model": object()}]})


def test_provenance_says_how_to_make_it_again():
    provenance = make(preset=Preset(name="gpu", seed=5)).provenance
    assert provenance["command"] == "minilab run speculative/speed --preset gpu --seed 5"
    assert provenance["seed"] == 5 and provenance["wall_s"] >= 0
    assert provenance["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert provenance["hardware"]["torch_threads"] == torch.get_num_threads()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", provenance["date"])
    assert make().config == {"name": "cpu", "seed": 3, "device": "auto", "sizes": [1, 2]}


def test_commit_comes_from_the_variable_where_there_is_no_git(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "checkout_root", lambda: tmp_path)
    monkeypatch.delenv("MINILAB_COMMIT", raising=False)
    assert make().provenance["commit"] is None
    monkeypatch.setenv("MINILAB_COMMIT", "abc123")
    assert make().provenance["commit"] == "abc123"
    monkeypatch.undo()
    monkeypatch.setenv("MINILAB_COMMIT", "def456")  # a copy of the files may lie in another history
    assert make().provenance["commit"] == "def456"


@pytest.mark.parametrize("moment", ["write_text", "fsync", "replace"])
def test_interrupted_save_leaves_the_old_record_valid(tmp_path, monkeypatch, moment):
    old = make({"value": 1})
    old.save(tmp_path)

    def interrupt(*arguments, **options):
        if moment == "write_text":
            arguments[0].write_bytes(b'{"half": ')
        raise KeyboardInterrupt

    target = type(tmp_path) if moment == "write_text" else os
    with monkeypatch.context() as patch:
        patch.setattr(target, moment, interrupt)
        with pytest.raises(KeyboardInterrupt):
            make({"value": 2}).save(tmp_path)
    assert Record.load("speculative/speed", root=tmp_path) == old
    assert [p.name for p in (tmp_path / "speculative").iterdir()] == ["speed.cpu.json"]


def test_half_a_file_of_a_killed_run_is_not_listed(tmp_path):
    make().save(tmp_path)
    (tmp_path / "speculative" / ".other.cpu.json.123.tmp").write_text('{"half')
    assert list_records(tmp_path) == ["speculative/speed.cpu"]


def test_missing_record_names_its_command_and_what_exists(tmp_path):
    make().save(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        Record.load("speculative/speed", preset="gpu", root=tmp_path)
    assert "minilab run speculative/speed --preset gpu" in str(error.value)
    assert "speculative/speed.cpu" in str(error.value)


@pytest.mark.parametrize("damage", ['{"method": "specu', "[]", '{"method": "speculative"}', "\x00\x00"])
def test_damaged_record_says_how_to_restore_it(tmp_path, damage):
    path = make().save(tmp_path)
    path.write_text(damage)
    with pytest.raises(ValueError, match="git checkout") as error:
        Record.load("speculative/speed", root=tmp_path)
    assert str(path) in str(error.value) and "minilab run" in str(error.value)


def test_shipped_records_are_found_where_none_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "records_dir", lambda: tmp_path / "written")
    monkeypatch.setattr(records, "package_data", lambda name: tmp_path / "shipped")
    make({"value": 1}).save(tmp_path / "shipped")
    assert Record.load("speculative/speed").results == {"value": 1}
    make({"value": 2}).save()
    assert Record.load("speculative/speed").results == {"value": 2}
    assert list_records() == ["speculative/speed.cpu"]


@pytest.mark.parametrize(
    "name", ["speed", "/speed", "speculative/", "../x/y", "speculative/../../x", "a b/c"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(ValueError):
        make(name=name)
    with pytest.raises(ValueError):
        replace(make(), preset="../cpu")


def test_compare_lists_what_differs_beyond_the_tolerance():
    a = make({"x": 1.0, "y": {"z": [1.0, 2.0]}, "flag": True, "only_a": 1, "text": "s"})
    b = make({"x": 1.0009, "y": {"z": [1.0, 2.1]}, "flag": 1, "only_b": 1, "text": "t"}, Preset(seed=4))
    differ = [
        "config.seed",
        "results.flag",
        "results.only_a",
        "results.only_b",
        "results.text",
        "results.y.z[1]",
    ]
    assert a.compare(b, rtol=1e-3) == b.compare(a, rtol=1e-3) == differ
    assert a.compare(b, rtol=1e-4) == sorted([*differ, "results.x"])
    assert a.compare(make(a.results), rtol=0.0) == []


def test_compare_sees_a_list_that_became_shorter_or_empty():
    assert make({"x": [1, 2]}).compare(make({"x": [1]}), rtol=0.0) == ["results.x[1]"]
    assert make({"x": []}).compare(make({"x": {}}), rtol=0.0) == ["results.x"]


def test_summary_is_the_first_line_of_the_docstring():
    def speed(preset):
        """How much faster.

        More."""

    assert Experiment(speed, {}).summary == "How much faster."
