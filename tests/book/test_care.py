"""Citation, licenses, changelog and the contributor's guide say what is so; functions have a page."""

import ast
import re
import tomllib

import minilab_api
import pytest
import yaml
from checkout import ROOT, relative, under

from minilab import __version__, cli


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PROJECT = tomllib.loads(text_of("pyproject.toml"))["project"]
# The Citation File Format 1.2.0: what must be there, and of what may be there, what we use.
REQUIRED = {"authors", "cff-version", "message", "title"}
USED = {"abstract", "type", "version", "license", "repository-code", "keywords"}


def test_the_citation_file_is_valid():
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert REQUIRED <= set(citation) <= REQUIRED | USED
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["authors"] == [{"name": "The minilab authors"}]
    assert set(citation["license"]) == {PROJECT["license"], "CC-BY-4.0"}  # alternatives have an "or" in SPDX, not here
    assert citation["repository-code"] == yaml.safe_load(text_of("_config.yml"))["repository"]["url"]


def test_the_version_is_one():
    newest = re.search(r"^## (\S+?),", text_of("CHANGELOG.md"), re.MULTILINE)[1]
    cited = str(yaml.safe_load(text_of("CITATION.cff"))["version"])
    assert [__version__, PROJECT["version"], cited] == [newest] * 3


def test_text_and_code_have_licenses_of_their_own():
    assert text_of("LICENSE").startswith("MIT License") and "LICENSE-TEXT.md" in text_of("LICENSE")
    assert "CC BY 4.0" in text_of("LICENSE-TEXT.md") and "(LICENSE)" in text_of("LICENSE-TEXT.md")
    assert "LICENSE-TEXT.md" in text_of("README.md")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "CHANGELOG.md", "LICENSE-TEXT.md"])
def test_pages_at_the_root_name_what_is_there(page):
    text = text_of(page)
    targets = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE)) <= targets
    commands = re.findall(r"(?:^|`)minilab ([a-z-]+)(?=[ `]|$)", text, re.MULTILINE)
    for command in commands:
        with pytest.raises(SystemExit) as end:
            cli.main([command, "--help"])
        assert end.value.code == 0, command
    for link in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (ROOT / link).exists(), link
    for place in re.findall(r"^\| `([\w/]+/)`", text, re.MULTILINE):
        assert (ROOT / place).is_dir(), place


def test_every_module_with_something_public_is_on_one_page_of_functions():
    shown = []
    for page in sorted((ROOT / "chapters").glob("api-*.md")):
        for packages in re.findall(r"^```\{api\} (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            for package in packages.split():
                shown += [name for name, _ in minilab_api.modules_of(package, ROOT / "src")]
    assert len(set(shown)) == len(shown)
    absent = []
    for path in under("src/minilab", ".py"):
        name = relative(path).removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if path.stem == "__main__":
            continue  # a program
        if minilab_api.section(name, ast.parse(path.read_text(encoding="utf-8"))) and name not in shown:
            absent.append(name)
    assert absent == []


SOURCE = '''
"""An abstract.

- one
  entry
- another with `code`

    indented
"""

def public(x: Float[Tensor, "B T"], *rest: int, device: str = "cpu", n=3) -> float:
    """What it does."""

def silent(x): ...

def _private():
    """Hidden."""

class Thing(Base):
    """A thing."""

    size: int = 2  # of it

    @property
    def half(self) -> float:
        """Of its size."""
'''


def test_docstrings_become_sections_with_signatures_as_written():
    (section,) = minilab_api.section("minilab.some_thing", ast.parse(SOURCE))
    assert section["ids"] == ["api-minilab-some_thing"]
    assert [list_.astext().split() for list_ in section.findall(minilab_api.nodes.bullet_list)] == [
        "one entry another with code".split()
    ]
    assert [block.astext() for block in section.findall(minilab_api.nodes.literal_block)] == ["indented"]
    heads = [head.astext() for head in section.findall(minilab_api.addnodes.desc_signature)]
    assert "public(x: Float[Tensor, 'B T'], *rest: int, device: str = 'cpu', n=3) -> float" in heads[0]
    assert "class Thing(Base)" in heads[1] and "size: int = 2" in heads[1]
    assert "@property" in heads[2] and "half() -> float" in heads[2] and len(heads) == 3


def test_a_package_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no package minilab.absent"):
        minilab_api.modules_of("minilab.absent", ROOT / "src")
