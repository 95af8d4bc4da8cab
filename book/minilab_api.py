"""The pages of `minilab`'s functions and classes, made from the docstrings in src/ at each build.

    ```{api} minilab.core minilab.nn
    ```

becomes a section for each module of these packages: its abstract, then each public function and class with its
signature and docstring. The source is read and not imported, so that a build needs none of the libraries, takes a
second, and shows signatures as they are written, array shapes included.
"""

import ast
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

WIDEST = 88  # characters of a signature on one line
LITERAL = re.compile(r"`([^`]+)`")


class Api(SphinxDirective):
    required_arguments = 1
    optional_arguments = 99

    def run(self):
        source = Path(self.env.srcdir) / "src"
        found = []
        for package in self.arguments:
            try:
                modules = modules_of(package, source)
            except ValueError as error:
                raise self.error(f"api: {error}") from None
            for name, path in modules:
                self.env.note_dependency(str(path))
                found += section(name, ast.parse(path.read_text(encoding="utf-8")))
        return found


def modules_of(package: str, source: Path) -> list[tuple[str, Path]]:
    """The modules of a package by name and file, packages within included; those that begin with _ are private.

    Raises ValueError if there is no such package below `source`.
    """
    folder = source.joinpath(*package.split("."))
    if folder.with_suffix(".py").is_file():
        return [(package, folder.with_suffix(".py"))]
    if not (folder / "__init__.py").is_file():
        raise ValueError(f"there is no package {package} in {source.name}/")
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = [part for part in path.relative_to(source).with_suffix("").parts if part != "__init__"]
        if not any(part.startswith("_") for part in parts):
            found.append((".".join(parts), path))
    return found


def section(name: str, tree: ast.Module) -> list[nodes.section]:
    """A module as a section, or nothing if it has no public member."""
    members = [member for item in tree.body if (member := described(item, name))]
    if not members:
        return []
    made = nodes.section("", nodes.title("", name), ids=[anchor(name)], names=[name.lower()])
    made += prose(ast.get_docstring(tree) or "")
    made += members
    return [made]


def described(item: ast.stmt, owner: str) -> addnodes.desc | None:
    """A public function or class as Sphinx describes one; None for anything else, and for one without docstring."""
    if not isinstance(item, ast.FunctionDef | ast.ClassDef) or item.name.startswith("_"):
        return None
    text = ast.get_docstring(item)
    if not text:
        return None
    kind = "class" if isinstance(item, ast.ClassDef) else "function"
    full = f"{owner}.{item.name}"
    head = addnodes.desc_signature("", "", ids=[anchor(full)], fullname=full)
    for line in signature(item):
        words = addnodes.desc_signature_line("", "", add_permalink=False)
        words += nodes.inline("", line, classes=["sig-line"])
        head += words
    head["is_multiline"] = True
    body = addnodes.desc_content("", *prose(text))
    if isinstance(item, ast.ClassDef):
        body += [described(part, full) for part in item.body if described(part, full)]
    return addnodes.desc("", head, body, domain="py", objtype=kind, desctype=kind, classes=["api"])


def signature(item: ast.FunctionDef | ast.ClassDef) -> list[str]:
    """How it is called, as it is written: on one line, or with an argument a line."""
    marks = [ast.unparse(mark).split("(")[0] for mark in item.decorator_list]
    shown = [f"@{mark}" for mark in marks if mark in ("property", "classmethod", "staticmethod")]
    if isinstance(item, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, item.bases))
        fields = [field for part in item.body if (field := field_of(part))]
        head = f"class {item.name}" + (f"({bases})" if bases else "")
        return [head, *(f"    {field}" for field in fields)]
    words = [ast.unparse(part) for part in spread(item.args)]
    end = f" -> {ast.unparse(item.returns)}" if item.returns else ""
    line = f"{item.name}({', '.join(words)}){end}"
    if len(line) <= WIDEST:
        return [*shown, line]
    return [*shown, f"{item.name}(", *(f"    {word}," for word in words), f"){end}"]


def spread(arguments: ast.arguments) -> list[ast.AST]:
    """The arguments of a function, each with its annotation and default, without self and cls."""
    line = ast.unparse(arguments)
    parsed = ast.parse(f"def f({line}): ...").body[0].args
    plain = [*parsed.posonlyargs, *parsed.args]
    defaults = [None] * (len(plain) - len(parsed.defaults)) + parsed.defaults
    found = [with_default(a, d) for a, d in zip(plain, defaults, strict=True) if a.arg not in ("self", "cls")]
    if parsed.vararg:
        found.append(ast.Name(f"*{ast.unparse(parsed.vararg)}"))
    elif parsed.kwonlyargs:
        found.append(ast.Name("*"))
    found += [with_default(a, d) for a, d in zip(parsed.kwonlyargs, parsed.kw_defaults, strict=True)]
    return [*found, ast.Name(f"**{ast.unparse(parsed.kwarg)}")] if parsed.kwarg else found


def with_default(argument: ast.arg, default: ast.expr | None) -> ast.Name:
    text = ast.unparse(argument)
    if default is not None:
        text += f" = {ast.unparse(default)}" if argument.annotation else f"={ast.unparse(default)}"
    return ast.Name(text)


def field_of(part: ast.stmt) -> str | None:
    """A field of a dataclass or a named tuple, as it is written."""
    if not isinstance(part, ast.AnnAssign) or not isinstance(part.target, ast.Name) or part.target.id.startswith("_"):
        return None
    default = f" = {ast.unparse(part.value)}" if part.value else ""
    text = f"{part.target.id}: {ast.unparse(part.annotation)}{default}"
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def prose(text: str) -> list[nodes.Node]:
    """A docstring: paragraphs, lists whose entries begin with "- ", and indented text as it stands."""
    found = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        if not block.strip():
            continue
        if block.startswith("- "):
            entries = re.split(r"\n(?=- )", block)
            found.append(nodes.bullet_list("", *(nodes.list_item("", paragraph(e[2:])) for e in entries)))
        elif all(line.startswith("    ") or not line for line in block.splitlines()):
            found.append(nodes.literal_block("", re.sub(r"^    ", "", block, flags=re.M), language="text"))
        else:
            found.append(paragraph(block))
    return found


def paragraph(text: str) -> nodes.paragraph:
    """Text with what stands between backticks as code."""
    made = nodes.paragraph()
    for i, part in enumerate(LITERAL.split(" ".join(text.split()))):
        if part:
            made += nodes.literal("", part) if i % 2 else nodes.Text(part)
    return made


def anchor(name: str) -> str:
    return "api-" + name.replace(".", "-")


def setup(app):
    app.add_directive("api", Api)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
