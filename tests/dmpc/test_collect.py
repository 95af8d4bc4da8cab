"""The tiers of data: the same for a seed, however they are made; kept whole or not at all."""

import dataclasses
import json

import pytest
import torch

from minilab.core.files import package_data
from minilab.dmpc import collect as collecting
from minilab.dmpc.collect import (
    CPU,
    SEARCHES,
    SIZES,
    TIERS,
    Sizes,
    collect,
    dataset_path,
    ladder,
    main_ladder,
    middle,
    skills,
)
from minilab.dmpc.data import load_episodes
from minilab.dmpc.envs import HALF_CHEETAH, HOPPER, TASKS, WALKER, Simulator
from minilab.dmpc.experiments_data import DATA, DataPreset, described, steps_per_second
from minilab.dmpc.oracle import OracleConfig
from minilab.dmpc.policies import WALKER_MIRROR, Linear, Search, stacked, two_legged
from minilab.dmpc.rollout import rollout
from minilab.dmpc.ship_data import ASSET, shipped_episodes

TINY = Sizes(episodes=10, steps=12, shard=4, oracle=OracleConfig(samples=4, F=4, iterations=1),
             search=Search(iterations=6, directions=4, top=2, steps=15),
             other=Search(iterations=4, directions=2, top=1, steps=10))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every tier, made once."""
    folder = tmp_path_factory.mktemp("tiers")
    return folder, {tier: collect(HALF_CHEETAH, tier, TINY, folder=folder) for tier in TIERS}


def test_each_tier_is_acted_by_whom_it_says(made):
    _, tiers = made
    who = {tier: [s.split()[0] for s in episodes.source] for tier, episodes in tiers.items()}
    assert who["mixed"] == ["ladder"] * 10 and {"ladder 0", "ladder 5"} <= set(tiers["mixed"].source)
    assert len(set(tiers["medium"].source)) == 1 and who["medium"] == ["ladder"] * 10
    assert who["expert-mix"] == ["ladder"] * 5 + ["oracle"] * 5
    assert who["diverse"].count("ladder") == 6 and len(set(who["diverse"])) == 5  # four of six skills, of ten episodes
    for episodes in tiers.values():
        assert episodes.task == "HalfCheetah-v5" and episodes.transitions == 120 and episodes.actions.abs().max() <= 1
        assert len({tuple(s) for s in episodes.states[:, 0].tolist()}) == 10  # no start and no noise twice


def test_two_fifths_of_a_larger_diverse_set_are_shared_by_all_skills():
    names = list(skills(HALF_CHEETAH))
    shares = [40 * (i + 1) // len(names) - 40 * i // len(names) for i in range(len(names))]
    assert sum(shares) == 40 and max(shares) - min(shares) <= 1


def test_a_second_call_reads_what_the_first_kept(made, monkeypatch):
    folder, tiers = made
    monkeypatch.setattr(collecting, "rollout", None)
    again = collect(HALF_CHEETAH, "mixed", TINY, folder=folder)
    assert torch.equal(again.states, tiers["mixed"].states) and again.source == tiers["mixed"].source


def test_data_are_the_same_made_anew_and_by_more_processes(made, tmp_path):
    folder, tiers = made
    for workers in (1, 2):
        anew = collect(HALF_CHEETAH, "mixed", TINY, workers=workers, folder=tmp_path / str(workers))
        for part in ("states", "actions", "rewards"):
            assert torch.equal(getattr(anew, part), getattr(tiers["mixed"], part))
        name = dataset_path(HALF_CHEETAH, "mixed", TINY).name
        assert (tmp_path / str(workers) / name).read_bytes() == (folder / name).read_bytes()


def test_every_setting_has_its_own_file():
    changes = [{"seed": 1}, {"noise": 0.2}, {"episodes": 11}, {"search": Search(seed=1)}, {"oracle": OracleConfig(F=5)}]
    paths = [dataset_path(HALF_CHEETAH, "mixed", dataclasses.replace(TINY, **change)) for change in changes]
    paths += [dataset_path(task, tier, TINY) for task in (HALF_CHEETAH, HOPPER) for tier in TIERS]
    assert len(set(paths)) == len(paths)
    with pytest.raises(ValueError, match="no tier 'expert'; choose one of medium, mixed, expert-mix, diverse"):
        dataset_path(HALF_CHEETAH, "expert", TINY)


def test_another_seed_makes_other_episodes_of_the_same_policies(made, tmp_path):
    folder, tiers = made
    other = collect(HALF_CHEETAH, "medium", dataclasses.replace(TINY, seed=1), folder=folder)
    assert not torch.equal(other.states[:, 0], tiers["medium"].states[:, 0]) and other.source == tiers["medium"].source


def test_an_interruption_leaves_nothing_half_written_and_the_next_call_goes_on(made, tmp_path, monkeypatch):
    _, tiers = made
    calls, path = [], dataset_path(HALF_CHEETAH, "medium", TINY, folder=tmp_path)

    def interrupted(*args, **options):
        calls.append(options)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rollout(*args, **options)

    monkeypatch.setattr(collecting, "rollout", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(HALF_CHEETAH, "medium", TINY, folder=tmp_path)
    assert not path.exists() and not list(tmp_path.rglob("*.tmp"))
    kept = list(path.with_suffix("").glob("*.safetensors"))
    assert [p.name for p in kept] == ["0.safetensors"] and len(load_episodes(kept[0])) == 4
    episodes = collect(HALF_CHEETAH, "medium", TINY, folder=tmp_path)
    assert len(calls) == 4  # two of three shards were left to do
    assert torch.equal(episodes.states, tiers["medium"].states)
    assert path.exists() and not path.with_suffix("").exists()


def test_a_damaged_file_of_the_cache_is_made_again(made):
    folder, tiers = made
    path = dataset_path(HALF_CHEETAH, "medium", TINY, folder=folder)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    assert torch.equal(collect(HALF_CHEETAH, "medium", TINY, folder=folder).states, tiers["medium"].states)
    assert path.read_bytes() == whole
    found = next(p for p in folder.glob("*ladder*.safetensors"))
    kept = ladder(HALF_CHEETAH, TINY.search, folder=folder)
    found.write_bytes(b"")
    again = ladder(HALF_CHEETAH, TINY.search, folder=folder)
    assert all(torch.equal(p.weights, q.weights) and r == s for (p, r), (q, s) in zip(kept, again, strict=True))


def test_the_middle_is_the_first_step_half_the_way_up():
    returns = [-10.0, 0.0, 39.0, 41.0, 30.0, 90.0, 80.0]
    policy = Linear(torch.zeros(6, 17), torch.zeros(17), torch.ones(17))
    assert middle([(policy, r) for r in returns]) == 3
    assert middle([(policy, 1.0)]) == 0


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_task_has_a_search_and_skills_that_reward_what_they_name(task):
    assert task.name in SEARCHES
    state = torch.zeros(4, task.state_dim)
    state[:, 0] = 1.25 if task.falls else 0.0
    up, fast, back = state.clone(), state.clone(), state.clone()
    P = (task.state_dim - 1) // 2
    up[:, 0], up[:, P + 1] = up[:, 0] + 0.2, 2.0
    fast[:, P], back[:, P] = 1.0, -1.0
    action = torch.zeros(4, task.action_dim)
    rewards = {name: lambda s, r=skill.reward: r(s, action, s)[0].item() for name, skill in skills(task).items()}
    assert rewards["backward"](back) > rewards["backward"](state) > rewards["backward"](fast)
    assert rewards["hop"](up) > rewards["hop"](state) and rewards["height"](up) > rewards["height"](state)
    assert rewards["brisk"](fast) > rewards["brisk"](state)
    tired = skills(task)["backward"].reward(back, action + 1, back)
    assert tired[0] < rewards["backward"](back)  # effort costs in either direction


def test_what_a_skill_finds_is_what_it_asked_for(tmp_path):
    """A short search for a pitch of half a radian ends nearer to it than it began."""
    search = Search(iterations=24, directions=8, top=4, steps=50)
    (first, _), *_, (last, _) = ladder(HALF_CHEETAH, search, skill="pitch", folder=tmp_path)
    simulator, generator = Simulator(HALF_CHEETAH, 2), torch.Generator().manual_seed(0)
    pitch = rollout(stacked([first, last]), simulator, 50, generator).episodes.states[:, 15:, 1]
    before, after = (pitch - 0.5).abs().mean(dim=1)
    assert after < 0.85 * before


def test_bodies_that_fall_make_episodes_that_end(tmp_path):
    episodes = collect(HOPPER, "mixed", dataclasses.replace(TINY, steps=40), folder=tmp_path)
    assert episodes.fell.any() and (episodes.lengths[episodes.fell] < 40).all()
    facts = described(episodes, HOPPER)
    assert facts["falls"] == episodes.fell.float().mean() and facts["transitions"] == int(episodes.lengths.sum())


def test_the_record_says_what_a_set_holds(made):
    _, tiers = made
    facts = described(tiers["mixed"], HALF_CHEETAH)
    returns = tiers["mixed"].rewards.sum(dim=1)
    assert facts["best_return"] == pytest.approx(float(returns.max())) and facts["steps"] == 12
    assert facts["mean_d4rl"] == pytest.approx(
        100 * (float(returns.mean()) * 1000 / 12 + 280.178953) / (12135.0 + 280.178953), rel=1e-4)
    assert set(DATA) == {"cpu", "gpu"} and DATA["gpu"].size in SIZES


def test_speed_is_measured_on_one_thread_and_on_all():
    rates = steps_per_second(HALF_CHEETAH, DataPreset("test", copies=4, repeats=2))
    assert set(rates) == {"stepped", "rolled_out"}
    for by_threads in rates.values():
        assert "1" in by_threads and all(r["median"] > 100 for r in by_threads.values())


def test_the_shipped_set_is_small_and_holds_every_skill():
    """The chapter's live part learns from it; how it was made is on its card."""
    path, episodes = package_data("assets") / ASSET, shipped_episodes()
    card = path.with_suffix(".json")
    assert path.stat().st_size + card.stat().st_size < 0.9 * 2**20
    assert {"ladder", *skills(HALF_CHEETAH)} == {s.split()[0] for s in episodes.source}
    assert json.loads(card.read_text())["how_made"] == "python -m minilab.dmpc.ship_data"
    assert 18_000 <= episodes.transitions and abs(episodes.returns.mean() - 280) < 80


def test_walker_and_hopper_search_otherwise_than_a_body_that_cannot_fall():
    assert CPU.search is None and SEARCHES[WALKER.name] != SEARCHES[HALF_CHEETAH.name]


def test_a_skill_of_a_body_with_two_legs_treats_both_alike_and_keeps_the_gait_it_starts_from(tmp_path):
    policy = Linear(torch.zeros(6, 17), torch.zeros(17), torch.ones(17))
    job = collecting._Search(WALKER, TINY.other, "slow", policy, tmp_path)
    last, _ = collecting._search(job)[-1]
    torch.testing.assert_close(WALKER_MIRROR.weights(last.weights), last.weights)
    assert torch.equal(last.std, policy.std) and last.weights.abs().max() > 0


def test_walker_goes_on_from_hopper_in_two_searches(tmp_path, monkeypatch):
    short = Search(iterations=3, directions=2, top=1, steps=10, alive=0.1)
    monkeypatch.setattr(collecting, "SEARCHES", {HOPPER.name: short, WALKER.name: short})
    monkeypatch.setattr(collecting, "STEADY", dataclasses.replace(short, iterations=2))
    monkeypatch.setattr(collecting, "HOPPER_STEP", 1)
    found = collecting.main_ladder(WALKER, folder=tmp_path)
    hopper = collecting.main_ladder(HOPPER, folder=tmp_path)
    assert len(found) == 5 and torch.equal(found[0][0].weights, two_legged(hopper[1][0]).weights)
    assert torch.equal(found[3][0].weights, found[2][0].weights)  # the second search starts where the first ended
    again = collecting.main_ladder(WALKER, folder=tmp_path)
    assert [r for _, r in again] == [r for _, r in found] and len(list(tmp_path.glob("Walker2d*.safetensors"))) == 2


@pytest.mark.parametrize("task", [HOPPER, WALKER], ids=lambda task: task.name)
def test_the_ladders_that_take_minutes_ship_and_end_on_their_feet(task, tmp_path):
    found = main_ladder(task, folder=tmp_path)
    assert not list(tmp_path.iterdir())  # nothing was searched: the files' names hold the settings of the search
    run = rollout(found[-1][0], Simulator(task, 8), 100, torch.Generator().manual_seed(0))
    assert not run.episodes.fell.any() and run.returns.mean() > 150  # 1 a step is for standing
