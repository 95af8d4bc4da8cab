"""Minari sets, read and written, with Minari itself as the reference."""

import sys

import gymnasium
import numpy as np
import pytest
import torch

from minilab.dmpc.data import Windows
from minilab.dmpc.envs import HOPPER, Simulator, task_named
from minilab.dmpc.minari import read_minari, write_minari
from minilab.dmpc.rollout import rollout

minari = pytest.importorskip("minari")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")
EpisodeBuffer = pytest.importorskip("minari.data_collector.episode_buffer").EpisodeBuffer


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def collect_with_minari(name, environment, episodes=3, **options):
    """What a user of Gymnasium and Minari does, without a line of ours; return what was seen."""
    env = gymnasium.make(environment, **options)
    env.action_space.seed(0)
    buffers = []
    for i in range(episodes):
        seen, did, earned, ended, cut = [env.reset(seed=i)[0]], [], [], [False], [False]
        while not (ended[-1] or cut[-1]):
            did.append(env.action_space.sample())
            observation, reward, terminated, truncated, _ = env.step(did[-1])
            seen.append(observation)
            earned.append(reward)
            ended.append(terminated)
            cut.append(truncated)
        buffers.append(EpisodeBuffer(id=i, observations=np.array(seen), actions=np.array(did), rewards=np.array(earned),
                                     terminations=np.array(ended[1:]), truncations=np.array(cut[1:])))
    minari.create_dataset_from_buffers(name, buffers, env=env, algorithm_name="random")
    env.close()
    return [b.observations for b in buffers]


class Still:
    def start(self, copies):
        pass

    def act(self, state):
        return torch.zeros(len(state), 3)


def test_a_set_that_minari_collected_is_read_with_its_falls_and_its_frame_skip():
    seen = collect_with_minari("hopper/test-v0", "Hopper-v5")
    task, episodes = read_minari("hopper/test-v0")
    assert task.name == "Hopper-v5@4" and task.frame_skip == 4 and task.dt == pytest.approx(0.008)
    assert episodes.lengths.tolist() == [len(s) - 1 for s in seen] and episodes.fell.all()
    for i, s in enumerate(seen):
        torch.testing.assert_close(episodes.states[i, : len(s)], torch.from_numpy(s).float())
        assert (episodes.states[i, len(s) :] == episodes.states[i, len(s) - 1]).all()
        assert (episodes.actions[i, len(s) - 1 :] == 0).all()
    assert len(Windows(episodes, 8))


def test_our_simulator_goes_where_the_recorded_actions_went():
    """The frame skip that was read is the one that was recorded: positions follow, step by step."""
    collect_with_minari("hopper/test-v0", "Hopper-v5", episodes=1)
    task, episodes = read_minari("hopper/test-v0")
    simulator = Simulator(task, 1)
    simulator.place(np.concatenate(([0.0], episodes.states[0, 0].double().numpy()))[None])
    for t in range(8):
        step = simulator.step(episodes.actions[:, t])
        torch.testing.assert_close(step.state[0], episodes.states[0, t + 1], atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(step.reward[0], episodes.rewards[0, t], atol=2e-4, rtol=1e-4)


def test_ours_comes_back_from_minari_as_it_was_and_minari_can_remake_its_environment():
    episodes = rollout(Still(), Simulator(HOPPER, 4), 40, torch.Generator().manual_seed(0)).episodes
    write_minari(episodes, "minilab/hopper/still-v0")
    dataset = minari.load_dataset("minilab/hopper/still-v0")
    assert dataset.total_steps == episodes.transitions and dataset.recover_environment().unwrapped.frame_skip == 16
    task, back = read_minari("minilab/hopper/still-v0")
    assert task == HOPPER and back.fell.tolist() == episodes.fell.tolist()
    assert gymnasium.make("Hopper-v5").unwrapped.frame_skip == 4  # Gymnasium's own registry is as it was
    T = back.actions.shape[1]
    for part in ("actions", "rewards"):
        torch.testing.assert_close(getattr(back, part), getattr(episodes, part)[:, :T])
    torch.testing.assert_close(back.states, episodes.states[:, : T + 1])
    assert len(read_minari("minilab/hopper/still-v0", most=2)[1]) == 2


def test_a_set_of_another_environment_is_refused_by_name():
    collect_with_minari("pendulum/test-v0", "Pendulum-v1", episodes=1)
    with pytest.raises(ValueError, match="Pendulum-v1; minilab has HalfCheetah-v5"):
        read_minari("pendulum/test-v0")


def test_a_set_with_other_observations_is_refused():
    collect_with_minari("hopper/whole-v0", "Hopper-v5", episodes=1, exclude_current_positions_from_observation=False)
    with pytest.raises(ValueError, match="12 numbers a state and 3 an action; Hopper-v5@4 has 11 and 3"):
        read_minari("hopper/whole-v0")


def test_an_absent_set_and_an_absent_library_say_what_to_do(monkeypatch):
    with pytest.raises(FileNotFoundError, match="minari download mujoco/hopper/medium-v0.*minilab makes its own"):
        read_minari("mujoco/hopper/medium-v0")
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ImportError, match=r"pip install 'minilab\[minari\]'"):
        read_minari("mujoco/hopper/medium-v0")


def test_a_name_with_a_frame_skip_is_a_task():
    assert task_named("Hopper-v5@16") == HOPPER and task_named("Hopper-v5@4").environment == "Hopper-v5"
    for wrong in ("Hopper-v5@", "Hopper-v5@0", "Hopper-v5@x", "Ant-v5"):
        with pytest.raises(ValueError, match="choose one of HalfCheetah-v5"):
            task_named(wrong)
