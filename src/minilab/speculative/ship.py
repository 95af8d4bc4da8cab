"""What of the corpus ships with minilab: the tokenizer trained on it, and pages that no model was trained on.

python -m minilab.speculative.ship FOLDER        FOLDER as made by `python -m minilab.corpus.build`
"""

import json
import lzma
import sys
from pathlib import Path

from minilab.core.files import package_data, replacing
from minilab.core.weights import sha256_of
from minilab.corpus.text import documents, train_tokenizer

VOCAB_SIZE = 4096
SLICE = "python3.11-doc"  # its license (PSF) lets us pass its text on; it is the first source of the corpus


def ship(corpus: Path, out: Path) -> None:
    """Write tokenizer.json and corpus.txt.xz with their cards to `out`, from a built corpus."""
    manifest = json.loads((corpus / "corpus.json").read_text(encoding="utf-8"))
    texts = documents((corpus / "train.txt").read_text(encoding="utf-8"))
    with replacing(out / "tokenizer.json") as path:
        train_tokenizer(texts[::4], VOCAB_SIZE).save(str(path), pretty=False)
    _card(
        out / "tokenizer.json",
        what=f"byte-level BPE tokenizer of {VOCAB_SIZE} tokens, trained on every fourth "
        "document of the full corpus",
        licence="MIT",
    )
    # Sources follow one another in the held-out part, this one first.
    size = manifest["parts"]["valid"]["sources"][SLICE]
    with replacing(out / "corpus.txt.xz") as path:
        path.write_bytes(
            lzma.compress((corpus / "valid.txt").read_bytes()[:size], preset=9 | lzma.PRESET_EXTREME)
        )
    _card(
        out / "corpus.txt.xz",
        what="pages of the Python 3.11 documentation that were held out of training",
        licence="PSF-2.0, copyright the Python Software Foundation",
        text_bytes=size,
        full_corpus=manifest,
    )


def _card(path: Path, **facts) -> None:
    card = {
        "how_made": "python -m minilab.speculative.ship",
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
    }
    with replacing(path.with_name(f"{path.name.split('.')[0]}.card.json")) as temporary:
        temporary.write_text(
            json.dumps({**facts, **card}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    ship(Path(sys.argv[1]), package_data("assets") / "speculative")
