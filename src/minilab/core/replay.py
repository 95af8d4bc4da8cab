"""Functions of fixed shapes that a GPU replays as one graph.

Small networks are hundreds of kernels of a few microseconds, and launching one from Python takes longer than running
it. A graph launches all of them at once. For that the function must not depend on anything that only the host knows,
nor wait for the device.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

WARM_UP = 2  # calls before a capture, in which kernels are chosen and workspaces made


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Garbage is collected before and not during: a graph that dies while another is captured would spoil that one."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Replay:
    """`fn(*inputs)`, captured for inputs of these shapes, with memory of its own for them and for what it returns.

    `fn` may draw from `generators` of that GPU: a replay moves them on as the call would have. What a replay returns
    is overwritten by the next one. Inputs may be on the host. `stream` is what to capture on (cuBLAS has scratch
    memory a stream, which goes into the graph); by default a new one. `warm_up` calls come first: 0 if `fn` has run
    there already. Raises RuntimeError if `fn` cannot be captured.
    """

    def __init__(self, fn: Callable, inputs: Sequence[Tensor], *, device: torch.device,
                 generators: Sequence[torch.Generator] = (), stream: "torch.cuda.Stream | None" = None,
                 warm_up: int = WARM_UP) -> None:
        self.inputs = tuple(x.to(device, copy=True) for x in inputs)
        states, side = [g.get_state() for g in generators], stream or torch.cuda.Stream(device)
        here = torch.cuda.current_stream(device)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for _ in range(warm_up):
                fn(*self.inputs)
        here.wait_stream(side)
        here.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
            self.graph.register_generator_state(generator)
        try:
            with _no_collection(), torch.cuda.graph(self.graph, stream=side):
                self.outputs = fn(*self.inputs)
        except RuntimeError as error:
            raise RuntimeError("what is captured as a graph must neither wait for the GPU (.item(), `if tensor:`, "
                               f".cpu()) nor use memory of the host; this does: {error}") from error
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)

    def __call__(self, *inputs: Tensor):
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given, non_blocking=True)
        self.graph.replay()
        return self.outputs


def replayed(fn: Callable, device: torch.device | str, generators: Sequence[torch.Generator] = ()) -> Callable:
    """`fn`, captured at its first call with inputs of other shapes and replayed from then on; without CUDA, `fn`."""
    device, graphs = torch.device(device), {}
    if device.type != "cuda":
        return fn

    def call(*inputs: Tensor):
        key = tuple((x.shape, x.dtype) for x in inputs)
        if key not in graphs:
            with torch.cuda.device(device):  # a generator's state is put where the current device is
                graphs[key] = Replay(fn, inputs, device=device, generators=generators)
        return graphs[key](*inputs)

    return call


class ReplayedSteps:
    """`fn(batch)` that changes weights in place, such as a step of training, as one graph from the third call on.

    `batch` is any nest of tensors of fixed shapes on the GPU and of generators, which `fn` draws from as it would in a
    call; theirs is not the state that moves on. With a batch of anything else `fn` is called. `fn` must find its
    memory where it was: whatever it makes anew and keeps, it makes in the first two calls.
    """

    def __init__(self, fn: Callable[[Any], Tensor], device: torch.device) -> None:
        self.fn, self.device = fn, device
        self.stream = torch.cuda.Stream(device)
        self.calls, self.replay = 0, None

    def __call__(self, batch: Any) -> Tensor:
        leaves, tree = tree_flatten(batch)
        if not all(isinstance(x, Tensor | torch.Generator) and x.device == self.device for x in leaves):
            return self.fn(batch)
        self.calls += 1
        if self.calls <= WARM_UP:
            here = torch.cuda.current_stream(self.device)
            self.stream.wait_stream(here)
            with torch.cuda.stream(self.stream):
                result = self.fn(batch)
            here.wait_stream(self.stream)
            return result
        given = [x for x in leaves if isinstance(x, torch.Generator)]
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        if self.replay is None:
            self.generators = [torch.Generator(self.device) for _ in given]

            def flat(*tensors: Tensor) -> Tensor:
                mine = {torch.Generator: iter(self.generators), Tensor: iter(tensors)}
                rebuilt = [next(mine[torch.Generator if isinstance(x, torch.Generator) else Tensor]) for x in leaves]
                return self.fn(tree_unflatten(rebuilt, tree))

            self.replay = Replay(flat, tensors, device=self.device, generators=self.generators, stream=self.stream,
                                 warm_up=0)
        for mine, theirs in zip(self.generators, given, strict=True):
            mine.set_state(theirs.get_state())
        return self.replay(*tensors).clone()
