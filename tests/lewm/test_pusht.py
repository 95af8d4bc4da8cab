"""Push-T: the published sizes and control law, a block that stays where it is left, and walls that hold."""

import math

import pytest
import torch

from minilab.lewm.collect import Recipe, collect, rollout
from minilab.lewm.experts import Expert, ExpertConfig, pose_error
from minilab.lewm.worlds import World, distances, world_named
from minilab.lewm.worlds.base import square
from minilab.lewm.worlds.pusht import (
    CORNERS,
    HIGH,
    LOW,
    NEAR,
    PUSHER,
    TURNED,
    PushT,
    apart,
    corners,
    gap,
    lies,
    margin,
    to_world,
    turn,
)

WORLD = PushT()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def played():
    """States (B T1 7) and actions (B T 2) of 40 episodes of each scripted policy."""
    made = []
    for policy in ("push", "weak", "random"):
        g = generator()
        start = WORLD.reset(40, g)
        made.append(rollout(WORLD, WORLD.policy(policy, 40, g), start, 60)[:2])
    return tuple(torch.cat(part) for part in zip(*made, strict=True))


def state_of(agent, block=(400.0, 300.0), angle=0.0, velocity=(0.0, 0.0)):
    return torch.tensor([[*agent, *block, angle, *velocity]])


def test_starts_are_in_the_published_ranges_at_rest_and_overlap_nothing():
    state = WORLD.reset(3000, generator())
    assert state[:, :2].min() >= 50 and state[:, :2].max() <= 450
    assert state[:, 2:4].min() >= 100 and state[:, 2:4].max() <= 400 and state[:, 4].abs().max() <= math.pi
    assert gap(state).min() >= 0 and margin(state).min() >= 0 and (state[:, 5:] == 0).all()
    torch.testing.assert_close(state[:, 4].abs().mean(), torch.tensor(math.pi / 2), atol=0.06, rtol=0)


@pytest.mark.parametrize("image", range(8))
def test_an_image_of_a_scene_is_its_picture_turned_or_mirrored(image):
    """Of corners as sets, and of pixels where neither shows the green T, which stays."""
    state = WORLD.reset(200, generator())
    which = torch.full((200,), image)
    turned, action = WORLD.mirrored(state, torch.ones(200, 3, 2), which)
    way = square(state.device)[image]
    middle = (LOW + HIGH) / 2
    expected = middle + (corners(state[:, 2:5]) - middle) @ way.T
    apart = torch.cdist(corners(turned[:, 2:5]), expected)
    assert apart.amin(dim=1).max() < 1e-2 and apart.amin(dim=2).max() < 1e-2
    assert torch.equal(action, (torch.ones(2) @ way.T).expand(200, 3, 2))
    picture = [WORLD.render(s, 64).float() for s in (state, turned)]
    table = WORLD.render(state_of((-100.0, -100.0), (-300.0, -300.0)), 64).float()
    moved = picture[0].rot90(-(image % 4), (2, 3)) if image < 4 else picture[0].flip(3).rot90(-(image % 4), (2, 3))
    ground = table.rot90(-(image % 4), (2, 3)) if image < 4 else table.flip(3).rot90(-(image % 4), (2, 3))
    white = ((table == 255) & (ground == 255)).all(dim=1, keepdim=True)
    assert ((picture[1] - moved).abs() * white).max() <= 2
    assert (picture[0] - picture[1]).abs().max() > 100 or image == 0


def test_a_free_pusher_obeys_the_published_law():
    """x'' = 100 (target - x) - 20 x' in ten steps of 0.01 s, the velocity before the place; its exact solution near."""
    action, start = torch.tensor([[0.8, -0.3]]), state_of((120.0, 140.0), velocity=(30.0, -12.0))
    at, v, target = start[:, :2].double(), start[:, 5:].double(), start[:, :2].double() + 100 * action.double()
    for _ in range(10):
        v = v + 0.01 * (100 * (target - at) - 20 * v)
        at = at + 0.01 * v
    after = WORLD.step(start, action)
    torch.testing.assert_close(after[:, :2], at.float())
    torch.testing.assert_close(after[:, 5:], v.float())
    assert torch.equal(after[:, 2:5], start[:, 2:5])
    # Critically damped: x(t) = target + (d + (v0 + 10 d) t) e^{-10 t}, where d is how far it is off at first.
    d = start[:, :2] - target
    exact = target + (d + (start[:, 5:] + 10 * d) * 0.1) * math.exp(-1)
    assert (after[:, :2] - exact).abs().max() < 3


def test_actions_are_cut_and_numbers_that_are_none_are_refused():
    start = state_of((120.0, 140.0))
    assert torch.equal(WORLD.step(start, torch.tensor([[3.0, -7.0]])), WORLD.step(start, torch.tensor([[1.0, -1.0]])))
    for broken in ((start * float("nan"), torch.zeros(1, 2)), (start, torch.full((1, 2), float("nan")))):
        with pytest.raises(ValueError, match="NaN or infinite"):
            WORLD.step(*broken)


def test_a_state_is_the_whole_state_and_copies_do_not_know_of_each_other(played):
    """Bit by bit: episodes again from the middle, in another order, and one by one."""
    states, actions = played
    order = torch.randperm(len(states), generator=generator())
    state = states[order, 30]
    for t in range(30, 60):
        state = WORLD.step(state, actions[order, t])
    assert torch.equal(state, states[order, 60])
    for i in range(0, len(states), 4):
        assert torch.equal(WORLD.step(states[i : i + 1, 20], actions[i : i + 1, 20]), states[i : i + 1, 21])


def test_nothing_slides_on_and_the_block_moves_only_when_touched(played):
    states, _ = played
    state = states[:, 10::10].flatten(0, 1)
    for _ in range(8):  # a second later the pusher rests, and what overlapped has given way
        state = WORLD.step(state, torch.zeros(len(state), 2))
    later = WORLD.step(state, torch.zeros(len(state), 2))
    assert (later - state)[:, 2:5].abs().max() < 0.1
    before, after = states[:, :-1].flatten(0, 1), states[:, 1:].flatten(0, 1)
    out_of_reach = (gap(before) > 45) & (margin(before) > 0)
    assert out_of_reach.sum() > 1000 and torch.equal(before[out_of_reach, 2:5], after[out_of_reach, 2:5])
    assert ((before - after)[:, 2:4].norm(dim=1) > 1).float().mean() > 0.1


def test_a_push_through_the_center_shifts_and_one_beside_it_turns():
    """From above, on the bar's outer edge, whose middle is above the center of gravity."""
    block = (256.0, 256.0)
    straight, beside = (state_of((256.0 + x, 230.0), block) for x in (0.0, 40.0))
    for _ in range(5):
        straight, beside = (WORLD.step(s, torch.tensor([[0.0, 0.3]])) for s in (straight, beside))
    assert straight[0, 3] > 270 and abs(straight[0, 2] - 256) < 0.01 and abs(straight[0, 4]) < 1e-4
    assert beside[0, 4] > 0.1  # clockwise on the screen: its right is pushed down


def test_walls_stop_the_block_and_the_block_the_pusher():
    """The pusher runs at blocks in the middle, at walls and in corners from all around, at full speed, for 4 seconds.

    A block that is caught may reach into a wall for a moment, no deeper than a part of the pusher, and comes back.
    """
    place = torch.tensor([110.0, 256.0, 400.0])
    grid = torch.cartesian_prod(place, place, torch.arange(4) * 1.5 + 0.2, torch.arange(8) * math.pi / 4 + 0.1)
    out = 150 * torch.stack((grid[:, 3].cos(), grid[:, 3].sin()), dim=1)
    start = torch.cat((grid[:, :2] + out, grid[:, :3], torch.zeros(len(grid), 2)), dim=1)
    start[:, :2] = start[:, :2].clamp(LOW + PUSHER, HIGH - PUSHER)
    state = start = start[(gap(start) > 0) & (margin(start) > 0)]
    assert len(start) > 150
    for t in range(40):
        aim = state[:, 2:4] + 45 * torch.stack((-state[:, 4].sin(), state[:, 4].cos()), dim=1) - state[:, :2]
        state = WORLD.step(state, aim / aim.abs().amax(dim=1, keepdim=True))
        assert margin(state).min() > -9 and gap(state).min() > -9, t
        assert state[:, :2].min() > LOW + PUSHER - 4 and state[:, :2].max() < HIGH - PUSHER + 4
    for _ in range(5):
        state = WORLD.step(state, torch.zeros(len(state), 2))
    assert margin(state).min() > -0.5 and gap(state).min() > -0.5
    assert ((state - start)[:, 2:4].norm(dim=1) > 60).float().mean() > 0.8  # and blocks did go to the walls


def test_the_angle_stays_within_a_turn_and_goes_on_across_its_ends():
    start = state_of((256.0 + 40.0, 256.0 - 26.0), (256.0, 256.0), 0.0)
    pose = torch.tensor([[256.0, 256.0, 3.1]])
    start[:, :2], start[:, 2:5] = to_world(pose, torch.tensor([[[40.0, -26.0]]]))[:, 0], pose
    state = start
    for _ in range(5):
        state = WORLD.step(state, 0.3 * torch.tensor([[-math.sin(3.1), math.cos(3.1)]]))
    assert -math.pi <= state[0, 4] < -2.5 and turn(state[:, 4], start[:, 4]) > 0.1


def test_the_distance_of_two_angles_is_the_shorter_way_round():
    a, b = torch.zeros(2, 7), torch.zeros(2, 7)
    a[:, 4], b[:, 4] = torch.tensor([3.0, 0.5]), torch.tensor([-3.0, -0.5])
    found = distances(world_named("pusht"), a, b)["block angle"]
    torch.testing.assert_close(found, torch.tensor([2 * math.pi - 6, 1.0]))


def test_success_needs_the_block_its_angle_and_the_pusher():
    goal = state_of((200.0, 200.0), (300.0, 300.0), math.pi - 0.1)
    for change, expected in ((torch.zeros(7), True), ([0, 0, 0, 0, 0, 90, 90], True), ([12, 0, 15, 0, 0, 0, 0], True),
                             ([12, 0, 16.5, 0, 0, 0, 0], False), ([21, 0, 0, 0, 0, 0, 0], False),
                             ([0, 0, 0, 0, 0.3, 0, 0], True), ([0, 0, 0, 0, 0.36, 0, 0], False)):
        state = goal + torch.as_tensor(change, dtype=torch.float32)
        state[:, 4] = turn(state[:, 4], torch.zeros(1))  # the angles are on both sides of the half turn
        assert WORLD.success(state, goal).item() is expected and WORLD.success(goal, state).item() is expected


@pytest.mark.parametrize("size", [32, 64, 224])
def test_pictures_show_block_and_pusher_where_the_physics_has_them(size):
    """Area and centroid in pixels, against the polygon of the corners that walls stop, and against the circle."""
    state = WORLD.reset(60, generator())
    nowhere = torch.full((1, 7), -3000.0)
    table = WORLD.render(nowhere, size).float()
    clear = table.new_tensor([[0.0] * 3])  # black, so that no color of the table is the block's

    def found(state, table, paint):
        picture = WORLD.render(state, size, color=clear.expand(len(state), 3)).float()
        share = ((table - picture) / (table - paint[:, None, None])).nan_to_num().mean(dim=1)  # B size size
        mass, pixel = share.sum(dim=(1, 2)), (torch.arange(size) + 0.5) * (512 / size) - 0.5
        at = torch.stack(((share.sum(dim=1) * pixel).sum(dim=1), (share.sum(dim=2) * pixel).sum(dim=1)), dim=1)
        return mass * (512 / size) ** 2, at / mass[:, None]

    block = state.clone()
    block[:, :2] = -3000
    area, at = found(block, table, torch.zeros(3))
    ring = torch.tensor(CORNERS)[[0, 1, 3, 2, 4, 5]]
    bar, stem = ring[:4].mean(dim=0), torch.tensor([0.0, 75.0])
    centroid = (120 * 30 * bar + 30 * 90 * stem) / 6300
    expected = to_world(state[:, 2:5], centroid.expand(60, 1, 2))[:, 0]
    assert (at - expected).abs().max() < 0.15 * 512 / size
    torch.testing.assert_close(area, torch.full((60,), 6300.0), rtol=0.05, atol=0)

    pusher = state.clone()
    pusher[:, 2:4] = -3000
    pusher[:, :2] = 30 + 60 * torch.rand(60, 2, generator=generator())  # on white
    area, at = found(pusher, table, torch.tensor([65.0, 105.0, 225.0]))
    assert (at - pusher[:, :2]).abs().max() < 0.1 * 512 / size
    torch.testing.assert_close(area, torch.full((60,), math.pi * 15**2), rtol=0.16 if size == 32 else 0.05, atol=0)


def test_colors_are_the_published_ones_and_the_green_t_is_always_there():
    state = state_of((100.0, 100.0), (400.0, 60.0))
    frame = WORLD.render(state, 512)[0]
    assert frame[:, 100, 100].tolist() == [65, 105, 225] and frame[:, 75, 400].tolist() == [119, 136, 153]
    assert frame[:, 120, 400].tolist() == [119, 136, 153] and frame[:, 200, 60].tolist() == [255] * 3
    assert frame[:, 262, 254].tolist() == [144, 238, 144] and frame[:, 310, 210].tolist() == [144, 238, 144]
    assert frame[:, 300, 5].tolist() == [211] * 3
    seam = frame[:, 88:93, 400]  # where bar and stem meet
    assert (seam == seam[:, :1]).all()
    red = WORLD.render(state, 512, color=torch.tensor([[255.0, 0, 0]]))[0]
    assert red[:, 75, 400].tolist() == [255, 0, 0] and red[:, 100, 100].tolist() == [65, 105, 225]
    assert torch.equal(WORLD.render(state.repeat(50, 1), 64)[49], WORLD.render(state, 64)[0])


def test_the_script_moves_and_turns_the_block_without_losing_it_and_chance_hardly(played):
    moved = (played[0][:, 1:] - played[0][:, :-1])[..., 2:4].norm(dim=-1).sum(dim=1).view(3, 40).mean(dim=1)
    turned = turn(played[0][:, 1:, 4], played[0][:, :-1, 4]).abs().sum(dim=1).view(3, 40).mean(dim=1)
    assert moved[0] > 90 and moved[1] > 60 and moved[2] < 30 and turned[0] > 0.8
    assert margin(played[0][:40].flatten(0, 1)).min() > -3


def test_an_expert_without_a_goal_takes_the_next_when_it_is_there_or_has_tried_for_long():
    config = ExpertConfig(samples=2, points=1, iterations=1, patience=3)
    expert, state = Expert(WORLD, 2, generator(), config=config), WORLD.reset(2, generator(1))
    first = expert.goal
    expert.act(torch.stack((first[0], state[1])))
    assert not torch.equal(expert.goal[0], first[0]) and torch.equal(expert.goal[1], first[1])
    for _ in range(3):
        expert.act(state)
    assert not torch.equal(expert.goal[1], first[1]) and not expert.done(expert.goal).any()
    assert Expert(WORLD, 2, generator(), goal=state).done(state).all()


def test_the_expert_repairs_a_pose():
    """The block is off by 45 and by half a radian; a small search nearly undoes that in five seconds."""
    goal = torch.zeros(3, 7)
    goal[:, 2:5] = torch.tensor([256.0, 256.0, 0.7])
    goal[:, :2] = torch.tensor([[256.0, 200.0]])
    start = goal.clone()
    start[:, 2] += 45
    start[:, 4] += torch.tensor([0.5, -0.5, 0.5])
    start[:, :2] = torch.tensor([400.0, 400.0])
    config = ExpertConfig(samples=10, iterations=2)
    states = rollout(WORLD, Expert(WORLD, 3, generator(), goal=goal, config=config), start, 50)[0]
    error = torch.stack([pose_error(s, goal) for s in states.unbind(dim=1)])  # T1 B
    assert (error[0] > 45).all() and error.amin(dim=0).median() < 20


@pytest.mark.parametrize("policy", ["expert", "push", "weak"])
def test_the_same_seed_gives_the_same_episodes_and_each_shard_its_own(policy, tmp_path):
    recipe = Recipe("pusht", episodes=3, policy=policy, steps=5, shard=2)
    one, again = (collect(recipe, folder=tmp_path / name) for name in "ab")
    assert torch.equal(one.states, again.states) and one.states.shape == (3 * 6, 7)
    assert len({tuple(s) for s in one.states[one.ep_offset].tolist()}) == 3


def test_push_t_is_found_by_its_name():
    assert isinstance(world_named("pusht"), PushT) and isinstance(WORLD, World)
    assert corners(torch.tensor([[256.0, 256.0, 0.0]])).shape == (1, 6, 2)
    with pytest.raises(ValueError, match="no policy 'noisy'; choose one of expert, push, weak, random"):
        WORLD.policy("noisy", 1, generator())


def test_what_is_apart_by_little_is_a_success_and_a_block_may_lie_right_while_the_pusher_is_elsewhere():
    goal = WORLD.reset(2000, generator())
    state = goal + torch.tensor([8.0, 8.0, 8.0, 8.0, 0.3, 0.0, 0.0]) * torch.randn(2000, 7, generator=generator(1))
    state[:, 4] += 2 * math.pi * (torch.arange(2000) % 2)  # a full turn is none
    d, ok = apart(state, goal), WORLD.success(state, goal)
    assert ok[d < NEAR**2].all() and not ok[d >= 2 * NEAR**2].any() and 0.2 < ok.float().mean() < 0.8
    turned = goal.clone()
    turned[:, 4] -= TURNED
    torch.testing.assert_close(apart(turned, goal), torch.full((2000,), NEAR**2), rtol=1e-3, atol=0)
    away = goal.clone()
    away[:, :2] += 100
    assert lies(away, goal).all() and not WORLD.success(away, goal).any()
    assert (lies(state, goal) >= ok).all()
