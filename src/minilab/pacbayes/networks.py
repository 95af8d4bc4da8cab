"""The networks of the chapter: small, and without anything that a message would have to carry beside the weights.

A classifier is rebuilt from its message and from what was agreed on before the data were seen. So there is

- no BatchNorm: its running averages are numbers of the training set (`subspace.Subspace` refuses them);
- no mean or spread of the data at the input: `Standardize` looks at one example at a time;
- a first layer that sees larger pictures at about 14 x 14. A random direction among fewer weights does more.

Shapes: B examples in a batch, * what one of them looks like, C classes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

Build = Callable[[tuple[int, ...], int], nn.Module]  # the shape of an example, the number of classes


class Standardize(nn.Module):
    """Bytes or numbers to floats; pictures pooled to about 14 x 14; each example to mean 0 and spread 1, by itself."""

    def forward(self, x: Shaped[Tensor, "B *shape"]) -> Float[Tensor, "B *smaller"]:
        x = x.float()
        if x.ndim == 4 and (size := x.shape[-1] // 14) > 1:
            x = F.avg_pool2d(x, size)
        axes = tuple(range(1, x.ndim))
        x = x - x.mean(axes, keepdim=True)
        return x / x.square().mean(axes, keepdim=True).sqrt().clamp(min=1e-3)  # an empty picture stays empty


def mlp(shape: tuple[int, ...], classes: int, *, width: int = 128) -> nn.Module:
    """One hidden layer."""
    inputs = Standardize()(torch.zeros(1, *shape)).numel()
    return nn.Sequential(Standardize(), nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, classes))


def cnn(shape: tuple[int, ...], classes: int, *, width: int = 16) -> nn.Module:
    """Two convolutions, for pictures."""
    if len(shape) != 3:
        raise ValueError(f"a convolution needs pictures of (channels, height, width), not {shape}: take `mlp`")
    features = nn.Sequential(
        Standardize(), nn.Conv2d(shape[0], width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(),
    )
    return nn.Sequential(features, nn.Linear(features(torch.zeros(1, *shape)).numel(), classes))


NETWORKS = (mlp, cnn)  # what a message can name, in this order
