"""The shape of what was learned: straight paths through time, directions in use, and a map of the world.

Maes et al. (2026), appendix H. With v_t = z_{t+1} - z_t, the steps of a path of latents,

    straightness = mean cos(v_t, v_{t+1}).

Notable:
- 1 is a straight line, 0 a random walk, -1 to and fro; steps along a circle that turn by an angle have its cosine.
- The world decides first: a dot that walks at random draws no straight path. Compare models on smooth episodes only.
- Latent distances need not grow with true ones: a sheet that is curled up in D dimensions is near itself again.

Shapes: B sequences, T frames, N samples, D latent width, S numbers in a state, C coordinates of a map.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


def straightness(z: Float[Tensor, "B T D"]) -> Float[Tensor, ""]:
    """The mean cosine of neighboring steps. Steps of length 0 have no direction and do not count.

    Raises ValueError for fewer than 3 frames, or if nothing moves.
    """
    if z.shape[1] < 3:
        raise ValueError(f"{z.shape[1]} frames have no two steps to compare: give at least 3")
    v = z.diff(dim=1).double()
    length = v.norm(dim=-1)
    moving = (length[:, :-1] > 0) & (length[:, 1:] > 0)
    if not moving.any():
        raise ValueError("no latent moves twice in a row, and so no step has a direction: is the model collapsed?")
    cosine = torch.cosine_similarity(v[:, :-1], v[:, 1:], dim=-1, eps=1e-30)
    return cosine[moving].mean().to(z.dtype)


def effective_rank(z: Float[Tensor, "N D"]) -> float:
    """exp of the entropy of the normalized singular values (Roy and Vetterli, 2007): from 1 to D.

    It does not ask how large they are: noise around a collapsed point has full rank.
    """
    share = torch.linalg.svdvals(z - z.mean(dim=0)).clamp(min=1e-12)
    share = share / share.sum()
    return float(torch.exp(-(share * share.log()).sum()))


class Map(NamedTuple):
    """Samples along their main directions."""

    coordinates: Float[Tensor, "N C"]
    explained: Float[Tensor, "C"]  # share of the whole variance


def principal(z: Float[Tensor, "N D"], components: int = 2) -> Map:
    """Principal components. Each points where its largest weight is positive: the same picture at each call."""
    centered = z - z.mean(dim=0)
    _, s, directions = torch.linalg.svd(centered, full_matrices=False)
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    directions = (directions * largest.sign())[:components]
    return Map(centered @ directions.T, s[:components].square() / s.square().sum().clamp(min=1e-30))


def position_grid(state: Float[Tensor, "S"], where: slice, *, low: float, high: float, side: int = 20
                  ) -> Float[Tensor, "N S"]:
    """`state` side * side times over, with the two numbers at `where` on a grid, row by row (the first runs fastest).

    Raises ValueError if other than two numbers stand there.
    """
    if state[where].numel() != 2:
        raise ValueError(f"a grid of positions needs two numbers of the state, not {state[where].numel()} ({where})")
    line = torch.linspace(low, high, side, device=state.device)
    second, first = torch.meshgrid(line, line, indexing="ij")
    states = state.repeat(side**2, 1)
    states[:, where] = torch.stack((first.flatten(), second.flatten()), dim=1)
    return states


class Curve(NamedTuple):
    """How far apart pairs are in latents, in bins of how far apart they truly are."""

    true: Float[Tensor, "bins"]  # the mean of each bin
    latent: Float[Tensor, "bins"]
    low: Float[Tensor, "bins"]  # 10 and 90 percent of the pairs lie below
    high: Float[Tensor, "bins"]


def distance_curve(z: Float[Tensor, "N D"], place: Float[Tensor, "N C"], generator: torch.Generator | None = None, *,
                   pairs: int = 20_000, bins: int = 20) -> Curve:
    """Latent against true distance over random pairs, in bins of equally many.

    What one hopes for is a line; where it is flat, a planner's cost says nothing about the way.
    """
    i, j = torch.randint(len(z), (2, pairs), generator=generator, device=z.device)
    true, latent = (place[i] - place[j]).norm(dim=1), (z[i] - z[j]).norm(dim=1)
    order = true.argsort()
    true, latent = (x[order][: pairs // bins * bins].view(bins, -1) for x in (true, latent))
    low, high = latent.quantile(torch.tensor([0.1, 0.9], device=z.device), dim=1)
    return Curve(true.mean(dim=1), latent.mean(dim=1), low, high)
