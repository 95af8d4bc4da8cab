"""Weights: what comes back is what went in, to the stated error, or a message that says how to mend it."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file

from minilab.core import weights
from minilab.core.weights import asset_path, load_weights, save_weights, sha256_of

CARD = {"what": "a test model", "how_made": "python make_it.py", "licence": "MIT", "metrics": {"loss": 1.5}}


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    return {
        "embed": torch.randn(64, 16, generator=generator),
        "conv": torch.randn(8, 3, 5, 5, generator=generator),
        "norm": torch.randn(16, generator=generator),
        "scalar": torch.tensor(0.3),
        "steps": torch.tensor([7], dtype=torch.int64),
    }


def test_fp32_comes_back_exactly_with_its_card(state, tmp_path):
    path = save_weights(state, tmp_path / "m.safetensors", card=CARD, dtype="fp32")
    loaded, card = load_weights(path)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[k], state[k]) and loaded[k].dtype == state[k].dtype for k in state)
    assert card["what"] == CARD["what"] and card["metrics"] == {"loss": 1.5} and card["dtype"] == "fp32"
    assert card["bytes"] == path.stat().st_size
    assert card["parameters"] == 64 * 16 + 8 * 3 * 25 + 16 + 1 + 1
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() == sha256_of(path)
    assert json.loads((tmp_path / "m.json").read_text()) == card


def test_bf16_rounds_as_torch_does_and_leaves_integers(state, tmp_path):
    path = save_weights(state, tmp_path / "m.safetensors", card=CARD, dtype="bf16")
    loaded, _ = load_weights(path)
    assert torch.equal(loaded["embed"], state["embed"].bfloat16().float())
    assert torch.equal(loaded["steps"], state["steps"])
    assert load_file(path)["embed"].dtype == torch.bfloat16  # other readers see an ordinary file
    half, _ = load_weights(path, dtype=torch.bfloat16)
    assert half["embed"].dtype == torch.bfloat16 and half["steps"].dtype == torch.int64


def test_int8_error_is_at_most_half_a_step_of_its_own_row(state, tmp_path):
    # Rows of very different size: one scale for the whole matrix would wipe out the small ones.
    state["embed"] *= torch.logspace(-6, 3, 64)[:, None]
    loaded, _ = load_weights(save_weights(state, tmp_path / "m.safetensors", card=CARD, dtype="int8"))
    for name in ("embed", "conv"):
        rows, error = state[name].flatten(1), (loaded[name] - state[name]).flatten(1).abs()
        bound = rows.abs().amax(1) / 127 / 2
        assert (error.amax(1) <= bound * 1.0001).all()
        assert (error.amax(1) > bound * 0.2).all()  # it was rounded at all
    assert torch.equal(loaded["norm"], state["norm"]) and torch.equal(loaded["scalar"], state["scalar"])
    assert loaded.keys() == state.keys()


def test_int8_keeps_the_sign_the_extremes_and_rows_of_zeros(tmp_path):
    matrix = torch.tensor([[-1.0, 0.5, 1.0], [0.0, 0.0, 0.0], [2.54, -2.54, 0.02]])
    path = save_weights({"w": matrix}, tmp_path / "m.safetensors", card=CARD, dtype="int8")
    assert load_file(path)["w"].tolist() == [[-127, 64, 127], [0, 0, 0], [127, -127, 1]]
    loaded, _ = load_weights(path)
    torch.testing.assert_close(
        loaded["w"], torch.tensor([[-1.0, 64 / 127, 1.0], [0, 0, 0], [2.54, -2.54, 0.02]])
    )


def test_int8_file_is_a_quarter_of_fp32(tmp_path):
    state = {"w": torch.randn(256, 1024)}
    sizes = {d: save_weights(state, tmp_path / f"{d}.safetensors", card=CARD, dtype=d).stat().st_size
             for d in ("fp32", "bf16", "int8")}  # fmt: skip
    assert sizes["bf16"] / sizes["fp32"] == pytest.approx(0.5, rel=0.01)
    assert sizes["int8"] / sizes["fp32"] == pytest.approx(0.25, rel=0.01)


def test_a_parameter_that_is_called_scale_survives_int8(tmp_path):
    state = {"norm.scale": torch.randn(4), "w": torch.randn(4, 4), "bytes": torch.ones(3, dtype=torch.int8)}
    loaded, _ = load_weights(save_weights(state, tmp_path / "m.safetensors", card=CARD, dtype="int8"))
    assert loaded.keys() == state.keys()
    assert torch.equal(loaded["norm.scale"], state["norm.scale"]) and torch.equal(
        loaded["bytes"], state["bytes"]
    )


@pytest.mark.parametrize("damage", ["truncated", "one bit", "emptied", "longer"])
def test_damaged_file_fails_on_its_hash_before_it_is_parsed(state, tmp_path, monkeypatch, damage):
    path = save_weights(state, tmp_path / "m.safetensors", card=CARD)
    good = path.read_bytes()
    flipped = good[:-3] + bytes([good[-3] ^ 1]) + good[-2:]
    bad = {"truncated": good[: len(good) // 2], "one bit": flipped, "emptied": b"", "longer": good + b"\0"}[
        damage
    ]
    path.write_bytes(bad)
    monkeypatch.setattr(
        weights, "parse_safetensors", lambda data: pytest.fail("parsed before the hash was checked")
    )
    with pytest.raises(ValueError) as error:
        load_weights(path)
    message = str(error.value)
    assert str(path) in message and "python make_it.py" in message
    for data in (good, bad):
        assert hashlib.sha256(data).hexdigest() in message and f"({len(data)} bytes)" in message


def test_damaged_asset_of_a_checkout_is_restored_by_git(state, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "checkout_root", lambda: tmp_path)
    monkeypatch.setattr(weights, "package_data", lambda name: tmp_path / name)
    path = save_weights(state, tmp_path / "assets" / "speculative" / "m.safetensors", card=CARD)
    assert load_weights("speculative/m.safetensors")[0].keys() == state.keys()
    path.write_bytes(b"")
    command = f"git -C {tmp_path} checkout -- assets/speculative/m.safetensors assets/speculative/m.json"
    with pytest.raises(ValueError) as error:
        load_weights("speculative/m.safetensors")
    assert command in str(error.value)


def test_damaged_asset_of_an_installed_package_is_reinstalled(state, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "checkout_root", lambda: None)
    monkeypatch.setattr(weights, "package_data", lambda name: tmp_path / f"_{name}")
    save_weights(state, tmp_path / "_assets" / "m.safetensors", card=CARD).write_bytes(b"")
    with pytest.raises(ValueError, match="installing minilab again"):
        load_weights("m.safetensors")


def test_missing_or_damaged_card_is_named(state, tmp_path):
    path = save_weights(state, tmp_path / "m.safetensors", card=CARD)
    (tmp_path / "m.json").write_text('{"what": ')
    with pytest.raises(ValueError, match="card .*m.json is damaged"):
        load_weights(path)
    (tmp_path / "m.json").unlink()
    with pytest.raises(FileNotFoundError, match="no card m.json"):
        load_weights(path)


def test_missing_asset_lists_those_that_exist(state, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "package_data", lambda name: tmp_path)
    save_weights(state, tmp_path / "speculative" / "target.safetensors", card=CARD)
    assert asset_path("speculative/target.safetensors").is_file()
    with pytest.raises(FileNotFoundError, match="speculative/target.safetensors"):
        load_weights("speculative/targt.safetensors")


def test_interrupted_save_leaves_the_old_weights(state, tmp_path, monkeypatch):
    path = save_weights(state, tmp_path / "m.safetensors", card=CARD, dtype="fp32")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.replace", interrupt)
        save_weights({"w": torch.zeros(2, 2)}, path, card=CARD)
    assert torch.equal(load_weights(path)[0]["embed"], state["embed"])
    assert {p.name for p in tmp_path.iterdir()} == {"m.safetensors", "m.json"}


def test_tied_weights_are_refused_and_views_are_not(tmp_path):
    w = torch.randn(4, 4)
    with pytest.raises(ValueError, match="'head' and 'embed' are one tensor"):
        save_weights({"embed": w, "head": w}, tmp_path / "m.safetensors", card=CARD)
    path = save_weights(
        {"top": w[:2], "rest": w[2:], "turned": w.T}, tmp_path / "m.safetensors", card=CARD, dtype="fp32"
    )
    assert torch.equal(load_weights(path)[0]["turned"], w.T)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"card": {"what": "x"}}, "lacks how_made, licence"),
        ({"dtype": "fp8"}, "choose one of fp32, bf16, fp16, int8"),
        ({"state": {"w": torch.tensor([[1.0, float("nan")]])}}, "'w' holds NaN"),
        ({"path": "m.pt"}, r"go to a .safetensors file"),
    ],
)
def test_what_cannot_be_stored_is_refused(tmp_path, change, message):
    given = {
        "state": {"w": torch.ones(2, 2)},
        "path": "m.safetensors",
        "card": CARD,
        "dtype": "int8",
    } | change
    with pytest.raises(ValueError, match=message):
        save_weights(given["state"], tmp_path / given["path"], card=given["card"], dtype=given["dtype"])
    assert list(tmp_path.iterdir()) == []
