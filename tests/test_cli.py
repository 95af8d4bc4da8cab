"""The command line, on a method made up for the purpose."""

import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest
import torch

from minilab import cli, doctor
from minilab.core import weights
from minilab.core.device import pick_device
from minilab.core.records import Record

TORCH = importlib.metadata.version("torch")  # without "+cu130", which torch.__version__ has in some builds
SOURCE = '''
import time
from dataclasses import dataclass
from minilab.core.records import Experiment, Record

@dataclass(frozen=True)
class Part:
    workers: int = 1
    engine: str = "processes"

@dataclass(frozen=True)
class Preset:
    name: str
    seed: int = 0
    device: str = "cpu"
    steps: int = 1000
    pair: str = "shipped"
    heat: tuple[float, ...] = (0.0, 1.0)
    threads: int | None = None
    part: Part = Part()

def speed(preset):
    """How fast it goes.

    The rest is not shown."""
    started = time.perf_counter()
    results = {"curve": list(range(10)), "nested": {"mean": 1.5, "seed": preset.seed}, "few": [1, 2],
               "table": [{"K": k, "speed": {"low": k / 2}} for k in range(7)]}
    return Record.new(experiment="toy/speed", preset=preset, results=results, started=started)

def wait(preset):
    """Waits to be interrupted."""
    print("waiting", flush=True)
    time.sleep(60)

def broken(preset):
    """Fails."""
    raise ValueError("the corpus is missing; fetch it")

presets = {"cpu": Preset("cpu"), "gpu": Preset("gpu", device="auto", steps=9)}
EXPERIMENTS = {f.__name__: Experiment(f, presets) for f in (speed, wait, broken)}
EXPERIMENTS["wait"] = Experiment(wait, presets, lambda preset: f"{preset.steps} trainings are missing")
'''

INSTALL = '''
import sys, types
from importlib.machinery import ModuleSpec

def install(source):
    """A subpackage minilab.toy with one module, experiments."""
    package, module = types.ModuleType("minilab.toy"), types.ModuleType("minilab.toy.experiments")
    package.__spec__ = ModuleSpec("minilab.toy", None, is_package=True)
    package.__path__ = []
    sys.modules |= {package.__name__: package, module.__name__: module}
    exec(source, module.__dict__)
'''


@pytest.fixture
def toy(monkeypatch, tmp_path):
    for name in ("minilab.toy", "minilab.toy.experiments"):
        monkeypatch.setitem(sys.modules, name, None)  # so that both are taken away again
    exec(INSTALL, scope := {})
    scope["install"](SOURCE)
    monkeypatch.setattr(cli, "METHODS", ("toy", "not_written_yet"))
    monkeypatch.setattr("minilab.core.records.records_dir", lambda: tmp_path / "records")
    monkeypatch.setattr("minilab.core.records.package_data", lambda name: tmp_path / "shipped")
    return tmp_path / "records"


def test_list_shows_experiments_presets_and_which_records_exist(toy, capsys):
    assert cli.main(["list"]) == 0
    before = capsys.readouterr().out
    assert cli.main(["run", "toy/speed"]) == 0
    capsys.readouterr()
    assert cli.main(["list"]) == 0
    after = capsys.readouterr().out
    assert "toy/speed" in before and "How fast it goes." in before and "The rest" not in before
    assert before.splitlines()[0].split()[1:3] == ["cpu,", "gpu"]
    assert after.splitlines()[0].split()[1:3] == ["cpu*,", "gpu"]


def test_run_equals_the_function_and_saves_its_record(toy, capsys):
    assert cli.main(["run", "toy/speed", "--preset", "gpu", "--seed", "7", "--device", "cpu"]) == 0
    record = Record.load("toy/speed", preset="gpu", root=toy)
    module = sys.modules["minilab.toy.experiments"]
    direct = module.speed(module.Preset("gpu", seed=7, device="cpu", steps=9))
    assert record.compare(direct, rtol=0.0) == []
    assert record.results["nested"]["seed"] == 7 and record.provenance["seed"] == 7
    assert str(toy / "toy" / "speed.gpu.json") in capsys.readouterr().out


def test_dry_run_says_what_is_missing_and_runs_nothing(toy, capsys):
    assert cli.main(["run", "toy/wait", "--dry-run", "--set", "steps=12"]) == 0
    assert capsys.readouterr().out == "12 trainings are missing\n" and not toy.exists()
    assert cli.main(["run", "toy/speed", "--dry-run"]) == 2
    assert "toy/speed has no dry run; these keep each training and have one: toy/wait\n" in capsys.readouterr().err


def test_pair_and_other_fields_replace_the_presets_and_are_told_by_the_record(toy, tmp_path, capsys):
    words = "--preset gpu --device cpu --pair org/big+small --set steps=12 --set heat=1,0.5 --set threads=2 "
    words += "--set part.engine=ray"
    assert cli.main(["run", "toy/speed", *words.split(), "--records", str(tmp_path / "mine")]) == 0
    record = Record.load("toy/speed", preset="gpu", root=tmp_path / "mine")
    module = sys.modules["minilab.toy.experiments"]
    preset = module.Preset("gpu", device="cpu", steps=12, pair="org/big+small", heat=(1.0, 0.5), threads=2,
                           part=module.Part(engine="ray"))
    assert record.compare(module.speed(preset), rtol=0.0) == []
    assert "  with pair org/big+small\n" in capsys.readouterr().out

    again = shlex.split(record.provenance["command"])  # it repeats the run
    assert again[:3] == ["minilab", "run", "toy/speed"]
    assert cli.main([*again[1:], "--device", "cpu", "--records", str(tmp_path / "again")]) == 0
    assert record.compare(Record.load("toy/speed", preset="gpu", root=tmp_path / "again"), rtol=0.0) == []


@pytest.mark.parametrize("words", ["--pair org/big+small", "--set steps=7"])
def test_a_run_with_other_settings_does_not_replace_the_books_record(toy, capsys, words):
    assert cli.main(["run", "toy/speed", *words.split()]) == 2
    assert "--records DIR" in capsys.readouterr().err and not toy.exists()
    assert cli.main(["run", "toy/speed", "--pair", "shipped", "--set", "steps=1000"]) == 0, "nothing is changed"


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("stepz=7", "has no field 'stepz' to set; it has steps, pair, heat, threads, part"),
        ("name=gpu", "has no field 'name'"),
        ("part.worker=2", "has no field 'part.worker' to set; it has part.workers, part.engine"),
        ("steps.workers=2", "has no field 'steps.workers' to set; it has nothing in steps"),
        ("part=2", "'2' cannot stand for Part("),
        ("part.workers=two", "'two' cannot stand for 1"),
        ("steps", "'' cannot stand for 1000"),
        ("steps=many", "'many' cannot stand for 1000"),
        ("steps=1.5", "'1.5' cannot stand for 1000"),
        ("heat=1,hot", "cannot stand for 0.0"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(toy, tmp_path, capsys, setting, complaint):
    assert cli.main(["run", "toy/speed", "--set", setting, "--records", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert complaint in error and "Traceback" not in error


def test_records_can_go_elsewhere(toy, tmp_path, capsys):
    elsewhere = tmp_path / "elsewhere"
    assert cli.main(["run", "toy/speed", "--records", str(elsewhere)]) == 0
    assert (elsewhere / "toy" / "speed.cpu.json").is_file() and not toy.exists()
    assert cli.main(["show", "toy/speed", "--records", str(elsewhere)]) == 0


def test_show_prints_results_and_provenance(toy, capsys):
    cli.main(["run", "toy/speed"])
    capsys.readouterr()
    assert cli.main(["show", "toy/speed"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in (
        *("results", "curve 10 values from 0 to 9", "nested.mean 1.5", "few 1, 2", "config", "steps 1000"),
        *("table.0 K 0, speed.low 0.0", "table.6 K 6, speed.low 3.0"),
        *("provenance", "command minilab run toy/speed --preset cpu --seed 0"),
        f"versions.torch {TORCH}",
    ):
        assert line in lines, line


@pytest.mark.parametrize("name", ["toy/spede", "toi/speed", "speed", "not_written_yet/x", "", "/"])
def test_unknown_experiment_lists_the_valid_ones(toy, capsys, name):
    assert cli.main(["run", name]) == 2
    error = capsys.readouterr().err
    assert "unknown experiment" in error and "Traceback" not in error
    assert [line.strip() for line in error.splitlines()[1:]] == ["toy/speed", "toy/wait", "toy/broken"]


def test_unknown_preset_lists_the_valid_ones(toy, capsys):
    assert cli.main(["run", "toy/speed", "--preset", "tpu"]) == 2
    assert capsys.readouterr().err == "minilab: unknown preset 'tpu' of toy/speed; there are: cpu, gpu\n"
    assert not toy.exists()


def test_cuda_without_a_gpu_says_what_was_found_before_anything_runs(toy, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["run", "toy/wait", "--device", "cuda"]) == 2  # it would wait a minute
    error = capsys.readouterr().err
    assert "found torch" in error and "CUDA devices: 0" in error and "Traceback" not in error


def test_gpu_preset_on_a_cpu_warns_of_hours(toy, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert cli.main(["run", "toy/speed", "--preset", "gpu"]) == 0
    assert "may take hours" in capsys.readouterr().out
    assert cli.main(["run", "toy/speed", "--preset", "gpu", "--device", "cpu"]) == 0
    assert "may take hours" in capsys.readouterr().out
    assert cli.main(["run", "toy/speed", "--preset", "cpu"]) == 0
    assert "may take hours" not in capsys.readouterr().out


def test_another_preset_for_a_cpu_does_not_warn_of_hours(toy, capsys, monkeypatch):
    made = sys.modules["minilab.toy.experiments"]
    monkeypatch.setitem(made.presets, "two-cores", made.Preset("two-cores", device="cpu"))
    assert cli.main(["run", "toy/speed", "--preset", "two-cores"]) == 0
    assert "may take hours" not in capsys.readouterr().out


def test_missing_record_names_its_command(toy, capsys):
    assert cli.main(["show", "toy/speed"]) == 1
    assert "minilab run toy/speed --preset cpu" in capsys.readouterr().err


def test_failing_experiment_gives_its_message_or_its_traceback(toy, capsys):
    assert cli.main(["run", "toy/broken"]) == 1
    error = capsys.readouterr().err
    assert "the corpus is missing; fetch it" in error and "Traceback" not in error and "--traceback" in error
    with pytest.raises(ValueError):
        cli.main(["--traceback", "run", "toy/broken"])
    assert not toy.exists()


def test_a_method_that_is_there_but_broken_is_not_skipped(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "minilab.toy.experiments", None)  # its import fails
    assert cli.main(["list"]) == 1


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_interrupt_exits_130_and_leaves_the_records_valid(tmp_path):
    records = tmp_path / "records"
    program = INSTALL + textwrap.dedent(f"""
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        from minilab import cli
        install({SOURCE!r})
        cli.METHODS = ("toy",)
        assert cli.main(["run", "toy/speed", "--records", {str(records)!r}]) == 0
        sys.exit(cli.main(["run", "toy/wait", "--records", {str(records)!r}]))
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while (line := process.stdout.readline()) != "waiting\n":
            assert line, process.stderr.read()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted" in error and "Traceback" not in error
    assert [p.name for p in (records / "toy").iterdir()] == ["speed.cpu.json"]
    assert Record.load("toy/speed", root=records).results["few"] == [1, 2]


def test_installed_command_answers_help_and_version():
    done = subprocess.run([sys.executable, "-m", "minilab.cli", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(
        re.search(rf"^    {name}\b", done.stdout, re.M)
        for name in ("list", "run", "show", "diff", "doctor", "fetch", "assign", "grade", "new-chapter")
    )
    wrong = subprocess.run(
        [sys.executable, "-m", "minilab.cli", "frobnicate"], capture_output=True, text=True
    )
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr


def test_help_loads_nothing_heavy():
    code = "import sys\nfrom minilab import cli\ncli._parser().format_help()\nprint('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_assign_and_grade_hand_over_their_arguments(monkeypatch, capsys):
    calls = []

    def record_call(*arguments, **options):
        calls.append((arguments, options))
        return Path("made")

    monkeypatch.setattr("minilab.grading.assign", record_call)
    monkeypatch.setattr("minilab.grading.grade", record_call)
    assert cli.main(["assign", "labs/01-x.ipynb", "labs/02-y.ipynb", "-o", "out"]) == 0
    assert cli.main(["assign", "labs/01-x.ipynb"]) == 0
    words = ["grade", "inbox", "--autograder", "a.zip", "-o", "out", "--jobs", "3", "--timeout", "9"]
    assert cli.main(words) == 0
    assert calls == [
        ((Path("labs/01-x.ipynb"), Path("out")), {}),
        ((Path("labs/02-y.ipynb"), Path("out")), {}),
        ((Path("labs/01-x.ipynb"), Path("build/labs")), {}),
        ((Path("inbox"), Path("a.zip"), Path("out")), {"jobs": 3, "timeout": 9.0}),
    ]
    assert capsys.readouterr().out == "made\n" * 4


def test_fetch_fetches_the_model(monkeypatch, capsys):
    fake = types.ModuleType("minilab.speculative.smollm")
    fake.fetch = lambda: Path("cache/smollm2")
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr("minilab.speculative.smollm", fake, raising=False)
    assert cli.main(["fetch", "smollm2"]) == 0
    assert "cache/smollm2" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.main(["fetch", "gpt5"])
    assert stop.value.code == 2 and "smollm2" in capsys.readouterr().err


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine for the doctor: one good asset, no model, no browser, extras [a] complete and [b] not."""
    fake = types.ModuleType("minilab.speculative.smollm")
    fake.available = lambda: False
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr("minilab.speculative.smollm", fake, raising=False)
    for module in (doctor, weights):
        monkeypatch.setattr(module, "package_data", lambda name: tmp_path / name)
    monkeypatch.setattr("shutil.which", lambda name: None)
    wants = ["torch", 'torch>=2; extra == "a"', "no-such-thing<2,>=1; extra == 'b'", "numpy; extra == 'b'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: wants)
    card = {"what": "x", "how_made": "python make_it.py", "licence": "MIT"}
    return weights.save_weights(
        {"w": torch.ones(2, 2)}, tmp_path / "assets" / "toy" / "w.safetensors", card=card
    )


def test_doctor_reports_versions_devices_threads_and_how_to_get_what_is_missing(machine, capsys, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr("minilab.doctor.commit_of_code", lambda: "0123456789abcdef-dirty")
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for fact in (
        f"torch {TORCH}",
        platform.platform(),
        f"Python {platform.python_version()}",
        "commit 0123456789ab-dirty",
        "runs in no notebook service",
        "MUJOCO_GL=egl",
        "torch is built ",
        f"auto picks {pick_device()}",
        f"torch uses {torch.get_num_threads()}; OMP_WAIT_POLICY=PASSIVE",
        "ok: toy/w.safetensors",
        "minilab fetch smollm2",
        "ok: [a]",
        'missing: [b] lacks no-such-thing; get it with: pip install "minilab[b]"',
        "apt-get install chromium",
    ):
        assert fact in out, fact
    assert "spin" not in out


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({"COLAB_RELEASE_TAG": "1"}, "Colab"),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, "Kaggle"),
        ({"JUPYTERHUB_USER": "ann"}, "JupyterHub"),
        ({"BINDER_SERVICE_HOST": "x", "JUPYTERHUB_USER": "jovyan"}, "Binder"),
    ],
)
def test_doctor_names_the_service_it_runs_in(monkeypatch, variables, host):
    for names in doctor.HOSTS.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert doctor._system()[1] == f"runs in {host}"


def test_doctor_knows_a_containers_memory_and_the_disk(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(doctor, "LIMITS", (limit,))
    whole = doctor._memory_gib()
    if whole is None:
        pytest.skip("this system does not tell its memory")
    limit.write_text("max\n")
    assert doctor._memory_gib() == whole
    limit.write_text(str(2**29))
    assert doctor._memory_gib() == 0.5
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path / "not" / "yet"))
    free = shutil.disk_usage(tmp_path).free / 2**30
    assert doctor._free_gib(tmp_path / "not" / "yet") == pytest.approx(free, rel=0.05)
    assert "memory 0.5 GiB" in doctor._system()[2]


@pytest.mark.parametrize(
    ("why", "said"),
    [("", "ok: submissions are judged in Linux namespaces"),
     ("Darwin has no namespaces", "Darwin has no namespaces; for instructors only: grade on a Linux machine")],
)  # fmt: skip
def test_doctor_says_whether_submissions_can_be_judged_here(machine, capsys, monkeypatch, why, said):
    monkeypatch.setattr("minilab.grading.jail.possible", lambda: why)
    assert cli.main(["doctor"]) == 0, "who reads or learns needs none of it"
    section = capsys.readouterr().out.split("\ngrading\n")[1].splitlines()
    assert len(section) == 1 and said in section[0] and ("--no-walls" in section[0]) == bool(why)


def test_doctor_does_not_tell_the_name_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "ann")
    assert doctor._tilde(tmp_path / "ann" / ".cache" / "minilab") == "~/.cache/minilab"
    assert doctor._tilde(tmp_path / "annabel") == str(tmp_path / "annabel")


def test_doctor_warns_of_spinning_threads(machine, capsys, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert cli.main(["doctor"]) == 0
    assert "spin" in capsys.readouterr().out


def test_doctor_fails_on_a_damaged_asset_and_says_how_to_restore_it(machine, capsys):
    machine.write_bytes(machine.read_bytes()[:-1])
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "damaged: " in out and "Restore it" in out
