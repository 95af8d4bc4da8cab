"""Values between judge and jail as messages: numbers, lists, tensors and records are copied, others referred to."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import pickle
import types
from collections.abc import Callable

import numpy as np
import torch

from minilab.grading.values import (
    Message,
    Unlisted,
    dtype_of,
    pack_tensor,
    parts_of,
    record_of,
    unpack_tensor,
    version_of,
)

LARGEST = 1 << 28  # bytes of one message
COLLECTIONS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


class Remote:
    """An object of the other process: its public attributes and items are fetched, its methods called there."""

    def __init__(self, peer: Packer, handle: int) -> None:
        self.__dict__.update(_peer=peer, _handle=handle)

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return self._peer.ask({"op": "attribute", "what": self._handle, "name": name})

    def __setattr__(self, name: str, value) -> None:
        raise AttributeError(f"{name} belongs to the caller and cannot be set from here")

    def __call__(self, *args, **kwargs):
        return self._peer.call(self._handle, args, kwargs)

    def __bool__(self) -> bool:
        return self._special("truth")

    def __iter__(self):
        return self._special("iterate")

    def __next__(self):
        return self._special("next")

    def __len__(self):
        return self._special("length")

    def __getitem__(self, key):
        return self._special("item", key)

    def _special(self, name: str, *args):
        return self._peer.ask({"op": "special", "what": self._handle, "name": name}, args)


class Packer:
    """What one end knows of the other's objects, and the other of ours. `trusting` and `names` as `wire.Peer` has them.

    An end can `ask` the other for something, and `call` one of its functions.
    """

    ask: Callable
    call: Callable

    def __init__(self, trusting: bool, names: dict) -> None:
        self.trusting, self.names = trusting, names
        self._mine: list = []  # what the other side may refer to, by number
        self._number: dict[int, int] = {}  # id of one of mine -> its number
        self._theirs: dict[int, int] = {}  # id of what stands here for one of theirs -> its number
        self._received: dict[int, object] = {}  # number of one of theirs -> what stands for it here
        self._versions: dict[int, int] = {}  # number of a network of theirs -> how often it had been changed

    def _pack(self, value, out: Message):
        """A value as JSON; its bytes, tensors and generators are appended to `out`."""
        if isinstance(value, (str, bytes)) and len(value) > LARGEST:
            raise ValueError(f"{len(value) / 1e6:.0f} MB are too much to hand over")
        if value is None or type(value) in (bool, int, float, str):
            return value
        if id(value) in self._theirs:
            return ["yours", self._theirs[id(value)]]
        if isinstance(value, torch.Tensor):
            return pack_tensor(value, out)
        if isinstance(value, (bytes, bytearray)):
            return ["bytes", out.add(bytes(value))]
        if isinstance(value, np.generic):
            return self._pack(value.item(), out)
        if isinstance(value, np.ndarray) and value.dtype != object:
            return ["array", pack_tensor(torch.from_numpy(value.copy()), Unlisted(out))]
        if isinstance(value, torch.Generator):
            out.generators.append(value)
            return ["generator", pack_tensor(value.get_state(), Unlisted(out))]
        if isinstance(value, (torch.dtype, torch.device)):
            return [type(value).__name__, str(value).removeprefix("torch.")]
        if isinstance(value, range):
            return ["range", value.start, value.stop, value.step]
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            kind = type(value)
            return ["named", kind.__module__, kind.__name__, list(kind._fields), [self._pack(v, out) for v in value]]
        for name, kind in COLLECTIONS.items():
            if isinstance(value, kind):
                return [name, [self._pack(item, out) for item in value]]
        if isinstance(value, dict):
            return ["dict", [[self._pack(key, out), self._pack(item, out)] for key, item in value.items()]]
        return self._pack_object(value, out)

    def _pack_object(self, value, out: Message) -> list:
        ours = type(value).__module__.split(".")[0] in ("minilab", "torch")
        if id(value) in self._number and (not self.trusting or isinstance(value, FUNCTIONS)):
            return ["mine", self._number[id(value)]]
        if dataclasses.is_dataclass(value) and ours and not isinstance(value, type):
            number = self._keep(value)
            fields = {f.name: self._pack(getattr(value, f.name), out) for f in dataclasses.fields(value) if f.init}
            return ["record", number, type(value).__module__, type(value).__qualname__, fields]
        if isinstance(value, torch.nn.Module) and self.trusting:
            return self._pack_network(value, out)
        if ours and not self.trusting and not isinstance(value, (type, *FUNCTIONS)):
            return ["pickle", self._keep(value), out.add(pickle.dumps(value))]
        if isinstance(value, (type, types.ModuleType)):
            raise TypeError(f"{value} is no value that can be given")
        return ["function" if isinstance(value, FUNCTIONS) else "object", self._keep(value), callable(value)]

    def _pack_network(self, network: torch.nn.Module, out: Message) -> list:
        """As the state of one that came from the other side and has the same parts."""
        parts = parts_of(network)
        for number, known in self._received.items():
            if type(known) is type(network) and parts_of(known) == parts:
                flags = {name: p.requires_grad for name, p in network.named_parameters()}
                return ["network", number, self._pack(dict(network.state_dict()), Unlisted(out)), flags,
                        network.training]
        raise TypeError(f"a {type(network).__name__} that is like none which was given")

    def _keep(self, value) -> int:
        if id(value) not in self._number:
            self._number[id(value)] = len(self._mine)
            self._mine.append(value)
        return self._number[id(value)]

    def _unpack(self, packed, buffers: list, back: Message, *, argument: bool = False):
        """The value of `_pack`. Objects by reference are refused unless it is an `argument` of a call."""
        if not isinstance(packed, list):
            return packed
        kind, *rest = packed

        def inner(part):
            return self._unpack(part, buffers, back, argument=argument)

        if kind in COLLECTIONS:
            return COLLECTIONS[kind](inner(item) for item in rest[0])
        if kind == "dict":
            return {inner(key): inner(item) for key, item in rest[0]}
        if kind == "tensor":
            return unpack_tensor(rest, buffers, back)
        if kind == "bytes":
            return buffers[rest[0]]
        if kind == "array":
            return unpack_tensor(rest[0][1:], buffers, Message()).numpy()
        if kind == "generator":
            back.generators.append(torch.Generator())
            back.generators[-1].set_state(unpack_tensor(rest[0][1:], buffers, Message()))
            return back.generators[-1]
        if kind == "range":
            return range(*rest)
        if kind == "device":
            return torch.device(rest[0])
        if kind == "dtype":
            return dtype_of(rest[0])
        if kind == "named":
            return self._named(*rest[:3], [inner(item) for item in rest[3]])
        if kind == "yours":
            return self._mine[rest[0]]
        if kind == "mine":
            return self._received[rest[0]]
        if kind == "record":
            return self._stand(rest[0], record_of(*rest[1:3], {name: inner(v) for name, v in rest[3].items()}))
        if kind == "network":
            return self._network(*rest[1:], template=self._mine[rest[0]], inner=inner)
        if kind == "pickle" and self.trusting:
            value = self._stand(rest[0], pickle.loads(buffers[rest[1]]))
            if isinstance(value, torch.nn.Module):
                self._versions[rest[0]] = version_of(value)
            return value
        known = self._received.get(rest[0])
        if kind == "function" or (kind == "object" and rest[1] and not argument and not self.trusting):
            return known if callable(known) else self._stand(rest[0], self._function(rest[0]))
        if kind == "object" and (argument or self.trusting):
            return known if known is not None else self._stand(rest[0], Remote(self, rest[0]))
        raise TypeError("an object came back in place of numbers, lists or tensors")

    def _stand(self, number: int, value):
        if self.trusting or isinstance(value, (Remote, types.FunctionType)):
            self._received[number], self._theirs[id(value)] = value, number
        return value

    def _function(self, number: int) -> Callable:
        def remote(*args, **kwargs):
            return self.call(number, args, kwargs)

        return remote

    def _named(self, module: str, name: str, fields: list[str], values: list):
        kind = self.names.get(name)
        if kind is None and module.split(".")[0] == "minilab":
            kind = getattr(importlib.import_module(module), name, None)
        if not (isinstance(kind, type) and issubclass(kind, tuple) and getattr(kind, "_fields", None) == tuple(fields)):
            return tuple(values)
        return kind._make(values)

    def _network(self, state, flags: dict, training: bool, *, template, inner) -> torch.nn.Module:
        if not isinstance(template, torch.nn.Module):
            raise TypeError("not a network")
        network = copy.deepcopy(template)
        network.load_state_dict(inner(state))
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(bool(flags[name]))
        return network.train(bool(training))
