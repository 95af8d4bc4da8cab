"""Our own models as assets: int8 weights, and the configuration in the card beside them."""

from dataclasses import asdict
from pathlib import Path

import torch

from minilab.core.weights import load_weights, save_weights
from minilab.nn.transformer import Transformer, TransformerConfig


def save_model(model: Transformer, path: Path | str, card: dict) -> Path:
    """Write `model` to `path` as int8, one scale a row; a tied head is stored once, as the embedding.

    The configuration joins the card. Raises ValueError as `core.weights.save_weights` does.
    """
    state = {k: v for k, v in model.state_dict().items() if not (k == "head.weight" and model.config.tie_embeddings)}
    return save_weights(state, path, card={**card, "config": asdict(model.config)}, dtype="int8")


def load_model(path: Path | str, *, dtype: torch.dtype = torch.float32, device="cpu") -> Transformer:
    """A `Transformer` from an asset, by path or by name. Errors are those of `core.weights.load_weights`."""
    state, card = load_weights(path, dtype=dtype)
    config = TransformerConfig(**card["config"])
    if config.tie_embeddings:
        state["head.weight"] = state["embed.weight"]
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(state, assign=True)
    if config.tie_embeddings:
        model.head.weight = model.embed.weight
    return model.to(device).eval()
