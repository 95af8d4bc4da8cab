"""What the page "How this book was run" says is what the records say."""

import json
from dataclasses import replace

import pytest
from checkout import ROOT

from minilab.core.provenance import duration, load_runs, runs_of
from minilab.core.records import Record

CPU = {"cpu": "Test CPU", "cores": 2, "torch_threads": 1, "system": "Linux x86_64"}
GPU = CPU | {"cores": 16, "gpus": [{"name": "Test GPU", "memory_gib": 79.6}]}
FACTS = {
    "command": "minilab run dmpc/fixed --preset cpu --seed 3",
    "seed": 3,
    "versions": {"minilab": "0.1.0", "numpy": "2.4.6", "python": "3.11.7", "torch": "2.13.0"},
    "hardware": CPU,
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "date": "2026-11-26T23:30:00+00:00",
    "wall_s": 61.0,
}


def record(experiment="fixed", method="dmpc", **facts) -> Record:
    return Record(method, experiment, "cpu", {}, {}, FACTS | facts)


def test_every_record_of_the_checkout_has_one_row_with_its_own_facts():
    runs = load_runs(ROOT / "records")
    files = sorted((ROOT / "records").glob("*/*.json"))
    assert len(runs.rows) == len(files)
    rows = {(run.method, run.command): run for run in runs.rows}
    assert len(rows) == len(files)
    for path in files:
        facts = json.loads(path.read_text(encoding="utf-8"))["provenance"]
        run = rows[path.parent.name, facts["command"]]
        assert facts["date"].startswith(run.date)
        assert facts["commit"].startswith(run.commit.partition(",")[0])
        assert run.seed == str(facts["seed"])
        assert facts["hardware"]["cpu"] in runs.machines[run.machine]
        for gpu in facts["hardware"].get("gpus", ()):
            assert gpu["name"] in runs.machines[run.machine]
        for version in facts["versions"].values():
            assert version in runs.software[run.software]


def test_a_row_says_where_when_and_how_a_record_was_made():
    runs = runs_of([record()])
    (run,) = runs.rows
    assert (run.date, run.commit, run.seed, run.took) == ("2026-11-26", "0123456", "3", "61 s")
    assert runs.machines == {"A": "Test CPU, 2 cores, 1 torch thread; Linux x86_64"}
    assert runs.software == {"1": "Python 3.11.7, torch 2.13.0, numpy 2.4.6, minilab 0.1.0"}
    assert (runs.first, runs.last, runs.seconds) == ("2026-11-26", "2026-11-26", 61.0)


def test_labels_go_by_first_use_in_time_and_are_shared():
    late = record("late", hardware=GPU, date="2026-11-28T00:00:00+00:00")
    runs = runs_of([late, record(), record("again", method="lewm")])
    by_method = {(run.method, run.date): run.machine for run in runs.rows}
    assert by_method == {("dmpc", "2026-11-26"): "A", ("dmpc", "2026-11-28"): "B", ("lewm", "2026-11-26"): "A"}
    assert runs.machines["B"].endswith("; Test GPU, 80 GiB")
    assert list(runs.software) == ["1"]


def test_code_that_was_not_committed_is_said():
    dirty = record(commit=FACTS["commit"] + "-dirty")
    assert runs_of([dirty]).rows[0].commit == "0123456, with changes"
    assert runs_of([record(commit=None)]).rows[0].commit == "unknown"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.84, "0.8 s"), (9.97, "10 s"), (61, "61 s"), (99.6, "2 min"), (5940, "99 min"), (5971, "1.7 h")],
)
def test_a_duration_has_its_largest_fitting_unit(seconds, text):
    assert duration(seconds) == text


def test_a_record_without_its_provenance_is_named():
    with pytest.raises(ValueError, match=r"dmpc/fixed\.cpu does not say its date, seed"):
        facts = {part: value for part, value in FACTS.items() if part not in ("date", "seed")}
        runs_of([replace(record(), provenance=facts)])


def test_no_record_and_no_such_method_are_told(tmp_path):
    with pytest.raises(ValueError, match="no record to tell of"):
        load_runs(tmp_path)
    with pytest.raises(ValueError, match="no record of 'nothing'; records exist of dmpc"):
        runs_of([record()]).of("nothing")


def test_more_machines_than_letters_still_have_labels():
    many = [record(str(i), hardware=CPU | {"cores": i + 1}, date=f"2026-11-26T00:{i:02}:00+00:00") for i in range(28)]
    assert list(runs_of(many).machines)[-3:] == ["Z", "AA", "AB"]
