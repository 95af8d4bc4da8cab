"""Values on the wire between judge and jail: tensors, records and networks as JSON and bytes."""

from __future__ import annotations

import dataclasses
import importlib

import torch


class Message:
    """What is said, with its bytes, and the tensors and generators in it, in order."""

    def __init__(self) -> None:
        self.buffers: list[bytes] = []
        self.tensors: list[torch.Tensor] = []
        self.generators: list[torch.Generator] = []

    def add(self, data: bytes) -> int:
        self.buffers.append(data)
        return len(self.buffers) - 1


class Unlisted(Message):
    """The same message, for tensors and generators in it that are neither arguments nor results."""

    def __init__(self, out: Message) -> None:
        super().__init__()
        self.buffers = out.buffers


def pack_tensor(tensor: torch.Tensor, out: Message) -> list:
    """A tensor as JSON; its bytes are appended to `out`, and so is the tensor itself."""
    out.tensors.append(tensor)
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().reshape(-1)
    plain = plain.clone(memory_format=torch.contiguous_format)  # an expanded number has no stride
    data = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    name = str(tensor.dtype).removeprefix("torch.")
    return ["tensor", name, list(tensor.shape), out.add(data), tensor.requires_grad]


def unpack_tensor(packed: list, buffers: list, back: Message) -> torch.Tensor:
    """The tensor of `pack_tensor`, without its tag. Raises ValueError where bytes and shape do not agree."""
    name, shape, buffer, requires_grad = packed
    dtype, data = dtype_of(name), buffers[buffer]
    count = 1
    for n in shape:
        count *= int(n)
    if any(int(n) < 0 for n in shape) or count * dtype.itemsize != len(data):
        raise ValueError("a tensor whose bytes do not fit its shape")
    tensor = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
    tensor = tensor.reshape(shape).requires_grad_(bool(requires_grad))
    back.tensors.append(tensor)
    return tensor


def dtype_of(name: str) -> torch.dtype:
    """torch.float32 for "float32"."""
    if not isinstance(found := getattr(torch, name, None), torch.dtype):
        raise TypeError(f"{name} is no dtype")
    return found


def record_of(module: str, name: str, fields: dict):
    """A dataclass of the package, made by its own constructor, with its checks."""
    kind = getattr(importlib.import_module(module), name, None) if module.split(".")[0] == "minilab" else None
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise TypeError(f"{module}.{name} is no record of minilab")
    return kind(**fields)


def replaced(value, swap: dict[int, torch.Tensor]):
    """The same lists and dicts with other tensors in the place of some, given by their id."""
    if isinstance(value, torch.Tensor):
        return swap.get(id(value), value)
    if isinstance(value, dict):
        return {key: replaced(item, swap) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(replaced(item, swap) for item in value)
    return value


def parts_of(network: torch.nn.Module) -> dict[str, tuple]:
    """The names and shapes of a network's numbers."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def version_of(network: torch.nn.Module) -> int:
    """How often the numbers of a network have been changed in place."""
    return sum(tensor._version for tensor in network.state_dict(keep_vars=True).values())
