"""Texts as their cards say, split by page; windows that nest; one tokenizer that never saw what is held out."""

import hashlib
import json
import lzma
import time

import pytest
import torch

from minilab.core.weights import asset_path
from minilab.corpus.build import Document
from minilab.corpus.text import END, documents
from minilab.ensembles import build, data
from minilab.ensembles.data import (
    Corpus,
    corpus,
    corpus_of,
    first,
    leak,
    load_text,
    shuffled,
    token_bytes,
    token_ids,
    tokenizer,
    windows,
)

PARAGRAPH = "This paragraph is long enough to be counted as a repeated one if it comes again on another page."


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and nothing kept in memory."""
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path))
    for kept in (tokenizer, token_ids):
        kept.cache_clear()
        monkeypatch.setattr(data, kept.__wrapped__.__name__, kept.__wrapped__)
    return tmp_path


# How the texts were made.


def pages(n, words=120):
    return [Document("p", f"page{i}", (f"# Page {i}", " ".join(f"word{i}x{j}" for j in range(words)), PARAGRAPH), "MIT")
            for i in range(n)]


def test_a_page_is_in_one_part_whatever_order_the_pages_come_in():
    parts = build.split(pages(40), train=20_000, valid=5_000)
    titles = {part: {text.split("\n")[0] for text in texts} for part, texts in parts.items()}
    assert not titles["train"] & titles["valid"] and len(titles["train"]) == len(parts["train"]) > 10
    assert build.split(pages(40)[::-1], train=20_000, valid=5_000) == parts
    more = build.split(pages(40), train=25_000, valid=5_000)
    assert more["valid"] == parts["valid"] and more["train"][: len(parts["train"])] == parts["train"]


def test_parts_end_with_the_page_that_fills_them_and_keep_a_repeated_paragraph_once():
    parts = build.split(pages(40), train=20_000, valid=5_000)
    for part, wanted in (("train", 20_000), ("valid", 5_000)):
        sizes = [len(text.encode()) for text in parts[part]]
        assert sum(sizes[:-1]) < wanted <= sum(sizes)
    assert [text.count(PARAGRAPH) for text in parts["valid"] + parts["train"]] == [1] + [0] * (
        len(parts["valid"] + parts["train"]) - 1)


def test_pages_that_are_tiny_or_huge_are_left_out_and_too_few_pages_are_refused():
    odd = [Document("p", "tiny", ("# T", "Short."), "MIT"), Document("p", "huge", ("x" * 60_001,), "MIT")]
    assert build.split(odd + pages(40), train=20_000, valid=5_000) == build.split(pages(40), train=20_000, valid=5_000)
    with pytest.raises(ValueError, match="bytes short of train's 90,000: ask for fewer"):
        build.split(pages(40), train=90_000, valid=5_000)


@pytest.mark.parametrize("head, wanted", [
    (".. SPDX-License-Identifier: GPL-2.0\n", True),
    (".. SPDX-License-Identifier: (GPL-2.0+ OR CC-BY-4.0)\n", True),
    (".. SPDX-License-Identifier: GPL-2.0 OR GFDL-1.1-no-invariants-or-later\n", True),
    (".. SPDX-License-Identifier: GFDL-1.1-no-invariants-or-later\n", False),
    ("Title\n=====\n:License: The GNU Free Documentation License, Version 1.2\n", False),
    ("Title\n=====\nA page that says nothing.\n", True),
])
def test_a_page_of_the_kernel_ships_only_under_the_kernels_license(head, wanted, tmp_path):
    domain = build.DOMAINS["web"]
    (tmp_path / domain.pages).mkdir(parents=True)
    (tmp_path / domain.pages / "page.rst.txt").write_text(head + "\nText of a page that has some words.\n")
    assert [page.name for page in build.pages_of(domain, tmp_path)] == ["page.rst"] * wanted


def test_two_builds_give_the_same_bytes_and_true_cards(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        build.write(tmp_path / name / "web-train.txt.xz", ["one", "naïve two"], card={"what": "w"})
    files = [(tmp_path / name / "web-train.txt.xz").read_bytes() for name in "ab"]
    card = json.loads((tmp_path / "a" / "web-train.card.json").read_text())
    assert files[0] == files[1] and lzma.decompress(files[0]).decode() == f"one\n{END}\nnaïve two\n{END}\n"
    assert card["sha256"] == hashlib.sha256(files[0]).hexdigest() and card["bytes"] == len(files[0])
    assert (card["what"], card["pages"], card["text_bytes"]) == ("w", 2, len(lzma.decompress(files[0])))


def test_building_without_debian_says_where_to_build(tmp_path, monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda tool: None)
    with pytest.raises(RuntimeError, match="apt-get is not here: build on Debian"):
        build.build(tmp_path)


# The texts that ship.


@pytest.mark.parametrize("name", data.TEXTS)
def test_text_is_what_its_card_says_with_its_license_in_full(name):
    text, card = load_text(name), json.loads(asset_path(f"ensembles/{name}.card.json").read_text())
    domain = build.DOMAINS[name.split("-")[0]]
    assert hashlib.sha256(text.encode()).hexdigest() == card["text_sha256"]
    assert len(documents(text)) == card["pages"] and text.endswith(f"\n{END}\n")
    wanted = getattr(domain, name.split("-")[1])
    assert wanted <= card["text_bytes"] < wanted + build.LONGEST + 20 * card["pages"]
    licence = asset_path(f"ensembles/{domain.licence}.txt").read_bytes()
    assert card["licence"].startswith(domain.licence)
    assert card["licence_sha256"] == hashlib.sha256(licence).hexdigest()


@pytest.mark.parametrize("domain", data.DOMAINS)
def test_no_page_and_no_paragraph_is_on_both_sides(domain):
    train, valid = (documents(load_text(f"{domain}-{part}")) for part in ("train", "valid"))
    assert not set(train) & set(valid)
    both = {p for d in train for p in d.split("\n\n") if len(p) >= 60} & {p for d in valid for p in d.split("\n\n")}
    assert both == set()


def test_training_text_leaks_little_into_what_is_held_out():
    assert 0.001 < leak(load_text("web-train"), load_text("web-valid")) < 0.02
    assert leak(load_text("manual-train"), load_text("manual-valid")) < 0.002
    assert leak(load_text("manual-train"), load_text("web-valid")) < 0.001, "domains differ"


def test_leak_counts_runs_of_words_within_a_document():
    train = f"The cat sat on the mat.\n{END}\nAnd then it slept.\n{END}\n"
    assert leak(train, "the CAT sat,\non a chair", words=4) == 1 / 3
    assert leak(train, "the mat and then", words=4) == 0, "a run does not cross documents"
    assert leak(train, "sat on the mat. Sat on the mat", words=4) == 2 / 5, "runs that repeat count each time"
    with pytest.raises(ValueError, match="no document that is held out has 13 words"):
        leak(train, "too short")


@pytest.mark.parametrize("name", ["", "web", "web-test", "wikitext-train"])
def test_unknown_text_lists_the_known(name):
    with pytest.raises(ValueError, match="choose web-train, web-valid, manual-train, manual-valid"):
        load_text(name)


def test_damaged_text_is_refused_with_the_way_back(tmp_path, monkeypatch):
    (tmp_path / "ensembles").mkdir()
    for name in ("manual-valid.card.json", "manual-valid.txt.xz"):
        (tmp_path / "ensembles" / name).write_bytes(asset_path(f"ensembles/{name}").read_bytes())
    file = tmp_path / "ensembles" / "manual-valid.txt.xz"
    file.write_bytes(file.read_bytes()[:-100])
    monkeypatch.setattr("minilab.corpus.text.asset_path", lambda name: tmp_path / name)
    with pytest.raises(ValueError, match="corrupted or truncated.*git checkout -- assets/ensembles/manual-valid"):
        load_text("manual-valid")


# Tokenizer.


def test_tokenizer_is_the_one_that_our_records_were_made_with(cache):
    """If a new version of the library learns other merges, losses in nats per token are no longer comparable."""
    learned = json.loads(tokenizer(1024).to_str())["model"]
    content = json.dumps([sorted(learned["vocab"].items()), learned["merges"]]).encode()
    assert hashlib.sha256(content).hexdigest() == "965ce32ab3bbc22d4ac2733d6b8aa7598a10115970081191348e6757f5f90400"


def test_any_text_comes_back_from_its_tokens():
    odd = ["", "  two  spaces \n\n\t", "naïve café — “quotes”", "日本語 עברית 🙂🏽", "\u0000\uffff\U0010fffd"]
    for text in [*odd, load_text("manual-valid")[:20_000]]:
        assert tokenizer(1024).decode(tokenizer(1024).encode(text).ids, skip_special_tokens=False) == text


def test_tokens_stand_for_all_bytes_of_a_text():
    text, ids = load_text("manual-valid"), token_ids("manual-valid", 1024)
    between = len(f"\n{END}\n") * len(documents(text))
    assert token_bytes(tokenizer(1024))[ids.long()].sum() == len(text.encode()) - between
    assert (ids == 0).sum() == len(documents(text)) + 1 and ids.max() < 1024
    sizes = token_bytes(tokenizer(1024))
    assert sizes[tokenizer(1024).encode("é").ids].sum() == 2 and sizes[0] == 0


def test_what_was_kept_is_read_again_and_a_read_only_cache_costs_time_only(cache, monkeypatch):
    ids = token_ids("manual-valid", 300)
    assert len(list((cache / "ensembles").glob("*-300-*"))) == 2, "tokenizer and tokens"
    monkeypatch.setattr(data, "train_tokenizer", None)
    assert torch.equal(token_ids("manual-valid", 300), ids)
    monkeypatch.undo()
    monkeypatch.setenv("MINILAB_CACHE", str(cache / "file" / "below"))
    (cache / "file").write_text("no folder")
    assert torch.equal(token_ids.__wrapped__("manual-valid", 300), ids)


@pytest.mark.parametrize("vocab_size", [0, 257, 65_537])
def test_vocabulary_that_cannot_be_is_refused(vocab_size):
    with pytest.raises(ValueError, match=f"a vocabulary of {vocab_size}: give 258"):
        tokenizer(vocab_size)


# Windows.


def test_windows_predict_each_token_once():
    cut = windows(torch.arange(32, dtype=torch.int32), 10)
    assert cut.tolist() == [list(range(i, i + 11)) for i in (0, 10, 20)]
    assert cut.dtype == torch.int64


@pytest.mark.parametrize("tokens, length", [(0, 4), (4, 4), (5, 0)])
def test_text_that_fills_no_window_is_refused(tokens, length):
    with pytest.raises(ValueError, match=f"{tokens} tokens do not fill a window of {length} and one more"):
        windows(torch.zeros(tokens, dtype=torch.int32), length)


def test_shuffling_keeps_every_window_and_gives_one_order():
    cut = windows(torch.arange(1001), 10)
    mixed = shuffled(cut)
    assert torch.equal(mixed, shuffled(cut)) and not torch.equal(mixed, cut)
    assert torch.equal(mixed[mixed[:, 0].argsort()], cut)


@pytest.fixture(scope="module")
def manual():
    return corpus("manual", vocab_size=1024, length=64)


def test_windows_of_fewer_tokens_are_the_first_of_those_of_more(manual):
    small, large = manual.take(10_000), manual.take(20_000)
    assert small.tokens == 10_000 // 64 * 64 and len(large.train) == 20_000 // 64
    assert torch.equal(large.train[: len(small.train)], small.train)
    assert torch.equal(small.valid, manual.valid)
    asked = corpus("manual", vocab_size=1024, length=64, tokens=10_000, valid_tokens=6_400)
    assert torch.equal(asked.train, small.train) and torch.equal(asked.valid, manual.valid[:100])
    assert manual.take(manual.tokens).tokens == manual.tokens


def test_first_windows_are_drawn_from_the_whole_text(manual):
    """In the order of the text, a small D would be a few pages, and its loss that of the pages."""
    start = {tuple(row): i for i, row in enumerate(windows(token_ids("manual-train", 1024), 64).tolist())}
    drawn = torch.tensor([start[tuple(row)] for row in manual.take(10_000).train.tolist()]) / len(start)
    assert abs(drawn.mean() - 0.5) < 0.1 and drawn.min() < 0.05 and drawn.max() > 0.95


def test_bytes_per_token_are_those_of_the_targets(manual):
    some = corpus("manual", vocab_size=1024, length=64, valid_tokens=640)
    text = [tokenizer(1024).decode(row[1:], skip_special_tokens=True) for row in some.valid.tolist()]
    cut = sum(len(t.encode(errors="ignore")) for t in text) / 640
    assert some.bytes_per_token == pytest.approx(cut, rel=0.01)  # a character that is cut in two decodes to another
    assert manual.bytes_per_token != some.bytes_per_token


@pytest.mark.parametrize("tokens", [-1, 0, 63, 10**9])
def test_more_tokens_than_there_are_or_none_are_refused_with_their_number(manual, tokens):
    with pytest.raises(ValueError, match=rf"there are {manual.tokens:,} in {len(manual.train):,} windows of 64"):
        manual.take(tokens)
    with pytest.raises(ValueError, match="tokens held out, but"):
        first(manual.valid, tokens, "held out")


def test_unknown_domain_lists_the_known():
    with pytest.raises(ValueError, match="unknown domain 'wiki'; choose web or manual"):
        corpus("wiki")


def test_own_text_becomes_a_corpus_and_a_tiny_one_is_refused():
    train = "".join(f"the cat {i} sat on the mat and the dog {i * 7} did not\n{END}\n" for i in range(200))
    own = corpus_of(train, f"the cat 9 sat\n{END}\n" * 20, vocab_size=270, length=8)
    assert isinstance(own, Corpus) and own.train.shape[1] == 9 and own.train.max() < own.vocab == 270
    with pytest.raises(ValueError, match="characters of text give .* tokens, not 4096"):
        corpus_of(train, train, vocab_size=4096, length=8)
    with pytest.raises(ValueError, match="do not fill a window"):
        corpus_of(train, "", vocab_size=270, length=8)
    with pytest.raises(ValueError, match="0 characters of text give 257 tokens"):
        corpus_of("", train, vocab_size=270, length=8)


def test_a_corpus_loads_in_a_moment_once_it_is_kept():
    corpus("manual")
    token_ids.cache_clear()
    tokenizer.cache_clear()
    begun = time.perf_counter()
    corpus("manual")
    assert time.perf_counter() - begun < 1
