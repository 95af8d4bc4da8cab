"""A model survives its asset file."""

import pytest
import torch

from minilab.nn.store import load_model, save_model
from minilab.nn.transformer import Transformer, TransformerConfig

CARD = {"what": "a test", "how_made": "at random", "licence": "MIT"}


@pytest.mark.parametrize("tied", [True, False])
def test_saved_model_differs_from_the_original_by_int8_rounding_alone(tmp_path, tied):
    config = TransformerConfig(vocab_size=50, dim=32, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=48, context=32,
                               rope_scaling=(8.0, 1.0, 4.0, 16), tie_embeddings=tied)
    torch.manual_seed(0)
    model = Transformer(config).eval()
    loaded = load_model(save_model(model, tmp_path / "m.safetensors", CARD))
    assert loaded.config == config
    for name, weight in model.state_dict().items():
        rows = weight.flatten(1) if weight.dim() > 1 else None
        bound = 0 if rows is None else rows.abs().amax(1, keepdim=True) / 254 * (1 + 1e-5)
        assert ((loaded.state_dict()[name] - weight).abs() <= bound).all(), name
    assert (loaded.head.weight is loaded.embed.weight) == tied
    loaded(torch.zeros(1, 4, dtype=torch.long))
