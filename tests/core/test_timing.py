"""Times are of the work alone: warmed up, waited for, taken in turn. The clock of these tests is our own."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minilab.core import timing


class Machine:
    """A clock and a device: work is queued in no time, and time passes when someone waits for it."""

    def __init__(self) -> None:
        self.now, self.queued, self.waits = 0.0, 0.0, []

    def queue(self, seconds: float) -> None:
        self.queued += seconds

    def wait(self, device) -> None:
        self.waits.append(device)
        self.now, self.queued = self.now + self.queued, 0.0

    def work(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: machine.now))
    monkeypatch.setattr(timing, "wait", machine.wait)
    return machine


def test_queued_work_is_waited_for_and_warm_up_is_not_charged(machine):
    """Without the second wait a call takes 0 s; without the first, call one pays for the warm-up."""
    found = timing.times(lambda: machine.queue(3.0), repeats=4, warmup=5, device="cuda:1")
    assert found == pytest.approx([3.0] * 4)
    assert set(machine.waits) == {"cuda:1"}


def test_first_slow_calls_are_left_out(machine):
    cost = iter([50.0, 20.0, 1.0, 2.0, 4.0])
    assert timing.times(lambda: machine.work(next(cost)), repeats=3, warmup=2) == pytest.approx([1, 2, 4])
    assert next(cost, None) is None, "called warmup + repeats times"


def test_functions_take_turns_and_keep_their_own_times(machine):
    calls = []

    def function(name, seconds):
        return lambda: (calls.append(name), machine.work(seconds + 100 * (len(calls) <= 2)))

    found = timing.interleaved({"a": function("a", 1.0), "b": function("b", 2.0)}, repeats=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert {name: pytest.approx(t) for name, t in found.items()} == {"a": [1.0] * 3, "b": [2.0] * 3}


def test_a_machine_that_slows_down_treats_all_functions_alike(machine):
    """The clock runs 1 % slower with each call: one after the other, "b" would look 22 % slower than "a"."""
    calls = []

    def work():
        calls.append(1)
        machine.work(1.01 ** len(calls))

    found = timing.interleaved({"a": work, "b": work}, repeats=20)
    ratio = timing.spread(found["b"])["median"] / timing.spread(found["a"])["median"]
    assert ratio == pytest.approx(1.01, abs=1e-3)


@pytest.mark.parametrize("n", [2, 3, 7, 50])
def test_spread_is_the_median_and_quartiles_of_numpy(n):
    seconds = np.random.default_rng(n).exponential(size=n)
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    assert timing.spread(seconds.tolist()) == pytest.approx({"median": median, "low": low, "high": high})


def test_a_single_time_has_no_spread():
    assert timing.spread([0.25]) == {"median": 0.25, "low": 0.25, "high": 0.25}


def test_each_kind_of_device_is_waited_for_in_its_own_way(monkeypatch):
    waited = []
    stream = type("Stream", (), {"synchronize": lambda self: waited.append(torch.device("cuda:1"))})
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream())
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    timing.wait("cpu")
    assert waited == []
    timing.wait("cuda:1")
    timing.wait(torch.device("mps"))
    assert waited == [torch.device("cuda:1"), "mps"]


def test_real_clock_sees_a_real_pause():
    import time

    found = timing.times(lambda: time.sleep(0.02), repeats=3, warmup=0)
    assert len(found) == 3 and min(found) >= 0.02


def test_marks_are_as_far_apart_as_what_was_done_between_them():
    first = timing.Mark(torch.device("cpu"))
    time.sleep(0.02)
    second = timing.Mark(torch.device("cpu"))
    assert 0.02 <= second.seconds_since(first) < 2 and second.seconds_since(second) == 0
