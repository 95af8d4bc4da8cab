"""A classifier that is certified by its own compressed file.

Lotfi et al. (2022): train few numbers (`subspace`), of few values (`quantize`), in few bits (`coding`, `message`). Then
the file of b bits is the certificate: with probability 1 - delta over the n training examples, for all files at once,

    kl(training error || R) <= (b ln 2 + ln tried + ln 1/delta) / n                                   `bounds.occam_kl`

Notable:

- The file is decoded, the network rebuilt from it, and the training error is that of the rebuilt network. Whatever came
  before, and however it was found, is not in the statement.
- Weights are the same wherever a file is opened. What a network makes of them in float32 is not quite: on another
  machine an example that is nearly a tie may count as an error, or no longer.
- Test examples are only looked at: R is bounded without them.
- `tried` counts decoders: inputs, networks, ways to begin that were compared on these data before the lists that a
  message names were fixed. For this chapter they were fewer than 256.
- The loss of the training is not cross-entropy, which spends few numbers on examples that stay wrong anyway.

Shapes: N examples, C classes, d numbers, L values.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from minilab.core.train import TrainConfig, TrainLog, train
from minilab.pacbayes.bounds import Certificate, nats_of, occam_kl, uniform_nats
from minilab.pacbayes.data import Dataset
from minilab.pacbayes.message import SEAL, Message, decode, encode, fingerprint, seal, unseal
from minilab.pacbayes.networks import NETWORKS, Build, mlp
from minilab.pacbayes.quantize import Quantized
from minilab.pacbayes.subspace import PROJECTIONS, Kronecker, Projection, Subspace

TRIED = 256  # decoders


@dataclass(frozen=True)
class Recipe:
    """How to find a file. The first five are in it and paid for in bits; to tune the others is free."""

    network: Build = mlp
    projection: Projection = Kronecker
    d: int = 1024  # numbers to train, a square
    L: int = 3  # values that each may have
    seed: int = 1  # of where the network begins and of the projection
    steps: int = 2000  # of training v
    rounded_steps: int = 2000  # and then of v rounded to the codebook
    lr: float = 0.2
    rounded_lr: float = 0.04
    batch: int = 128
    power: float = 0.5  # of the loss: 0 is cross-entropy, 1 the chance to err
    replay: bool = True  # a step as one graph, where there is a GPU

    def __post_init__(self) -> None:
        if self.d < 1 or math.isqrt(self.d) ** 2 != self.d:
            raise ValueError(f"d is {self.d}, and a message holds its root: give a square, such as 900 or 1024")
        if self.L < 2 or self.seed < 1:
            raise ValueError(f"L is {self.L} and seed {self.seed}: give at least 2 values, and seeds from 1 on")


@dataclass(frozen=True)
class Certified:
    """What a file certifies."""

    bound: Certificate  # on the true risk of the network in the file
    bits: int  # of the message
    train_error: float  # of that network
    test_error: float  # to look at: the bound does without


class Learned(NamedTuple):
    """A file, and what rounding cost."""

    file: bytes
    exact_error: float  # on the training set, before v was rounded


def certify(data: Dataset, recipe: Recipe, *, networks: Sequence[Build] = NETWORKS, delta: float = 0.05,
            tried: int = TRIED) -> Certified:
    """`learn` a file, and say what it certifies."""
    return certificate(learn(data, recipe, networks=networks).file, data, networks=networks, delta=delta, tried=tried)


def certificate(file: bytes, data: Dataset, *, networks: Sequence[Build] = NETWORKS, delta: float = 0.05,
                tried: int = TRIED) -> Certified:
    """What a file certifies, from the file and the data alone: rebuild the network, count its errors, and bound.

    `networks` and how examples look are what the sender and we agreed on beforehand. On the device of the data.
    """
    network = rebuild(file, data.shape, len(data.classes), networks=networks).to(data.train_y.device)
    bits, n = 8 * (len(file) - SEAL), len(data.train_y)
    train_error = error_rate(network, data.train_x, data.train_y)
    bound = occam_kl(train_error, n, nats_of(bits) + uniform_nats(tried), delta)
    guess = 1 - float(data.train_y.bincount().max()) / n
    return Certified(Certificate(bound, guess), bits, train_error, error_rate(network, data.test_x, data.test_y))


def rebuild(file: bytes, shape: Sequence[int], classes: int, *, networks: Sequence[Build] = NETWORKS) -> nn.Module:
    """The network in a file, on the CPU.

    Its weights are computed in float64 and then rounded: the same, bit for bit, wherever the file is opened. Raises
    ValueError if the file is damaged, or is for other networks or other examples.
    """
    inside, meant_for = unseal(file)
    message = decode(inside)
    if max(message.network - len(networks), message.projection - len(PROJECTIONS)) >= 0:
        raise ValueError(f"the file names network {message.network} and projection {message.projection}, of "
                         f"{len(networks)} and {len(PROJECTIONS)}: it was written for longer lists")
    subspace = Subspace(networks[message.network], shape, classes, d=len(message.symbols), seed=message.seed,
                        projection=PROJECTIONS[message.projection])
    if fingerprint(subspace.shapes) != meant_for:
        raise ValueError(f"the file is not for {named(networks[message.network])} with {classes} classes of examples "
                         f"of {tuple(shape)}: give the networks and the kind of data that it was written for")
    network = subspace.double().network
    network.load_state_dict(subspace.weights(message.values().double()))
    return network.float()


def learn(data: Dataset, recipe: Recipe, *, networks: Sequence[Build] = NETWORKS) -> Learned:
    """Train v, then v rounded to a codebook, and write the file. On the device of the data."""
    subspace = begun(recipe, data.shape, len(data.classes), networks).to(data.train_y.device)

    def taught(model: nn.Module, steps: int, lr: float) -> None:
        fit(model, data, recipe, steps=steps, lr=lr)

    taught(subspace, recipe.steps, recipe.lr)
    exact_error = error_rate(subspace, data.train_x, data.train_y)
    return Learned(written(subspace, recipe, networks, taught), exact_error)


def begun(recipe: Recipe, shape: Sequence[int], classes: int, networks: Sequence[Build]) -> Subspace:
    """The recipe's network before it learns. Raises ValueError if no message could name it."""
    if recipe.network not in networks or recipe.projection not in PROJECTIONS:
        raise ValueError(f"{named(recipe.network)} or {named(recipe.projection)} is not in the list that messages "
                         "name: give `networks` with it, as `certificate` must have them too")
    return Subspace(recipe.network, shape, classes, d=recipe.d, seed=recipe.seed, projection=recipe.projection)


def written(subspace: Subspace, recipe: Recipe, networks: Sequence[Build],
            taught: Callable[[nn.Module, int, float], None]) -> bytes:
    """Round v to a codebook, let `taught` go on with it (model, steps, learning rate), and write the file."""
    rounded = Quantized(subspace, recipe.L)
    taught(rounded, recipe.rounded_steps, recipe.rounded_lr)
    message = Message(networks.index(recipe.network), PROJECTIONS.index(recipe.projection), recipe.seed,
                      rounded.c.detach().half().cpu(), rounded.symbols().cpu())
    return seal(encode(message), subspace.shapes)


def named(build: Callable) -> str:
    """Its name; a partial function has none, but what it calls has."""
    return getattr(build, "__name__", None) or named(build.func)


def fit(model: nn.Module, data: Dataset, recipe: Recipe, *, steps: int, lr: float) -> TrainLog:
    """Train what of `model` asks for it: Adam, half a cosine down, and batches without replacement."""
    n, batch = len(data.train_y), min(recipe.batch, len(data.train_y))
    each = n // batch

    @functools.lru_cache(maxsize=1)
    def order(epoch: int) -> Int64[Tensor, "N"]:
        generator = torch.Generator().manual_seed(recipe.seed * 10_000 + epoch)
        return torch.randperm(n, generator=generator).to(data.train_y.device)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        epoch, i = divmod(step, each)
        rows = order(epoch)[i * batch : (i + 1) * batch]
        return data.train_x[rows], data.train_y[rows]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return bent_cross_entropy(model(batch[0]), batch[1], recipe.power)

    config = TrainConfig(steps, lr=lr, betas=(0.9, 0.999), weight_decay=0.0, min_lr_ratio=0.02, clip=None,
                         precision="fp32", replay=recipe.replay)
    return train(model, batches, loss, config)


def bent_cross_entropy(logits: Float[Tensor, "B C"], y: Int64[Tensor, "B"], power: float) -> Float[Tensor, ""]:
    """Mean of (1 - p_y^power) / power (Zhang and Sabuncu, 2018): -ln p_y at power 0, and 1 - p_y at 1.

    Its gradient is that of cross-entropy times p_y^power: little is spent on examples that are lost.
    """
    log_p = logits.log_softmax(dim=1).gather(1, y[:, None])
    return -(torch.expm1(power * log_p) / power if power else log_p).mean()


@torch.no_grad()
def error_rate(model: nn.Module, x: Shaped[Tensor, "N *shape"], y: Int64[Tensor, "N"], *, chunk: int = 2000) -> float:
    """The share of examples whose largest output is not their class."""
    parts = zip(x.split(chunk), y.split(chunk), strict=True)
    return int(sum((model(some).argmax(dim=1) != labels).sum() for some, labels in parts)) / len(y)
