"""The notation page names symbols that the chapters use, and code that exists."""

import ast
import re

import nbformat
import pytest
from checkout import ROOT

PAGE = (ROOT / "chapters" / "notation.md").read_text(encoding="utf-8")
CHAPTERS = {int(path.name[:2]): path for path in sorted((ROOT / "chapters").glob("0[1-9]-*.ipynb"))}
MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$", re.DOTALL)
TOKEN = re.compile(r"\\[A-Za-z]+|\S")
CODE = re.compile(r"`([\w.]+)(?:\(([\w, ]+)\))?`")


def tables(text: str) -> dict[str, list[list[str]]]:
    """The cells of each section's table, without its head."""
    found = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        lines = [line for line in body.splitlines() if line.startswith("|")]
        if lines:
            found[title] = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return found


def tokens(text: str) -> list[tuple[str, ...]]:
    """The formulas of a text, each as the tokens of its TeX."""
    return [tuple(TOKEN.findall(display or inline)) for display, inline in MATH.findall(text)]


def formulas(path) -> list[tuple[str, ...]]:
    cells = nbformat.read(path, as_version=4).cells
    return tokens("\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))


def occurs(symbol: tuple[str, ...], formula: tuple[str, ...]) -> bool:
    return any(formula[i : i + len(symbol)] == symbol for i in range(len(formula) - len(symbol) + 1))


def absent(symbols: str, path) -> list[str]:
    """Those of the formulas in `symbols` that no formula of the notebook contains."""
    written = formulas(path)
    return ["".join(s) for s in tokens(symbols) if not any(occurs(s, formula) for formula in written)]


def found_in(parent: ast.AST, name: str) -> ast.AST | None:
    """The function, class or field called `name` in the body of a module or class."""
    for node in getattr(parent, "body", ()):
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", ())
        if name in [getattr(node, "name", None), *(t.id for t in targets if isinstance(t, ast.Name))]:
            return node
    return None


def names_in(node: ast.AST) -> set[str]:
    """Arguments, variables, fields and attributes that a definition binds."""
    bound = {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
    bound |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    calls = [n for n in ast.walk(node) if isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "register_buffer"]
    return bound | {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}


def code_fault(dotted: str, inside: str) -> str | None:
    """What is wrong with a name such as "speculative.theory.speedup" and what stands in its parentheses."""
    parts = dotted.split(".")
    for n in range(len(parts) - 1, 0, -1):
        file = (ROOT / "src" / "minilab").joinpath(*parts[:n]).with_suffix(".py")
        if file.is_file():
            break
    else:
        return f"{dotted}: there is no such module"
    node = ast.parse(file.read_text(encoding="utf-8"))
    for part in parts[n:]:
        node = found_in(node, part)
        if node is None:
            return f"{dotted}: {file.name} has no {part}"
    missing = [name.strip() for name in inside.split(",") if inside and name.strip() not in names_in(node)]
    return f"{dotted}: it has no {', '.join(missing)}" if missing else None


TABLES = tables(PAGE)
BY_CHAPTER = {int(title.split()[1].strip(":")): rows for title, rows in TABLES.items() if title.startswith("Chapter")}


def test_each_chapter_has_its_table():
    assert BY_CHAPTER.keys() == CHAPTERS.keys()


@pytest.mark.parametrize("number", CHAPTERS)
def test_each_symbol_is_in_a_formula_of_its_chapter(number):
    symbols = " ".join(row[0] for row in BY_CHAPTER[number])
    assert absent(symbols, CHAPTERS[number]) == []
    assert all(tokens(row[0]) for row in BY_CHAPTER[number])


@pytest.mark.parametrize("number", CHAPTERS)
def test_each_name_in_code_exists(number):
    named = [CODE.findall(row[2]) for row in BY_CHAPTER[number]]
    assert all(named)
    assert [fault for row in named for name in row if (fault := code_fault(*name))] == []


def test_a_letter_that_changes_its_meaning_is_in_each_chapter_that_has_one():
    for letter, *meanings in TABLES["Letters that change their meaning"]:
        assert len(meanings) == len(CHAPTERS)
        assert len({*meanings} - {"–"}) > 1 or any(";" in meaning for meaning in meanings), letter
        for (number, path), meaning in zip(CHAPTERS.items(), meanings, strict=True):
            if meaning != "–":
                assert absent(letter, path) == [], f"{letter} in chapter {number}"


def test_each_letter_of_a_shape_is_annotated_or_explained():
    source = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "src" / "minilab").rglob("*.py"))
    shapes = " ".join(re.findall(r'\w+\[[\w.]+, "([^"]*)"\]', source)).split()
    for (letters, *_) in TABLES["Letters of shapes"]:
        for letter in letters.replace(" ", "").split(","):
            assert letter in shapes, letter


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (("speculative.theory.speedup", "cost, verify"), None),
        (("lewm.sigreg.epps_pulley", "C, S"), None),
        (("speculative.theory.speedup", "price"), "it has no price"),
        (("speculative.theory.slowdown", ""), "has no slowdown"),
        (("speculative.nothing.speedup", ""), "no such module"),
    ],
)
def test_a_name_that_does_not_exist_is_found(name, fault):
    found = code_fault(*name)
    assert found is None if fault is None else fault in found


def test_a_symbol_counts_only_as_a_whole():
    formula = tuple(TOKEN.findall(r"S(\alpha, K) = \frac{E}{Kc + v}"))
    for text, there in ((r"$K$", True), (r"$S(\alpha, K)$", True), (r"$\alph$", False), (r"$S(K)$", False)):
        (symbol,) = tokens(text)
        assert occurs(symbol, formula) is there
