"""What book/minilab_later.py does to interactive figures, on a small page and on the built book."""

import base64
import json
import re
import textwrap

import pytest
from browser import BOOK, serve
from minilab_later import ENDING, measured, pictured, postponed

SCRIPT = """for (const root of document.querySelectorAll("figure.minilab-count:not([data-live])")) {
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  root.querySelector("b").textContent = data.n;
  root.dataset.live = "";
}"""


def figure(n: int) -> str:
    return (f'<figure class="minilab-live minilab-count"><style>figure[data-live] table {{ display: none }}</style>'
            f"<b></b><table><tr><td>still {n}</td></tr></table>\n"
            f'<script type="application/json">{json.dumps({"n": n})}</script>\n'
            f"<script>(() => {{\n{SCRIPT}\n}})();</script></figure>")


@pytest.fixture
def site(tmp_path):
    """Two figures of one kind, far apart."""
    (tmp_path / "chapters").mkdir()
    body = postponed(f'<body>{figure(1)}<p style="height:9000px">far</p>{figure(2)}</body>', "chapters", tmp_path)
    later = (BOOK.parents[1] / "book" / "static" / "later.js").read_text(encoding="utf-8")
    (tmp_path / "chapters" / "page.html").write_text(
        f'<html><head><link rel="icon" href="data:,"></head>{body}<script>{later}</script></html>', encoding="utf-8")
    return tmp_path


def test_data_and_script_leave_the_page_and_the_rest_stays(site):
    page = (site / "chapters" / "page.html").read_text(encoding="utf-8")
    files = sorted(site.rglob("_static/figures/*.js"))
    assert len(files) == 2 and sorted(re.findall(r'data-src="([^"]*)"', page)) == [
        f"../_static/figures/{file.name}" for file in files]
    assert '"n"' not in page and "JSON.parse" not in page and page.count('data-live="later"') == 2
    assert 'figure[data-live=""] table' in page and "still 1" in page and "still 2" in page
    assert postponed("<body><figure>plain</figure></body>", "", site) == "<body><figure>plain</figure></body>"


def test_a_picture_leaves_the_page_byte_by_byte_unless_it_is_small(tmp_path):
    content = bytes(range(256)) * 8
    data = "\n".join(textwrap.wrap(base64.b64encode(content).decode(), 76))
    film = f'<img class="film" alt="runs" width="2" height="1" src="data:image/webp;base64,{data}">'
    pixels = f'<svg><image width="2" href="data:image/png;base64,\n{data}" height="1"/></svg>'
    small = '<img alt="dot" src="data:image/png;base64,AAAA">'
    page = pictured(film + pixels + small, "chapters", tmp_path)
    files = {file.suffix: file for file in tmp_path.rglob("_static/figures/*")}
    assert [file.read_bytes() for file in files.values()] == [content] * 2
    there = {kind: f"../_static/figures/{file.name}" for kind, file in files.items()}
    assert page == (f'<img loading="lazy" class="film" alt="runs" width="2" height="1" src="{there[".webp"]}">'
                    f'<svg><image width="2" href="{there[".png"]}" height="1"/></svg>{small}')


def test_a_drawing_says_how_high_it_is_with_its_caption():
    drawing = '<figure class="minilab-figure" style="margin:0"><svg viewBox="0 0 4 2" width="400" height="200"></svg>'
    assert measured(drawing) == drawing.replace(
        "margin:0", "margin:0;contain-intrinsic-height:auto calc(min(200px,0.500*(100vw - 2rem)) + 41px)")


@pytest.mark.slow
@pytest.mark.parametrize("width, lines", [(390, 4), (1280, 2)])
def test_a_drawing_far_away_takes_the_room_that_it_will_take_but_for_lines_of_its_caption(width, lines, browser):
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((BOOK / "chapters" / "05-infinite-compute.html").as_uri())
    heights = "[...document.querySelectorAll('figure.minilab-figure')].map(e => e.getBoundingClientRect().height)"
    before = page.evaluate(heights)
    page.add_style_tag(content=".bd-article .minilab-figure { content-visibility: visible !important }")
    after = page.evaluate(heights)
    page.close()
    off = [abs(a - b) for a, b in zip(before, after, strict=True)]
    assert len(off) > 5 and max(off) < 27 * lines


@pytest.mark.slow
@pytest.mark.parametrize("way", ["served", "as files"])
def test_a_figure_waits_for_its_reader_and_leaves_its_like_alone(way, site, browser):
    faults = []
    with serve(site) as address:
        page = browser.new_page(viewport={"width": 800, "height": 600})
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto((address if way == "served" else f"file://{site}/") + "chapters/page.html")
        page.wait_for_function("document.querySelector('b').textContent === '1'")
        state = "[...document.querySelectorAll('figure')].map(f => [f.dataset.live, f.querySelector('b').textContent])"
        assert page.evaluate(state) == [["", "1"], ["later", ""]]
        assert page.locator("table").nth(1).is_visible() and not page.locator("table").nth(0).is_visible()
        page.evaluate("minilabFigures()")
        assert page.evaluate(state) == [["", "1"], ["", "2"]] and not page.locator("table").nth(1).is_visible()
        page.close()
    assert faults == []


@pytest.mark.slow
def test_every_figure_of_the_book_waits_and_becomes_live_as_its_reader_comes(browser):
    texts = {page: page.read_text(encoding="utf-8") for page in BOOK.rglob("*.html")}
    waiting = {page: found for page, text in texts.items() if (found := re.findall(r'data-src="([^"]*)"', text))}
    assert len(waiting) >= 5
    for page, found in waiting.items():
        assert not ENDING.search(texts[page])
        assert all((page.parent / name).is_file() for name in found)
    with serve(BOOK) as address:
        for path, found in waiting.items():
            page = browser.new_page()
            page.goto(address + path.relative_to(BOOK).as_posix())
            figures = page.locator("figure:has(script[data-src])")
            assert figures.count() == len(found)
            for i in range(len(found)):
                figures.nth(i).scroll_into_view_if_needed()
                page.wait_for_function("figure => figure.dataset.live === ''", arg=figures.nth(i).element_handle())
            page.close()
