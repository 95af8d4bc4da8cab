"""A trained model as text that a page can run: a byte a weight, and where each tensor is.

`static/model.js` is the other side: it reads the payload and computes latents and predictions, in a browser and without
a kernel. Notable:

- In evaluation BatchNorm is a fixed scale and shift of each number. `folded` puts them into the layer before it, so the
  page knows no BatchNorm.
- Matrices are whole numbers of 8 bits, with one scale a row. `quantized` is the model with the weights that the page
  has: levels that a page compares with must come from it. Vectors (biases, gains, positions) stay in float32.
- A page knows the actions of its keys and no others. What a key makes of the predictor's blocks (the shifts, scales and
  gates of AdaLN) is computed here; the weights that compute it, almost a quarter of all, stay behind.
- Only what a page can run at once is exported: the small models of `model.cpu`.
"""

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor, nn

from minilab.lewm.model import Head, LeWM


@torch.no_grad()
def exported(model: LeWM, keys: Mapping[str, Float[Tensor, "kA"]]) -> dict[str, Any]:
    """The payload of a model that is steered by `keys`, each a block of actions, z-scored.

    That is its shape, its tensors' places, and their bytes in base64. Raises ValueError for a model that no page can
    run.
    """
    plain, config = folded(model), model.config
    whole, exact = {}, {}
    for name, tensor in plain.state_dict().items():
        if _is_matrix(name, tensor):
            whole[name], exact[f"{name}.scale"] = _rounded(tensor)
        elif not _is_steering(name):
            exact[name] = tensor
    c = F.silu(plain.action_encoder(torch.stack([block.cpu().float() for block in keys.values()])))
    for i, block in enumerate(plain.predictor.blocks):
        exact |= {f"steer.{i}.{key}": row for key, row in zip(keys, block.steer(c), strict=True)}
    return {
        "image": config.vision.image, "layers": len(config.vision.channels), "depth": config.depth,
        "heads": config.heads, "history": config.history, "layer_norm": config.head_norm == "layer",
        "mean": plain.encoder.mean.flatten().tolist(), "std": plain.encoder.std.flatten().tolist(),
        "places": {"int8": _places(whole), "float32": _places(exact)},
        "values": {"int8": _text(whole), "float32": _text(exact)}}


def quantized(model: LeWM) -> LeWM:
    """The model that the page runs: without BatchNorm, its matrices rounded. Raises ValueError as `folded` does."""
    plain = folded(model)
    for name, tensor in plain.state_dict().items():
        if _is_matrix(name, tensor):
            whole, scale = _rounded(tensor)
            tensor.copy_(whole * scale.view(-1, *[1] * (tensor.ndim - 1)))
    return plain


def folded(model: LeWM) -> LeWM:
    """The same function as `model` in evaluation, with no BatchNorm in it.

    Raises ValueError for a model that a page cannot run, and for one in training mode.
    """
    config = model.config
    if config.vision.kind != "conv" or config.inner_norms:
        raise ValueError("a page runs the small models only: convolutions, and no norm inside the blocks. Train one of "
                         "model.cpu's shape")
    if model.training:
        raise ValueError("the model is in training mode, and its BatchNorm still moves: call model.eval() first")
    norm = "layer" if config.head_norm == "layer" else "none"
    plain = LeWM(dataclasses.replace(config, head_norm=norm, dropout=0.0))
    state = {name: t.detach().cpu().float() for name, t in model.state_dict().items()}
    for name, head in model.named_modules():
        if isinstance(head, Head) and isinstance(head.norm, nn.BatchNorm1d):
            _fold(state, name, head.norm.eps)
    plain.load_state_dict(state)
    return plain.eval().requires_grad_(False)


def _fold(state: dict[str, Tensor], name: str, eps: float) -> None:
    """Put a head's BatchNorm, (x - mean) * gain / std + bias, into the layer that computes x."""
    state.pop(f"{name}.norm.num_batches_tracked")
    gain, bias, mean, variance = (state.pop(f"{name}.norm.{part}").double()
                                  for part in ("weight", "bias", "running_mean", "running_var"))
    gain = gain / (variance + eps).sqrt()
    up, shift = f"{name}.up.weight", f"{name}.up.bias"
    state[up] = (state[up] * gain[:, None]).float()
    state[shift] = ((state[shift] - mean) * gain + bias).float()


def _is_steering(name: str) -> bool:
    return name.startswith("action_encoder") or ".steer." in name


def _is_matrix(name: str, tensor: Tensor) -> bool:
    return tensor.ndim >= 2 and not name.endswith("positions") and not _is_steering(name)


def _rounded(tensor: Float[Tensor, "rows *columns"]) -> tuple[Int8[Tensor, "rows *columns"], Float[Tensor, "rows"]]:
    """Whole numbers up to 127 and the scale of each row."""
    scale = tensor.flatten(1).abs().amax(dim=1) / 127
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))  # a row of zeros stays zero
    return (tensor / safe.view(-1, *[1] * (tensor.ndim - 1))).round().to(torch.int8), scale


def _places(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Where each tensor begins, and its shape."""
    places, begin = {}, 0
    for name, tensor in tensors.items():
        places[name] = [begin, *tensor.shape]
        begin += tensor.numel()
    return places


def _text(tensors: Mapping[str, Tensor]) -> str:
    """The bytes of all numbers, the low one first."""
    array = torch.cat([t.flatten() for t in tensors.values()]).numpy()
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
