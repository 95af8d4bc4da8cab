"""A transformer whose passes have fixed shapes, so that a GPU can replay them as CUDA graphs (`core/replay.py`).

Nothing may then depend on values that only the host knows: queries attend over all slots of a cache under a mask, and
where a row's tokens go is computed on the device from the rows' lengths. What is captured is any function of tensors
over one cache or several, from a single pass to a whole round of a target and its draft; it is captured at its first
call with given shapes, which takes some tenths of a second.

Without CUDA, and for many rows, the same functions run uncaptured: same results, same shapes, only no graph.
"""

import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minilab.core.replay import Replay
from minilab.nn.transformer import Block, KVCache, Transformer

MOST_ROWS = 16  # rows leave a batch one by one, and each number of rows needs graphs of its own
WIDEST = 32  # longer runs of tokens are prompts: each has a length of its own, and is read once
ROUND_TO = 128  # slots; so that decodings of similar length share a buffer and its graphs


@dataclass(eq=False)  # a buffer is itself, whatever it holds
class _Buffer:
    """Memory of one cache, and the graphs that have its addresses in them."""

    k: Tensor
    v: Tensor
    generator: torch.Generator
    stream: "torch.cuda.Stream | None"  # to capture on; cuBLAS has scratch memory a stream, which goes into the graph
    graphs: dict[Hashable, "_Graph"] = field(default_factory=dict)


class StaticCache(KVCache):
    """A `KVCache` in a buffer that outlives it. Inside a captured function its `lengths` are on the device."""

    def __init__(self, buffer: _Buffer, batch: int) -> None:
        self.buffer, self.inside = buffer, False
        self.k, self.v = buffer.k[:, :batch], buffer.v[:, :batch]
        self.lengths, self.max_len = torch.zeros(batch, dtype=torch.long), buffer.k.shape[3]

    def end(self, more: int) -> int:
        return self.max_len

    def rollback(self, lengths: Int[Tensor, "B"] | int) -> None:
        if self.inside:  # a check would wait for the device
            self.lengths = torch.as_tensor(lengths).expand_as(self.lengths)
        else:
            super().rollback(lengths)

    def keep_rows(self, rows: Int[Tensor, "b"]) -> None:
        """Move the rows to the front, where the graphs for fewer rows expect them."""
        n, rows_there = len(rows), rows.to(self.k.device)
        for side in (self.k, self.v):
            side[:, :n] = side[:, rows_there]
        self.k, self.v, self.lengths = self.k[:, :n], self.v[:, :n], self.lengths[rows]


Caches = tuple[StaticCache, ...]


def captured(caches: tuple, key: Hashable, fn: Callable, *inputs: Tensor, device: torch.device):
    """fn(*inputs), replayed as a graph where all `caches` are static, on one GPU, and of few rows.

    `fn` may read and advance these caches and draw from their generators; `key` must tell apart all else that it
    depends on, beside the shapes of the inputs. What it returns is the graph's own memory: the next replay overwrites
    it. Inputs may be on the host. Inside a captured function this is a call.
    """
    static = all(isinstance(cache, StaticCache) for cache in caches)
    if static and caches[0].inside:
        return fn(*inputs)
    if static and _fit_a_graph(caches):
        buffer = caches[0].buffer
        full = (key, len(caches[0].lengths), *(c.buffer for c in caches[1:]), *((x.shape, x.dtype) for x in inputs))
        if full not in buffer.graphs:
            with torch.cuda.device(device):  # a generator's state is put where the current device is
                buffer.graphs[full] = _Graph(caches, fn, inputs)
        return buffer.graphs[full](caches, inputs)
    inputs = tuple(x.to(device) for x in inputs)
    if static and len(caches) == 1:
        found, (end,) = _inside(caches, fn, inputs, [caches[0].lengths.to(device, copy=True)])
        caches[0].lengths = end.cpu()
        return found
    return fn(*inputs)  # what it calls may be captured, part by part


def _fit_a_graph(caches: Caches) -> bool:
    devices = {cache.k.device for cache in caches}
    return caches[0].k.is_cuda and len(devices) == 1 and len(caches[0].lengths) <= MOST_ROWS


def _inside(caches: Caches, fn: Callable, inputs: tuple[Tensor, ...], lengths: Sequence[Tensor]
            ) -> tuple[object, list[Tensor]]:
    """What fn returns, and the lengths that it leaves, on the device."""
    before = [cache.lengths for cache in caches]
    for cache, now in zip(caches, lengths, strict=True):
        cache.lengths, cache.inside = now, True
    try:
        return fn(*inputs), [cache.lengths for cache in caches]
    finally:
        for cache, then in zip(caches, before, strict=True):
            cache.lengths, cache.inside = then, False


class _Graph:
    """One captured function of caches: what `Replay` captures, and the lengths before and after."""

    def __init__(self, caches: Caches, fn: Callable, inputs: tuple[Tensor, ...]) -> None:
        generators = [cache.buffer.generator for cache in caches]
        states = [g.get_state() for g in generators]
        lengths = torch.stack([cache.lengths for cache in caches])  # n B

        def run(*given: Tensor) -> tuple[object, Tensor]:
            found, end = _inside(caches, fn, given[:-1], given[-1].clone().unbind())
            return found, torch.stack(end)

        self.replay = Replay(run, (*inputs, lengths), device=caches[0].k.device, generators=generators,
                             stream=caches[0].buffer.stream)
        _, end = self.replay(*inputs, lengths)
        self.advance = end.cpu() - lengths  # the same for any lengths
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)

    def __call__(self, caches: Caches, inputs: tuple[Tensor, ...]):
        lengths = torch.stack([cache.lengths for cache in caches])
        found, _ = self.replay(*inputs, lengths)
        for cache, now in zip(caches, lengths + self.advance, strict=True):
            cache.lengths = now
        return found


class StaticModel:
    """A `Transformer` in fixed shapes: the same protocol, the same numbers up to rounding.

    With `compile` its blocks go through `torch.compile`, which joins small operations. That takes about ten seconds
    for each kind of shape (one row or several, one token or several) and needs Triton.
    """

    def __init__(self, model: Transformer, *, compile: bool = False) -> None:
        self.model, self._free = model, []
        self._one_token = self._apply = Block.__call__
        if compile:
            torch._dynamo.config.recompile_limit = 64  # of all models together; the default is 8
            self._apply = torch.compile(Block.forward, dynamic=True, fullgraph=True)
            # For one token this option turns products into sums, fused with what is around them.
            self._one_token = torch.compile(Block.forward, dynamic=True, fullgraph=True,
                                            options={"coordinate_descent_tuning": True})
        self.vocab_size, self.context, self.start_token = model.vocab_size, model.context, model.start_token
        self.device = model.device

    def new_cache(self, batch: int, max_len: int, *, scratch: int = 0) -> StaticCache:
        """An empty cache; the memory of one that is no longer used, with its graphs, if it is large enough.

        Raises ValueError if `max_len` passes the context.
        """
        slots = -(-(max_len + scratch) // ROUND_TO) * ROUND_TO
        fit = next((b for b in self._free if b.k.shape[1] >= batch and b.k.shape[3] == slots), None)
        if fit is None or max_len > self.context:  # the model's own cache knows how to refuse
            fresh = self.model.new_cache(batch, max_len, scratch=slots - max_len)
            stream = torch.cuda.Stream(self.device) if fresh.k.is_cuda else None
            fit = _Buffer(fresh.k, fresh.v, torch.Generator(self.device), stream)
        else:
            self._free.remove(fit)
        cache = StaticCache(fit, batch)
        weakref.finalize(cache, self._free.append, fit)
        return cache

    def __call__(self, tokens: Int[Tensor, "B T"], *, cache: StaticCache, positions: Int[Tensor, "B T"] | None = None,
                 mask: Bool[Tensor, "B T S"] | None = None, last_only: bool = False) -> Float[Tensor, "B _ V"]:
        if tokens.shape[1] > WIDEST and mask is None and not cache.inside:
            return self.model(tokens, cache=cache, last_only=last_only)
        given = {"positions": positions, "mask": mask}
        names = tuple(name for name, x in given.items() if x is not None)

        def one_pass(tokens: Tensor, *rest: Tensor) -> Tensor:
            return self._pass(tokens, cache, last_only, **dict(zip(names, rest, strict=True)))

        logits = captured((cache,), ("pass", names, last_only), one_pass, tokens, *(given[name] for name in names),
                          device=self.device)
        return logits.clone() if logits.is_cuda and not cache.inside else logits

    def parameters(self):
        return self.model.parameters()

    def num_parameters(self) -> int:
        return self.model.num_parameters()

    def _pass(self, tokens: Tensor, cache: StaticCache, last_only: bool, positions: Tensor | None = None,
              mask: Tensor | None = None) -> Tensor:
        T, S = tokens.shape[1], cache.max_len
        slots = cache.lengths[:, None] + torch.arange(T, device=tokens.device)  # B T
        if mask is None:
            mask = torch.arange(S, device=tokens.device) <= slots[..., None]  # B T S
        logits = self.model.read(tokens, slots if positions is None else positions, mask, False, cache.at(slots, S),
                                 last_only, self._one_token if tokens.numel() == 1 else self._apply)
        cache.lengths = cache.lengths + T
        return logits


def generator_for(cache, generator: torch.Generator | None) -> torch.Generator | None:
    """The generator to draw from in captured functions over this cache, continuing from the one given."""
    if not isinstance(cache, StaticCache) or not cache.k.is_cuda:
        return generator
    seed = torch.randint(2**62, (), generator=generator, device=generator.device if generator else None)
    return cache.buffer.generator.manual_seed(int(seed))
