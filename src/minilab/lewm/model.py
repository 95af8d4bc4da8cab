"""LeWorldModel: an encoder of images and a predictor of the next latent, learned together.

Maes et al. (2026), section 3. With images o, blocks of actions a, and latents of width D,

    z_t = f(o_t),    z_hat_{t+1} = g(z_{t-N+1..t}, a_{t-N+1..t}).

Notable:
- Block a_t is the one that leaves frame t: the k actions between two frames that are kept, side by side, z-scored.
- The predictor is causal: a clip of T frames teaches T - 1 predictions at once. Actions steer it by AdaLN-zero, and so
  an untrained one ignores them.
- A head with a BatchNorm ends both halves. The encoder's last LayerNorm fixes the length of each vector, and no batch
  of such vectors is Gaussian. In evaluation BatchNorm uses running averages: put a model in `eval()` before you plan.
- Beyond the data the model feeds on its own latents: `imagine`.

Shapes: B sequences, T frames, h frames of history, H blocks ahead, D latent width, A actions, k of them in a block.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from minilab.nn.adaln import AdaLNBlock
from minilab.nn.vision import VisionConfig


@dataclass(frozen=True)
class LeWMConfig:
    """The shape of a model. Its defaults are the paper's, as its code has them."""

    actions: int  # numbers in a block, k * A
    vision: VisionConfig = VisionConfig()
    latent: int = 192  # D
    history: int = 3  # N, the most latents that the predictor sees
    width: int = 192  # of the predictor
    depth: int = 6  # blocks of the predictor
    heads: int = 16
    head_dim: int = 64
    hidden: int = 2048  # width of the predictor's MLPs
    head_hidden: int = 2048  # width of the two heads
    head_norm: Literal["batch", "layer", "none"] = "batch"
    dropout: float = 0.1  # in the predictor
    inner_norms: bool = True  # the released code norms twice in each block; only its count of parameters needs that


def published(actions: int = 10, **options) -> LeWMConfig:
    """The paper's: ViT-Tiny on images of 224 pixels. 18,034,478 parameters with blocks of 10 numbers."""
    return LeWMConfig(actions, **options)


def gpu(actions: int = 10, **options) -> LeWMConfig:
    """The same on images of 64 pixels in patches of 8."""
    return LeWMConfig(actions, **{"vision": VisionConfig(image=64, patch=8), **options})


def compact(actions: int = 10, **options) -> LeWMConfig:
    """Between `gpu` and `cpu`: images of 64 pixels, two million parameters, small enough to ship as 8-bit integers."""
    small = dict(vision=VisionConfig(image=64, patch=8, width=128, depth=5, heads=4, hidden=512), latent=128, width=128,
                 depth=4, heads=8, head_dim=16, hidden=512, head_hidden=256, inner_norms=False)
    return LeWMConfig(actions, **{**small, **options})


def convolutions() -> VisionConfig:
    """An encoder for images of 64 pixels instead of `compact`'s; the paper tries a ResNet-18 for its own."""
    return VisionConfig("conv", image=64, width=256, channels=(32, 64, 128, 128))


def cpu(actions: int = 10, **options) -> LeWMConfig:
    """For two cores: convolutions on images of 32 pixels, 32 numbers in a latent, two narrow blocks."""
    small = dict(vision=VisionConfig("conv", image=32, width=64), latent=32, width=64, depth=2, heads=4, head_dim=16,
                 hidden=256, head_hidden=256, inner_norms=False)
    return LeWMConfig(actions, **{**small, **options})


class LeWM(nn.Module):
    """Encoder f and predictor g."""

    def __init__(self, config: LeWMConfig) -> None:
        super().__init__()
        c = self.config = config
        self.encoder = c.vision.build()
        self.projector = Head(c.vision.width, c.head_hidden, c.latent, c.head_norm)
        self.action_encoder = nn.Sequential(nn.Linear(c.actions, 10), nn.Linear(10, 4 * c.width), nn.SiLU(),
                                            nn.Linear(4 * c.width, c.width))
        self.predictor = Predictor(c)
        self.predictor_head = Head(c.width, c.head_hidden, c.latent, c.head_norm)

    def forward(self, frames: UInt8[Tensor, "B T 3 H W"], actions: Float[Tensor, "B T kA"]
                ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T1 D"]]:
        """What training needs: the latents of a clip, and the predictions of all but the first.

        A clip longer than the model's history is cut into whole histories: with N = 1 each frame stands alone.
        """
        z, steps = self.encode(frames), frames.shape[1] - 1
        parts = max(1, steps // self.config.history)

        def cut(x: Tensor) -> Tensor:
            return x[:, :steps].unflatten(1, (parts, -1)).flatten(0, 1)  # B·parts N X

        return z, self.predict(cut(z), cut(actions)).unflatten(0, (-1, parts)).flatten(1, 2)

    def encode(self, frames: UInt8[Tensor, "B T 3 H W"] | Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B T D"]:
        B, T = frames.shape[:2]
        return self.projector(self.encoder(frames.flatten(0, 1)).unflatten(0, (B, T)))

    def predict(self, z: Float[Tensor, "B T D"], actions: Float[Tensor, "B Ta kA"]) -> Float[Tensor, "B T D"]:
        """At each position the next latent, from those up to there and the blocks that leave them.

        Raises ValueError for more positions than the model's history, or other than one block a latent.
        """
        if z.shape[1] > self.config.history or z.shape[1] != actions.shape[1]:
            raise ValueError(f"{z.shape[1]} latents and {actions.shape[1]} blocks of actions: give one block a latent, "
                             f"and at most {self.config.history}, the model's history")
        return self.predictor_head(self.predictor(z, self.action_encoder(actions)))

    def imagine(self, z_history: Float[Tensor, "B h D"], actions: Float[Tensor, "B H kA"],
                past: Float[Tensor, "B h1 kA"] | None = None) -> Float[Tensor, "B H D"]:
        """The latents that `actions` lead to, each predicted from the last N, real or predicted.

        The first block leaves the last latent of the history. A history of more than one latent needs `past`, the h - 1
        blocks between its frames. Raises ValueError without it, or for more history than the model can see.
        """
        h, N = z_history.shape[1], self.config.history
        known = 0 if past is None else past.shape[1]
        if h > N or known != h - 1:
            raise ValueError(f"a history of {h} latents with {known} blocks between them: give at most {N} latents "
                             "and, as `past`, one block less")
        z = z_history
        blocks = actions if past is None else torch.cat((past, actions), dim=1)
        for t in range(h, h + actions.shape[1]):
            begin = max(0, t - N)
            z = torch.cat((z, self.predict(z[:, begin:t], blocks[:, begin:t])[:, -1:]), dim=1)
        return z[:, h:]


class Predictor(nn.Module):
    """A causal transformer over latents, each position steered by its block of actions."""

    def __init__(self, c: LeWMConfig) -> None:
        super().__init__()
        self.enter = nn.Identity() if c.latent == c.width else nn.Linear(c.latent, c.width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, c.history, c.width))
        self.blocks = nn.ModuleList(
            AdaLNBlock(c.width, c.heads, c.hidden, c.width, causal=True, head_dim=c.head_dim, dropout=c.dropout,
                       qkv_bias=False, inner_norms=c.inner_norms) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width)

    def forward(self, z: Float[Tensor, "B T D"], steer: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        x = self.enter(z) + self.positions[:, : z.shape[1]]
        for block in self.blocks:
            x = block(x, steer)
        return self.norm(x)


class Head(nn.Module):
    """Linear, norm, GELU, Linear. Every frame of every sequence is one sample of the BatchNorm's batch."""

    def __init__(self, width: int, hidden: int, out: int, norm: Literal["batch", "layer", "none"]) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, out)
        self.norm = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": nn.Identity}[norm](hidden)

    def forward(self, x: Float[Tensor, "B T X"]) -> Float[Tensor, "B T D"]:
        hidden = self.norm(self.up(x).flatten(0, 1))
        return self.down(nn.functional.gelu(hidden)).unflatten(0, x.shape[:2])
