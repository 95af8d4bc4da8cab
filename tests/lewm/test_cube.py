"""Cube: a cube that is held, falls when let go and stays where it lies; MuJoCo's own contacts as the reference."""

import math

import mujoco
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from minilab.lewm.collect import Recipe, collect, rollout
from minilab.lewm.data import Clips
from minilab.lewm.probes import quantities
from minilab.lewm.surprise import films
from minilab.lewm.worlds import World, distances, world_named
from minilab.lewm.worlds.cube import CAMERA, HALF, HIGH, LOW, NEAR, OPEN, STRIDE, TRAY, Cube, _model, held

WORLD = Cube()
OPENED, SHUT = -1.0, 1.0
NOTHING_TO_DO = [0.0, 0, 0, OPENED]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def state_of(hand=(0.0, 0.0, 0.1), width=OPEN, cube=(0.0, 0.0, HALF), turn=(0.0, 0.0, 0.0)):
    return torch.tensor([[*hand, width, *cube, *turn]])


def after(state, action, steps=1):
    """States (B T1 S) under one action."""
    states = [state]
    for _ in range(steps):
        states.append(WORLD.step(states[-1], torch.tensor([action]).expand(len(state), 4)))
    return torch.stack(states, dim=1)


def contacts(state):
    """By MuJoCo's collisions, for each state: names of what touches or overlaps, and how far apart (below 0: in it)."""
    model = _model()
    data = mujoco.MjData(model)
    quaternion = Rotation.from_rotvec(state[:, 7:].double().numpy()).as_quat(scalar_first=True)
    for row, q in zip(state.double().numpy(), quaternion, strict=True):
        data.qpos[:] = (*row[:3], row[3] / 2, row[3] / 2, *row[4:7], *q)
        mujoco.mj_fwdPosition(model, data)
        names = [{model.geom(i).name for i in pair} - {"cube"} for pair in data.contact.geom]
        yield [name for (name,) in names], data.contact.dist.copy()


def deepest(state):
    """How deep something is in the cube, for each state, in meters."""
    return np.array([max(0.0, -min(far, default=0.0)) for _, far in contacts(state)])


def corners(state):
    """The cube's corners (B 8 3)."""
    signs = HALF * np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, 8).T
    turns = Rotation.from_rotvec(state[:, 7:].double().numpy()).as_matrix()
    return torch.from_numpy(signs @ turns.transpose(0, 2, 1)) + state[:, None, 4:7]


@pytest.fixture(scope="module")
def played():
    """States (B T1 10) and actions (B T 4) of 25 episodes of each policy."""
    made = []
    for policy in WORLD.policies:
        g = generator()
        start = WORLD.reset(25, g)
        made.append(rollout(WORLD, WORLD.policy(policy, 25, g), start, 60)[:2])
    return tuple(torch.cat(part) for part in zip(*made, strict=True))


def test_starts_are_in_reach_and_touch_nothing_but_the_table():
    state = WORLD.reset(500, generator())
    for axis in range(3):
        assert state[:, axis].min() >= LOW[axis] and state[:, axis].max() <= HIGH[axis]
    assert state[:, 3].min() >= 0 and state[:, 3].max() <= OPEN
    assert state[:, 9].abs().max() <= math.pi / 4 and (state[:, 7:9] == 0).all()
    assert corners(state)[..., :2].abs().max() < TRAY
    assert {name for names, _ in contacts(state) for name in names} <= {"table"} and deepest(state).max() < 1e-6


def test_a_free_hand_goes_as_far_as_a_critically_damped_spring():
    """x(t) = d (1 - (1 + 30 t) e^{-30 t}) after 0.1 s, whatever the fingers do."""
    found = after(state_of(cube=(0.1, 0.1, HALF)), [1.0, -0.5, 0.25, 0.0])[0, 1]
    way = STRIDE * (1 - 4 * math.exp(-3))
    expected = torch.tensor([way, -way / 2, 0.1 + way / 4])
    torch.testing.assert_close(found[:3], expected, atol=0.03 * way, rtol=0)
    edge = after(state_of((HIGH[0], LOW[1], HIGH[2])), [1.0, -1.0, 1.0, OPENED], 3)[0]
    torch.testing.assert_close(edge[-1, :3], edge[0, :3], atol=1e-5, rtol=0)


def test_fingers_shut_and_open_on_command_and_else_stay_as_they_are():
    state = state_of(cube=(0.1, 0.1, HALF))
    for grip, width in ((0.5, OPEN), (0.7, 0.0), (0.5, 0.0), (-0.5, 0.0), (-0.7, OPEN), (-0.5, OPEN)):
        state = after(state, [0.0, 0, 0, grip], 2)[:, -1]
        assert abs(state[0, 3] - width) < 2e-3, grip
    held = after(state_of((0.0, 0.0, HALF)), [0.0, 0, 0, SHUT], 3)[:, -1]
    for grip in (-0.5, 0.5) * 5:
        held = after(held, [0.0, 0, 0.5, grip])[:, -1]
    assert held[0, 6] > 0.15


def test_actions_are_cut_and_numbers_that_are_none_are_refused():
    start = state_of()
    wild, cut = torch.tensor([[3.0, -7.0, 2.0, 5.0]]), torch.tensor([[1.0, -1.0, 1.0, 1.0]])
    assert torch.equal(WORLD.step(start, wild), WORLD.step(start, cut))
    for broken in ((start * float("nan"), cut), (start, cut * float("inf") * 0)):
        with pytest.raises(ValueError, match="NaN or infinite"):
            WORLD.step(*broken)


def test_a_state_is_the_whole_state_and_copies_do_not_know_of_each_other(played):
    """Bit by bit: episodes again from the middle, in another order, and one by one."""
    states, actions = played
    order = torch.randperm(len(states), generator=generator())
    state = states[order, 50]
    for t in range(50, 60):
        state = WORLD.step(state, actions[order, t])
    assert torch.equal(state, states[order, 60])
    for i in range(0, len(states), 4):
        assert torch.equal(WORLD.step(states[i : i + 1, 20], actions[i : i + 1, 20]), states[i : i + 1, 21])


def test_a_cube_that_lies_and_is_not_touched_stays(played):
    before, then = (x.flatten(0, 1) for x in (played[0][:, :-1], played[0][:, 1:]))
    lies = (before[:, 7:9].abs().amax(dim=1) < 1e-4) & ((before[:, 6] - HALF).abs() < 3e-5)
    above = torch.minimum(before, then)[:, 2] - 0.02 > 2 * HALF + 5e-3  # the fingers' ends
    assert (lies & above).sum() > 500
    assert (before - then)[lies & above, 4:].abs().max() < 1e-4
    rested = after(WORLD.reset(20, generator()), NOTHING_TO_DO, 30)
    assert (rested[:, 30] - rested[:, 0])[:, 4:].abs().max() < 1e-4


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.78])
def test_a_gripped_cube_follows_the_hand_and_a_dropped_one_lands_where_it_was(angle):
    """By its faces, askew, and by two edges."""
    state = state_of((0.0, 0.0, HALF), turn=(0.0, 0.0, angle))
    held = after(state, [0.0, 0, 0, SHUT], 3)[:, -1]
    assert {"left", "right"} <= set(next(iter(contacts(held)))[0]) and 2 * HALF - 2e-3 < held[0, 3] < 0.073
    up = after(held, [0.0, 0, 1, SHUT], 4)[:, -1]
    across = after(up, [1.0, -0.5, 0, SHUT], 3)[:, -1]
    assert up[0, 6] > 0.15 and across[0, 4] > 0.09 and across[0, 5] < -0.045
    torch.testing.assert_close((across - held)[0, 4:7], (across - held)[0, :3], atol=2e-3, rtol=0)
    assert next(iter(contacts(across)))[0].count("table") == 0
    fall = after(across, NOTHING_TO_DO, 6)[0]
    steps = fall[:-1, 6] - fall[1:, 6]  # half of g t^2 in 0.1 s from rest, and no more in the next
    torch.testing.assert_close(steps[:2], torch.full((2,), 9.81 * 0.1**2 / 2), atol=3e-3, rtol=0)
    torch.testing.assert_close(fall[-1, 4:7], torch.tensor([*across[0, 4:6], HALF]), atol=2e-3, rtol=0)


def test_a_cube_falls_on_a_face_however_it_is_turned():
    g = generator()
    state = WORLD.reset(60, g)
    state[:, :3] = torch.tensor([LOW[0], HIGH[1], HIGH[2]])
    state[:, 4:6], state[:, 6] = 0.05 * torch.randn(60, 2, generator=g).clamp(-1, 1), 0.12
    state[:, 7:] = 0.4 * torch.randn(60, 3, generator=g)
    state = after(state, NOTHING_TO_DO, 25)[:, -1]
    assert (state[:, 6] - HALF).abs().max() < 1e-3 and state[:, 7:9].abs().max() < 0.01


def test_a_shut_hand_pushes_the_cube_and_turns_it_from_beside_its_middle():
    straight, beside = (after(state_of((x, -0.08, HALF), 0.0), [0.0, 0.5, 0, SHUT], 6)[0] for x in (0.0, 0.02))
    assert straight[-1, 5] > 0.03 and straight[:, 4].abs().max() < 1e-3 and straight[:, 9].abs().max() < 1e-2
    assert beside[-1, 5] > 0.02 and beside[:, 9].max() > 0.1  # counterclockwise: its right is pushed away
    torch.testing.assert_close(straight[1, 4:7], straight[0, 4:7], atol=1e-4, rtol=0)  # not before it is touched


def test_nothing_gets_into_the_cube_by_more_than_a_tenth_of_its_side_or_leaves_the_tray(played):
    states = played[0].flatten(0, 1)
    assert deepest(states[::2]).max() < 0.1 * 2 * HALF
    assert corners(states)[..., :2].abs().max() < TRAY + 5e-3 and corners(states)[..., 2].min() > -5e-3
    assert states[:, 3].min() > -5e-3 and states[:, 3].max() < OPEN + 5e-3  # fingers do not pass each other
    for axis in range(3):
        assert states[:, axis].min() > LOW[axis] - 0.01 and states[:, axis].max() < HIGH[axis] + 0.01


def test_full_speed_into_walls_corners_and_the_table_squeezes_nothing_out():
    """The hand, open or shut, runs at cubes in the middle, at walls and in corners from all around, for 3 seconds."""
    reach = TRAY - math.sqrt(2) * HALF
    place = torch.tensor([-reach, 0.0, reach])
    grid = torch.cartesian_prod(place, place, torch.tensor([0.0, 0.5]), torch.arange(6) * math.pi / 3)
    out = 0.09 * torch.stack((grid[:, 3].cos(), grid[:, 3].sin()), dim=1)
    state = torch.zeros(len(grid), 10)
    state[:, :2] = (grid[:, :2] + out).clamp(LOW[0], HIGH[0])
    state[:, 2], state[:, 3], state[:, 4:6], state[:, 6], state[:, 9] = HALF, 0, grid[:, :2], HALF, grid[:, 2]
    start = state = state[deepest(state) < 1e-6]
    grip = torch.tensor([SHUT, OPENED]).repeat(len(state))[: len(state), None]
    assert len(state) >= 80
    worst = 0.0
    for _ in range(30):
        aim = (state[:, 4:7] - state[:, :3]) / STRIDE
        state = WORLD.step(state, torch.cat((aim / aim.abs().amax(dim=1, keepdim=True).clamp(min=1e-3), grip), dim=1))
        worst = max(worst, deepest(state).max(), float(corners(state)[..., :2].abs().max()) - TRAY)
    assert worst < 0.1 * 2 * HALF
    away = after(state, [0.0, 0, 1, OPENED], 12)[:, -1]
    assert deepest(away).max() < 1e-3 and ((away - start)[:, 4:6].norm(dim=1) > 3e-3).float().mean() > 0.7


def test_a_cube_turned_by_any_of_its_symmetries_is_the_same_in_pictures_success_and_state():
    """The 24 turns from a group that is not ours; the state after a step holds the smallest of them."""
    symmetries = Rotation.create_group("O")
    base = state_of((-0.1, 0.1, 0.15), cube=(0.02, -0.03, HALF), turn=(0.0, 0.0, 0.6))
    turned = base.repeat(24, 1)
    turned[:, 7:] = torch.from_numpy((Rotation.from_rotvec(base[0, 7:].numpy()) * symmetries).as_rotvec())
    assert turned[:, 7:].norm(dim=1).max() > 2
    pictures = WORLD.render(turned, 64).int()
    assert (pictures - pictures[:1]).abs().max() <= 2
    assert torch.equal(WORLD.success(turned, base.repeat(24, 1)), torch.ones(24, dtype=torch.bool))
    found = after(turned, NOTHING_TO_DO)[:, 1]
    torch.testing.assert_close(found, base.repeat(24, 1), atol=1e-4, rtol=0)


def test_the_state_holds_the_smallest_turn_of_a_cube_in_the_air():
    g = generator()
    state = state_of((-0.1, 0.1, 0.15), cube=(0.0, 0.0, 0.15)).repeat(50, 1)
    state[:, 7:] = 1.5 * torch.randn(50, 3, generator=g)
    found = after(state, NOTHING_TO_DO)[:, 1, 7:].double().numpy()
    alike = Rotation.from_rotvec(state[:, None, 7:].double().numpy().repeat(24, axis=1).reshape(-1, 3)) * (
        Rotation.concatenate([Rotation.create_group("O")] * 50))
    vectors = alike.as_rotvec().reshape(50, 24, 3)
    angle = np.linalg.norm(vectors, axis=2)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), angle.min(axis=1), atol=1e-4)
    np.testing.assert_allclose(found, vectors[np.arange(50), angle.argmin(axis=1)], atol=1e-4)


def test_success_counts_the_place_of_the_cube_alone():
    goal = state_of(cube=(0.02, 0.0, 0.1))
    elsewhere = torch.tensor([0.1, 0.1, 0.05, 0.03, 0, 0, 0, 0.1, 0, 0.5])
    for way, expected in (([0.0, 0, 0], True), ([0.03, 0, 0.02], True), ([0.03, 0, 0.03], False),
                          ([0, 0, NEAR + 1e-3], False), ([0, NEAR - 1e-3, 0], True)):
        state = goal + elsewhere
        state[:, 4:7] += torch.tensor(way)
        assert WORLD.success(state, goal).item() is expected and WORLD.success(goal, state).item() is expected


def test_the_distance_of_two_quarter_angles_is_the_shorter_way_round():
    a, b = torch.zeros(2, 10), torch.zeros(2, 10)
    a[:, 9], b[:, 9] = torch.tensor([0.75, 0.3]), torch.tensor([-0.75, -0.3])
    found = distances(WORLD, a, b)["cube quarter angle"]
    torch.testing.assert_close(found, torch.tensor([math.pi / 2 - 1.5, 0.6]))


@pytest.mark.parametrize("size", [32, 64, 224])
def test_a_color_repaints_the_cube_where_the_physics_has_it_and_nothing_else(size):
    state = WORLD.reset(20, generator())
    state[:, 2] = HIGH[2]  # the hand hides nothing of a cube on the table
    green, blue = (WORLD.render(state, size, color=torch.tensor([paint]).expand(20, 3)).int()
                   for paint in ([0.0, 200, 0], [0.0, 0, 200]))
    assert torch.equal(green[:, 0], blue[:, 0])  # neither is red
    share = (green - blue)[:, 1].clamp(min=0).float()
    mass, at = share.sum(dim=(1, 2)), (torch.arange(size) + 0.5) / size
    center = torch.stack(((share.sum(dim=1) * at).sum(dim=1), (share.sum(dim=2) * at).sum(dim=1)), dim=1)
    off = center / mass[:, None] - CAMERA.sees(state[:, 4:7])  # the top is brighter than the sides: a little above
    assert off.abs().max() < 0.02 and mass.min() > 0.5 * mass.median()
    assert torch.equal(WORLD.render(state[7:8], size)[0], WORLD.render(state, size)[7])


def test_the_expert_carries_and_lifts_the_cube_and_chance_hardly_moves_it(played):
    cube = played[0][..., 4:7].unflatten(0, (3, 25))
    path = (cube[:, :, 1:] - cube[:, :, :-1]).norm(dim=-1).sum(dim=2)  # policy B
    lifted = (cube[..., 2] > 2 * HALF).any(dim=2).float().mean(dim=1)
    far = ((cube[:, :, 25:] - cube[:, :, :-25]).norm(dim=-1) > NEAR).float().mean(dim=(1, 2))
    expert, play, random = range(3)
    assert (path[expert] > 0.1).all() and lifted[expert] > 0.9 and far[expert] > 0.6
    assert path[play].mean() > 0.2 and path[random].median() < 0.1 and lifted[random] < 0.15
    assert path[expert].mean() > 3 * path[random].mean() and far[random] < 0.35


@pytest.mark.parametrize("policy", ["expert", "play"])
def test_the_same_seed_gives_the_same_episodes_and_each_shard_its_own(policy, tmp_path):
    recipe = Recipe("cube", episodes=3, policy=policy, steps=5, shard=2)
    one, again = (collect(recipe, folder=tmp_path / name) for name in "ab")
    assert torch.equal(one.states, again.states) and one.states.shape == (3 * 6, 10)
    assert len({tuple(s) for s in one.states[one.ep_offset].tolist()}) == 3


def test_films_and_probes_know_the_cube(tmp_path):
    clips = Clips(collect(Recipe("cube", episodes=4, steps=40), folder=tmp_path), frames=5, size=32)
    shown = films(clips, 6, generator())
    for name, frames in shown.frames.items():
        same = (frames == shown.frames["nominal"]).flatten(2).all(dim=2)
        assert same[:, : shown.event].all() and (name == "nominal" or not same[:, shown.event].any())
    told = quantities(WORLD, clips.draw(6, generator()).states[:, :2], clips.skip)
    assert told["cube xyz"].shape == (6, 3) and told["cube quarter angle"].abs().max() <= math.pi / 4


def test_the_cube_is_found_by_its_name():
    assert isinstance(world_named("cube"), Cube) and isinstance(WORLD, World)
    with pytest.raises(ValueError, match="no policy 'noisy'; choose one of expert, play, random"):
        WORLD.policy("noisy", 1, generator())


def test_a_cube_is_held_by_fingers_that_are_shut_on_it(played):
    on_it = {"hand": (0.0, 0.0, 0.1), "cube": (0.0, 0.0, 0.1)}
    assert held(state_of(**on_it, width=2 * HALF)).all()
    assert not held(state_of(**on_it, width=OPEN)).any()  # around it, and open
    assert not held(state_of(width=0.0)).any()  # shut, and the cube on the table
    states = played[0].flatten(0, 1)
    assert held(states)[states[:, 6] > 2 * HALF].float().mean() > 0.9  # what is in the air falls, or is held
