"""A function that is replayed gives what the call gives, and draws what the call draws."""

import gc
import subprocess
import sys

import pytest
import torch

from minilab.core.replay import Replay, _no_collection, replayed

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_without_a_gpu_it_is_the_function_itself():
    def double(x):
        return 2 * x

    assert replayed(double, "cpu") is double


@needs_cuda
def test_a_replay_computes_and_draws_what_the_call_does():
    generators = [torch.Generator("cuda").manual_seed(3) for _ in range(2)]

    def noisy(generator, x):
        return {"sum": x.cumsum(0) + torch.empty_like(x).normal_(generator=generator)}

    replay = replayed(lambda x: noisy(generators[0], x), "cuda", generators[:1])
    for n in (5, 5, 8, 5):
        x = torch.randn(n, device="cuda")
        torch.testing.assert_close(replay(x)["sum"], noisy(generators[1], x)["sum"])


def test_no_garbage_is_collected_while_a_graph_is_captured():
    with _no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


@needs_cuda
def test_a_graph_that_nobody_holds_does_not_die_during_the_next_capture():
    """In a cycle it waits for the garbage collector, and to free a graph is forbidden while one is captured."""
    device = torch.device("cuda")

    def kept_by_itself():
        cycle = [Replay(lambda x: 2 * x, (torch.ones(3),), device=device)]
        cycle.append(cycle)

    def litters(x):
        for _ in range(2000):  # enough to wake the collector
            [].append([{}])
        return 3 * x

    kept_by_itself()
    assert replayed(litters, device)(torch.ones(3)).tolist() == [3.0] * 3


@needs_cuda
def test_what_waits_for_the_gpu_is_refused_with_advice():
    """In a process of its own: a capture that failed leaves torch's default generator unusable."""
    asked = "import torch; from minilab.core.replay import replayed; replayed(lambda x: x * float(x.sum()), 'cuda')"
    done = subprocess.run([sys.executable, "-c", f"{asked}(torch.ones(3))"], capture_output=True, text=True)
    assert done.returncode == 1 and "neither wait for the GPU" in done.stderr
