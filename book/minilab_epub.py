"""The book as an EPUB, built by `make epub`: the pages as they are where no script runs, as XML.

- What only a script sets in motion goes. An interactive figure has its table, its caption and its stills in its HTML;
  they stay.
- Mathematics is MathML, so that no page needs a script or the network.
- Drawings are files of their own, so that a page is small.
- The style sheets that figures carry are put into one, and no file comes along that no page asks for.
- It begins with a cover, which `minilab_cover` draws and readers show on their shelves.
"""

import re
from html import escape, unescape
from html.parser import HTMLParser
from os.path import relpath
from pathlib import Path

import minilab_cover
from docutils import nodes
from minilab_drawings import SVG, XLINK, taken_out
from sphinx import addnodes
from sphinx.builders.epub3 import Epub3Builder

from minilab import __version__

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
LIVELY = {"script", "button", "label", "input"}  # elements that a reader without scripts cannot use
MOVING = {"ml-live", "ml-curves", "ml-movie", "ml-spoken", "headerlink"}  # and classes of such elements
ATTRIBUTE = re.compile(r"""([\w:.-]+)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+))?""")
QUOTED = re.compile(r"""^(["'])(.*)\1$""", re.DOTALL)
SHEET = "minilab-epub.css"  # the one style sheet that a page keeps
IMAGES = "_images"
COVER, COVER_PAGE = "cover.png", "cover.xhtml"
COVER_TEXT = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="{language}"
 xml:lang="{language}">
<head><title>{title}</title><link rel="stylesheet" href="_static/{sheet}" type="text/css" /></head>
<body epub:type="cover"><img src="{cover}" alt="{words}" role="doc-cover"
 style="display:block;margin:0 auto;max-height:98vh" /></body></html>
"""


class StillPage(HTMLParser):
    """A page written again as XML, without what only a script sets in motion; `styles` are its style elements.

    Raises ValueError if an element is closed that is not open, and (from `close`) if one stays open.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []
        self.styles: list[str] = []
        self._open: list[tuple[str, bool]] = []  # each element's name, and whether it stays
        self._ids: set[str] = set()

    def _stays(self) -> bool:
        return not self._open or self._open[-1][1]

    def handle_starttag(self, tag, attrs):
        # The parser lowers names, and those of SVG have capitals.
        name, rest = re.match(r"<([\w:-]+)(.*?)/?>$", self.get_starttag_text(), re.DOTALL).groups()
        given = {key: unescape(QUOTED.sub(r"\2", value)) for key, value in ATTRIBUTE.findall(rest)}
        dropped = name in LIVELY or "hidden" in given or MOVING & set(given.get("class", "").split())
        stays = self._stays() and not dropped and (name != "link" or SHEET in given.get("href", ""))
        if name == "svg":
            given |= {"xmlns": SVG, "xmlns:xlink": XLINK}
        if given.get("id") in self._ids:  # sphinx-exercise gives all its exercises one id
            del given["id"]
        if stays and name != "style":
            self._ids.add(given.get("id", ""))
            text = "".join(f' {key}="{escape(value)}"' for key, value in given.items())
            self.written.append(f"<{name}{text}{' /' if name in VOID else ''}>")
        if name not in VOID:
            self._open.append((name, bool(stays)))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self._open or self._open[-1][0].lower() != tag:
            raise ValueError(f"</{tag}> closes {self._open[-1][0] if self._open else 'nothing'} ({self.getpos()})")
        name, stays = self._open.pop()
        if stays and name != "style":
            self.written.append(f"</{name}>")

    def handle_data(self, data):
        if not self._stays():
            return
        if self._open and self._open[-1][0] == "style":
            self.styles.append(data)
        else:
            self.written.append(escape(data, quote=False))

    def handle_decl(self, decl):
        self.written.append(f"<!{decl}>")

    def handle_pi(self, data):
        self.written.append(f"<?{data}>")

    def close(self):
        super().close()
        if self._open:
            raise ValueError(f"<{self._open[-1][0]}> stays open")


def still(page: str) -> tuple[str, list[str]]:
    """A page (or a part of one) as XML for readers without scripts, and the style sheets it carried."""
    parser = StillPage()
    parser.feed(page)
    parser.close()
    return "".join(parser.written), parser.styles


def reading_order(env) -> list[str]:
    """The names of the pages as the sidebar lists them, the first page first."""

    def below(name: str) -> list[str]:
        return [name, *(page for child in env.toctree_includes.get(name, []) for page in below(child))]

    return below(env.config.root_doc)


def listed_titles(env) -> dict[str, str]:
    """What the sidebar calls pages whose titles in _toc.yml are not their own: chapters have their numbers there."""
    lists = env.tocs[env.config.root_doc].findall(addnodes.toctree)
    return {page: title for pages in lists for title, page in pages["entries"] if title}


class BookEpub(Epub3Builder):
    """Sphinx's EPUB with pages that need no script."""

    def init(self) -> None:
        config = self.config
        config.version = config.version or __version__
        config.epub_title = config.html_title
        config.epub_identifier = config.html_theme_options["repository_url"]
        config.html_extra_path = []  # MathJax
        config.epub_cover = (COVER, "")  # the page for it is our own
        super().init()

    def get_toc(self) -> None:
        """The pages in the sidebar's order with their sections: Sphinx leaves out what stands in hidden lists."""
        self.refnodes = [{"level": 1, "refuri": COVER_PAGE, "text": "Cover"}]
        listed = listed_titles(self.env)
        for name in reading_order(self.env):
            page = name + self.out_suffix
            self._list(1, page, listed.get(name) or self.env.titles[name].astext())
            for part in self.env.tocs[name][0][1:]:  # the list below the page's own entry
                for entry in part.findall(nodes.list_item):
                    if entry.parent is part:
                        self._list(2, page + entry[0][0]["anchorname"], entry[0][0].astext())

    def _list(self, level: int, target: str, title: str) -> None:
        self.refnodes.append({"level": level, "refuri": escape(target), "text": escape(title)})

    def toc_metadata(self, level, navpoints):
        # Sphinx writes the name of the identifier where the older table of contents has the identifier itself.
        return super().toc_metadata(level, navpoints) | {"uid": escape(self.config.epub_identifier)}

    def build_content(self) -> None:
        out = Path(self.outdir)
        self._cover(out)
        pages = sorted(out.rglob("*.xhtml"))
        sheets: dict[str, None] = {}  # in order, each once
        for page in pages:
            text, drawings = taken_out(page.read_text(encoding="utf-8"), relpath(out / IMAGES, page.parent) + "/")
            for name, drawing in drawings.items():
                (out / IMAGES).mkdir(exist_ok=True)
                (out / IMAGES / name).write_text(drawing, encoding="utf-8")
            try:
                text, styles = still(text)
            except ValueError as error:
                raise ValueError(f"{page.relative_to(out)}: {error}") from None
            page.write_text(text, encoding="utf-8")
            sheets |= dict.fromkeys(styles)
        with (out / "_static" / SHEET).open("a", encoding="utf-8") as sheet:
            sheet.write("\n".join(sheets))
        self._drop_unused(out, pages)
        super().build_content()
        self._declare(out / "content.opf", out)

    def _cover(self, out: Path) -> None:
        """The cover and its page, as the first of the pages."""
        title, subtitle = self.config.epub_title, self.config.epub_description
        (out / COVER).write_bytes(minilab_cover.cover(title, subtitle, self.config.author))
        told = {"title": title, "words": minilab_cover.words(title, subtitle), "cover": COVER, "sheet": SHEET,
                "language": self.config.epub_language or "en"}  # fmt: skip
        page = COVER_TEXT.format(**{name: escape(text) for name, text in told.items()})
        (out / COVER_PAGE).write_text(page, encoding="utf-8")

    def _drop_unused(self, out: Path, pages: list[Path]) -> None:
        asked = set()
        for page in pages:
            for link in re.findall(r'(?:href|src)="([^"#?:]+)', page.read_text(encoding="utf-8")):
                asked.add((page.parent / unescape(link)).resolve())
        for file in [*out.glob("_static/**/*"), *out.glob("_images/**/*")]:
            if file.is_file() and file.resolve() not in asked:
                file.unlink()

    def _declare(self, package: Path, out: Path) -> None:
        """Name in the package the cover, and which pages hold MathML or SVG, as EPUB 3 asks and Sphinx does not."""

        def declared(item: re.Match) -> str:
            text = (out / item[1]).read_text(encoding="utf-8")
            held = [name for name, tag in (("mathml", "<math"), ("svg", "<svg")) if tag in text]
            return f'{item[0][:-2].rstrip()} properties="{" ".join(held)}" />' if held else item[0]

        text = package.read_text(encoding="utf-8")
        text = re.sub(r'<item id="epub-\d+" href="([^"]+\.xhtml)"[^>]*/>', declared, text)
        image = rf'(<item id="[^"]+" href="{re.escape(COVER)}" media-type="image/png") */>'
        text = re.sub(image, r'\1 properties="cover-image" />', text)
        package.write_text(text, encoding="utf-8")


def without_launch_buttons(app):
    """The theme's buttons need what only its own pages have."""
    if app.builder.name != "epub":
        return
    for listeners in app.events.listeners.values():
        listeners[:] = [e for e in listeners if not e.handler.__module__.startswith("sphinx_book_theme")]


def setup(app):
    app.add_builder(BookEpub, override=True)
    app.add_config_value("epub_math_renderer", "mathml", "epub")
    app.setup_extension("minilab_mathml")
    app.connect("builder-inited", without_launch_buttons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
