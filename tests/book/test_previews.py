"""Links to equations, theorems, terms and references show what they lead to, by mouse and by keyboard."""

import json

import pytest
from browser import BOOK, THEMES, axe_violations, serve, themed
from bs4 import BeautifulSoup
from minilab_previews import BEGIN, FILE, previews

CARD = "#ml-preview"
LINKS = ", ".join(f"a.internal[href*='{part}']" for part in ("#equation-", "#thm-", "#term-", "references.html#"))


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    return json.loads((BOOK / "_static" / FILE).read_text(encoding="utf-8").removeprefix(BEGIN).rstrip(";\n"))


def test_a_preview_has_the_text_and_neither_links_nor_ids():
    body = """
<div class="math" id="equation-e"><span class="eqno">(1)<a class="headerlink" href="#e">#</a></span>\\[x\\]</div>
<div class="citation" id="c" role="listitem"><span class="label">[1]</span><p>By <a href="x">her</a>.</p></div>
<dl class="glossary"><dt id="term-a">a</dt><dd><p id="p">first</p></dd><dt id="term-b">b</dt><dd>second</dd></dl>
<div class="other" id="o">not shown</div>"""
    found = previews(body)
    assert {name: BeautifulSoup(html, "html.parser").get_text() for name, html in found.items()} == {
        "equation-e": "(1)\\[x\\]", "c": "By her.", "term-a": "afirst", "term-b": "bsecond"
    }
    assert not [html for html in found.values() if "<a" in html or "id=" in html or "role=" in html]


def test_what_chapters_refer_to_has_a_preview(known):
    targets = set()
    for page in sorted((BOOK / "chapters").glob("*.html")):
        text = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select_one("article.bd-article")
        for link in text.select(LINKS):
            address = link["href"] if not link["href"].startswith("#") else page.name + link["href"]
            targets.add("chapters/" + address)
    assert len(targets) > 80
    assert targets <= set(known)
    assert all(BeautifulSoup(html, "html.parser").get_text().strip() for html in known.values())


@pytest.mark.slow
@pytest.mark.parametrize("theme", THEMES)
def test_a_preview_comes_and_goes(theme, browser):
    with serve(BOOK) as site:
        page = themed(browser, theme, viewport={"width": 1280, "height": 800}).new_page()
        said = []
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.goto(site + "chapters/common-thread.html")
        page.evaluate("() => window.minilabMath().then(() => true)")
        link, card = page.locator('a.internal[href$="#equation-eq-residual"]').first, page.locator(CARD)

        link.hover()
        card.wait_for(state="visible")
        assert card.locator("mjx-container").count() == 1 and card.locator("mjx-merror").count() == 0
        assert link.get_attribute("aria-describedby") == "ml-preview"
        box = card.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 1280
        card.hover()  # to read it, or to copy from it
        page.wait_for_timeout(400)
        assert card.is_visible()
        assert axe_violations(page) == []
        page.mouse.move(0, 0)
        card.wait_for(state="hidden")

        cited = page.locator('a.internal[href^="references.html#"]').first
        page.keyboard.press("Tab")  # so that what is focused next is focused by keyboard
        cited.focus()
        card.wait_for(state="visible")
        assert "20" in card.inner_text()
        page.keyboard.press("Escape")
        assert card.is_hidden() and cited.get_attribute("aria-describedby") is None
        assert said == []
        page.context.close()


@pytest.mark.slow
def test_a_preview_needs_no_server_and_fits_a_phone(browser):
    page = browser.new_context(viewport={"width": 390, "height": 800}).new_page()
    page.goto((BOOK / "chapters/04-generalization-bounds.html").as_uri())
    page.keyboard.press("Tab")
    page.locator('a.internal[href^="references.html#"]').first.focus()
    page.locator(CARD).wait_for(state="visible")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    page.locator('a.internal[href="#equation-eq-pac-chernoff"]').first.focus()  # wider than the screen at full size
    page.locator(f"{CARD} mjx-container").wait_for(state="visible")
    right = page.evaluate(f"() => document.querySelector('{CARD} mjx-math').getBoundingClientRect().right")
    assert right <= 390
    page.context.close()
