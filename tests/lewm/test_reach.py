"""A distance learned from single blocks, in rooms whose shortest ways are known."""

import pytest
import torch

from minilab.lewm.experiments_reach import CROSSING, crossing, spearman, way
from minilab.lewm.reach import Reach, ReachConfig, blocks_of, learn_reach, reach_loss
from minilab.lewm.study import QUICK, Ground
from minilab.lewm.worlds import world_named
from minilab.lewm.worlds.rooms import DOOR, WALL

ROOMS = world_named("rooms")


@pytest.fixture(scope="module")
def rooms():
    """Random blocks of five equal steps in Two Rooms, and latents that tell near places apart, and not far ones."""
    g = torch.Generator().manual_seed(0)
    waves, phase = torch.randn(2, 32, generator=g) / 40, 6.28 * torch.rand(32, generator=g)

    def encode(state):
        return 1.4 * (state @ waves + phase).cos()

    start = ROOMS.reset(20_000, g)
    # As in the data, some begin at the door; `reset` has none there.
    start[:1000] = torch.tensor([WALL, DOOR]) + (torch.rand(1000, 2, generator=g) - 0.5) * torch.tensor([20.0, 25.0])
    end, action = start, 2 * torch.rand(20_000, 2, generator=g) - 1
    for _ in range(5):
        end = ROOMS.step(end, action)
    return encode, learn_reach(torch.stack((encode(start), encode(end)), dim=1), ReachConfig(steps=600))


def test_the_distance_ranks_goals_in_the_other_room_as_the_way_by_the_door_does(rooms):
    encode, reach = rooms
    start, goal = ROOMS.opposite(2000, torch.Generator().manual_seed(1))
    true = way(start, goal)
    assert spearman(reach(encode(start), encode(goal)), true) > 0.95
    assert spearman((encode(start) - encode(goal)).norm(dim=1), true) < 0.75


def test_two_sides_of_the_wall_are_farther_apart_than_the_ends_of_a_room(rooms):
    encode, reach = rooms
    y = torch.tensor([140.0, 170.0, 200.0])
    sides = [torch.stack((torch.full_like(y, x), y), dim=1) for x in (WALL - 14.0, WALL + 14.0)]
    behind = reach(encode(sides[0]), encode(sides[1]))
    across = reach(encode(torch.tensor([[30.0, 200.0]])), encode(torch.tensor([[95.0, 30.0]])))
    assert behind.min() > across


def test_a_chain_of_which_only_single_links_are_known_is_as_long_as_its_links():
    place = torch.arange(12.0)
    links = torch.stack((place[:-1], place[1:]), dim=1)[..., None] / 4  # N 2 1
    reach = learn_reach(links, ReachConfig(steps=400, weight=200.0), seed=1)
    d = reach(torch.zeros(12, 1), place[:, None] / 4)
    torch.testing.assert_close(d, place, atol=0.7, rtol=0.1)


def test_the_loss_counts_long_blocks_alone_and_pulls_starts_from_other_blocks_ends():
    reach = Reach(1)
    reach.psi = torch.nn.Identity()
    z = torch.tensor([[0.0, 0.5], [10.0, 13.0]])[..., None]
    # Of the blocks only the second is too long, by 2; from 0 to 13 and from 10 to 0.5 it is 11.25 on average.
    assert float(reach_loss(reach, z, 7.0)) == pytest.approx(7 * (0 + 4) / 2 - (13 + 9.5) / 2)


def test_a_seed_says_what_is_learned_and_nothing_else_is_moved():
    z = torch.randn(64, 2, 3, generator=torch.Generator().manual_seed(0))
    before, state = z.clone(), torch.get_rng_state()
    a, b, c = (learn_reach(z, ReachConfig(steps=3), seed=seed)(z[:, 0], z[:, 1]) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(z, before) and torch.equal(torch.get_rng_state(), state)
    assert not a.requires_grad


def test_blocks_are_latents_one_block_apart():
    ground = Ground(QUICK, "cpu")
    model = ground.trained("sigreg", 0).model
    clips = ground.clips_of(ground.seen, 2)
    z = blocks_of(model, clips, 30, ground.generator(0), batch=20)
    again = ground.generator(0)
    frames = torch.cat([clips.draw(n, again).frames for n in (20, 10)])
    assert z.shape == (30, 2, 32)
    torch.testing.assert_close(z, model.encode(frames))


def test_the_way_to_the_other_room_leads_by_the_door():
    a, b, c = torch.tensor([[82.0, 89.0], [142.0, 89.0], [82.0, 9.0]])[:, None]
    assert float(way(a, b)) == pytest.approx(100.0) and float(way(a, c)) == pytest.approx(80.0)
    assert spearman(torch.tensor([1.0, 5.0, 2.0]), torch.tensor([0.1, 0.3, 0.2])) == pytest.approx(1.0)


def test_the_experiment_tries_each_distance_on_far_and_near_goals():
    results = crossing(CROSSING["cpu"]).results
    assert set(results["rows"]) == {"chance"} | {
        f"{name}, {cost}" for name in ("squared", "reach", "way") for cost in ("last", "mean")}
    for row in results["rows"].values():
        assert row["opposite"]["trials"] == row["near"]["trials"] == 4
    assert all(len(each) == 1 and -1 <= each[0] <= 1 for each in results["ranks"].values())
