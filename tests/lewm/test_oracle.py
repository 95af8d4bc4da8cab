"""Truth in the place of what is learned: worlds whose answers are known, and models that see one thing alone."""

from dataclasses import replace

import pytest
import torch
from lewm.figure_page import random_model

from minilab.lewm.data import Scale
from minilab.lewm.experiments_plan import by_case, methods
from minilab.lewm.experiments_suspects import SUSPECTS, Noted, metric, planners, promise, suspects, true_distances
from minilab.lewm.model import LeWM, cpu
from minilab.lewm.oracle import TrueWorld, drawn, learn_reader, places, read, watched
from minilab.lewm.planner import small, squared
from minilab.lewm.rollout import Planner, attempt
from minilab.lewm.study import QUICK, Ground
from minilab.lewm.worlds import world_named
from minilab.lewm.worlds.disc import TOUCH

DISC, ROOMS = world_named("disc"), world_named("rooms")
SCALE = Scale(torch.tensor([0.1, -0.2]), torch.tensor([0.5, 0.8]))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pushes(n=6):
    """The pusher left of a disc that it touches, and goals 40 to the right of it."""
    disc = torch.tensor([80.0, 110.0]) + 20 * torch.rand(n, 2, generator=generator())
    start = torch.cat((disc - torch.tensor([TOUCH + 1, 0.0]), disc), dim=1)
    return start, start + torch.tensor([40.0, 0.0, 40.0, 0.0])


class Blue(LeWM):
    """Sees the blue pusher and nothing else: its latent is the middle of what is blue, in every number."""

    def encode(self, frames):
        blue = ((frames[:, :, 2].float() - frames[:, :, 0].float()) > 100).float()  # B T H W
        at, mass = torch.arange(blue.shape[-1]).float(), blue.sum(dim=(-1, -2)).clamp(min=1)
        return torch.stack([(blue.sum(dim=axis) @ at) / mass for axis in (-2, -1)], dim=-1)


class Waves(LeWM):
    """Sees where the red dot is, and says so by four waves, of which none alone tells."""

    def encode(self, frames):
        red = (frames[:, :, 0].float() - frames[:, :, 1].float()).clamp(min=0)  # B T H W
        at, mass = torch.arange(red.shape[-1]) / red.shape[-1], red.sum(dim=(-1, -2))
        x, y = ((red.sum(dim=axis) @ at) / mass for axis in (-2, -1))
        return torch.stack([wave for u in (x + y, x - y) for wave in ((4 * u).sin(), (4 * u).cos())], dim=-1)


def test_the_world_as_a_model_imagines_the_states_that_actions_lead_to():
    start, _ = pushes()
    blocks = torch.randn(6, 3, 10, generator=generator(1))
    found = TrueWorld(DISC, cpu(10), SCALE).imagine(start[:, None], blocks)
    state = start
    for t in range(15):
        state = DISC.step(state, blocks[:, t // 5, 2 * (t % 5) : 2 * (t % 5) + 2] * SCALE.std + SCALE.mean)
        if t % 5 == 4:
            torch.testing.assert_close(found[:, t // 5], state)
    assert (found[:, -1, 2:] != start[:, 2:]).any()


def test_who_plans_in_the_world_itself_pushes_every_disc_to_its_goal():
    start, goal = pushes()
    world = watched(DISC)
    agent = Planner(TrueWorld(world, cpu(10), SCALE), small(method="icem"), SCALE, generator(2),
                    distance=places(DISC, "disc xy"))
    assert attempt(world, agent, start, goal, size=16).success.all()


def test_a_world_that_nobody_watches_is_refused():
    start, goal = pushes()
    agent = Planner(TrueWorld(DISC, cpu(10), SCALE), small(), SCALE)
    with pytest.raises(ValueError, match="watched"):
        attempt(DISC, agent, start, goal, size=16)
    assert not hasattr(DISC, "shown")


def test_a_distance_of_places_counts_the_named_quantities_alone():
    a, b = torch.tensor([1.0, 2.0, 10.0, 20.0]), torch.tensor([4.0, 6.0, 10.0, 25.0])
    assert float(places(DISC, "agent xy")(a, b)) == 25.0 and float(places(DISC, "disc xy")(a, b)) == 25.0
    assert float(places(DISC)(a, b)) == 50.0
    with pytest.raises(ValueError, match="no angle"):
        places(DISC, "angle")


def test_a_distance_of_latents_is_one_of_the_states_whose_pictures_they_are():
    model = random_model()
    states, goals = ROOMS.reset(12, generator()).view(3, 4, 2), ROOMS.reset(3, generator(1))[:, None].expand(3, 4, 2)
    z, z_goal = (model.encode(ROOMS.render(x.reshape(-1, 2), 32)[:, None])[:, 0] for x in (states, goals))
    wanted = (z - z_goal).square().sum(dim=1).view(3, 4)
    torch.testing.assert_close(drawn(model, ROOMS, squared)(states, goals), wanted, rtol=1e-4, atol=1e-4)


def test_a_reader_finds_the_dot_in_latents_that_were_never_taught_to_say_it():
    ground, model = Ground(QUICK, "cpu"), Waves(cpu(10))
    reader = learn_reader(model, ground.clips_of(ground.seen, 1), frames=2000, steps=300)
    clip = ground.held_out.draw(300, ground.generator(3))
    z, true = model.encode(clip.frames[:, :1])[:, 0], clip.states[:, 0]
    error = (reader(z) - true).norm(dim=1).mean()
    assert error < 0.25 * (true - true.mean(dim=0)).norm(dim=1).mean()
    distance = read(reader, places(ROOMS))
    torch.testing.assert_close(distance(z[:5], z[5:10]), (reader(z[:5]) - reader(z[5:10])).square().sum(dim=1))


def test_a_latent_that_holds_the_pusher_alone_weighs_the_disc_by_nothing():
    found = metric(Blue(cpu(10)), DISC, 600, generator())
    assert found["agent xy"] == pytest.approx(1, abs=0.15) and found["disc xy"] < 0.02


def test_the_world_keeps_what_its_plans_promise():
    start, goal = pushes()
    world = watched(DISC)
    agent = Noted(TrueWorld(world, cpu(10), SCALE), small(samples=30, elites=5, iterations=2), SCALE, generator(2),
                  distance=places(DISC, "disc xy"))
    tried = attempt(world, agent, start, goal, size=16)
    found = promise(agent, lambda state: state, DISC, tried, goal)
    assert found["promised"] == pytest.approx(found["kept"], abs=1e-3) and found["kept"] != found["at the start"]
    assert found["at the start"] == pytest.approx(40.0)


def test_the_true_distances_of_two_rooms_know_the_door():
    start, goal = ROOMS.opposite(50, generator())
    distances = true_distances(ROOMS)
    straight, around = distances["place"](start, goal).sqrt(), distances["way"](start[:, None], goal[:, None])[:, 0]
    assert (around >= straight - 1e-3).all() and (around > straight + 1).any()
    pose = true_distances(world_named("pusht"))["pose"]
    assert float(pose(torch.zeros(7), torch.tensor([3.0, 4.0, 0.0, 0.0, 0.0, 9.0, 9.0]))) == 25
    with pytest.raises(ValueError, match="cube"):
        true_distances(world_named("cube"))


def test_tasks_of_the_disc_are_split_by_whether_it_lies_at_its_goal_already():
    setting = replace(QUICK, recipe=replace(QUICK.recipe, world="disc", policy="push"), tasks=40)
    ground = Ground(setting, "cpu")
    start, goal = ground.tasks(40, 0)
    there = (start - goal)[:, 2:].norm(dim=1) < 12
    cases = by_case(ground, [there])["cases"]
    assert cases["there already"]["trials"] == int(there.sum()) > 0 and cases["there already"]["mean"] == 1
    assert cases["to be pushed"]["trials"] == int((~there).sum()) > 0 and cases["to be pushed"]["mean"] == 0


def test_the_experiment_tries_each_part_learned_and_true():
    results = suspects(SUSPECTS["cpu"]).results
    parts = [f"{who}, {distance}, icem" for who in ("model", "world") for distance in ("latents", "place", "way")]
    assert list(results["rows"]) == ["chance", *parts]
    assert list(results["promises"]) == parts[:3]


def test_a_preset_tries_some_parts_only_with_any_planner_of_the_ablation():
    name = "look, and keep the deadline"
    preset = replace(SUSPECTS["cpu"], methods=("icem", name), parts=("world, place", "model, way"))
    ground = Ground(preset.setting, "cpu")
    model = LeWM(preset.setting.config).eval()
    reader = learn_reader(model, ground.clips_of(ground.seen, 1), frames=50, steps=1)
    found = {row: planner for row, planner, _ in planners(model, reader, ground, preset, 0)}
    assert list(found) == ["model, way, icem", "world, place, icem", f"model, way, {name}", f"world, place, {name}"]
    assert isinstance(found[f"world, place, {name}"].model, TrueWorld)
    assert isinstance(found[f"model, way, {name}"].model, LeWM)
    for method in preset.methods:
        for row in ("model, way", "world, place"):
            assert found[f"{row}, {method}"].config == methods(preset.setting.plan)[method]
    results = suspects(replace(preset, methods=(name,))).results
    assert list(results["rows"]) == ["chance", f"model, way, {name}", f"world, place, {name}"]
    assert not results["promises"]  # of a plan that is not run to its end nothing was promised
    assert set(results["reading"]) == {"seen", "recorded", "recorded, unmoved", "drawn", "drawn, unmoved"}
