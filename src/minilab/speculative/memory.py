"""What a target and its draft take of a GPU's memory, from the numbers of their configurations alone.

Three things are held while decoding: the weights of both models; their keys and values of every token of every row;
and the speculation cache of one round (`cache.py`). What else is on the card is not computed but set aside.

Notable:
- Weights dominate at batch 1, keys and values in a large batch; grouped-query attention is what keeps those small.
- At 4 bits only the matrices of the blocks shrink. Embedding and output head stay in bf16, as `bitsandbytes`
  leaves them, and in an 8B model with 150,000 tokens they are then four tenths of the whole.
- Sizes are bytes; a card of "24 GB" holds 24 GiB.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from minilab.nn.transformer import TransformerConfig

GIB = 2**30
CARDS = (8, 12, 16, 24, 32, 48)  # GiB of memory that consumer and workstation cards come with
DESKTOP = GIB // 2  # for the screen, the driver and CUDA's context: a guess of ours
WORKSPACE = GIB  # for rotary tables, activations and logits: another

# NF4 as in QLoRA (arXiv 2305.14314) and by default in bitsandbytes: one float32 scale for 64 weights of 4 bits.
FOUR_BIT = 4 + 32 / 64

_LLAMA3 = dict(vocab_size=128_256, context=131_072, rope_theta=500_000.0)
_QWEN3 = dict(vocab_size=151_936, context=40_960, rope_theta=1_000_000.0, norm_eps=1e-6, head_dim=128, qk_norm=True)
_SMOLLM2 = dict(vocab_size=49_152, context=8_192)

# The models' config.json, under their names on the hub. We could not open the hub; what stands here is from
# - the sizes: litgpt/config.py of Lightning-AI/litgpt (commit 2685705), which cites each config.json;
# - Qwen3-8B, the whole file: Qwen3-8B/config.json of sanjithudupa/compute-aware-arch-search (38147a2);
# - whether the head is tied: torchtune/models/qwen3/_model_builders.py of pytorch/torchtune (010412e) for Qwen3,
#   README.md of satyasundar/erav3-s13 (3151c4b) for SmolLM2-135M, and for the rest the published number of
#   parameters, which only one of the two answers gives; tests/speculative/test_memory.py holds them to it.
MODELS = {
    "Qwen/Qwen3-8B": TransformerConfig(
        dim=4096, n_layers=36, n_heads=32, n_kv_heads=8, hidden_dim=12_288, tie_embeddings=False, **_QWEN3),
    "Qwen/Qwen3-0.6B": TransformerConfig(
        dim=1024, n_layers=28, n_heads=16, n_kv_heads=8, hidden_dim=3072, tie_embeddings=True, **_QWEN3),
    "meta-llama/Llama-3.1-8B-Instruct": TransformerConfig(
        dim=4096, n_layers=32, n_heads=32, n_kv_heads=8, hidden_dim=14_336, tie_embeddings=False,
        rope_scaling=(8.0, 1.0, 4.0, 8192), **_LLAMA3),
    "meta-llama/Llama-3.2-1B-Instruct": TransformerConfig(
        dim=2048, n_layers=16, n_heads=32, n_kv_heads=8, hidden_dim=8192, tie_embeddings=True,
        rope_scaling=(32.0, 1.0, 4.0, 8192), **_LLAMA3),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": TransformerConfig(
        dim=2048, n_layers=24, n_heads=32, n_kv_heads=32, hidden_dim=8192, tie_embeddings=True,
        rope_theta=130_000.0, **_SMOLLM2),
    "HuggingFaceTB/SmolLM2-135M-Instruct": TransformerConfig(
        dim=576, n_layers=30, n_heads=9, n_kv_heads=3, hidden_dim=1536, tie_embeddings=True,
        rope_theta=100_000.0, **_SMOLLM2),
}
PAIRS = tuple(zip(list(MODELS)[::2], list(MODELS)[1::2], strict=True))


class Parameters(NamedTuple):
    """How many numbers a model is made of, by where they are."""

    matrices: int  # of the blocks
    vocabulary: int  # embedding and output head, once if they are tied
    vectors: int  # norms and biases

    @property
    def total(self) -> int:
        return sum(self)


def parameters(config: TransformerConfig) -> Parameters:
    """The parameters of a model that nobody has to load."""
    D, d, H, Hkv = config.dim, config.head_dim, config.n_heads, config.n_kv_heads
    qkv = (H + 2 * Hkv) * d
    block = D * qkv + H * d * D + 3 * D * config.hidden_dim
    vectors = 2 * D + config.qk_norm * 2 * d + config.qkv_bias * qkv
    return Parameters(config.n_layers * block, config.vocab_size * D * (1 if config.tie_embeddings else 2),
                      config.n_layers * vectors + D)


def weight_bytes(config: TransformerConfig, *, bits: float = 16) -> int:
    """Bytes of the weights with `bits` a matrix entry: 32, 16, or FOUR_BIT, which leaves the rest in 16 bits."""
    count = parameters(config)
    rest = max(bits, 16)
    return round((count.matrices * bits + (count.vocabulary + count.vectors) * rest) / 8)


def kv_bytes(config: TransformerConfig, tokens: int, *, rows: int = 1, itemsize: int = 2) -> int:
    """Bytes of the keys and values of `tokens` tokens in each of `rows` rows: H_kv heads, not H, count."""
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * tokens * rows * itemsize


def speculation_bytes(branches: int, K: int, vocab_size: int, *, rows: int = 1, greedy: bool = False) -> int:
    """Bytes of a `SpeculationCache`: a key and K tokens a branch (int64) and, when sampling, K float32 laws over V."""
    return rows * branches * (16 + 8 * K + (0 if greedy else 4 * K * vocab_size))


@dataclass(frozen=True)
class PairMemory:
    """The bytes that a pair takes of one card while it decodes."""

    target: int  # weights
    draft: int
    target_kv: int
    draft_kv: int  # with the slots of the branches that a round drafts beside the text
    speculation: int
    reserve: int = DESKTOP + WORKSPACE

    @property
    def total(self) -> int:
        return self.target + self.draft + self.target_kv + self.draft_kv + self.speculation + self.reserve

    @property
    def card(self) -> int | None:
        """The smallest of CARDS that holds it, in GiB; None if none does."""
        return next((size for size in CARDS if size * GIB >= self.total), None)


def pair_memory(target: TransformerConfig, draft: TransformerConfig, *, tokens: int = 2048, rows: int = 1, K: int = 4,
                branches: int = 20, greedy: bool = False, target_bits: float = 16, draft_bits: float = 16
                ) -> PairMemory:
    """What decoding takes that speculates K tokens in each of `branches` branches, with texts of `tokens` tokens."""
    tree = (K + 1) + K * branches  # what the draft reads beside the text in one round
    return PairMemory(
        weight_bytes(target, bits=target_bits), weight_bytes(draft, bits=draft_bits),
        kv_bytes(target, tokens + K + 1, rows=rows), kv_bytes(draft, tokens + tree, rows=rows),
        speculation_bytes(branches, K, target.vocab_size, rows=rows, greedy=greedy))


def free_bytes(device: torch.device | str) -> int | None:
    """What is left of a CUDA device's memory, torch's own unused share included; None for other devices."""
    device = torch.device(device)
    if device.type != "cuda":
        return None
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def check_fits(weights: int, device: torch.device | str, what: str) -> None:
    """Raise ValueError unless `weights` bytes and the WORKSPACE fit what is free on the device, if that is known."""
    free, needed = free_bytes(device), weights + WORKSPACE
    if free is not None and needed > free:
        raise ValueError(
            f"{what} needs {needed / GIB:.1f} GiB on {device} ({weights / GIB:.1f} of weights, the rest to work in), "
            f"and {free / GIB:.1f} GiB are free. Close what else uses the card (nvidia-smi lists it), take smaller "
            "models, or load the target at 4 bits: TARGET:4bit+DRAFT")
