"""The skeleton of a further chapter, in a clone of the book: what `minilab new-chapter` does.

The files of `chapter_template/` become a subpackage with the rooms of the others, an experiment and its record, a
notebook with the spine of a chapter, a lab, tests, and pages. Then the lists that name all chapters get a line. The
skeleton is about the error of a mean: too small to keep, and whole, so that the book builds and all tests pass at
each step of replacing it.
"""

from __future__ import annotations

import json
import keyword
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from minilab.core.files import checkout_root

TEMPLATE = Path(__file__).parent / "chapter_template"
ROOMS = ("__init__", "means", "data", "baselines", "experiments", "figures")
LEFT_TO_YOU = """what is left to you, when the method is yours:
  chapters/index.md, README.md, CHANGELOG.md   what the chapter is about
  chapters/instructors.md                      minutes and points of the lab
  chapters/notation.md, glossary.md            its own symbols and words
  references.bib                               its papers"""

SYMBOLS = r"""
## Chapter CHAPTER_N: CHAPTER_TITLE

| symbol | meaning | in code |
|---|---|---|
| $n$ | draws in a sample | `CHAPTER_NAME.means.standard_error(n)` |
| $\sigma$ | spread of one draw | `CHAPTER_NAME.means.standard_error(variance)` |
| $\bar x$ | mean of the draws | `CHAPTER_NAME.means.mean(draws)` |
"""


def make(name: str, *, title: str, root: Path | None = None) -> str:
    """Make the chapter `name` in the clone `root`, by default the one that minilab runs from; return what was made.

    Whatever fails on the way, the clone is then as it was before. Raises ValueError for a name that no module can
    have or that is taken, for an empty title, and where there is no clone; RuntimeError if the record or a notebook
    cannot be made.
    """
    root = _clone(root)
    title = " ".join(title.split())
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,18}[a-z0-9]", name) or keyword.iskeyword(name):
        raise ValueError(f"name is {name!r}; give a module's name, such as quantization: 2 to 20 of a-z, 0-9, _")
    if not title or re.search(r'["\\`$|{}<>]', title):
        raise ValueError(f"title is {title!r}; give plain words, without \" \\ ` $ | {{ }} < >")
    places = (f"src/minilab/{name}", f"src/minilab/{name}.py", f"tests/{name}", f"records/{name}")
    if taken := [place for place in places if (root / place).exists()]:
        raise ValueError(f"the name {name!r} is taken: there is {taken[0]}; choose another")
    number = 1 + max(int(p.name[:2]) for p in (root / "chapters").glob("[0-9][0-9]-*.ipynb"))
    file = f"{number:02d}-{name.replace('_', '-')}"
    words = {"CHAPTER_NAME": name, "CHAPTER_TITLE": title, "CHAPTER_FILE": file, "CHAPTER_N": str(number),
             "REPOSITORY_URL": _repository(root)}  # fmt: skip

    new = _files(words)
    changed = {path: change((root / path).read_text(encoding="utf-8"), words) for path, change in LISTS.items()}
    before = {path: (root / path).read_bytes() for path in changed}
    record = f"records/{name}/error.cpu.json"
    folders = [root / place / name for place in ("src/minilab", "tests", "records")]
    try:
        for path, text in {**new, **changed}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        _python(root, "-m", "minilab.cli", "run", f"{name}/error", "--records", "records")
        notebooks = [path for path in new if path.endswith(".ipynb")]
        _python(root, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace",
                "--ExecutePreprocessor.kernel_name=python3", "--ExecutePreprocessor.record_timing=False", *notebooks)
    except BaseException:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        for path in new:
            (root / path).unlink(missing_ok=True)
        for path, content in before.items():
            (root / path).write_bytes(content)
        raise
    made = "\n".join(f"  {path}" for path in (*new, record))
    return f"made chapter {number}, {title!r}:\n{made}\nwith a line in {', '.join(changed)}\n{LEFT_TO_YOU}"


def _clone(root: Path | None) -> Path:
    root = root.resolve() if root else checkout_root()
    if root is None or not (root / "_toc.yml").is_file() or not (root / "src" / "minilab").is_dir():
        raise ValueError(f"{root or 'this installation'} is no clone of the book: clone it, and run make setup there")
    return root


def _repository(root: Path) -> str:
    return re.search(r"^  url: (\S+)$", (root / "_config.yml").read_text(encoding="utf-8"), re.MULTILINE)[1]


def _files(words: dict[str, str]) -> dict[str, str]:
    """The new files by path."""
    name, file = words["CHAPTER_NAME"], words["CHAPTER_FILE"]
    places = {f"src/minilab/{name}/{room}.py": f"{room}.py.txt" for room in ROOMS}
    places |= {
        f"tests/{name}/test_{name}.py": "test_method.py.txt",
        f"tests/test_lab_{name}.py": "test_lab.py.txt",
        f"chapters/{file}.ipynb": "chapter.ipynb.txt",
        f"labs/{file}.ipynb": "lab.ipynb.txt",
        f"chapters/api-{name}.md": "api.md.txt",
    }
    texts = {path: _filled((TEMPLATE / t).read_text(encoding="utf-8"), words) for path, t in places.items()}
    prefixes = {f"chapters/{file}.ipynb": f"c{words['CHAPTER_N']}", f"labs/{file}.ipynb": f"lab{words['CHAPTER_N']}"}
    return {path: _notebook(text, prefixes[path]) if path in prefixes else text for path, text in texts.items()}


def _filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def _notebook(text: str, prefix: str) -> str:
    """A notebook whose cells begin with a line "%% markdown", "%% code" or "%% raw", and their metadata if any."""
    cells: list[dict[str, Any]] = []
    for part in re.split(r"^%% ", text, flags=re.MULTILINE)[1:]:
        first, _, source = part.partition("\n")
        kind, _, metadata = first.partition(" ")
        cell = {"cell_type": kind, "id": f"{prefix}-{len(cells):03d}", "metadata": json.loads(metadata or "{}"),
                "source": source.rstrip("\n").splitlines(keepends=True)}  # fmt: skip
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _python(root: Path, *words: str) -> None:
    """Run Python in the clone, with its own minilab. Raises RuntimeError with the end of what it said."""
    search = os.pathsep.join(filter(None, (str(root / "src"), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": search, "MINILAB_PROGRESS": "0", "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, *words], cwd=root, env=environment, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    if done.returncode:
        end = "\n".join(done.stdout.strip().splitlines()[-12:])
        raise RuntimeError(f"`python {' '.join(words[:4])} ...` failed, so nothing is made:\n{end}")


def _after(text: str, last: str, line: str) -> str:
    """`text` with `line` after the last line that matches `last`. Raises ValueError if none does."""
    found = list(re.finditer(last, text, re.MULTILINE))
    if not found:
        raise ValueError(f"no line of the form {last!r} to put {line.strip()!r} after: has the file been rewritten?")
    return f"{text[: found[-1].end()]}\n{line}{text[found[-1].end() :]}"


def _in_methods(text: str, words: dict[str, str]) -> str:
    added, count = re.subn(r"^(METHODS = \(.*)\)$", rf'\1, "{words["CHAPTER_NAME"]}")', text, flags=re.MULTILINE)
    if count != 1:
        raise ValueError("src/minilab/cli.py has no line METHODS = (...) to add the chapter to")
    return added


def _in_contents(text: str, words: dict[str, str]) -> str:
    """The list of pages; the sidebar names a chapter by its number too, and a page of functions by its module."""
    title = r"\n        title: .*$"
    chapter = '      - file: chapters/CHAPTER_FILE\n        title: "CHAPTER_N. CHAPTER_TITLE"'
    functions = "      - file: chapters/api-CHAPTER_NAME\n        title: minilab.CHAPTER_NAME"
    text = _after(text, r"^      - file: chapters/\d\d-.*" + title, _filled(chapter, words))
    text = _after(text, r"^      - file: labs/.*$", f"      - file: labs/{words['CHAPTER_FILE']}")
    return _after(text, r"^      - file: chapters/api-.*" + title, _filled(functions, words))


def _in_functions(text: str, words: dict[str, str]) -> str:
    row = _filled("| [CHAPTER_TITLE](api-CHAPTER_NAME.md) | chapter CHAPTER_N |", words)
    return _after(text, r"^\| \[.*\]\(api-.*$", row)


def _in_runs(text: str, words: dict[str, str]) -> str:
    heading = _filled("\n## Chapter CHAPTER_N: CHAPTER_TITLE\n\n```{runs} CHAPTER_NAME\n```", words)
    return _after(text, r"^```\{runs\} (?!summary|machines|software)\w+\n```$", heading)


def _in_thread(text: str, words: dict[str, str]) -> str:
    """The page on what chapters share, with a sentence at the end of its first cell that leads to the new one."""
    notebook = json.loads(text)
    line = _filled("\n\n[Chapter CHAPTER_N](CHAPTER_FILE.ipynb) is new, and no thread leads to it yet.", words)
    first = notebook["cells"][0]
    first["source"] = ("".join(first["source"]) + line).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _in_notation(text: str, words: dict[str, str]) -> str:
    """The page of symbols, with a column for the chapter where letters are compared, and a table of its own."""
    lines, n = text.splitlines(), words["CHAPTER_N"]
    first = next((i for i, line in enumerate(lines) if line.startswith("| letter | chapter 1 ")), None)
    if first is None:
        raise ValueError("chapters/notation.md has no table that begins with | letter | chapter 1")
    for i in range(first, len(lines)):
        if not lines[i].startswith("|"):
            break
        lines[i] += {0: f" chapter {n} |", 1: "---|"}.get(i - first, " – |")
    return "\n".join([*lines, _filled(SYMBOLS, words)])


# The files that list all chapters, and how each gets its line.
LISTS = {
    "src/minilab/cli.py": _in_methods,
    "_toc.yml": _in_contents,
    "chapters/api.md": _in_functions,
    "chapters/runs.md": _in_runs,
    "chapters/notation.md": _in_notation,
    "chapters/common-thread.ipynb": _in_thread,
}
