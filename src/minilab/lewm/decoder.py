"""Pictures of latents: a decoder that is trained afterwards, on latents that no longer change.

Maes et al. (2026), appendix D, for looking only: nothing here teaches the world model, and no plan needs it. Notable:

- `CrossDecoder` is the paper's: P learned queries, one a patch, attend to the latent, and become pixels. Its depth and
  its training are not published; ours are below.
- Attention to a single latent has nothing to choose: it adds the same vector to every query. What tells the patches
  apart is the query, and it is the MLP that brings the two together. With a latent of several tokens attention chooses.
- `ConvDecoder` is for two cores.
- Both draw on the mean picture, which `learn_decoder` gives them, and begin by drawing nothing. A first noise would be
  much larger than a dot of a few pixels, and what teaches its patches to be silent makes them blind to the latent.
- Both read a latent in units of its spread (a BatchNorm): a model that shrank may know all the same, and a decoder that
  learns beside a fresh encoder finds next to no spread at first.
- A blurred thing is one whose place the latent does not tell: the squared error is least for the mean of what may be.

Shapes: B images, T frames, D latent width, P patches, K tokens in a latent of width C each, W width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from minilab.core.train import TrainConfig, TrainLog, train
from minilab.lewm.learn import Clip, Draw
from minilab.lewm.model import LeWM


class Decoder(nn.Module):
    """Draws on a background, from latents in units of their spread: however small that is. Those below say how."""

    def __init__(self, latent: int, image: int) -> None:
        super().__init__()
        self.unit = nn.BatchNorm1d(latent, eps=1e-10, affine=False)
        self.background = nn.Parameter(torch.zeros(3, image, image))

    def forward(self, z: Float[Tensor, "B D"]) -> Float[Tensor, "B 3 H W"]:
        return self.background + self.draw(self.unit(z))

    @torch.no_grad()
    def begin(self, frames: UInt8[Tensor, "B T 3 H W"]) -> "Decoder":
        """Take the mean of some frames as the background."""
        self.background.copy_((frames / 255).mean(dim=(0, 1)))
        return self


class CrossDecoder(Decoder):
    """Queries that ask a latent for their patch. Raises ValueError if the sizes do not divide."""

    def __init__(self, latent: int, image: int, *, tokens: int = 1, patch: int = 16, width: int = 192, depth: int = 4,
                 heads: int = 3) -> None:
        super().__init__(latent, image)
        if image % patch or latent % tokens or width % heads:
            raise ValueError(f"an image of {image} does not divide into patches of {patch}, a latent of {latent} into "
                             f"{tokens} tokens, or a width of {width} into {heads} heads: choose others")
        self.tokens, self.patch, self.side = tokens, patch, image // patch
        self.enter = nn.Linear(latent // tokens, width)
        self.places = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        self.queries = nn.Parameter(0.02 * torch.randn(1, self.side**2, width))
        self.blocks = nn.ModuleList(_CrossBlock(width, heads) for _ in range(depth))
        self.norm, self.leave = nn.LayerNorm(width), _silent(nn.Linear(width, 3 * patch**2))

    def draw(self, z: Float[Tensor, "B D"]) -> Float[Tensor, "B 3 H W"]:
        keys = self.enter(z.unflatten(1, (self.tokens, -1))) + self.places  # B K W
        x = self.queries.expand(len(z), -1, -1)
        for block in self.blocks:
            x = block(x, keys)
        x = self.leave(self.norm(x)).unflatten(1, (self.side, self.side))  # B row column 3·p·p
        x = x.unflatten(3, (3, self.patch, self.patch))
        return x.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


class _CrossBlock(nn.Module):
    """x + attention(norm(x), keys), then x + MLP(norm(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "B P W"], keys: Float[Tensor, "B K W"]) -> Float[Tensor, "B P W"]:
        q, k, v = (a.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # B H P w
                   for a in (self.q(self.norms[0](x)), *self.kv(self.norms[1](keys)).chunk(2, dim=-1)))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norms[2](x))))


class ConvDecoder(Decoder):
    """The small encoder turned around: a map of 4 x 4, made twice as large until it is the picture.

    Raises ValueError if that does not end at the picture's size.
    """

    def __init__(self, latent: int, image: int, *, channels: int = 16) -> None:
        super().__init__(latent, image)
        doublings = (image // 4).bit_length() - 1
        if image != 4 << doublings:
            raise ValueError(f"no doubling of 4 is {image}: choose a power of 2, or CrossDecoder")
        self.enter = nn.Linear(latent, 2 * channels * 4 * 4)
        layers = [nn.Unflatten(1, (2 * channels, 4, 4))]
        for i in range(doublings):
            layers += [nn.GELU(), nn.ConvTranspose2d((2 if i == 0 else 1) * channels, channels, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers, nn.GELU(), _silent(nn.Conv2d(channels, 3, 3, padding=1)))

    def draw(self, z: Float[Tensor, "B D"]) -> Float[Tensor, "B 3 H W"]:
        return self.layers(self.enter(z))


def _silent(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def reconstruction_error(decoder: nn.Module, z: Float[Tensor, "B T D"], frames: UInt8[Tensor, "B T 3 H W"]
                         ) -> Float[Tensor, ""]:
    """Mean squared error of colors in 0..1."""
    return (decoder(z.flatten(0, 1)) - frames.flatten(0, 1) / 255).square().mean()


def learn_decoder(decoder: Decoder, model: LeWM, draw: Draw, *, steps: int = 1000, batch: int = 32, lr: float = 1e-3,
                  seed: int = 0) -> TrainLog:
    """Train `decoder` in place on the latents of a frozen model, and leave it in evaluation.

    Raises ValueError if the model is in training mode: BatchNorm would go on moving.
    """
    if model.training:
        raise ValueError("the model is in training mode, and its latents still move: call model.eval() first")
    device = next(model.parameters()).device

    def batches(step: int) -> tuple[Tensor, Tensor]:
        clip = draw(batch, torch.Generator(device).manual_seed((seed << 32) + step))
        with torch.no_grad():
            return model.encode(clip.frames), clip.frames

    settings = TrainConfig(steps=steps, lr=lr, weight_decay=1e-3, betas=(0.9, 0.999), warmup=min(steps, 20),
                           min_lr_ratio=0.0, replay=True)
    decoder.begin(draw(256, torch.Generator(device).manual_seed(seed)).frames)
    log = train(decoder.requires_grad_(True), batches, lambda d, b: reconstruction_error(d, *b), settings)
    decoder.eval().requires_grad_(False)
    return log


@torch.no_grad()
def picture(decoder: nn.Module, z: Float[Tensor, "*b D"]) -> UInt8[Tensor, "*b 3 H W"]:
    """What a latent looks like, as bytes."""
    drawn = decoder(z.flatten(0, -2)).clamp(0, 1).mul(255).round().to(torch.uint8)
    return drawn.unflatten(0, z.shape[:-1])


class Strip(NamedTuple):
    """Three rows of a figure."""

    real: UInt8[Tensor, "B T 3 H W"]
    reconstructed: UInt8[Tensor, "B T 3 H W"]  # what the latent of each real frame looks like
    imagined: UInt8[Tensor, "B T 3 H W"]  # after the frames of history, from blocks of actions alone


@torch.no_grad()
def imagined_strip(model: LeWM, decoder: nn.Module, clip: Clip, *, history: int = 1) -> Strip:
    """Real frames, the same through the latent, and what the model imagines from the first `history` of them on."""
    z = model.encode(clip.frames)
    past = clip.actions[:, : history - 1] if history > 1 else None
    dreamed = model.imagine(z[:, :history], clip.actions[:, history - 1 : -1], past)
    imagined = torch.cat((z[:, :history], dreamed), dim=1)
    return Strip(clip.frames, picture(decoder, z), picture(decoder, imagined))
