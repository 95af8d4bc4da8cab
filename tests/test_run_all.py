"""All experiments of a preset: each alone, the rest after a failure, and on from where an interrupted call was."""

import json
import os
import signal
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_cli import INSTALL, SOURCE, toy  # noqa: F401  (a method of three experiments, one of which fails)

from minilab import cli, run_all
from minilab.core.records import Record, config_of, list_records

PROGRAM = '''
"""Stands for `minilab`: writes the record that the test prepared, fails, or waits, and loads nothing heavy."""
import json, pathlib, signal, sys, time

signal.signal(signal.SIGINT, signal.default_int_handler)
_, _, name, _, preset, _, out, *options = sys.argv
record = json.loads(pathlib.Path("template.json").read_text())
if name == "toy/broken":
    sys.exit("minilab: the corpus is missing; fetch it")
if name == "toy/killed":
    print("half way", flush=True)
    signal.raise_signal(signal.SIGKILL)
if name == "toy/wait":
    print("waiting", flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit("minilab: interrupted")
record |= {"experiment": name.split("/")[1], "provenance": {"options": options}}
path = pathlib.Path(out, f"{name}.{preset}.json")
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(json.dumps(record))
'''


@dataclass(frozen=True)
class Preset:
    name: str = "cpu"
    seed: int = 0


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    prepare(Preset())
    return (sys.executable, "program.py")


def prepare(preset):
    record = {"method": "toy", "experiment": "x", "preset": "cpu", "config": config_of(preset), "results": {"a": 1}}
    Path("template.json").write_text(json.dumps(record))


OUT = Path("records")


def test_all_run_after_a_failure_and_each_says_what_became_of_it(program, capsys):
    names = ("toy/one", "toy/broken", "toy/killed", "toy/two")
    outcomes = run_all.run_all(dict.fromkeys(names, Preset()), out=OUT, options=("--seed", "5"), program=program)
    assert [o.state for o in outcomes] == ["made", "failed", "failed", "made"]
    assert run_all.summary(outcomes) == "2 made, 2 failed"
    assert list_records(OUT) == ["toy/one.cpu", "toy/two.cpu"]
    assert Record.load("toy/two", root=OUT).provenance == {"options": ["--seed", "5"]}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[1/4] toy/one     made, ")
    assert "the corpus is missing; fetch it (" in lines[1] and "ended by signal 9, after: half way" in lines[2]
    logs = sorted(p.name for p in OUT.rglob("*.log"))
    assert logs == ["broken.cpu.log", "killed.cpu.log"]


def test_a_record_that_is_there_is_made_again_only_if_it_is_not_the_one_asked_for(program):
    def states(preset=Preset(), **options):
        prepare(preset)
        return run_all.run_all({"toy/one": preset}, out=OUT, program=program, **options)[0].state

    assert [states(), states(), states(again=True)] == ["made", "there", "made"]
    assert [states(Preset(seed=1)), states(Preset(seed=1))] == ["made", "there"]  # other settings
    path = OUT / "toy" / "one.cpu.json"
    path.write_text(path.read_text()[:-9])
    assert [states(Preset(seed=1)), states(Preset(seed=1))] == ["made", "there"]  # half a file


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_ends_the_experiment_that_runs_and_the_next_call_goes_on(program):
    log = OUT / "toy" / "wait.cpu.log"

    def interrupt():
        while not (log.exists() and "waiting" in log.read_text()):
            time.sleep(0.02)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    three = dict.fromkeys(("toy/one", "toy/wait", "toy/two"), Preset())
    threading.Thread(target=interrupt, daemon=True).start()
    started = time.perf_counter()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            run_all.run_all(three, out=OUT, program=program)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.perf_counter() - started < 30 and "interrupted" in log.read_text()  # it was told, and has ended
    assert list_records(OUT) == ["toy/one.cpu"]
    rest = run_all.run_all({name: p for name, p in three.items() if name != "toy/wait"}, out=OUT, program=program)
    assert [o.state for o in rest] == ["there", "made"]


@pytest.fixture
def children(toy, tmp_path, monkeypatch):  # noqa: F811
    """The command line with the method `toy`, in child processes too."""
    program = tmp_path / "children.py"
    program.write_text(INSTALL + textwrap.dedent(f"""
        from minilab import cli
        install({SOURCE!r})
        cli.METHODS = ("toy",)
        sys.exit(cli.main(sys.argv[1:]))
    """))
    monkeypatch.setattr(run_all, "PROGRAM", (sys.executable, str(program)))
    monkeypatch.chdir(tmp_path)


def test_compare_runs_what_has_a_record_and_its_exit_code_says_drift(children, toy, capsys):  # noqa: F811
    assert cli.main(["run", "toy/speed", "--seed", "5"]) == 0
    capsys.readouterr()
    assert cli.main(["run", "--all", "--compare", "--seed", "5"]) == 0
    out = capsys.readouterr().out
    assert "[1/1] toy/speed" in out and "0 of 1 records drifted" in out
    assert "having no record to compare with: toy/wait, toy/broken" in out
    record = Record.load("toy/speed", root=run_all.FRESH)
    assert record.results["nested"]["seed"] == 5 and record.provenance["command"].endswith("--seed 5")

    path = toy / "toy" / "speed.cpu.json"
    path.write_text(path.read_text().replace('"mean": 1.5', '"mean": 1.6'))
    kept = path.read_bytes()
    assert cli.main(["run", "--all", "--compare", "--seed", "5"]) == 3
    assert "results.nested.mean  1.6 -> 1.5 (-6.3 %)" in capsys.readouterr().out
    assert cli.main(["run", "--all", "--compare", "--seed", "5", "--rtol", "0.1"]) == 0
    assert cli.main(["run", "toy/speed", "--compare", "--seed", "5"]) == 3
    assert cli.main(["diff", str(toy), str(run_all.FRESH)]) == 3
    assert cli.main(["diff", str(toy), str(run_all.FRESH), "--times", "mean"]) == 0
    assert path.read_bytes() == kept


@pytest.mark.parametrize(
    "words",
    ["run", "run --all toy/speed", "run --all --set steps=3", "run --all --preset tpu", "run toy/speed --again",
     "run --all --rtol -1", "diff a b --times ("],
)  # fmt: skip
def test_a_wrong_call_is_refused_before_anything_runs(children, toy, words, capsys):  # noqa: F811
    assert cli.main(words.split()) == (1 if "diff" in words else 2)
    assert not toy.exists() and not run_all.FRESH.exists()
    assert "Traceback" not in capsys.readouterr().err


def test_compare_does_not_replace_what_it_compares_with(children, toy, capsys):  # noqa: F811
    assert cli.main(["run", "--all", "--compare", "--records", str(toy)]) == 2
    assert "would replace them" in capsys.readouterr().err


def test_those_that_write_what_ships_run_only_on_demand():
    here = SimpleNamespace(presets={"cpu": 1})
    experiments = {"dmpc/films": here, "dmpc/speed": here}
    run, left = run_all.plan(experiments, "cpu")
    assert run == ["dmpc/speed"] and [o.name for o in left] == ["dmpc/films"]
    assert run_all.plan(experiments, "cpu", assets=True)[0] == ["dmpc/films", "dmpc/speed"]


@pytest.mark.parametrize("name", run_all.WRITES_ASSETS)
def test_their_names_are_names_of_experiments(name):
    method, experiment = name.split("/")
    source = (Path(run_all.__file__).parent / method / "experiments.py").read_text(encoding="utf-8")
    assert f'"{experiment}":' in source
