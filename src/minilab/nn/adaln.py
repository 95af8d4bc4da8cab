"""Transformer blocks that a condition steers: adaptive layer norm, begun at zero (AdaLN-zero).

Peebles and Xie (2023). A vector c sets the shift and scale after each norm and a gate before each residual sum. The
gates start at zero: the block is the identity at first, whatever its depth, and learns how much to say.

Shapes: N sequences, T tokens, D width, C condition, K noise levels.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

FEW = 8  # tokens, up to which plain products are faster on a GPU: its kernels for attention have tiles of 64


class AdaLNBlock(nn.Module):
    """Attention and a feed-forward network, each x + gate(c) * f(norm(x) * (1 + scale(c)) + shift(c)).

    With `causal` a token sees only itself and those before it. `head_dim` gives the heads a total width of their own.
    `dropout` acts on the weights of attention, inside the feed-forward network, and on what either adds. `inner_norms`
    adds a norm with gain and bias after each scale and shift: LeWorldModel's published predictor has them.
    Raises ValueError if the heads do not divide the width and no `head_dim` is given.
    """

    def __init__(self, width: int, heads: int, hidden: int, condition: int, *, causal: bool = False,
                 head_dim: int | None = None, dropout: float = 0.0, qkv_bias: bool = True, inner_norms: bool = False
                 ) -> None:
        super().__init__()
        if head_dim is None and width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}; choose others, or give head_dim")
        inner = width if head_dim is None else heads * head_dim
        self.heads, self.causal, self.dropout = heads, causal, dropout
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.inner_norms = nn.ModuleList(nn.LayerNorm(width) if inner_norms else nn.Identity() for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * inner, bias=qkv_bias), nn.Linear(inner, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.steer = nn.Linear(condition, 6 * width)
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)

    def forward(self, x: Float[Tensor, "N T D"], c: Float[Tensor, "N *T C"]) -> Float[Tensor, "N T D"]:
        """`c` is one condition a sequence (N C) or one a token (N T C)."""
        c = c if c.dim() == 3 else c[:, None]
        shift, scale, gate, shift_ff, scale_ff, gate_ff = self.steer(F.silu(c)).chunk(6, dim=-1)
        x = x + gate * self._drop(self._attend(self.inner_norms[0](self.norms[0](x) * (1 + scale) + shift)))
        h = self.inner_norms[1](self.norms[1](x) * (1 + scale_ff) + shift_ff)
        return x + gate_ff * self._drop(self.down(self._drop(F.gelu(self.up(h)))))

    def _attend(self, x: Float[Tensor, "N T D"]) -> Float[Tensor, "N T D"]:
        N, T, _ = x.shape
        q, k, v = self.qkv(x).view(N, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # N H T d
        attention = few_tokens if x.is_cuda and T <= FEW else F.scaled_dot_product_attention
        y = attention(q, k, v, is_causal=self.causal, dropout_p=self.dropout if self.training else 0.0)
        return self.out(y.transpose(1, 2).reshape(N, T, -1))

    def _drop(self, x: Float[Tensor, "N T X"]) -> Float[Tensor, "N T X"]:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


def few_tokens(q: Float[Tensor, "N H T d"], k: Float[Tensor, "N H T d"], v: Float[Tensor, "N H T d"], *,
               is_causal: bool = False, dropout_p: float = 0.0) -> Float[Tensor, "N H T d"]:
    """`F.scaled_dot_product_attention`, written out."""
    scores = (q @ k.mT).float() / math.sqrt(q.shape[-1])
    if is_causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(diagonal=1)
        scores = scores.masked_fill(hidden, -math.inf)
    return F.dropout(scores.softmax(dim=-1), dropout_p).to(v.dtype) @ v


class LevelEmbedding(nn.Module):
    """A noise level k as a vector: sines and cosines of k at geometric frequencies, then a small network."""

    def __init__(self, width: int, *, slowest: float = 1e4) -> None:
        super().__init__()
        self.register_buffer("frequency", slowest ** -(torch.arange(width // 2) / (width // 2)), persistent=False)
        self.mix = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, k: Int[Tensor, "N"]) -> Float[Tensor, "N D"]:
        angle = k[:, None] * self.frequency
        return self.mix(torch.cat((angle.sin(), angle.cos()), dim=1).to(self.mix[0].weight.dtype))


def positions(T: int, width: int, device=None) -> Float[Tensor, "T D"]:
    """Fixed sine and cosine positions, added to tokens."""
    frequency = torch.exp(-math.log(1e4) * torch.arange(0, width, 2, device=device) / width)
    angle = torch.arange(T, device=device)[:, None] * frequency
    return torch.cat((angle.sin(), angle.cos()), dim=1)
