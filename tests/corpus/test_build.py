"""The corpus: documents split by name, never repeated, built from permissive packages, and recorded."""

import hashlib
import json
import subprocess
from email.message import Message

import pytest

from minilab.core.weights import asset_path
from minilab.corpus import packages
from minilab.corpus.build import (
    Deduplicator,
    Document,
    build_corpus,
    is_validation,
    permissive_license,
    write_corpus,
)
from minilab.corpus.text import documents
from minilab.speculative.ship import ship

PARAGRAPH = "This paragraph is long enough to be counted as a repeated one if it comes again."


def test_repeated_paragraphs_and_headings_without_text_go():
    dedup = Deduplicator()
    assert dedup.text(("# A", PARAGRAPH, "Short.")) == f"# A\n\n{PARAGRAPH}\n\nShort."
    assert dedup.text(("# B", "## C", PARAGRAPH.upper(), "## D", "Short.", "# E")) == "# B\n\n## D\n\nShort."


def test_split_is_by_document_and_stays_when_others_come():
    documents = [Document("p", f"page{i}", (), "MIT") for i in range(4000)]
    held = [d.name for d in documents if is_validation(d)]
    assert 30 <= len(held) <= 95  # 1.5% of 4000 is 60, standard deviation 7.7
    assert held == [d.name for d in reversed(documents) if is_validation(d)][::-1]
    assert sum(is_validation(d, share=0.5) for d in documents) == pytest.approx(2000, abs=150)


def fake_documents(n):
    for i in range(n):
        text = " ".join(f"word{i}x{j}" for j in range(60))
        yield Document("python3.11-doc", f"page{i}", (f"# Page {i}", text, PARAGRAPH), "PSF-2.0")


def test_written_corpus_is_whole_split_and_described(tmp_path):
    card = write_corpus(fake_documents(40), tmp_path, {"python3.11-doc": {"version": "1"}})
    parts = {part: (tmp_path / f"{part}.txt").read_bytes() for part in ("train", "valid")}
    pages = {part: {d.split("\n")[0] for d in documents(text.decode())} for part, text in parts.items()}
    assert pages["train"] | pages["valid"] == {f"# Page {i}" for i in range(40)}
    assert not pages["train"] & pages["valid"] and all(pages.values())
    assert (parts["train"] + parts["valid"]).count(PARAGRAPH.encode()) == 1
    for part, text in parts.items():
        assert card["parts"][part]["sha256"] == hashlib.sha256(text).hexdigest()
        assert card["parts"][part]["bytes"] == len(text) == sum(card["parts"][part]["sources"].values())
    assert json.loads((tmp_path / "corpus.json").read_text()) == card


def test_same_sources_give_the_same_bytes(tmp_path):
    first, second = (write_corpus(fake_documents(20), tmp_path / name, {}) for name in "ab")
    assert first == second


@pytest.mark.parametrize(
    "fields, permissive",
    [
        ({"License-Expression": "BSD-3-Clause AND MIT"}, True),
        ({"License-Expression": "MPL-2.0"}, False),
        ({"License-Expression": "MIT OR GPL-3.0"}, False),
        ({"Classifier": "License :: OSI Approved :: Apache Software License"}, True),
        (
            {
                "Classifier": "License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
                "License": "MIT",
            },
            False,
        ),
        ({"License": "MIT License\n\nProvided as is, without any IMPLIED warranty"}, True),
        ({"License": "All rights reserved"}, False),
        ({}, False),
    ],
)
def test_license_filter_keeps_what_says_it_is_permissive(fields, permissive):
    metadata = Message()
    for name, value in fields.items():
        metadata[name] = value
    assert (permissive_license(metadata) is not None) == permissive


@pytest.fixture
def unpacked_package(tmp_path, monkeypatch):
    """A package that is already downloaded and unpacked: nothing is fetched."""

    def refuse(command, **_):
        raise AssertionError(f"unexpected command {command}")

    monkeypatch.setattr(subprocess, "run", refuse)
    work = tmp_path / "packages"
    (work / "some-doc" / "html" / "_sources" / "translations").mkdir(parents=True)
    (work / "some-doc_1%3a2.0-1_all.deb").write_bytes(b"deb")
    return work / "some-doc" / "html" / "_sources"


def test_build_reads_each_page_once_without_translations_and_changelogs(tmp_path, unpacked_package):
    page = "Guide\n=====\n\n" + "The guide explains how the parts work together. " * 12
    (unpacked_package / "guide.rst.txt").write_text(page)
    (unpacked_package / "alias.rst.txt").symlink_to("guide.rst.txt")
    (unpacked_package / "changelog.rst.txt").write_text(page.replace("guide", "change"))
    (unpacked_package / "translations" / "it.rst.txt").write_text(page.replace("guide", "guida"))
    card = build_corpus(tmp_path, debian={"some-doc": "MIT"}, pages={}, docstrings=False)
    text = "".join((tmp_path / f"{part}.txt").read_text() for part in ("train", "valid"))
    assert documents(text) == [
        "# Guide\n\n" + ("The guide explains how the parts work together. " * 12).strip()
    ]
    assert card["packages"] == {
        "some-doc": {"version": "1:2.0-1", "license": "MIT", "sha256": hashlib.sha256(b"deb").hexdigest()}
    }


def test_build_without_debian_tools_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="apt-get is not here.*Debian"):
        build_corpus(tmp_path, debian={"some-doc": "MIT"}, pages={}, docstrings=False)


def test_failed_download_shows_what_apt_said(tmp_path, monkeypatch):
    def fail(command, **_):
        raise subprocess.CalledProcessError(100, command, stderr=b"E: Unable to locate package some-doc")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(RuntimeError, match="Unable to locate package some-doc"):
        build_corpus(tmp_path, debian={"some-doc": "MIT"}, pages={}, docstrings=False)


def test_ship_writes_tokenizer_and_held_out_slice_with_cards(tmp_path):
    write_corpus(fake_documents(40), tmp_path / "built", {})
    ship(tmp_path / "built", tmp_path / "out")
    cards = {
        n: json.loads((tmp_path / "out" / f"{n}.card.json").read_text()) for n in ("tokenizer", "corpus")
    }
    for name, card in zip(("tokenizer.json", "corpus.txt.xz"), cards.values(), strict=True):
        content = (tmp_path / "out" / name).read_bytes()
        assert card["sha256"] == hashlib.sha256(content).hexdigest() and card["bytes"] == len(content)
    assert cards["corpus"]["text_bytes"] == (tmp_path / "built" / "valid.txt").stat().st_size


def test_every_source_of_the_shipped_models_is_recorded_with_its_license():
    card = json.loads(asset_path("speculative/corpus.card.json").read_text())["full_corpus"]
    named = set(packages.DEBIAN) | set(packages.PAGES)
    assert named <= set(card["packages"])
    assert all(p["license"] and p["version"] for p in card["packages"].values())
    assert all(len(card["packages"][name]["sha256"]) == 64 for name in named)
    used = set(card["parts"]["train"]["sources"]) - {"stdlib"}
    assert used <= set(card["packages"]) and "stdlib" in card["parts"]["train"]["sources"]
