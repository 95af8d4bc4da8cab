"""Every experiment of chapter 3 runs from end to end in small, is drawn, and records a number where one is meant."""

import math
from dataclasses import asdict, replace

import matplotlib.pyplot as plt
import pytest
import torch

from minilab.core.records import Record, flatten
from minilab.lewm import experiments_learn, figures_records
from minilab.lewm.collect import Recipe
from minilab.lewm.decoder import reconstruction_error
from minilab.lewm.experiments import EXPERIMENTS
from minilab.lewm.experiments_learn import KNOBS, knobs, turned
from minilab.lewm.experiments_plan import NEVER, SUCCESS, imagination, success
from minilab.lewm.learn import foresight, load_model
from minilab.lewm.planner import small
from minilab.lewm.ship import load_decoder
from minilab.lewm.study import QUICK, Ground, share, with_learning

TINY = replace(with_learning(QUICK, steps=4, batch=16, directions=16, log_every=2),
               recipe=Recipe("rooms", 100, "noisy"), tasks=4, budget=10, plan=small(samples=8, elites=2, iterations=1))
CHANGES = {"collapse": {"frames": 60, "arms": ("sigreg", "ema", "pldm", "prediction", "frozen_random")},
           "probes": {"frames": 60}, "crossing": {"budget": 10}, "surprise": {"films": 6}, "success": {"far": 50},
           "suspects": {"pictures": 60, "reader_steps": 2, "pairs": 20},
           "diet": {"pictures": 60, "reader_steps": 2, "clips": 20, "policies": ("mixed", "wavering")},
           "recordings": {"episodes": (20, 100)}}
FIGURES = {"collapse": (figures_records.collapse, figures_records.curves), "knobs": (figures_records.knobs,),
           "success": (figures_records.success,), "crossing": (figures_records.crossing,),
           "planners": (figures_records.planners,), "suspects": (figures_records.suspects,),
           "diet": (figures_records.diet,), "recordings": (figures_records.recordings,),
           "probes": (lambda r: figures_records.probes(r, "rooms"),),
           "surprise": (lambda r: figures_records.surprise(r, "rooms"),),
           "shape": (figures_records.maps, figures_records.distance)}


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path))


@pytest.mark.parametrize("name", FIGURES)
def test_experiment_runs_in_small_and_is_drawn(name):
    preset = EXPERIMENTS[name].presets["cpu"]
    others = {"shape": ("rooms", "smooth"), "diet": ("disc", ""), "recordings": ("disc", "")}
    world, policy = others.get(name, ("rooms", "noisy"))
    tiny = replace(TINY, recipe=replace(TINY.recipe, world=world, policy=policy))
    setting = {"settings": (tiny,)} if hasattr(preset, "settings") else {"setting": tiny}
    record = EXPERIMENTS[name].run(replace(preset, **setting, **CHANGES.get(name, {})))
    numbers = dict(flatten(record.results))
    assert len(numbers) > 5
    for key, value in numbers.items():
        assert isinstance(value, str) or math.isfinite(value), key
    for draw in FIGURES[name]:
        fig = draw(record)
        fig.canvas.draw()
        assert all(ax.get_xlabel() or ax.get_title() or ax.get_ylabel() for ax in fig.axes if ax.has_data())
        plt.close(fig)


@pytest.mark.parametrize("preset", KNOBS.values(), ids=KNOBS)
def test_a_turned_knob_changes_one_thing_and_its_usual_position_is_among_the_others(preset):
    usual, seen = dict(flatten(asdict(preset.setting))), {}
    for knob, label, setting in turned(preset):
        seen.setdefault(knob, {})[label] = setting
        fields = dict(flatten(asdict(setting)))
        changed = {name for name in fields.keys() | usual.keys() if fields.get(name) != usual.get(name)}
        if knob == "batch, lam * batch held":
            product = [s.learning.lam * s.learning.batch for s in (setting, preset.setting)]
            assert changed <= {"learning.lam", "learning.batch"} and product[0] == pytest.approx(product[1])
        else:
            part = {"lam": "learning.", "batch, lam held": "learning.", "directions": "learning.", "knots": "learning.",
                    "steps": "learning.", "encoder": "config.vision."}.get(knob, "config.")
            assert all(name.startswith(part) for name in changed) and (knob == "encoder" or len(changed) <= 1)
    assert all(list(rows.values()).count(preset.setting) == 1 and len(rows) > 1 for rows in seen.values())


def test_knobs_look_at_each_setting_once(monkeypatch):
    looked = []

    def look(setting, frames, device):
        looked.append(setting)
        return {"of": len(looked)}

    monkeypatch.setattr(experiments_learn, "_learned", look)
    rows = knobs(KNOBS["cpu"]).results["knobs"]
    assert len(set(looked)) == len(looked) < sum(map(len, rows.values()))
    assert rows["lam"]["0.1"] == rows["latent"]["32"] != rows["latent"]["8"]


def test_all_policies_of_a_diet_are_tried_and_read_on_the_same_episodes():
    tiny = replace(TINY, recipe=replace(TINY.recipe, world="disc", policy=""))
    preset = replace(EXPERIMENTS["diet"].presets["cpu"], setting=tiny, **CHANGES["diet"])
    rows = EXPERIMENTS["diet"].run(preset).results["policies"]
    moved = [row["reading"]["recorded, unmoved"] for row in rows.values()]  # no model has a part in it
    assert moved[0] == moved[1] and rows["mixed"]["reading"]["seen"] != rows["wavering"]["reading"]["seen"]


def test_models_of_few_and_of_mirrored_recordings_are_tried_on_the_same_episodes():
    tiny = replace(TINY, recipe=replace(TINY.recipe, world="disc", policy=""))
    preset = replace(EXPERIMENTS["recordings"].presets["cpu"], setting=tiny, **CHANGES["recordings"])
    rows = EXPERIMENTS["recordings"].run(preset).results["episodes"]
    trials = {row[how]["cem"]["cases"]["to be pushed"]["trials"] for row in rows.values() for how in row}
    assert len(trials) == 1 and set(rows) == {"20", str(tiny.recipe.episodes)}
    errors = {row[how]["foresight"]["imagined"][-1] for row in rows.values() for how in row}
    assert len(errors) == 4  # each is another model
    alone = EXPERIMENTS["recordings"].run(replace(preset, ways=("mirrored",))).results["episodes"]
    assert alone == {count: {"mirrored": row["mirrored"]} for count, row in rows.items()}


def test_rivals_of_two_records_stand_in_one_picture():
    record = success(replace(SUCCESS["cpu"], settings=(TINY,), far=NEVER))
    other = replace(record, results={"worlds": {"rooms": {"cloning": record.results["worlds"]["rooms"]["chance"]}}})
    ticks = [label.get_text() for label in figures_records.success(record, other).axes[0].get_yticklabels()]
    assert sorted(ticks) == sorted(figures_records.LABELS[arm] for arm in ("sigreg", "chance", "cloning"))


def test_hindsight_is_of_what_was_learned_from_and_foresight_of_what_was_not():
    ground = Ground(TINY, "cpu")
    trained = ground.trained("sigreg", 0)
    found = imagination(ground, [trained], clips=40)
    for name, data in (("foresight", ground.unseen), ("hindsight", ground.seen)):
        clip = ground.clips_of(data, TINY.plan.horizon + 1).draw(40, ground.generator(8))
        assert found[name]["imagined"] == pytest.approx(foresight(trained.model, clip).imagined.tolist())


def test_recordings_are_drawn_from_few_to_many_and_each_error_where_it_belongs():
    record = Record.load("lewm/recordings", preset="two-cores")
    fig = figures_records.recordings(record)
    lines = {line.get_label(): list(line.get_ydata()) for line in fig.axes[1].lines}
    plt.close(fig)
    for how in ("as recorded", "mirrored"):
        for part, shown in (("foresight", "held out"), ("hindsight", "learned from")):
            assert lines[f"{how}, {shown}"] == [record.results["episodes"][n][how][part]["imagined"][-1]
                                                for n in ("60", "300", "1000")]


def test_who_plans_is_asked_how_far_ahead_it_imagines():
    rows = success(replace(SUCCESS["cpu"], settings=(TINY,), far=NEVER)).results["worlds"]["rooms"]
    assert "foresight" not in rows["chance"]
    assert rows["sigreg"]["foresight"] != rows["sigreg"]["hindsight"]
    for errors in rows["sigreg"]["foresight"].values():
        assert len(errors) == TINY.plan.horizon and all(error > 0 for error in errors)


def test_a_figure_shows_each_training_beside_their_mean():
    record = Record.load("lewm/success", preset="gpu")
    fig = figures_records.success(record)
    drawn = {float(x) for ax in fig.axes for line in ax.lines for x in line.get_xdata()}
    plt.close(fig)
    near = [row["near"] for rows in record.results["worlds"].values() for row in rows.values()]
    assert all(len(row["each"]) == 3 for row in near)
    assert {100 * x for row in near for x in (row["mean"], *row["each"])} <= drawn


def test_planning_times_and_their_ratios_stand_in_the_row_of_their_way_the_slowest_on_top():
    records = [Record.load("lewm/planning_speed", preset=preset) for preset in ("cpu", "gpu", "gpu-paper")]
    fig = figures_records.planning(*records)
    for ax, record in zip(fig.axes, records, strict=True):
        found, ways = record.results, [label.get_text() for label in ax.get_yticklabels()]
        assert sorted(ways) == sorted(found["times_lewm"])
        ours, theirs = ([float(x) for x in line.get_xdata()] for line in ax.lines if line.get_marker() == "o")
        for model, drawn in (("LeWM", ours), ("patch tokens", theirs)):
            assert drawn == [found["seconds"][f"{model}, {way}"]["median"] for way in ways]
        assert ours == sorted(ours)
        assert [text.get_text() for text in ax.texts] == [f"{found['times_lewm'][way]['median']:.0f} times"
                                                          for way in ways]
        assert str(found["tokens"]["patch tokens"]) in ax.get_title()
    plt.close(fig)


def test_what_was_trained_once_comes_back_with_its_history():
    first, second = (Ground(TINY, "cpu").trained("sigreg", 0) for _ in range(2))
    assert len(first.history.moments) > 0 and first.history.moments == second.history.moments
    for mine, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_who_learns_from_mirrored_clips_is_trained_anew_and_tried_on_what_was_recorded():
    setting = replace(TINY, recipe=Recipe("disc", 100))
    plain, mirrored = Ground(setting, "cpu"), Ground(replace(setting, mirrored=True, drawn=True), "cpu")
    assert mirrored.clips.mirrored and not (plain.clips.mirrored or mirrored.held_out.mirrored)
    assert all(torch.equal(a, b) for a, b in zip(plain.tasks(5), mirrored.tasks(5), strict=True))
    models = [ground.trained("sigreg", 0).model for ground in (plain, mirrored)]
    assert not torch.equal(*(next(model.parameters()) for model in models))


def test_another_setting_is_trained_anew():
    one = Ground(TINY, "cpu").trained("sigreg", 0).model
    for other in (Ground(TINY, "cpu").trained("sigreg", 1).model,
                  Ground(with_learning(TINY, lam=1.0), "cpu").trained("sigreg", 0).model):
        assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_tasks_lie_a_stretch_apart_in_one_held_out_episode():
    ground = Ground(TINY, "cpu")
    assert len(ground.seen) + len(ground.unseen) == TINY.recipe.episodes
    pairs = set()
    for i in range(len(ground.unseen)):
        states, _ = ground.unseen.episode(i)
        rows = [tuple(row) for row in states.tolist()]
        pairs |= set(zip(rows, rows[TINY.ahead :], strict=False))
    start, goal = ground.tasks(20)
    assert set(zip(map(tuple, start.tolist()), map(tuple, goal.tolist()), strict=True)) <= pairs


def test_a_swift_setting_trains_the_same_and_plans_in_16_bits():
    usual, swift = Ground(TINY, "cpu"), Ground(replace(TINY, swift=True), "cpu")
    trained = usual.trained("sigreg", 0)
    for mine, other in zip(trained.model.parameters(), swift.trained("sigreg", 0).model.parameters(), strict=True):
        assert torch.equal(mine, other)
    agents = [ground.agent(trained, 0) for ground in (usual, swift)]
    assert [type(agent.model).__name__ for agent in agents] == ["LeWM", "Swift"]
    assert next(agents[1].model.model.predictor.parameters()).dtype == torch.bfloat16
    z = torch.randn(1, 1, TINY.config.latent).expand(64, -1, -1)
    blocks = torch.randn(64, 5, TINY.config.actions)
    far, near = (agent.model.imagine(z, blocks) for agent in agents)
    assert 0 < (far - near).square().mean().sqrt() < 0.05 * far.std()
    start, goal = usual.tasks(2, 0)
    assert swift.reached(agents[1], 0, tasks=(start, goal), budget=5).shape == (2,)


def test_share_has_the_interval_of_wilson():
    # By hand: p = 0.9, n = 10, z = 1.959964.
    found = share([torch.tensor([True] * 4 + [False]), torch.ones(5, dtype=torch.bool)])
    assert found["mean"] == pytest.approx(0.9) and found["trials"] == 10 and found["each"] == pytest.approx([0.8, 1.0])
    assert (found["low"], found["high"]) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert share([torch.ones(7, dtype=torch.bool)])["high"] == 1.0


def test_models_that_ship_are_those_that_were_trained(tmp_path):
    preset = EXPERIMENTS["models"].presets["cpu"]
    record = EXPERIMENTS["models"].run(replace(preset, setting=TINY, decoder_steps=3, out=str(tmp_path / "out")))
    assert set(record.results["bytes"]) == {"rooms.safetensors", "rooms-decoder.safetensors"}
    model, scale = load_model(tmp_path / "out" / "rooms.safetensors")
    ground = Ground(TINY, "cpu")
    trained = ground.trained("sigreg", 0).model
    clip = ground.held_out.draw(32, ground.generator(0))
    close = (model.encode(clip.frames) - trained.encode(clip.frames)).norm() / trained.encode(clip.frames).norm()
    assert close < 0.05  # 8 bits
    torch.testing.assert_close(scale.mean, ground.seen.scale.mean)
    decoder = load_decoder(tmp_path / "out" / "rooms-decoder.safetensors")
    assert float(reconstruction_error(decoder, model.encode(clip.frames), clip.frames)) == pytest.approx(
        record.results["shipped"]["drawing"], rel=1.0)
