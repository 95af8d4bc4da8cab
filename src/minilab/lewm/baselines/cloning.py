"""Without a model of what follows: goal-conditioned behavior cloning (GCBC), and chance.

Cloning is a regression from the latents of a frame and a goal to the block that left the frame. Its goals are
hindsight: any later frame of the same clip. So a clip should reach as far as the tasks do: 6 frames for goals 25 steps
away.

The mean of what the data did is not always something to do: left or right around a wall averages to into the wall.

Shapes: B clips or copies, T frames, D latent width, k actions in a block of A numbers each.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from minilab.lewm.data import Scale
from minilab.lewm.learn import Clip
from minilab.lewm.model import LeWM


class Cloning(nn.Module):
    """A policy on the latents of a `LeWM`, of which only the encoder and its head are used.

    With `frozen` they stay as they are; else they learn with the policy.
    """

    def __init__(self, model: LeWM, *, frozen: bool, hidden: int = 256) -> None:
        super().__init__()
        D, self.frozen = model.config.latent, frozen
        self.model = model
        self.policy = nn.Sequential(nn.Linear(2 * D, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
                                    nn.Linear(hidden, model.config.actions))

    def train(self, mode: bool = True) -> "Cloning":
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def encode(self, frames: UInt8[Tensor, "B T 3 H W"]) -> Float[Tensor, "B T D"]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.model.encode(frames)

    def forward(self, z: Float[Tensor, "B D"], z_goal: Float[Tensor, "B D"]) -> Float[Tensor, "B kA"]:
        return self.policy(torch.cat((z, z_goal), dim=-1))


def hindsight_error(cloning: Cloning, clip: Clip, generator: torch.Generator | None = None) -> Float[Tensor, ""]:
    """Squared error of the block that left a random frame, with a random later frame as the goal."""
    B, T = clip.frames.shape[:2]
    share = torch.rand(2, B, generator=generator, device=clip.frames.device)
    at = (share[0] * (T - 1)).long()  # 0..T-2
    goal = at + 1 + (share[1] * (T - 1 - at)).long()  # at+1..T-1
    row = torch.arange(B, device=at.device)
    z, z_goal = cloning.encode(clip.frames[row[:, None], torch.stack((at, goal), dim=1)]).unbind(dim=1)
    return (cloning(z, z_goal) - clip.actions[row, at]).square().mean()


class Cloner:
    """The `Agent` that does what the data would have done, one block at a time."""

    def __init__(self, cloning: Cloning, scale: Scale) -> None:
        self.cloning, self.scale = cloning, scale

    @torch.no_grad()
    def start(self, goal: UInt8[Tensor, "B 3 H W"]) -> None:
        self.z_goal = self.cloning.encode(goal[:, None])[:, 0]

    @torch.no_grad()
    def act(self, frames: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B k A"]:
        return self.scale.actions(self.cloning(self.cloning.encode(frames[:, None])[:, 0], self.z_goal))


class Chance:
    """The `Agent` that does anything: uniform actions in [-1, 1]."""

    def __init__(self, k: int, A: int, generator: torch.Generator) -> None:
        self.shape, self.generator = (k, A), generator

    def start(self, goal: UInt8[Tensor, "B 3 H W"]) -> None:
        pass

    def act(self, frames: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B k A"]:
        drawn = torch.rand(len(frames), *self.shape, generator=self.generator, device=self.generator.device)
        return (2 * drawn - 1).to(frames.device)
