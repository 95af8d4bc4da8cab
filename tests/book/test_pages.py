"""Every page of the built book, opened in a browser with no network."""

import re
from posixpath import dirname, join, normpath

import pytest
from browser import BOOK, ROOT, THEMES, WIDTHS, axe_violations, broken_links, serve, themed, visit
from bs4 import BeautifulSoup
from checkout import tracked

pytestmark = pytest.mark.slow
PAGES = sorted(p.relative_to(BOOK).as_posix() for p in BOOK.rglob("*.html") if "_static" not in p.parts)
SCREENSHOTS = ROOT / "build" / "screenshots"
PAGE_BUDGET = 1_500_000  # bytes as served, uncompressed, without the figures


@pytest.fixture(scope="session")
def site():
    with serve(BOOK) as address:
        yield address


def test_book_is_built_and_newer_than_its_sources():
    assert PAGES, "there is no built book: run `make book` first"
    built = (BOOK / "search.html").stat().st_mtime
    sources = [p for p in tracked() if p.parent.name == "chapters" or p.suffix in {".yml", ".bib", ".css"}]
    newer = [p.name for p in sources if p.stat().st_mtime > built]
    assert newer == [], "the built book is older than these files: run `make book`"


@pytest.mark.parametrize("page", PAGES)
def test_page_is_whole_and_usable_without_network(page, browser, site):
    faults = set(broken_links(BOOK, page))
    # Each width once and each theme once: which go together, alternates from page to page.
    themes = THEMES if PAGES.index(page) % 2 else THEMES[::-1]
    for width, theme in zip(WIDTHS, themes, strict=True):
        name = page.removesuffix(".html").replace("/", "-")
        picture = SCREENSHOTS / f"{name}-{width}-{theme}.png"
        seen = visit(browser, site, page, width=width, theme=theme, screenshot=picture)
        faults |= {f"[{width} {theme}] {fault}" for fault in seen.faults}
        weight = seen.bytes_loaded - seen.bytes_of_figures
        if weight > PAGE_BUDGET:
            faults.add(f"the page loads {weight / 1e6:.2f} MB besides its figures")
    assert not faults, "\n".join(sorted(faults))


def test_a_chapter_has_its_number_in_the_sidebar_and_beside_its_neighbors():
    for page in PAGES:
        soup = BeautifulSoup((BOOK / page).read_text(encoding="utf-8"), "html.parser")
        links = soup.select("nav.bd-links a, .prev-next-area a")
        named = 0
        for link in links:
            if chapter := re.match(r"chapters/0?(\d+)-", normpath(join(dirname(page), link["href"]))):
                name = (link.select_one(".prev-next-title") or link).get_text().strip()
                assert name.startswith(f"{chapter[1]}. "), f"{page}: {name}"
                named += 1
        assert named >= 4 or not links, page  # the page itself is not linked


@pytest.mark.parametrize("theme", THEMES)
def test_what_opens_over_a_page_on_a_phone_is_usable(theme, browser, site):
    context = themed(browser, theme, viewport={"width": 390, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    page.goto(site + "chapters/how-to.html", wait_until="networkidle")
    for pressed, opens in (
        (".primary-toggle", "pst-primary-sidebar-modal"),
        (".secondary-toggle", "pst-secondary-sidebar-modal"),
        (".search-button", "pst-search-dialog"),
    ):
        page.locator(f"{pressed}:visible").first.click()
        assert page.evaluate("[...document.querySelectorAll('dialog[open]')].pop().id") == opens
        assert axe_violations(page) == [], opens
        page.keyboard.press("Escape")
    buttons = page.locator("[data-bs-toggle=tooltip]:visible")
    for i in range(buttons.count()):
        buttons.nth(i).hover()
        page.locator(".tooltip.show").wait_for()
        assert axe_violations(page) == [], "a tooltip"
        page.mouse.move(200, 800)
        page.locator(".tooltip").wait_for(state="detached")
    assert i == 4
    context.close()


GOOD = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Good</title>
<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width"></head>
<body><main><article><h1 id="top">Good</h1><p><a href="#top">Up</a></p>
<svg role="img" aria-label="a dot" width="20" height="20"><circle r="5"/></svg>
<pre tabindex="0" style="overflow-x:auto">{wide}</pre></article></main></body></html>"""
FAULTS = {
    '<a href="absent.html">gone</a>': "broken link: absent.html",
    '<a href="#absent">gone</a>': "no such anchor",
    '<img src="absent.png" alt="a cat">': "failed request: 404",
    '<img src="data:image/png;base64,AAAA" alt="a cat">': "missing image",
    '<img src="dot.svg">': "missing alternative text: img",
    '<svg width="9" height="9"><circle r="5"/></svg>': "missing alternative text: svg",
    '<script src="https://example.com/x.js"></script>': "external request: https://example.com/x.js",
    "<script>console.error('broken')</script>": "console error: broken",
    "<script>throw new Error('thrown')</script>": "console error: thrown",
    "<p>$$ x^2 $$</p>": "mathematics: raw mathematics",
    '<span class="math">\\(x\\)</span>': "mathematics: not typeset",
    '<p style="color:#aaa;background:#fff">pale</p>': "axe serious: color-contrast",
    "<button></button>": "axe critical: button-name",
    "<h4>two levels too deep</h4>": "axe moderate: heading-order",
    "<table><tr><th></th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>": "axe minor: empty-table-header",
    '<p style="width:900px">wide</p>': "overflow: the page is",
    '<div style="overflow-x:hidden"><p style="width:900px">cut off</p></div>': "overflow: <p style",
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A small site: one page without a fault, and one page for each fault."""
    folder = tmp_path_factory.mktemp("sample")
    good = GOOD.format(wide="x" * 400)
    (folder / "good.html").write_text(good, encoding="utf-8")
    (folder / "dot.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    for i, fault in enumerate(FAULTS):
        (folder / f"bad{i}.html").write_text(good.replace("</article>", fault + "</article>"))
    with serve(folder) as address:
        yield folder, address


def test_checker_accepts_a_page_without_faults(sample, browser):
    folder, address = sample
    assert broken_links(folder, "good.html") == []
    assert visit(browser, address, "good.html", width=390, theme="light").faults == []


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=list(FAULTS.values()))
def test_checker_finds_each_fault(number, sample, browser):
    folder, address = sample
    page, expected = f"bad{number}.html", list(FAULTS.values())[number]
    found = broken_links(folder, page) + visit(browser, address, page, width=390, theme="light").faults
    assert any(expected in fault for fault in found), found
