"""Model predictive control from first principles: a pendulum whose motor is too weak to lift it.

A bob of mass m hangs on a rod of length l. With the angle theta measured from hanging down and a motor torque u,

    m l^2 theta'' = -m g l sin(theta) - friction theta' + u,    |u| <= torque < m g l,

so that it can reach the top only by swinging. The dynamics are known, which leaves what this chapter is about: how a
plan is found (random shooting, CEM, MPPI from `planning/`), how far it must look, and why it is made anew at every
step. The same `Propose`, `Predict` and `Objective` that D-MPC learns are here one function each.

Time goes in steps of semi-implicit Euler: first the speed, then the angle with the new speed. It conserves area in the
plane of angle and speed, so that the energy of a free pendulum oscillates by O(dt) and does not drift.

Shapes: B episodes, N candidates, T steps of an episode, F of a plan; a state is (theta, theta'), S = 2, A = 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from minilab.planning.rank import Propose, sample_score_rank
from minilab.planning.shooting import Gaussian, cem, mppi, shifted

Plan = Callable[[Float[Tensor, "B S"], Float[Tensor, "B F A"] | None], Float[Tensor, "B F A"]]  # state, last plan
HANGING = (0.0, 0.0)


@dataclass(frozen=True)
class Pendulum:
    """The plant and its model in one. Actions in [-1, 1] are shares of the motor's torque."""

    mass: float = 1.0  # kg
    length: float = 1.0  # m
    gravity: float = 9.81  # m/s^2
    torque: float = 2.0  # N m at an action of 1; m g l = 9.81 N m would lift it at once
    friction: float = 0.05  # N m s
    dt: float = 0.1  # seconds under one action
    substeps: int = 5  # Euler steps in dt

    def step(self, state: Float[Tensor, "*b S"], action: Float[Tensor, "*b A"]) -> Float[Tensor, "*b S"]:
        """Hold an action for dt seconds."""
        theta, speed = state.unbind(dim=-1)
        push = self.torque * action[..., 0].clamp(-1, 1)
        inertia, h = self.mass * self.length**2, self.dt / self.substeps
        for _ in range(self.substeps):
            lever = self.mass * self.gravity * self.length * theta.sin()
            speed = speed + h * (push - lever - self.friction * speed) / inertia
            theta = theta + h * speed
        return torch.stack((theta, speed), dim=-1)

    def predict(self, state: Float[Tensor, "B S"], actions: Float[Tensor, "B N F A"]) -> Float[Tensor, "B N F S"]:
        """The states that N blocks of actions lead to."""
        now, states = state[:, None].expand(-1, actions.shape[1], -1), []
        for action in actions.unbind(dim=2):
            now = self.step(now, action)
            states.append(now)
        return torch.stack(states, dim=2)

    def energy(self, state: Float[Tensor, "*b S"]) -> Float[Tensor, "*b"]:
        """Kinetic and potential energy in joules, 0 when it hangs still and 2 m g l when it stands still."""
        theta, speed = state.unbind(dim=-1)
        return (self.mass * self.length**2 * speed.square() / 2
                + self.mass * self.gravity * self.length * (1 - theta.cos()))


def height(state: Float[Tensor, "*b S"]) -> Float[Tensor, "*b"]:
    """-1 hanging, 1 standing: the height of the bob in rod lengths."""
    return -state[..., 0].cos()


def swing_up(states: Float[Tensor, "*b F1 S"], actions: Float[Tensor, "*b F A"]) -> Float[Tensor, "*b"]:
    """The objective: be high at every step, and slow when high; torque costs a little."""
    after = states[..., 1:, :]
    up, speed = (1 + height(after)) / 2, after[..., 1]
    return (up - 0.02 * up.square() * speed.square() - 1e-3 * actions.square().sum(dim=-1)).sum(dim=-1)


def random_blocks(F: int, generator: torch.Generator, *, hold: int = 4) -> Propose:
    """Uniform actions, each held for `hold` steps: a proposal that knows nothing. Held, they do not cancel out."""

    def propose(state: Float[Tensor, "B S"], n: int) -> Float[Tensor, "B N F A"]:
        coarse = 2 * torch.rand(len(state), n, math.ceil(F / hold), 1, generator=generator) - 1
        return coarse.repeat_interleave(hold, dim=2)[:, :, :F]

    return propose


def shooting(model: Pendulum, F: int, n: int, generator: torch.Generator, *, hold: int = 4) -> Plan:
    """Random shooting: the best of n random blocks."""
    propose = random_blocks(F, generator, hold=hold)
    return lambda state, last: sample_score_rank(state, propose, model.predict, swing_up, n).chosen


def refined(model: Pendulum, F: int, n: int, generator: torch.Generator, *, by: str = "cem", iterations: int = 4,
            std: float = 0.7) -> Plan:
    """CEM ("cem") or MPPI ("mppi") with n draws an iteration, from the last plan. Raises ValueError for other names."""
    methods = {"cem": partial(cem, elites=max(2, n // 8), min_std=0.1), "mppi": partial(mppi, temperature=0.03)}
    if by not in methods:
        raise ValueError(f"no method {by!r} to refine plans; choose one of {', '.join(methods)}")

    def plan(state: Float[Tensor, "B S"], last: Float[Tensor, "B F A"] | None) -> Float[Tensor, "B F A"]:
        def score(actions: Float[Tensor, "B N F A"]) -> Float[Tensor, "B N"]:
            states = model.predict(state, actions)
            now = state[:, None, None].expand(-1, actions.shape[1], 1, -1)
            return swing_up(torch.cat((now, states), dim=2), actions)

        mean = torch.zeros(len(state), F, 1) if last is None else last
        start = Gaussian(mean, torch.full_like(mean, std))
        return methods[by](score, start, samples=n, iterations=iterations, generator=generator).mean

    return plan


@dataclass(frozen=True)
class Swing:
    """What happened: states from the start on, and the actions between them."""

    states: Float[Tensor, "B T1 S"]
    actions: Float[Tensor, "B T A"]

    @property
    def stands(self) -> Float[Tensor, "B"]:
        """The share of the last 2 seconds' steps (20, at dt = 0.1 s) spent within 25 degrees of the top."""
        return (height(self.states[:, -20:]) > math.cos(math.radians(25))).float().mean(dim=1)


def run(plan: Plan, plant: Pendulum, start: Float[Tensor, "B S"], steps: int, *, every: int = 1,
        push: Float[Tensor, "T"] | None = None) -> Swing:
    """Plan, run the first `every` actions, look where the plant is, plan again: receding horizon.

    A plan is run open loop where `every` is as long as the episode. `push` adds to the speed (in rad/s) after each
    step and no plan knows of it. Raises ValueError if a plan is shorter than what is to be run of it.
    """
    state, last, queue, states, actions = start, None, [], [start], []
    for t in range(steps):
        if not queue:
            last = plan(state, last if last is None else shifted(last, every))
            if last.shape[1] < min(every, steps - t):
                raise ValueError(f"a plan of {last.shape[1]} actions cannot be followed for {every}: raise the horizon")
            queue = list(last[:, :every].unbind(dim=1))
        action = queue.pop(0)
        state = plant.step(state, action)
        if push is not None:
            state = state + torch.tensor([0.0, 1.0]) * push[t]
        states.append(state)
        actions.append(action)
    return Swing(torch.stack(states, dim=1), torch.stack(actions, dim=1))


def at_rest(copies: int, generator: torch.Generator, *, spread: float = 0.05) -> Float[Tensor, "B S"]:
    """Hanging, nearly still."""
    return torch.tensor(HANGING) + spread * torch.randn(copies, 2, generator=generator)


def scripted(actions: Float[Tensor, "B T A"]) -> Plan:
    """A plan that looks at nothing: these actions, whatever the state. Run it with `every` = T."""
    return lambda state, last: actions


def disturbed(plant: Pendulum, *, steps: int = 100, F: int = 12, n: int = 128, push: float = 0.6, at: int = 60,
              seed: int = 0) -> dict[str, Swing]:
    """One swing-up and a push that no plan knows of: the first run's own actions again, and planning at every step.

    Keys: "undisturbed", "open loop" and "receding horizon". The push is in rad/s and comes after step `at`.
    """
    start, pushes = torch.tensor([HANGING]), torch.zeros(steps)
    pushes[at] = push

    def plan() -> Plan:  # the same draws again, so that the runs differ by the push alone
        return shooting(plant, F, n, torch.Generator().manual_seed(seed))

    quiet = run(plan(), plant, start, steps)
    return {"undisturbed": quiet,
            "open loop": run(scripted(quiet.actions), plant, start, steps, every=steps, push=pushes),
            "receding horizon": run(plan(), plant, start, steps, push=pushes)}


def success(plant: Pendulum, *, horizons: Sequence[int] = (1, 2, 3, 4, 6, 8, 12, 16, 24),
            candidates: Sequence[int] = (1, 4, 16, 64), steps: int = 100, copies: int = 16, seed: int = 0
            ) -> Float[Tensor, "n_horizons n_candidates copies"]:
    """The share of the last 2 s that each of `copies` episodes stands, for every horizon F and number N."""
    table = []
    for F in horizons:
        for n in candidates:
            generator = torch.Generator().manual_seed(seed)
            plan = shooting(plant, F, n, generator)
            table.append(run(plan, plant, at_rest(copies, generator), steps).stands)
    return torch.stack(table).view(len(horizons), len(candidates), copies)
