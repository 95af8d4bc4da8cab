"""Plain text from reStructuredText pages and Python docstrings, for language models of this book's size.

A model of 20 M parameters should spend them on English and code, not on mark-up. So a page becomes
paragraphs on one line each (the hard wraps go), Markdown headings, list items and indented code. Tables,
images, indices, pictures drawn with characters and text in other scripts are dropped. This is a reader
for corpora: it keeps no structure and forgives bad mark-up.
"""

import ast
import inspect
import re
import textwrap
import unicodedata

DROPPED = set(
    "toctree image figure table list-table flat-table csv-table tabularcolumns math raw contents index "
    "module "
    "moduleauthor sectionauthor codeauthor highlight highlightlang kernel-doc kernel-figure kernel-render "
    "kernel-abi kernel-feat include literalinclude currentmodule py:currentmodule plot graphviz digraph "
    "inheritance-diagram autosummary productionlist role default-role meta sidebar testsetup testcleanup "
    "jupyter-execute jupyter-kernel maintainers-include grid card tab-set rst-class class cssclass "
    "c:namespace c:namespace-push c:namespace-pop versionadded versionchanged deprecated deprecated-removed "
    "availability seealso bibliography minigallery ipython-include release-notes show-options "
    "support_matrix feature_matrix remote-code-block".split()
)
CODE = set(
    "code-block code sourcecode ipython parsed-literal doctest testcode testoutput prompt console "
    "jupyter-input jupyter-output productionlist-like".split()
)
ADMONITIONS = {
    "note": "Note",
    "warning": "Warning",
    "tip": "Tip",
    "hint": "Hint",
    "important": "Important",
    "caution": "Caution",
    "danger": "Danger",
    "attention": "Attention",
    "impl-detail": "Note",
}

DIRECTIVE = re.compile(r"^(\s*)\.\. +(?:\|[^|]+\| +)?([\w:+.-]+?):: *(.*)$")
EXPLICIT = re.compile(r"^(\s*)\.\.(\s|$)")
FIELD = re.compile(r"^\s*:([\w ]+?)(?: ([\w*.,\[\] ]+))?: +(?=\S)")
NAMED = re.compile(
    r"^\s+\*{0,2}`*\w+`*(?: \([^()]*(?:\([^()]*\)[^()]*)*\))?: +\S"
)  # "    x (int): ..." in docstrings
ITEM = re.compile(r"^\s*(?:[-*+•]|\(?\d{1,2}[.)]|\(?[a-z][.)]|#\.)\s+")
RULE = re.compile(r"^\s*([=\-~^\"'`#*+:.<>_])\1{2,}\s*$")
GRID = re.compile(r"^\s*(\+[-=]{2,}[-=+ |]*|={2,}( +={2,})+ *|-{2,}( +-{2,})+ *)$")
QUOTES = str.maketrans(
    "\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u00a0\u2011\u00d7", "''\"\"--\u2026 -x", "\u00ad\u200b\ufeff"
)


def inline(text: str) -> str:
    """Take the mark-up out of a line of prose: roles, links, references, escapes."""

    def role(match):
        name, shown = match[1], re.sub(r"\s*<[^>]*>$", "", match[2])
        shown = shown.rsplit(".", 1)[-1] if shown.startswith("~") else shown.lstrip("!")
        return (
            f"`{shown}`"
            if name.rsplit(":", 1)[-1] not in ("ref", "doc", "term", "manpage", "abbr")
            else shown
        )

    text = re.sub(r"\|version\||\|release\|", "the current version", text)
    text = re.sub(r"(?<!`):([\w:+.-]+):`([^`]+)`", role, text)
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    text = re.sub(r"(?<!`)`([^`<]+?)\s*<[^>`]*>`__?", r"\1", text)
    text = re.sub(r"(?<!`)`([^`]+)`__?(?!\w)", r"\1", text)
    text = re.sub(r" ?\[[#*\w]{1,12}\]_", "", text)
    return re.sub(r"\\([*_`|\\ ])", r"\1", text)


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def end_of_body(lines: list[str], start: int, indent: int) -> int:
    """The first line at or after `start` that is neither blank nor indented deeper than `indent`."""
    while start < len(lines) and (not lines[start].strip() or indent_of(lines[start]) > indent):
        start += 1
    return start


def is_prose(text: str) -> bool:
    """English rather than a table, a dump of numbers, a picture or another script."""
    letters = sum(c.isalpha() or c == " " for c in text)
    foreign = sum(ord(c) > 0x24F for c in text)
    return letters >= 0.72 * len(text) and foreign <= 0.02 * len(text) and len(text) > 1


def code_block(lines: list[str], longest: int = 60) -> str | None:
    """A code block indented by four spaces; None for long dumps and pictures made of characters."""
    text = textwrap.dedent("\n".join(line.rstrip().expandtabs(4) for line in lines)).strip("\n")
    solid = re.sub(r"\s", "", text)
    letters = sum(c.isalnum() and ord(c) < 0x250 for c in solid)
    if (
        not solid
        or letters < 0.6 * len(solid)
        or text.count("\n") >= longest
        or max(map(len, text.split("\n"))) > 160
    ):
        return None
    if re.search(r"(?:\b[0-9a-fA-F]{2,8}\b[\s:,]*){12}|[-=+*_]{12}|\.{8}", text):
        return None
    return textwrap.indent(re.sub(r"\n{3,}", "\n\n", text), "    ")


class RstReader:
    """One pass over the lines of a page; `blocks` collects headings, paragraphs, lists and code."""

    def __init__(self, source: str):
        source = unicodedata.normalize("NFC", source).translate(QUOTES)
        self.lines = source.expandtabs(8).splitlines()
        self.blocks: list[str] = []
        self.levels: list[str] = []
        self.at = 0

    def read(self) -> list[str]:
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if not line.strip():
                self.at += 1
            elif not (self.directive(line) or self.table(line) or self.heading(line)):
                self.paragraph()
        return self.blocks

    def directive(self, line: str) -> bool:
        if not (EXPLICIT.match(line) or line.lstrip().startswith("__ ")):
            return False
        found, indent = DIRECTIVE.match(line), indent_of(line)
        end = end_of_body(self.lines, self.at + 1, indent)
        name = found[2] if found else ""
        if (
            not found
            or name in DROPPED
            or name.startswith(("auto", "ipython::", "only-"))
            or "|" in line[: indent + 6]
        ):
            self.at = end
            return True
        body = self.at + 1
        while body < end and re.match(r"^\s+:[\w-]+:", self.lines[body]):
            body += 1
        if name in CODE:
            self.code(self.lines[body:end])
            self.at = end
        elif name in ADMONITIONS:
            self.lines[body - 1] = " " * (indent + 3) + f"{ADMONITIONS[name]}: {found[3]}"
            while not found[3] and body < end and not self.lines[body].strip():
                self.lines.pop(body)
                end -= 1
            self.at = body - 1
            self.paragraph()
        else:
            if found[3] and name != "only":
                self.add(inline(found[3].replace("\\", "")), prose=False)
            self.at = body
        return True

    def table(self, line: str) -> bool:
        if not GRID.match(line) and not re.match(r"^\s*\|.*\|\s*$", line):
            return False
        borders = 0
        simple = line.lstrip()[0] in "=-"
        while self.at < len(self.lines) and (self.lines[self.at].strip() or (simple and 0 < borders < 3)):
            borders += bool(GRID.match(self.lines[self.at]))
            self.at += 1
            if simple and borders >= 2 and self.at < len(self.lines) and not self.lines[self.at].strip():
                break
        return True

    def heading(self, line: str) -> bool:
        following = self.lines[self.at + 1] if self.at + 1 < len(self.lines) else ""
        if RULE.match(line):
            above = self.lines[self.at + 2] if self.at + 2 < len(self.lines) else ""
            if following.strip() and above.strip() == line.strip():
                self.title(following, line.strip()[0] * 2, 3)
            else:
                self.at += 1
            return True
        if RULE.match(following) and indent_of(line) == indent_of(following) and len(following.strip()) >= 3:
            self.title(line, following.strip()[0], 2)
            return True
        return False

    def title(self, text: str, mark: str, used: int) -> None:
        if mark not in self.levels:
            self.levels.append(mark)
        self.at += used
        self.add("#" * min(self.levels.index(mark) + 1, 4) + " " + inline(text.strip()), prose=False)

    def paragraph(self) -> None:
        start, indent = self.at, indent_of(self.lines[self.at])
        while self.at < len(self.lines) and self.lines[self.at].strip():
            line = self.lines[self.at]
            if self.at > start and (
                EXPLICIT.match(line) or GRID.match(line) or line.lstrip().startswith((">>> ", "```"))
            ):
                break
            self.at += 1
        lines = self.lines[start : self.at]
        if lines[0].lstrip().startswith("```"):
            return self.fence(start)
        if lines[0].lstrip().startswith((">>>", "...", "$ ", "In [", "Out[")):
            return self.code(lines)
        literal = lines[-1].rstrip().endswith("::")
        for text in self.unwrap(lines):
            text = re.sub(r"\s*::$", ":" if not text.endswith(" ::") else "", text)
            self.add(re.sub(r"\s+", " ", inline(text)).strip())
        if literal:
            indent = min(indent, indent_of(lines[-1]))
            end = end_of_body(self.lines, self.at, indent)
            self.code(self.lines[self.at : end])
            self.at = end

    def fence(self, start: int) -> None:
        """A Markdown code fence, as many docstrings have."""
        end = start + 1
        while end < len(self.lines) and not self.lines[end].strip().endswith("```"):
            end += 1
        self.code(self.lines[start + 1 : end])
        self.at = end + 1

    @staticmethod
    def unwrap(lines: list[str]) -> list[str]:
        """Join hard-wrapped lines; list items, fields, line blocks and definition terms begin a new one."""
        texts: list[str] = []
        base = indent_of(lines[0])
        for number, line in enumerate(lines):
            item, field = ITEM.match(line), FIELD.match(line)
            if field:
                line = f"- {field[2] or field[1]}: " + line[field.end() :]
            elif item:
                line = re.sub(ITEM, lambda m: "- " if m[0].strip() in "-*+•#." else m[0].lstrip(), line)
            elif number and NAMED.match(line) and indent_of(line) <= base + 4:
                field, line = True, "- " + line.lstrip()
            term = (
                number == 1
                and not (item or field)
                and indent_of(line) > base
                and not ITEM.match(lines[0])
                and not FIELD.match(lines[0])
            )
            if number == 0 or item or field or term or line.lstrip().startswith("| "):
                texts.append(line.strip().removeprefix("| "))
            else:
                texts[-1] += " " + line.strip()
        return texts

    def code(self, lines: list[str]) -> None:
        block = code_block(lines)
        if block:
            self.blocks.append(block)

    def add(self, text: str, *, prose: bool = True) -> None:
        if text and (is_prose(text) if prose else len(text) < 200):
            joined = self.blocks and text.startswith("- ") and self.blocks[-1].startswith("- ")
            self.blocks[-1:] = [self.blocks[-1] + "\n" + text] if joined else [*self.blocks[-1:], text]


def rst_blocks(source: str) -> list[str]:
    """Headings, paragraphs, lists and code blocks of a reStructuredText page, as plain text."""
    return RstReader(source).read()


def docstring_blocks(source: str, name: str, shortest: int = 200) -> list[str]:
    """The docstrings of a module's source, each under a heading with its qualified name.

    Docstrings under `shortest` characters are left out. Source that does not parse gives nothing.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    blocks: list[str] = []

    def visit(node, path):
        if any(part.startswith("_") for part in path[1:]):
            return
        doc = ast.get_docstring(node, clean=False)
        if doc and len(doc) >= shortest:
            text = rst_blocks(inspect.cleandoc(doc))
            blocks.extend(["# " + ".".join(path)] + ["#" + b if b.startswith("#") else b for b in text])
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                visit(child, [*path, child.name])

    visit(tree, [name])
    return blocks
