"""How many blocks of actions lead from here to there: a distance for the planner, learned on frozen latents.

Euclid's distance between latents says how different two pictures are. In Two Rooms a goal behind the wall looks near,
and the way to it leads away from it, so that a planner walks to the wall and stays. What a planner wants is the number
of blocks. Of all functions d with

    d(z_t, z_t+1) <= 1  for each block of the data,    d(x, z) <= d(x, y) + d(y, z),

that is the largest: n blocks that lead from x to y hold d(x, y) down to n, and nothing else does. So take d from a
family that obeys the triangle anyway, d(x, y) = |psi(x) - psi(y)|, hold the ends of each block together, and pull
everything else apart, as one pulls a net until its threads are tight:

    loss = weight * mean (d(z_t, z_t+1) - 1)+^2 - mean d(x, y),    x and y from anywhere in the data.

This is the idea of quasimetric reinforcement learning (Wang et al., 2023), where d(x, y) need not be d(y, x), and a
multiplier takes the place of the weight. Notable:
- No rewards, no actions, no bootstrapping. Nothing but single blocks is asked for: ways are joined from parts of many
  episodes, and it does not matter how long a wandering policy took from one frame to a later one. That is what a
  regression on the time between frames learns, the other kind of remedy (as in trajectory reachability metrics, 2026).
- A unit is about the longest block of the data. The weight is finite, so some are longer than 1.
- A symmetric distance is right where each step can be undone.
- The distance is learned on real latents. Where a model imagines a way through the wall, it sees a way.

Shapes: N blocks, D latent width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minilab.core.train import TrainConfig, train
from minilab.lewm.data import Clips
from minilab.lewm.model import LeWM


@dataclass(frozen=True)
class ReachConfig:
    """How the distance is learned: seconds on any device."""

    steps: int = 1500
    batch: int = 256
    lr: float = 2e-3
    weight: float = 50.0  # beta, of blocks longer than 1
    hidden: int = 128
    out: int = 16  # numbers in psi: more than the world has: a net bends around its walls


class Reach(nn.Module):
    """d(z, z_goal) = |psi(z) - psi(z_goal)|: a `planner.Distance`."""

    def __init__(self, latent: int, config: ReachConfig = ReachConfig()) -> None:
        super().__init__()
        self.psi = nn.Sequential(nn.Linear(latent, config.hidden), nn.SiLU(),
                                 nn.Linear(config.hidden, config.hidden), nn.SiLU(),
                                 nn.Linear(config.hidden, config.out))

    def forward(self, z: Float[Tensor, "*b D"], z_goal: Float[Tensor, "*b D"]) -> Float[Tensor, "*b"]:
        return (self.psi(z) - self.psi(z_goal)).norm(dim=-1)


def reach_loss(reach: Reach, z: Float[Tensor, "B 2 D"], weight: float) -> Float[Tensor, ""]:
    """Hold the two ends of each block together, and pull the starts from the next block's end."""
    start, end = reach.psi(z).unbind(dim=1)
    too_long = ((start - end).norm(dim=-1) - 1).relu()
    return weight * too_long.square().mean() - (start - end.roll(1, dims=0)).norm(dim=-1).mean()


def learn_reach(z: Float[Tensor, "N 2 D"], config: ReachConfig = ReachConfig(), *, seed: int = 0) -> Reach:
    """The distance that N blocks of the data allow; `z` holds the latents before and after each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reach = Reach(z.shape[-1], config).to(z.device)

    def batch(step: int) -> Float[Tensor, "B 2 D"]:
        generator = torch.Generator(z.device).manual_seed((seed << 32) + step)
        return z[torch.randint(len(z), (config.batch,), generator=generator, device=z.device)]

    train(reach, batch, lambda reach, z: reach_loss(reach, z, config.weight),
          TrainConfig(config.steps, lr=config.lr, weight_decay=0.0, min_lr_ratio=0.0, precision="fp32", replay=True))
    return reach.eval().requires_grad_(False)


@torch.no_grad()
def blocks_of(model: LeWM, clips: Clips, n: int, generator: torch.Generator, *, batch: int = 512
              ) -> Float[Tensor, "n T D"]:
    """The frozen latents of n random clips; those of two frames are what `learn_reach` learns from."""
    sizes = [min(batch, n - i) for i in range(0, n, batch)]
    return torch.cat([model.encode(clips.draw(size, generator).frames).float() for size in sizes])
