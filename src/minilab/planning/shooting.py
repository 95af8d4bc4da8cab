"""Two optimizers that sample: the cross-entropy method and model predictive path integral control.

Both hold a Gaussian over a block of actions, draw from it, score the draws, and move it: CEM to the mean and spread of
the elites (Rubinstein, 1999), MPPI to the mean of all, weighted by the exponential of their scores (Williams et al.,
2017). Neither needs a gradient, so that the model may be a simulator.

Shapes: B problems at once, N samples, F actions in a block, A numbers an action.
"""

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

    def draw(self, n: int, low: float, high: float, generator: torch.Generator | None) -> Float[Tensor, "B N F A"]:
        """n blocks, cut to [low, high]; the first is the mean, so that nothing found before is lost."""
        B, F, A = self.mean.shape
        noise = torch.empty(B, n, F, A, device=self.mean.device).normal_(generator=generator)
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
