"""A frozen encoder and a predictor of its patch tokens: DINO-WM (Zhou et al., 2025), at our size.

Each frame is P tokens of width C, which nothing trains. The predictor sees the tokens of the last N frames, each with
the frame's block of actions beside it, and predicts those of the next. Notable:

- A target that cannot move cannot collapse, and so prediction alone is the loss. What the tokens lack is lost, though.
- A model here is a `LeWM` whose latent is all of a frame's tokens side by side, D = P C. It is planned with as any
  other, at about P times the cost.
- `frozen_tokens` takes the tokens of any encoder of ours: of random weights, or of a model that was trained before. Of
  convolutions it takes the map before the last, which has four times as many (`Finer`).
  `DinoTokens` has DINOv2's real ones, if `transformers` is installed and their weights are in a folder (`dino_folder`)
  or on a hub that can be reached.
- Ours: tokens less their mean over the data and in units of each channel's spread, unless they are DINOv2's.

Shapes: B sequences, T frames, P patches, C token width, D = P C, W predictor width, A actions, k of them in a block.
"""

from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from minilab.core.device import cache_dir
from minilab.lewm.model import LeWM, LeWMConfig
from minilab.nn.vision import ConvEncoder


@runtime_checkable
class Tokens(Protocol):
    """An encoder that has a vector for each patch: `nn.vision.ViT` and `ConvEncoder`, and `DinoTokens`."""

    def tokens(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B P C"]:
        """The patches' vectors, row by row."""


class TokenModel(LeWM):
    """What `LeWM` is, with other `encode` and `predict`. `tokens` is how many a frame has."""

    def __init__(self, config: LeWMConfig, encoder: Tokens, tokens: int, width: int) -> None:
        nn.Module.__init__(self)
        c = self.config = replace(config, latent=tokens * width)
        self.encoder, self.tokens = encoder, tokens
        self.register_buffer("mean", torch.zeros(tokens, width))
        self.register_buffer("std", torch.ones(width))
        self.action_encoder = nn.Linear(c.actions, 10)
        self.enter, self.leave = nn.Linear(width + 10, c.width), nn.Linear(c.width, width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, c.history, tokens, c.width))
        self.blocks = nn.ModuleList(MaskedBlock(c) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width)

    def train(self, mode: bool = True) -> "TokenModel":
        super().train(mode)
        self.encoder.eval()  # frozen is frozen
        return self

    @torch.no_grad()
    def standardize(self, frames: UInt8[Tensor, "B T 3 H W"]) -> "TokenModel":
        """Take mean and spread of the tokens from some frames."""
        tokens = self.encoder.tokens(frames.flatten(0, 1))  # BT P C
        self.mean.copy_(tokens.mean(dim=0))
        spread = (tokens - self.mean).square().mean(dim=(0, 1)).sqrt()
        self.std.copy_(spread.clamp(min=1e-3 * float(spread.max())))  # what never varies is not blown up
        return self

    @torch.no_grad()
    def encode(self, frames: UInt8[Tensor, "B T 3 H W"] | Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B T D"]:
        tokens = (self.encoder.tokens(frames.flatten(0, 1)) - self.mean) / self.std
        return tokens.flatten(1).unflatten(0, frames.shape[:2])

    def predict(self, z: Float[Tensor, "B T D"], actions: Float[Tensor, "B Ta kA"]) -> Float[Tensor, "B T D"]:
        if z.shape[1] > self.config.history or z.shape[1] != actions.shape[1]:
            raise ValueError(f"{z.shape[1]} latents and {actions.shape[1]} blocks of actions: give one block a latent, "
                             f"and at most {self.config.history}, the model's history")
        T, P = z.shape[1], self.tokens
        beside = self.action_encoder(actions)[:, :, None].expand(-1, -1, P, -1)
        x = self.enter(torch.cat((z.unflatten(2, (P, -1)), beside), dim=-1))  # B T P W
        x = (x + self.positions[:, :T]).flatten(1, 2)
        frame = torch.arange(T, device=z.device).repeat_interleave(P)
        for block in self.blocks:
            x = block(x, frame[:, None] >= frame)
        return self.leave(self.norm(x)).unflatten(1, (T, P)).flatten(2)


class MaskedBlock(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)); a token sees those that the mask allows."""

    def __init__(self, c: LeWMConfig) -> None:
        super().__init__()
        self.heads, self.dropout = c.heads, nn.Dropout(c.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(c.width) for _ in range(2))
        inner = c.heads * c.head_dim
        self.qkv, self.out = nn.Linear(c.width, 3 * inner, bias=False), nn.Linear(inner, c.width)
        self.up, self.down = nn.Linear(c.width, c.hidden), nn.Linear(c.hidden, c.width)

    def forward(self, x: Float[Tensor, "B X W"], mask: Bool[Tensor, "X X"]) -> Float[Tensor, "B X W"]:
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # B H X w
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.dropout(self.out(heard.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.down(F.gelu(self.up(self.norms[1](x)))))


class Finer(nn.Module):
    """The map before a convolutional encoder's last layer."""

    def __init__(self, encoder: ConvEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def tokens(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B P C"]:
        return self.encoder.layers[:-2](self.encoder.normalized(images)).flatten(2).mT


@torch.no_grad()
def frozen_tokens(config: LeWMConfig, encoder: Tokens, frames: UInt8[Tensor, "B T 3 H W"]) -> TokenModel:
    """An untrained predictor over an encoder's tokens, in units that some frames give."""
    encoder = Finer(encoder) if isinstance(encoder, ConvEncoder) else encoder
    P, C = encoder.eval().tokens(frames[:1, 0]).shape[1:]
    model = TokenModel(config, encoder, P, C).to(frames.device)
    return model if isinstance(encoder, DinoTokens) else model.standardize(frames)


DINO = "facebook/dinov2-small"  # on the hub; what DINO-WM takes


def dino_folder() -> Path:
    """Where DINOv2's weights are looked for before the hub."""
    return cache_dir() / "lewm" / DINO.split("/")[1]


class DinoTokens(nn.Module):
    """DINOv2's patch tokens, after its last norm. Images are enlarged to `size` first, of 14 pixels a patch.

    `source` is a folder or a name on the hub; by default our folder if there is one, and else DINO-WM's on the hub.
    Raises ImportError without transformers, OSError if the weights are not to be had, and ValueError if they are others
    or do not fit the size.
    """

    def __init__(self, source: str | None = None, *, size: int = 196) -> None:
        super().__init__()
        source = source or (str(dino_folder()) if dino_folder().is_dir() else DINO)
        try:
            from transformers import Dinov2Model
        except ImportError:
            raise ImportError("DINOv2 needs transformers: pip install 'minilab[labs]'") from None
        try:
            self.model, found = Dinov2Model.from_pretrained(source, output_loading_info=True)
        except OSError as error:
            raise OSError(f"the weights {source!r} are neither a folder here nor on a hub that answers: where there is "
                          f"a network, run hf download {DINO} --local-dir dinov2-small; make that folder "
                          f"{dino_folder()} here; or take the arm frozen_learned, a frozen encoder of ours") from error
        if absent := found["missing_keys"]:
            raise ValueError(f"{source!r} lacks {len(absent)} of DINOv2's tensors, such as {min(absent)}, which would "
                             f"stay random: download {DINO}")
        if size % self.model.config.patch_size:
            raise ValueError(f"{size} pixels do not divide into patches of {self.model.config.patch_size}")
        self.size = size
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def tokens(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B P C"]:
        images = F.interpolate(images / 255, size=(self.size, self.size), mode="bilinear", antialias=True)
        return self.model((images - self.mean) / self.std).last_hidden_state[:, 1:]
