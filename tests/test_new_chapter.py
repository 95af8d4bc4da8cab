"""The skeleton of a chapter: whole from the start, and nothing is left behind when it cannot be made."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from instructor import check_times

from minilab import cli, new_chapter
from minilab.grading import variants
from minilab.grading.plumbing import read_notebook

ROOT = Path(__file__).resolve().parents[1]
CACHES = {".git", ".venv", "_build", "build", "dist", "__pycache__", ".pytest_cache", ".ruff_cache"}
IN_PLACE = {"assets", "vendor"}  # they take room


def copy_to(clone: Path) -> None:
    """The checkout, with assets and MathJax read in place."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in CACHES | IN_PLACE]
        there = clone / Path(folder).relative_to(ROOT)
        there.mkdir(parents=True)
        for name in files:
            (there / name).write_bytes(Path(folder, name).read_bytes())
    (clone / "assets").symlink_to(ROOT / "assets")
    (clone / "book" / "vendor").symlink_to(ROOT / "book" / "vendor")


def state(clone: Path) -> dict[str, bytes]:
    """Every file with its content, and every folder."""
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in clone.rglob("*")}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The places that a new chapter changes, and nothing else of the checkout."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("labs", "tests", "records"):
        (folder / name).mkdir()
    for path in new_chapter.LISTS | dict.fromkeys(["_config.yml", "chapters/05-infinite-compute.ipynb"]):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes((ROOT / path).read_bytes())
    return folder


@pytest.mark.parametrize(
    ("name", "title", "said"),
    [("Few", "T", "a module's name"), ("class", "T", "a module's name"), ("a-b", "T", "a module's name"),
     ("x" * 21, "T", "a module's name"), ("cli", "T", "is taken"), ("core", "T", "is taken"),
     ("few", "  ", "plain words"), ("few", 'A "word"', "plain words"), ("few", "$x$", "plain words")],
)  # fmt: skip
def test_a_name_or_title_that_cannot_be_is_refused(clone, capsys, name, title, said):
    (clone / "src" / "minilab" / "core").mkdir(exist_ok=True)
    before = state(clone)
    assert cli.main(["new-chapter", name, "--title", title, "--root", str(clone)]) == 2
    assert said in capsys.readouterr().err and state(clone) == before


def test_without_a_clone_it_says_so(tmp_path, capsys):
    assert cli.main(["new-chapter", "few", "--title", "T", "--root", str(tmp_path)]) == 2
    assert "is no clone of the book" in capsys.readouterr().err


def test_what_fails_on_the_way_leaves_the_clone_as_it_was(clone, monkeypatch):
    before, said = state(clone), []

    def fails(root, *words):
        said.append(words)
        raise RuntimeError("no kernel")

    monkeypatch.setattr(new_chapter, "_python", fails)
    with pytest.raises(RuntimeError, match="no kernel"):
        new_chapter.make("few_bits", title="Fewer bits", root=clone)
    assert said[0][:4] == ("-m", "minilab.cli", "run", "few_bits/error") and state(clone) == before


def test_a_list_that_has_been_rewritten_is_named(clone):
    path = clone / "src" / "minilab" / "cli.py"
    text = path.read_text()
    path.write_text(text.replace("METHODS = (", "METHODS=("))
    with pytest.raises(ValueError, match=r"has no line METHODS = \(\.\.\.\)"):
        new_chapter.make("few_bits", title="Fewer bits", root=clone)
    path.write_text(text)


def test_no_word_of_the_template_is_left(clone, monkeypatch):
    monkeypatch.setattr(new_chapter, "_python", lambda root, *words: None)
    said = new_chapter.make("few_bits", title="Fewer bits", root=clone)
    made = re.findall(r"^  (\S+/\S+)$", said, re.MULTILINE)
    texts = [(clone / path).read_text(encoding="utf-8") for path in made if not path.endswith(".json")]
    texts += [(clone / path).read_text(encoding="utf-8") for path in new_chapter.LISTS]
    assert len(texts) == 11 + len(new_chapter.LISTS)
    assert [found for text in texts for found in re.findall(r"CHAPTER_[A-Z]+|REPOSITORY_URL", text)] == []
    methods = re.search(r"^METHODS = (.*)$", (clone / "src/minilab/cli.py").read_text(), re.MULTILINE)[1]
    assert eval(methods) == (*cli.METHODS, "few_bits")
    parts = yaml.safe_load((clone / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    pages = {page["file"]: page.get("title") for part in parts for page in part["chapters"]}
    new = {"chapters/06-few-bits": "6. Fewer bits", "chapters/api-few_bits": "minilab.few_bits"}
    assert new.items() <= pages.items()
    order = list(pages)
    for before, page in (("chapters/05-infinite-compute", "chapters/06-few-bits"),
                         ("labs/05-infinite-compute", "labs/06-few-bits"),
                         ("chapters/api-ensembles", "chapters/api-few_bits")):  # fmt: skip
        assert order.index(page) == order.index(before) + 1


def test_the_new_labs_questions_have_marks_as_those_of_the_others(tmp_path):
    words = {"CHAPTER_NAME": "few_bits", "CHAPTER_TITLE": "Fewer bits", "CHAPTER_FILE": "06-few-bits",
             "CHAPTER_N": "6", "REPOSITORY_URL": "https://example.org"}  # fmt: skip
    path = tmp_path / "06-few-bits.ipynb"
    path.write_text(new_chapter._files(words)["labs/06-few-bits.ipynb"], encoding="utf-8")
    check_times(path)
    variants.write_instructor_notebook(path, tmp_path / "instructor.ipynb")
    variants.write_nbgrader_source(path, tmp_path / "nbgrader.ipynb")
    overview = read_notebook(tmp_path / "instructor.ipynb").cells[0].source
    assert "| Question 1. The error of a mean | 5 | ●○○ | 1 + 1 |\n| all | 5 | | 2 |" in overview
    graded = [cell.metadata.get("nbgrader", {}) for cell in read_notebook(tmp_path / "nbgrader.ipynb").cells]
    assert [marks["points"] for marks in graded if marks.get("grade")] == [1, 1]
    texts = [cell for cell in read_notebook(path).cells if cell.metadata]
    assert [cell.cell_type for cell in texts] == ["markdown"], "it stands at the heading, and only there"


@pytest.mark.slow
def test_the_skeleton_passes_its_own_tests_and_those_of_every_chapter(tmp_path):
    clone = tmp_path / "clone"
    copy_to(clone)
    environment = os.environ | {"PYTHONPATH": str(clone / "src"), "MINILAB_PROGRESS": "0", "OMP_NUM_THREADS": "1"}
    environment = {k: v for k, v in environment.items() if not k.startswith(("PYTEST_", "COV_"))}

    def run(*words):
        done = subprocess.run([sys.executable, *words], cwd=clone, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run("-m", "minilab.cli", "new-chapter", "few_bits", "--title", "Fewer bits")
    tests = ["tests/few_bits", "tests/test_lab_few_bits.py"]
    notebooks = [f"{folder}/06-few-bits.ipynb" for folder in ("chapters", "labs")]
    run("-m", "ruff", "check", "src/minilab/few_bits", "src/minilab/cli.py", *tests, *notebooks)
    tests += [f"tests/book/test_{name}.py" for name in ("notebooks", "reading", "notation", "care")]
    these = "few or 06 or [6] or has_its or meaning or public"
    out = run("-m", "pytest", "-v", "-p", "no:cacheprovider", *tests, "-k", these)
    assert int(re.search(r"(\d+) passed", out)[1]) > 25
