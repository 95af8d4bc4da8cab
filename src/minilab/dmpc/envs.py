"""The tasks, and a simulator that steps many copies of a body at once.

Each task is one of Gymnasium's MuJoCo environments, version 5: same body, observation, reward and end of an episode
(a test holds the two to each other). Two things are our choice. Hopper and Walker2d are controlled every 0.032 s
instead of every 0.008 s, so that a plan of 16 actions looks half a second ahead. And a reward is a function of states
and actions that a planner can be given at run time, so it reads the speed off the state, where Gymnasium divides a
distance by a time.

Shapes: B copies, N candidates a copy, F steps ahead, S numbers in an observation ("state"), A in an action.
"""

from dataclasses import dataclass, replace

import mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float
from mujoco.batch import Batch
from torch import Tensor

from minilab.dmpc.bodies import load_body, quiet

TOO_FAR = 1e3  # no sound body here moves or turns so fast, and MuJoCo itself objects only at 1e10
BEGINNING = 1.0  # time at which an episode starts; MuJoCo sets it to 0 when it resets an unstable simulation


@dataclass(frozen=True)
class Task:
    """What is simulated and what counts. Positions come first in an observation, then velocities."""

    name: str  # Gymnasium's, and "@" and the frame skip where it is not the one below
    body: str  # Gymnasium's file
    frame_skip: int  # physics steps under one action
    timestep: float  # seconds of one physics step
    state_dim: int  # S
    action_dim: int  # A
    ctrl_cost: float  # times the sum of squared actions
    alive: float  # reward of a step that ends upright
    reset_noise: float
    normal_velocities: bool  # whether reset draws velocities from a normal law, as HalfCheetah does
    random_return: float  # D4RL's reference for 0
    expert_return: float  # and for 100, over 1000 steps of Gymnasium's own length
    velocity_limit: float = float("inf")  # observed velocities are cut to this
    z: tuple[float, float] = (-float("inf"), float("inf"))  # heights and angles of the torso that count as upright
    angle: tuple[float, float] = (-float("inf"), float("inf"))

    @property
    def environment(self) -> str:
        """Gymnasium's name."""
        return self.name.partition("@")[0]

    @property
    def dt(self) -> float:
        """Seconds of one action."""
        return self.frame_skip * self.timestep

    @property
    def falls(self) -> bool:
        """Whether an episode can end early."""
        return self.z[0] > -float("inf")

    def upright(self, state: Float[Tensor, "*b S"]) -> Bool[Tensor, "*b"]:
        """Whether the torso is neither too low nor tilted too far, and no number is out of range."""
        z, angle = state[..., 0], state[..., 1]
        good = (z > self.z[0]) & (z < self.z[1]) & (angle > self.angle[0]) & (angle < self.angle[1])
        return good & (state[..., 1:].abs() < 100).all(dim=-1) if self.falls else torch.ones_like(good)

    def normalized(self, returns: Float[Tensor, "*b"], steps: int) -> Float[Tensor, "*b"]:
        """D4RL's score, 0 for a random policy and 100 for its expert, of returns over `steps` actions.

        Its references are returns over 1000 actions. A reward is of one step, whatever its length, so returns over
        fewer steps, or over the longer steps that we take with Hopper and Walker2d, compare by their mean a step.
        """
        share = steps / 1000
        return 100 * (returns / share - self.random_return) / (self.expert_return - self.random_return)


HALF_CHEETAH = Task("HalfCheetah-v5", "half_cheetah.xml", 5, 0.01, 17, 6, ctrl_cost=0.1, alive=0.0, reset_noise=0.1,
                    normal_velocities=True, random_return=-280.178953, expert_return=12135.0)
HOPPER = Task("Hopper-v5", "hopper.xml", 16, 0.002, 11, 3, ctrl_cost=1e-3, alive=1.0, reset_noise=5e-3,
              normal_velocities=False, random_return=-20.272305, expert_return=3234.3, velocity_limit=10.0,
              z=(0.7, float("inf")), angle=(-0.2, 0.2))
WALKER = Task("Walker2d-v5", "walker2d_v5.xml", 16, 0.002, 17, 6, ctrl_cost=1e-3, alive=1.0, reset_noise=5e-3,
              normal_velocities=False, random_return=1.629008, expert_return=4592.3, velocity_limit=10.0,
              z=(0.8, 2.0), angle=(-1.0, 1.0))
TASKS = {task.name: task for task in (HALF_CHEETAH, HOPPER, WALKER)}


def task_named(name: str) -> Task:
    """The task called `name`; "Hopper-v5@4" has a frame skip of 4. Raises ValueError with those that there are."""
    environment, at, frame_skip = name.partition("@")
    if environment not in TASKS or at and not (frame_skip.isdecimal() and int(frame_skip)):
        raise ValueError(f"no task {name!r}; choose one of {', '.join(TASKS)}, with @ and a frame skip if you like")
    return with_frame_skip(TASKS[environment], int(frame_skip)) if at else TASKS[environment]


def with_frame_skip(task: Task, frame_skip: int) -> Task:
    """The same task with shorter or longer actions. Its name says so, so that no data are taken for the other's."""
    usual = TASKS[task.environment].frame_skip == frame_skip
    return replace(task, name=task.environment if usual else f"{task.environment}@{frame_skip}", frame_skip=frame_skip)


@dataclass(frozen=True)
class Step:
    """What one action led to."""

    state: Float[Tensor, "B S"]
    reward: Float[Tensor, "B"]
    fell: Bool[Tensor, "B"]  # the episode is over
    unstable: Bool[Tensor, "B"]  # the physics blew up, which ends the episode too


class Simulator:
    """B copies of a task's body, each with a state of its own, stepped on `threads` threads.

    The results do not depend on the number of threads. `model` is an edited body (`bodies.py`); by default whole.
    """

    def __init__(self, task: Task, copies: int, *, model: mujoco.MjModel | None = None, threads: int = 1) -> None:
        self.task, self.model, self.threads = task, model or load_body(task.body), threads
        self.batch = Batch(self.model, copies, threads)
        self._qpos, self._qvel, self._ctrl, self._time = map(self.batch.bind, ("qpos", "qvel", "ctrl", "time"))

    @property
    def copies(self) -> int:
        return self.batch.nsim

    @property
    def state_dim(self) -> int:
        return self.model.nq - 1 + self.model.nv

    @property
    def action_dim(self) -> int:
        return self.model.nu

    def reset(self, generator: torch.Generator) -> Float[Tensor, "B S"]:
        """Start every copy near the rest pose, as Gymnasium does; return what is observed."""
        noise, shape = self.task.reset_noise, self._qpos.shape
        qpos = self.model.qpos0 + noise * (2 * torch.rand(shape, generator=generator, dtype=torch.float64).numpy() - 1)
        draw = torch.randn if self.task.normal_velocities else lambda *a, **o: 2 * torch.rand(*a, **o) - 1
        qvel = noise * draw(self._qvel.shape, generator=generator, dtype=torch.float64).numpy()
        return self.place(np.concatenate((qpos, qvel), axis=1))

    def place(self, physics: np.ndarray) -> Float[Tensor, "B S"]:
        """Put every copy into a state of the physics (positions, then velocities, one row a copy)."""
        self.batch.reset(stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        self._time[:] = BEGINNING
        self._qpos[:], self._qvel[:] = np.split(physics, [self.model.nq], axis=1)
        with quiet():  # an instability is returned, not logged
            self.batch.forward()  # as Gymnasium does: the first step then starts from these contact forces
        return self.observe()

    @property
    def physics(self) -> np.ndarray:
        """Positions and velocities of every copy, one row each, as `place` takes them."""
        return np.concatenate((self._qpos, self._qvel), axis=1)

    def observe(self) -> Float[Tensor, "B S"]:
        """Everything but how far the body has come: positions without the first, then velocities."""
        return _observed(self.task, self._qpos, self._qvel)

    def step(self, actions: Float[Tensor, "B A"]) -> Step:
        """Hold an action for `frame_skip` physics steps. Raises ValueError for another shape or a NaN."""
        if actions.shape != self._ctrl.shape:
            raise ValueError(f"actions have shape {tuple(actions.shape)}, and {self.task.name} with {self.copies} "
                             f"copies takes {tuple(self._ctrl.shape)}")
        if not actions.isfinite().all():
            raise ValueError("an action is NaN or infinite: look at what the policy was given")
        actions, was = actions.detach().cpu().clamp(-1, 1), self._qpos[:, 0].copy()
        self._ctrl[:] = actions.numpy()
        with quiet():
            self.batch.step(nstep=self.task.frame_skip)
        state = self.observe()
        unstable = ~_sound(self._time, state)
        speed = torch.from_numpy((self._qpos[:, 0] - was) / self.task.dt).float()
        upright = self.task.upright(state) & ~unstable
        reward = speed - self.task.ctrl_cost * actions.square().sum(dim=1) + self.task.alive * upright
        return Step(state, torch.where(unstable, 0.0, reward), ~upright, unstable)

    def imagine(self, actions: Float[Tensor, "B N F A"], physics: np.ndarray | None = None) -> Float[Tensor, "B N F S"]:
        """What the physics makes of N blocks of actions for each copy: the true dynamics, as an oracle.

        It starts from where the copies are, or from the rows of `physics`, and moves none of them. Where the physics
        blows up, the last state before that is repeated.
        """
        B, N, F, A = actions.shape
        oracle = Simulator(self.task, B * N, model=self.model, threads=self.threads)
        now = oracle.place(np.repeat(self.physics if physics is None else physics, N, axis=0))  # BN S
        clock = mujoco.mjtState.mjSTATE_TIME.value
        u = actions.detach().cpu().clamp(-1, 1).double().reshape(B * N, F, A)
        u = u.repeat_interleave(self.task.frame_skip, dim=1).numpy()
        with quiet():
            seen = oracle.batch.rollout(u.shape[1], u, record=("qpos", "qvel", clock))
        last = slice(self.task.frame_skip - 1, None, self.task.frame_skip)
        states = _observed(self.task, seen["qpos"][:, last], seen["qvel"][:, last])  # BN F S
        good = _sound(seen[clock][:, last, 0], states)
        if not good.all():
            kept = torch.arange(1, F + 1).minimum(good.cumprod(dim=1).sum(dim=1, keepdim=True))  # BN F
            states = torch.cat((now[:, None], states), dim=1)[torch.arange(B * N)[:, None], kept]
        return states.reshape(B, N, F, -1)


def _observed(task: Task, qpos: np.ndarray, qvel: np.ndarray) -> Tensor:
    velocity = qvel.clip(-task.velocity_limit, task.velocity_limit)
    return torch.from_numpy(np.concatenate((qpos[..., 1:], velocity), axis=-1)).float()


def _sound(time: np.ndarray, state: Float[Tensor, "*b S"]) -> Bool[Tensor, "*b"]:
    """Whether the physics held: nothing was reset, and no number is NaN or absurd."""
    return torch.from_numpy(time >= BEGINNING) & (state.abs() < TOO_FAR).all(dim=-1)
