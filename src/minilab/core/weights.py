"""Trained weights on disk: a safetensors file, and beside it a card that says what it is and its hash.

- Nothing is unpickled. A file is hashed before a byte of it is parsed, so damage shows as a message, not as a
  strange model.
- Four storage types: fp32, bf16, fp16 (more digits and less range: for data), and int8 with one scale a row,
  scale = max|row| / 127, w ≈ scale * round(w / scale). The error of a weight is then at most scale / 2.
- Vectors (norms, biases) stay in fp32 beside int8 matrices: they are small, and each scales a whole layer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from minilab.core.files import checkout_root, package_data, replacing

STORED_TYPES = ("fp32", "bf16", "fp16", "int8")
REQUIRED = ("what", "how_made", "licence")  # a card without these does not let a reader judge the weights


def save_weights(
    state: Mapping[str, Tensor], path: Path | str, *, card: Mapping, dtype: str = "bf16"
) -> Path:
    """Write `state` to `path` (.safetensors) and its card to the .json beside it; return the path.

    `card` says what the weights are, how_made, licence, and whatever else helps (config, metrics); sha256,
    bytes, parameters and dtype are filled in. Integer tensors are stored as they are. Raises ValueError for
    an incomplete card, an unknown dtype, weights that are not finite, and two names that share one tensor.
    """
    path = Path(path)
    if absent := [key for key in REQUIRED if not card.get(key)]:
        raise ValueError(f"the card of {path.name} lacks {', '.join(absent)}; it needs {', '.join(REQUIRED)}")
    if dtype not in STORED_TYPES:
        raise ValueError(f"unknown dtype {dtype!r}; choose one of {', '.join(STORED_TYPES)}")
    if path.suffix != ".safetensors":
        raise ValueError(f"weights go to a .safetensors file, not {path.name}")
    _refuse_shared(state)
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stored |= _pack(name, tensor.detach().cpu(), dtype)
    data = to_safetensors(stored, metadata={"format": "pt"})
    facts = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "parameters": sum(t.numel() for t in state.values()),
        "dtype": dtype,
    }
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    with replacing(_card_path(path)) as temporary:
        text = json.dumps({**card, **facts}, indent=1, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8")
    return path


def load_weights(
    path: Path | str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> tuple[dict[str, Tensor], dict]:
    """Read a file, or an asset by its name ("speculative/target.safetensors"): its tensors and its card.

    Floating tensors come back as `dtype`, int8 ones multiplied out. Raises FileNotFoundError if there is no
    such file or card, and ValueError, before parsing, if the bytes are not those that the card promises.
    """
    path = Path(path) if Path(path).is_file() else asset_path(str(path))
    data, card = read_verified(path)
    try:
        stored = parse_safetensors(data)
    except SafetensorError as error:
        raise ValueError(f"{path} matches its card but is not safetensors ({error})") from error
    return {name: t.to(device) for name, t in _unpack(stored, dtype).items()}, card


def read_verified(path: Path) -> tuple[bytes, dict]:
    """The bytes of a weight file, once they match its card, and the card.

    Raises FileNotFoundError without a card, and ValueError if card or bytes are damaged.
    """
    card_path = _card_path(path)
    if not card_path.is_file():
        raise FileNotFoundError(f"{path} has no card {card_path.name} beside it. {_restore(path, {})}")
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
        promised = card["sha256"], card["bytes"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the card {card_path} is damaged ({error!r}). {_restore(path, {})}") from error
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest(), len(data)
    if found != promised:
        raise ValueError(
            f"{path} is corrupted or truncated: expected sha256 {promised[0]} ({promised[1]} bytes), "
            f"found {found[0]} ({found[1]} bytes). {_restore(path, card)}"
        )
    return data, card


def asset_path(name: str) -> Path:
    """The file of an asset that ships with minilab, such as "speculative/target.safetensors".

    Raises FileNotFoundError with the assets that are there.
    """
    folder = package_data("assets")
    path = folder / name
    if not path.is_file():
        files = (p for p in folder.rglob("[!.]*") if p.is_file())
        there = sorted(p.relative_to(folder).as_posix() for p in files)
        raise FileNotFoundError(f"no asset {name!r} in {folder}; there are: {', '.join(there) or 'none'}")
    return path


def sha256_of(path: Path | str) -> str:
    """The SHA-256 of a file as hexadecimal text, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pack(name: str, tensor: Tensor, dtype: str) -> dict[str, Tensor]:
    """The stored form of one tensor: itself in another type, or int8 values and their scales."""
    if not tensor.is_floating_point():
        return {name: tensor.contiguous()}
    if not torch.isfinite(tensor).all():
        raise ValueError(f"weight {name!r} holds NaN or infinity; the training that made it diverged")
    if dtype in ("bf16", "fp16"):
        half = tensor.to(torch.bfloat16 if dtype == "bf16" else torch.float16)
        if not torch.isfinite(half).all():
            raise ValueError(f"{name!r} holds numbers beyond the range of {dtype}; store it as fp32")
        return {name: half.contiguous()}
    if dtype == "fp32" or tensor.ndim < 2:
        return {name: tensor.float().contiguous()}
    rows = tensor.float().flatten(1)  # a convolution's output channel is a row too
    scale = rows.abs().amax(1) / 127
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))  # a row of zeros stays zero
    values = (rows / safe[:, None]).round().to(torch.int8)
    return {name: values.view(tensor.shape), f"{name}.scale": scale}


def _unpack(stored: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    quantized = {name for name, t in stored.items() if t.dtype == torch.int8 and f"{name}.scale" in stored}
    scales = {f"{name}.scale" for name in quantized}
    state = {}
    for name, tensor in stored.items():
        if name in quantized:
            scale = stored[f"{name}.scale"].view(-1, *[1] * (tensor.ndim - 1))
            state[name] = (tensor.float() * scale).to(dtype)
        elif name not in scales:
            state[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return state


def _refuse_shared(state: Mapping[str, Tensor]) -> None:
    """Tied weights would be stored twice and come back untied: the caller must drop one name."""
    seen: dict[tuple, str] = {}
    for name, t in state.items():
        key = (t.device, t.data_ptr(), t.shape, t.stride())
        if t.numel() and (first := seen.setdefault(key, name)) != name:
            raise ValueError(f"{name!r} and {first!r} are one tensor; save one, and tie them after loading")


def _card_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _restore(path: Path, card: Mapping) -> str:
    """How to get a good copy of `path` back."""
    root, path = checkout_root(), path.resolve()
    if root and path.is_relative_to(root / "assets"):
        both = path.relative_to(root).with_suffix("").as_posix()
        return f"Restore it with: git -C {root} checkout -- {both}.safetensors {both}.json"
    if path.is_relative_to(package_data("assets").resolve()):
        return "Restore it by installing minilab again, with pip's --force-reinstall --no-deps"
    return f"Make it again: {card.get('how_made', 'see where it came from')}"
