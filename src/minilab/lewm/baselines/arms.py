"""All that is compared, by name: the same networks, data, steps and seed, and each its own reason not to collapse.

| arm | target of the prediction | what keeps latents apart |
|---|---|---|
| `sigreg` | learns | SIGReg |
| `prediction` | learns | nothing: it collapses, with the lowest loss of all |
| `stop_gradient` | is the encoder's, without gradient | nothing |
| `ema`, `ema_quick` | the encoder's moving average | its slowness |
| `hinge` | learns | a variance of at least 1 |
| `pldm`, `pldm_tuned`, `pldm_original` | learns | PLDM's terms, with three sets of weights |
| `reconstruction` | learns | pictures must be drawn from them, as in Dreamer |
| `sigreg_reconstruction` | learns | both: the paper's ablation |
| `frozen_random`, `frozen_learned` | patch tokens that are frozen | that they are frozen, as in DINO-WM |
| `frozen_dino` | DINOv2's real patch tokens: 196 of 384 numbers | the same; weights from a folder or the hub |
| `cloning`, `cloning_frozen`, `chance` | there is none | these are agents: nothing is planned |

A BatchNorm in the heads is itself a reason: `ema` learns with it and collapses without. So compare with LayerNorm
heads, and know that the two arms that draw have BatchNorm whatever the config says.

`train_arm` is the same for all. What it gives has `agent(...)`, which plans with the model or is the policy. The first
weights of all encoders are the same for the same seed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from minilab.lewm.baselines.cloning import Chance, Cloner, Cloning, hindsight_error
from minilab.lewm.baselines.regularizers import (
    COURSE,
    HINGE,
    ORIGINAL,
    TUNED,
    InverseDynamics,
    PldmWeights,
    pldm_terms,
    weighed,
)
from minilab.lewm.baselines.teacher import Teacher
from minilab.lewm.baselines.tokens import DinoTokens, TokenModel, frozen_tokens
from minilab.lewm.data import Scale
from minilab.lewm.decoder import ConvDecoder, CrossDecoder, reconstruction_error
from minilab.lewm.learn import Clip, Draw, History, LearnConfig, Loss, learn, lewm_loss
from minilab.lewm.model import LeWM, LeWMConfig
from minilab.lewm.planner import PlanConfig
from minilab.lewm.rollout import Agent, Planner
from minilab.lewm.sigreg import sigreg


class Aided(nn.Module):
    """A world model, and what only its training needs: a teacher, an inverse model, a decoder."""

    def __init__(self, model: LeWM, **aids: nn.Module) -> None:
        super().__init__()
        self.model, self.aids = model, nn.ModuleDict(aids)
        self.config = model.config

    def forward(self, frames: UInt8[Tensor, "B T 3 H W"], actions: Float[Tensor, "B T kA"]
                ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T1 D"]]:
        return self.model(frames, actions)


@dataclass(frozen=True)
class Setting:
    """What an arm is made from."""

    config: LeWMConfig
    learning: LearnConfig
    draw: Draw
    base: LeWM | None  # trained before, for arms that stand on one
    seed: int
    device: torch.device

    def fresh(self, **options) -> LeWM:
        return LeWM(replace(self.config, **options)).to(self.device)

    def frames(self, n: int = 256) -> UInt8[Tensor, "n T 3 H W"]:
        """Some to look at before the training."""
        return self.draw(n, torch.Generator(self.device).manual_seed(self.seed)).frames


ArmLoss = Callable[[nn.Module, Clip, torch.Generator, LearnConfig], Loss]


@dataclass(frozen=True)
class Arm:
    """What is built and what it learns by; `stands_on` names the arm that `base` is, if it needs one."""

    what: str  # a line of a table
    build: Callable[[Setting], nn.Module]
    loss: ArmLoss | None = None  # None: `learn`'s own, which is LeWM's, and warns if lam is 0
    stands_on: str | None = None
    plans: bool = True
    learns: bool = True


@dataclass(frozen=True)
class Trained:
    """An arm after its training."""

    name: str
    model: nn.Module | None  # a `LeWM`, a `Cloning`, or None for chance
    history: History
    block: int  # numbers in a block of actions

    def agent(self, scale: Scale, plan: PlanConfig, generator: torch.Generator, *, bounded: bool = False) -> Agent:
        """Someone who acts in the world."""
        if isinstance(self.model, LeWM):
            return Planner(self.model, plan, scale, generator, bounded=bounded)
        if isinstance(self.model, Cloning):
            return Cloner(self.model, scale)
        A = len(scale.mean)
        return Chance(self.block // A, A, generator)


def train_arm(name: str, config: LeWMConfig, draw: Draw, learning: LearnConfig, *, held_out: Clip | None = None,
              base: LeWM | None = None, seed: int = 0, device: torch.device | str = "cpu", **options) -> Trained:
    """Build and train an arm; `options` go to `learn`. An arm that stands on another trains that first, unless `base`
    is it already. Raises ValueError for an unknown name.
    """
    if name not in ARMS:
        raise ValueError(f"no arm {name!r}; choose one of {', '.join(ARMS)}")
    arm, device = ARMS[name], torch.device(device)
    if arm.stands_on and base is None:
        base = train_arm(arm.stands_on, config, draw, learning, seed=seed, device=device).model
    torch.manual_seed(seed)
    built = arm.build(Setting(config, learning, draw, base, seed, device)).to(device)
    history = History()
    if arm.learns:
        loss = None if arm.loss is None else partial(arm.loss, learning=learning)
        history = learn(built, draw, learning, held_out=held_out if arm.plans else None, seed=seed, loss=loss,
                        **options)
    model = built.model if isinstance(built, Aided) else built
    return Trained(name, model if arm.learns else None, history, config.actions)


# The losses.


def prediction_loss(model: nn.Module, clip: Clip, generator: torch.Generator, learning: LearnConfig) -> Loss:
    return lewm_loss(model, clip, generator, lam=0.0, directions=learning.directions, compile=learning.compile)


def stop_gradient_loss(model: nn.Module, clip: Clip, generator: torch.Generator, learning: LearnConfig) -> Loss:
    """The target is the encoder's own latent, held still."""
    z, predicted = model(clip.frames, clip.actions)
    prediction = _error(predicted, z[:, 1:].detach())
    return Loss(prediction, prediction, _measured(z, generator, learning))


def ema_loss(aided: Aided, clip: Clip, generator: torch.Generator, learning: LearnConfig) -> Loss:
    """The target is the teacher's, who first follows what the last step changed."""
    teacher = aided.aids["teacher"]
    teacher.follow(aided.model)
    z, predicted = aided(clip.frames, clip.actions)
    prediction = _error(predicted, teacher.encode(clip.frames)[:, 1:])
    return Loss(prediction, prediction, _measured(z, generator, learning))


def pldm_loss(aided: Aided, clip: Clip, generator: torch.Generator, learning: LearnConfig, *, weights: PldmWeights
              ) -> Loss:
    z, predicted = aided(clip.frames, clip.actions)
    prediction = _error(predicted, z[:, 1:])
    inverse = aided.aids["inverse"] if weights.inverse else None
    terms = pldm_terms(z.float(), clip.actions, weights, inverse)
    return Loss(prediction + weighed(terms, weights), prediction, _measured(z, generator, learning), terms)


def reconstruction_loss(aided: Aided, clip: Clip, generator: torch.Generator, learning: LearnConfig, *,
                        weight: float = 10.0, back: float = 0.1) -> Loss:
    """Pictures drawn from the latents, and a prediction that mostly follows them, as in Dreamer.

    The prediction learns its target, and the target its prediction, but `back` times as fast: free to give in, latents
    shrink faster than the decoder learns to draw. The drawing's error is in units of the mean picture's, as a small dot
    is next to nothing in a mean over pixels. One frame of a clip is drawn: neighbors are alike, and drawing is slow.
    """
    z, predicted = aided(clip.frames, clip.actions)
    drawn = _drawn(aided, z, clip)
    forth, target = _error(predicted, z[:, 1:].detach()), _error(predicted.detach(), z[:, 1:])
    return Loss(forth + back * target + weight * drawn, forth, _measured(z, generator, learning),
                {"reconstruction": drawn})


def regularized_reconstruction_loss(aided: Aided, clip: Clip, generator: torch.Generator, learning: LearnConfig, *,
                                    weight: float = 1.0) -> Loss:
    """LeWM's own loss, and pictures drawn from the latents: the paper's ablation. Its weight is not published."""
    z, predicted = aided(clip.frames, clip.actions)
    prediction, drawn = _error(predicted, z[:, 1:]), _drawn(aided, z, clip)
    spread = sigreg(z.transpose(0, 1), generator, directions=learning.directions, knots=learning.knots,
                    compile=learning.compile)
    return Loss(prediction + learning.lam * spread + weight * drawn, prediction, spread, {"reconstruction": drawn})


def _drawn(aided: Aided, z: Float[Tensor, "B T D"], clip: Clip) -> Float[Tensor, ""]:
    """How badly the first frame of each clip is drawn; 1 is the mean picture."""
    first, decoder = clip.frames[:, :1], aided.aids["decoder"]
    blank = (first / 255).var(dim=0, correction=0).mean().clamp(min=1e-6)
    return reconstruction_error(decoder, z[:, :1], first) / blank


def cloning_loss(cloning: Cloning, clip: Clip, generator: torch.Generator, learning: LearnConfig) -> Loss:
    error = hindsight_error(cloning, clip, generator)
    return Loss(error, error, torch.zeros_like(error))


def _error(predicted: Float[Tensor, "B T1 D"], target: Float[Tensor, "B T1 D"]) -> Float[Tensor, ""]:
    return (predicted - target).float().square().mean()


def _measured(z: Float[Tensor, "B T D"], generator: torch.Generator, learning: LearnConfig) -> Float[Tensor, ""]:
    """SIGReg of latents that it does not act on."""
    return sigreg(z.detach().transpose(0, 1), generator, directions=learning.directions, compile=learning.compile)


# What is built. The model comes first: its first weights do not depend on what stands beside it.


def _alone(s: Setting) -> LeWM:
    return s.fresh()


def _with_teacher(s: Setting, **momentum: float) -> Aided:
    model = s.fresh()
    return Aided(model, teacher=Teacher(model, s.learning.steps, **momentum))


def _pldm(what: str, weights: PldmWeights) -> Arm:
    def build(s: Setting) -> Aided:
        model = s.fresh()
        inverse = {"inverse": InverseDynamics(s.config.latent, s.config.actions)} if weights.inverse else {}
        return Aided(model, **inverse)

    return Arm(what, build, partial(pldm_loss, weights=weights))


def _with_decoder(s: Setting) -> Aided:
    # Pictures give latents content but no scale, and with a LayerNorm they stay too small for the predictor to see.
    model, image = s.fresh(head_norm="batch"), s.config.vision.image
    small = s.config.vision.kind == "conv"
    decoder = ConvDecoder(s.config.latent, image) if small else CrossDecoder(s.config.latent, image, patch=8)
    return Aided(model, decoder=decoder.to(s.device).begin(s.frames()))


def _on_random_tokens(s: Setting) -> TokenModel:
    return frozen_tokens(s.config, s.fresh().encoder, s.frames())


def _on_learned_tokens(s: Setting) -> TokenModel:
    return frozen_tokens(s.config, s.base.encoder, s.frames())


def _on_dino_tokens(s: Setting) -> TokenModel:
    return frozen_tokens(s.config, DinoTokens().to(s.device), s.frames(2))


ARMS: dict[str, Arm] = {
    "sigreg": Arm("LeWM: SIGReg", _alone),
    "prediction": Arm("prediction alone", _alone, prediction_loss),
    "stop_gradient": Arm("stop-gradient on the target", _alone, stop_gradient_loss),
    "ema": Arm("moving average as target (I-JEPA)", _with_teacher, ema_loss),
    "ema_quick": Arm("the same, ten times as quick", partial(_with_teacher, start=0.96), ema_loss),
    "hinge": _pldm("variance hinge alone", HINGE),
    "pldm": _pldm("PLDM, the course's weights", COURSE),
    "pldm_tuned": _pldm("PLDM, LeWM's weights for Push-T", TUNED),
    "pldm_original": _pldm("PLDM, its own weights", ORIGINAL),
    "reconstruction": Arm("pictures drawn from latents", _with_decoder, reconstruction_loss),
    "sigreg_reconstruction": Arm("SIGReg and pictures", _with_decoder, regularized_reconstruction_loss),
    "frozen_random": Arm("patch tokens of random weights", _on_random_tokens, prediction_loss),
    "frozen_learned": Arm("patch tokens that drew pictures", _on_learned_tokens, prediction_loss,
                          stands_on="reconstruction"),
    "frozen_dino": Arm("patch tokens of DINOv2 (DINO-WM)", _on_dino_tokens, prediction_loss),
    "cloning": Arm("cloning, from scratch", lambda s: Cloning(s.fresh(), frozen=False), cloning_loss, plans=False),
    "cloning_frozen": Arm("cloning, on LeWM's frozen latents", lambda s: Cloning(s.base, frozen=True), cloning_loss,
                          stands_on="sigreg", plans=False),
    "chance": Arm("random actions", lambda s: nn.Identity(), plans=False, learns=False),
}
