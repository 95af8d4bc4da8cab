"""Figures: right in light, dark and print, one beside another, and for every reader."""

import io
import itertools
import re
import sys
import xml.dom.minidom

import matplotlib.pyplot as plt
import numpy as np
import pytest

from minilab.core import style
from minilab.core.style import INK, PALETTE, figure, figure_html, show, use_style

BACKGROUNDS = ("#ffffff", "#121212", "#1a1a1a")

# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}


def linear_rgb(color: str) -> np.ndarray:
    c = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """The ratio of WCAG 2."""
    dark, light = sorted(float(linear_rgb(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (light + 0.05) / (dark + 0.05)


def cielab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.072175],
        [0.0193339, 0.119192, 0.9503041],
    ]
    xyz = np.clip(to_xyz @ np.clip(rgb, 0, 1), 0, None) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def draw():
    fig, ax = figure()
    x = np.linspace(0, 1, 20)
    ax.plot(x, x**2, marker="o", label="draft")
    ax.set(xlabel="time (s)", ylabel="tokens", title="title")
    ax.text(0.5, 0.5, "note")
    ax.legend()
    return fig


def ids(markup: str) -> list[str]:
    return re.findall(r'\bid="([^"]+)"', markup)


def references(markup: str) -> set[str]:
    return set(re.findall(r'(?:href="|url\()#([^")]+)', markup))


def test_contrast_helper_knows_the_standard_examples():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_palette_has_three_to_one_contrast(background):
    assert {
        name: contrast(c, background) for name, c in PALETTE._asdict().items() if contrast(c, background) < 3
    } == {}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_palette_stays_apart_for_color_blind_readers(deficiency):
    seen = [cielab(np.array(DEFICIENCIES[deficiency]) @ linear_rgb(color)) for color in PALETTE]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 10


def test_ink_becomes_the_color_of_the_page():
    markup = figure_html(draw(), alt="a line")
    assert INK == "#000000" and INK not in markup and "#ffffff" not in markup
    root = re.search(r"<svg[^>]*>", markup).group()
    assert 'fill="currentColor"' in root  # matplotlib leaves a black fill unsaid
    assert "stroke: currentColor" in markup  # axes and ticks
    assert PALETTE.blue in markup


def test_figure_made_without_the_style_is_adapted_too():
    fig, ax = plt.subplots()
    ax.plot([1, 2], label="x")
    ax.legend()
    markup = figure_html(fig, alt="a line")
    plt.close(fig)
    assert INK not in markup and "#ffffff" not in markup  # no white box on a dark page


def test_two_figures_on_one_page_share_no_id_and_lose_no_reference():
    other = draw()
    other.axes[0].set_title("title two")
    page = figure_html(draw(), alt="first") + figure_html(other, alt="second")
    assert len(ids(page)) == len(set(ids(page))) > 20
    assert references(page) == set(ids(page))


def test_matplotlib_alone_would_clash():
    """Why the test above can fail: two plain SVG files define the same glyphs, with references to them."""
    plain = []
    for title in ("title", "title two"):
        buffer, fig = io.StringIO(), draw()
        fig.axes[0].set_title(title)
        fig.savefig(buffer, format="svg")
        plain.append(buffer.getvalue())
    assert set(ids(plain[0])) & set(ids(plain[1])) & references(plain[1])


def test_nothing_in_a_figure_styles_the_rest_of_the_page():
    markup = figure_html(draw(), alt="a line")
    assert "<style" not in markup and "<script" not in markup and "<!DOCTYPE" not in markup


def test_same_figure_gives_the_same_text():
    assert figure_html(draw(), alt="a line") == figure_html(draw(), alt="a line")


def test_markup_is_well_formed_named_and_fits_a_phone():
    alt = 'A "quoted" <curve> & more'
    document = xml.dom.minidom.parseString(figure_html(draw(), alt=alt, caption="5 < 6 & so on"))
    svg = document.getElementsByTagName("svg")[0]
    assert svg.getAttribute("role") == "img" and svg.getAttribute("aria-label") == alt
    assert "max-width:100%" in svg.getAttribute("style") and svg.getAttribute("viewBox")
    assert document.getElementsByTagName("figcaption")[0].firstChild.data == "5 < 6 & so on"
    assert document.documentElement.getAttribute("class") == "minilab-figure"


def test_rounding_moves_no_point_by_more_than_a_hundredth():
    path = ' d="M 1.23456 -0.00123 \nL 100 0.995 \nQ 7.1 8.123456 9 10 "'
    numbers = [float(n) for n in re.findall(r"-?\d+\.?\d*", path)]
    rounded = [float(n) for n in re.findall(r"-?\d+\.?\d*", style._round_numbers(path))]
    assert rounded == pytest.approx(numbers, abs=0.00501) and len(style._round_numbers(path)) < len(path)
    assert "\n" not in style._round_numbers(path)


def test_a_plain_figure_is_small():
    assert len(figure_html(draw(), alt="a line")) < 40_000


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_figure_without_alternative_text_is_refused(alt):
    with pytest.raises(ValueError, match="alt is empty"):
        show(draw(), alt=alt)


def test_show_closes_the_figure_and_prints_its_text_outside_a_notebook(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    fig, _ = plt.subplots()
    show(fig, alt="two axes")
    assert not plt.fignum_exists(fig.number)
    assert capsys.readouterr().out == "Figure: two axes\n"


def test_style_ends_with_its_block():
    before = plt.rcParams["axes.prop_cycle"]
    with use_style():
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == list(PALETTE)
    assert plt.rcParams["axes.prop_cycle"] == before
