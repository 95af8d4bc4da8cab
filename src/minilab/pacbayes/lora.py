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
- What a base is takes no more than a list of its matrices (`Place`): `huggingface` has it for models of others.
- Random weights are drawn in float64 and kept in float32, as a projection is: everyone has the same, bit for bit.

Shapes: B texts, T tokens, V vocabulary, r rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.pacbayes.networks import Build


@dataclass(frozen=True)
class Place:
    """Rows of one of a model's matrices: `rows` of them, with `above` others before and `below` after."""

    matrix: str  # its parameter's name
    rows: int
    columns: int
    above: int = 0
    below: int = 0
    transposed: bool = False  # stored as in x out


class Factors(nn.Module):
    """B and A for a place."""

    def __init__(self, place: Place, rank: int) -> None:
        super().__init__()
        self.place = place
        self.A = nn.Parameter(torch.randn(rank, place.columns, dtype=torch.float64).div(place.columns**0.5).float())
        self.B = nn.Parameter(torch.zeros(place.rows, rank))

    def forward(self) -> Float[Tensor, "out in"]:
        change = F.pad(self.B @ self.A, (0, 0, self.place.above, self.place.below))
        return change.T if self.place.transposed else change


class LoRA(nn.Module):
    """A frozen model, from tokens to logits, with some of its matrices corrected: those of `attention_and_head` for a
    `Transformer`."""

    def __init__(self, base: nn.Module, rank: int, places: Sequence[Place] | None = None) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"corrections of rank {rank} correct nothing: give at least 1")
        self.frozen = (base.requires_grad_(False),)  # in a tuple, where torch does not look for parameters
        self.factors = nn.ModuleList(Factors(place, rank) for place in places or attention_and_head(base))

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        (base,) = self.frozen
        weights = {factors.place.matrix: base.get_parameter(factors.place.matrix) for factors in self.factors}
        for factors in self.factors:
            weights[factors.place.matrix] = weights[factors.place.matrix] + factors()
        return functional_call(base, weights, (tokens,), tie_weights=False)

    def _apply(self, fn, recurse: bool = True) -> "LoRA":
        self.frozen[0]._apply(fn, recurse)  # to a device the model beneath goes along
        return super()._apply(fn, recurse)


def attention_and_head(base: Transformer) -> list[Place]:
    """Queries and values of each layer, and the head."""
    c = base.config
    q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    places = []
    for i in range(c.n_layers):
        matrix = f"blocks.{i}.attn.qkv.weight"
        places += [Place(matrix, q, c.dim, below=2 * kv), Place(matrix, kv, c.dim, above=q + kv)]
    return [*places, Place("head.weight", c.vocab_size, c.dim)]


def corrected(base: TransformerConfig | Transformer, *, rank: int = 4) -> Build:
    """What builds the network for a `Subspace`: over random weights of a configuration, or over a given model.

    A given model is frozen, and goes where the network goes.
    """

    def lora(shape: tuple[int, ...], classes: int) -> LoRA:
        model = _random(base) if isinstance(base, TransformerConfig) else base
        check_vocabulary(model.vocab_size, classes)
        return LoRA(model, rank)

    return lora


def check_vocabulary(size: int, classes: int) -> None:
    """Raises ValueError if a model of `size` tokens is to read a text of another tokenizer."""
    if size != classes:
        raise ValueError(f"the model has {size} tokens and the text is written in {classes}: give a model of the "
                         "text's tokenizer (`nn.huggingface.cut_vocabulary` drops unused ones)")


def _random(config: TransformerConfig) -> Transformer:
    model = Transformer(config).double()
    model.reset_parameters()
    return model.float()
