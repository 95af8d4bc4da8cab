"""The plain list of pages, `llms.txt`: every page of the table of contents, in its order, with how its text begins."""

import re
from types import SimpleNamespace

import minilab_llms
import pytest
import yaml
from browser import BOOK
from checkout import ROOT
from docutils import nodes
from docutils.core import publish_doctree

PAGE = """
Title
=====

.. class:: launch

Open in Colab

.. note:: Not this.

+------+
| cell |
+------+

Text of *two*
lines. And more.
"""


def files(toc) -> list[str]:
    """Every page that a table of contents names, by walking all of it."""
    if isinstance(toc, dict):
        own = [toc[key] for key in ("root", "file") if key in toc]
        return own + [name for value in toc.values() for name in files(value)]
    return [name for entry in toc for name in files(entry)] if isinstance(toc, list) else []


TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))


def test_every_page_of_the_table_of_contents_is_listed_in_its_order(tmp_path):
    (tmp_path / "_toc.yml").write_text((ROOT / "_toc.yml").read_text(encoding="utf-8"), encoding="utf-8")
    doctree = publish_doctree(PAGE)
    app = SimpleNamespace(
        builder=SimpleNamespace(name="html", get_target_uri=lambda name: f"{name}.html"), outdir=tmp_path,
        srcdir=tmp_path, config=SimpleNamespace(html_title="minilab", epub_description="Five papers"),
        env=SimpleNamespace(titles={name: nodes.title("", f"On {name}") for name in files(TOC)},
                            get_doctree=lambda name: doctree))  # fmt: skip
    minilab_llms.write(app, None)
    lines = (tmp_path / "llms.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# minilab" and lines[2] == "> Five papers"
    assert [line for line in lines if line.startswith("- ")] == [
        f"- [On {name}]({name}.html): Text of two lines." for name in files(TOC)]  # fmt: skip
    assert [line[3:] for line in lines if line.startswith("## ")] == [part["caption"] for part in TOC["parts"]]


def test_an_ebook_and_a_broken_build_get_no_list(tmp_path):
    for name, error in (("epub", None), ("html", ValueError())):
        minilab_llms.write(SimpleNamespace(builder=SimpleNamespace(name=name), outdir=tmp_path), error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "sentence"), [
    ("At 3.5 m/s it runs, e.g. forward. Then it falls.", "At 3.5 m/s it runs, e.g. forward."),
    ("word " * 100, ("word " * 100)[: minilab_llms.LONGEST - 1].rsplit(" ", 1)[0] + "…"),
    ("", ""),
])  # fmt: skip
def test_a_line_is_one_sentence_of_bounded_length(text, sentence):
    assert minilab_llms.first_sentence(publish_doctree(text)) == sentence


@pytest.mark.slow
def test_the_built_book_has_the_list_and_its_addresses_lead_to_pages():
    text = (BOOK / minilab_llms.FILE).read_text(encoding="utf-8")
    entries = re.findall(r"^- \[(.+)\]\((\S+)\): (.+)$", text, re.MULTILINE)
    assert [address.removesuffix(".html") for _, address, _ in entries] == files(TOC)
    assert all((BOOK / address).is_file() for _, address, _ in entries)
    assert max(len(sentence) for *_, sentence in entries) <= minilab_llms.LONGEST
