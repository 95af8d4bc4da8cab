"""The networks that denoise a block of F steps, and the small ones that regress.

Two denoisers with one signature: `(x, k, state, along) -> estimate of the clean block`. `state` is the condition, the
present state; `along` is what is known of each step, the actions where states are predicted. The residual MLP reads
the block as one long vector and suits a laptop; the transformer reads it as F tokens and suits a GPU.

Shapes: N blocks, F steps, X numbers a step, Y known numbers a step, S numbers in a state, D width.
"""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minilab.nn.adaln import AdaLNBlock, LevelEmbedding, positions


@dataclass(frozen=True)
class NetworkConfig:
    """Which network, and how large."""

    kind: str = "mlp"  # or "transformer"
    width: int = 384
    layers: int = 2
    heads: int = 8  # of a transformer
    hidden: int = 2048  # feed-forward width of a transformer

    def build(self, F: int, X: int, S: int, Y: int = 0) -> nn.Module:
        """A denoiser of blocks F X, given states of S numbers and Y known numbers a step."""
        if self.kind not in ("mlp", "transformer"):
            raise ValueError(f"no network {self.kind!r}; choose mlp or transformer")
        return (MLPDenoiser if self.kind == "mlp" else TransformerDenoiser)(self, F, X, S, Y)


PAPER = NetworkConfig("transformer", width=256, layers=5, heads=8, hidden=2048)


class ResidualMLP(nn.Module):
    """x -> W_out (blocks of x + f(norm(x))), steered by nothing: conditions are part of x."""

    def __init__(self, inputs: int, width: int, layers: int, outputs: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "*b I"]) -> Float[Tensor, "*b O"]:
        x = self.enter(x)
        for block in self.blocks:
            x = x + block(x)
        return self.leave(self.norm(x))


class MLPDenoiser(nn.Module):
    def __init__(self, config: NetworkConfig, F: int, X: int, S: int, Y: int) -> None:
        super().__init__()
        self.level = LevelEmbedding(64)
        self.body = ResidualMLP(F * (X + Y) + S + 64, config.width, config.layers, F * X)

    def forward(self, x: Float[Tensor, "N F X"], k: Int[Tensor, "N"], state: Float[Tensor, "N S"],
                along: Float[Tensor, "N F Y"] | None = None) -> Float[Tensor, "N F X"]:
        known = () if along is None else (along.flatten(1),)
        return self.body(torch.cat((x.flatten(1), state, self.level(k), *known), dim=1)).view_as(x)


class TransformerDenoiser(nn.Module):
    def __init__(self, config: NetworkConfig, F: int, X: int, S: int, Y: int) -> None:
        super().__init__()
        D = config.width
        self.level, self.state, self.enter = LevelEmbedding(D), nn.Linear(S, D), nn.Linear(X + Y, D)
        self.register_buffer("place", positions(F, D), persistent=False)
        self.blocks = nn.ModuleList(AdaLNBlock(D, config.heads, config.hidden, D) for _ in range(config.layers))
        self.norm, self.leave = nn.LayerNorm(D), nn.Linear(D, X)

    def forward(self, x: Float[Tensor, "N F X"], k: Int[Tensor, "N"], state: Float[Tensor, "N S"],
                along: Float[Tensor, "N F Y"] | None = None) -> Float[Tensor, "N F X"]:
        tokens = self.enter(x if along is None else torch.cat((x, along), dim=2))  # N F D
        tokens = tokens + self.place.to(tokens.dtype)
        condition = self.level(k) + self.state(state)
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self.leave(self.norm(tokens))


class Lowered(nn.Module):
    """A copy of a denoiser with its weights in 16 bits, for a GPU; what goes in and comes out stays in 32."""

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.network, self.dtype = copy.deepcopy(network), dtype
        for p in self.network.parameters():  # buffers keep their digits
            p.data = p.data.to(dtype)

    def forward(self, x: Float[Tensor, "N F X"], k: Int[Tensor, "N"], state: Float[Tensor, "N S"],
                along: Float[Tensor, "N F Y"] | None = None) -> Float[Tensor, "N F X"]:
        known = None if along is None else along.to(self.dtype)
        return self.network(x.to(self.dtype), k, state.to(self.dtype), known).to(x.dtype)
