"""The oracle: model predictive control with the simulator itself as the model, and no learning at all.

MPPI (Williams et al., 2017) holds a block of F actions, blurs it N times, lets the physics say what each leads to, and
moves to their mean, weighted by the exponential of the scores. The next decision starts from what is left of the block.
It is the expert of our data, and the upper bound that a planner with a learned model is held to: with the broken
body's own physics it tells how much a perfect adaptation could win.

Shapes: B copies, N candidates a copy, F steps ahead, S numbers in a state, A in an action.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.dmpc.envs import Simulator
from minilab.planning.rank import Objective
from minilab.planning.shooting import Gaussian, mppi, shifted


@dataclass(frozen=True)
class OracleConfig:
    """How hard it looks: chosen on HalfCheetah, where several small moves earned more than a large one."""

    samples: int = 24  # N
    F: int = 20
    noise: float = 0.5  # spread of the blur
    temperature: float = 0.15  # of the weights, in units of the candidates' spread of scores
    iterations: int = 3  # moves of the block for each decision
    every: int = 1  # actions that are run of each block


class Oracle:
    """Plans for the copies of `world`, which it must be run on, by what it believes that the world is.

    `believes` is a simulator of another body, for an oracle that does not know of a defect; its state does not matter.
    """

    def __init__(self, world: Simulator, objective: Objective, config: OracleConfig = OracleConfig(), *,
                 believes: Simulator | None = None, seed: int = 0) -> None:
        if min(config.samples, config.F, config.iterations, config.every) < 1 or config.every > config.F:
            raise ValueError(f"an oracle needs positive numbers and runs at most F actions of a block, not {config}")
        self.world, self.believes, self.objective, self.config = world, believes or world, objective, config
        self.generator = torch.Generator().manual_seed(seed)

    def start(self, copies: int) -> None:
        self.block = torch.zeros(copies, self.config.F, self.world.action_dim)
        self.age = 0  # actions of the block that were run

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        if self.age % self.config.every == 0:
            self.block, self.age = self.plan(state, shifted(self.block, self.age)), 0
        self.age += 1
        return self.block[:, self.age - 1]

    def plan(self, state: Float[Tensor, "B S"], block: Float[Tensor, "B F A"]) -> Float[Tensor, "B F A"]:
        """A better block, from a first guess."""
        c, physics = self.config, self.world.physics

        def evaluate(actions: Float[Tensor, "B N F A"]) -> Float[Tensor, "B N"]:
            after = self.believes.imagine(actions, physics)
            now = state[:, None, None].expand(-1, actions.shape[1], 1, -1)
            scores = self.objective(torch.cat((now, after), dim=2), actions)
            # Tasks differ in the size of their rewards: one temperature fits all in units of the spread.
            return scores / scores.std(dim=1, keepdim=True).clamp(min=1e-6)

        law = Gaussian(block, torch.full_like(block, c.noise))
        return mppi(evaluate, law, samples=c.samples, temperature=c.temperature, iterations=c.iterations,
                    generator=self.generator).mean
