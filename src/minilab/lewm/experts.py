"""Who makes the data of Push-T: an expert that plans with the true physics, a script that pushes, one that stumbles.

The published data are a noised expert's. Ours is sampling-based control with the simulator as its model, so nothing is
learned and nothing is recorded by hand. Notable:

- It does not search over actions but over points to walk to: three random actions in a row cancel, three random points
  lead around the block. The actions of a walk depend on where the pusher is, and on nothing else.
- Each decision is two searches by CEM side by side. One refines the plan at hand, the other begins anew around the
  block. The better find is followed for a few steps.
- The score is the block's error alone, but for two small terms: far from the goal the pusher stays near the block,
  and close to it the pusher goes where the goal wants it.

Shapes: B copies, N candidates a copy, F points to walk to, S numbers in a state, A in an action.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from minilab.lewm.worlds.base import Blur, World, unit
from minilab.lewm.worlds.pusht import CENTER, HIGH, INERTIA, LOW, MASS, PUSHER, REACH, to_world, turn
from minilab.planning.shooting import Gaussian, cem, shifted

SIZE = 2 * math.sqrt(INERTIA / MASS)  # by how much a half turn moves the block's points, in the root of the mean square


@dataclass(frozen=True)
class ExpertConfig:
    """How hard it looks and how fast it walks: chosen for goals reached per second of a processor."""

    samples: int = 16  # N, in each of the two searches
    iterations: int = 3
    points: int = 3  # F
    hold: int = 5  # steps that it walks towards a point, and after which it plans anew
    refine: float = 40.0  # spread of the points around the plan at hand
    explore: float = 130.0  # and around the block
    polish: float = 30.0  # and around the best of the draws so far
    speed: float = 0.6  # length of the longest action
    noise: float = 0.05  # on the actions that are run
    enough: float = 8.0  # an error of the block that needs no work
    patience: int = 100  # steps after which a random goal gives way to the next


class Expert:
    """Brings the block to poses and the pusher to its places beside them.

    By default goals are random states, and who has reached one, or has tried for long, gets the next. With a `goal` for
    each copy an episode is done there.
    """

    def __init__(self, world: World, copies: int, generator: torch.Generator, *,
                 goal: Float[Tensor, "B S"] | None = None, config: ExpertConfig = ExpertConfig()) -> None:
        self.world, self.generator, self.config = world, generator, config
        self.again, self.goal = goal is None, world.reset(copies, generator) if goal is None else goal
        self.blur, self.plan, self.age = Blur(config.noise, 0.0, generator), None, 0
        self.tried = torch.zeros(copies, dtype=torch.long, device=generator.device)  # steps towards the present goal

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        c = self.config
        if self.again:
            over = self.world.success(state, self.goal) | (self.tried >= c.patience)
            self.goal = torch.where(over[:, None], self.world.reset(len(state), self.generator), self.goal)
            self.tried = torch.where(over, 0, self.tried) + 1
        if self.age % c.hold == 0:
            at_hand = state[:, None, :2].repeat(1, c.points, 1) if self.plan is None else shifted(self.plan, 1)
            self.plan = self.search(state, at_hand)
        self.age += 1
        return self.blur(walk(state, self.plan[:, 0], c.speed))

    def done(self, state: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
        return self.world.success(state, self.goal) & (not self.again)

    def search(self, state: Float[Tensor, "B S"], at_hand: Float[Tensor, "B F A"]) -> Float[Tensor, "B F A"]:
        """Points to walk to, from a first guess."""
        c = self.config
        anew = center(state)[:, None].expand_as(at_hand)
        law = Gaussian(torch.cat((at_hand, anew)),
                       torch.cat((torch.full_like(at_hand, c.refine), torch.full_like(anew, c.explore))))
        both, goals = state.repeat(2, 1), self.goal.repeat(2, 1)

        def evaluate(points: Float[Tensor, "B2 N F A"]) -> Float[Tensor, "B2 N"]:
            N, now, goal = points.shape[1], *(row.repeat_interleave(points.shape[1], dim=0) for row in (both, goals))
            costs = []
            for point in points.flatten(0, 1).unbind(dim=1):
                for _ in range(c.hold):
                    now = self.world.step(now, walk(now, point, c.speed))
                costs.append(cost(now, goal, c.enough))
            costs = torch.stack(costs, dim=1)  # B2*N F
            return -(costs.mean(dim=1) + costs[:, -1]).view(-1, N)

        # One elite: a push that helps is rare among pushes that harm, and the mean of several is none of them.
        found = cem(evaluate, law, samples=c.samples, elites=1, iterations=c.iterations, low=LOW + PUSHER,
                    high=HIGH - PUSHER, min_std=c.polish, generator=self.generator).mean
        refined, fresh = evaluate(found[:, None])[:, 0].chunk(2)
        return torch.where((refined >= fresh)[:, None, None], *found.chunk(2))


def cost(state: Float[Tensor, "B S"], goal: Float[Tensor, "B S"], enough: float) -> Float[Tensor, "B"]:
    """What the expert makes small. It falls with the block's error whenever the pusher's way home is below 300."""
    error = (pose_error(state, goal) - enough).clamp(min=0)
    away = ((state[:, :2] - center(state)).norm(dim=1) - 90).clamp(min=0)  # at 90 it just touches the tips
    home = (state - goal)[:, :2].norm(dim=1)
    return error + 0.1 * (error / 60).clamp(max=1) * away + 0.05 * (1 - error / 15).clamp(min=0) * home


def pose_error(state: Float[Tensor, "B S"], goal: Float[Tensor, "B S"]) -> Float[Tensor, "B"]:
    """Place and angle of the block in one distance: about how far its points are from where they should be."""
    turned = SIZE * (turn(state[:, 4], goal[:, 4]) / 2).sin()
    return torch.hypot((state - goal)[:, 2:4].norm(dim=1), turned)


def center(state: Float[Tensor, "B S"]) -> Float[Tensor, "B 2"]:
    """The block's center of gravity."""
    return to_world(state[:, 2:5], state.new_tensor([[[0.0, CENTER]]]).expand(len(state), 1, 2))[:, 0]


def walk(state: Float[Tensor, "B S"], point: Float[Tensor, "B A"], speed: float) -> Float[Tensor, "B A"]:
    """The action that points at a place, cut to a length of `speed`."""
    way = (point - state[:, :2]) / REACH
    return way * (speed / way.norm(dim=1, keepdim=True).clamp(min=1e-8)).clamp(max=1)


class Push:
    """Walks behind the block, as seen from where the block shall go, and pushes, off its center so that it turns.

    A copy wants something else once it has it, and now and then before: some places cannot be pushed to. Angles come
    about as they may.
    """

    patience = 40  # steps that a wish lasts on average
    around = 105.0  # the radius of its way around the block: past the tips, with room to spare
    inside = 20.0  # where it aims once it is behind the block
    off = 35.0  # how far beside the center it pushes at most
    turn = math.radians(40)  # how far ahead on its way around the block it aims
    aligned = math.radians(20)  # so nearly behind the block it pushes
    home = 130.0  # the block shall come no nearer to a wall

    def __init__(self, world: World, copies: int, generator: torch.Generator, *, speed: float = 0.4, noise: float = 0.1
                 ) -> None:
        self.generator, self.speed, self.blur = generator, speed, Blur(noise, 0.05, generator)
        self.wish = None  # where the block shall go, and how far beside its center to push

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        draw, block = {"generator": self.generator, "device": state.device}, center(state)
        share, anew = torch.rand(len(state), 3, **draw), torch.rand(len(state), 1, **draw) < 1 / self.patience
        place = LOW + self.home + share[:, :2] * (HIGH - LOW - 2 * self.home)
        wish = torch.cat((place, self.off * (2 * share[:, 2:] - 1)), dim=1)
        if self.wish is not None:
            there = (self.wish[:, :2] - block).norm(dim=1, keepdim=True) < PUSHER
            wish = torch.where(anew | there, wish, self.wish)
        self.wish = wish
        return self.blur(walk(state, self._behind(state[:, :2], block), self.speed))

    def _behind(self, pusher: Float[Tensor, "B 2"], block: Float[Tensor, "B 2"]) -> Float[Tensor, "B 2"]:
        """The next point of a way around the block to the side that the wish is not on; there, a point inside it."""
        goal, off = self.wish.split((2, 1), dim=1)
        line = unit(block - goal)
        middle = block + off * torch.stack((-line[:, 1], line[:, 0]), dim=1)
        out = pusher - middle
        now, then = torch.atan2(out[:, 1], out[:, 0]), torch.atan2(line[:, 1], line[:, 0])
        left = turn(then, now)
        angle = now + left.clamp(-self.turn, self.turn)
        radius = torch.where(left.abs() < self.aligned, self.inside, self.around)
        return middle + radius[:, None] * torch.stack((angle.cos(), angle.sin()), dim=1)

    def done(self, state: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
        return torch.zeros(len(state), dtype=torch.bool, device=state.device)


class Weak:
    """The published collector of poor data: a random place up to an action away, no farther than that from the block.

    It starts afresh in every step, so it trembles near the block and pushes it by chance.
    """

    def __init__(self, copies: int, generator: torch.Generator) -> None:
        self.shape, self.generator = (copies, 2), generator

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        pusher, block = state[:, :2], state[:, 2:4]
        share = 2 * torch.rand(self.shape, generator=self.generator, device=self.generator.device) - 1
        place = torch.maximum(torch.minimum(pusher + REACH * share, block + REACH), block - REACH)
        return ((place - pusher) / REACH).clamp(-1, 1)

    def done(self, state: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
        return torch.zeros(len(state), dtype=torch.bool, device=state.device)
