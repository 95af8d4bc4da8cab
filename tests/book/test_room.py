"""Formulas that wait: what book/minilab_room.py guesses of them, and when static/math.js brings what sets them."""

import pytest
from browser import BOOK, serve
from minilab_room import roomy, width

MEASURED = """async () => {
  await window.minilabMath();
  await MathJax.startup.document.lazyTypesetAll();
  return [...document.querySelectorAll('span.math[style]')].map(e => [parseFloat(e.style.getPropertyValue('--room')),
    e.querySelector('mjx-container').getBoundingClientRect().width / parseFloat(getComputedStyle(e).fontSize)]);
}"""
SHIFT = """() => new Promise(done => {
  let total = 0;
  new PerformanceObserver(list => { for (const entry of list.getEntries()) total += entry.value; })
    .observe({ type: 'layout-shift', buffered: true });
  setTimeout(() => done(total), 1500);
})"""


def test_a_formula_gets_room_by_its_signs_and_the_rest_of_a_page_stays():
    page = r'<p><span class="math notranslate">\(a &lt; b_1\)</span> and <span class="math">\(\no{such}\)</span>.</p>'
    assert width("x") == pytest.approx(0.63) and width("a < b_1") == pytest.approx(2 * 0.63 - 0.63 + 1.32 + 2 * 0.54)
    assert roomy(page) == page.replace('translate">', 'translate" style="--room:3.0em">')
    assert roomy("<p>none</p>") == "<p>none</p>"


@pytest.mark.slow
def test_formulas_are_set_once_the_reader_moves_and_not_before(browser):
    with serve(BOOK) as site:
        page = browser.new_page(viewport={"width": 412, "height": 823})
        asked = []
        page.on("request", lambda request: asked.append(request.url) if "/mathjax/" in request.url else None)
        page.goto(site + "chapters/05-infinite-compute.html")
        page.wait_for_timeout(1000)
        assert asked == [] and page.locator("mjx-container").count() == 0
        page.mouse.wheel(0, 300)
        page.wait_for_function("window.MathJax?.startup?.document")
        formula = page.locator("span.math[style]").nth(5)
        formula.scroll_into_view_if_needed()
        page.wait_for_function("formula => formula.querySelector('mjx-math')", arg=formula.element_handle())
        assert formula.evaluate("formula => getComputedStyle(formula).visibility") == "visible"
        page.close()


@pytest.mark.slow
def test_who_gets_no_mathjax_reads_tex_and_so_does_paper(browser):
    with serve(BOOK) as site:
        page = browser.new_page()
        page.route("**/mathjax/**", lambda route: route.abort())
        page.goto(site + "chapters/05-infinite-compute.html")
        formula, shown = page.locator("span.math").nth(5), "formula => getComputedStyle(formula).visibility"
        assert formula.evaluate(shown) == "hidden"
        page.emulate_media(media="print")
        assert formula.evaluate(shown) == "visible"
        page.emulate_media(media="screen")
        page.evaluate("minilabMath()")
        assert formula.evaluate(shown) == "visible" and r"\(" in formula.inner_text()
        page.close()


@pytest.mark.slow
def test_the_guess_is_near_and_little_moves(browser):
    with serve(BOOK) as site:
        page = browser.new_page(viewport={"width": 412, "height": 823})
        page.goto(site + "chapters/glossary.html")
        page.wait_for_function("document.querySelector('mjx-math')")
        assert page.evaluate(SHIFT) < 0.1  # what is called good
        page.goto(site + "chapters/notation.html")
        pairs = page.evaluate(MEASURED)
        page.close()
    assert len(pairs) > 30
    assert sum((guess - true) ** 2 for guess, true in pairs) / len(pairs) < 1
