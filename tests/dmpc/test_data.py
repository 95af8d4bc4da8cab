"""Episodes, windows, returns and scales, against loops and formulas written out."""

import pytest
import torch

from minilab.core.weights import save_weights
from minilab.dmpc.data import (
    Episodes,
    Scales,
    Windows,
    checked_for,
    joined,
    load_episodes,
    returns_to_go,
    save_episodes,
    value_targets,
)
from minilab.dmpc.envs import HALF_CHEETAH, HOPPER, WALKER

E, T = 6, 20


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def episodes():
    """Numbers that say where they come from: 100 * episode + step, in every state and action."""
    step = torch.arange(T + 1.0)
    states = (100 * torch.arange(E)[:, None] + step)[..., None].expand(E, T + 1, 11).clone()
    actions = states[:, :-1, :3].clone()
    lengths, fell = torch.full((E,), T), torch.zeros(E, dtype=torch.bool)
    for e, n in ((1, 7), (4, 2)):
        lengths[e], fell[e] = n, True
        states[e, n:], actions[e, n:] = states[e, n], 0.0
    rewards = torch.randn(E, T, generator=generator()) * (torch.arange(T) < lengths[:, None])
    return Episodes("Hopper-v5", states, actions, rewards, lengths, fell, tuple("abcdef"))


@pytest.mark.parametrize("F", [1, 5, T])
def test_windows_never_cross_episodes_and_follow_the_steps(episodes, F):
    windows = Windows(episodes, F)
    w = windows.take(torch.arange(len(windows)))
    e, t = windows.index.unbind(dim=1)
    for i in range(len(windows)):
        n, k = int(episodes.lengths[e[i]]), torch.arange(F + 1) + t[i]
        expected = 100.0 * e[i] + k.clamp(max=n)  # after a fall the body lies where it fell
        assert torch.equal(w.state[i, 0], expected[0])
        assert torch.equal(w.states[i, :, 0], expected[1:])
        assert torch.equal(w.actions[i, :, 0], torch.where(k[:-1] < n, expected[:-1], 0.0))


def test_every_moment_has_its_window_and_none_begins_after_a_fall(episodes):
    F = 5
    found = {tuple(row) for row in Windows(episodes, F).index.tolist()}
    expected = set()
    for e in range(E):
        for t in range(T - F + 1):
            if t < episodes.lengths[e] and (episodes.fell[e] or t + F <= episodes.lengths[e]):
                expected.add((e, t))
    assert found == expected


def test_an_episode_that_only_the_clock_cut_short_is_not_padded(episodes):
    """As in a set with episodes of many lengths: what came after the cut is not known."""
    episodes.fell[1] = False
    starts = [t for e, t in Windows(episodes, 5).index.tolist() if e == 1]
    assert starts == [0, 1, 2]


def test_a_horizon_that_no_episode_has_is_refused(episodes):
    with pytest.raises(ValueError, match="windows of 21 steps do not fit episodes of 20.*from 1 to 20"):
        Windows(episodes, T + 1)
    with pytest.raises(ValueError, match="windows of 0 steps"):
        Windows(episodes, 0)
    short = episodes.rows([0, 2])
    short.lengths[:] = 4
    with pytest.raises(ValueError, match="no episode is 5 steps long"):
        Windows(short, 5)


def test_drawn_windows_are_spread_over_all_and_repeat_for_a_seed(episodes):
    windows = Windows(episodes, 4)
    a, b = (windows.draw(4000, generator(3)) for _ in range(2))
    assert torch.equal(a.states, b.states)
    counts = torch.bincount(torch.unique(a.state[:, 0], return_inverse=True)[1])
    assert len(counts) == len(windows) and counts.max() < 3 * counts.float().mean()


def test_returns_to_go_equal_a_double_loop(episodes):
    discount = 0.9
    G = returns_to_go(episodes.rewards, discount)
    for e in range(E):
        for t in range(T):
            loop = sum(discount**i * float(episodes.rewards[e, t + i]) for i in range(T - t))
            assert float(G[e, t]) == pytest.approx(loop, abs=1e-5)


def test_value_targets_leave_out_exactly_the_tails_that_are_cut_off(episodes):
    """0.8^11 < 0.1 < 0.8^10: of 20 steps the first 10 know enough; after a fall all are known."""
    states, G = value_targets(episodes, 0.8, fall_cost=50.0)
    kept = [(int(s // 100), int(s % 100)) for s in states[:, 0]]
    assert kept == [(e, t) for e in range(E) for t in range({1: 7, 4: 2}.get(e, 10))]
    for (e, t), g in zip(kept, G.tolist(), strict=True):
        n = int(episodes.lengths[e])
        loop = sum(0.8**i * float(episodes.rewards[e, t + i]) for i in range(n - t))
        loop -= 50.0 * 0.8 ** (n - 1 - t) if episodes.fell[e] else 0.0
        assert g == pytest.approx(loop, abs=1e-4)
    assert episodes.rewards.abs().max() < 10  # the cost is not written into the data


def test_values_need_episodes_longer_than_the_discount_looks(episodes):
    with pytest.raises(ValueError, match="too short for a discount of 0.99"):
        value_targets(episodes.rows([0, 2]), 0.99)


def test_scales_are_the_spreads_of_states_and_of_their_moves():
    """A random walk: after k steps of spread 0.3 it has moved by 0.3 sqrt(k)."""
    walk = torch.randn(400, 33, 11, generator=generator()).mul(0.3).cumsum(dim=1)
    walk[..., 2] = 7.0  # a number that never changes must not divide by 0
    walk = Episodes("Hopper-v5", walk, torch.zeros(400, 32, 3), torch.zeros(400, 32), torch.full((400,), 32),
                    torch.zeros(400, dtype=torch.bool), ("",) * 400)
    windows = Windows(walk, 8)
    scales = Scales.of(windows)
    expected = 0.3 * torch.arange(1, 9).sqrt()[:, None].expand(8, 11).clone()
    expected[:, 2] = 1e-3
    torch.testing.assert_close(scales.change, expected, rtol=0.05, atol=0)
    drawn = torch.cat([windows.take(i[None]).state for i in torch.arange(len(windows))])
    torch.testing.assert_close(scales.mean, drawn.mean(dim=0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(Scales.of(windows, most=3000).change, expected, rtol=0.1, atol=0)


def test_what_is_stored_comes_back_within_the_error_of_float16(episodes, tmp_path):
    episodes.states.mul_(torch.randn(episodes.states.shape, generator=generator()))
    path = save_episodes(episodes, tmp_path / "e.safetensors", what="a test", how_made="here")
    back = load_episodes(path, HOPPER)
    for part in ("states", "actions", "rewards"):
        x, y = getattr(episodes, part), getattr(back, part)
        assert ((x - y).abs() <= x.abs() * 2**-11 + 2**-25).all()  # half of the last of 11 bits, or of the least number
    assert torch.equal(back.lengths, episodes.lengths) and torch.equal(back.fell, episodes.fell)
    assert back.source == episodes.source and back.task == "Hopper-v5"
    again = load_episodes(save_episodes(back, path, what="a test", how_made="here"))
    assert torch.equal(again.states, back.states)  # stored twice, rounded once


def test_damage_and_foreign_files_are_refused(episodes, tmp_path):
    path = save_episodes(episodes, tmp_path / "e.safetensors", what="a test", how_made="make it so")
    with pytest.raises(ValueError, match="of Hopper-v5 with 11 numbers a state and 3 an action; Walker2d-v5 has 17"):
        load_episodes(path, WALKER)
    data = path.read_bytes()
    path.write_bytes(data[:-2] + b"xx")
    with pytest.raises(ValueError, match="corrupted or truncated.*make it so"):
        load_episodes(path)
    path.write_bytes(data[:-100])
    with pytest.raises(ValueError, match="corrupted or truncated"):
        load_episodes(path)
    other = save_weights({"w": torch.ones(2)}, tmp_path / "w.safetensors",
                         card={"what": "two ones", "how_made": "here", "licence": "none"})
    with pytest.raises(ValueError, match="does not hold episodes but 'two ones'"):
        load_episodes(other)
    with pytest.raises(FileNotFoundError, match="no asset 'dmpc/nothing.safetensors'"):
        load_episodes("dmpc/nothing.safetensors")


def test_a_set_with_the_right_name_and_the_wrong_numbers_is_refused(episodes):
    wrong = Episodes("HalfCheetah-v5", *(getattr(episodes, part) for part in
                                         ("states", "actions", "rewards", "lengths", "fell", "source")))
    with pytest.raises(ValueError, match="11 numbers a state and 3 an action; HalfCheetah-v5 has 17 and 6"):
        checked_for(wrong, HALF_CHEETAH)


def test_a_split_shares_no_episode_and_loses_none(episodes):
    kept, held = episodes.split(0.3, generator())
    assert len(held) == 2 and sorted(kept.source + held.source) == list("abcdef")
    assert torch.equal(kept.states[0], episodes.states["abcdef".index(kept.source[0])])
    with pytest.raises(ValueError, match="leave nothing to learn from"):
        episodes.rows([0]).split(0.1, generator())


def test_sets_of_one_task_are_joined_and_others_are_not(episodes):
    both = joined([episodes.rows([2]), episodes])
    assert both.source == ("c", *"abcdef") and torch.equal(both.states[1:], episodes.states)
    assert both.transitions == T + episodes.transitions == T + 4 * T + 7 + 2
    cut = Episodes("Hopper-v5", episodes.states[:, :11], episodes.actions[:, :10], episodes.rewards[:, :10],
                   episodes.lengths, episodes.fell, episodes.source)
    with pytest.raises(ValueError, match="one task and one length"):
        joined([episodes, cut])
