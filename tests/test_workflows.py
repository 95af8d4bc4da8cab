"""The workflows of continuous integration ask for nothing but what a reader can run: targets of the Makefile."""

import itertools
import re
import tomllib

import pytest
import yaml
from checkout import ROOT
from packaging.specifiers import SpecifierSet

WORKFLOWS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
             for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}  # fmt: skip
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
ACTIONS = {"actions/checkout", "actions/setup-python"}
SUPPORTED = ["3.11", "3.12", "3.13"]


def runs(job: dict) -> list[dict]:
    """What each run of a job's matrix knows as `matrix`: all combinations, then the included ones."""
    matrix = dict(job.get("strategy", {}).get("matrix", {}))
    included = matrix.pop("include", [])
    return [dict(zip(matrix, values, strict=True)) for values in itertools.product(*matrix.values())] + included


def filled(text: str, run: dict) -> str:
    """`text` with the values of one run in the place of `${{ matrix.NAME }}`. Raises KeyError for an unknown name."""
    return re.sub(r"\$\{\{ matrix\.([\w-]+) \}\}", lambda match: str(run[match[1]]), text)


def commands(workflow: dict) -> set[str]:
    """Every command line that the runs of a workflow give to a shell."""
    return {line for job in workflow["jobs"].values() for step in job["steps"] if "run" in step
            for run in runs(job) for line in filled(step["run"], run).splitlines()}  # fmt: skip


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_runs_targets_of_the_makefile_and_nothing_else(name):
    asked = commands(WORKFLOWS[name])
    assert asked and {line for line in asked if not re.fullmatch(r"make [a-z]+", line)} == set()
    assert {line.removeprefix("make ") for line in asked} <= TARGETS


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_uses_pinned_actions_and_may_only_read(name):
    workflow = WORKFLOWS[name]
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert {action.partition("@")[0] for action in used} == ACTIONS
    assert all(re.fullmatch(r"[\w/-]+@v\d+", action) for action in used)
    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 120 for job in workflow["jobs"].values())


def test_what_is_run_when():
    assert {name: commands(workflow) for name, workflow in WORKFLOWS.items()} == {
        "test": {"make test"}, "scheduled": {"make drift", "make colab", "make lighthouse"}}  # fmt: skip
    when = {name: workflow[True] for name, workflow in WORKFLOWS.items()}  # to YAML 1.1, `on` is true
    assert set(when["test"]) == {"push", "pull_request"}
    assert len(when["scheduled"]["schedule"]) == 1
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", when["scheduled"]["schedule"][0]["cron"])  # once a week


def test_every_python_that_we_name_is_tested_and_only_a_mac_may_fail():
    (job,) = WORKFLOWS["test"]["jobs"].values()
    assert [run["python"] for run in runs(job) if run["system"].startswith("ubuntu")] == SUPPORTED
    assert all(run.get("may-fail", False) == run["system"].startswith("macos") for run in runs(job))
    assert all(run["python"] in SUPPORTED for run in runs(job))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert all(SpecifierSet(project["requires-python"]).contains(version) for version in SUPPORTED)
    for page in ("README.md", "chapters/how-to.md", ".ci/create-venv"):
        assert "Python 3.11, 3.12 or 3.13" in (ROOT / page).read_text(encoding="utf-8"), page


def test_the_scheduled_python_is_colabs():
    listed = re.search(r"^# Python (\d+\.\d+)", (ROOT / ".ci" / "colab-packages.txt").read_text(), re.MULTILINE)[1]
    steps = next(iter(WORKFLOWS["scheduled"]["jobs"].values()))["steps"]
    assert [step["with"]["python-version"] for step in steps if "with" in step] == [listed]


@pytest.mark.parametrize("text", ["${{ matrix.absent }}", "make ${{ matrix.absent }}"])
def test_a_name_that_the_matrix_lacks_is_found(text):
    with pytest.raises(KeyError):
        filled(text, {"target": "drift"})
