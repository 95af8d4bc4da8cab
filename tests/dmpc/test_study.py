"""What the experiments compute out of episodes: intervals, crossings, what was granted, operations."""

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
from dmpc.linear_system import linear_episodes
from scipy.stats import norm

from minilab.core.train import TrainLog
from minilab.dmpc import experiments_speed, study
from minilab.dmpc.data import Episodes
from minilab.dmpc.envs import HALF_CHEETAH, HOPPER, WALKER
from minilab.dmpc.experiments_change import Wish, _recovered, achieved, granted, wishes
from minilab.dmpc.experiments_model import crossing, under
from minilab.dmpc.experiments_speed import plan_flops, sizes, training_rates
from minilab.dmpc.learn import papers, small
from minilab.dmpc.rewards import track_speed
from minilab.dmpc.rollout import Run


def test_interval_of_one_seed_is_the_classical_one():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(400, generator=generator).tolist()
    found = study.interval([values])
    mean, spread = torch.tensor(values).mean(), torch.tensor(values).std() / 20
    assert math.isclose(found["mean"], mean, rel_tol=1e-5)
    for end, p in (("low", 0.025), ("high", 0.975)):
        assert abs(found[end] - (mean + norm.ppf(p) * spread)) < 0.15 * spread


def test_interval_widens_when_seeds_disagree():
    together, apart = study.interval([[0.0, 1.0]] * 4), study.interval([[0.0, 1.0], [5.0, 6.0], [0.0, 1.0], [5.0, 6.0]])
    assert apart["high"] - apart["low"] > 3 * (together["high"] - together["low"])
    assert apart["mean"] == 3.0


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """Two-level data: three seeds are few, so the bootstrap covers less than 95 %, and with twelve nearly so."""
    generator, covered = torch.Generator().manual_seed(1), {3: 0, 12: 0}
    for seeds in covered:
        for i in range(150):
            centers = torch.randn(seeds, 1, generator=generator)
            groups = (centers + torch.randn(seeds, 10, generator=generator)).tolist()
            found = study.interval(groups, draws=200, seed=i)
            covered[seeds] += found["low"] <= 0 <= found["high"]
    assert covered[12] / 150 > 0.85 and covered[3] / 150 > 0.6 and covered[12] > covered[3]


def test_crossing_is_the_first_step_from_which_multi_stays_ahead():
    multi = torch.full((6,), 2.0)
    assert crossing(torch.tensor([1.0, 1, 3, 1, 3, 4]), multi) == 5
    assert crossing(torch.tensor([3.0] * 6), multi) == 1
    assert crossing(torch.tensor([3.0] * 5 + [1.0]), multi) is None


def test_hiding_the_speeds_of_the_joints_leaves_the_torsos():
    hidden = under("hidden", study.Setting(small()))
    assert hidden.recipe.proposal.hidden == hidden.recipe.dynamics.hidden == tuple(range(11, 17))
    assert under("noisy", study.Setting(small())).sensor_noise > 0
    with pytest.raises(ValueError, match="clear, noisy or hidden"):
        under("dark", study.Setting(small()))


def test_what_a_trained_network_is_kept_under_tells_apart_all_that_it_depends_on():
    base = study.Setting(small())
    keys = [study.place(study.key(setting, seed)) for setting, seed in (
        (base, 0), (base, 1), (study.Setting(small(width=128)), 0), (study.Setting(small(), tier="medium"), 0),
        (study.Setting(small(), size="full"), 0), (study.Setting(small(), sensor_noise=0.1), 0))]
    assert len(set(keys)) == len(keys)
    assert study.place(study.key(study.Setting(small(), n=7, steps=3), 0)) == keys[0]  # how it is run is another matter


def run_at_speed(speed: float, steps: int = 10, fell_after: int | None = None) -> Run:
    states = torch.zeros(2, steps + 1, 17)
    states[..., 8] = speed
    lengths = torch.tensor([steps, fell_after or steps])
    fell = torch.tensor([False, fell_after is not None])
    actions, rewards = torch.zeros(2, steps, 6), torch.zeros(2, steps)
    return Run(Episodes("HalfCheetah-v5", states, actions, rewards, lengths, fell, ("", "")), 0, 0.0)


def test_a_wish_is_measured_where_the_episode_lasted():
    wish = Wish(track_speed(1.0), lambda s: s[..., 8], 1.0, "m/s")
    run = run_at_speed(0.4, fell_after=5)
    torch.testing.assert_close(achieved(run, wish), torch.tensor([0.4, 0.4]))
    torch.testing.assert_close(granted(run, wish), torch.tensor([0.4, 0.2]))  # half of the steps earned nothing


def test_each_wish_is_best_at_its_own_target():
    for task in (HALF_CHEETAH, WALKER):
        for name, wish in wishes(task).items():
            if wish.target is None:
                continue
            states = torch.zeros(5, task.state_dim)
            column = {"speed": 8, "pitch": 1, "height": 0}[name.split()[0]]
            states[:, column] = wish.target + torch.tensor([-1.0, -0.3, 0.0, 0.3, 1.0])
            assert int(wish.reward(states, torch.zeros(5, 6), states).argmax()) == 2
            torch.testing.assert_close(wish.measure(states)[2], torch.tensor(wish.target))


def test_recovery_is_the_share_of_what_the_true_dynamics_would_win():
    rows = {"D-MPC before": [[10.0, 20.0]], "dynamics adapted": [[20.0, 30.0]], "the true dynamics": [[30.0, 40.0]]}
    assert _recovered(rows) == 0.5
    assert _recovered({**rows, "the true dynamics": [[5.0, 5.0]]}) is None


def test_windows_a_second_are_those_of_updates_alone(monkeypatch):
    """7 s of set-up, then 0.5 s an update of 256 windows."""
    monkeypatch.setattr(experiments_speed, "fit", lambda *given, steps, **options: TrainLog(wall_s=7 + 0.5 * steps))
    found = training_rates(small(width=16, layers=1), HOPPER, torch.device("cpu"), updates=3)
    assert found == {"proposal": 512.0, "dynamics": 512.0}


def test_a_plans_operations_are_two_for_each_weight_and_call_and_token():
    """All weights of the residual network meet each block once; those of a transformer's blocks meet each token."""
    recipe, n = small(16, width=64), 4
    size = sizes(recipe, HOPPER)
    once = 2 * n * (10 * size["proposal"] + 5 * size["dynamics"])
    assert 0.9 * once < plan_flops(recipe, HOPPER, n) < once  # less the biases and norms, which multiply nothing
    big = papers(8)
    size = sizes(big, HOPPER)
    tokens = 2 * n * 8 * (32 * size["proposal"] + 10 * size["dynamics"])
    assert 0.7 * tokens < plan_flops(big, HOPPER, n) < tokens  # less what steers a block, once a sample
    assert plan_flops(recipe, HOPPER, 2 * n) == 2 * plan_flops(recipe, HOPPER, n)


def test_noisy_sensors_reach_the_controller_and_not_the_world():
    class Watcher:
        def start(self, copies):
            self.seen = []

        def act(self, state):
            self.seen.append(state)
            return torch.zeros(len(state), 2)

    watcher = Watcher()
    blurred = study.Blurred(watcher, torch.tensor([0.0, 2.0]), torch.Generator().manual_seed(0))
    blurred.start(2000)
    blurred.act(torch.ones(2000, 2))
    assert (watcher.seen[0][:, 0] == 1).all() and abs(float(watcher.seen[0][:, 1].std()) - 2) < 0.1


def test_statistics_of_the_behavior():
    episodes = linear_episodes(10, 20)
    found = study.statistics(episodes)
    assert math.isclose(found["mean"], float(episodes.returns.mean()), rel_tol=1e-6)
    assert found["episodes"] == 10 and found["transitions"] == 200 and found["best"] >= found["p90"] >= found["mean"]


def test_benchmark_agrees_with_its_peers_and_records_every_ratio(tmp_path):
    path = Path(__file__).parents[2] / "benchmarks/dmpc.py"
    spec = importlib.util.spec_from_file_location("benchmark_dmpc", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(["--repeats", "1", "--copies", "2", "--records", str(tmp_path)])
    found = json.loads((tmp_path / "dmpc/benchmark.cpu.json").read_text())["results"]["ratios"]
    assert found.keys() == script.RATIOS.keys() and all(ratio["median"] > 0 for ratio in found.values())
