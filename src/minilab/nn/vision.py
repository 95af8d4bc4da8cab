"""Two encoders of images: a small vision transformer (ViT) and, for two cores, four convolutions.

Dosovitskiy et al. (2021) for the ViT, in the form of Hugging Face's `ViTModel` without its pooler. Notable:

- Both take images as they are, uint8 in 0..255 or floats in 0..1, and normalize inside: no caller can forget to.
- Blocks norm first (LayerNorm, attention, LayerNorm, MLP with GELU); positions are learned; one norm at the end.
- Each gives one vector an image, or one a patch: the map of the image that systems like DINO-WM plan with.

Shapes: B images, P patches, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

Images = UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"]


@dataclass(frozen=True)
class VisionConfig:
    """An encoder. Raises ValueError if the image does not divide into patches or strides."""

    kind: Literal["vit", "conv"] = "vit"
    image: int = 224  # height and width in pixels
    width: int = 192  # D
    patch: int = 14  # vit: height and width of a patch
    depth: int = 12  # vit: blocks
    heads: int = 3  # vit
    hidden: int = 768  # vit: width of the MLP
    channels: Sequence[int] = (16, 32, 64, 64)  # conv: each layer halves the image

    def __post_init__(self) -> None:
        unit = self.patch if self.kind == "vit" else 2 ** len(self.channels)
        if self.image % unit:
            raise ValueError(f"an image of {self.image} pixels does not divide into {unit}; choose a multiple")
        object.__setattr__(self, "channels", tuple(self.channels))  # JSON gives a list

    def build(self) -> "ViT | ConvEncoder":
        return ViT(self) if self.kind == "vit" else ConvEncoder(self)


class _Encoder(nn.Module):
    """Knows the size of its images and how to normalize them: with the mean and spread of ImageNet's colors."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def normalized(self, images: Images) -> Float[Tensor, "B 3 H W"]:
        """Raises ValueError for images of another size."""
        size = self.config.image
        if tuple(images.shape[-2:]) != (size, size):
            raise ValueError(f"this encoder is for images of {size} x {size} pixels, not {images.shape[-2]} x "
                             f"{images.shape[-1]}; resize them, or build one with VisionConfig(image=...)")
        images = images / 255 if images.dtype == torch.uint8 else images
        return (images - self.mean) / self.std


class ViT(_Encoder):
    """The vector of an image is its CLS token's, after the last norm."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__(config)
        D, P = config.width, (config.image // config.patch) ** 2
        self.embed = nn.Conv2d(3, D, config.patch, stride=config.patch)
        self.cls, self.positions = nn.Parameter(torch.zeros(1, 1, D)), nn.Parameter(torch.zeros(1, 1 + P, D))
        self.blocks = nn.ModuleList(ViTBlock(D, config.heads, config.hidden) for _ in range(config.depth))
        self.norm = nn.LayerNorm(D)
        self.apply(_init)
        for parameter in (self.cls, self.positions):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, images: Images) -> Float[Tensor, "B D"]:
        return self._seen(images, only=1)[:, 0]

    def tokens(self, images: Images) -> Float[Tensor, "B P D"]:
        """The patches' vectors, row by row."""
        return self._seen(images)[:, 1:]

    def _seen(self, images: Images, only: int | None = None) -> Float[Tensor, "B only D"]:
        x = self.embed(self.normalized(images)).flatten(2).mT  # B P D
        x = torch.cat((self.cls.expand(len(x), -1, -1), x), dim=1) + self.positions
        for i, block in enumerate(self.blocks, start=1):
            x = block(x, only if i == len(self.blocks) else None)
        return self.norm(x[:, :only])


class ViTBlock(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)). With `only`, of the first so many tokens, which see all."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "B T D"], only: int | None = None) -> Float[Tensor, "B only D"]:
        B, T, D = x.shape
        q, k, v = self.qkv(self.norms[0](x)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # B H T d
        x, q = x[:, :only], q[:, :, :only]
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class ConvEncoder(_Encoder):
    """3 x 3 convolutions of stride 2. The last map is flattened, not averaged: where a thing is must survive."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__(config)
        side = config.image >> len(config.channels)
        layers = []
        for C_in, C_out in zip((3, *config.channels), config.channels, strict=False):
            layers += [nn.Conv2d(C_in, C_out, 3, stride=2, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(config.channels[-1] * side**2, config.width)

    def forward(self, images: Images) -> Float[Tensor, "B D"]:
        return self.out(self.layers(self.normalized(images)).flatten(1))

    def tokens(self, images: Images) -> Float[Tensor, "B P C"]:
        """The last map's vectors, row by row; C is its number of channels."""
        return self.layers(self.normalized(images)).flatten(2).mT


def _init(module: nn.Module) -> None:
    """As for the published ViT: small normal weights, no biases."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
