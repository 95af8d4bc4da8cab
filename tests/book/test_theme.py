"""What book/minilab_theme.py does to a page: links from one address, and style sheets cut to what is used."""

from types import SimpleNamespace

import pytest
import yaml
from checkout import ROOT
from minilab_theme import cut_css, launch_links, unwrap_plain_code
from pygments.styles import get_style_by_name
from pygments.token import Name, Punctuation, Text

WORDS = {"note", "title", "dataframe"}


def test_launch_links_follow_the_address_in_the_configuration():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    theme = {
        "repository_url": "https://github.com/someone/copy",
        "repository_branch": "next",
        "launch_buttons": config["launch_buttons"],
    }
    links = dict(launch_links(SimpleNamespace(html_theme_options=theme), "chapters/01-a.ipynb"))
    assert links == {
        "Open in Colab": "https://colab.research.google.com/github/someone/copy/blob/next/chapters/01-a.ipynb",
        "Open in Binder": "https://mybinder.org/v2/gh/someone/copy/next?urlpath=lab/tree/chapters/01-a.ipynb",
        "Source on GitHub": "https://github.com/someone/copy/blob/next/chapters/01-a.ipynb",
    }


def test_code_loses_only_marks_that_draw_nothing():
    code = '<span class="k">def</span><span class="w"> </span><span class="nf">f</span><span class="p">(</span>'
    plain = '<span class="k">def</span> <span class="nf">f</span>('
    assert unwrap_plain_code(code + '<span class="n">x</span>') == plain + "x"
    assert unwrap_plain_code('<span class="pre">x</span><p class="n">') == '<span class="pre">x</span><p class="n">'
    for style in ("a11y-high-contrast-light", "a11y-high-contrast-dark"):
        looks = map(get_style_by_name(style).style_for_token, (Text, Name, Punctuation, Text.Whitespace))
        assert len({str(look) for look in looks}) == 1, style


@pytest.mark.parametrize(
    "rule",
    [
        "p{color:red}",
        ".note .title{color:red}",
        ".absent,.note{color:red}",  # one selector in use is enough
        ".note:not(.absent){color:red}",  # applies because the class is absent
        ".note:not(:has(table.absent)){color:red}",
        '[data-theme="dark"] .note{color:red}',
        ".bs-tooltip-top{color:red}",  # a name that a script puts together
        "@font-face{font-family:x;src:url(x.woff)}",
        "@keyframes turn{from{opacity:0}}",
        "@media print{.note{color:red}}",
    ],
)
def test_style_rules_in_use_are_kept(rule):
    assert cut_css(rule, WORDS).replace("\n", "") == rule


@pytest.mark.parametrize(
    "rule", [".absent{}", ".note .absent{}", ".note.absent,.gone{}", "@media print{.absent{}}"]
)
def test_style_rules_for_absent_classes_are_cut(rule):
    assert cut_css(rule, WORDS) == ""
