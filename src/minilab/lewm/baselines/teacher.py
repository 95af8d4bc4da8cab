"""A target that moves slowly: the encoder's own moving average (EMA), as in I-JEPA (Assran et al., 2023).

    teacher <- m teacher + (1 - m) encoder,    m from 0.996 up to 1, linearly,
    loss = mean (z_hat_{t+1} - teacher(o_{t+1}))².

Notable:
- No gradient reaches the target, so that it cannot give in. A constant is still a perfect solution; that it is not
  found is a property of how such a pair learns, not of the loss.
- At the end exp(-(1 - m) steps / 2) of the first, random teacher is left: 20 % after 800 steps, nothing to speak of in
  the published runs. A short run needs a quicker one.
- Predictions are in the teacher's latents, histories in the encoder's. The two meet only as m nears 1.

Shapes: B clips, T frames, D latent width.
"""

import copy

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from minilab.lewm.model import LeWM


class Teacher(nn.Module):
    """A copy of a model's encoder and projector that follows them, once for each call of `follow`."""

    def __init__(self, model: LeWM, steps: int, *, start: float = 0.996, end: float = 1.0) -> None:
        super().__init__()
        self.encoder, self.projector = copy.deepcopy(model.encoder), copy.deepcopy(model.projector)
        self.steps, self.start, self.end = steps, start, end
        self.register_buffer("step", torch.zeros((), dtype=torch.long))  # a buffer: checkpoints keep it

    @property
    def momentum(self) -> Float[Tensor, ""]:
        """m of the present step."""
        return self.start + (self.end - self.start) * (self.step / self.steps).clamp(max=1)

    @torch.no_grad()
    def follow(self, model: LeWM) -> None:
        """One step towards the model. BatchNorm's averages are the teacher's own: it sees the same frames."""
        for name in ("encoder", "projector"):
            pairs = zip(getattr(self, name).parameters(), getattr(model, name).parameters(), strict=True)
            for mine, theirs in pairs:
                mine.lerp_(theirs, 1 - self.momentum)
        self.step += 1

    @torch.no_grad()
    def encode(self, frames: UInt8[Tensor, "B T 3 H W"]) -> Float[Tensor, "B T D"]:
        return self.projector(self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]))
