"""Train a world model on clips, and look at what it learned.

Maes et al. (2026), section 3: the error of the predicted latent, and a regularizer that keeps latents Gaussian,

    loss = mean (z_hat_{t+1} - z_{t+1})^2 + lam * SIGReg(z).

Notable:
- The gradient flows through the prediction and through its target: no stop-gradient, no moving average, no decoder.
- The error is a mean over the D numbers of a latent, as in the released code; the paper's text has the squared norm.
- Without SIGReg the loss can reach 0 by a constant latent. So the loss says little, and `diagnose` looks elsewhere.
- BatchNorm's running averages trail weights that still move: in evaluation a model is the worse for it until the
  learning rate has come down (`mode_gap`). So the cosine ends at 0, and a model halfway is better than it looks.
- What acts is lam * batch: the paper's 0.09 at 128 is 0.18 at 64 (`sigreg.carried_over`).

Shapes: B clips, T frames, D latent width, k actions in a block of A numbers each.
"""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from minilab.core.train import TrainConfig, TrainLog, train
from minilab.core.weights import load_weights, save_weights
from minilab.lewm.data import LICENCE, Scale
from minilab.lewm.model import LeWM, LeWMConfig
from minilab.lewm.sigreg import sigreg
from minilab.lewm.straight import effective_rank
from minilab.lewm.swift import by_blocks
from minilab.nn.vision import VisionConfig


@runtime_checkable
class Clip(Protocol):
    """What is learned from: `data.Clip` is one."""

    frames: UInt8[Tensor, "B T 3 H W"]
    actions: Float[Tensor, "B T kA"]  # block t leaves frame t


Draw = Callable[[int, torch.Generator], Clip]  # so many random clips


@dataclass(frozen=True)
class LearnConfig:
    """How a model is trained. The defaults are the paper's.

    Raises ValueError for a batch without a spread, and for a negative weight.
    """

    steps: int
    batch: int = 128
    lam: float = 0.09  # weight of SIGReg; 0 collapses
    directions: int = 1024  # M
    knots: int = 17  # K, at which SIGReg compares
    lr: float = 5e-5
    weight_decay: float = 1e-3
    warmup: float = 0.01  # share of the steps
    clip: float = 1.0
    log_every: int = 50
    precision: str = "auto"
    compile: bool = False  # transformer blocks and SIGReg
    replay: bool = True  # a step on a GPU is one CUDA graph; a loss of your own must then never wait for the GPU

    def __post_init__(self) -> None:
        if self.batch < 2:
            raise ValueError(f"a batch of {self.batch} has no spread for BatchNorm and SIGReg to see; give 2 or more")
        if not self.lam >= 0:
            raise ValueError(f"lam is {self.lam}, and SIGReg has a weight of 0 or more: a negative one pushes latents "
                             "away from a Gaussian without end; the paper's is 0.09 at a batch of 128")


def small(steps: int = 800, **options) -> LearnConfig:
    """For the `cpu` model on two cores."""
    return LearnConfig(steps, **{"batch": 64, "lam": 0.1, "directions": 128, "lr": 1e-3, **options})


class Loss(NamedTuple):
    """A loss and its parts."""

    total: Float[Tensor, ""]
    prediction: Float[Tensor, ""]
    sigreg: Float[Tensor, ""]
    terms: Mapping[str, Float[Tensor, ""]] = MappingProxyType({})  # what other losses consist of, without weights


def lewm_loss(model: nn.Module, clip: Clip, generator: torch.Generator | None = None, *, lam: float,
              directions: int = 1024, knots: int = 17, group: "dist.ProcessGroup | None" = None, compile: bool = False
              ) -> Loss:
    """prediction + lam * sigreg. With a `group`, SIGReg is that of all its processes' clips, the rest of one's own."""
    z, predicted = model(clip.frames, clip.actions)
    prediction = (predicted - z[:, 1:]).float().square().mean()
    steps = (z if lam else z.detach()).transpose(0, 1)  # T B D; with lam = 0 it is only measured
    spread = sigreg(steps, generator, directions=directions, knots=knots, group=group, compile=compile)
    return Loss(prediction + lam * spread, prediction, spread)


@dataclass(frozen=True)
class Diagnostics:
    """What tells a model that learned from one that collapsed. A loss cannot.

    Errors are relative to the variance of the latents: 1 is what the best constant would get.
    """

    prediction: float  # mean squared error, as in the loss
    sigreg: float  # about 1.05 is perfect, 0.4 B is collapse
    std: float  # of each number of a latent, their mean; 1 is perfect
    rank: float  # exp of the entropy of the normalized singular values; at most D
    error: float  # of predictions
    error_shuffled: float  # of predictions from the blocks of another clip: near `error` if actions are ignored
    error_copy: float  # of repeating the last latent
    mode_gap: float  # between latents as BatchNorm makes them in training and in evaluation; also over the variance


@torch.no_grad()
def diagnose(model: nn.Module, clip: Clip, generator: torch.Generator | None = None, *, directions: int = 1024
             ) -> Diagnostics:
    """Look at a model, in evaluation, on clips that it was not trained on; the model is left in the mode it was in."""
    was_training = model.training
    model.eval()
    z, predicted = (x.float() for x in model(clip.frames, clip.actions))
    _, misled = model(clip.frames, clip.actions.roll(1, dims=0))
    model.train(was_training)
    in_training = copy.deepcopy(model).train()  # a copy, since BatchNorm would count this batch in its averages
    z_in_training, _ = in_training(clip.frames, clip.actions)
    flat = z.flatten(0, 1)  # BT D
    target, variance = z[:, 1:], flat.var(dim=0).mean().clamp(min=1e-20)
    errors = [(x.float() - target).square().mean() for x in (predicted, misled, z[:, :-1])]
    return Diagnostics(
        prediction=float(errors[0]),
        sigreg=float(sigreg(z.transpose(0, 1), generator, directions=directions)),
        std=float(flat.std(dim=0).mean()),
        rank=effective_rank(flat),
        error=float(errors[0] / variance),
        error_shuffled=float(errors[1] / variance),
        error_copy=float(errors[2] / variance),
        mode_gap=float((z_in_training.float() - z).square().mean() / variance),
    )


class Foresight(NamedTuple):
    """Mean squared errors after 1, 2, ... blocks, over the variance of the latents."""

    imagined: Float[Tensor, "H"]  # from the first frame and the blocks of actions
    still: Float[Tensor, "H"]  # by who says that nothing moves


@torch.no_grad()
def foresight(model: nn.Module, clip: Clip) -> Foresight:
    """How far ahead a model can imagine, on clips that it was not trained on."""
    z = model.encode(clip.frames).float()
    ends = model.imagine(z[:, :1], clip.actions[:, :-1]).float(), z[:, :1]
    return Foresight(*((end - z[:, 1:]).square().mean(dim=(0, 2)) / z.flatten(0, 1).var(dim=0).mean() for end in ends))


@dataclass(frozen=True)
class Moment:
    """A look at the training: the last batch's parts, and the held-out clips if there are any."""

    step: int
    lr: float
    prediction: float
    sigreg: float
    held_out: Diagnostics | None
    terms: dict[str, float] = field(default_factory=dict)  # of another loss


@dataclass
class History:
    """What a training came to. `moments` has one entry every `log_every` steps of this call."""

    log: TrainLog = field(default_factory=TrainLog)
    moments: list[Moment] = field(default_factory=list)


def learn(model: nn.Module, draw: Draw, config: LearnConfig, *, held_out: Clip | None = None, seed: int = 0,
          loss: Callable[[nn.Module, Clip, torch.Generator], Loss] | None = None,
          group: "dist.ProcessGroup | None" = None, checkpoint: Path | None = None, checkpoint_every: int = 1000
          ) -> History:
    """Train `model` in place on clips from `draw`, and leave it in evaluation, its weights fixed.

    `loss` replaces the loss, to compare with other ways not to collapse. An interrupted call goes on from its
    `checkpoint`.

    With a `group`, `model` averages gradients over its processes already (`DistributedDataParallel`), `config.batch` is
    that of each, and `draw`, whose generator is the same in all, gives each its own clips. A step is then that of one
    process with all clips, but for BatchNorm: it sees its own process's clips, unless the model went through
    `nn.SyncBatchNorm.convert_sync_batchnorm`, which needs GPUs.
    """
    if loss is None and config.lam == 0:
        warnings.warn("lam = 0: nothing holds latents apart, and prediction alone is best when all are the same. "
                      "The model will collapse", stacklevel=2)
    device = next(model.parameters()).device
    history, latest = History(), []

    def batches(step: int) -> tuple[Clip, torch.Generator]:
        # The same draws for the same step, so that a resumed run sees the same batches.
        generator = torch.Generator(device).manual_seed((seed << 32) + step)
        return draw(config.batch, generator), generator

    def total(model: nn.Module, drawn: tuple[Clip, torch.Generator]) -> Tensor:
        parts = loss(model, *drawn) if loss else lewm_loss(
            model, *drawn, lam=config.lam, directions=config.directions, knots=config.knots, group=group,
            compile=config.compile)
        latest[:] = [Loss(*(part.detach() for part in parts[:3]), {k: v.detach() for k, v in parts.terms.items()})]
        return parts.total

    def look(step: int, mean: float, lr: float) -> None:
        seen = None
        if held_out is not None:
            fixed = torch.Generator(device).manual_seed(seed)  # the same directions each time: comparable
            seen = diagnose(model, held_out, fixed, directions=config.directions)
        parts = latest[0]
        terms = {name: float(term) for name, term in parts.terms.items()}
        history.moments.append(Moment(step, lr, float(parts.prediction), float(parts.sigreg), seen, terms))

    settings = TrainConfig(steps=config.steps, lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.999),
                           warmup=round(config.warmup * config.steps), min_lr_ratio=0.0, clip=config.clip,
                           precision=config.precision, checkpoint=checkpoint, checkpoint_every=checkpoint_every,
                           log_every=config.log_every, replay=config.replay and group is None)
    if config.compile:
        by_blocks(model)
    history.log = train(model.requires_grad_(True), batches, total, settings, on_log=look)
    model.eval().requires_grad_(False)
    return history


def save_model(model: LeWM, path: Path | str, *, what: str, how_made: str, scale: Scale | None = None,
               dtype: str = "fp16", **facts) -> Path:
    """Write a model as one file with a card, which keeps the scale of its actions and any further `facts`."""
    scales = None if scale is None else {"mean": scale.mean.tolist(), "std": scale.std.tolist()}
    card = {"what": what, "how_made": how_made, "licence": LICENCE, "config": dataclasses.asdict(model.config),
            "scale": scales, **facts}
    return save_weights(model.state_dict(), path, card=card, dtype=dtype)


def load_model(path: Path | str, *, device: torch.device | str = "cpu") -> tuple[LeWM, Scale | None]:
    """Read what `save_model` wrote, by path or by the name of an asset, once its hash is right: model and scale."""
    state, card = load_weights(path, device=device)
    fields, scale = card["config"], card["scale"]
    model = LeWM(LeWMConfig(**{**fields, "vision": VisionConfig(**fields["vision"])}))
    model.load_state_dict(state)
    scale = scale and Scale(*(torch.tensor(scale[part], device=device) for part in ("mean", "std")))
    return model.to(device).eval().requires_grad_(False), scale
