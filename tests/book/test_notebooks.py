"""The stored notebooks: executed from top to bottom, quiet, short cells, compared without blind spots."""

import re
import time

import nbformat
import pytest
import yaml
from checkout import ROOT, relative, under
from nbval.plugin import get_sanitize_patterns

NOTEBOOKS = under("chapters", ".ipynb") + under("labs", ".ipynb")
SANITIZE = (ROOT / "tests" / "nbval_sanitize.cfg").read_text(encoding="utf-8")
SKIP_TAGS = {"nbval-skip", "skip-execution"}
LONGEST_CELL = {"chapters": 15, "labs": 25}  # a lab's cells hold a solution between its markers, or a test
FIRST_CELL = '''try:
    import minilab
except ImportError:  # on Colab and Kaggle
    %pip install -q "minilab @ git+{repository}"
    import minilab'''
WIDEST_LINE = {"chapters": 84, "labs": 110}  # a page shows some 85 characters; a lab is worked on in a notebook


def code_cells(path):
    """Number, cell and tags of each code cell that holds code."""
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "code" and cell.source.strip():
            yield number, cell, set(cell.metadata.get("tags", ()))


def faults(path) -> list[str]:
    """What is wrong with a stored notebook, one line each."""
    found, expected = [], 1
    longest = LONGEST_CELL.get(path.parent.name, 15)
    for number, cell, tags in code_cells(path):
        if tags & SKIP_TAGS and not SKIP_TAGS <= tags:
            found.append(f"cell {number} needs both tags to be skipped: {', '.join(sorted(SKIP_TAGS))}")
        if not tags & SKIP_TAGS:
            if cell.execution_count != expected:
                found.append(f"cell {number} has execution count {cell.execution_count}, not {expected}")
            expected += 1
        if (lines := len(cell.source.strip().splitlines())) > longest:
            found.append(f"cell {number} has {lines} lines, more than {longest}")
        if (wide := max(map(len, cell.source.splitlines()))) > WIDEST_LINE.get(path.parent.name, 84):
            found.append(f"cell {number} has a line of {wide} characters")
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags:
                found.append(f"cell {number} ended in {output.ename}")
            if output.get("name") == "stderr":
                found.append(f"cell {number} wrote to stderr: {output.text[:60]!r}")
            if any("widget" in kind for kind in output.get("data", ())):
                found.append(f"cell {number} shows a widget, which a page without a kernel cannot draw")
    if not any(cell.outputs for _, cell, _ in code_cells(path)):
        found.append("no cell has an output")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_notebook_is_stored_as_executed(path):
    assert faults(path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_the_first_cell_is_the_same_everywhere_and_installs_the_package_where_it_is_missing(path):
    repository = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    _, first, _ = next(code_cells(path))
    assert first.source == FIRST_CELL.format(repository=repository)


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if re.match(r"chapters/\d", relative(p))], ids=relative)
def test_a_chapter_has_the_spine(path):
    text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    wanted = ("The question", "The idea in one picture", "The mathematics", "The method in code", "The experiment",
              "beside ours", "Exercises", "Further reading")
    assert [w for w in wanted if not any(w in heading for heading in headings)] == []


def test_there_are_notebooks():
    assert NOTEBOOKS, "git tracks no notebook in chapters/ or labs/"


def test_each_fault_of_a_notebook_is_found(tmp_path):
    cell, output = nbformat.v4.new_code_cell, nbformat.v4.new_output
    bad = nbformat.v4.new_notebook(cells=[
        cell("1", execution_count=2, outputs=[output("stream", name="stderr", text="a warning")]),
        cell("2"),
        cell("\n".join(["x"] * 15 + ["x" * 85]), execution_count=3),
        cell("3", execution_count=4, outputs=[output("error", ename="KeyError", evalue="", traceback=[])]),
        cell("4", metadata={"tags": ["nbval-skip"]}),
        cell("5", execution_count=5, outputs=[
            output("display_data", data={"application/vnd.jupyter.widget-view+json": {}})]),
    ])  # fmt: skip
    nbformat.write(bad, tmp_path / "bad.ipynb")
    text = "\n".join(faults(tmp_path / "bad.ipynb"))
    kinds = "2, not 1|count None|16 lines|85 characters|KeyError|needs both|stderr|widget"
    for expected in kinds.split("|"):
        assert expected in text, expected

    nbformat.write(nbformat.v4.new_notebook(cells=[cell("1", execution_count=1)]), tmp_path / "mute.ipynb")
    assert faults(tmp_path / "mute.ipynb") == ["no cell has an output"]


def sanitized(text: str) -> str:
    for pattern, replacement in get_sanitize_patterns(SANITIZE):
        text = re.sub(pattern, replacement, text)
    return text


def test_sanitizing_a_long_line_takes_no_time():
    """A pattern that tries every start of a line is quadratic, and a drawing is one long line."""
    started = time.perf_counter()
    sanitized("9%" * 100_000)
    assert time.perf_counter() - started < 5


def test_each_sanitize_pattern_says_what_it_hides():
    lines = SANITIZE.splitlines()
    patterns = [i for i, line in enumerate(lines) if line.startswith("regex:")]
    assert len(patterns) == len(get_sanitize_patterns(SANITIZE)) > 0
    for i in patterns:
        assert lines[i - 1].startswith("# hides: "), lines[i]
        assert lines[i + 1].startswith("replace: "), lines[i]


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("took  12.3 s for all", "took 9.87 s for all"),
        ("one step:   0.8 ms", "one step: 12.0 ms"),
        ("latency 450 µs", "latency 1,450 µs"),
        ("about 3 seconds", "about 4 seconds"),
        ("   88.1 tok/s", " 1,234 tok/s"),
        ("bandwidth 9.5 GB/s", "bandwidth 21 GB/s"),
        ("40 tokens per second", "38 tokens per second"),
        (" 40%|####      | 4/10 [00:01<00:02]\ndone", "done"),
        ('<span class="minilab-value">loss = 1.234</span>', '<span class="minilab-value">loss = 1.3</span>'),
        ("minilab-value: loss = 1.234", "minilab-value: loss = 1.3"),
        ('<figure><svg role="img"><path d="M0"/></svg>x', '<figure><svg role="img"><path d="M1"/></svg>x'),
        ("<Model object at 0x7f3a5c0b1d30>", "<Model object at 0x7f3a5c0b1d3f>"),
    ],
)
def test_sanitize_hides_what_differs_between_machines(here, there):
    assert sanitized(here) == sanitized(there)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("accepted 12 of 40 tokens", "accepted 13 of 40 tokens"),
        ("acceptance rate 0.712", "acceptance rate 0.713"),
        ("tokens: [5, 17, 3]", "tokens: [5, 17, 4]"),
        ("K = 4 steps", "K = 5 steps"),
        ("2.5 samples", "2.6 samples"),
        ("loss: within [1.2, 1.4]", "loss: within [1.2, 9.4]"),
        ("minilab-value: loss = 1.2", "minilab-value: risk = 1.2"),
        ("<svg><path/></svg>4 tokens<svg><path/></svg>", "<svg><path/></svg>5 tokens<svg><path/></svg>"),
        ("chi-square 11.2, p 0.34", "chi-square 11.3, p 0.34"),
    ],
)
def test_sanitize_hides_nothing_else(right, wrong):
    assert sanitized(right) != sanitized(wrong)
