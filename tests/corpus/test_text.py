"""What a reader has: corpora by name, shipped files as their cards say, a tokenizer that loses nothing."""

import hashlib
import json

import pytest
import torch

from minilab.core.weights import asset_path
from minilab.corpus import text as corpus


@pytest.mark.slow
def test_standard_library_is_a_corpus_with_no_download():
    train, valid = (corpus.documents(corpus.load_corpus(f"stdlib-{part}")) for part in ("train", "valid"))
    assert sum(map(len, train)) > 500_000 and sum(map(len, valid)) > 30_000
    assert not set(train) & set(valid)
    assert all(d.startswith("# ") for d in train + valid)


def test_full_corpus_is_read_from_the_cache_or_names_its_command(tmp_path, monkeypatch):
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"python -m minilab.corpus.build .*corpus"):
        corpus.load_corpus("full-train")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "valid.txt").write_text("text\n", encoding="utf-8")
    assert corpus.load_corpus("full-valid") == "text\n"


@pytest.mark.parametrize("name", ["", "full", "stdlib-test", "wikitext", "shipped-train"])
def test_unknown_corpus_lists_the_known(name):
    with pytest.raises(ValueError, match="choose shipped, stdlib-train"):
        corpus.load_corpus(name)


def test_shipped_slice_is_held_out_pages_as_its_card_says():
    text = corpus.load_corpus("shipped")
    card = json.loads(asset_path("speculative/corpus.card.json").read_text())
    assert (
        len(text.encode())
        == card["text_bytes"]
        == card["full_corpus"]["parts"]["valid"]["sources"]["python3.11-doc"]
    )
    assert len(corpus.documents(text)) > 100 and text.endswith(corpus.END + "\n")
    assert hashlib.sha256(asset_path("speculative/corpus.txt.xz").read_bytes()).hexdigest() == card["sha256"]
    assert "PSF" in card["licence"]


@pytest.mark.parametrize(
    "name, read",
    [
        ("corpus.txt.xz", lambda: corpus.load_corpus("shipped")),
        ("tokenizer.json", lambda: corpus.load_tokenizer()),
    ],
)
def test_damaged_asset_is_refused_with_the_way_back(name, read, tmp_path, monkeypatch):
    folder = tmp_path / "speculative"
    folder.mkdir()
    for part in (name, f"{name.split('.')[0]}.card.json"):
        (folder / part).write_bytes(asset_path(f"speculative/{part}").read_bytes())
    (folder / name).write_bytes((folder / name).read_bytes()[:-100])
    monkeypatch.setattr(corpus, "asset_path", lambda asset: tmp_path / asset)
    with pytest.raises(
        ValueError, match=f"corrupted or truncated.*git checkout -- assets/speculative/{name}"
    ):
        read()


# ---- tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return corpus.load_tokenizer()


def test_shipped_tokenizer_has_4096_tokens_and_ends_texts_with_id_0(tokenizer):
    assert tokenizer.get_vocab_size() == 4096
    assert tokenizer.token_to_id(corpus.END) == 0
    assert tokenizer.encode(f"a{corpus.END}b").ids[1] == 0


def test_any_text_comes_back_from_its_tokens(tokenizer):
    generator = torch.Generator().manual_seed(0)
    texts = [
        "",
        " ",
        "  two  spaces \n\n\t",
        "naïve café — “quotes”",
        "日本語 한국어 עברית",
        "🙂🏽‍👩‍🔬",
        "\u0000\uffff\U0010fffd",
        "e\u0301 é",
    ]
    codes = torch.randint(1, 0xD800, (200, 40), generator=generator).tolist()
    for text in texts + ["".join(map(chr, row)) for row in codes]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_token_stands_for_more_than_three_bytes_of_the_shipped_text(tokenizer):
    text = corpus.load_corpus("shipped")
    assert 3.2 < len(text.encode()) / len(corpus.token_stream(text, tokenizer)) < 3.5


def test_stream_puts_the_separator_around_every_document(tokenizer):
    stream = corpus.token_stream(f"one\n{corpus.END}\ntwo words\n{corpus.END}\n", tokenizer)
    one, two = (tokenizer.encode(t).ids for t in ("one", "two words"))
    assert stream.tolist() == [0, *one, 0, *two, 0]
    assert corpus.token_stream("", tokenizer).tolist() == [0]


def test_training_a_tokenizer_merges_what_is_frequent():
    trained = corpus.train_tokenizer(["the cat and the dog and the bird"] * 3, 262)
    assert trained.get_vocab_size() == 262 and trained.token_to_id(corpus.END) == 0
    assert "Ġthe" in trained.get_vocab()
    assert trained.decode(trained.encode("zebra ∀x").ids) == "zebra ∀x"
