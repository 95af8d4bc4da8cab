"""Put the truth in the place of what was learned, one part at a time, to find the part that fails.

A plan comes out of three parts: what imagines, what says how far the end is from the goal, and what searches. Here are
a model that does not imagine but steps the world itself, and distances that know the state. Each may stand beside
what was learned:

    learned model, latent distance      as in the paper
    the world,     latent distance      the pictures of true ends are encoded: is it the imagination?
    learned model, distance of places   places are read off imagined latents: is it the distance?
    the world,     distance of places   nothing is learned: is it the search?

Notable:
- Agents see pictures alone. To look behind them the model needs a world that remembers what it drew last (`watched`).
- Its latents are states, so a distance of it is one of states, and `drawn` makes one of these out of one of latents.
- A reader is an MLP that says where things are. It has only seen latents of true pictures, and is asked about imagined
  ones: what it gets wrong there counts as the distance's fault.

Shapes: B copies, T frames, H blocks ahead, S numbers in a state, kA in a block, D latent width, Q numbers read.
"""

import copy

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from minilab.core.train import TrainConfig, train
from minilab.lewm.data import Clips, Scale
from minilab.lewm.model import LeWM, LeWMConfig
from minilab.lewm.planner import Distance
from minilab.lewm.worlds import World


def watched(world: World) -> World:
    """A copy of a world that keeps, as `shown`, the states that it drew last."""
    seen = copy.copy(world)

    def render(state: Float[Tensor, "B S"], size: int = 64, *, color: Float[Tensor, "B 3"] | None = None
               ) -> UInt8[Tensor, "B 3 size size"]:
        seen.shown = state
        return world.render(state, size, color=color)

    seen.render = render
    return seen


class TrueWorld:
    """A world as a model of itself, for a `Planner` in that same `watched` world: its latents are states.

    `config` is the learned model's: of it the planner asks how many numbers a block has.
    """

    def __init__(self, world: World, config: LeWMConfig, scale: Scale) -> None:
        self.world, self.config, self.scale = world, config, scale

    def encode(self, frames: UInt8[Tensor, "B 1 3 H W"]) -> Float[Tensor, "B 1 S"]:
        """The states behind the pictures. Raises ValueError for other pictures than the world drew last."""
        shown = getattr(self.world, "shown", None)
        if shown is None or len(shown) != len(frames):
            drew = "none" if shown is None else len(shown)
            raise ValueError(f"{len(frames)} pictures, but the world drew {drew} last: make it with `watched`, and let "
                             "the attempts take place in it")
        return shown[:, None]

    def imagine(self, z_history: Float[Tensor, "B h S"], actions: Float[Tensor, "B H kA"],
                past: Float[Tensor, "B h1 kA"] | None = None) -> Float[Tensor, "B H S"]:
        """The states that blocks really lead to; what came before the last one does not matter."""
        state, ends = z_history[:, -1], []
        for block in self.scale.actions(actions).unbind(dim=1):
            for action in block.unbind(dim=1):
                state = self.world.step(state, action)
            ends.append(state)
        return torch.stack(ends, dim=1)


def places(world: World, *names: str) -> Distance:
    """Euclid's distance between states, squared, of some of the world's quantities; of all that are places if none.

    Raises ValueError for a quantity that the world does not have.
    """
    if unknown := set(names) - set(world.quantities):
        raise ValueError(f"the world {world.name!r} has no {', '.join(sorted(unknown))}; choose of "
                         f"{', '.join(world.quantities)}")
    chosen = [range(world.state_dim)[world.quantities[name]] for name in names or world.quantities]
    which = [i for part in chosen for i in part]

    def distance(state: Float[Tensor, "*b S"], goal: Float[Tensor, "*b S"]) -> Float[Tensor, "*b"]:
        return (state - goal)[..., which].square().sum(dim=-1)

    return distance


def drawn(model: LeWM, world: World, distance: Distance) -> Distance:
    """A distance of latents as one of states: their pictures are drawn and encoded."""
    @torch.no_grad()
    def latents(states: Float[Tensor, "*b S"]) -> Float[Tensor, "*b D"]:
        flat, size = states.flatten(0, -2), model.config.vision.image
        z = [model.encode(world.render(part, size)[:, None])[:, 0] for part in flat.split(2048)]
        return torch.cat(z).unflatten(0, states.shape[:-1])

    def of_states(state: Float[Tensor, "*b S"], goal: Float[Tensor, "*b S"]) -> Float[Tensor, "*b"]:
        # A planner asks about many ends and few goals.
        kinds, back = goal.flatten(0, -2).unique(dim=0, return_inverse=True)
        return distance(latents(state), latents(kinds)[back].unflatten(0, goal.shape[:-1]))

    return of_states


class Reader(nn.Module):
    """Says of a latent what the state behind it is, as far as the world's quantities go; the rest is 0."""

    def __init__(self, latent: int, mean: Float[Tensor, "S"], std: Float[Tensor, "S"], hidden: int = 256) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.layers = nn.Sequential(nn.Linear(latent, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
                                    nn.Linear(hidden, len(mean)))

    def forward(self, z: Float[Tensor, "*b D"]) -> Float[Tensor, "*b S"]:
        return self.layers(z) * self.std + self.mean


def learn_reader(model: LeWM, clips: Clips, *, frames: int, steps: int, seed: int = 0, batch: int = 256) -> Reader:
    """A reader of the states behind `frames` random pictures of a set."""
    device = clips.data.states.device
    generator = torch.Generator(device).manual_seed(seed)
    parts = []
    with torch.no_grad():
        for i in range(0, frames, 512):
            clip = clips.draw(min(512, frames - i), generator)
            parts.append((model.encode(clip.frames[:, :1])[:, 0].float(), clip.states[:, 0]))
    z, states = (torch.cat(part) for part in zip(*parts, strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = Reader(z.shape[1], states.mean(dim=0), states.std(dim=0).clamp(min=1e-6)).to(device)

    def drawn_batch(step: int) -> tuple[Tensor, Tensor]:
        at = torch.Generator(device).manual_seed((seed << 32) + step)
        which = torch.randint(len(z), (batch,), generator=at, device=device)
        return z[which], states[which]

    def error(reader: Reader, seen: tuple[Tensor, Tensor]) -> Float[Tensor, ""]:
        return ((reader(seen[0]) - seen[1]) / reader.std).square().mean()

    train(reader, drawn_batch, error, TrainConfig(steps, lr=1e-3, weight_decay=0.0, min_lr_ratio=0.0, precision="fp32"))
    return reader.eval().requires_grad_(False)


def read(reader: Reader, distance: Distance) -> Distance:
    """A distance of states as one of latents, which are read first."""
    return lambda z, z_goal: distance(reader(z), reader(z_goal))
