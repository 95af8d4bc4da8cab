"""What else can keep latents apart: a hinge on their variance, and PLDM's seven terms.

PLDM (Sobal et al., 2025) takes VICReg's terms (Bardes et al., 2022) over the batch, the same along time, and an inverse
model. With z of B clips, T frames and width D, and C_t the covariance over the batch at time t,

    variance  mean_{t,d} relu(1 - sqrt(Var_b(z_td) + 1e-4)),    covariance  mean_t sum_{i≠j} C_tij² / (D (D - 1)),
    smooth    mean (z_{t+1} - z_t)²,    inverse  mean (a_t - h(z_t, z_{t+1}))²,

and time_variance and time_covariance: the first two over the frames of each clip instead of the batch. Notable:

- Six weights stand where SIGReg has one. LeWM's authors tried 256 settings of theirs, and kept four.
- The hinge is satisfied by D copies of one number. It takes the covariance to make them different.
- The inverse model keeps what actions change. PLDM needs it where walls differ from clip to clip: a layout is easy to
  predict, and latents that hold nothing else satisfy all other terms.

Shapes: B clips, T frames, N samples, D latent width. * stands for any leading dimensions.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = 1e-4


def variance_hinge(z: Float[Tensor, "*T N D"]) -> Float[Tensor, ""]:
    """How far the spread of each number over N samples is below 1."""
    return F.relu(1 - (z.var(dim=-2) + EPSILON).sqrt()).mean()


def covariance(z: Float[Tensor, "*T N D"]) -> Float[Tensor, ""]:
    """The mean square of covariances of different numbers."""
    N, D = z.shape[-2:]
    z = z - z.mean(dim=-2, keepdim=True)
    C = z.mT @ z / (N - 1)  # *T D D
    return (C - torch.diag_embed(C.diagonal(dim1=-2, dim2=-1))).square().sum(dim=(-2, -1)).mean() / (D * (D - 1))


class InverseDynamics(nn.Module):
    """Which block led from one latent to the next."""

    def __init__(self, latent: int, actions: int, hidden: int = 512) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * latent, hidden), nn.ReLU(), nn.Linear(hidden, actions))

    def forward(self, z: Float[Tensor, "B T D"]) -> Float[Tensor, "B T1 kA"]:
        return self.layers(torch.cat((z[:, :-1], z[:, 1:]), dim=-1))


@dataclass(frozen=True)
class PldmWeights:
    """What each term counts, beside 1 for the prediction."""

    variance: float = 0.0
    covariance: float = 0.0
    smooth: float = 0.0
    time_variance: float = 0.0
    time_covariance: float = 0.0
    inverse: float = 0.0


COURSE = PldmWeights(18.0, 12.0, 0.2, inverse=1.0)  # works in minutes on Two Rooms
TUNED = PldmWeights(18.0, 12.0, 0.2, time_variance=0.7)  # LeWM's authors, for Push-T
ORIGINAL = PldmWeights(2.2, 13.0, 0.5, time_variance=0.19, inverse=2.0)  # PLDM's authors, for their two rooms
HINGE = PldmWeights(variance=18.0)


def pldm_terms(z: Float[Tensor, "B T D"], actions: Float[Tensor, "B T kA"], weights: PldmWeights,
               inverse: InverseDynamics | None = None) -> dict[str, Float[Tensor, ""]]:
    """The terms that have a weight, without it. Raises ValueError if the inverse model is weighed and missing."""
    if weights.inverse and inverse is None:
        raise ValueError(f"{weights} weighs the inverse model: give one")
    terms = {
        "variance": lambda: variance_hinge(z.transpose(0, 1)),
        "covariance": lambda: covariance(z.transpose(0, 1)),
        "smooth": lambda: (z[:, 1:] - z[:, :-1]).square().mean(),
        "time_variance": lambda: variance_hinge(z),
        "time_covariance": lambda: covariance(z),
        "inverse": lambda: (inverse(z) - actions[:, :-1]).square().mean(),
    }
    return {name: terms[name]() for name, weight in asdict(weights).items() if weight}


def weighed(terms: dict[str, Float[Tensor, ""]], weights: PldmWeights) -> Float[Tensor, ""]:
    """Their sum."""
    return sum(getattr(weights, name) * term for name, term in terms.items())
