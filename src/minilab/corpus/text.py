"""Texts by name, and the tokenizer that our language models share.

Three corpora, each in a part for training and one held out:
- "shipped": pages of the Python documentation (PSF license), held out only; it comes with minilab, and the
  models that ship never saw it in training
- "stdlib": the docstrings of the reader's own standard library; no download, differs a little by version
- "full": some 110 MB of technical prose from packages; `python -m minilab.corpus.build` builds it
"""

import functools
import hashlib
import json
import lzma
from collections.abc import Iterable

import torch
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from minilab.core.device import cache_dir
from minilab.core.weights import asset_path

END = "<|endoftext|>"  # between documents; the tokenizer's id 0, and the models' start token


def load_corpus(name: str) -> str:
    """A corpus by name: "shipped", "stdlib-train", "stdlib-valid", "full-train" or "full-valid".

    Documents end in `END`. Raises ValueError for another name or a damaged shipped slice, and
    FileNotFoundError, with the command that builds it, if the full corpus was not built here.
    """
    if name == "shipped":
        return lzma.decompress(read_asset("corpus.txt.xz")).decode()
    kind, _, part = name.partition("-")
    if kind not in ("stdlib", "full") or part not in ("train", "valid"):
        raise ValueError(
            f"unknown corpus {name!r}; choose shipped, stdlib-train, stdlib-valid, full-train or full-valid"
        )
    if kind == "stdlib":
        return _stdlib()[part]
    path = cache_dir() / "corpus" / f"{part}.txt"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there; build it with `python -m minilab.corpus.build "
            f"{path.parent}` (on Debian, about ten minutes), or use corpus 'stdlib'"
        )
    return path.read_text(encoding="utf-8")


@functools.cache  # parsing takes some seconds
def _stdlib() -> dict[str, str]:
    from minilab.corpus.build import is_validation, stdlib_documents

    texts = {"train": "", "valid": ""}
    for document in stdlib_documents():
        if document.blocks:
            part = "valid" if is_validation(document, share=0.1) else "train"
            texts[part] += "\n\n".join(document.blocks) + f"\n{END}\n"
    return texts


def read_asset(name: str, *, folder: str = "speculative") -> bytes:
    """The bytes of a file in a folder of assets/, once they match the hash on its card.

    Raises ValueError if they do not.
    """
    path = asset_path(f"{folder}/{name}")
    data = path.read_bytes()
    card = json.loads(path.with_name(f"{name.split('.')[0]}.card.json").read_text(encoding="utf-8"))
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise ValueError(
            f"{path} is corrupted or truncated: {len(data)} bytes that do not match its card "
            f"({card['bytes']} bytes, sha256 {card['sha256']}). Restore it with `git checkout -- "
            f"assets/{folder}/{name}` in a clone, or by installing minilab again"
        )
    return data


def documents(text: str) -> list[str]:
    """The documents of a corpus, without the separator."""
    return [d for part in text.split(END) if (d := part.strip("\n"))]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level byte-pair tokenizer: any text can be encoded, and decoding gives it back."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer() -> Tokenizer:
    """The tokenizer of the shipped pair: 4,096 tokens, trained on the full corpus."""
    return Tokenizer.from_str(read_asset("tokenizer.json").decode())


def token_stream(text: str, tokenizer: Tokenizer) -> Int[Tensor, "n"]:
    """All documents of a corpus as one row of token ids, each behind the separator's id 0."""
    ids = [0]
    for encoding in tokenizer.encode_batch_fast(documents(text), add_special_tokens=False):
        ids += encoding.ids
        ids.append(0)
    return torch.tensor(ids, dtype=torch.int32)
