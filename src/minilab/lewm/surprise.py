"""Violation of expectation: is a model surprised where the world breaks its own laws, and only there?

Maes et al. (2026), section 5.2 and appendix F.3. Surprise at step t is the error of what was expected,

    surprise_t = mean (z_hat_t - z_t)^2,    z_hat_t from the frames and blocks before t that really were.

Three matched films, with the same actions: nothing happens; from a block on a thing has another color; in that block
things jump to a random place, and go on from there. A model of the physics is surprised by the jump. Notable:

- The event is in one block. There its surprise is compared with the same block's of the untouched film, pair by pair:
  the t statistic of the differences. The paper's numbers of films and place of the event are not published.
- A t statistic grows with the number of films. The area under the ROC curve (AUC) does not, and the paper has none: it
  is the chance that a film with the event is more surprising than one without. Its interval is by bootstrap over films.
- A color that was never seen is new to the encoder, not to physics; a model may be surprised all the same. Show both.

Shapes: B films, T frames, L = T - 1 steps, k actions in a block of A numbers each, S numbers in a state, N numbers.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from minilab.lewm.data import Clips
from minilab.lewm.model import LeWM
from minilab.lewm.worlds import World

BLUE = (0.0, 0.0, 255.0)
FILMS = ("nominal", "recolored", "teleported")


class Films(NamedTuple):
    """Three matched ones, by name, and where they part: `frames[name][:, event]` is the first that differs."""

    frames: dict[str, UInt8[Tensor, "B T 3 H W"]]
    actions: Float[Tensor, "B T kA"]  # the model's blocks, the same for all
    event: int


def films(clips: Clips, n: int, generator: torch.Generator, *, color: tuple[float, float, float] = BLUE,
          event: int | None = None) -> Films:
    """n triples that begin and act like clips of a set; by default the event is in the middle block.

    Raises ValueError for a set without a world, and for an event that has no frame before it.
    """
    event = clips.T // 2 if event is None else event
    if clips.world is None:
        raise ValueError("this set names no world that could be broken: name one of ours when you read it")
    if not 1 <= event < clips.T:
        raise ValueError(f"an event at frame {event} of {clips.T}: it needs a frame before it, at least 1 and below T")
    clip = clips.draw(n, generator)
    acts = clips.scale.actions(clip.actions[:, :-1])  # B L k A
    elsewhere = clips.world.reset(n, generator)
    usual = unroll(clips.world, clip.states[:, 0], acts)
    after = unroll(clips.world, elsewhere, acts[:, event:])
    painted = clips.world.render(usual[:, event:].flatten(0, 1), clips.size or clips.world.frame,
                                 color=usual.new_tensor([color]).expand(n * (clips.T - event), 3))
    before, then = clips.frames(usual[:, :event]), clips.frames(usual[:, event:])
    endings = (then, painted.unflatten(0, (n, -1)), clips.frames(after))
    frames = {name: torch.cat((before, ending), dim=1) for name, ending in zip(FILMS, endings, strict=True)}
    return Films(frames, clip.actions, event)


def unroll(world: World, state: Float[Tensor, "B S"], actions: Float[Tensor, "B l k A"]) -> Float[Tensor, "B l1 S"]:
    """The state at the start, and after each block."""
    states = [state]
    for block in actions.unbind(dim=1):
        for action in block.unbind(dim=1):
            state = world.step(state, action)
        states.append(state)
    return torch.stack(states, dim=1)


@torch.no_grad()
def surprise(model: LeWM, frames: UInt8[Tensor, "B T 3 H W"], actions: Float[Tensor, "B T kA"]) -> Float[Tensor, "B L"]:
    """For each frame but the first, the error of its latent as expected from as many before it as the model sees."""
    z, N = model.encode(frames), model.config.history
    expected = []
    for t in range(1, z.shape[1]):
        begin = max(0, t - N)
        past = actions[:, begin : t - 1] if t - begin > 1 else None
        expected.append(model.imagine(z[:, begin:t], actions[:, t - 1 : t], past)[:, 0])
    return (torch.stack(expected, dim=1) - z[:, 1:]).float().square().mean(dim=-1)


@dataclass(frozen=True)
class Detection:
    """How one kind of event stands out, in the block where it happens."""

    t: float  # of the paired differences
    p: float  # two-sided
    auc: float
    interval: tuple[float, float]  # 95 percent, of the AUC


@dataclass(frozen=True)
class Surprises:
    """What a model made of the films."""

    curves: dict[str, Float[Tensor, "B L"]]  # by film; column t - 1 is frame t's
    event: int
    detected: dict[str, Detection]  # by film, but for the nominal

    def mean(self, film: str) -> tuple[Float[Tensor, "L"], Float[Tensor, "L"]]:
        """Mean curve and its standard error."""
        curve = self.curves[film]
        return curve.mean(dim=0), curve.std(dim=0) / len(curve) ** 0.5


def watch(model: LeWM, shown: Films, generator: torch.Generator) -> Surprises:
    """Show all films to a model."""
    curves = {name: surprise(model, frames, shown.actions) for name, frames in shown.frames.items()}
    usual = curves["nominal"][:, shown.event - 1]
    detected = {}
    for name in FILMS[1:]:
        there = curves[name][:, shown.event - 1]
        t, p = paired_t(there, usual)
        detected[name] = Detection(t, p, auc(there, usual), auc_interval(there, usual, generator))
    return Surprises(curves, shown.event, detected)


def paired_t(a: Float[Tensor, "N"], b: Float[Tensor, "N"]) -> tuple[float, float]:
    """t = mean(d) / (std(d) / √N) of d = a - b, and the two-sided p of N - 1 degrees of freedom.

    With t = √nu tan(angle), Student's density is cos(angle)^(nu - 1) but for a constant: p is a share of its integral.
    """
    d, nu = (a - b).double(), len(a) - 1
    if nu < 1:
        raise ValueError(f"{len(a)} pairs have no spread: give at least 2")
    t = float(d.mean() / (d.std() / len(d) ** 0.5))
    if not math.isfinite(t):
        return t, 0.0 if math.isinf(t) else 1.0  # all differences are the same, or none is
    edge = math.atan(abs(t) / nu**0.5)
    tail, half = (torch.linspace(low, math.pi / 2, 20_001, dtype=torch.float64) for low in (edge, 0.0))
    return t, float(torch.trapezoid(tail.cos().clamp(min=0) ** (nu - 1), tail)
                    / torch.trapezoid(half.cos().clamp(min=0) ** (nu - 1), half))


def auc(event: Float[Tensor, "n"], usual: Float[Tensor, "m"]) -> float:
    """The share of pairs in which the event is the more surprising; a tie counts half."""
    higher = (event[:, None] > usual).double() + 0.5 * (event[:, None] == usual).double()
    return float(higher.mean())


def roc(event: Float[Tensor, "n"], usual: Float[Tensor, "m"]) -> tuple[Float[Tensor, "c"], Float[Tensor, "c"]]:
    """False alarms and detections, as shares, for every threshold from none to all; the area below is the AUC."""
    threshold = torch.cat((event, usual)).unique().flip(0)  # at or above it is an alarm
    shares = [(x[:, None] >= threshold).float().mean(dim=0) for x in (usual, event)]
    return tuple(torch.cat((share.new_zeros(1), share)) for share in shares)


def auc_interval(event: Float[Tensor, "N"], usual: Float[Tensor, "N"], generator: torch.Generator, *,
                 draws: int = 1000, level: float = 0.95) -> tuple[float, float]:
    """The AUC's bootstrap interval: films are drawn anew, each with its pair."""
    higher = (event[:, None] > usual).double() + 0.5 * (event[:, None] == usual).double()  # N N
    N = len(event)
    films = torch.randint(N, (draws, N), generator=generator, device=generator.device).to(event.device)
    count = torch.zeros(draws, N, dtype=torch.float64, device=event.device)
    count.scatter_add_(1, films, torch.ones_like(films, dtype=torch.float64))
    values = torch.einsum("dn,nm,dm->d", count, higher, count) / N**2
    low, high = values.quantile(values.new_tensor([(1 - level) / 2, (1 + level) / 2])).tolist()
    return low, high
