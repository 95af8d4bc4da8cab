"""Wall-clock times that mean something: warmed up, synchronized, several of them."""

import statistics
import time
from collections.abc import Callable

import torch


def wait(device: torch.device | str) -> None:
    """Return once the device has done what it was asked in this stream: without it a GPU's work is timed as free."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


class Mark:
    """A point in a device's work, put behind what the current stream was asked for, without waiting for it.

    In a graph that is being captured it becomes part of it: each replay passes it anew.
    """

    def __init__(self, device: torch.device) -> None:
        self._event = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True, external=torch.cuda.is_current_stream_capturing())
            self._event.record(torch.cuda.current_stream(device))
        else:
            wait(device)
            self._moment = time.perf_counter()

    def seconds_since(self, earlier: "Mark") -> float:
        """Seconds between the two on the device's own clock, once both were reached."""
        if self._event is None:
            return self._moment - earlier._moment
        self._event.synchronize()
        return earlier._event.elapsed_time(self._event) / 1e3


def times(
    fn: Callable[[], object], *, repeats: int, warmup: int = 2, device: torch.device | str = "cpu"
) -> list[float]:
    """Seconds of `repeats` calls of `fn`, each from an idle device to an idle device."""
    for _ in range(warmup):
        fn()
    found = []
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        fn()
        wait(device)
        found.append(time.perf_counter() - start)
    return found


def interleaved(
    fns: dict[str, Callable[[], object]], *, repeats: int, warmup: int = 1, device: torch.device | str = "cpu"
) -> dict[str, list[float]]:
    """Times of several functions, called in turn (A B A B …), so that a drifting machine treats all alike."""
    found: dict[str, list[float]] = {name: [] for name in fns}
    for i in range(warmup + repeats):
        for name, fn in fns.items():
            seconds = times(fn, repeats=1, warmup=0, device=device)
            if i >= warmup:
                found[name] += seconds
    return found


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, and the interquartile range as low and high."""
    if len(seconds) < 2:
        return dict.fromkeys(("median", "low", "high"), seconds[0])
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def read_bandwidth(device: torch.device, size: int = 2**28) -> float:
    """Bytes a second that summing a large float32 vector reads: the ceiling for a pass over one token."""
    x = torch.rand(size // 4, device=device)
    return size / min(times(lambda: x.sum(), repeats=5, device=device))


def product_rate(device: torch.device, size: int = 1024, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of a square matrix product: the ceiling for a pass over many."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / min(times(lambda: a @ a, repeats=5, device=device))
