"""A planner made fast: a network learns to act as D-MPC does, and needs one pass for what took dozens.

Zhou et al. (2025) fit a reactive policy to pairs (state, action that the planner chose). As the student will visit
states of its own, the teacher also labels those (DAgger, Ross, Gordon and Bagnell, 2011), which is our choice.

Shapes: B copies, n pairs, S numbers in a state, A in an action.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minilab.core.train import TrainConfig, train
from minilab.dmpc.agent import Planner
from minilab.dmpc.data import Scales
from minilab.dmpc.envs import Simulator
from minilab.dmpc.networks import ResidualMLP


@dataclass(frozen=True)
class Distillation:
    """How the student is taught."""

    copies: int = 32  # episodes side by side
    steps: int = 100  # of an episode
    rounds: int = 2  # the first by the teacher, the others by the student so far
    updates: int = 2000  # a round
    width: int = 128
    lr: float = 1e-3


class Reactive(nn.Module):
    """a = tanh(network(s)), one pass."""

    def __init__(self, S: int, A: int, scales: Scales, *, width: int = 128) -> None:
        super().__init__()
        self.network = ResidualMLP(S, width, 2, A)
        self.register_buffer("mean", scales.mean.clone())
        self.register_buffer("std", scales.std.clone())

    def forward(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        return self.network((state - self.mean) / self.std).tanh()

    def start(self, copies: int) -> None:
        """Nothing is remembered."""

    def act(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B A"]:
        return self(state.to(self.mean.device))


def distilled(teacher: Planner, simulator: Simulator, scales: Scales, config: Distillation, *, seed: int = 0
              ) -> Reactive:
    """A student of the teacher's first actions. The simulator must have `config.copies` copies."""
    device, generator = teacher.device, torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    student = Reactive(simulator.state_dim, simulator.action_dim, scales, width=config.width).to(device)
    seen, labels = [], []
    for turn in range(config.rounds):
        actor = teacher if turn == 0 else student.eval()
        states, actions = _labeled(teacher, actor, simulator, config.steps, generator)
        seen.append(states.to(device))
        labels.append(actions.to(device))
        s, a = torch.cat(seen), torch.cat(labels)

        def batches(step: int, s=s, a=a, turn=turn) -> tuple[Tensor, Tensor]:
            which = torch.randint(len(s), (256,), generator=torch.Generator().manual_seed((turn << 20) + step))
            return s[which.to(s.device)], a[which.to(s.device)]

        train(student.requires_grad_(True), batches, lambda model, batch: (model(batch[0]) - batch[1]).square().mean(),
              TrainConfig(steps=config.updates, lr=config.lr, weight_decay=1e-4, warmup=min(50, config.updates),
                          ema=0.99, precision="fp32", replay=True))
    return student.eval().requires_grad_(False)


@torch.inference_mode()
def _labeled(teacher: Planner, actor: Planner | Reactive, simulator: Simulator, steps: int, generator: torch.Generator
             ) -> tuple[Float[Tensor, "n S"], Float[Tensor, "n A"]]:
    """States that the actor visits, each with the first action of the plan that the teacher chooses there."""
    state, states, actions = simulator.reset(generator), [], []
    alive = torch.ones(simulator.copies, dtype=torch.bool)
    actor.start(simulator.copies)
    for _ in range(steps):
        chosen = teacher.plan(state).chosen[:, 0].cpu()
        states.append(state[alive])
        actions.append(chosen[alive])
        step = simulator.step(chosen if actor is teacher else actor.act(state).cpu())
        state, alive = step.state, alive & ~step.fell
        if not alive.any():
            break
    return torch.cat(states), torch.cat(actions)
