"""Little text, on purpose: shipped slices of two domains, a tokenizer for them, and windows to train on.

The set-up of Kim et al. (2025), made small. Notable:

- Windows are shuffled once and the first ones train, so those of D tokens are the first of those of 2D. What a data law
  compares differs in the number of windows and in nothing else. Validation windows come from pages that are held out.
- Bytes as tokens hide the effects: a byte model on 32,000 tokens is still learning when one of 1,024 tokens over-fits.
- One tokenizer for every D and both domains, or losses in nats per token could not be compared. It learned from the
  first megabyte of the web's training pages. It has not seen a page that is held out, nor the manual.

Shapes: n windows of T tokens and one more, which is the last one's target.
"""

import functools
import hashlib
import json
import lzma
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import tokenizers
import torch
from jaxtyping import Int, Int64
from tokenizers import Tokenizer
from torch import Tensor

from minilab.core.device import cache_dir
from minilab.core.files import replacing
from minilab.core.weights import asset_path
from minilab.corpus.text import END, documents, read_asset, token_stream, train_tokenizer

DOMAINS = ("web", "manual")  # kernel documentation; Python documentation
TEXTS = tuple(f"{domain}-{part}" for domain in DOMAINS for part in ("train", "valid"))
TOKENIZER_BYTES = 1_000_000  # of web-train; seven times as many save 1 to 2% of the tokens
SEED = 0  # of the one shuffle


@dataclass(frozen=True)
class Corpus:
    """Windows to train and to validate on."""

    train: Int64[Tensor, "n T1"]
    valid: Int64[Tensor, "m T1"]
    vocab: int  # tokens that there are
    bytes_per_token: float  # of the targets in `valid`: bits per byte = nats per token / (ln 2 * bytes_per_token)

    @property
    def tokens(self) -> int:
        """D: tokens to predict in one epoch."""
        return len(self.train) * (self.train.shape[1] - 1)

    def take(self, tokens: int) -> "Corpus":
        """The same with the first `tokens` to train on, in whole windows. Raises ValueError if there are fewer."""
        return replace(self, train=first(self.train, tokens, "to train on"))


def corpus(name: str = "web", *, vocab_size: int = 1024, length: int = 128, tokens: int | None = None,
           valid_tokens: int | None = None) -> Corpus:
    """A domain, "web" or "manual", in windows of `length` predictions; by default all of it.

    `tokens` and `valid_tokens` are rounded down to whole windows. Raises ValueError for another name, and for more
    tokens than there are or fewer than a window has.
    """
    if name not in DOMAINS:
        raise ValueError(f"unknown domain {name!r}; choose {' or '.join(DOMAINS)}")
    train, valid = (shuffled(windows(token_ids(f"{name}-{part}", vocab_size), length)) for part in ("train", "valid"))
    if tokens is not None:
        train = first(train, tokens, "to train on")
    if valid_tokens is not None:
        valid = first(valid, valid_tokens, "held out")
    sizes = token_bytes(tokenizer(vocab_size))
    return Corpus(train, valid, vocab_size, sizes[valid[:, 1:]].double().mean().item())


def corpus_of(train: str, valid: str, *, vocab_size: int, length: int) -> Corpus:
    """The same of your own texts, whose documents end in `END`. The tokenizer learns from all of `train`."""
    learned = _trained(documents(train), vocab_size)
    parts = [shuffled(windows(token_stream(text, learned), length)) for text in (train, valid)]
    return Corpus(*parts, vocab_size, token_bytes(learned)[parts[1][:, 1:]].double().mean().item())


# Windows.


def windows(tokens: Int[Tensor, "N"], length: int) -> Int64[Tensor, "n T1"]:
    """Tokens cut end to end into windows of `length` predictions. The last token of one is the first of the next, so
    each token is predicted once; what does not fill a window is left out.

    Raises ValueError if nothing fills one.
    """
    if length < 1 or len(tokens) < length + 1:
        raise ValueError(f"{len(tokens)} tokens do not fill a window of {length} and one more: give more text or a "
                         "shorter window of at least 1")
    return tokens.long().unfold(0, length + 1, length).contiguous()


def shuffled(windows: Int64[Tensor, "n T1"]) -> Int64[Tensor, "n T1"]:
    """The windows in their one order, always the same."""
    return windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(SEED))]


def first(windows: Int64[Tensor, "n T1"], tokens: int, what: str) -> Int64[Tensor, "k T1"]:
    """The first windows, so many that they have `tokens` predictions or just fewer."""
    n, T = len(windows), windows.shape[1] - 1
    if not T <= tokens <= n * T:
        raise ValueError(f"{tokens:,} tokens {what}, but there are {n * T:,} in {n:,} windows of {T}: "
                         f"ask for {T:,} to {n * T:,}")
    return windows[: tokens // T]


# Texts and tokens.


def load_text(name: str) -> str:
    """A text that ships: "web-train", "web-valid", "manual-train" or "manual-valid". Documents end in `END`.

    Raises ValueError for another name and for a damaged file.
    """
    text_sha256(name)  # which knows the names
    return lzma.decompress(read_asset(f"{name}.txt.xz", folder="ensembles")).decode()


def text_sha256(name: str) -> str:
    """Of a text's file, as its card has it."""
    if name not in TEXTS:
        raise ValueError(f"unknown text {name!r}; choose {', '.join(TEXTS)}")
    return json.loads(asset_path(f"ensembles/{name}.card.json").read_text(encoding="utf-8"))["sha256"]


@functools.cache
def tokenizer(vocab_size: int) -> Tokenizer:
    """A byte-level BPE of so many tokens, trained on the first pages of web-train, a megabyte of them; a second's work.

    Kept in the cache folder. Raises ValueError for fewer tokens than the 256 bytes, the separator and one merge need,
    and for more than 65,536.
    """
    def trained() -> bytes:
        return _trained(documents(load_text("web-train")[:TOKENIZER_BYTES])[:-1], vocab_size).to_str().encode()

    return Tokenizer.from_str(_kept("web-train", vocab_size, "json", trained).decode())


def _trained(texts: list[str], vocab_size: int) -> Tokenizer:
    if not 258 <= vocab_size <= 2**16:
        raise ValueError(f"a vocabulary of {vocab_size}: give 258 (256 bytes, the separator and a merge) to 65,536")
    result = train_tokenizer(texts, vocab_size)
    if result.get_vocab_size() < vocab_size:
        raise ValueError(f"{sum(map(len, texts)):,} characters of text give {result.get_vocab_size()} tokens, not "
                         f"{vocab_size}: give more text or ask for fewer tokens")
    return result


@functools.cache
def token_ids(name: str, vocab_size: int) -> Int[Tensor, "N"]:
    """A text that ships as one row of tokens, id 0 around each document. Seconds at first, then from the cache folder.

    Do not write to it: callers share it.
    """
    def encoded() -> bytes:
        return token_stream(load_text(name), tokenizer(vocab_size)).numpy().astype("<u2").tobytes()

    return torch.from_numpy(np.frombuffer(_kept(name, vocab_size, "tokens", encoded), "<u2").astype(np.int32))


def token_bytes(tokenizer: Tokenizer) -> Int64[Tensor, "V"]:
    """How many bytes of text each token stands for. The separator stands for none: it is not in the text."""
    vocabulary = tokenizer.get_vocab()
    sizes = torch.zeros(len(vocabulary), dtype=torch.long)
    for token, id in vocabulary.items():
        sizes[id] = 0 if token == END else len(token)  # a byte-level token is spelled with one character a byte
    return sizes


def _kept(name: str, vocab_size: int, kind: str, make: Callable[[], bytes]) -> bytes:
    """What `make` makes, from the cache folder if the same has been made before."""
    facts = (tokenizers.__version__, TOKENIZER_BYTES, text_sha256("web-train"), text_sha256(name))
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    path = cache_dir() / "ensembles" / f"{name}-{vocab_size}-{key}.{kind}"
    if path.is_file():
        return path.read_bytes()
    data = make()
    with suppress(OSError), replacing(path) as temporary:  # a folder that cannot be written costs time, no more
        temporary.write_bytes(data)
    return data


# Does training text leak into what is held out?


def leak(train: str, valid: str, *, words: int = 13) -> float:
    """The share of runs of so many words of `valid` that occur in `train`; letters and digits count, case does not.

    Raises ValueError if no document of `valid` has such a run.
    """
    held = Counter(_runs(valid, words))
    if not held:
        raise ValueError(f"no document that is held out has {words} words: ask for shorter runs")
    found = held.keys() & set(run for run in _runs(train, words) if run in held)
    return sum(held[run] for run in found) / held.total()


def _runs(text: str, words: int) -> Iterator[int]:
    """A hash of each run of so many words within a document. It has 64 bits: no two runs share one."""
    for document in documents(text):
        found = re.findall(r"\w+", document.lower())
        for i in range(len(found) - words + 1):
            yield hash(tuple(found[i : i + words]))
