"""The package as a reader without a clone has it: a wheel, installed elsewhere and run in an empty folder."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from checkout import ROOT, relative, under

from minilab.core.records import Record, list_records

pytestmark = pytest.mark.slow
PLACES = {"src/minilab": "minilab", "assets": "minilab/_assets", "records": "minilab/_records"}


def pip(*words: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pip", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built as `pip install` builds it: the backend comes from pip's index, into an environment of its own."""
    out = tmp_path_factory.mktemp("wheel")
    built = pip("wheel", "--quiet", "--no-deps", "--wheel-dir", out, ROOT)
    if "hatchling" in built.stderr and ("No matching distribution" in built.stderr or "connection" in built.stderr):
        pytest.skip("pip cannot reach the package hatchling, which builds the wheel")
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A function that runs a command with the installed wheel, in an empty folder; the folder is its `place`."""
    venv, empty = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = pip("--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    assert done.returncode == 0, done.stderr
    # Its libraries are those of this environment. A .pth file below a path that a .pth adds is not read, so that a
    # minilab which is installed for editing stays out of sight.
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    libraries = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (site / "libraries.pth").write_text("\n".join(libraries) + "\n", encoding="utf-8")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "MINILAB_"))}
    variables |= {"MINILAB_CACHE": str(empty / "cache"), "MINILAB_PROGRESS": "0", "OMP_NUM_THREADS": "1"}

    def run(program: str, *words: str) -> subprocess.CompletedProcess:
        command = [python.with_name(program), *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=empty, env=variables)

    run.place, run.site = empty, site
    return run


def test_the_wheel_holds_the_code_the_assets_and_the_records_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {relative(path).replace(folder, place, 1) for folder, place in PLACES.items() for path in under(folder)}
    assert {name for name in wanted - names if not Path(name).name.startswith(".")} == set()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"minilab"}


def test_what_is_imported_is_the_wheels(installed):
    told = installed("python", "-c", "import minilab.core.files as f; print(f.__file__, f.checkout_root())")
    assert told.stdout.split() == [str(installed.site / "minilab" / "core" / "files.py"), "None"], told.stderr


def test_the_list_marks_the_records_that_came_along(installed):
    told = installed("minilab", "list")
    assert told.returncode == 0, told.stderr
    marked = {f"{line.split()[0]}.{preset}" for line in told.stdout.splitlines()[:-1]
              for preset in re.findall(r"([\w-]+)\*", line)}  # fmt: skip
    assert 50 < len(marked) and marked <= set(list_records(ROOT / "records"))
    shown = installed("minilab", "show", "dmpc/plans", "--preset", "cpu")
    assert "objectives" in shown.stdout and shown.returncode == 0, shown.stderr


def test_an_experiment_finds_its_shipped_models_and_writes_where_it_is_told(installed):
    told = installed("minilab", "run", "dmpc/plans", "--preset", "cpu", "--records", "out")
    assert told.returncode == 0, told.stderr
    record = Record.load("dmpc/plans", preset="cpu", root=installed.place / "out")
    assert [len(start["speed"]) for start in record.results["starts"]] == [64, 64, 64]
    assert not (installed.place / "records").exists()


def test_templates_and_texts_are_found_and_a_model_that_did_not_come_along_is_asked_for(installed):
    program = """
from minilab.core.records import Record
from minilab.dmpc.interactive import fan_html
from minilab.ensembles.data import load_text
from minilab.speculative.interactive import explorer_html
from minilab.speculative.pairs import load_pair
print(len(fan_html(Record.load("dmpc/plans"))), len(explorer_html()), len(load_text("manual-valid")))
load_pair("smollm2")
"""
    told = installed("python", "-c", program)
    sizes = list(map(int, told.stdout.split()))
    assert len(sizes) == 3 and min(sizes) > 5000, told.stderr
    assert told.returncode == 1 and "minilab fetch smollm2" in told.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("show", "dmpc/plans", "--preset", "absent"), 1, "minilab run dmpc/plans --preset absent"),
        (("new-chapter", "more", "--title", "More"), 2, "clone"),
    ],
)
def test_what_a_wheel_has_not_is_asked_for_by_name(installed, words, code, said):
    told = installed("minilab", *words)
    assert told.returncode == code and said in told.stderr, told.stderr
