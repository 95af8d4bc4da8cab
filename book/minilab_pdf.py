"""The book as one PDF, printed by Chromium from the built pages: `make pdf`.

The pages are joined into one in the sidebar's order, so that links between them become links within the PDF, page
numbers run through, and headings become its outline. Scripts of figures and MathJax run before it is printed; an
interactive figure is printed in its first state, with its table.
"""

import sys
from collections.abc import Container
from html import escape
from pathlib import Path
from posixpath import join, normpath
from urllib.parse import urldefrag

import yaml
from browser import TYPESET, open_browser, serve
from bs4 import BeautifulSoup

from minilab import __version__

UNPRINTED = "chapters/api"  # the lists of functions: half as many pages again, to be searched and not leafed through
SHEET = Path(__file__).with_suffix(".css")
NEEDED = """There is no Chromium to print with. One of:
  Debian           sudo apt-get install chromium
  Ubuntu           .venv/bin/python -m playwright install --with-deps chromium
  macOS, others    .venv/bin/python -m playwright install chromium
  any system       CHROMIUM=/path/to/chrome make pdf"""
PAPER = {"width": 660, "height": 900}  # pixels between the margins of a sheet: figures draw themselves for this width
READY = "() => document.fonts.ready.then(() => true)"
COVER = """<section class="cover"><p class="title">{title}</p><p>{author}</p><p>Version {version}</p>
<p><a href="{url}">{url}</a></p><p>© {copyright}</p></section>
<nav class="contents" aria-label="Contents"><p class="title">Contents</p><ol>{entries}</ol></nav>"""
# Each page of the book is a named page of the print: it starts on a new sheet and its title runs at the top.
NAMED = '#{id} {{ page: {name} }} @page {name} {{ @top-center {{ content: "{title}" }} }}'


def reading_order(book: Path, first: str) -> dict[str, str]:
    """The book's pages and their names, as the sidebar lists and numbers them; the first page is `first`."""
    menu = parsed(book / first).select("nav.bd-links a.reference.internal")
    named = {normpath(join(Path(first).parent.as_posix(), a["href"])) if a["href"] != "#" else first:
             a.get_text().strip() for a in menu}
    return {page: name for page, name in named.items() if not page.startswith(UNPRINTED)}


def parsed(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def anchor(page: str, inside: str = "") -> str:
    """An id that is the only one among all pages: that of a page, or of something in it."""
    name = page.removesuffix(".html").replace("/", "-")
    return f"{name}--{inside}" if inside else name


def article(soup: BeautifulSoup, page: str, pages: Container[str]):
    """A page's text, with ids and links as they are to be where all pages are one."""
    text = soup.select_one("article.bd-article")
    for mark in text.select("a.headerlink"):
        mark.decompose()
    for choice in text.find_all("details"):
        choice["open"] = ""  # on paper all is read
    for tag in text.find_all(id=True):
        if not tag.find_parent("svg"):
            tag["id"] = anchor(page, tag["id"])
    for tag in text.find_all(attrs={"aria-labelledby": True}):
        tag["aria-labelledby"] = anchor(page, tag["aria-labelledby"])
    for link in text.find_all("a", href=True):
        target, inside = urldefrag(link["href"])
        there = normpath(join(Path(page).parent.as_posix(), target)) if target else page
        if there in pages:
            link["href"] = "#" + anchor(there, inside)
        elif there.startswith(UNPRINTED):
            link.unwrap()
    for picture in text.select("img[loading]"):
        del picture["loading"]
    for part in text.select("script[data-src]"):  # on paper nothing waits
        part.insert_after(soup.new_tag("script", src=part["data-src"]))
    text["id"] = anchor(page)
    return text


def joined(book: Path, settings: dict) -> str:
    """The whole book as one page, for the place of its first page."""
    first = settings["first"]
    pages = reading_order(book, first)
    head = parsed(book / first).head
    links = [str(tag) for tag in head.find_all("link", rel="stylesheet")]
    texts, rules, entries, mathematics = [], [], [], {}
    for i, (page, name) in enumerate(pages.items()):
        soup = parsed(book / page)
        for script in soup.head.find_all("script"):
            if "mathjax" in (script.get("src") or "") or "window.MathJax" in script.text:
                del script["type"]  # on paper nothing waits
                mathematics[str(script)] = None
        text = article(soup, page, pages)
        title = text.h1.get_text().strip()
        quoted = title.replace("\\", "\\\\").replace('"', '\\"')
        rules.append(NAMED.format(id=anchor(page), name=f"part{i}", title=quoted))
        entries.append(f'<li><a href="#{anchor(page)}">{escape(name)}</a></li>')
        texts.append(str(text))
    cover = COVER.format(title=escape(settings["title"]), author=escape(settings["author"]), version=__version__,
                         url=settings["url"], copyright=escape(settings["copyright"]), entries="".join(entries))
    style = SHEET.read_text(encoding="utf-8") + "\n".join(rules)
    return "\n".join([
        '<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">',
        f'<title>{escape(settings["title"])}</title>', *links, f"<style>{style}</style>", *mathematics,
        "</head><body>", cover, *texts, "</body></html>"])


def settings_of(config: Path) -> dict:
    """What the cover says, from _config.yml, and which page is the first, from _toc.yml."""
    given = yaml.safe_load(config.read_text(encoding="utf-8"))
    contents = yaml.safe_load((config.parent / "_toc.yml").read_text(encoding="utf-8"))
    return {"title": given["title"], "author": given["author"], "copyright": given["copyright"],
            "url": given["repository"]["url"], "first": contents["root"] + ".html"}


def print_book(browser, book: Path, pdf: Path, settings: dict) -> None:
    """Print the pages in `book` into one PDF. Raises RuntimeError if a script fails or something is not there."""
    whole, faults = joined(book, settings), []
    with serve(book) as site:
        page = browser.new_page(viewport=PAPER, color_scheme="light", reduced_motion="reduce")
        page.on("pageerror", lambda error: faults.append(str(error)[:200]))
        page.on("requestfailed", lambda request: faults.append(request.url[:200]))
        address = site + normpath(join(Path(settings["first"]).parent.as_posix(), "whole-book.html"))
        page.route(address, lambda route: route.fulfill(body=whole, content_type="text/html; charset=utf-8"))
        page.set_default_timeout(300_000)
        page.goto(address)
        page.evaluate(TYPESET)
        page.evaluate(READY)
        page.emulate_media(media="print")
        pdf.parent.mkdir(parents=True, exist_ok=True)
        page.pdf(path=pdf, prefer_css_page_size=True, print_background=True, outline=True, tagged=True)
        page.close()
    if faults:
        raise RuntimeError("the book does not print whole:\n" + "\n".join(faults))


def main(book: str, pdf: str) -> None:
    root = Path(__file__).resolve().parents[1]
    try:
        with open_browser() as browser:
            print_book(browser, Path(book), Path(pdf), settings_of(root / "_config.yml"))
    except LookupError:
        raise SystemExit(NEEDED) from None
    print(f"The book is at {Path(pdf).resolve()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
