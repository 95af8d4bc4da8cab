"""The book as EPUB and as PDF: whole, readable without a script or the network, and the same mathematics."""

import io
import os
import re
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree as ET
import zipfile
from collections import Counter
from html import unescape
from pathlib import Path
from posixpath import dirname, join, normpath
from urllib.parse import unquote, urldefrag, urlsplit

import minilab_cover
import minilab_pdf
import numpy as np
import pytest
from browser import BOOK, ROOT, serve, themed
from bs4 import BeautifulSoup
from minilab_epub import still
from minilab_mathml import mathml
from PIL import Image
from pypdf import PdfReader

from minilab.core.style import PALETTE

SETTINGS = minilab_pdf.settings_of(ROOT / "_config.yml")
XHTML, SVG, MATHML = "{http://www.w3.org/1999/xhtml}", "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1998/Math/MathML}"
OPF = "{http://www.idpf.org/2007/opf}"
MEDIA = {".xhtml": "application/xhtml+xml", ".svg": "image/svg+xml", ".png": "image/png", ".css": "text/css",
         ".ncx": "application/x-dtbncx+xml"}  # fmt: skip
EPUB_PAGE_BUDGET = 450_000  # bytes: a device opens a page as a whole


def test_a_still_page_is_xml_without_what_moves():
    page = (
        '<figure class="minilab-live"><style>b > i { top: 0 }</style><div class="ml-live" hidden><div>Press</div>'
        '<input type="range"></div><svg viewBox="0 0 9 9"><clipPath id="c"/><path d="M0 0"></path></svg>'
        '<table class="ml-still"><tr><td>a &amp; b&nbsp;&lt; c<br></td></tr></table>'
        "<img alt=\"it's\" src='a.png'><p id=x>one</p><p id=x>two</p><script>if (a < b) { c(); }</script></figure>"
    )
    text, styles = still(page)
    root = ET.fromstring(text)
    assert styles == ["b > i { top: 0 }"]
    assert [e.tag for e in root.iter()] == [
        "figure", SVG + "svg", SVG + "clipPath", SVG + "path", "table", "tr", "td", "br", "img", "p", "p"
    ]
    assert root[0].get("viewBox") == "0 0 9 9" and root.find(".//img").get("alt") == "it's"
    assert root.find(".//td").text == "a & b\u00a0< c"
    assert [p.get("id") for p in root.findall("p")] == ["x", None]


@pytest.mark.parametrize("page", ["<p><b>bold</p></b>", "<p>open", "closed</p>"])
def test_a_page_whose_elements_do_not_nest_is_refused(page):
    with pytest.raises(ValueError, match="closes|stays open"):
        still(page)


def test_mathematics_that_cannot_be_converted_is_named():
    with pytest.raises(ValueError, match=r"no MathML for '\\\\unheard x'"):
        mathml(r"\unheard x")


@pytest.mark.parametrize("tex, expected", [
    (r"\frac12", "<mfrac><mn>1</mn><mn>2</mn></mfrac>"),
    (r"\tfrac1K", "<mfrac><mn>1</mn><mi>K</mi></mfrac>"),
    ("k'", "<msup><mi>k</mi><mi>′</mi></msup>"),
    (r"\ln 2", "<mi>ln</mi><mo>\u2061</mo><mn>2</mn>"),
])
def test_tex_is_read_as_tex_reads_it(tex, expected):
    assert re.sub(r"\s*\n\s*", "", mathml(tex)) == f'<math xmlns="{MATHML[1:-1]}">{expected}</math>'


def test_an_accent_leaves_the_index_at_its_side():
    assert [e.tag for e in ET.fromstring(mathml(r"\hat z_{t+1}"))] == [MATHML + "msub"]


# What either renderer may write for one and the same sign.
SAME = str.maketrans(dict.fromkeys("\u02c9\u00af\u203e\u2015\u2212\u0305\u0304", "-")
                     | {"\u02c6": "^", "\u02dc": "~", "\u2236": ":", "\u2217": "*"})


def signs(markup: str) -> tuple[str, Counter]:
    """What stands in a formula in the order of reading, and how many fractions, roots and scripts it has."""
    root = ET.fromstring(markup)
    text = "".join(e.text or "" for e in root.iter() if not len(e))
    text = unicodedata.normalize("NFKC", re.sub("[\u2061-\u2063\u200b]", "", text).translate(SAME)).translate(SAME)
    names = Counter(e.tag.rpartition("}")[2] for e in root.iter())
    return "".join(text.split()), Counter({name: names[name] for name in ("mfrac", "msqrt", "msup", "msubsup")})


def formulas() -> dict[tuple[str, bool], None]:
    """The TeX of all formulas of the built book, and whether each is displayed."""
    found = {}
    for page in sorted(BOOK.glob("*/*.html")):
        text = re.sub(r'<span class="eqno">.*?</span>', "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for tex in re.findall(r'<(?:span|div) class="math[^>]*>\s*(.*?)\s*</(?:span|div)>', text, re.DOTALL):
            inner = re.sub(r"\\(begin|end)\{split\}", "", unescape(tex)[2:-2]).strip()
            found[inner, tex.startswith(r"\[")] = None
    return found


@pytest.mark.slow
def test_mathml_says_what_mathjax_says(browser):
    given = list(formulas())
    assert len(given) > 300
    with serve(BOOK) as site:
        page = browser.new_page()
        page.goto(site + "chapters/notation.html")
        page.evaluate("() => window.minilabMath().then(() => true)")
        theirs = page.evaluate("all => all.map(([tex, display]) => MathJax.tex2mml(tex, {display}))", given)
        page.close()
    different = [
        tex for (tex, block), other in zip(given, theirs, strict=True)
        if signs(mathml(tex, block=block)) != signs(other)
    ]
    assert different == []


@pytest.fixture(scope="module")
def epub(tmp_path_factory):
    """The EPUB as `make epub` builds it."""
    folder = tmp_path_factory.mktemp("epub")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT, "--path-output", folder, "--builder",
               "custom", "--custom-builder", "epub", "-W", "--keep-going", "-n", "--all"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    with zipfile.ZipFile(folder / "_build" / "epub" / "minilab.epub") as opened:
        yield opened


@pytest.fixture(scope="module")
def trees(epub) -> dict[str, ET.Element]:
    """Each page of the EPUB, parsed as XML."""
    return {name: ET.fromstring(epub.read(name)) for name in epub.namelist() if name.endswith(".xhtml")}


@pytest.mark.slow
def test_the_epub_begins_with_its_type(epub):
    first = epub.infolist()[0]
    assert (first.filename, first.compress_type) == ("mimetype", zipfile.ZIP_STORED)
    assert epub.read("mimetype") == b"application/epub+zip"


@pytest.mark.slow
def test_the_epubs_package_lists_what_is_in_it(epub, trees):
    package = ET.fromstring(epub.read("content.opf"))
    items = {item.get("href"): item for item in package.iter(OPF + "item")}
    assert set(items) == set(epub.namelist()) - {"mimetype", "content.opf", "META-INF/container.xml"}
    assert [name for name, item in items.items() if item.get("media-type") != MEDIA[Path(name).suffix]] == []
    for name, tree in trees.items():
        held = {word for word, tag in (("mathml", MATHML + "math"), ("svg", SVG + "svg")) if next(tree.iter(tag), None)
                is not None}
        assert set((items[name].get("properties") or "").split()) - {"nav"} == held, name
    by_id = {item.get("id"): href for href, item in items.items()}
    spine = [by_id[item.get("idref")] for item in package.iter(OPF + "itemref")]
    menu = BeautifulSoup((BOOK / SETTINGS["first"]).read_text(encoding="utf-8"), "html.parser").select("nav.bd-links a")
    order = [normpath(join("chapters", a["href"])).replace(".html", ".xhtml") for a in menu if a["href"] != "#"]
    assert [page for page in spine if page in order] == order
    assert set(spine) | {"nav.xhtml"} == set(trees)


@pytest.mark.slow
def test_a_page_of_the_epub_is_small_and_its_drawings_are_files_in_black_ink(epub, trees):
    sizes = {name: epub.getinfo(name).file_size for name in trees}
    assert {name: size for name, size in sizes.items() if size > EPUB_PAGE_BUDGET} == {}
    drawings = [name for name in epub.namelist() if name.endswith(".svg")]
    pictures = [e for tree in trees.values() for e in tree.iter(XHTML + "img") if e.get("src").endswith(".svg")]
    assert {Path(e.get("src")).name for e in pictures} == {Path(name).name for name in drawings}
    built = "".join(page.read_text(encoding="utf-8") for page in BOOK.glob("*/*.html"))
    assert len(pictures) == len(re.findall(r'<figure class="minilab-figure"[^>]*><svg', built)) > 50
    assert all(e.get("alt") for e in pictures)
    for name in drawings:
        root = ET.fromstring(epub.read(name))
        assert root.tag == SVG + "svg" and root.get("color") == "#000", name


def test_the_cover_is_small_and_the_same_each_time():
    given = ("minilab", "Five papers you can run", "The authors")
    made = minilab_cover.cover(*given)
    assert made == minilab_cover.cover(*given) and len(made) < 100_000
    picture = Image.open(io.BytesIO(made))
    assert picture.format == "PNG" and picture.size == (1200, 1920)
    shown = {color for _, color in picture.convert("RGB").getcolors()}
    for color in PALETTE[:5]:
        assert tuple(bytes.fromhex(color[1:])) in shown, "a sketch has its chapter's color"
    edge = np.asarray(picture.convert("L"))[:, [0, -1]]
    assert edge.min() == 255, "nothing is cut off at the sides"
    assert made != minilab_cover.cover("another", *given[1:])


@pytest.mark.slow
def test_the_epub_opens_with_a_cover_that_readers_find_and_hear(epub, trees):
    package = ET.fromstring(epub.read("content.opf"))
    covers = [i for i in package.iter(OPF + "item") if "cover-image" in (i.get("properties") or "").split()]
    assert [(i.get("href"), i.get("media-type")) for i in covers] == [("cover.png", "image/png")]
    older = [m.get("content") for m in package.iter(OPF + "meta") if m.get("name") == "cover"]
    assert older == [covers[0].get("id")], "readers of EPUB 2 look here"
    said = SETTINGS["title"], "Five papers you can run", SETTINGS["author"]
    assert epub.read("cover.png") == minilab_cover.cover(*said)
    first = next(package.iter(OPF + "itemref"))
    page = next(i.get("href") for i in package.iter(OPF + "item") if i.get("id") == first.get("idref"))
    (picture,) = trees[page].iter(XHTML + "img")
    assert page == "cover.xhtml" and first.get("linear") in (None, "yes")
    assert picture.get("src") == "cover.png" and "minilab. Five papers you can run" in picture.get("alt")
    assert trees[page].find(f"{XHTML}head/{XHTML}title").text == SETTINGS["title"]


@pytest.mark.slow
def test_every_link_and_picture_of_the_epub_resolves(epub, trees):
    anchors = {name: {e.get("id") for e in tree.iter()} for name, tree in trees.items()}
    broken = []
    for name, tree in trees.items():
        for e in tree.iter():
            for link in filter(None, (e.get("href"), e.get("src"))):
                if urlsplit(link).scheme and (e.tag == XHTML + "a" or link.startswith("data:")):
                    continue
                target, anchor = urldefrag(link)
                target = normpath(join(dirname(name), unquote(target))) if target else name
                if target not in epub.namelist() or (anchor and unquote(anchor) not in anchors[target]):
                    broken.append(f"{name}: {link}")
    assert broken == []
    listed = {urldefrag(a.get("href"))[0] for a in trees["nav.xhtml"].iter(XHTML + "a")}
    assert listed == set(trees) - {"nav.xhtml"}


@pytest.mark.slow
def test_the_epub_needs_no_script_and_keeps_each_figures_words(trees):
    figures = 0
    for name, tree in trees.items():
        ids = [e.get("id") for e in tree.iter() if e.get("id")]
        assert len(set(ids)) == len(ids), name
        tags = {e.tag for e in tree.iter()}
        assert not tags & {XHTML + tag for tag in ("script", "style", "button", "input", "canvas")}, name
        for figure in tree.iter(XHTML + "figure"):
            if "minilab-live" in figure.get("class", ""):
                figures += 1
                assert "".join(figure.find(XHTML + "figcaption").itertext()).strip()
                assert any(e.tag[len(XHTML):] in ("table", "img", "ul") for e in figure.iter()), name
        prose = [e.text or "" for e in tree.iter() if e.tag in (XHTML + "p", XHTML + "li", XHTML + "div")]
        assert not [text for text in prose if re.search(r"\\\(|\\\[|\$\$", text)], name
    built = "".join(page.read_text(encoding="utf-8") for page in BOOK.glob("*/*.html"))
    assert figures == built.count('<figure class="minilab-live')


@pytest.fixture(scope="module")
def pdf(browser, tmp_path_factory) -> PdfReader:
    """The PDF as `make pdf` prints it."""
    file = tmp_path_factory.mktemp("pdf") / "book.pdf"
    minilab_pdf.print_book(browser, BOOK, file, SETTINGS)
    return PdfReader(file)


def squeezed(text: str) -> str:
    """Text without spaces and ligatures, neither of which a PDF keeps as they were."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def headings(pdf, entries=None) -> list[tuple[str, int]]:
    """The outline's titles, without spaces, and their pages, counted from zero."""
    found = []
    for entry in pdf.outline if entries is None else entries:
        if isinstance(entry, list):
            found += headings(pdf, entry)
        else:
            found.append((squeezed(entry.title), pdf.get_destination_page_number(entry)))
    return found


@pytest.mark.slow
def test_every_chapter_is_in_the_pdf_and_begins_a_page(pdf):
    assert 200 <= len(pdf.pages) <= 600
    assert pdf.metadata.title == SETTINGS["title"]
    outline, begun = headings(pdf), {squeezed(SETTINGS["title"])}
    for page in minilab_pdf.reading_order(BOOK, SETTINGS["first"]):
        text = minilab_pdf.article(minilab_pdf.parsed(BOOK / page), page, [])
        titles = [squeezed(tag.get_text()) for tag in text.find_all(re.compile("^h[1-6]$"))]
        begun |= set(titles)
        numbers = [number for title, number in outline if title == titles[0]]
        assert numbers, titles[0]
        # Once as the running title, and once where the chapter begins.
        assert squeezed(pdf.pages[numbers[0]].extract_text()).count(titles[0]) >= 2
    contents = squeezed("".join(sheet.extract_text() for sheet in pdf.pages[:3]))
    for name in minilab_pdf.reading_order(BOOK, SETTINGS["first"]).values():
        assert squeezed(name) in contents  # "1. Speculative decoding", as in the sidebar
    # A heading without space above it would be there twice, and one of two lines without the space between them.
    assert {title for title, _ in outline} <= begun


@pytest.mark.slow
def test_no_page_of_the_pdf_is_blank(pdf):
    sizes = {i: len(page.get_contents().get_data()) for i, page in enumerate(pdf.pages)}
    emptiest = sorted(sizes, key=sizes.get)[:12]
    texts = {i: pdf.pages[i].extract_text().split("\n", 2) for i in emptiest}
    # All pages after the first have a running title and a number.
    assert [i + 1 for i, lines in texts.items() if len(lines) < 3 or len(lines[2]) < 20] == []


@pytest.mark.slow
def test_links_within_the_pdf_lead_to_its_pages(pdf):
    names, inside, outside = set(pdf.named_destinations), 0, 0
    for page in pdf.pages:
        for note in page.get("/Annots") or []:
            note = note.get_object()
            if note.get("/Subtype") != "/Link":
                continue
            if "/A" in note:
                address = str(note["/A"]["/URI"])
                assert address.startswith("https://") and "127.0.0.1" not in address, address
                outside += 1
            else:
                assert str(note["/Dest"]).lstrip("/") in {name.lstrip("/") for name in names}
                inside += 1
    assert inside > 500 and outside > 50


@pytest.mark.slow
def test_the_pdfs_fonts_are_embedded(pdf):
    faces = {}
    for page in pdf.pages[:60]:
        for font in (page["/Resources"].get("/Font") or {}).values():
            font = font.get_object()
            for part in font.get("/DescendantFonts", [font]):
                part = part.get_object()
                within = part.get("/FontDescriptor", {})
                drawn = font["/Subtype"] == "/Type3"  # its glyphs are drawings in the file itself
                faces[str(font.get("/BaseFont", "drawn"))] = drawn or any(key.startswith("/FontFile") for key in within)
    assert len(faces) > 3
    assert all(faces.values()), faces


def test_without_chromium_make_pdf_says_what_to_install():
    paths = os.pathsep.join([str(ROOT / "tests" / "book"), str(ROOT / "src")])
    run = subprocess.run(
        [sys.executable, ROOT / "book" / "minilab_pdf.py", BOOK, "never.pdf"], capture_output=True, text=True,
        env={**os.environ, "CHROMIUM": "/nonexistent", "PYTHONPATH": paths},
    )
    assert run.returncode == 1
    assert "apt-get install chromium" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.slow
def test_a_page_alone_prints_light_and_without_what_is_pressed(browser):
    with serve(BOOK) as site:
        page = themed(browser, "dark").new_page()
        page.goto(site + "chapters/01-speculative-decoding.html")
        theme = "document.documentElement.dataset.theme"
        assert page.evaluate(theme) == "dark"
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print")
        assert page.evaluate(theme) == "light"
        for pressed in ("nav.bd-links", ".bd-header-article", ".copybtn", ".ml-sliders", ".minilab-live button"):
            found = page.locator(pressed).all()
            assert found and not any(e.is_visible() for e in found), pressed
        assert page.locator(".minilab-explorer svg[data-plot=speed]").is_visible()
        wide = "() => [...document.querySelectorAll('pre')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
        page.set_viewport_size(minilab_pdf.PAPER)
        assert page.evaluate(wide) == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate(theme) == "dark"
        page.close()
