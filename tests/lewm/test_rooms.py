"""Two Rooms: its walls and its door, its pictures, and who walks in it."""

import pytest
import torch

from minilab.lewm.collect import rollout
from minilab.lewm.worlds import World, distances, world_named
from minilab.lewm.worlds.rooms import Rooms

ROOMS = Rooms()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def walked(policy="random", copies=200, steps=300, seed=0):
    """States (B T1 2) and actions (B T 2) of a policy."""
    g = generator(seed)
    start = ROOMS.reset(copies, g)
    return rollout(ROOMS, ROOMS.policy(policy, copies, g), start, steps)[:2]


@pytest.mark.parametrize("policy", ROOMS.policies)
def test_nobody_is_between_the_rooms_but_in_the_door(policy):
    states, _ = walked(policy)
    x, y = states.unbind(dim=2)
    between = (x > 100) & (x < 124)
    assert ((y[between] - 49).abs() <= 15.75).all()
    assert states.min() >= 21 and states.max() <= 203
    assert (states[:, 1:] - states[:, :-1]).norm(dim=2).max() <= 50**0.5 + 24  # one push back to the wall, no jump


def test_a_straight_walk_passes_the_door_both_ways_and_stops_at_the_wall_elsewhere():
    starts = torch.tensor([[60.0, 49.0], [164.0, 49.0], [60.0, 33.3], [60.0, 33.2], [60.0, 64.7], [60.0, 64.8],
                           [164.0, 150.0]])
    east = torch.tensor([1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0])
    state, action = starts, torch.stack((east, torch.zeros(7)), dim=1)
    for _ in range(40):
        state = ROOMS.step(state, action)
    torch.testing.assert_close(state[:, 0], torch.tensor([203.0, 21.0, 203.0, 99.5, 203.0, 99.5, 124.5]))
    assert torch.equal(state[:, 1], starts[:, 1])


def test_the_door_is_judged_on_where_a_step_ends():
    """From y = 30, outside, one step down along the diagonal ends inside the door: it may enter. Up, it may not."""
    here = torch.tensor([[99.0, 30.0], [99.0, 66.0], [105.0, 35.0]])
    after = ROOMS.step(here, torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, -1.0]]))
    torch.testing.assert_close(after, torch.tensor([[104.0, 35.0], [99.5, 71.0], [99.5, 30.0]]))


def test_a_free_step_is_five_times_the_action_and_a_wild_one_is_cut():
    here = torch.tensor([[50.0, 120.0], [50.0, 120.0], [22.0, 202.0]])
    after = ROOMS.step(here, torch.tensor([[0.5, -0.2], [7.0, -7.0], [-1.0, 1.0]]))
    torch.testing.assert_close(after, torch.tensor([[52.5, 119.0], [55.0, 115.0], [21.0, 203.0]]))


def test_many_copies_are_stepped_and_drawn_as_one_by_one():
    states, actions = walked(copies=70, steps=1, seed=3)
    for i in range(70):
        one = slice(i, i + 1)
        assert torch.equal(ROOMS.step(states[one, 0], actions[one, 0]), states[one, 1])
    frames = ROOMS.render(states[:, 0], 32)
    alone = torch.cat([ROOMS.render(states[i : i + 1, 0], 32) for i in range(70)])
    assert (frames.int() - alone.int()).abs().max() <= 1  # a vector unit may round the last bit of exp differently


def test_starts_are_uniform_outside_the_wall():
    state = ROOMS.reset(20000, generator())
    x, y = state.unbind(dim=1)
    assert not ((x > 100) & (x < 124)).any() and state.min() >= 21 and state.max() <= 203
    for part, low, high in ((x[x < 112], 21, 100), (x[x > 112], 124, 203), (y, 21, 203)):
        cells = torch.histc(part, 5, low, high) / len(part)
        assert (cells - 0.2).abs().max() < 0.02
    assert abs(float((x < 112).float().mean()) - 0.5) < 0.02


def test_opposite_starts_and_goals_lie_in_two_rooms():
    start, goal = ROOMS.opposite(2000, generator())
    assert ((start[:, 0] < 112) != (goal[:, 0] < 112)).all()
    for state in (start, goal):
        assert not ((state[:, 0] > 100) & (state[:, 0] < 124)).any() and state.min() >= 21 and state.max() <= 203
        assert abs(float((state[:, 0] < 112).float().mean()) - 0.5) < 0.05


def test_success_is_a_distance_below_16_either_way():
    a, b = ROOMS.reset(3000, generator()), ROOMS.reset(3000, generator(1))
    assert torch.equal(ROOMS.success(a, b), ROOMS.success(b, a)) and ROOMS.success(a, a).all()
    assert torch.equal(ROOMS.success(a, b), distances(ROOMS, a, b)["agent xy"] < 16)
    here = torch.tensor([[50.0, 50.0]])
    assert ROOMS.success(here, here + torch.tensor([[0.0, 15.9]])) and not ROOMS.success(here, here + 11.4)


def blob(frames, rooms):
    """Each pixel's share of the dot, off the walls: how far the picture is from the one without a dot."""
    return (frames.float() - rooms.float()).abs().amax(dim=1) / 255


@pytest.mark.parametrize("size", [32, 64, 224])
def test_the_blob_stands_where_the_state_says(size):
    """Its center of mass, in pixels, is the state's position, scaled; its mass is that of a Gaussian of spread 7."""
    state = ROOMS.reset(500, generator())
    x = state[:, 0]
    state = state[(x > 40) & (x < 85) | (x > 140) & (x < 182)].clamp(40, 182)  # clear of all lines
    rooms = ROOMS.render(torch.full((1, 2), -1000.0), size)
    alpha = blob(ROOMS.render(state, size), rooms)
    alpha = alpha.where(alpha > 0.01, 0.0)
    pixel = torch.arange(size)
    mass = alpha.sum(dim=(1, 2))
    center = torch.stack(((alpha.sum(dim=1) * pixel).sum(dim=1), (alpha.sum(dim=2) * pixel).sum(dim=1)), dim=1)
    expected = (state + 0.5) * size / 224 - 0.5
    assert (center / mass[:, None] - expected).abs().max() < 0.1
    torch.testing.assert_close(mass, torch.full_like(mass, 2 * torch.pi * (7 * size / 224) ** 2), rtol=0.03, atol=0)


def test_at_its_own_size_the_picture_is_the_published_one():
    frame = ROOMS.render(torch.tensor([[60.0, 112.0]]), 224)[0]
    white, black = torch.tensor([255, 255, 255]), torch.tensor([0, 0, 0])
    for (x, y), expected in {(2, 2): white, (9, 100): white, (10, 100): black, (13, 100): black, (14, 100): white,
                             (209, 20): white, (210, 20): black, (213, 20): black, (214, 20): white,
                             (106, 150): white, (107, 150): black, (117, 150): black, (118, 150): white,
                             (112, 34): black, (112, 35): white, (112, 63): white, (112, 64): black}.items():
        assert torch.equal(frame[:, y, x].long(), expected), (x, y)
    assert frame[:, 112, 60].tolist() == [255, 0, 0]
    half = round(255 * (1 - torch.exp(torch.tensor(-(7.0**2) / (2 * 7**2))).item()))  # one spread away
    assert frame[:, 112, 67].tolist() == [255, half, half] == frame[:, 105, 60].tolist()


def test_a_small_picture_is_the_mean_of_the_large_one_without_the_dot():
    nobody = torch.full((1, 2), -1000.0)
    large, small = (ROOMS.render(nobody, size)[0].float() for size in (224, 32))
    torch.testing.assert_close(small, torch.nn.functional.avg_pool2d(large, 7), atol=0.5, rtol=0)


def test_a_dot_of_another_color_changes_the_color_alone():
    state = torch.tensor([[60.0, 120.0], [160.0, 120.0]])
    red = ROOMS.render(state, 64)
    mixed = ROOMS.render(state, 64, color=torch.tensor([[0.0, 0.0, 255.0], [255.0, 0.0, 0.0]]))
    assert torch.equal(mixed[1], red[1]) and torch.equal(mixed[0].flip(0), red[0])


def test_the_noisy_walker_ends_at_its_target_and_wanders_less_with_less_noise():
    g = generator()
    start = ROOMS.reset(500, g)
    policy = ROOMS.policy("noisy", 500, g)
    states, actions, lengths = rollout(ROOMS, policy, start, 100)
    last = states[torch.arange(500), lengths]
    early = lengths < 100
    assert 0.5 < early.float().mean() < 0.9 and ROOMS.success(last, policy.target)[early].all()
    cut = (actions.abs() == 1).float().mean()
    assert 0.55 < cut < 0.75  # a Gaussian of spread 2 around a unit vector, cut to [-1, 1]
    again = (actions[:, 1:] == actions[:, :-1]).all(dim=2) & (actions[:, 1:].abs() < 1).any(dim=2)
    inside = (actions[:, 1:].abs() < 1).any(dim=2)
    assert 0.03 < again.sum() / inside.sum() < 0.08  # 5 % repeats


def test_crossing_episodes_go_through_the_door_and_last_as_long_as_the_published_ones():
    g = generator()
    start = ROOMS.reset(2000, g)
    policy = ROOMS.policy("crossing", 2000, g)
    lengths = rollout(ROOMS, policy, start, 100)[2]
    assert ((start[:, 0] < 112) != (policy.target[:, 0] < 112)).all()
    assert 88 < lengths.float().mean() < 95


def test_the_smooth_walker_reaches_many_targets_straight():
    states, _ = walked("smooth", copies=100, steps=100)
    v = states[:, 1:] - states[:, :-1]
    assert torch.cosine_similarity(v[:, 1:], v[:, :-1], dim=2).mean() > 0.8
    assert v.norm(dim=2).mean() > 4


def test_a_world_is_found_by_its_name_and_an_unknown_one_is_refused():
    assert isinstance(world_named("rooms"), Rooms) and isinstance(ROOMS, World)
    with pytest.raises(ValueError, match="no world 'room'; choose one of rooms, disc"):
        world_named("room")
    with pytest.raises(ValueError, match="no policy 'expert'; choose one of noisy, crossing, smooth, random"):
        ROOMS.policy("expert", 1, generator())
    with pytest.raises(ValueError, match="4 x 4 pixels show nothing"):
        ROOMS.render(torch.zeros(1, 2), 4)
