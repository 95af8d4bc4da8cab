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
import json
import operator
import socket
import struct
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from minilab.grading.packing import LARGEST, Packer
from minilab.grading.values import Message, Unlisted, replaced, version_of

ENDED = "the process of the notebook has ended: it ended itself, crashed or was out of memory"
SPECIAL = {"truth": bool, "iterate": iter, "next": next, "length": len, "item": operator.getitem}


class Gone(RuntimeError):
    """The other process has ended, or answers no more."""


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


class Peer(Packer):
    """One end. `trusting` is the submission's: it accepts pickles, and answers to more than calls.

    `names` finds classes of named tuples. `on_late` is called once when an answer is not there at `deadline`.
    """

    def __init__(self, connection: socket.socket, *, trusting: bool = False, names: dict | None = None,
                 on_late: Callable[[], None] = lambda: None, extra: dict[str, Callable] | None = None) -> None:
        super().__init__(trusting, names if names is not None else {})
        self.connection, self.on_late, self.extra = connection, on_late, extra or {}
        self.deadline, self.grace, self.late, self.busy = float("inf"), 5.0, False, 0
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
