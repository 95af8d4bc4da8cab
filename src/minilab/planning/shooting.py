"""Optimizers that sample: the cross-entropy method, plain and improved, and model predictive path integral control.

All hold a Gaussian over a block of actions, draw from it, score the draws, and move it: CEM to the mean and spread of
the elites (Rubinstein, 1999), MPPI to the mean of all, weighted by the exponential of their scores (Williams et al.,
2017). iCEM (Pinneri et al., 2020) draws actions that belong together over time, and forgets less. None needs a
gradient, so that the model may be a simulator.

Shapes: B problems at once, N samples, E elites, F actions in a block, A numbers an action.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.planning.rank import checked

Evaluate = Callable[[Float[Tensor, "B N F A"]], Float[Tensor, "B N"]]  # scores, more is better


@dataclass(frozen=True)
class Gaussian:
    """Independent normal numbers, one for each action of a block."""

    mean: Float[Tensor, "B F A"]
    std: Float[Tensor, "B F A"]

    def draw(self, n: int, low: float, high: float, generator: torch.Generator | None, *, beta: float = 0.0,
             mean: bool = True) -> Float[Tensor, "B N F A"]:
        """n blocks, cut to [low, high]; the first is the mean, so that nothing found before is lost.

        `beta` is the color of the noise; without `mean` the first is a draw like the others.
        """
        B, F, A = self.mean.shape
        noise = torch.empty(B, n, F, A, device=self.mean.device).normal_(generator=generator)
        noise = colored(noise, beta) if beta else noise
        if mean:
            noise[:, 0] = 0
        return (self.mean[:, None] + self.std[:, None] * noise).clamp(low, high)


@torch.no_grad()
def cem(evaluate: Evaluate, start: Gaussian, *, samples: int, elites: int, iterations: int, low: float = -1.0,
        high: float = 1.0, min_std: float = 0.0, generator: torch.Generator | None = None) -> Gaussian:
    """Refit to the `elites` best of `samples` draws, `iterations` times. Raises ValueError if elites > samples."""
    if not 1 <= elites <= samples:
        raise ValueError(f"{elites} elites of {samples} samples: choose between 1 and {samples}")
    law = start
    for _ in range(iterations):
        actions = law.draw(samples, low, high, generator)
        best = checked(evaluate(actions), actions).topk(elites, dim=1).indices  # B E
        chosen = actions.gather(1, best[:, :, None, None].expand(-1, -1, *actions.shape[2:]))
        law = Gaussian(chosen.mean(dim=1), chosen.std(dim=1, correction=0).clamp(min=min_std))
    return law


@torch.no_grad()
def icem(evaluate: Evaluate, start: Gaussian, *, samples: int, elites: int, iterations: int, beta: float = 2.0,
         decay: float = 1.25, keep: float = 0.3, momentum: float = 0.1, low: float = -1.0, high: float = 1.0,
         kept: Float[Tensor, "B K F A"] | None = None, generator: torch.Generator | None = None
         ) -> Float[Tensor, "B E F A"]:
    """The improved cross-entropy method: the elites of its last iteration, best first. Run the best, not their mean.

    - Noise has a power of 1 / f^beta along F: what tries one direction for a while gets farther than what trembles.
    - A share `keep` of the elites competes again in the next iteration. `kept` are those of the last step, `shifted`.
    - Each iteration has `decay` times fewer samples than the one before, but at least twice the elites.
    - `momentum` is how much of the old mean and spread stays.
    - The mean itself competes in the last iteration alone: earlier, it would narrow the search.

    Raises ValueError if elites > samples.
    """
    if not 1 <= elites <= samples:
        raise ValueError(f"{elites} elites of {samples} samples: choose between 1 and {samples}")
    law, again = start, math.ceil(keep * elites)
    for i in range(iterations):
        n = max(int(samples * decay**-i), min(2 * elites, samples))
        actions = law.draw(n, low, high, generator, beta=beta, mean=i == iterations - 1)
        if kept is not None:
            actions = torch.cat((actions, kept[:, :again].clamp(low, high)), dim=1)
        best = checked(evaluate(actions), actions).topk(elites, dim=1).indices  # B E
        kept = actions.gather(1, best[:, :, None, None].expand(-1, -1, *actions.shape[2:]))
        law = Gaussian(law.mean.lerp(kept.mean(dim=1), 1 - momentum),
                       law.std.lerp(kept.std(dim=1, correction=0), 1 - momentum))
    return kept


def colored(noise: Float[Tensor, "B N F A"], beta: float) -> Float[Tensor, "B N F A"]:
    """White noise with its power made proportional to 1 / f^beta along F, at the same variance; 0 leaves it white.

    As in the paper's code: the constant part gets the power of the lowest frequency, and the ends are neighbors.
    """
    F = noise.shape[2]
    frequency = torch.fft.fftfreq(F, device=noise.device).abs().clamp(min=1 / F)  # all F of them
    gain = frequency ** (-beta / 2)
    gain = (gain / gain.square().mean().sqrt())[: F // 2 + 1, None]  # a real signal needs half
    return torch.fft.irfft(torch.fft.rfft(noise, dim=2) * gain, n=F, dim=2)


@torch.no_grad()
def mppi(evaluate: Evaluate, start: Gaussian, *, samples: int, temperature: float, iterations: int = 1,
         low: float = -1.0, high: float = 1.0, generator: torch.Generator | None = None) -> Gaussian:
    """Move the mean to the draws weighted by softmax(score / temperature); the spread stays.

    Raises ValueError unless the temperature is positive.
    """
    if temperature <= 0:
        raise ValueError(f"the temperature must be positive, not {temperature}; `cem` with one elite takes the best")
    law = start
    for _ in range(iterations):
        actions = law.draw(samples, low, high, generator)
        law = Gaussian(averaged(actions, checked(evaluate(actions), actions), temperature), law.std)
    return law


def averaged(actions: Float[Tensor, "B N F A"], scores: Float[Tensor, "B N"], temperature: float
             ) -> Float[Tensor, "B F A"]:
    """MPPI's mean of blocks, weighted by softmax(score / temperature)."""
    return torch.einsum("bn,bnfa->bfa", (scores / temperature).softmax(dim=1), actions)


def shifted(block: Float[Tensor, "B F A"], steps: int) -> Float[Tensor, "B F A"]:
    """The plan for `steps` later: what was run is dropped, and the last action fills the end."""
    return torch.cat((block[:, steps:], block[:, -1:].expand(-1, min(steps, block.shape[1]), -1)), dim=1)
