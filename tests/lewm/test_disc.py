"""Push a disc: what touches moves, what does not stays, and nothing leaves the table."""

import pytest
import torch

from minilab.lewm.collect import rollout
from minilab.lewm.worlds import World, distances, world_named
from minilab.lewm.worlds.disc import DISC, HIGH, LOW, PUSHER, SPEED, SUBSTEPS, TOUCH, Disc

WORLD = Disc()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pushed(policy, copies=200, steps=200, seed=0):
    """States (B T1 4) and actions (B T 2) of a policy."""
    g = generator(seed)
    start = WORLD.reset(copies, g)
    return rollout(WORLD, WORLD.policy(policy, copies, g), start, steps)[:2]


def gap(state):
    return (state[..., 2:] - state[..., :2]).norm(dim=-1) - TOUCH


@pytest.mark.parametrize("policy", WORLD.policies)
def test_nothing_leaves_the_table_and_nothing_overlaps(policy):
    states, _ = pushed(policy)
    for at, radius in ((states[..., :2], PUSHER), (states[..., 2:], DISC)):
        assert at.min() >= LOW + radius and at.max() <= HIGH - radius
    assert gap(states).min() > -0.002


def test_full_speed_into_every_wall_and_corner_squeezes_nothing_out():
    """The pusher runs at the disc from all around for 100 steps, with the disc in corners and at walls."""
    ends = torch.tensor([LOW + DISC, (LOW + HIGH) / 2, HIGH - DISC])
    angle = torch.linspace(0, 2 * torch.pi, 73)[:-1]
    disc = torch.cartesian_prod(ends, ends).repeat_interleave(72, dim=0)
    out = torch.stack((angle.cos(), angle.sin()), dim=1).repeat(9, 1)
    pusher = (disc + 60 * out).clamp(LOW + PUSHER, HIGH - PUSHER)
    state = torch.cat((pusher, disc), dim=1)[gap(torch.cat((pusher, disc), dim=1)) > 0]
    for _ in range(100):
        aim = state[:, 2:] - state[:, :2]
        state = WORLD.step(state, aim / aim.abs().amax(dim=1, keepdim=True))
        assert gap(state).min() > -0.002
        assert state[:, 2:].min() >= LOW + DISC and state[:, 2:].max() <= HIGH - DISC


def test_the_disc_moves_only_when_it_is_touched_and_then_by_no_more_than_the_pusher():
    states, _ = pushed("mixed")
    before, after = states[:, :-1], states[:, 1:]
    moved = (after - before)[..., 2:].norm(dim=-1)
    far = gap(before) > 2**0.5 * SPEED  # out of reach within a step
    assert far.any() and (moved[far] == 0).all()
    assert (moved > 0.1).float().mean() > 0.3
    assert (gap(after)[moved > 0.1] < 2**0.5 * SPEED).all()
    assert moved.max() <= 2**0.5 * SPEED + 0.01


def test_nothing_slides_on():
    """Momentum-free: with the pusher at rest every state stays as it is, right after the hardest push too."""
    states, _ = pushed("push", copies=100, steps=60)
    state = states[:, 1:].flatten(0, 1)
    torch.testing.assert_close(WORLD.step(state, torch.zeros(len(state), 2)), state, atol=0.002, rtol=0)


def test_a_straight_push_moves_the_disc_as_far_as_the_pusher_came_too_near():
    state = torch.tensor([[60.0, 112.0, 60.0 + TOUCH + 2, 112.0]])
    after = WORLD.step(state, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(after, torch.tensor([[66.0, 112.0, 64.0 + TOUCH + 2, 112.0]]))
    for _ in range(40):
        after = WORLD.step(after, torch.tensor([[1.0, 0.0]]))
    at_wall = torch.tensor([[HIGH - DISC - TOUCH, 112.0, HIGH - DISC, 112.0]])
    torch.testing.assert_close(after, at_wall, atol=0.002, rtol=0)


def test_a_push_off_center_moves_the_disc_along_the_line_of_centers():
    """One small step, followed by hand."""
    offset = 20.0
    state = torch.tensor([[100.0, 100.0, 100.0 + (TOUCH**2 - offset**2) ** 0.5, 100.0 + offset]])
    pusher, disc = state[:, :2] + torch.tensor([[SPEED / SUBSTEPS, 0.0]]), state[:, 2:]
    for _ in range(SUBSTEPS):
        line = disc - pusher
        disc = disc + (TOUCH - line.norm()) * line / line.norm()
        expected, pusher = torch.cat((pusher, disc), dim=1), pusher + torch.tensor([[SPEED / SUBSTEPS, 0.0]])
    torch.testing.assert_close(WORLD.step(state, torch.tensor([[1.0, 0.0]])), expected)


def test_a_disc_at_a_wall_is_not_lost():
    """The pusher slides along the wall itself, and the disc comes off it."""
    state = torch.tensor([[LOW + PUSHER, 170.0, LOW + DISC, 112.0]])
    for _ in range(12):
        state = WORLD.step(state, torch.tensor([[0.0, -1.0]]))
    assert state[0, 2] > LOW + DISC + 5


def test_many_copies_are_stepped_and_drawn_as_one_by_one():
    states, actions = pushed("mixed", copies=40, steps=20)
    for i in range(40):
        one = slice(i, i + 1)
        torch.testing.assert_close(WORLD.step(states[one, 19], actions[one, 19]), states[one, 20], rtol=0, atol=1e-4)
    frames = WORLD.render(states[:, 0], 32)
    alone = torch.cat([WORLD.render(states[i : i + 1, 0], 32) for i in range(40)])
    assert (frames.int() - alone.int()).abs().max() <= 1


def test_the_same_seed_gives_the_same_episodes_and_another_one_others():
    a, b, c = (pushed("mixed", copies=20, steps=50, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("size", [32, 64, 224])
def test_disc_and_pusher_stand_where_the_state_says_at_their_size(size):
    """Center of mass and area in pixels, from pictures in which one of the two is out of sight."""
    state = WORLD.reset(100, generator())
    table = WORLD.render(torch.full((1, 4), -1000.0), size).float()
    for which, radius in ((slice(0, 2), PUSHER), (slice(2, 4), DISC)):
        alone = torch.full_like(state, -1000.0)
        alone[:, which] = state[:, which].clamp(LOW + DISC + 2, HIGH - DISC - 2)
        faded = (table - WORLD.render(alone, size).float()).sum(dim=1)
        paint = float(faded[:, :].amax())
        share, pixel = faded / paint, torch.arange(size)
        mass = share.sum(dim=(1, 2))
        center = torch.stack(((share.sum(dim=1) * pixel).sum(dim=1), (share.sum(dim=2) * pixel).sum(dim=1)), dim=1)
        expected = (alone[:, which] + 0.5) * size / 224 - 0.5
        assert (center / mass[:, None] - expected).abs().max() < 0.3
        area = torch.full_like(mass, torch.pi * (radius * size / 224) ** 2)
        torch.testing.assert_close(mass, area, rtol=0.12 if size == 32 else 0.05, atol=0)


def test_edges_are_soft_and_colors_are_exact():
    frame = WORLD.render(torch.tensor([[60.0, 60.0, 140.0, 140.0]]), 224)[0]
    assert frame[:, 60, 60].tolist() == [65, 105, 225] and frame[:, 140, 140].tolist() == [119, 136, 153]
    assert frame[:, 5, 5].tolist() == [255] * 3 and frame[:, 100, 12].tolist() == [0] * 3
    values = frame[0, 140].unique()
    assert len(values) > 3  # more than disc, white and line
    again = WORLD.render(torch.tensor([[60.0, 60.0, 140.0, 140.0]]), 224, color=torch.tensor([[255.0, 0, 0]]))[0]
    assert again[:, 140, 140].tolist() == [255, 0, 0] and again[:, 60, 60].tolist() == [65, 105, 225]


def test_success_counts_the_disc_alone_and_is_symmetric():
    a, b = WORLD.reset(3000, generator()), WORLD.reset(3000, generator(1))
    assert torch.equal(WORLD.success(a, b), WORLD.success(b, a)) and WORLD.success(a, a).all()
    moved = a.clone()
    moved[:, :2] += 50
    assert WORLD.success(moved, a).all()
    apart = distances(WORLD, moved, a)
    torch.testing.assert_close(apart["agent xy"], torch.full((3000,), 50 * 2**0.5))
    assert (apart["disc xy"] == 0).all()
    assert torch.equal(WORLD.success(a, b), distances(WORLD, a, b)["disc xy"] < 12)


def test_the_pushing_policy_moves_the_disc_far_the_weak_one_less_and_chance_hardly():
    path = {}
    for policy in WORLD.policies:
        states, _ = pushed(policy, copies=300, steps=100)
        path[policy] = float((states[:, 1:] - states[:, :-1])[..., 2:].norm(dim=-1).sum(dim=1).mean())
    assert path["push"] > 180 and path["push"] > path["mixed"] > path["weak"] > 80 and path["random"] < 10


def test_the_disc_is_found_by_its_name():
    assert isinstance(world_named("disc"), Disc) and isinstance(WORLD, World)
    with pytest.raises(ValueError, match="no policy 'noisy'; choose one of mixed, push, half, wavering, weak, random"):
        WORLD.policy("noisy", 1, generator())


def test_who_wavers_pushes_half_of_the_time_in_every_episode_and_half_the_copies_of_half_always():
    def pushing(name: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        policy, state, shares = Disc().policy(name, 100, generator), Disc().reset(100, generator), []
        for _ in range(200):
            policy.act(state)
            shares.append(~policy.weak[:, 0])
        return torch.stack(shares).float().mean(dim=0)  # of each copy

    assert set(pushing("half").tolist()) == {0.0, 1.0} and pushing("half").mean() == pytest.approx(0.5, abs=0.1)
    wavering = pushing("wavering")
    assert wavering.mean() == pytest.approx(0.5, abs=0.05) and 0.1 < wavering.min() and wavering.max() < 0.9
