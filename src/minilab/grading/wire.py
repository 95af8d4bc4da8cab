"""Calls and values between the judge and the process of a submission.

The judge holds the tests; the other process holds what a student wrote. A test calls a student's function, and what
arrives there is a message: numbers, lists and tensors travel as copies, functions as references that call back. So a
test runs without its text, its variables or its verdict ever being where the student's code is.

- Nothing that comes from the submission is unpickled, and no object of its own making reaches a test: only data, and
  functions. (A callback of a test may be given more: `decode(target, draft)` gets models that answer by message.)
- The other way a few things are pickled: networks and other objects of `minilab`. They lose nothing by it.
- Gradients cross. A result that depends on an argument differentiably is attached to it, and its backward pass is a
  message of its own; so do calls of calls.
- What a function does to its arguments in place, to tensors, generators and networks, is done to the originals too.
"""

from __future__ import annotations

import builtins
import copy
import dataclasses
import importlib
import json
import operator
import pickle
import socket
import struct
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from minilab.grading.values import (
    Message,
    Unlisted,
    dtype_of,
    pack_tensor,
    parts_of,
    record_of,
    replaced,
    unpack_tensor,
    version_of,
)

LARGEST = 1 << 28  # bytes of one message
ENDED = "the process of the notebook has ended: it ended itself, crashed or was out of memory"
COLLECTIONS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
SPECIAL = {"truth": bool, "iterate": iter, "next": next, "length": len, "item": operator.getitem}


class Gone(RuntimeError):
    """The other process has ended, or answers no more."""


class Remote:
    """An object of the other process: its public attributes and items are fetched, its methods called there."""

    def __init__(self, peer: Peer, handle: int) -> None:
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


class _Attach(torch.autograd.Function):
    """Tensors that came back from a call, as functions of the tensors that went into it."""

    @staticmethod
    def forward(ctx, peer, call, results, *inputs):
        ctx.peer, ctx.call = peer, call
        return tuple(result.clone() for result in results)

    @staticmethod
    def backward(ctx, *grads):
        found = ctx.peer.ask({"op": "backward", "call": ctx.call}, [None if g is None else g.clone() for g in grads])
        return None, None, None, *found


class Peer:
    """One end. `trusting` is the submission's: it accepts pickles, and answers to more than calls.

    `names` finds classes of named tuples. `on_late` is called once when an answer is not there at `deadline`.
    """

    def __init__(self, connection: socket.socket, *, trusting: bool = False, names: dict | None = None,
                 on_late: Callable[[], None] = lambda: None, extra: dict[str, Callable] | None = None) -> None:
        self.connection, self.trusting, self.names = connection, trusting, names if names is not None else {}
        self.on_late, self.extra = on_late, extra or {}
        self.deadline, self.grace, self.late, self.busy = float("inf"), 5.0, False, 0
        self._mine: list = []  # what the other side may refer to, by number
        self._number: dict[int, int] = {}  # id of one of mine -> its number
        self._theirs: dict[int, int] = {}  # id of what stands here for one of theirs -> its number
        self._received: dict[int, object] = {}  # number of one of theirs -> what stands for it here
        self._versions: dict[int, int] = {}  # number of a network of theirs -> how often it had been changed
        self._calls: dict[int, tuple[list, list]] = {}  # for backward passes: what went in, what came out
        self._count = 0

    # -------------------------------------------------------------------------------------- asking

    def call(self, handle: int, args, kwargs):
        return self.ask({"op": "call", "what": handle, "grad": torch.is_grad_enabled()}, args, kwargs)

    def ask(self, request: dict, args=(), kwargs=None):
        """Send a request, serve what the other side asks meanwhile, and return the value of its answer."""
        out = Message()
        request |= {"args": self._pack(list(args), out), "kwargs": self._pack(kwargs or {}, out)}
        self._send(request, out)
        while True:
            answer, buffers = self._receive()
            if "op" not in answer:
                break
            self._answer(answer, buffers, argument=True)
        self._take_over(answer, buffers, out)
        if "error" in answer:
            raise self._error(*answer["error"])
        back = Message()
        value = self._unpack(answer["value"], buffers, back, argument=request["op"] in ("attribute", "special"))
        if answer.get("call") is None:
            return value
        inputs = [t for t in out.tensors if t.requires_grad]
        attached = iter(_Attach.apply(self, answer["call"], [t.detach() for t in back.tensors if t.requires_grad],
                                      *inputs))
        swap = {id(t): next(attached) for t in back.tensors if t.requires_grad}
        return replaced(value, swap)

    def _take_over(self, answer: dict, buffers: list, out: Message) -> None:
        """Do to the originals what was done to the copies."""
        with torch.no_grad():
            for i, data, grad in answer.get("changed", ()):
                original, spare = out.tensors[i], Message()
                if data is not None:
                    original.copy_(self._unpack(data, buffers, spare))
                if grad is not None:
                    original.grad = self._unpack(grad, buffers, spare)
            for generator, state in zip(out.generators, answer.get("generators", ()), strict=False):
                generator.set_state(self._unpack(state, buffers, Message()))
            for number, state in answer.get("networks", ()):
                torch.nn.Module.load_state_dict(self._mine[number], self._unpack(state, buffers, Message()))

    # -------------------------------------------------------------------------------------- answering

    def serve(self) -> None:
        """Answer until the other side hangs up."""
        while True:
            try:
                request, buffers = self._receive()
            except Gone:
                return
            self._answer(request, buffers, argument=False)

    def _answer(self, request: dict, buffers: list, *, argument: bool) -> None:
        back, out, answer = Message(), Message(), {}
        try:
            args = self._unpack(request["args"], buffers, back, argument=argument)
            kwargs = self._unpack(request["kwargs"], buffers, back, argument=argument)
            before = [t._version for t in back.tensors]
            with torch.set_grad_enabled(bool(request.get("grad", True))):
                self.busy += 1
                try:
                    value = self._do(request, args, kwargs)
                finally:
                    self.busy -= 1
                answer["value"] = self._pack(value, out)
            answer |= self._changes(back, before, out)
            inputs, results = ([t for t in m.tensors if t.requires_grad] for m in (back, out))
            if request["op"] == "call" and inputs and results:
                self._count += 1
                self._calls[self._count] = inputs, results
                answer["call"] = self._count
            self._send(answer, out)
        except Gone:
            raise
        except BaseException as problem:  # sys.exit() and Ctrl-C of a student's function are errors like others
            self._send({"error": _told(problem)}, Message())

    def _changes(self, back: Message, before: list[int], out: Message) -> dict:
        spare = Unlisted(out)
        changed = [[i, None if t._version == version else self._pack(t.detach(), spare), self._pack(t.grad, spare)]
                   for i, (t, version) in enumerate(zip(back.tensors, before, strict=True))
                   if t.is_leaf and (t._version != version or t.grad is not None)]
        networks = []
        for number, known in self._versions.items():
            if (now := version_of(self._received[number])) != known:
                self._versions[number] = now
                networks.append([number, self._pack(dict(self._received[number].state_dict()), spare)])
        states = [self._pack(generator.get_state(), spare) for generator in back.generators]
        return {"changed": changed, "networks": networks, "generators": states}

    def _do(self, request: dict, args: list, kwargs: dict):
        operation = request["op"]
        if operation in self.extra:
            return self.extra[operation](*args, **kwargs)
        if operation == "backward":
            inputs, results = self._calls[request["call"]]
            pairs = [(r, g) for r, g in zip(results, args, strict=True) if g is not None]
            return list(torch.autograd.grad([r for r, _ in pairs], inputs, [g for _, g in pairs],
                                            retain_graph=True, allow_unused=True))
        what = self._mine[request["what"]]
        if operation == "call":
            return what(*args, **kwargs)
        if operation == "special":
            return SPECIAL[request["name"]](what, *args)
        # The attributes of functions, generators and other parts of the interpreter would lead to the tests.
        if operation == "attribute" and not request["name"].startswith("_") and type(what).__module__ != "builtins":
            return getattr(what, request["name"])
        raise ValueError(f"no such request: {operation}")

    # -------------------------------------------------------------------------------------- values

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

    # -------------------------------------------------------------------------------------- bytes

    def _send(self, message: dict, out: Message) -> None:
        frame = self._frame(message, out)
        try:
            self.connection.settimeout(None if self.deadline == float("inf") else 30.0)
            self.connection.sendall(frame)
        except OSError as problem:
            raise Gone(ENDED) from problem

    @staticmethod
    def _frame(message: dict, out: Message) -> bytes:
        head = json.dumps(message | {"sizes": [len(b) for b in out.buffers]}).encode("utf-8", "surrogatepass")
        if (size := len(head) + sum(map(len, out.buffers))) > LARGEST:
            raise ValueError(f"{size / 1e6:.0f} MB are too much to hand over")
        return struct.pack("<I", len(head)) + head + b"".join(out.buffers)

    def _receive(self) -> tuple[dict, list[bytes]]:
        (size,) = struct.unpack("<I", self._exactly(4))
        if size > LARGEST:
            raise Gone("the process of the notebook sent nonsense")
        try:
            head = self._exactly(size)
            message = json.loads(head)
            sizes = [int(n) for n in message["sizes"]]
            if sum(sizes) > LARGEST or min(sizes, default=0) < 0:
                raise ValueError(sizes)
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            raise Gone("the process of the notebook sent nonsense") from problem
        return message, [self._exactly(n) for n in sizes]

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            if (left := self.deadline - time.monotonic()) <= 0 and not self.late:
                self.late, left = True, self.grace
                self.deadline = time.monotonic() + left
                self.on_late()
            if left <= 0:
                raise Gone("the process of the notebook did not stop when it was told to")
            try:
                self.connection.settimeout(None if left == float("inf") else left)
                piece = self.connection.recv(min(size - len(data), 1 << 20))
            except TimeoutError:
                continue
            except OSError:
                piece = b""
            if not piece:
                raise Gone(ENDED)
            data += piece
        return bytes(data)

    def _error(self, name: str, message: str, where: str) -> Exception:
        if self.late and name == "KeyboardInterrupt":
            return TimeoutError("stopped: it did not end in time")
        kind = getattr(builtins, str(name), None)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            kind, message = RuntimeError, f"{name}: {message}"
        try:
            error = kind(str(message))
        except TypeError:
            error = RuntimeError(f"{name}: {message}")
        if where:
            error.add_note(f"raised in: {where}")
        return error


def _told(problem: BaseException) -> list[str]:
    """An error as the other side tells it: its type, what it says, and the line where it arose."""
    said = problem.args[0] if len(problem.args) == 1 and isinstance(problem.args[0], str) else str(problem)
    frames = [f for f in traceback.extract_tb(problem.__traceback__) if Path(f.filename).parent.name != "grading"]
    return [type(problem).__name__, said[:2000], (frames[-1].line or "")[:200] if frames else ""]
