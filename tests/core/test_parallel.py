"""One function over many items: the same results in the same order, wherever they are made."""

import math
import os
import sys
import types

import pytest

from minilab.core.parallel import parallel_map

HERE = "__import__('os').getpid(), __import__('torch').get_num_threads()"


def square(x):
    return x * x


def fails_at_two(x):
    if x == 2:
        raise ValueError("two is too many")
    return x


def test_results_come_in_the_order_of_the_items():
    assert list(parallel_map(abs, range(-3, 3))) == [3, 2, 1, 0, 1, 2]
    assert list(parallel_map(abs, [])) == list(parallel_map(abs, [], workers=2)) == []


def test_one_worker_is_this_process_and_more_are_others_with_one_thread_each():
    """Processes cannot import a test's functions, but they have `eval`."""
    assert [pid for pid, _ in parallel_map(eval, [HERE])] == [os.getpid()]
    found = list(parallel_map(eval, [HERE] * 4, workers=2))
    assert os.getpid() not in {pid for pid, _ in found} and {threads for _, threads in found} == {1}


def test_results_come_as_soon_as_they_are_there():
    """A caller that keeps each result loses none of those before an error or an interruption."""
    seen, begun = [], []
    for result in parallel_map(lambda x: begun.append(x) or x, [5, 6, 7]):
        seen.append(result)
        assert begun == seen


@pytest.mark.parametrize("workers", [1, 2])
def test_what_one_item_raises_is_raised_after_the_results_before_it(workers):
    results = parallel_map(math.factorial, [0, 3, -1, 4], workers=workers)
    assert [next(results), next(results)] == [1, 6]
    with pytest.raises(ValueError, match="negative"):
        next(results)


def test_wrong_calls_are_refused_before_any_work():
    with pytest.raises(ValueError, match="workers is 0"):
        parallel_map(square, [1], workers=0)
    with pytest.raises(ValueError, match="unknown engine 'threads'; choose one of processes, ray"):
        parallel_map(square, [1], engine="threads")


def test_ray_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'minilab\[cluster\]'"):
        parallel_map(square, [1], engine="ray")


def test_ray_gets_no_more_tasks_at_a_time_than_workers(monkeypatch):
    """Against a stand-in that counts: `remote` begins a task, `get` ends it."""
    open_tasks, most, cancelled = [], [0], []

    class Task:
        def __init__(self, fn):
            self.fn = fn

        def remote(self, item):
            open_tasks.append(item)
            most[0] = max(most[0], len(open_tasks))
            return item, self.fn

    def get(reference):
        open_tasks.remove(reference[0])
        return reference[1](reference[0])

    begun = []
    ray = types.SimpleNamespace(is_initialized=lambda: bool(begun), init=lambda **given: begun.append(given),
                                remote=lambda **_: Task, get=get, cancel=cancelled.append)
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert list(parallel_map(square, range(9), workers=3, engine="ray")) == [x * x for x in range(9)]
    assert most == [3] and not open_tasks and not cancelled
    results = parallel_map(fails_at_two, range(9), workers=2, engine="ray")
    with pytest.raises(ValueError):
        list(results)
    assert len(cancelled) == 1  # the one that was under way
    assert len(begun) == 1  # Ray is begun once, and then it is there
