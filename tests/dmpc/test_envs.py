"""The simulator, held to Gymnasium's environments; its imagination, held to itself; and what goes wrong."""

import gymnasium
import numpy as np
import pytest
import torch

from minilab.dmpc.bodies import load_body, weaken
from minilab.dmpc.data import save_episodes
from minilab.dmpc.envs import HALF_CHEETAH, HOPPER, TASKS, WALKER, Simulator, task_named, with_frame_skip
from minilab.dmpc.rollout import rollout

ALL = [HALF_CHEETAH, HOPPER, WALKER]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def names(task):
    return task.name


def random_actions(*shape, seed=0):
    return 2 * torch.rand(*shape, generator=generator(seed)) - 1


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """MuJoCo writes its warnings into a file of the current folder, such as those of Gymnasium's own models."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("task", [*ALL, with_frame_skip(HOPPER, 4)], ids=names)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_is_gymnasiums_step(task, threads):
    """Observation, reward and end of episode, for tens of steps from Gymnasium's own starts."""
    pytest.importorskip("imageio")  # Gymnasium wants it even where nothing is rendered
    env = gymnasium.make(task.environment, frame_skip=task.frame_skip, max_episode_steps=60)
    simulator, random, compared, ended = Simulator(task, 3, threads=threads), np.random.default_rng(0), 0, 0
    for seed in range(12):
        observation, _ = env.reset(seed=seed)
        data = env.unwrapped.data
        start = np.concatenate((data.qpos, data.qvel))
        seen = simulator.place(np.stack((start, 0.9 * start, start)))
        np.testing.assert_allclose(seen[0], observation, atol=1e-6)
        scale = random.uniform(0.02, 1)  # gentle actions fall later
        terminated = truncated = False
        while not (terminated or truncated):
            action = (scale * random.uniform(-1.2, 1.2, task.action_dim)).clip(-1, 1).astype(np.float32)
            observation, reward, terminated, truncated, _ = env.step(action)
            step = simulator.step(torch.from_numpy(np.stack((action, 0 * action, action))))
            for i in (0, 2):
                np.testing.assert_allclose(step.state[i], observation, atol=2e-5, rtol=1e-5)
                assert float(step.reward[i]) == pytest.approx(reward, abs=2e-5)
                assert bool(step.fell[i]) == terminated and not step.unstable[i]
            compared, ended = compared + 1, ended + terminated
    assert compared > 30 and (ended > 5) == task.falls
    env.close()


@pytest.mark.parametrize("task", ALL, ids=names)
def test_a_reset_draws_from_gymnasiums_law(task):
    """Mean and spread of each number at a start, over 4000 starts of ours and the formulas of Gymnasium's reset."""
    seen = Simulator(task, 4000).reset(generator()).double()
    P = (task.state_dim - 1) // 2
    rest = torch.from_numpy(load_body(task.body).qpos0[1:])
    uniform = task.reset_noise / 3**0.5
    torch.testing.assert_close(seen[:, :P].mean(dim=0), rest, atol=5 * uniform / 4000**0.5, rtol=0)
    spread = task.reset_noise if task.normal_velocities else uniform
    expected = torch.tensor([uniform] * P + [spread] * (P + 1), dtype=torch.float64)
    torch.testing.assert_close(seen.std(dim=0), expected, rtol=0.06, atol=0)
    assert (seen[:, P:].abs().max() > 2 * task.reset_noise) == task.normal_velocities


@pytest.mark.parametrize("task", ALL, ids=names)
def test_results_do_not_depend_on_threads_or_on_the_other_copies(task):
    actions, seen = random_actions(5, 12, task.action_dim), []
    for threads in (1, 2, 5):
        simulator = Simulator(task, 5, threads=threads)
        simulator.reset(generator())
        start = simulator.physics
        seen.append(torch.stack([simulator.step(actions[:, t]).state for t in range(12)]))
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])
    alone = Simulator(task, 1)
    alone.place(start[3:4])
    assert torch.equal(torch.stack([alone.step(actions[3:4, t]).state for t in range(12)])[:, 0], seen[0][:, 3])


@pytest.mark.parametrize("task", ALL, ids=names)
@pytest.mark.parametrize("joint", [None, 1])
def test_imagining_equals_stepping_and_moves_nothing(task, joint):
    model = load_body(task.body)
    model = model if joint is None else weaken(model, model.joint(model.actuator_trnid[joint, 0]).name, -0.5)
    simulator, actions = Simulator(task, 3, model=model), random_actions(3, 4, 6, task.action_dim)
    simulator.reset(generator())
    before = simulator.physics
    imagined = simulator.imagine(actions)
    assert np.array_equal(simulator.physics, before) and imagined.shape == (3, 4, 6, task.state_dim)
    for n in range(4):
        simulator.place(before)
        for f in range(6):
            torch.testing.assert_close(imagined[:, n, f], simulator.step(actions[:, n, f]).state, atol=1e-5, rtol=1e-5)
    other = Simulator(task, 1, model=model)  # whose own state does not matter
    assert torch.equal(other.imagine(actions, before), imagined)


@pytest.mark.parametrize("task", ALL, ids=names)
def test_where_a_body_stands_along_the_track_changes_nothing(task):
    simulator = Simulator(task, 2)
    simulator.reset(generator())
    physics = simulator.physics[[0, 0]]
    physics[1, 0] += 7.0
    simulator.place(physics)
    for t in range(8):
        step = simulator.step(random_actions(1, task.action_dim, seed=t).expand(2, -1))
        torch.testing.assert_close(step.state[0], step.state[1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(step.reward[0], step.reward[1], atol=1e-4, rtol=1e-4)


class Random:
    def __init__(self, task):
        self.task = task

    def start(self, copies):
        self.generator = generator()

    def act(self, state):
        return 2 * torch.rand(len(state), self.task.action_dim, generator=self.generator) - 1


def exploding():
    """A motor ten thousand times as strong: the body is torn apart within a few steps."""
    return weaken(load_body(HALF_CHEETAH.body), "bfoot", 1e4)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_unstable_simulation_ends_its_episode_and_is_counted(threads, tmp_path):
    simulator = Simulator(HALF_CHEETAH, 4, model=exploding(), threads=threads)
    made = rollout(Random(HALF_CHEETAH), simulator, 30, generator())
    assert made.unstable == 4 and made.episodes.fell.all() and (made.episodes.lengths < 10).all()
    for part in ("states", "rewards", "actions"):
        assert getattr(made.episodes, part).abs().max() < 1e3  # nothing absurd gets into the data
    save_episodes(made.episodes, tmp_path / "e.safetensors", what="a test", how_made="here")
    assert not list(tmp_path.glob("MUJOCO_LOG*"))


def test_an_unstable_copy_does_not_disturb_the_others():
    simulator, actions = Simulator(HALF_CHEETAH, 3), random_actions(3, 25, 6)
    simulator.reset(generator())
    start = simulator.physics
    calm = torch.stack([simulator.step(actions[:, t]).state for t in range(25)])
    start[1, simulator.model.nq] = 1e11
    simulator.place(start)
    steps = [simulator.step(actions[:, t]) for t in range(25)]
    assert steps[0].unstable.tolist() == [False, True, False] and float(steps[0].reward[1]) == 0
    seen = torch.stack([s.state for s in steps])
    assert torch.equal(seen[:, 0], calm[:, 0]) and torch.equal(seen[:, 2], calm[:, 2])


def test_imagination_stops_where_the_physics_blows_up(tmp_path):
    """MuJoCo would put the body back to its rest pose; a plan must not find peace there."""
    simulator = Simulator(HALF_CHEETAH, 2, model=exploding())
    simulator.reset(generator())
    imagined = simulator.imagine(random_actions(2, 3, 12, 6))
    assert imagined.abs().max() < 1e3 and (imagined[:, :, -1] == imagined[:, :, -2]).all()
    assert not list(tmp_path.glob("MUJOCO_LOG*"))


def test_actions_are_cut_to_their_bounds():
    simulator = Simulator(HALF_CHEETAH, 2)
    simulator.place(np.tile(np.concatenate((simulator.model.qpos0, np.zeros(9))), (2, 1)))
    step = simulator.step(torch.stack((torch.ones(6), 5 * torch.ones(6))))
    assert torch.equal(step.state[0], step.state[1]) and torch.equal(step.reward[0], step.reward[1])


def test_wrong_actions_are_refused():
    simulator = Simulator(HALF_CHEETAH, 2)
    simulator.reset(generator())
    with pytest.raises(ValueError, match=r"\(2, 5\), and HalfCheetah-v5 with 2 copies takes \(2, 6\)"):
        simulator.step(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="NaN or infinite"):
        simulator.step(torch.full((2, 6), float("nan")))


@pytest.mark.parametrize("task", ALL, ids=names)
def test_scores_are_d4rls(task):
    """100 (R - R_min) / (R_max - R_min) with the references of D4RL's infos.py, over 1000 steps."""
    low, high = {"HalfCheetah-v5": (-280.178953, 12135.0), "Hopper-v5": (-20.272305, 3234.3),
                 "Walker2d-v5": (1.629008, 4592.3)}[task.name]
    R = torch.tensor([low, high, 1000.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 100.0, 100 * (1000 - low) / (high - low)], dtype=torch.float64)
    torch.testing.assert_close(task.normalized(R, 1000), expected)
    torch.testing.assert_close(task.normalized(R / 5, 200), expected)  # the same reward a step


def test_only_bodies_that_can_fall_do():
    states = torch.zeros(3, 11)
    states[:, 0] = torch.tensor([1.2, 0.69, 1.2])
    states[:, 1] = torch.tensor([0.0, 0.0, 0.21])
    assert HOPPER.upright(states).tolist() == [True, False, False]
    assert HALF_CHEETAH.upright(torch.full((2, 17), -50.0)).all() and not HALF_CHEETAH.falls


def test_an_unknown_task_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no task 'Ant-v5'; choose one of HalfCheetah-v5, Hopper-v5, Walker2d-v5"):
        task_named("Ant-v5")
    assert all(task_named(name) is task for name, task in TASKS.items())
