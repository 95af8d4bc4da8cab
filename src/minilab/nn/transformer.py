"""A Llama-style decoder, small enough to read in one sitting.

Notable:
- RMSNorm before each sub-layer, no biases (Qwen2's query/key/value biases and Qwen3's query/key
  norms are switches of the configuration, so that those weights load too)
- rotary positions (RoPE) in the half-split layout of Hugging Face: dimension i turns with i + d/2
- SwiGLU feed-forward, grouped-query attention (GQA), tied or untied output head
- a pre-allocated KV cache whose rows may have different lengths and can be rolled back to any of them
- an optional attention mask of any shape of dependence: tree drafting needs one

Shapes: B batch, T new tokens, S slots that a query may see, V vocabulary, D width, H heads, d head width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

# cuDNN's attention plans anew for every number of keys, some 60 ms each on an H100: decoding would do nothing else.
torch.backends.cuda.enable_cudnn_sdp(False)


@dataclass(frozen=True)
class TransformerConfig:
    vocab_size: int
    dim: int  # width D of the residual stream
    n_layers: int
    n_heads: int
    n_kv_heads: int  # divides n_heads; equal to it means plain multi-head attention
    hidden_dim: int  # width of the SwiGLU feed-forward
    head_dim: int | None = None  # dim // n_heads when None
    context: int = 1024  # longest sequence that positions were trained for
    start_token: int = 0  # begins a text; stands for an empty prompt
    rope_theta: float = 10_000.0
    rope_scaling: Sequence[float] | None = None  # Llama 3: factor, low, high, original context
    norm_eps: float = 1e-5
    tie_embeddings: bool = True
    qkv_bias: bool = False  # Qwen2
    qk_norm: bool = False  # Qwen3

    def __post_init__(self) -> None:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_kv_heads={self.n_kv_heads} must divide n_heads={self.n_heads}")
        if self.head_dim is None:
            if self.dim % self.n_heads:
                raise ValueError(f"n_heads={self.n_heads} must divide dim={self.dim}, or give head_dim")
            object.__setattr__(self, "head_dim", self.dim // self.n_heads)
        if self.rope_scaling is not None:  # JSON gives a list
            object.__setattr__(self, "rope_scaling", tuple(self.rope_scaling))


class KVCache:
    """Keys and values of the tokens seen so far, in memory reserved once.

    `lengths[b]` counts the valid slots of row b; a row's next token goes to slot `lengths[b]`. Rows may
    differ. Slots beyond a row's length hold stale values that no query sees, so a roll-back is one
    assignment and costs nothing.
    """

    def __init__(self, config: TransformerConfig, batch: int, max_len: int, *, dtype=None, device=None) -> None:
        shape = (config.n_layers, batch, config.n_kv_heads, max_len, config.head_dim)
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = torch.zeros(batch, dtype=torch.long)  # on the host: it steers slicing
        self.max_len = max_len

    def rollback(self, lengths: Int[Tensor, "B"] | int) -> None:
        """Forget every token from position `lengths` on (one number for all rows, or one a row).

        Raises ValueError if a row would grow: only `Transformer.forward` can add tokens.
        """
        target = torch.as_tensor(lengths, dtype=torch.long).expand_as(self.lengths).clone()
        if not all(0 <= new <= old for new, old in zip(target.tolist(), self.lengths.tolist(), strict=True)):
            raise ValueError(f"cannot roll back from {self.lengths.tolist()} to {target.tolist()}: "
                             "each row's new length must lie between 0 and its present one")
        self.lengths = target

    def end(self, more: int) -> int:
        """The number of slots that a mask must cover when each row gets `more` tokens."""
        return int(self.lengths.max()) + more

    def keep_rows(self, rows: Int[Tensor, "b"]) -> None:
        """Drop all rows but these (finished sequences leave the batch)."""
        self.k, self.v = self.k[:, rows.to(self.k.device)], self.v[:, rows.to(self.v.device)]
        self.lengths = self.lengths[rows]

    def at(self, slots: slice | Int[Tensor, "B T"], end: int) -> "Callable[[int], Slots]":
        """The place of a pass's new tokens in each layer."""
        return lambda layer: Slots(self.k[layer], self.v[layer], slots, end)


class Slots(NamedTuple):
    """Where one layer keeps the keys and values of a pass's tokens."""

    k: Float[Tensor, "B Hkv S d"]
    v: Float[Tensor, "B Hkv S d"]
    slots: slice | Int[Tensor, "B T"]
    end: int

    def store(self, k: Float[Tensor, "B Hkv T d"], v: Float[Tensor, "B Hkv T d"]) -> tuple[Tensor, Tensor]:
        """Write new keys and values into the slots; return views of slots 0..end-1."""
        if isinstance(self.slots, slice):
            self.k[:, :, self.slots], self.v[:, :, self.slots] = k, v
        else:
            rows = torch.arange(len(k), device=k.device)[:, None]  # B 1
            self.k[rows, :, self.slots], self.v[rows, :, self.slots] = k.transpose(1, 2), v.transpose(1, 2)
        return self.k[:, :, : self.end], self.v[:, :, : self.end]


def rope_frequencies(config: TransformerConfig, device=None) -> Float[Tensor, "half"]:
    """Angle per position of each pair of dimensions: theta^(-2i/d), stretched as Llama 3 does if asked."""
    exponent = torch.arange(0, config.head_dim, 2, device=device, dtype=torch.float32) / config.head_dim
    freq = config.rope_theta ** -exponent
    if config.rope_scaling is None:
        return freq
    factor, low, high, original = config.rope_scaling
    # Turns that fit into the original context: many keep their frequency, few are slowed by `factor`.
    turns = original * freq / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return freq * (smooth + (1 - smooth) / factor)


def rotate(x: Float[Tensor, "B H T d"], cos: Float[Tensor, "*b T d"], sin: Float[Tensor, "*b T d"]) -> Tensor:
    """Turn each pair (x_i, x_{i+d/2}) by its position's angle; `sin` is negative in its first half."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def attend(q: Float[Tensor, "B H T d"], k: Float[Tensor, "B Hkv S d"], v: Float[Tensor, "B Hkv S d"],
           mask: Float[Tensor, "*b GT S"] | None, causal: bool) -> Float[Tensor, "B H T d"]:
    """Softmax attention of H query heads over Hkv key heads, each key head serving G = H/Hkv queries.

    The queries of a group are folded into rows: each key is then read once, not once a query head.
    """
    B, H, T, d = q.shape
    Hkv = k.shape[1]
    if torch.compiler.is_compiling() and mask is not None:
        # For few queries two products and a softmax take half the time of the fused kernel, which has no work to share.
        scores = q.reshape(B, Hkv, -1, d) @ k.transpose(-1, -2)  # B Hkv GT S
        return ((scores.float() * d**-0.5 + mask).softmax(dim=-1).to(v.dtype) @ v).reshape(B, H, T, d)
    if causal or H == Hkv:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=H != Hkv)
    return F.scaled_dot_product_attention(q.reshape(B, Hkv, -1, d), k, v, attn_mask=mask).reshape(B, H, T, d)


def folded(mask: Bool[Tensor, "*b T S"], groups: int, dtype: torch.dtype) -> Float[Tensor, "*c GT S"]:
    """A mask for `attend`, made once for all layers: 0 or -inf, repeated for the queries of a group."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -math.inf)
    bias = bias[:, None] if bias.dim() == 3 else bias  # B 1 T S
    return bias.repeat(*[1] * (bias.dim() - 2), groups, 1)


class Linear(nn.Linear):
    """`nn.Linear`, computed as (W x^T)^T where that is faster than x W^T.

    It is for two to five rows on a CPU, which is what verifying a draft takes: up to 1.4 times measured.
    """

    def forward(self, x: Float[Tensor, "*b I"]) -> Float[Tensor, "*b O"]:
        rows = x.numel() // x.shape[-1]
        if x.device.type != "cpu" or not 2 <= rows <= 5:
            return super().forward(x)
        y = (self.weight @ x.reshape(rows, -1).T).T.contiguous().view(*x.shape[:-1], -1)  # row-major again
        return y if self.bias is None else y + self.bias


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, the mean taken in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Grouped-query attention; queries, keys and values come out of one product."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        d, self.heads, self.kv_heads = config.head_dim, config.n_heads, config.n_kv_heads
        self.qkv = Linear(config.dim, (self.heads + 2 * self.kv_heads) * d, bias=config.qkv_bias)
        self.o = Linear(self.heads * d, config.dim, bias=False)
        self.q_norm = RMSNorm(d, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(d, config.norm_eps) if config.qk_norm else None

    def forward(self, x: Float[Tensor, "B T D"], cos: Tensor, sin: Tensor, mask: Tensor | None,
                causal: bool, memory: Slots | None) -> Float[Tensor, "B T D"]:
        B, T, _ = x.shape
        H, Hkv = self.heads, self.kv_heads
        qkv = self.qkv(x).view(B, T, H + 2 * Hkv, -1).transpose(1, 2)  # B H+2Hkv T d
        qk, v = qkv[:, : H + Hkv], qkv[:, H + Hkv :]
        if self.q_norm is not None:
            qk = torch.cat((self.q_norm(qk[:, :H]), self.k_norm(qk[:, H:])), dim=1)
        qk = rotate(qk, cos, sin)
        q, k = qk[:, :H], qk[:, H:]
        if memory is not None:
            k, v = memory.store(k, v)  # B Hkv S d
        y = attend(q, k, v, mask, causal)  # B H T d
        return self.o(y.transpose(1, 2).reshape(B, T, -1))


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate) * up), gate and up being the halves of one product."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate_up = Linear(config.dim, 2 * config.hidden_dim, bias=False)
        self.down = Linear(config.hidden_dim, config.dim, bias=False)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attn_norm = RMSNorm(config.dim, config.norm_eps)
        self.attn = Attention(config)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn = FeedForward(config)

    def forward(self, x: Tensor, *context) -> Tensor:
        x = x + self.attn(self.attn_norm(x), *context)
        return x + self.ffn(self.ffn_norm(x))


class Transformer(nn.Module):
    """Decoder-only language model: tokens in, next-token logits out.

    Raises ValueError when a sequence would pass the context or the cache.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.head = Linear(config.dim, config.vocab_size, bias=False)
        self._rope = None
        self.reset_parameters()
        if config.tie_embeddings:
            self.head.weight = self.embed.weight

    def reset_parameters(self) -> None:
        """Normal(0, 0.02), with the two projections that write to the residual stream shrunk by depth."""
        for name, p in self.named_parameters():
            if p.dim() == 2:
                residual = name.endswith(("attn.o.weight", "ffn.down.weight"))
                nn.init.normal_(p, std=0.02 / (2 * self.config.n_layers) ** 0.5 if residual else 0.02)

    def new_cache(self, batch: int, max_len: int, *, scratch: int = 0) -> KVCache:
        """An empty cache in the model's own type and on its device, with a slot for each of `max_len` positions.

        `scratch` more slots serve tokens that are read beside the text, as the branches of a tree are.
        """
        if max_len > self.config.context:
            raise ValueError(f"a cache of {max_len} tokens is longer than the model's context of "
                             f"{self.config.context}: shorten the prompt or ask for fewer new tokens")
        weight = self.embed.weight
        return KVCache(self.config, batch, max_len + scratch, dtype=weight.dtype, device=weight.device)

    def rope_table(self) -> Float[Tensor, "2 context d"]:
        """`rotate`'s cosines and sines of every position of the context, computed in float32 at first use."""
        weight = self.embed.weight
        if self._rope is None or (self._rope.dtype, self._rope.device) != (weight.dtype, weight.device):
            positions = torch.arange(self.config.context, device=weight.device).float()
            angle = torch.outer(positions, rope_frequencies(self.config, weight.device))
            cos, sin = angle.cos().repeat(1, 2), torch.cat((-angle.sin(), angle.sin()), dim=1)
            self._rope = torch.stack((cos, sin)).to(weight.dtype)
        return self._rope

    def forward(self, tokens: Int[Tensor, "B T"], *, cache: KVCache | None = None,
                positions: Int[Tensor, "*b T"] | None = None, mask: Bool[Tensor, "*b T S"] | None = None,
                last_only: bool = False) -> Float[Tensor, "B _ V"]:
        """Logits of the next token after each of `tokens`.

        With a cache the tokens continue each row at its length, and the lengths advance by T. By default
        token t of row b stands at position `lengths[b] + t` and sees every earlier slot of its row;
        `positions` and `mask` replace the one and the other (`mask` is True where attention is allowed,
        over all slots up to the longest row's end). `last_only` returns the last token's logits, B 1 V.
        """
        B, T = tokens.shape
        start = None if cache is None else cache.lengths
        end = T if start is None else int(start.max()) + T
        if cache is not None and end > cache.max_len:
            raise ValueError(f"{end} tokens do not fit the cache of {cache.max_len}")
        if end > self.config.context and positions is None:
            raise ValueError(f"{end} tokens pass the model's context of {self.config.context}")
        even = start is None or bool((start == start[0]).all())
        if even:
            slots = torch.arange(end - T, end, device=tokens.device)  # T
        else:
            slots = (start[:, None] + torch.arange(T)).to(tokens.device)  # B T
        positions = slots if positions is None else positions
        # One token over equal rows sees every slot; a prompt in an empty cache is the causal kernel's case.
        causal = mask is None and end == T and T > 1
        if mask is None and not causal and not (even and T == 1):
            mask = torch.arange(end, device=tokens.device) <= slots[..., None]  # (B) T S
        where = slice(end - T, end) if even else slots
        logits = self.read(tokens, positions, mask, causal, None if cache is None else cache.at(where, end), last_only)
        if cache is not None:
            cache.lengths = start + T
        return logits

    def read(self, tokens: Int[Tensor, "B T"], positions: Int[Tensor, "*b T"], mask: Bool[Tensor, "*c T S"] | None,
             causal: bool, at: Callable[[int], Slots] | None, last_only: bool = False,
             apply: Callable = Block.__call__) -> Float[Tensor, "B _ V"]:
        """The pass itself, once it is known where tokens stand, what they see, and where keys and values go.
        `apply` calls a block: a compiled version of it may take its place."""
        x = self.embed(tokens)
        cos, sin = self.rope_table()[:, positions]
        if positions.dim() == 2:
            cos, sin = cos[:, None], sin[:, None]  # B 1 T d
        if mask is not None:
            mask = folded(mask, self.config.n_heads // self.config.n_kv_heads, x.dtype)
        for i, block in enumerate(self.blocks):
            x = apply(block, x, cos, sin, mask, causal, None if at is None else at(i))
        x = self.norm(x[:, -1:] if last_only else x)
        return self.head(x)

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def context(self) -> int:
        return self.config.context

    @property
    def start_token(self) -> int:
        return self.config.start_token

    @property
    def device(self) -> torch.device:
        return self.embed.weight.device

    def num_parameters(self) -> int:
        """Parameters, a tied matrix counted once."""
        return sum(p.numel() for p in self.parameters())
