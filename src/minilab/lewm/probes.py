"""What a frozen latent knows: regressions from it to the numbers of the world, linear and by a small network.

Maes et al. (2026), section 5.1 and tables 1, 3 and 4. Their probes' settings are not published; ours are:

- one latent of one frame is read, so that a speed cannot be known: it is a row that should fail;
- episodes are in one split only (neighboring frames are nearly the same), 70 : 15 : 15 for fit, choice and test;
- targets in units of their spread: an error of 1 is what their mean would get;
- linear: ridge regression, its alpha chosen; MLP: two layers of 256 (ReLU), Adam 1e-3, batches of 256, at most 100
  epochs, stopped when 10 of them bring nothing, and the best kept;
- angles are read as sine and cosine too: the number itself jumps at the end of a turn.

A model whose latent is many tokens is read whole, all of them side by side: a linear probe then has more numbers to
choose from, so say it beside the result. DINOv2's are too many for that; `mean_tokens` averages them, and loses places.

Shapes: N frames, D latent width, S numbers in a state, Q numbers of a quantity.
"""

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minilab.lewm.data import Clips
from minilab.lewm.model import LeWM
from minilab.lewm.worlds import World

ALPHAS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # in units of a latent number's variance times N / 1000


class Frames(NamedTuple):
    """Latents, what is to be read from them, and where they come from."""

    z: Float[Tensor, "N D"]
    targets: dict[str, Float[Tensor, "N Q"]]
    episode: Int[Tensor, "N"]


class Score(NamedTuple):
    """On episodes that were used for nothing else; means over a quantity's numbers."""

    mse: float  # 1 is chance
    r: float  # Pearson's; 0 for a probe that says the same for all


class Scores(NamedTuple):
    linear: Score
    mlp: Score


@dataclass(frozen=True)
class ProbeConfig:
    """How probes are trained."""

    hidden: int = 256
    lr: float = 1e-3
    batch: int = 256
    epochs: int = 100
    patience: int = 10


@torch.no_grad()
def gather(model: LeWM, clips: Clips, n: int, generator: torch.Generator, *, batch: int = 512) -> Frames:
    """n random frames of a set; the second frame of each clip tells the speed. Raises ValueError without one."""
    if clips.T < 2:
        raise ValueError("a speed needs two frames: give clips of at least 2")
    if clips.world is None:
        raise ValueError("this set names no world, and so no quantities to read: name one of ours when you read it")
    parts = []
    for i in range(0, n, batch):
        clip = clips.draw(min(batch, n - i), generator)
        parts.append((model.encode(clip.frames[:, :1])[:, 0].float(), clip.states[:, :2], clip.episode))
    z, states, episode = (torch.cat(part) for part in zip(*parts, strict=True))
    return Frames(z, quantities(clips.world, states, clips.skip), episode)


def quantities(world: World, states: Float[Tensor, "N 2 S"], skip: int) -> dict[str, Float[Tensor, "N Q"]]:
    """The world's quantities; of an angle sine and cosine too, and of a place its speed (way by step) until later."""
    now, found = states[:, 0], {}
    for name, where in world.quantities.items():
        found[name] = now[:, where]
        if "angle" in name:
            turn = (4 if "quarter" in name else 1) * now[:, where]  # a cube looks the same after a quarter of it
            found[f"{name} (sin, cos)"] = torch.cat((turn.sin(), turn.cos()), dim=1)
        if name.endswith(" xy"):
            way = (states[:, 1] - now)[:, where].norm(dim=1, keepdim=True)
            found[f"{name.removesuffix(' xy')} speed"] = way / skip
    return found


def mean_tokens(z: Float[Tensor, "N D"], tokens: int) -> Float[Tensor, "N C"]:
    """The mean of the tokens that lie side by side in a latent."""
    return z.unflatten(1, (tokens, -1)).mean(dim=1)


class Split(NamedTuple):
    """Which frames are for what."""

    fit: Bool[Tensor, "N"]
    choice: Bool[Tensor, "N"]
    test: Bool[Tensor, "N"]


def split(episode: Int[Tensor, "N"], generator: torch.Generator, *, choice: float = 0.15, test: float = 0.15) -> Split:
    """Each episode's frames go to one part. Raises ValueError if there are too few episodes for three."""
    names = episode.unique()
    n_choice, n_test = (max(1, round(share * len(names))) for share in (choice, test))
    if n_choice + n_test >= len(names):
        raise ValueError(f"{len(names)} episodes are too few to fit, choose and test on different ones: give more")
    order = names[torch.randperm(len(names), generator=generator, device=generator.device).to(names.device)]
    for_test = torch.isin(episode, order[:n_test])
    for_choice = torch.isin(episode, order[n_test : n_test + n_choice])
    return Split(~(for_test | for_choice), for_choice, for_test)


def probe(frames: Frames, generator: torch.Generator, config: ProbeConfig | None = None) -> dict[str, Scores]:
    """Both probes for each quantity, on the same split of the episodes."""
    parts = split(frames.episode, generator)
    z = standardized(frames.z, parts.fit)
    found = {}
    for name, target in frames.targets.items():
        y = standardized(target, parts.fit)
        found[name] = Scores(score(ridge(z, y, parts), y[parts.test]),
                             score(mlp(z, y, parts, generator, config or ProbeConfig()), y[parts.test]))
    return found


def standardized(x: Float[Tensor, "N X"], fit: Bool[Tensor, "N"]) -> Float[Tensor, "N X"]:
    """In units of the spread of the part that is fitted.

    A number that hardly varies there, such as a silent neuron's, is not blown up: it may speak in the test.
    """
    mean, std = x[fit].mean(dim=0), x[fit].std(dim=0)
    return (x - mean) / std.clamp(min=max(1e-12, 1e-2 * float(std.max())))


def ridge(z: Float[Tensor, "N D"], y: Float[Tensor, "N Q"], parts: Split) -> Float[Tensor, "n Q"]:
    """What ridge regression says about the test part, with the alpha that was best on the part for choosing."""
    values, vectors = torch.linalg.eigh(z[parts.fit].double().T @ z[parts.fit].double())
    right = vectors.T @ (z[parts.fit].double().T @ y[parts.fit].double())
    best, kept = float("inf"), None
    for alpha in ALPHAS:
        weight = vectors @ (right / (values.clamp(min=0) + alpha * int(parts.fit.sum()) / 1000)[:, None])
        error = float((z[parts.choice].double() @ weight - y[parts.choice]).square().mean())
        if kept is None or error < best:
            best, kept = error, weight
    return (z[parts.test].double() @ kept).to(y.dtype)


def mlp(z: Float[Tensor, "N D"], y: Float[Tensor, "N Q"], parts: Split, generator: torch.Generator,
        config: ProbeConfig) -> Float[Tensor, "n Q"]:
    """What a small network says about the test part, as it was when it did best on the part for choosing."""
    z_fit, y_fit = z[parts.fit], y[parts.fit]
    with torch.random.fork_rng(devices=[]):  # the first weights too are the generator's
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator, device=generator.device)))
        network = nn.Sequential(nn.Linear(z.shape[1], config.hidden), nn.ReLU(),
                                nn.Linear(config.hidden, config.hidden), nn.ReLU(),
                                nn.Linear(config.hidden, y.shape[1])).to(z.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr)
    best, kept, waited = float("inf"), copy.deepcopy(network), 0
    for _ in range(config.epochs):
        order = torch.randperm(len(z_fit), generator=generator, device=generator.device).to(z.device)
        for batch in order.split(config.batch):
            optimizer.zero_grad()
            (network(z_fit[batch]) - y_fit[batch]).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            error = float((network(z[parts.choice]) - y[parts.choice]).square().mean())
        waited += 1
        if error < best:
            best, kept, waited = error, copy.deepcopy(network), 0
        if waited == config.patience:
            break
    with torch.no_grad():
        return kept(z[parts.test])


def score(said: Float[Tensor, "n Q"], true: Float[Tensor, "n Q"]) -> Score:
    """Error and correlation of what a probe says."""
    a, b = said - said.mean(dim=0), true - true.mean(dim=0)
    r = (a * b).sum(dim=0) / (a.norm(dim=0) * b.norm(dim=0)).clamp(min=1e-12)
    return Score(float((said - true).square().mean()), float(r.mean()))
