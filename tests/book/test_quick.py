"""What book/minilab_quick.py does to a page's head, on a small site and on the built book."""

import re

import pytest
from browser import BOOK
from minilab_quick import quicken

HEAD = """<html data-theme="auto"><head>
<meta name="viewport" content="width=device-width"><meta name="viewport" content="width=device-width">
<script>x = localStorage.getItem("theme") || "auto"</script>
<link rel="stylesheet" href="../_static/styles/a.css?v=1"><link href="../_static/b.css" rel="stylesheet">
<script src="../_static/documentation_options.js?v=2"></script><script src="../_static/c.js"></script>
<script async src="../_static/d.js"></script><script src="../searchindex.js"></script>
<link rel="icon" href="../_static/e.svg"></head><body><script src="kept.js"></script></body></html>"""


@pytest.fixture
def site(tmp_path):
    styles = tmp_path / "_static" / "styles"
    styles.mkdir(parents=True)
    (tmp_path / "chapters").mkdir()
    (styles / "a.css").write_text('@import "../base.css";p{src:url("../fonts/f.woff")}')
    (tmp_path / "_static" / "base.css").write_text("b{src:url(i.png)}")
    (tmp_path / "_static" / "b.css").write_text("i{src:url(data:image/png;base64,AAAA)}")
    (tmp_path / "_static" / "documentation_options.js").write_text("const DOCUMENTATION_OPTIONS = {};")
    for name in ("chapters/page.html", "chapters/search.html"):
        (tmp_path / name).write_text(HEAD)
    quicken(tmp_path)
    return tmp_path


def test_a_page_has_one_style_sheet_with_all_rules_in_order(site):
    page = (site / "chapters/page.html").read_text()
    (sheet,) = re.findall(r'rel="stylesheet" href="\.\./([^"]+)"', page)
    rules = (site / sheet).read_text().replace("\n", "")
    assert rules == 'b{src:url("../i.png")}p{src:url("../fonts/f.woff")}i{src:url(data:image/png;base64,AAAA)}'
    assert [path.name for path in site.rglob("*.css")] == [sheet.rpartition("/")[2]], "what it is made of is gone"
    assert 'rel="icon" href="../_static/e.svg"' in page


def test_scripts_wait_and_only_the_search_page_loads_the_index(site):
    page = (site / "chapters/page.html").read_text()
    assert "<script>const DOCUMENTATION_OPTIONS = {};</script>" in page
    assert '<script defer src="../_static/c.js">' in page and '<script async src="../_static/d.js">' in page
    assert '<script src="kept.js">' in page, "the body is as it was"
    assert "searchindex" not in page and "searchindex" in (site / "chapters/search.html").read_text()


def test_the_theme_is_known_at_once_and_the_viewport_told_once(site):
    page = (site / "chapters/page.html").read_text()
    assert "data-theme" not in page and "prefers-color-scheme" in page and page.count("viewport") == 1


@pytest.mark.slow
def test_no_page_of_the_book_waits_for_a_script():
    for page in BOOK.rglob("*.html"):
        head = page.read_text(encoding="utf-8").partition("</head>")[0]
        waited = [s for s in re.findall(r"<script[^>]* src=[^>]*>", head) if "defer" not in s and "async" not in s]
        assert waited == [] and head.count('rel="stylesheet"') <= 1, page.name
        if page.parent.name in ("chapters", "labs"):
            assert "data-theme" not in head and "prefers-color-scheme" in head, page.name
            assert 40 < len(re.search(r'<meta name="description" content="([^"]*)"', head)[1]), page.name
