"""A plain list of the pages, for a program that reads the book: `llms.txt` at the root of the site (llmstxt.org).

Parts and pages in the order of the table of contents, a page with the first sentence of its text. Addresses are
relative to the file, so that a copy of the site elsewhere has its own.
"""

import re
from pathlib import Path

import yaml
from docutils import nodes

FILE = "llms.txt"
LONGEST = 240  # characters of a line's sentence
SKIPPED = (nodes.Admonition, nodes.table, nodes.container, nodes.topic, nodes.footnote)
STOP = re.compile(r"(?<=[.!?:])\s+(?=[A-Z*`“\"])")


def parts(toc: dict) -> list[tuple[str, list[str]]]:
    """Captions and pages of a table of contents in Jupyter Book's format; the root page has no caption."""
    return [("", [toc["root"]]), *((part["caption"], [page["file"] for page in part["chapters"]])
                                   for part in toc["parts"])]  # fmt: skip


def first_sentence(doctree: nodes.document) -> str:
    """How a page's text begins: not with its badges, a note, a table or an output."""
    for paragraph in doctree.findall(nodes.paragraph):
        above, parent = [], paragraph.parent
        while parent is not None:
            above.append(parent)
            parent = parent.parent
        text = " ".join(paragraph.astext().split())
        if text and "launch" not in paragraph["classes"] and not any(isinstance(p, SKIPPED) for p in above):
            sentence = STOP.split(text)[0]
            return sentence if len(sentence) <= LONGEST else sentence[: LONGEST - 1].rsplit(" ", 1)[0] + "…"
    return ""


def listing(title: str, summary: str, pages: list[tuple[str, list[tuple[str, str, str]]]]) -> str:
    """The file: a caption above the (title, address, sentence) of each of its pages."""
    lines = [f"# {title}", "", f"> {summary}"]
    for caption, entries in pages:
        lines += ["", f"## {caption}", ""] if caption else [""]
        for name, address, sentence in entries:
            lines.append(f"- [{name}]({address})" + (f": {sentence}" if sentence else ""))
    return "\n".join(lines) + "\n"


def write(app, error):
    if error or app.builder.name != "html":
        return
    toc = yaml.safe_load((Path(app.srcdir) / "_toc.yml").read_text(encoding="utf-8"))
    pages = [
        (caption, [(app.env.titles[name].astext(), app.builder.get_target_uri(name),
                    first_sentence(app.env.get_doctree(name))) for name in names])
        for caption, names in parts(toc)
    ]  # fmt: skip
    text = listing(app.config.html_title or app.config.project, app.config.epub_description, pages)
    (Path(app.outdir) / FILE).write_text(text, encoding="utf-8")


def setup(app):
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
