"""The same models, faster on a GPU: blocks compiled one for all, and predictors in 16 bits to plan with.

A candidate is one token a frame, so that imagining it is many small operations: their number costs more than their
products do. Compiling joins them, and `core/replay.py` launches a whole decision at once. Notable:

- One compilation serves all blocks of a kind, however deep the model. Compiling a whole model unrolls its 18 blocks,
  which takes minutes.
- In evaluation a BatchNorm is a scale and a shift, and so it goes into the Linear before it: no rounding, no operation.
- Images are encoded in 32 bits: a decision looks at two of them, and imagines thousands of latents.

Shapes: B sequences, h latents of history, H blocks ahead, D latent width, kA numbers in a block.
"""

import copy

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from minilab.lewm.baselines.tokens import MaskedBlock
from minilab.lewm.model import Head, LeWM
from minilab.nn.adaln import AdaLNBlock
from minilab.nn.vision import ViTBlock


def by_blocks(model: nn.Module, *, backend: str = "inductor", dynamic: bool = False) -> nn.Module:
    """Compile the transformer blocks of a model, in place, when they first run: seconds for each kind and shape.

    A model that meets more than eight shapes runs the others as it did before; with `dynamic` one compilation serves
    any number of rows.
    """
    for module in model.modules():
        if isinstance(module, AdaLNBlock | MaskedBlock | ViTBlock):
            module.compile(backend=backend, dynamic=dynamic)
    return model


class Swift(nn.Module):
    """A copy of a model to plan with, whose predictor computes in 16 bits; what goes in and comes out stays in 32."""

    def __init__(self, model: LeWM, *, compile: bool = True, dynamic: bool = False,
                 dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.config, self.dtype = model.config, dtype
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        for module in self.model.modules():
            if isinstance(module, Head):
                fold(module)
        for name, parameter in self.model.named_parameters():
            if not name.startswith(("encoder.", "projector.")):
                parameter.data = parameter.data.to(dtype)
        if compile:
            by_blocks(self.model, dynamic=dynamic)
        self.eval()

    def encode(self, frames: UInt8[Tensor, "B T 3 H W"]) -> Float[Tensor, "B T D"]:
        return self.model.encode(frames)

    def imagine(self, z_history: Float[Tensor, "B h D"], actions: Float[Tensor, "B H kA"],
                past: Float[Tensor, "B h1 kA"] | None = None) -> Float[Tensor, "B H D"]:
        """As `LeWM.imagine`."""
        past = None if past is None else past.to(self.dtype)
        return self.model.imagine(z_history.to(self.dtype), actions.to(self.dtype), past).to(z_history.dtype)


@torch.no_grad()
def fold(head: Head) -> None:
    """Put a head's BatchNorm, as it is in evaluation, into the Linear before it. Other norms stay."""
    norm, up = head.norm, head.up
    if isinstance(norm, nn.BatchNorm1d):
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        up.weight.mul_(gain[:, None])
        up.bias.copy_(gain * (up.bias - norm.running_mean) + norm.bias)
        head.norm = nn.Identity()
