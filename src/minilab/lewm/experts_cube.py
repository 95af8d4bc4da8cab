"""Who makes the data of the cube: a script that takes it, lifts it and sets it down, and sometimes plays.

It looks at states, as an expert may. What it does follows from where hand and cube are, so a cube that slips away is
fetched again without a plan for that.

Shapes: B copies, S numbers in a state, A in an action.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from minilab.lewm.worlds.base import Blur
from minilab.lewm.worlds.cube import HALF, HIGH, LOW, SHUT, STRIDE

NEAREST = 0.8 * STRIDE  # how far an action of 1 gets


class Carry:
    """Brings the cube to one place after the other: on the table, or in the air.

    There it lets go and moves away for a moment, or keeps the cube and has the next wish at once. A playful copy leaves
    its work for some steps now and then: its hand wanders, as often as not through the cube, open or shut.
    """

    patience = 60  # steps that a wish lasts on average if it does not come true
    whim = 6  # steps that rest and play last on average
    aligned = 0.012  # so near the cube's middle, seen from above, the hand goes down; so near in all, it shuts
    hover = 0.06  # from so high above the cube's center the fingers pass over it
    beside = 0.11  # nearer than that, seen from above, they might touch it
    there = 0.015  # so near to where it shall be a cube is there

    def __init__(self, copies: int, generator: torch.Generator, *, playful: float, speed: float = 0.8,
                 noise: float = 0.2, repeat: float = 0.05) -> None:
        self.generator, self.speed, self.blur = generator, speed, Blur(noise, repeat, generator)
        self.begin = playful / (1 - playful) / self.whim  # the chance of play in a step of work
        self.wish = self._wishes(copies)
        self.rests, self.plays = torch.zeros(2, copies, dtype=torch.bool, device=generator.device)
        self.aim = torch.zeros(copies, 4, device=generator.device)  # where the hand goes then, and its grip

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        gap = state[:, 4:7] - state[:, :3]
        over = gap[:, :2].norm(dim=1) < self.aligned
        between = over & (gap[:, 2].abs() < self.aligned)
        shut = state[:, 3] < SHUT
        held = between & shut
        self._decide(state, held)
        work = torch.where(held[:, None], self._carry(state), self._fetch(state, over))
        work = torch.cat((work, 2.0 * between[:, None] - 1), dim=1)
        aim = torch.where((self.rests | self.plays)[:, None], self.aim, work)
        place = torch.where((held | self.plays)[:, None], aim[:, :3], self._around(state, aim[:, :3]))
        letting_go = held & (aim[:, 3] < 0)
        way = torch.where(letting_go[:, None], 0, place - state[:, :3]) / NEAREST
        way = way / way.abs().amax(dim=1, keepdim=True).clamp(min=1) * self.speed
        grip = (aim[:, 3] > 0).float() - shut.float()  # 0 where it is as it should be
        return self.blur(torch.cat((way, grip[:, None]), dim=1))

    def done(self, state: Float[Tensor, "B S"]) -> Bool[Tensor, "B"]:
        return torch.zeros(len(state), dtype=torch.bool, device=state.device)

    def _decide(self, state: Float[Tensor, "B S"], held: Bool[Tensor, "B"]) -> None:
        """New wishes, and who rests or plays."""
        chance = torch.rand(3, len(state), generator=self.generator, device=state.device)
        there = held & ((state[:, 4:7] - self.wish[:, :3]).norm(dim=1) < self.there)
        rests, plays = there & (self.wish[:, 3] > 0), chance[0] < self.begin
        anew = there | (chance[1] < 1 / self.patience)
        self.wish = torch.where(anew[:, None], self._wishes(len(state)), self.wish)
        busy, over = ~(self.rests | self.plays), chance[2] < 1 / self.whim
        fresh = torch.where(plays[:, None], self._whims(state), self._aside(len(state)))
        self.aim = torch.where((busy & (rests | plays))[:, None], fresh, self.aim)
        self.plays = torch.where(busy, plays, self.plays & ~over)
        self.rests = torch.where(busy, rests & ~plays, self.rests & ~over)

    def _carry(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B 3"]:
        """Up first, then over to the wish, then to its height."""
        hand, cube, wish = state[:, :3], state[:, 4:7], self.wish[:, :3]
        far = (wish - cube)[:, :2].norm(dim=1, keepdim=True) > self.there
        low = cube[:, 2:] < 2 * HALF
        across = torch.where(far & low, hand[:, :2], (wish - cube + hand)[:, :2])
        height = torch.where(far, wish[:, 2:].clamp(min=3 * HALF), wish[:, 2:])
        return torch.cat((across, height - (cube - hand)[:, 2:]), dim=1)

    def _fetch(self, state: Float[Tensor, "B S"], over: Bool[Tensor, "B"]) -> Float[Tensor, "B 3"]:
        """Above the cube, and down to it once the fingers are wide enough."""
        down = over & (state[:, 3] >= SHUT)
        return state[:, 4:7] + torch.where(down, 0, self.hover)[:, None] * state.new_tensor([0, 0, 1.0])

    def _around(self, state: Float[Tensor, "B S"], place: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3"]:
        """Straight up, if the way to a place would lead the fingers through the cube."""
        hand, cube = state[:, :3], state[:, 4:7]
        low = (hand[:, 2] < cube[:, 2] + 0.8 * self.hover) & ((cube - hand)[:, :2].norm(dim=1) < self.beside)
        across = (place - hand)[:, :2].norm(dim=1) > self.aligned
        up = torch.cat((hand[:, :2], cube[:, 2:] + self.hover), dim=1)
        return torch.where((low & across)[:, None], up, place)

    def _wishes(self, n: int) -> Float[Tensor, "n 4"]:
        """Where the cube shall be, half of the time on the table, and whether to let go of it there."""
        share = torch.rand(n, 5, generator=self.generator, device=self.generator.device)
        low, high = share.new_tensor([*LOW[:2], 2 * HALF]), share.new_tensor(HIGH)
        place = low + share[:, :3] * (high - low) * share.new_tensor([1, 1, 0.9])
        on_table = share[:, 3:4] < 0.5
        place[:, 2:] = torch.where(on_table, HALF, place[:, 2:])
        return torch.cat((place, (share[:, 4:] < torch.where(on_table, 0.8, 0.3)).float()), dim=1)

    def _aside(self, n: int) -> Float[Tensor, "n 4"]:
        """Somewhere in the upper half, with open fingers."""
        share = torch.rand(n, 3, generator=self.generator, device=self.generator.device)
        low, high = share.new_tensor([*LOW[:2], (LOW[2] + HIGH[2]) / 2]), share.new_tensor(HIGH)
        return torch.cat((low + share * (high - low), torch.full_like(share[:, :1], -1.0)), dim=1)

    def _whims(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B 4"]:
        """Anywhere, or low and near the cube; with any grip."""
        share = torch.rand(len(state), 5, generator=self.generator, device=state.device)
        low, high = share.new_tensor(LOW), share.new_tensor(HIGH)
        near = share[:, 3:4] < 0.5
        place = torch.where(near, state[:, 4:7] + 0.16 * (share[:, :3] - 0.5), low + share[:, :3] * (high - low))
        place[:, 2:] = torch.where(near, HALF, place[:, 2:])
        place = torch.maximum(torch.minimum(place, high), low)
        return torch.cat((place, 2 * share[:, 4:] - 1), dim=1)
