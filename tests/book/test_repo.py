"""The checkout: its size, its assets and their cards, and no trace of the machine that it was written on."""

import hashlib
import json
import re
import subprocess
import sys

import pytest
from checkout import ROOT, relative, tracked, under

MIB = 2**20
TEXT = set(".py .md .ipynb .yml .toml .json .cfg .cff .txt .bib .css .html .sh".split()) | {""}
# Spelled in pieces, so that this file does not match itself.
FOLDERS = "|".join(("wo" + "rk", "ho" + "me", "ro" + "ot", "Us" + "ers"))
MACHINE_PATH = re.compile(rf"(?<![\w.:/])/(?:{FOLDERS})/\w[\w./-]*")
READERS_OWN = ("/ho" + "me/jovyan",)  # every Binder and JupyterHub image has it


def text_files():
    return [p for p in tracked() if p.suffix in TEXT and p.stat().st_size < 3e6]


def test_no_file_names_a_path_of_a_machine():
    found = [
        f"{relative(path)}: {match[0]}"
        for path in text_files()
        for match in MACHINE_PATH.finditer(path.read_text(encoding="utf-8", errors="replace"))
        if not match[0].startswith(READERS_OWN)
    ]
    assert found == []


@pytest.mark.parametrize("text", ["see /ho" + "me/ann/x.py", "'/wo" + "rk/main'", '"/Us' + 'ers/b/c"'])
def test_a_path_of_a_machine_is_recognized(text):
    assert MACHINE_PATH.search(text)


def test_checkout_and_assets_fit_their_budgets():
    assert sum(p.stat().st_size for p in tracked()) <= 55 * MIB
    assert sum(p.stat().st_size for p in under("assets")) <= 40 * MIB


def test_ruff_finds_nothing():
    command = [sys.executable, "-m", "ruff", "check", "--output-format", "concise", "."]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_no_weights_are_pickled():
    assert [relative(p) for p in tracked() if p.suffix in {".pkl", ".pickle", ".pt", ".pth", ".ckpt"}] == []


def test_source_files_are_shorter_than_350_lines():
    lengths = {relative(p): len(p.read_text(encoding="utf-8").splitlines()) for p in under("src", ".py")}
    assert {name: length for name, length in lengths.items() if length >= 350} == {}


def card_of(path):
    """A file's content as a card (a JSON object with a hash), or None if it is something else."""
    if path.suffix != ".json":
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) and "sha256" in content else None


def asset_faults(files) -> list[str]:
    """Assets without a card that carries their hash in the same folder, and cards that do not say enough."""
    cards = {path: card for path in files if (card := card_of(path)) is not None}
    found = [
        f"{path.name} lacks {key}"
        for path, card in cards.items()
        for key in ("what", "how_made", "licence")
        if not card.get(key)
    ]
    hashes = {
        (path.parent, digest)
        for path, card in cards.items()
        for digest in re.findall(r"\b[0-9a-f]{64}\b", json.dumps(card))
    }
    for path in files:
        if path in cards or path.name.startswith("."):
            continue
        if (path.parent, hashlib.sha256(path.read_bytes()).hexdigest()) not in hashes:
            found.append(f"{path.name} has no card with its hash")
    return found


def test_every_asset_has_a_card_with_its_hash():
    assert asset_faults(under("assets")) == []


def test_an_asset_that_was_changed_or_has_no_card_is_found(tmp_path):
    data, card = tmp_path / "weights.safetensors", tmp_path / "weights.json"
    data.write_bytes(b"trained")
    good = {"what": "w", "how_made": "h", "licence": "MIT", "sha256": hashlib.sha256(b"trained").hexdigest()}
    card.write_text(json.dumps(good))
    assert asset_faults([data, card]) == []
    assert asset_faults([data]) == ["weights.safetensors has no card with its hash"]
    data.write_bytes(b"damaged")
    assert asset_faults([data, card]) == ["weights.safetensors has no card with its hash"]
    card.write_text(json.dumps({**good, "licence": ""}))
    assert "weights.json lacks licence" in asset_faults([data, card])


def test_the_repository_is_named_in_one_place():
    """Pages and badges take the address from _config.yml; packaging metadata has its own copy."""
    address = "minilab-book/" + "minilab"
    allowed = {"_config.yml", "CITATION.cff", "README.md"}
    named = {relative(p) for p in text_files() if address in p.read_text(encoding="utf-8", errors="replace")}
    assert (ROOT / "_config.yml").read_text(encoding="utf-8").count(address) == 1
    assert {name for name in named - allowed if not name.endswith(".ipynb")} == set()
