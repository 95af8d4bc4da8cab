"""Pages that show early: nothing in a page's head makes the browser wait for more than one style sheet.

- Scripts run once the page is read, in their order. The one that inline scripts build on stands in the page itself.
- Style sheets come as one file.
- The index of the search is loaded by the page that searches, and an interactive figure or a film by who comes near it.
- A page is light or dark before anything of it shows, and without scripts it is light.
- Each page says in a sentence what it is about, for those who list it.
"""

import hashlib
import re
from html import escape
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from docutils import nodes
from minilab_later import measured, pictured, postponed
from minilab_room import roomy

LINK = re.compile(r'\s*<link [^>]*href="((?:[^"?]*/)?_static/[^"?]*\.css)[^"]*"[^>]*>')
SCRIPT = re.compile(r'<script(?P<rest>[^>]*\ssrc="(?P<src>[^"?]*)[^"]*"[^>]*)></script>')
SEARCH = ("searchtools.js", "language_data.js", "searchindex.js")
OPTIONS = "documentation_options.js"
IMPORT = re.compile(r"""@import\s+(?:url\()?["']?([^"')]+)["']?\)?\s*;""")
URL = re.compile(r"""url\(\s*["']?(?!data:|#|https?:)([^"')]+)["']?\s*\)""")
VIEWPORT = re.compile(r'\s*<meta name="viewport"[^>]*>')
FOLDER = "_static/styles"  # of the one style sheet
# Of the theme, in each page: it leaves the choice to a script that runs last.
LATE = ' data-theme="auto"', 'localStorage.getItem("theme") || "auto"'
EARLY = "", '(localStorage.getItem("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"))'
LONGEST = 160  # characters of a description


def quicken(out: Path) -> None:
    """Change all built pages as above."""
    used: set[str] = set()
    for page in sorted(out.rglob("*.html")):
        page.write_text(quickened(page, out, used), encoding="utf-8")
    for sheet in used:
        (out / sheet).unlink()


def quickened(page: Path, out: Path, used: set[str]) -> str:
    """A built page, changed as above. Its one style sheet is written below `out`; `used` gathers what it is made of."""
    head, end, body = page.read_text(encoding="utf-8").partition("</head>")
    here = page.parent.relative_to(out).as_posix()
    if first := VIEWPORT.search(head):  # Sphinx and two themes each write one
        head = head[: first.end()] + VIEWPORT.sub("", head[first.end() :])
    if links := list(LINK.finditer(head)):
        one = joined([normpath(join(here, link[1])) for link in links], out, used)
        place = links[0].start()
        head = f'{head[:place]}\n<link rel="stylesheet" href="{relpath(one, here)}">{LINK.sub("", head[place:])}'

    def later(script: re.Match) -> str:
        name = script["src"].rpartition("/")[2]
        if name == OPTIONS:
            return f"<script>{(out / normpath(join(here, script['src']))).read_text(encoding='utf-8').strip()}</script>"
        if name in SEARCH and page.name != "search.html":
            return ""
        waits = re.search(r"\s(defer|async)\b", script["rest"])
        return script[0] if waits else f"<script defer{script['rest']}></script>"

    for late, early in zip(LATE, EARLY, strict=True):
        head = head.replace(late, early)
    return SCRIPT.sub(later, head) + end + postponed(pictured(measured(roomy(body)), here, out), here, out)


def joined(sheets: list[str], out: Path, used: set[str]) -> str:
    """Style sheets as one, in their order, with what they import; its place below `out`."""
    text = "\n".join(inlined(sheet, out, used) for sheet in sheets)
    name = f"{FOLDER}/{hashlib.sha256(text.encode()).hexdigest()[:12]}.css"
    if not (out / name).is_file():
        (out / name).write_text(text, encoding="utf-8")
    return name


def inlined(sheet: str, out: Path, used: set[str]) -> str:
    """A style sheet with what it imports, and with addresses as seen from where the one sheet lies."""
    used.add(sheet)
    here = dirname(sheet)
    parts = IMPORT.split((out / sheet).read_text(encoding="utf-8"))  # what stands between imports, and imports
    parts[::2] = [URL.sub(lambda found: f'url("{relpath(normpath(join(here, found[1])), FOLDER)}")', part)
                  for part in parts[::2]]
    parts[1::2] = [inlined(normpath(join(here, address)), out, used) for address in parts[1::2]]
    return "".join(parts)


def describe(app, pagename, templatename, context, doctree):
    """A page's first sentences as its description."""
    if app.builder.name != "html" or doctree is None:
        return
    said = next((p.astext() for p in doctree.findall(nodes.paragraph) if len(p.astext()) > LONGEST // 4), None)
    if said:
        short = " ".join(said.split())
        if len(short) > LONGEST:
            short = short[:LONGEST].rpartition(" ")[0] + " …"
        context["metatags"] = context.get("metatags", "") + f'\n<meta name="description" content="{escape(short)}">'


def setup(app):
    app.connect("html-page-context", describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
