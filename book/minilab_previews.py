"""What a link leads to, shown beside it: equations, theorems, glossary terms and references.

Each build collects them by address into `_static/previewed.js`. A page reads that file when a link is pointed at for
the first time (`static/previews.js`), as a script, so that it works from a folder as well as from a server.
"""

import json
import re
from pathlib import Path

from bs4 import BeautifulSoup, SoupStrainer

FILE = "previewed.js"
BEGIN = "window.minilabPreviewed = "
HOLDERS = re.compile(r"\b(math|proof|citation|glossary)\b")  # classes of what can be shown, or of what it stands in


def previews(body: str) -> dict[str, str]:
    """What links lead to on a page, by anchor, without links and ids of its own."""
    soup = BeautifulSoup(body, "html.parser", parse_only=SoupStrainer(["div", "dl"], class_=HOLDERS))
    for mark in soup.select("a.headerlink"):
        mark.decompose()
    found = {}
    for tag in [*soup.select("div.math[id], div.proof[id], div.citation[id], dl.glossary dt[id]")]:
        name = tag["id"]
        if tag.name == "dt":
            shown = f"<p><strong>{tag.get_text().strip()}</strong></p>{tag.find_next_sibling('dd').decode_contents()}"
        else:
            shown = str(tag)
        found[name] = plain(shown)
    return found


def plain(html: str) -> str:
    """HTML without its links and ids, which the page has already, and without a reference's label."""
    soup = BeautifulSoup(html, "html.parser")
    for label in soup.select(".citation > .label"):
        label.decompose()
    for link in soup.find_all("a"):
        link.unwrap()
    for tag in soup.find_all(True):
        for name in ("id", "role"):
            del tag[name]
    return str(soup).strip()


def collect(app, pagename, templatename, context, doctree):
    if app.builder.name != "html" or doctree is None:
        return
    page = app.builder.get_target_uri(pagename)
    kept = app.builder.__dict__.setdefault("minilab_previews", {})
    kept |= {f"{page}#{name}": shown for name, shown in previews(context["body"]).items()}


def write(app, error):
    if error or app.builder.name != "html":
        return
    file = Path(app.outdir) / "_static" / FILE
    # A build of some pages keeps what it knows of the others.
    known = json.loads(file.read_text(encoding="utf-8").removeprefix(BEGIN).rstrip(";\n")) if file.is_file() else {}
    known |= app.builder.__dict__.get("minilab_previews", {})
    file.write_text(f"{BEGIN}{json.dumps(known, ensure_ascii=False, sort_keys=True)};\n", encoding="utf-8")


def setup(app):
    app.connect("html-page-context", collect)
    app.connect("build-finished", write)
    app.add_js_file("previews.js", loading_method="defer")
    app.add_css_file("previews.css")
    return {"parallel_read_safe": True, "parallel_write_safe": False}
