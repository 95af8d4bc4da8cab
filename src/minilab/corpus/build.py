"""Build the training corpus: English technical prose and code, from packages alone.

    python -m minilab.corpus.build build/corpus        needs apt-get and dpkg-deb (any Debian)

Three kinds of source go in, in this order: the reStructuredText sources of Debian documentation packages,
the docstrings of installed Python packages with a permissive license, and those of the standard library.
A paragraph that occurs twice is kept once, the first time. Whole documents, chosen by a hash of their name,
go to the validation part. `corpus.json` beside the text records every package's version and hash, the bytes
each source gave, and the hashes of the result: two builds from the same packages are equal byte for byte.
"""

import argparse
import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minilab.corpus.packages import COPYLEFT, DEBIAN, HELD_OUT, PAGES, PERMISSIVE, SKIPPED
from minilab.corpus.pages import html_blocks, pod_blocks
from minilab.corpus.prose import docstring_blocks, rst_blocks
from minilab.corpus.text import END


@dataclass(frozen=True)
class Document:
    source: str  # the package
    name: str  # unique within the source; decides the split
    blocks: tuple[str, ...]  # headings, paragraphs, lists, code
    license: str


def page_documents(root: Path, source: str, license: str) -> Iterator[Document]:
    """The pages of an unpacked documentation package, each once by real path, without translations."""
    pages = {
        page.resolve(): page
        for page in sorted(root.rglob("*.rst.txt")) + sorted(root.rglob("*.rst"))
        if page.is_file()
    }
    for real, page in sorted(pages.items()):
        name = str(page.relative_to(root)).split("_sources/")[-1].removesuffix(".txt")
        text = real.read_text(errors="replace")
        if not SKIPPED.search(name) and not text.lstrip().startswith("<"):
            yield Document(source, name, tuple(rst_blocks(text)), license)


def web_documents(root: Path, source: str, license: str, wanted: str) -> Iterator[Document]:
    """The web pages and pod files of an unpacked package whose path matches `wanted`, each once."""
    for page in sorted(
        {p.resolve() for suffix in ("*.html", "*.html.en", "*.pod") for p in root.rglob(suffix)}
    ):
        name = str(page.relative_to(root.resolve()))
        if page.is_file() and re.search(wanted, name) and not SKIPPED.search(name):
            blocks = (pod_blocks if page.suffix == ".pod" else html_blocks)(page.read_text(errors="replace"))
            yield Document(source, name, tuple(blocks), license)


def unpacked(package: str, license: str, work: Path, packages: dict) -> Path:
    """Download one Debian package under `work`, note version and hash, unpack it and return the folder."""
    work.mkdir(parents=True, exist_ok=True)
    if not list(work.glob(f"{package}_*.deb")):
        subprocess.run(["apt-get", "download", "-q", package], cwd=work, check=True, capture_output=True)
    deb = sorted(work.glob(f"{package}_*.deb"))[-1]
    packages[package] = {
        "version": deb.name.split("_")[1].replace("%3a", ":"),
        "license": license,
        "sha256": hashlib.sha256(deb.read_bytes()).hexdigest(),
    }
    if not (work / package).is_dir():
        subprocess.run(["dpkg-deb", "-x", deb, work / package], check=True)
    return work / package


def permissive_license(metadata) -> str | None:
    """The license of an installed distribution if it is permissive, judged by its metadata alone."""
    classifiers = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    stated = metadata.get("License-Expression") or " ".join(
        [*classifiers, (metadata.get("License") or "")[:300]]
    )
    if COPYLEFT.search(stated) or not PERMISSIVE.search(stated):
        return None
    return (
        metadata.get("License-Expression")
        or (classifiers or [metadata["License"].strip().split("\n")[0][:60]])[-1]
    )


def package_documents(packages: dict) -> Iterator[Document]:
    """The docstrings of every installed distribution with a permissive license, one document a module."""
    for dist in sorted(importlib.metadata.distributions(), key=lambda d: d.metadata["Name"].lower()):
        name, license = dist.metadata["Name"], permissive_license(dist.metadata)
        if license is None or name == "minilab" or name in packages:
            continue
        packages[name] = {"version": dist.version, "license": license}
        for file in sorted(dist.files or [], key=str):
            if (
                file.suffix == ".py"
                and ".." not in file.parts
                and not {"tests", "test", "_vendor", "vendored"} & set(file.parts)
            ):
                path = Path(dist.locate_file(file))
                if path.is_file():
                    module = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
                    yield Document(
                        name,
                        str(file),
                        tuple(docstring_blocks(path.read_text(errors="replace"), module)),
                        license,
                    )


def stdlib_documents() -> Iterator[Document]:
    """The docstrings of this interpreter's standard library, one document a module."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if not {
            "test",
            "tests",
            "site-packages",
            "dist-packages",
            "idlelib",
            "lib2to3",
            "__pycache__",
            "_vendor",
        } & set(name.parts):
            module = ".".join(name.with_suffix("").parts).removesuffix(".__init__")
            yield Document(
                "stdlib",
                str(name),
                tuple(docstring_blocks(path.read_text(errors="replace"), module)),
                "PSF-2.0",
            )


def is_validation(document: Document, share: float | None = None) -> bool:
    """Whether a document is held out: a hash of its name against `share`, by default that of its source.

    A document stays on its side when others come or go.
    """
    digest = hashlib.sha256(f"{document.source}/{document.name}".encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32 < (
        HELD_OUT.get(document.source, 0.015) if share is None else share
    )


class Deduplicator:
    """Drops paragraphs that were seen before, and headings that are left with nothing under them."""

    def __init__(self):
        self.seen: set[bytes] = set()

    def text(self, blocks: tuple[str, ...], shortest: int = 60) -> str:
        kept: list[str] = []
        for block in blocks:
            key = hashlib.blake2b(" ".join(block.lower().split()).encode(), digest_size=12).digest()
            if len(block) >= shortest and key in self.seen:
                continue
            self.seen.add(key)
            while (
                block.startswith("#")
                and kept
                and kept[-1].startswith("#")
                and depth(kept[-1]) >= depth(block)
            ):
                kept.pop()
            kept.append(block)
        while kept and kept[-1].startswith("#"):
            kept.pop()
        return "\n\n".join(kept)


def depth(heading: str) -> int:
    return len(heading) - len(heading.lstrip("#"))


def write_corpus(documents: Iterator[Document], out: Path, packages: dict, shortest: int = 400) -> dict:
    """De-duplicate, split and write train.txt, valid.txt and corpus.json; returns the content of the last."""
    out.mkdir(parents=True, exist_ok=True)
    dedup, totals = Deduplicator(), {"train": Counter(), "valid": Counter()}
    hashes = {part: hashlib.sha256() for part in totals}
    files = {part: (out / f"{part}.txt").open("wb") for part in totals}
    for document in documents:
        text = dedup.text(document.blocks)
        if len(text) >= shortest:
            part = "valid" if is_validation(document) else "train"
            data = f"{text}\n{END}\n".encode()
            files[part].write(data)
            hashes[part].update(data)
            totals[part][document.source] += len(data)
    for file in files.values():
        file.close()
    card = {
        "what": "English technical prose and code from packages, for training small language models",
        "separator": END,
        "packages": packages,
        "parts": {
            part: {
                "bytes": sum(count.values()),
                "sha256": hashes[part].hexdigest(),
                "sources": dict(count.most_common()),
            }
            for part, count in totals.items()
        },
    }
    (out / "corpus.json").write_text(json.dumps(card, indent=1) + "\n")
    return card


def build_corpus(
    out: Path, *, debian: dict | None = None, pages: dict | None = None, docstrings: bool = True
) -> dict:
    """Build the corpus under `out`; downloads go to `out`/packages and are used again if they are there.

    Raises RuntimeError, saying what is missing, where there is no apt-get.
    """
    packages: dict = {}
    work = Path(out) / "packages"

    def documents():
        for package, license in (DEBIAN if debian is None else debian).items():
            yield from page_documents(unpacked(package, license, work, packages), package, license)
        for package, (license, wanted) in (PAGES if pages is None else pages).items():
            yield from web_documents(unpacked(package, license, work, packages), package, license, wanted)
        if docstrings:
            yield from package_documents(packages)
            yield from stdlib_documents()

    try:
        return write_corpus(documents(), Path(out), packages)
    except FileNotFoundError as error:
        if error.filename in ("apt-get", "dpkg-deb"):
            raise RuntimeError(
                f"{error.filename} is not here: the corpus is built from Debian packages, on a Debian "
                "system or in a `debian:12` container. The shipped slice needs no build."
            ) from None
        raise
    except subprocess.CalledProcessError as error:
        raise RuntimeError(
            f"{' '.join(map(str, error.cmd))} failed: {error.stderr.decode(errors='replace')}"
        ) from None


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder for train.txt, valid.txt and corpus.json")
    card = build_corpus(parser.parse_args(argv).out)
    for part, content in card["parts"].items():
        print(f"{part}: {content['bytes']:,} bytes, sha256 {content['sha256']}")


if __name__ == "__main__":
    sys.exit(main())
