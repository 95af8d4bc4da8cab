"""Make the texts that chapter 5 trains on, from two Debian packages alone.

    python -m minilab.ensembles.build build/ensembles        needs apt-get and dpkg-deb (any Debian)

Two domains, each in pages to train on and pages held out:

    web       Linux kernel documentation: many authors, and so our stand-in for the web
    manual    Python documentation: a second domain, for continued pre-training

- A hash of its name gives each page its place. The first pages are held out, the next ones train.
- A paragraph that comes twice is kept once. The held-out pages come first, so what they hold is nowhere in training.
- Same packages, same bytes. The cards name the packages' versions and hashes.
"""

import argparse
import hashlib
import json
import lzma
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from minilab.core.files import replacing
from minilab.core.weights import sha256_of
from minilab.corpus.build import Deduplicator, Document, page_documents, unpacked
from minilab.corpus.text import END

SHORTEST, LONGEST = 400, 60_000  # characters of a page; one of 250,000 would be a quarter of what is held out


@dataclass(frozen=True)
class Domain:
    package: str
    licence: str
    what: str
    pages: str  # folder of the pages in the unpacked package
    licence_text: str  # file that says it in full, in the package or on any Debian
    train: int  # bytes of text, at least
    valid: int


DOMAINS = {
    "web": Domain("linux-doc-6.1", "GPL-2.0-only", "Linux 6.1 kernel documentation, copyright its many authors",
                  "usr/share/doc/linux-doc-6.1/html/_sources", "/usr/share/common-licenses/GPL-2",
                  train=7_500_000, valid=900_000),
    "manual": Domain("python3.11-doc", "PSF-2.0",
                     "Python 3.11 documentation, copyright the Python Software Foundation",
                     "usr/share/doc/python3.11/html/_sources", "usr/share/doc/python3.11-doc/copyright",
                     train=950_000, valid=320_000),
}


def split(documents: Iterable[Document], *, train: int, valid: int) -> dict[str, list[str]]:
    """The texts of pages of each part, in the order of a hash of their names, until a part has so many bytes.

    Raises ValueError if the pages do not suffice.
    """
    def place(document: Document) -> bytes:
        return hashlib.sha256(f"{document.source}/{document.name}".encode()).digest()

    dedup = Deduplicator()
    texts = (dedup.text(document.blocks) for document in sorted(documents, key=place))
    texts = (text for text in texts if SHORTEST <= len(text) <= LONGEST)
    parts: dict[str, list[str]] = {}
    for part, wanted in (("valid", valid), ("train", train)):
        parts[part], size = [], 0
        while size < wanted:
            text = next(texts, None)
            if text is None:
                raise ValueError(f"the pages end {wanted - size:,} bytes short of {part}'s {wanted:,}: ask for fewer")
            parts[part].append(text)
            size += len(text.encode())
    return parts


def is_gpl(page: str) -> bool:
    """Whether a page of the kernel may be passed on under GPL-2.0: it says so, or nothing, as the kernel's license.

    A tenth of the pages are under the GNU Free Documentation License alone.
    """
    stated = re.search(r"SPDX-License-Identifier: *(.*)", page[:400])
    return "GPL-2.0" in stated[1] if stated else "Free Documentation License" not in page


def pages_of(domain: Domain, root: Path) -> Iterator[Document]:
    """The pages of an unpacked package that its license lets us pass on."""
    folder = root / domain.pages
    for document in page_documents(folder, domain.package, domain.licence):
        source = (folder / f"{document.name}.txt").read_text(errors="replace")
        if domain.licence != "GPL-2.0-only" or is_gpl(source):
            yield document


def build(out: Path) -> None:
    """Write each part of each domain to `out`, compressed, with its card, and the licenses in full.

    Packages go to `out`/packages and are used again if they are there. Raises RuntimeError where there is no apt-get.
    """
    if missing := [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]:
        raise RuntimeError(f"{missing[0]} is not here: build on Debian, or in a `debian:12` container. The texts that "
                           "ship need no build")
    for name, domain in DOMAINS.items():
        packages: dict = {}
        root = unpacked(domain.package, domain.licence, out / "packages", packages)
        licence = out / f"{domain.licence}.txt"
        with replacing(licence) as path:
            path.write_bytes((root / domain.licence_text).read_bytes())
        for part, texts in split(pages_of(domain, root), train=domain.train, valid=domain.valid).items():
            write(out / f"{name}-{part}.txt.xz", texts, card={
                "what": f"{domain.what}: {'pages to train on' if part == 'train' else 'pages held out'}, without "
                        "mark-up, tables and paragraphs that occur twice",
                "licence": f"{domain.licence}, in full in {licence.name}",
                "licence_sha256": sha256_of(licence),
                "how_made": "python -m minilab.ensembles.build FOLDER",
                "packages": packages,
            })


def write(path: Path, texts: list[str], *, card: dict) -> None:
    """Texts as one compressed file with `END` behind each, and the card beside it."""
    text = "".join(f"{text}\n{END}\n" for text in texts).encode()
    with replacing(path) as temporary:
        temporary.write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
    facts = {"pages": len(texts), "text_bytes": len(text), "text_sha256": hashlib.sha256(text).hexdigest(),
             "bytes": path.stat().st_size, "sha256": sha256_of(path)}
    with replacing(path.with_name(f"{path.name.split('.')[0]}.card.json")) as temporary:
        temporary.write_text(json.dumps(card | facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder for packages, texts and cards; all but the packages ship")
    build(parser.parse_args(argv).out)


if __name__ == "__main__":
    main()
