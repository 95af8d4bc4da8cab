"""Sets of episodes: the same bytes for a recipe, however they are made; kept whole or not at all."""

import dataclasses
import json

import pytest
import torch

from minilab.core.weights import sha256_of
from minilab.lewm import collect as collecting
from minilab.lewm.collect import Recipe, collect, dataset_path, joined, rollout
from minilab.lewm.data import load_trajectories
from minilab.lewm.worlds import world_named

TINY = Recipe("rooms", episodes=23, steps=40, shard=10)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return folder, collect(TINY, folder=folder)


def test_an_episode_follows_its_actions_and_ends_without_one(made):
    _, data = made
    world = world_named("rooms")
    assert len(data) == 23 and len(data.states) == int(data.ep_len.sum())
    assert data.ep_len.max() == 41 and data.ep_len.min() < 41  # of unequal lengths: some reach their target
    for i in range(23):
        states, actions = data.episode(i)
        assert torch.equal(world.step(states[:-1], actions), states[1:]) and actions.abs().max() <= 1
        assert data.actions[data.ep_offset[i] + data.ep_len[i] - 1].isnan().all()
    assert int(data.actions.isnan().any(dim=1).sum()) == 23
    assert len({tuple(s) for s in data.states[data.ep_offset].tolist()}) == 23  # no start twice


def test_data_are_the_same_bytes_made_anew_by_more_processes(made, tmp_path):
    folder, _ = made
    collect(TINY, workers=2, folder=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in folder.iterdir())
    assert all((tmp_path / p.name).read_bytes() == p.read_bytes() for p in folder.iterdir())


def test_a_second_call_reads_what_the_first_kept(made, monkeypatch):
    folder, data = made
    monkeypatch.setattr(collecting, "rollout", None)
    again = collect(TINY, folder=folder)
    assert torch.equal(again.states, data.states) and again.world == "rooms"
    named = collect(dataclasses.replace(TINY, policy="noisy"), folder=folder)  # the default, by its name
    assert torch.equal(named.states, data.states)


def test_the_card_says_what_was_made_from_what(made):
    folder, data = made
    path = dataset_path(TINY, folder=folder)
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["sha256"] == sha256_of(path) and card["bytes"] == path.stat().st_size
    assert (card["world"], card["episodes"], card["rows"]) == ("rooms", 23, len(data.states))
    assert (card["state_dim"], card["action_dim"]) == (2, 2) and card["recipe"]["seed"] == 0
    assert card["what"] == "23 episodes of the world 'rooms', policy 'noisy'" and card["licence"].startswith("CC0")


def test_every_setting_and_version_has_its_own_file(monkeypatch):
    changes = [{}, {"seed": 1}, {"episodes": 24}, {"steps": 41}, {"shard": 11}, {"policy": "smooth"},
               {"world": "disc"}]
    paths = [dataset_path(dataclasses.replace(TINY, **change)) for change in changes]
    monkeypatch.setattr(collecting, "VERSION", 1000)
    paths.append(dataset_path(TINY))
    monkeypatch.undo()
    monkeypatch.setattr(type(world_named("rooms")), "version", "1000")
    paths.append(dataset_path(TINY))
    assert len(set(paths)) == len(changes) + 2


def test_an_interruption_leaves_nothing_half_written_and_the_next_call_goes_on(made, tmp_path, monkeypatch):
    _, data = made
    calls, path = [], dataset_path(TINY, folder=tmp_path)

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return rollout(*args)

    monkeypatch.setattr(collecting, "rollout", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(TINY, folder=tmp_path)
    kept = sorted(path.with_suffix("").glob("*.safetensors"))
    assert not path.exists() and [p.name for p in kept] == ["0.safetensors", "1.safetensors"]
    assert not list(tmp_path.rglob("*.tmp")) and len(load_trajectories(kept[0])) == 10
    again = collect(TINY, folder=tmp_path)
    assert len(calls) == 4 and torch.equal(again.states, data.states)  # one of three shards was left to do
    assert not path.with_suffix("").exists()


@pytest.mark.parametrize("damage", ["shortened", "no card"])
def test_a_damaged_set_is_made_anew(made, tmp_path, damage):
    _, data = made
    path = dataset_path(TINY, folder=tmp_path)
    collect(TINY, folder=tmp_path)
    if damage == "shortened":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        path.with_suffix(".json").unlink()
    assert torch.equal(collect(TINY, folder=tmp_path).states, data.states)
    assert torch.equal(load_trajectories(path).states, data.states)


def test_a_rollout_stops_counting_where_an_episode_is_done():
    """A policy that walks west and is done at x < 50: each copy counts its own steps."""

    class West:
        def act(self, state):
            return torch.tensor([[-1.0, 0.0]]).expand(len(state), 2)

        def done(self, state):
            return state[:, 0] < 50

    start = torch.tensor([[52.0, 120.0], [59.0, 120.0], [90.0, 120.0]])
    states, actions, lengths = rollout(world_named("rooms"), West(), start, 100)
    assert lengths.tolist() == [1, 2, 9] and states.shape == (3, 10, 2) and actions.shape == (3, 9, 2)
    assert rollout(world_named("rooms"), West(), start, 5)[2].tolist() == [1, 2, 5]


def test_sets_are_joined_end_to_end(made):
    _, data = made
    both = joined([data, data])
    assert len(both) == 46 and torch.equal(both.episode(30)[0], data.episode(7)[0])


def test_recipes_that_make_nothing_are_refused(tmp_path):
    for change, message in (({"world": "moon"}, "no world 'moon'; choose one of rooms, disc"),
                            ({"policy": "expert"}, "no policy 'expert'; choose one of noisy, crossing, smooth, random"),
                            ({"episodes": 0}, "at least 1"), ({"shard": 0}, "at least 1")):
        with pytest.raises(ValueError, match=message):
            collect(dataclasses.replace(TINY, **change), folder=tmp_path)
    assert not list(tmp_path.iterdir())
