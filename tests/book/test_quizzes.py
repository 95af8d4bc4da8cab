"""Each chapter asks, and each choice answers: in words, without a script, by keyboard, in print, with right numbers."""

import math
import re

import pytest
from browser import BOOK, ROOT, THEMES, axe_violations, serve, themed
from bs4 import BeautifulSoup
from checkout import relative
from docutils import nodes
from minilab_quiz import parts
from test_reading import CHAPTERS, NUMBERED, sections, text_of

from minilab.pacbayes.bounds import nats_of, occam_kl
from minilab.speculative.theory import expected_tokens

EACH = pytest.mark.parametrize("path", CHAPTERS, ids=relative)


def page_of(path) -> BeautifulSoup:
    return BeautifulSoup((BOOK / "chapters" / f"{path.stem}.html").read_text(encoding="utf-8"), "html.parser")


@EACH
def test_a_chapter_asks_before_its_exercises(path):
    anchors = list(sections(path))
    assert anchors.index("check-yourself") < anchors.index("exercises")
    if path in NUMBERED:
        assert anchors.index("summary") < anchors.index("check-yourself")
    assert 3 <= len(re.findall(r"^```\{quiz\}$", text_of(path), re.MULTILINE)) <= 5


def test_a_new_chapter_asks_too():
    template = (ROOT / "src/minilab/chapter_template/chapter.ipynb.txt").read_text(encoding="utf-8")
    asked, _, exercises = template.partition("\n## Check yourself\n")[2].partition("\n## Exercises\n")
    assert exercises and asked.count("```{quiz}\n") >= 3


@EACH
def test_every_choice_says_whether_and_why(path):
    asked = page_of(path).select(".quiz")
    assert len(asked) == text_of(path).count("```{quiz}\n")
    for question in asked:
        title = question.find(id=question["aria-labelledby"])
        assert title.get_text().strip()
        choices = question.find_all("details", recursive=False)
        verdicts = []
        for choice in choices:
            assert choice.summary.get_text().strip() and not choice.has_attr("open")
            said = " ".join(p.get_text() for p in choice.find_all("p"))
            verdict, _, reason = said.partition(". ")
            verdicts.append(verdict)
            assert (verdict == "Yes") == ("right" in choice.get("class", [])), said
            assert len(reason.split()) >= 5, said
        assert len(choices) >= 3 and sorted(set(verdicts)) == ["No", "Yes"] and verdicts.count("Yes") == 1


def test_the_right_choice_is_not_always_in_one_place():
    places = [
        [("right" in choice.get("class", [])) for choice in question.find_all("details")].index(True)
        for path in CHAPTERS for question in page_of(path).select(".quiz")
    ]
    assert max(places.count(place) for place in set(places)) <= len(places) / 2


def asked(*explanations: str | None) -> list[nodes.Element]:
    """A question with choices that are explained so, or not at all."""
    texts = [["a choice"] if why is None else ["a choice", why] for why in explanations]
    items = [nodes.list_item("", *(nodes.paragraph("", text) for text in pair)) for pair in texts]
    return [nodes.paragraph("", "Which?"), nodes.bullet_list("", *items)]


BAD = {
    "nothing": [],
    "no question": asked("Yes. x", "No. x", "No. x")[1:],
    "no list": [nodes.paragraph("", "Which?"), nodes.paragraph("", "This.")],
    "two choices": asked("Yes. x", "No. x"),
    "no explanation": asked("Yes. x", "No. x", None),
    "no verdict": asked("Yes. x", "No. x", "x"),
    "two are right": asked("Yes. x", "No. x", "Yes. x"),
    "none is right": asked("No. x", "No. x", "No. x"),
}


def test_a_question_that_can_be_answered_is_taken():
    question, choices = parts(nodes.Element("", *asked("No. x", "Yes. x", "No. x")))
    assert [node.astext() for node in question] == ["Which?"]
    assert [choice["classes"] for choice in choices] == [[], ["right"], []]


@pytest.mark.parametrize("children", BAD.values(), ids=BAD)
def test_a_question_that_cannot_be_answered_is_refused(children):
    with pytest.raises(ValueError, match="choice|question|followed"):
        parts(nodes.Element("", *children))


@pytest.mark.slow
def test_questions_work_by_keyboard_without_a_script_and_in_print(browser):
    with serve(BOOK) as site:
        page = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 800}).new_page()
        page.goto(f"{site}chapters/{NUMBERED[0].stem}.html")
        first = page.locator(".quiz").first
        reason = first.locator("details > p").first
        assert not reason.is_visible()
        first.locator("summary").first.focus()
        page.keyboard.press("Enter")
        assert reason.is_visible() and reason.inner_text().startswith(("Yes.", "No."))
        page.emulate_media(media="print")
        heights = [p.bounding_box()["height"] for p in page.locator(".quiz details > p").all()]
        assert len(heights) >= 9 and min(heights) > 10


@pytest.mark.slow
@pytest.mark.parametrize("theme", THEMES)
def test_opened_choices_have_no_violations(theme, browser):
    with serve(BOOK) as site:
        page = themed(browser, theme, viewport={"width": 390, "height": 800}).new_page()
        page.goto(f"{site}chapters/{NUMBERED[3].stem}.html")
        page.evaluate("""() => {
          const asked = document.querySelector("#check-yourself");
          // test_pages.py checks the rest, and with it what is closed
          asked.parentElement.replaceChildren(document.querySelector("article h1"), asked);
          for (const choice of asked.querySelectorAll("details")) choice.open = true;
        }""")
        assert axe_violations(page) == []
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


CERTIFICATE = {n: occam_kl(0.0, n, nats_of(8000), 0.05) for n in (60_000, 6_000)}
NUMBERS = [
    ("01", r"kept with probability ([\d.]+)\.\n\n  Yes", 0.2 / 0.5),
    ("01", r"At \$K = 8\$ the mean is just below (\d)", math.ceil(expected_tokens(0.5, 8))),
    ("01", r"toward \$1/\(1 - \\alpha\) = (\d)\$", expected_tokens(0.5, 200)),
    ("02", r"4/5 - 1/2 = ([\d.]+)", 4 / 5 - 1 / 2),
    ("02", r"16/17 \\approx ([\d.]+)", round(64 / 65 - 16 / 17, 2)),
    ("04", r"Occam's bound is about (\d+) %", round(100 * CERTIFICATE[60_000])),
    ("04", r"About (\d+) %\.\n\n  Yes", round(100 * CERTIFICATE[6_000])),
    ("04", r"About (\d+) %, ten times", round(1000 * CERTIFICATE[60_000])),
    ("04", r"\\log_2 16 = (\d)", math.log2(16)),
    ("05", r"- ([\d.]+)\.\n\n  Yes\. \$2 \\cdot 2\.8", 2 * 2.8 - 3.0),
    ("co", r"\\ln (8)\$ nats \{eq\}", math.exp(math.log(2) * 3)),
]


@pytest.mark.parametrize("chapter, pattern, value", NUMBERS, ids=[pattern[:24] for _, pattern, _ in NUMBERS])
def test_numbers_in_answers_are_computed_ones(chapter, pattern, value):
    path = next(path for path in CHAPTERS if path.name.startswith(chapter))
    found = re.search(pattern, sections(path)["check-yourself"])
    assert found, pattern
    assert float(found[1]) == pytest.approx(value, rel=1e-6)
