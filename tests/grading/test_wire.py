"""Calls by message: values arrive as they were sent, gradients and changes come back, and objects do not pass."""

import dataclasses
import json
import math
import socket
import struct
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minilab.ensembles.contest import Entry
from minilab.grading.wire import Gone, Peer


@pytest.fixture
def far():
    """What is given a function, and returns it as the other side would call it: `far(f)(x)` is f(x), by message."""
    here, there = socket.socketpair()
    names: dict = {}
    student = Peer(there, trusting=True, extra={"fetch": names.get})
    thread = threading.Thread(target=student.serve, daemon=True)
    thread.start()
    judge = Peer(here)

    def give(function):
        names["it"] = function
        return judge.ask({"op": "fetch"}, ["it"])

    give.judge, give.student, give.raw = judge, student, there
    yield give
    here.close()
    thread.join(timeout=5)


VALUES = [None, True, 0, -1, 10**40, 0.1, -0.0, math.inf, "", "é\ud800", b"\x00\xff", [], [1, [2.0, None]], (),
          (1, (2,)), {1, 2}, frozenset({3}), {(1, 2): [3], "a": None}, range(2, 9, 3)]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_arrive_as_they_are(far, value):
    got = far(lambda x: x)(value)
    assert got == value and type(got) is type(value)
    assert math.isnan(far(lambda x: x)(math.nan)) and math.copysign(1, far(lambda x: x)(-0.0)) == -1


@pytest.mark.parametrize("name", ["float64", "float16", "bfloat16", "bool", "int8", "complex64"])
def test_tensors_of_every_kind_arrive(far, name):
    dtype = getattr(torch, name)
    whole = torch.arange(6).reshape(2, 3).to(dtype)
    for sent in (whole, whole.T, whole[:, ::2], whole[0, 1], whole[:0], whole[1:2, :1]):
        got = far(lambda x: x)(sent)
        assert got.dtype == sent.dtype and got.shape == sent.shape and torch.equal(got, sent)
    row = torch.ones(1).expand(5)
    assert torch.equal(far(lambda x: x)(row), row)
    assert isinstance(far(lambda: np.arange(3.0))(), np.ndarray) and far(lambda: np.float64(2))() == 2.0


def test_callbacks_call_back_and_their_errors_pass_through(far):
    def f(g, x):
        try:
            return g(x)
        except KeyError as problem:
            return f"caught {problem}"

    assert far(f)(lambda x: x + 1, 2) == 3 and far(f)({}.__getitem__, "two") == "caught 'two'"
    with pytest.raises(ValueError, match="too small: 2"):
        far(f)(lambda x: (_ for _ in ()).throw(ValueError(f"too small: {x}")), 2)
    with pytest.raises(RuntimeError, match="SystemExit"):
        far(exit)(0)


def test_gradients_cross_in_both_directions(far):
    """d/dx of a student's function that calls the test's function, against the same without messages."""
    def student(x, statistic, w):
        return (statistic(x * w) * x).sum() + (w**3).sum()

    def statistic(h):
        return h.cos() + h.square().mean(-1, keepdim=True)

    g = torch.Generator().manual_seed(0)
    x, w = (torch.randn(3, 4, dtype=torch.float64, generator=g).requires_grad_() for _ in range(2))
    expected = torch.autograd.grad(student(2 * x, statistic, w), (x, w))
    got = torch.autograd.grad(far(student)(2 * x, statistic, w), (x, w))
    assert all(torch.allclose(a, b) for a, b in zip(got, expected, strict=True))
    inside = far(lambda z, f: torch.autograd.grad(f(z.requires_grad_()).sum(), z)[0])(x.detach(), statistic)
    assert torch.allclose(inside, torch.autograd.grad(statistic(x).sum(), x)[0])
    with torch.no_grad():
        assert not far(student)(x, statistic, w).requires_grad


def test_what_is_done_to_an_argument_is_done_to_the_original(far):
    x, g = torch.zeros(3), torch.Generator().manual_seed(0)
    far(lambda x: x.add_(2).sum())(x)
    assert x.tolist() == [2, 2, 2]
    first, second = (far(lambda g: torch.rand(2, generator=g))(g) for _ in range(2))
    fresh = torch.Generator().manual_seed(0)
    assert torch.equal(torch.cat((first, second)), torch.rand(4, generator=fresh))
    assert torch.equal(g.get_state(), fresh.get_state())


def test_networks_are_sent_once_and_come_back_changed_or_the_same(far):
    def trained(net, other):
        import copy

        new = copy.deepcopy(net)
        with torch.no_grad():
            new.weight.mul_(2)
        return new.requires_grad_(False), other

    net, other = torch.nn.Linear(2, 3), torch.nn.Linear(5, 1)
    before = net.weight.detach().clone()
    new, same = far(trained)(net, other)
    assert same is other and new is not net and torch.equal(new.weight, 2 * before) and torch.equal(net.weight, before)
    assert not new.weight.requires_grad and net.weight.requires_grad

    def spoiled(net):
        with torch.no_grad():
            net.weight.zero_()

    far(spoiled)(net)
    assert not net.weight.any(), "what was done to the copy is done to the original"


def test_records_of_the_package_pass_and_keep_their_identity(far):
    entry = Entry(epochs=8, weight_decay=0.8, members=2)
    assert far(lambda e: e)(entry) is entry
    changed = far(lambda e: dataclasses.replace(e, members=e.members + 1))(entry)
    assert isinstance(changed, Entry) and changed.members == 3 and entry.members == 2


def test_objects_answer_by_message_where_a_test_gives_them_and_nowhere_else(far):
    row = SimpleNamespace(bound=SimpleNamespace(value=0.5), many=[1, 2])
    assert far(lambda r: (r.bound.value, r.many, bool(r)))(row) == (0.5, [1, 2], True)
    assert far(lambda files: list(files))(n * n for n in range(3)) == [0, 1, 4]

    class Any:
        def __eq__(self, other):
            return True

    with pytest.raises(TypeError, match="an object came back"):
        far(lambda: Any())()
    with pytest.raises(TypeError, match="no value that can be given"):
        far(lambda: Any)()
    given = far(lambda f: f(SimpleNamespace(x=3)))(lambda model: model.x + 1)
    assert given == 4, "an argument of a callback may be one"


@pytest.mark.parametrize("attribute", ["__globals__", "__code__", "gi_frame", "__class__", "f_back"])
def test_functions_and_generators_show_nothing_but_their_values(far, attribute):
    secret = "a hidden test"

    def probe(thing):
        try:
            return str(getattr(thing, attribute))
        except Exception as problem:
            return type(problem).__name__

    for thing in (lambda: secret, (secret for _ in range(1))):
        assert secret not in far(probe)(thing)

    def asked(thing):  # past the proxy
        peer = far.student
        return peer.ask({"op": "attribute", "what": peer._theirs[id(thing)], "name": attribute})

    with pytest.raises(ValueError, match="no such request"):
        far(asked)(lambda: secret)


def frame(message: dict, *buffers: bytes) -> bytes:
    head = json.dumps(message | {"sizes": [len(b) for b in buffers]}).encode()
    return struct.pack("<I", len(head)) + head + b"".join(buffers)


@pytest.mark.parametrize(("answer", "error"), [
    (b"\xff" * 8, Gone), (struct.pack("<I", 4) + b"[1,]", Gone), (struct.pack("<I", 2) + b"{}", Gone),
    (struct.pack("<I", 90_000) + b"[" * 90_000, Gone), (frame({"value": 1, "sizes": "x"})[:20], Gone),
    (frame({"value": ["pickle", 0, 0]}, b"cos\nsystem\n(S'true'\ntR."), TypeError),
    (frame({"value": ["record", 0, "os", "system", {"command": "true"}]}), TypeError),
    (frame({"value": ["record", 0, "minilab.core.files", "package_data", {"name": "x"}]}), TypeError),
    (frame({"value": ["tensor", "float32", [1 << 40], 0, False]}, b"1234"), ValueError),
    (frame({"value": ["tensor", "load", [1], 0, False]}, b"1234"), TypeError),
    (frame({"value": ["yours", 10**6]}), IndexError), (frame({"value": ["nothing", 1]}), TypeError),
])  # fmt: skip
def test_a_forged_answer_is_an_error_and_runs_nothing(answer, error):
    here, there = socket.socketpair()
    there.sendall(answer)
    there.shutdown(socket.SHUT_WR)
    with pytest.raises(error):
        Peer(here).ask({"op": "fetch"}, ["it"])


def test_who_does_not_answer_is_told_once_and_then_given_up():
    here, _there = socket.socketpair()
    told = []
    peer = Peer(here, on_late=lambda: told.append(1))
    peer.deadline, peer.grace = 0.0, 0.05
    with pytest.raises(Gone, match="did not stop"):
        peer.ask({"op": "run"}, ["while True: pass"])
    assert told == [1]
