"""Models that several tests of chapter 1 share."""

import math

import pytest
import torch

from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.speculative.pairs import Pair, load_pair


@pytest.fixture(scope="session")
def shipped() -> Pair:
    return load_pair("shipped")


@pytest.fixture(scope="session")
def random_model():
    """A function of size and seed: weights large enough for the whole history to matter."""

    def make(seed: int, vocab: int, *, dim: int = 32, layers: int = 2, context: int = 256) -> Transformer:
        config = TransformerConfig(
            vocab_size=vocab,
            dim=dim,
            n_layers=layers,
            n_heads=2,
            n_kv_heads=1,
            hidden_dim=dim,
            context=context,
        )
        torch.manual_seed(seed)
        model = Transformer(config).eval().requires_grad_(False)
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() == 2:
                    p.normal_(0, 0.3)
        return model

    return make


@pytest.fixture(scope="session")
def table_model():
    """A function from a table of p(next | newest) to a `Transformer` that holds just that law.

    It has no layers; token x is embedded as the x-th unit vector, which the last norm stretches to sqrt(V).
    """

    def make(table: list[list[float]]) -> Transformer:
        V = len(table)
        config = TransformerConfig(
            vocab_size=V,
            dim=V,
            n_layers=0,
            n_heads=1,
            n_kv_heads=1,
            hidden_dim=V,
            norm_eps=0.0,
            tie_embeddings=False,
        )
        model = Transformer(config).eval().requires_grad_(False)
        with torch.no_grad():
            model.embed.weight.copy_(torch.eye(V))
            model.head.weight.copy_(torch.tensor(table).log().T / math.sqrt(V))
        return model

    return make
