"""Low-rank corrections of a frozen language model, as a network of their own (LoRA).

Hu et al. (2022). Of a frozen matrix W of out x in, two thin factors are trained:

    W + B A,    A of r x in, N(0, 1/in) at first,    B of out x r, zero at first.

Lotfi et al. (2024) correct queries, values and the head of a model of random weights, and train the factors by d
numbers (`subspace`): SubLoRA. Notable:

- The parameters of this module are the factors alone: what a `Subspace` moves and a message names. The model beneath is
  made anew from the seed, or is one that both sides have. It must owe nothing to the text that is bounded.
- Papers put a factor in front of B A. `Subspace` has its own scale, and so there is none here.
- The product makes the model bend in v: d numbers reach no linear space of weights.
- A head tied to the embedding is corrected alone. The embedding stays.
- Random weights are drawn in float64 and kept in float32, as a projection is: everyone has the same, bit for bit.

Shapes: B texts, T tokens, V vocabulary, r rank.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.pacbayes.networks import Build


class Factors(nn.Module):
    """B and A for some rows of a matrix, of which there are `above` before and `below` after them."""

    def __init__(self, matrix: str, rows: int, columns: int, rank: int, *, above: int = 0, below: int = 0) -> None:
        super().__init__()
        self.matrix, self.around = matrix, (above, below)
        self.A = nn.Parameter(torch.randn(rank, columns, dtype=torch.float64).div(columns**0.5).float())
        self.B = nn.Parameter(torch.zeros(rows, rank))

    def forward(self) -> Float[Tensor, "out in"]:
        return F.pad(self.B @ self.A, (0, 0, *self.around))


class LoRA(nn.Module):
    """A frozen `Transformer` with its queries, values and head corrected."""

    def __init__(self, base: Transformer, rank: int) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"corrections of rank {rank} correct nothing: give at least 1")
        self.frozen = (base.requires_grad_(False),)  # in a tuple, where torch does not look for parameters
        c = base.config
        q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
        self.factors = nn.ModuleList()
        for i in range(c.n_layers):
            matrix = f"blocks.{i}.attn.qkv.weight"
            self.factors.append(Factors(matrix, q, c.dim, rank, below=2 * kv))
            self.factors.append(Factors(matrix, kv, c.dim, rank, above=q + kv))
        self.factors.append(Factors("head.weight", c.vocab_size, c.dim, rank))

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        (base,) = self.frozen
        weights = {factors.matrix: base.get_parameter(factors.matrix) for factors in self.factors}
        for factors in self.factors:
            weights[factors.matrix] = weights[factors.matrix] + factors()
        return functional_call(base, weights, (tokens,), tie_weights=False)

    def _apply(self, fn, recurse: bool = True) -> "LoRA":
        self.frozen[0]._apply(fn, recurse)  # to a device the model beneath goes along
        return super()._apply(fn, recurse)


def corrected(base: TransformerConfig | Transformer, *, rank: int = 4) -> Build:
    """What builds the network for a `Subspace`: over random weights of a configuration, or over a given model.

    A given model is frozen, and goes where the network goes.
    """

    def lora(shape: tuple[int, ...], classes: int) -> LoRA:
        model = _random(base) if isinstance(base, TransformerConfig) else base
        if model.vocab_size != classes:
            raise ValueError(f"the model has {model.vocab_size} tokens and the text is written in {classes}: give a "
                             "model of the text's tokenizer (`nn.huggingface.cut_vocabulary` drops unused ones)")
        return LoRA(model, rank)

    return lora


def _random(config: TransformerConfig) -> Transformer:
    model = Transformer(config).double()
    model.reset_parameters()
    return model.float()
