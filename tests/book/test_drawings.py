"""What book/minilab_drawings.py makes smaller draws the same: element by element, and pixel by pixel."""

import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from browser import BOOK
from fontTools.misc.transform import Identity, Transform
from fontTools.pens.recordingPen import RecordingPen
from fontTools.svgLib.path import parse_path
from minilab_drawings import INHERITED, lightened, rounded, shorter_path, taken_out
from PIL import Image

from minilab.core.style import figure, figure_html

SPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
ROOT = (f'<svg {SPACES} viewBox="0 0 9 9" width="12" height="12" style="max-width:100%" fill="currentColor" '
        'stroke-linejoin="round" stroke-linecap="butt" role="img" aria-label="{}">{}</svg>')  # fmt: skip


@pytest.fixture(scope="module")
def page() -> str:
    """Figures with all that ours have: lines, points, bars with hatches, pictures, error bars, formulas, legends."""
    made = []
    for k in range(3):
        fig, (left, right) = figure(1, 2)
        x = np.linspace(0, 3, 50)
        left.plot(x, np.sin(x + k), label="a line", alpha=0.7)
        left.scatter(x[::5], np.cos(x[::5]), c=["C1", "C2"] * 5, alpha=0.5, label=rf"$x_{k}^2$")
        left.plot(x[::9], x[::9] / 3, "s--", clip_on=False)
        left.fill_between(x, x / 5, x / 4, alpha=0.2)
        left.set(xlabel="seconds", ylabel=r"$\sqrt{x}$ of a number", title=f"Figure {k}, of three")
        left.legend()
        right.imshow(np.arange(6 + k).reshape(1, -1), extent=(0, 2, 0, 1))
        right.bar([0, 1], [1, 2], hatch="//", fill=False)
        right.errorbar([0.5], [1.5], yerr=0.2, capsize=3)
        made.append(figure_html(fig, alt=f'The "{k}" > all & more', caption=f"Caption {k}"))
    return f"<div><p>{SPACES}</p>{'<p>between</p>'.join(made)}</div>"


def local(tag: str) -> str:
    return tag.rpartition("}")[2]


def recorded(path: str) -> list:
    """A path as an independent parser reads it, as places. It adds a line back to the start where there is a way to
    go, be it a rounding error."""
    pen, kept, start = RecordingPen(), [], None
    parse_path(path, pen)
    for name, dots in pen.value:
        start = dots[0] if name == "moveTo" else start
        while name == "closePath" and kept[-1][0] == "lineTo" and np.allclose(kept[-1][1][0], start, rtol=0, atol=1e-9):
            kept.pop()
        kept.append((name, dots))
    return kept


def moves(text: str) -> Transform:
    """An SVG transformation as a matrix."""
    known = {"translate": lambda t, x, y=0: t.translate(x, y), "rotate": lambda t, a: t.rotate(np.radians(a)),
             "scale": lambda t, x, y=None: t.scale(x, x if y is None else y)}  # fmt: skip
    here = Identity
    for name, numbers in re.findall(r"(\w+)\(([^)]*)\)", text):
        here = known[name](here, *map(float, re.split(r"[ ,]+", numbers.strip())))
    return here


class Drawn:
    """All that the drawings of a page put on paper, in order, with every reference followed."""

    def __init__(self, page: str) -> None:
        whole = ET.fromstring(page.replace("<svg viewBox", f"<svg {SPACES} viewBox"))
        self.ids: dict[str, ET.Element] = {}
        for e in whole.iter():
            if "id" in e.attrib:
                assert e.get("id") not in self.ids, "an id stands once on a page"
                self.ids[e.get("id")] = e
        sheets = "".join(e.text for e in whole.iter() if local(e.tag) == "style")
        self.rules = dict(re.findall(r"\.(\w+)\{([^}]*)\}", sheets))
        self.marks: list[tuple] = []
        for svg in whole.iter():
            if local(svg.tag) == "svg":
                self.walk(svg, Identity, {}, ())

    def walk(self, e: ET.Element, place: Transform, style: dict, around: tuple) -> None:
        """Add what `e` draws. `around`: clips and opacities of the groups that it stands in."""
        kind = local(e.tag)
        if kind in ("defs", "style"):
            return
        said = self.rules.get(e.get("class", ""), "") + ";" + e.get("style", "")
        own = {k.strip(): v.strip() for k, _, v in (part.partition(":") for part in said.split(";") if part.strip())}
        assert e.get("class") is None or e.get("class") in self.rules
        style = {k: v for k, v in style.items() if k in INHERITED}
        style |= {k: self.followed(v) for k, v in own.items()} | {k: e.get(k) for k in INHERITED if e.get(k)}
        if "opacity" in own:
            around += (("opacity", own["opacity"]),)
        if clip := e.get("clip-path"):
            around += ((place, self.followed(clip)),) if ("clip", self.followed(clip)) not in around else ()
        place = place.transform(moves(e.get("transform", "")))
        if kind == "use":
            place = place.translate(float(e.get("x", 0)), float(e.get("y", 0)))
            target = next(v for k, v in e.attrib.items() if local(k) == "href")
            self.walk(self.ids[target.removeprefix("#")], place, style, around)
        elif kind == "path":
            dots = [(name, place.transformPoints(p)) for name, p in recorded(e.get("d", ""))]
            self.marks.append(("path", dots, style, around))
        elif kind == "image":
            target = next(v for k, v in e.attrib.items() if local(k) == "href")
            box = [float(e.get(k)) for k in ("x", "y", "width", "height")]
            self.marks.append((target, [("box", place.transformPoints([box[:2], box[2:]]))], style, around))
        for child in e:
            self.walk(child, place, style, around)

    def followed(self, value: str) -> str:
        """A value, with what it points to in place of the id: a rectangle, or a pattern with a path."""
        found = re.search(r"url\(#(.+)\)", value)
        if not found:
            return value
        inside = [(local(e.tag), {k: v for k, v in e.attrib.items() if k not in ("id", "style", "class", "d")},
                   recorded(e.get("d", ""))) for e in self.ids[found[1]].iter()]  # fmt: skip
        return repr(inside)


def test_every_mark_is_where_it_was_with_the_style_it_had(page):
    before, after = Drawn(page).marks, Drawn(lightened(page)).marks
    assert len(before) == len(after) > 300
    for old, new in zip(before, after, strict=True):
        assert (old[0], old[2], old[3]) == (new[0], new[2], new[3])
        assert [name for name, _ in old[1]] == [name for name, _ in new[1]]
        theirs, ours = (np.array([dot for _, dots in mark[1] for dot in dots]) for mark in (old, new))
        assert np.abs(theirs - ours).max(initial=0) < 2e-4, "points of 1/72 inch"


def test_half_of_a_page_of_figures_goes_and_its_words_stay(page):
    light = lightened(page)
    assert len(light) < len(page) / 2
    assert re.findall(r'aria-label="[^"]*"|<figcaption>.*?</figcaption>|<p>.*?</p>', light) == re.findall(
        r'aria-label="[^"]*"|<figcaption>.*?</figcaption>|<p>.*?</p>', page
    )
    assert lightened(light) == light == lightened(page), "once is enough, and it is the same each time"


def test_a_letter_is_drawn_once_on_a_page(page):
    shapes = re.findall(r'<path id="\w+"( d="[^"]*"[^>]*)/>', lightened(page))
    assert len(shapes) == len(set(shapes)) > 20


def test_the_browser_draws_what_it_drew(page, browser):
    shots = []
    for markup in (page, lightened(page)):
        sheet = browser.new_page(viewport={"width": 600, "height": 400})
        sheet.set_content(f"<!DOCTYPE html><html lang=en><body style='color:#222'>{markup}</body></html>")
        shots.append(np.asarray(Image.open(io.BytesIO(sheet.screenshot(full_page=True))).convert("L")).astype(int))
        sheet.close()
    assert shots[0].shape == shots[1].shape and (shots[0] < 128).sum() > 3000
    change = np.abs(shots[0] - shots[1])
    assert change.max() < 64 and (change > 8).mean() < 1e-4


@pytest.mark.parametrize("path", [
    "M 0 0 L 0 3.5 ", "M 140.56 301.08 L 400.2 301.08 L 400.2 3 L 140.56 3 z ", "M 1 1 L 1 1 L 0.5 -0.5",
    "M 2034 4250 Q 1547 4250 1301 3770 L 9 9 z M 2034 4750 Q 2819 4750 3233 4129 C 1 2 3 4 5.25 -6.75 L 1 1 z L 2 2",
    "M 0.01 0.02 L 0.11 0.12 L 1000.01 0.02 M 5 5 M 7 -7 L 7 -8.5 L 8 -8.5", "",
])  # fmt: skip
def test_a_shorter_path_is_the_same_path(path):
    short = shorter_path(path)
    assert len(short) <= len(path)
    for (name, old), (other, new) in zip(recorded(path), recorded(short), strict=True):
        assert name == other
        assert np.allclose(old, new, rtol=0, atol=1e-9)


def test_numbers_run_together_only_where_they_can_be_told_apart():
    assert shorter_path("M 0.5 0.25 L 1 0.75 L 0.5 0 L 10 20") == "m.5.25.5.5L.5 0 10 20"
    assert shorter_path("M 10 10 L 12 13 L 11 15") == "m10 10 2 3-1 2"


@pytest.mark.parametrize("path", ["M 0 0 A 1 1 0 0 1 2 2", "m 1 1 l 2 2", "M 1e-3 5 L 2 2", "M 1 2 3 4", "L 1"])
def test_a_path_of_another_form_is_left(path):
    assert shorter_path(path) == path


@pytest.mark.parametrize("number, decimals, expected", [
    ("140.558209", 2, "140.56"), ("0.50", 2, ".5"), ("-0.5", 1, "-.5"), ("-0.001", 2, "0"), ("100", 2, "100"),
])  # fmt: skip
def test_a_number_has_no_digit_too_many(number, decimals, expected):
    assert rounded(number, decimals) == expected


def test_what_the_shape_says_itself_is_not_said_again_but_opacity_is():
    shape = '<defs><path id="a" d="M 0 0 L 1 1" style="stroke: red; opacity: 0.5"/></defs>'
    use = '<use xlink:href="#a" x="1" y="2" style="stroke: red; fill: blue; opacity: 0.5"/>'
    light = lightened(ROOT.format("x", shape + use))
    assert '<use href="#' in light and 'x="1" y="2" style="fill:blue;opacity:0.5"/>' in light


def test_groups_that_clip_alike_join_and_others_do_not():
    clips = "".join(f'<defs><clipPath id="{c}"><rect x="0" y="0" width="{i}" height="1"/></clipPath></defs>'
                    for i, c in enumerate("ab"))  # fmt: skip
    dots = [f'<g clip-path="url(#{c})"><path d="M {i} 0"/></g>' for i, c in enumerate("aaba")]
    light = lightened(ROOT.format("x", "".join([*dots, clips])))
    assert [part.count("<path") for part in light.split("<g ")[1:]] == [2, 1, 1]
    assert light.count("<g ") == light.count("</g>") and "<g></g>" not in light


def test_other_drawings_and_scripts_are_left():
    other = '<svg role="img" aria-label="x" viewBox="0 0 9 9"><g><path id="a" d="M 0 0 L 1 1 "/></g></svg>'
    other += '<script>"<g></g>"</script>'
    assert lightened(other) == other


def test_one_name_for_two_things_is_refused(monkeypatch):
    class Same:
        def __init__(self, text):
            pass

        def hexdigest(self):
            return "0"

    monkeypatch.setattr("hashlib.sha256", Same)
    shapes = "".join(f'<defs><path id="{c}" d="M 0 0 L {c} 1"/></defs>' for c in "12")
    with pytest.raises(ValueError, match="would have the name 'q00000'"):
        lightened(ROOT.format("x", shapes))


@pytest.mark.slow
def test_every_drawing_of_the_book_is_light_and_finds_what_it_points_to():
    seen = 0
    for file in BOOK.glob("*/*.html"):
        page = file.read_text(encoding="utf-8")
        assert lightened(page) == page, file.name
        drawings = re.findall(r'<svg viewBox="[^"]*" width="\d+" height="\d+" style=.*?</svg>', page, re.DOTALL)
        ids = re.findall(r' id="(q\w{5})"', "".join(drawings))
        wanted = set(re.findall(r'(?:href="|url\()#([^")]+)', "".join(drawings)))
        assert wanted <= set(ids), file.name
        assert all(page.count(f'id="{name}"') == 1 for name in wanted), file.name
        named = set(re.findall(r' class="(q\w{5})"', "".join(drawings)))
        assert named == set(re.findall(r"\.(q\w{5})\{", "".join(drawings))), file.name
        seen += len(drawings)
    assert seen > 60


def test_drawings_taken_out_of_a_page_stand_alone(page):
    left, files = taken_out(page, "../_images/")
    assert "<svg" not in left and left.count("<img") == len(files) == 3
    for k, (picture, (name, drawing)) in enumerate(zip(ET.fromstring(left).iter("img"), files.items(), strict=True)):
        assert picture.get("src") == f"../_images/{name}" and picture.get("alt") == f'The "{k}" > all & more'
        root = ET.fromstring(drawing)
        assert [root.get(key) for key in ("width", "height")] == [picture.get(key) for key in ("width", "height")]
        assert root.get("color") == "#000"
        link = "{http://www.w3.org/1999/xlink}href"
        asked = {e.get(link) for e in root.iter() if local(e.tag) == "use"}
        asked |= {f"#{name}" for name in re.findall(r"url\(#([^)]+)\)", drawing)}
        assert asked and asked <= {f"#{e.get('id')}" for e in root.iter()}, "nothing stands in another file"
