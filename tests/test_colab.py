"""What the notebooks' first cell does on Colab, worked out from the list of Colab's packages; `make colab` does it."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator

import nbformat
import pytest
from checkout import ROOT, relative, under
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

LIST = ROOT / ".ci" / "colab-packages.txt"
NOTEBOOKS = under("chapters", ".ipynb") + under("labs", ".ipynb")
PYTHON = re.search(r"^# Python (\S+)", LIST.read_text(encoding="utf-8"), re.MULTILINE)[1]
MARKERS = {  # what a requirement for some systems only is asked about
    "python_version": PYTHON.rpartition(".")[0],
    "python_full_version": PYTHON,
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "extra": "",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {"sklearn": "scikit-learn"}  # whose module has another name than the package


def listed() -> dict[str, Version]:
    pins = re.findall(r"^([\w.-]+)==(\S+)$", LIST.read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in pins}


def asked(package: str) -> Iterator[Requirement]:
    """What the installed metadata of a package asks for on Colab."""
    for line in importlib.metadata.requires(package) or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(MARKERS):
            yield requirement


def install(requirements: Iterable[Requirement], there: dict[str, Version]) -> tuple[list[str], set[str]]:
    """Requirements that what is there does not meet, and the packages that would come: those that are not there.

    Of a package that comes, this environment's version says what it needs in turn.
    """
    unmet, coming, waiting = [], set(), list(requirements)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in there:
            if not requirement.specifier.contains(there[name], prereleases=True):
                unmet.append(f"{requirement}, and Colab has {there[name]}")
        elif name not in coming:
            coming.add(name)
            waiting += asked(name)
    return unmet, coming


def first_cell() -> tuple[list[str], set[str]]:
    """What installing minilab does on Colab."""
    return install(map(Requirement, PROJECT["dependencies"]), listed())


def test_every_line_of_the_list_pins_one_package():
    lines = [line for line in LIST.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert len(listed()) == len(lines) > 50
    assert SpecifierSet(PROJECT["requires-python"]).contains(PYTHON)


def test_installing_minilab_replaces_no_package_of_colab():
    unmet, coming = first_cell()
    assert unmet == []
    assert {"mujoco", "jaxtyping"} <= coming  # the walk got there


@pytest.mark.parametrize(
    ("requirement", "told"),
    [
        ("numpy>=2.2", "numpy>=2.2, and Colab has 2.1.3"),
        ("torch>=2.6,<3", None),
        ("ipywidgets>=8", "ipywidgets>=8, and Colab has 7.7.1"),
        ("jaxtyping", "wadler-lindig"),  # what comes asks for more in its turn
    ],
)
def test_a_package_that_would_be_replaced_is_named(requirement, told):
    there = {"numpy": "2.1.3", "torch": "2.11.0", "ipywidgets": "7.7.1", "wadler-lindig": "0.0.1"}
    unmet, _ = install([Requirement(requirement)], {name: Version(version) for name, version in there.items()})
    assert not unmet if told is None else any(line.startswith(told) for line in unmet), unmet


def imports(path) -> set[str]:
    """The packages whose modules a notebook's code cells import."""
    found = set()
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        plain = re.sub(r"^(\s*)(?:\w+ = )?[%!].*", r"\1pass", cell.source, flags=re.MULTILINE)
        for node in ast.walk(ast.parse(plain)):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.partition(".")[0])
    return {canonicalize_name(MODULES.get(module, module)) for module in found - sys.stdlib_module_names}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_a_notebook_imports_what_colab_has_or_minilab_brings(path):
    _, coming = first_cell()
    assert "minilab" in imports(path)
    assert imports(path) - {"minilab"} - coming - set(listed()) == set()
