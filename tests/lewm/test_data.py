"""Clips of trajectories: frames, blocks and states that belong together, and splits that share no episode."""

import json
import warnings

import pytest
import torch

from minilab.core.weights import save_weights
from minilab.lewm.collect import Recipe, collect
from minilab.lewm.data import Clips, Scale, Trajectories, load_trajectories, save_trajectories
from minilab.lewm.study import Ground, rooms
from minilab.lewm.worlds import world_named
from minilab.lewm.worlds.base import distances

T, SKIP = 4, 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=["rooms", "disc", "pusht"])
def data(request, tmp_path_factory):
    """60 episodes of each world; of Push-T those that a script pushes, since its expert takes its time."""
    recipe = Recipe(request.param, episodes=60, steps=60, policy="push" if request.param == "pusht" else "")
    return collect(recipe, folder=tmp_path_factory.mktemp("data"))


@pytest.fixture
def numbered():
    """Episodes of 18, 3, 16 and 40 rows; states and actions say the episode and the row: 100 * episode + row."""
    ep_len = torch.tensor([18, 3, 16, 40])
    states = torch.cat([100.0 * e + torch.arange(n) for e, n in enumerate(ep_len.tolist())])
    actions = states.clone()
    actions[ep_len.cumsum(0) - 1] = float("nan")
    both = states[:, None].repeat(1, 2), actions[:, None].repeat(1, 2)
    return Trajectories("rooms", *both, ep_len, ep_len.cumsum(0) - ep_len)


UNSCALED = Scale(torch.zeros(2), torch.ones(2))


def test_an_image_of_a_clip_is_an_episode_of_the_same_world(data):
    """From an mirrored state the mirrored actions lead to the next mirrored state, and the picture is of it."""
    if data.world == "rooms":  # two rooms and a door: turned they are another world
        with pytest.raises(ValueError, match="turned and mirrored"):
            Clips(data, size=8, mirrored=True)
        return
    clips, world = Clips(data, frames=3, size=32, mirrored=True), world_named(data.world)
    plain = Clips(data, frames=3, size=32)
    found, recorded = clips.draw(300, generator()), plain.draw(300, generator())
    assert torch.equal(found.start, recorded.start) and torch.equal(found.episode, recorded.episode)
    state, actions = found.states[:, 0], clips.scale.actions(found.actions)
    for t in range(2):
        for action in actions[:, t].unbind(dim=1):
            state = world.step(state, action)
        # Two contacts at once are solved to MuJoCo's tolerance, which does not turn with the world.
        off = distances(world, state, found.states[:, t + 1])
        assert all(part.quantile(0.95) < 0.01 for part in off.values())
        state = found.states[:, t + 1]
    assert torch.equal(found.frames[:, 1], world.render(found.states[:, 1], 32))
    same = (found.states - recorded.states).abs().amax(dim=(1, 2)) < 1e-3
    assert 0.06 < same.float().mean() < 0.2  # an eighth are as they were recorded
    with pytest.raises(ValueError, match="turned and mirrored"):
        Clips(data.drawn(32), size=32, mirrored=True)


def test_every_window_lies_within_one_episode_and_every_one_is_there(numbered):
    clips = Clips(numbered, size=8, scale=UNSCALED)
    clip = clips.take(torch.arange(len(clips)))
    found = list(zip(clip.episode.tolist(), clip.start.tolist(), strict=True))
    assert found == [(0, 0), (0, 1), (0, 2), (2, 0)] + [(3, t) for t in range(25)]
    assert clips.skipped == 1  # the episode of 3 rows
    for (e, t), states in zip(found, clip.states, strict=True):
        assert states[:, 0].tolist() == [100 * e + t + SKIP * i for i in range(T)]


def test_leaving_out_much_of_a_set_is_said_and_leaving_out_a_little_is_not(numbered):
    with pytest.warns(UserWarning, match="3 of 4 episodes, with 48% of the rows, are shorter than the 21 rows that 5 "):
        Clips(numbered, frames=5, size=8, scale=UNSCALED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Clips(numbered, size=8, scale=UNSCALED)  # 3 rows of 77


def test_goals_far_ahead_lie_in_the_few_long_episodes_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path))
    ground = Ground(rooms(episodes=60, ahead=100), "cpu")
    with pytest.warns(UserWarning, match="left out"):
        Clips(ground.unseen, frames=2, skip=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ground.tasks(5)[0].shape == (5, 2)


def test_a_block_holds_the_actions_that_leave_its_frame_as_far_as_the_episode_goes(numbered):
    clips = Clips(numbered, size=8, scale=UNSCALED)
    clip = clips.take(torch.arange(len(clips)))
    assert clip.actions.shape == (len(clips), T, SKIP * 2)
    for e, t, blocks in zip(clip.episode.tolist(), clip.start.tolist(), clip.actions, strict=True):
        n = int(numbered.ep_len[e])
        for i in range(T):
            steps = [t + SKIP * i + j for j in range(SKIP)]
            assert blocks[i].tolist() == [100.0 * e + s if s < n - 1 else 0.0 for s in steps for _ in range(2)]
    full = clip.actions[(clip.start + SKIP * T <= numbered.ep_len[clip.episode] - 1)]
    assert len(full) == 20 and (full[:, :, 1:] != 0).all()  # the last block is whole where the episode goes on


def test_raw_actions_of_a_clip_lead_from_its_first_state_to_all_others(data):
    """Bit by bit: the physics is a function of the state alone."""
    world, clips = world_named(data.world), Clips(data, size=8)
    clip = clips.draw(200, generator())
    rows = data.ep_offset[clip.episode] + clip.start
    state = clip.states[:, 0]
    for i in range(T):
        assert torch.equal(state, clip.states[:, i])
        for j in range(SKIP * (i < T - 1)):
            state = world.step(state, data.actions[rows + SKIP * i + j])


def test_scaled_blocks_come_back_as_the_raw_actions_and_lead_nearly_there(data):
    world, clips = world_named(data.world), Clips(data, size=8)
    clip = clips.draw(200, generator())
    raw = clips.scale.actions(clip.actions[:, :-1])  # B T-1 k A
    rows = data.ep_offset[clip.episode] + clip.start
    torch.testing.assert_close(raw.flatten(1, 2), data.actions[rows[:, None] + torch.arange(SKIP * (T - 1))],
                               atol=1e-5, rtol=0)
    state = clip.states[:, 0]
    for action in raw.flatten(1, 2).unbind(dim=1):
        state = world.step(state, action)
    assert (state - clip.states[:, -1]).abs().amax(dim=1).median() < 1e-3


def test_actions_are_scaled_to_mean_0_and_spread_1_by_column_and_what_is_missing_is_0():
    ep_len = torch.full((50,), 21)
    actions = torch.randn(50 * 21, 2, generator=generator()) * torch.tensor([3.0, 0.1]) + torch.tensor([5.0, -1.0])
    actions[20::21] = float("nan")
    data = Trajectories("rooms", torch.zeros(50 * 21, 2), actions, ep_len, ep_len.cumsum(0) - ep_len)
    torch.testing.assert_close(data.scale.mean, torch.tensor([5.0, -1.0]), atol=0.3, rtol=0)
    torch.testing.assert_close(data.scale.std, torch.tensor([3.0, 0.1]), rtol=0.1, atol=0)
    clips = Clips(data, frames=1, skip=20, size=8)
    blocks = clips.take(torch.arange(len(clips)))
    first = blocks.actions[blocks.start == 0].view(-1, 2)  # every action once
    torch.testing.assert_close(first.mean(dim=0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(first.std(dim=0), torch.ones(2), atol=1e-3, rtol=0)
    assert (blocks.actions[blocks.start == 20] == 0).all() and blocks.actions.isfinite().all()


def test_held_out_episodes_are_scaled_by_what_was_trained_on(data):
    train, held = data.split(0.2, generator())
    assert not torch.equal(train.scale.mean, held.scale.mean)
    clips = Clips(held, size=8, scale=train.scale)
    assert clips.scale is train.scale


def test_a_split_shares_no_episode_and_loses_none(data):
    train, held = data.split(0.1, generator())
    a, b = set(train.ep_offset.tolist()), set(held.ep_offset.tolist())
    assert not a & b and a | b == set(data.ep_offset.tolist()) and len(held) == 6
    assert not set(train.rows.tolist()) & set(held.rows.tolist())
    assert len(train.rows) + len(held.rows) == len(data.states)
    again = data.split(0.1, generator())[1]
    assert torch.equal(again.ep_offset, held.ep_offset)
    with pytest.raises(ValueError, match="leave nothing to learn from"):
        data.subset([0]).split(0.1, generator())


def test_a_subset_shows_its_own_episodes_only(data):
    some = data.subset([7, 3, 41])
    clip = Clips(some, size=8).draw(300, generator())
    for i, e in enumerate((7, 3, 41)):
        states = data.episode(e)[0]
        assert torch.equal(some.episode(i)[0], states)
        mine = clip.states[clip.episode == i]
        rows = clip.start[clip.episode == i, None] + SKIP * torch.arange(T)
        assert torch.equal(mine, states[rows])


def test_draws_are_even_and_repeat_for_a_seed(numbered):
    clips = Clips(numbered, size=8, scale=UNSCALED)
    a, b = clips.draw(2900, generator(3)), clips.draw(2900, generator(3))
    assert torch.equal(a.frames, b.frames) and torch.equal(a.actions, b.actions)
    counts = torch.bincount(1000 * a.episode + a.start)
    counts = counts[counts > 0]
    assert len(counts) == len(clips) and counts.max() < 1.4 * 100 and counts.min() > 0.6 * 100


def test_frames_are_the_worlds_pictures_of_the_states(data):
    clips = Clips(data, size=32)
    clip = clips.draw(9, generator())
    assert clip.frames.shape == (9, T, 3, 32, 32) and clip.frames.dtype == torch.uint8
    world = world_named(data.world)
    assert torch.equal(clip.frames[:, 2], world.render(clip.states[:, 2].contiguous(), 32))
    assert torch.equal(clips.frames(clip.states), clip.frames)
    assert clips.frames(clip.states[:, 0]).shape == (9, 3, 32, 32)
    assert Clips(data, size=None).draw(1, generator()).frames.shape[-1] == world.frame


@pytest.mark.parametrize("name", ["rooms", "disc"])
def test_a_world_steps_and_draws_where_its_states_are(name):
    """On the device "meta", which like a GPU takes no tensor of the processor's."""
    world, place = world_named(name), {"device": "meta"}
    state = torch.empty(6, world.state_dim, **place)
    after = world.step(state, torch.empty(6, world.action_dim, **place))
    frames, done = world.render(after, 32, color=torch.empty(6, 3, **place)), world.success(state, after)
    assert after.is_meta and frames.is_meta and done.is_meta and frames.shape == (6, 3, 32, 32)


@pytest.mark.parametrize("world, floor, inside", [("rooms", (0.22, 0.30), (0.07, 0.11)),
                                                  ("disc", (0.10, 0.21), (0.09, 0.16))])
def test_chance_reaches_a_goal_25_steps_ahead_about_as_often_as_published(world, floor, inside, tmp_path):
    """In Two Rooms 26 %, and 9 % of the starts are within the goal already. A disc that was moved is out of reach."""
    data, world = collect(Recipe(world, episodes=1000), folder=tmp_path), world_named(world)
    start, goal = Clips(data, frames=2, skip=25, size=8).draw(3000, generator()).states.unbind(dim=1)
    policy, state = world.policy("random", 3000, generator(1)), start
    reached = torch.zeros(3000, dtype=torch.bool)
    for _ in range(50):
        state = world.step(state, policy.act(state))
        reached |= world.success(state, goal)
    assert floor[0] < reached.float().mean() < floor[1]
    assert inside[0] < world.success(start, goal).float().mean() < inside[1]
    if world.name == "disc":
        moved = distances(world, start, goal)["disc xy"] > 30
        assert moved.float().mean() > 0.5 and reached[moved].float().mean() < 0.03


def test_what_is_stored_is_mapped_and_comes_back_as_it_was(data, tmp_path):
    train, _ = data.split(0.5, generator())
    path = save_trajectories(train, tmp_path / "half.safetensors", {"what": "half", "how_made": "a test"})
    back = load_trajectories(path)
    assert back.world == data.world and len(back) == 30 and len(back.states) == int(train.ep_len.sum())
    for i in range(30):
        for ours, theirs in zip(back.episode(i), train.episode(i), strict=True):
            assert torch.equal(ours, theirs)
    assert back.actions[back.ep_offset + back.ep_len - 1].isnan().all()
    assert not any(p.name.endswith(".tmp") for p in tmp_path.iterdir())


def test_a_large_file_is_read_when_it_is_used(tmp_path):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    try:
        resident()
    except OSError:
        pytest.skip("no /proc")
    N = 2_000_000
    big = Trajectories("rooms", torch.zeros(N, 2), torch.zeros(N, 2), torch.tensor([N]), torch.tensor([0]))
    path = save_trajectories(big, tmp_path / "big.safetensors", {"what": "zeros", "how_made": "a test"})
    del big
    load_trajectories(path)  # what the allocator keeps from hashing is there before we look
    before = resident()
    data = load_trajectories(path)
    assert resident() - before < 8e6 < path.stat().st_size == 32_000_000 + path.stat().st_size % 1000
    assert data.states[N // 2].tolist() == [0.0, 0.0]


def test_damage_foreign_files_and_unfit_dimensions_are_refused(data, tmp_path):
    path = save_trajectories(data, tmp_path / "a.safetensors", {"what": "some", "how_made": "make it so"})
    content = path.read_bytes()
    for bad in (content[:-40], content[:-4] + b"\0\0\0\1"):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="corrupted or truncated.*make it so"):
            load_trajectories(path)
    path.write_bytes(content)
    card_path = path.with_suffix(".json")
    card = json.loads(card_path.read_text())
    for world, message in (("rooms" if data.world == "disc" else "disc", "name the world that it is of"),
                           ("moon", "no world 'moon'; choose one of rooms, disc")):
        card_path.write_text(json.dumps({**card, "world": world}))
        with pytest.raises(ValueError, match=message):
            load_trajectories(path)
    card_path.write_text("{")
    with pytest.raises(ValueError, match="card.*is damaged"):
        load_trajectories(path)
    with pytest.raises(FileNotFoundError, match="minilab.lewm.collect"):
        load_trajectories(tmp_path / "b.safetensors")
    other = save_weights({"w": torch.ones(2)}, tmp_path / "w.safetensors",
                         card={"what": "two ones", "how_made": "here", "licence": "none"})
    with pytest.raises(ValueError, match="does not hold trajectories but 'two ones'"):
        load_trajectories(other)


def test_what_no_clip_can_be_cut_from_is_refused_with_what_to_do(numbered):
    with pytest.raises(ValueError, match="reach over 46 rows, and the longest of 4 episodes has 40.*longer episodes"):
        Clips(numbered, frames=10)
    with pytest.raises(ValueError, match="0 frames at a frame skip of 5 are no clip"):
        Clips(numbered, frames=0)
    with pytest.raises(ValueError, match="pictures of 4 x 4 pixels show nothing"):
        Clips(numbered, size=4)
    with pytest.raises(ValueError, match="no world 'moon'"):
        Clips(Trajectories("moon", *(getattr(numbered, part) for part in ("states", "actions", "ep_len", "ep_offset"))))
    with pytest.raises(ValueError, match="hold 0 actions, too few to scale"):
        Clips(Trajectories("rooms", numbered.states, numbered.actions * float("nan"), numbered.ep_len,
                           numbered.ep_offset))


def test_pictures_that_are_kept_are_the_pictures_that_would_be_drawn(data):
    kept = data.drawn(16)
    for size in (16, 24):  # the kept size, and another
        as_drawn, as_kept = (Clips(d, frames=T, skip=SKIP, size=size).draw(8, generator()) for d in (data, kept))
        assert torch.equal(as_drawn.frames, as_kept.frames) and torch.equal(as_drawn.states, as_kept.states)
