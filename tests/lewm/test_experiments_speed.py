"""What the chapter's clocks are asked to time, and what is made of the seconds, checked on a clock that is faked."""

import dataclasses
import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from minilab.core.replay import replayed
from minilab.lewm import experiments_speed as speed
from minilab.lewm.data import Scale
from minilab.lewm.decisions import EAGER, LEWM, TOKENS, deciders, decision, decision_flops, rivals
from minilab.lewm.learn import LearnConfig, lewm_loss
from minilab.lewm.model import LeWM, cpu
from minilab.lewm.planner import PlanConfig
from minilab.lewm.rollout import Planner
from minilab.nn.vision import VisionConfig

A, H = 4, 5
TINY = cpu(A, vision=VisionConfig("conv", image=16, width=8, channels=(4, 8)), latent=12, width=16, heads=2, head_dim=4,
           hidden=20, head_hidden=24)
PLAN = PlanConfig(samples=6, elites=3, iterations=8)
PLANNING = speed.PlanningPreset("cpu", TINY, PLAN, token_iterations=2, repeats=1, device="cpu")
LEARNING = LearnConfig(3, batch=4, directions=8)
TRAINING = speed.TrainingPreset("cpu", TINY, LEARNING, ways=("32 bits", "16 bits"), repeats=1, device="cpu")
P, C = 64, 4  # tokens of a frame and their width: the map before the last, 8 x 8 of 4 channels


@pytest.fixture
def clock(monkeypatch):
    """Replaces the stopwatch: `clock(seconds)` gives a contestant's name and function the time it is said to take."""

    def install(seconds) -> None:
        def interleaved(fns, **options):
            return {name: [seconds(name, fn)] * 3 for name, fn in fns.items()}

        monkeypatch.setattr(speed, "interleaved", interleaved)
        monkeypatch.setattr(speed, "product_rate", lambda device, size, dtype: 1e9 if dtype == torch.float32 else 4e9)

    return install


def by_hand(model: LeWM) -> tuple[float, float]:
    """Multiplications and additions of a candidate's imagined steps, and of encoding one image."""
    c = model.config
    inner, contexts = c.heads * c.head_dim, [min(t, c.history) for t in range(1, H + 1)]
    convolutions = 2 * 9 * (3 * 4 * 8**2 + 4 * 8 * 4**2)
    if type(model) is LeWM:
        head = c.width * c.head_hidden + c.head_hidden * c.latent
        actions = A * 10 + 10 * 4 * c.width + 4 * c.width * c.width
        block = 6 * c.width**2 + 4 * c.width * inner + 2 * c.width * c.hidden
        token = 2 * (c.latent * c.width + actions + c.depth * block + head)
        imagining = sum(T * (token + c.depth * 4 * T * inner) for T in contexts)
        vector = 2 * (8 * 4**2 * 8 + 8 * c.head_hidden + c.head_hidden * c.latent)
        return imagining, convolutions + vector
    token = 2 * ((C + 10) * c.width + c.depth * (4 * c.width * inner + 2 * c.width * c.hidden) + c.width * C)
    imagining = sum(T * P * (token + c.depth * 4 * T * P * inner) + T * 2 * A * 10 for T in contexts)
    return imagining, 2 * 9 * 3 * 4 * 8**2  # the last convolution is not asked


@pytest.mark.parametrize("name", [LEWM, TOKENS])
def test_a_decision_has_the_products_of_its_formulas(name):
    model = rivals(TINY, "cpu")[name]
    candidate, image = by_hand(model)
    assert decision_flops(model, PLAN) == 2 * image + 6 * 8 * candidate
    assert next(model.parameters()).device.type == "cpu"  # counting took nothing away


def test_at_the_published_size_a_decision_has_the_sheets_products():
    """About 2.3 TFLOP for 300 x 30 candidates, whatever the image's size."""
    preset = speed.PLANNING_SPEED["gpu-paper"]
    with torch.device("meta"):
        model = LeWM(preset.model)
    assert decision_flops(model, preset.plan) == pytest.approx(2.3e12, rel=0.15)


def test_both_rivals_have_the_same_depth_and_one_has_all_patches():
    models = rivals(TINY, "cpu")
    assert models[TOKENS].tokens == P and len(models[TOKENS].blocks) == len(models[LEWM].predictor.blocks)
    assert not any(model.training for model in models.values())
    assert models[TOKENS].encode(torch.zeros(1, 1, 3, 16, 16, dtype=torch.uint8)).shape == (1, 1, P * C)


def test_a_timed_decision_is_the_one_that_the_agent_makes():
    model = rivals(TINY, "cpu")[LEWM]
    for block in model.predictor.blocks:
        nn.init.normal_(block.steer.weight)  # so that actions matter
    images = torch.randint(256, (2, 2, 3, 16, 16), dtype=torch.uint8)
    agent = Planner(model, PLAN, Scale(torch.zeros(2), torch.ones(2)), torch.Generator().manual_seed(5))
    agent.start(images[:, 1])
    agent.act(images[:, 0])
    found = decision(model, PLAN, torch.Generator().manual_seed(5), images)
    torch.testing.assert_close(found, agent.last[:, 0])  # the first of what the search found


def test_patch_tokens_are_timed_on_a_few_iterations_and_counted_for_all(clock):
    """1 s to encode and 4 s for 2 of 8 iterations make 17 s."""
    clock(lambda name, fn: {f"{LEWM}, {EAGER}": 2.0, f"{TOKENS}, {EAGER}": 5.0, f"encode, {TOKENS}, {EAGER}": 1.0}
          .get(name, 0.5))
    found = speed.planning_speed(PLANNING).results
    assert found["seconds"][f"{LEWM}, {EAGER}"]["median"] == 2.0
    assert found["seconds"][f"{TOKENS}, {EAGER}"]["median"] == 17.0
    assert found["times_lewm"][EAGER]["median"] == 8.5
    assert found["imagined_per_s"][f"{LEWM}, {EAGER}"] == 6 * H * 8 / 2.0
    assert found["share_of_rate"][f"{TOKENS}, {EAGER}"] == pytest.approx(found["flops"][TOKENS] / 1e9 / 17, rel=1e-5)
    assert found["timed_iterations"] == {LEWM: 8, TOKENS: 2}


def test_what_is_timed_runs_as_many_iterations_as_it_says(monkeypatch):
    models, asked = rivals(TINY, "cpu"), []
    for name, model in models.items():
        monkeypatch.setattr(model, "imagine", lambda z, a, past, n=name, f=model.imagine: asked.append((n, len(a)))
                            or f(z, a, past))
    plans = {LEWM: PLAN, TOKENS: dataclasses.replace(PLAN, iterations=2)}
    decide, encode = deciders(models, plans, torch.device("cpu"))
    for fn in (*decide.values(), *encode.values()):
        fn()
    assert asked == [(LEWM, 6)] * 8 + [(TOKENS, 6)] * 2


def test_planning_speed_runs_and_finds_the_tokens_slower():
    plan = dataclasses.replace(PLAN, samples=100)
    found = speed.planning_speed(dataclasses.replace(PLANNING, plan=plan, repeats=3)).results
    assert found["tokens"] == {LEWM: 1, TOKENS: P}
    assert found["times_lewm"][EAGER]["median"] > 2
    assert all(0 < share for share in found["share_of_rate"].values())


def test_training_rates_and_the_share_of_sigreg_come_from_the_same_turns(clock, monkeypatch):
    """3 steps of 4 clips of 4 frames in 2 s; without SIGReg in 1.5 s."""
    monkeypatch.setattr(speed, "steps_alone", lambda model, clip, learning, **options: (
        1.5 if "loss" in options else 0.5 if learning.precision == "bf16" else 2.0))
    clock(lambda name, fn: 2.0)
    found = speed.training_speed(TRAINING).results
    assert found["frames_per_s"]["32 bits"]["median"] == 24.0
    assert found["step_s"]["32 bits"]["median"] == pytest.approx(2 / 3, rel=1e-5)
    assert found["sigreg_share"]["32 bits"]["median"] == 0.25
    assert found["times_faster"]["16 bits"]["median"] == 4.0
    assert found["share_of_rate"]["16 bits"] == pytest.approx(48 * found["flops"] / 4e9 / 0.5, rel=1e-5)
    assert found["drawn_per_s"]["pusht"]["median"] == 4 * 4 / 2.0


def test_training_speed_trains_with_the_presets_steps_and_precisions_and_times_the_second_half(monkeypatch):
    asked, now = [], [0.0]

    def learn(model, draw, config, **options):
        now[0] += 7.0  # set-up
        for _ in range(config.steps):
            frames = draw(4, torch.Generator()).frames
            now[0] += 0.25
        asked.append((config.steps, config.precision, options.get("loss"), frames.shape))

    monkeypatch.setattr(speed, "learn", learn)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(speed, "drawing_rates", lambda *args, **options: {})
    monkeypatch.setattr(speed, "product_rates", lambda device, ways: dict.fromkeys(ways, 1e9))
    found = speed.training_speed(TRAINING).results
    assert asked == [(6, precision, loss, (4, 4, 3, 16, 16)) for precision in ("fp32", "bf16")
                     for loss in (None, speed.prediction_alone)]
    assert found["step_s"]["16 bits"] == dict.fromkeys(("median", "low", "high"), 0.25)


def test_training_speed_runs(monkeypatch):
    monkeypatch.setenv("MINILAB_PROGRESS", "0")
    found = speed.training_speed(TRAINING).results
    assert found["frames_per_s"].keys() == {"32 bits", "16 bits"} and found["drawn_per_s"].keys() == {"rooms", "pusht"}
    assert found["frames_per_s"]["16 bits"]["median"] > 0 and found["step_s"]["32 bits"]["low"] > 0


def test_a_training_step_has_the_products_of_its_formula():
    """Three times the forward pass, but for what comes first: nobody asks for gradients of images or actions."""
    c = TINY
    inner, head = c.heads * c.head_dim, lambda width: width * c.head_hidden + c.head_hidden * c.latent
    first, second = 2 * 9 * 3 * 4 * 8**2, 2 * 9 * 4 * 8 * 4**2
    frame = 2 * first + 3 * (second + 2 * (8 * 4**2 * 8 + head(8)))
    actions = 2 * (2 * A * 10 + 3 * (10 * 4 * c.width + 4 * c.width * c.width))
    block = 2 * (6 * c.width**2 + 4 * c.width * inner + 2 * c.width * c.hidden) + 4 * 3 * inner
    token = actions + 3 * (2 * c.latent * c.width + c.depth * block + 2 * head(c.width))
    assert speed.training_flops(c) == frame + token * 3 / 4  # three of four frames are predicted from


def test_prediction_alone_is_the_loss_without_sigreg():
    torch.manual_seed(0)
    model = LeWM(dataclasses.replace(TINY, dropout=0.0))
    clip = speed.Noise(torch.randint(256, (4, 4, 3, 16, 16), dtype=torch.uint8), torch.randn(4, 4, A))
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    alone = speed.prediction_alone(model, clip, generator)
    assert torch.equal(generator.get_state(), state)  # no direction was drawn
    assert alone.total == lewm_loss(model, clip, generator, lam=0.1, directions=8).prediction


def test_the_cost_of_sigreg_is_charted_along_one_axis_at_a_time(clock):
    """On a clock that runs as N M^2 sqrt(K), with the arguments that the functions were given."""
    clock(lambda name, fn: fn.args[0] * fn.args[1] ** 2 * math.sqrt(fn.args[2]))
    preset = speed.SigregPreset("cpu", base=(8, 4, 5), N=(4, 8, 16), M=(2, 4), K=(3, 5, 9), device="cpu")
    found = speed.sigreg_cost(preset).results
    assert [found[axis]["slope"] for axis in "NMK"] == pytest.approx([1, 2, 0.5])
    assert found["N"]["ns_each"]["16"] == pytest.approx(1e9 * 4 / math.sqrt(5), rel=1e-5)
    assert found["K"]["seconds"]["9"]["median"] == 8 * 16 * 3


def test_sigreg_is_timed_with_its_gradient_and_with_the_counts_asked_for(monkeypatch):
    seen = {}
    real = speed.sigreg

    def watched(z, generator, **counts):
        seen.update(counts, shape=tuple(z.shape))
        return real(z, generator, **counts)

    monkeypatch.setattr(speed, "sigreg", watched)
    gradient = speed.sigreg_and_gradient(6, 5, 9, latent=3, generator=torch.Generator().manual_seed(0))
    assert seen == {"directions": 5, "knots": 9, "shape": (6, 3)} and gradient.abs().max() > 0


@pytest.mark.parametrize("presets, run", [(speed.PLANNING_SPEED, speed.planning_speed),
                                          (speed.TRAINING_SPEED, speed.training_speed),
                                          (speed.SIGREG_COST, speed.sigreg_cost)])
def test_presets_say_what_they_are_called_and_run_on(presets, run):
    assert all(preset.name == name and preset.device in ("cpu", "cuda") for name, preset in presets.items())
    assert presets["cpu"].device == "cpu" and run.__doc__


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("name", [LEWM, TOKENS])
def test_a_graph_decides_as_the_kernels_do(name):
    device = torch.device("cuda")
    model = rivals(TINY, device)[name]
    images = torch.randint(256, (1, 2, 3, 16, 16), dtype=torch.uint8, device=device)
    generators = [torch.Generator(device).manual_seed(3) for _ in range(2)]
    graph = replayed(lambda x: decision(model, PLAN, generators[1], x), device, generators[1:])
    torch.testing.assert_close(graph(images), decision(model, PLAN, generators[0], images), rtol=1e-4, atol=1e-4)


# The benchmark.


@pytest.fixture
def script():
    path = Path(__file__).parents[2] / "benchmarks/lewm.py"
    spec = importlib.util.spec_from_file_location("benchmark_lewm", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks itself up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def preset(script):
    return dataclasses.replace(script.PRESETS["cpu"], model=TINY, plan=PLAN, copies=4, steps=3, frames=8, repeats=2)


def test_benchmark_records_every_ratio_that_it_can_take(script, preset, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(script.PRESETS, "cpu", preset)
    script.main(["--repeats", "3", "--records", str(tmp_path)])
    record = json.loads((tmp_path / "lewm/benchmark.cpu.json").read_text())
    there = script.RATIOS.keys() - ({"step"} if importlib.util.find_spec("pymunk") is None else set())
    assert record["results"]["ratios"].keys() == there
    assert all(0 < r["low"] <= r["median"] <= r["high"] for r in record["results"]["ratios"].values())
    assert record["config"]["repeats"] == 3
    printed = capsys.readouterr().out
    assert all(" / ".join(script.RATIOS[name]) in printed for name in there)


def test_benchmark_does_without_pymunk_and_says_how_to_get_it(script, preset, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pymunk", None)
    assert script.physics(preset) == {}
    assert "pip install pymunk" in capsys.readouterr().out


def test_benchmark_refuses_a_regularizer_that_differs(script, preset, monkeypatch):
    script.regularizers(preset, torch.device("cpu"))
    real = script.sigreg
    monkeypatch.setattr(script, "sigreg", lambda *args, **options: 1.01 * real(*args, **options))
    with pytest.raises(SystemExit, match="gradients of SIGReg differ"):
        script.regularizers(preset, torch.device("cpu"))


def test_benchmark_refuses_pictures_that_differ(script, preset, monkeypatch):
    script.pictures(preset, torch.device("cpu"))
    real = script.pusht.PushT.render
    monkeypatch.setattr(script.pusht.PushT, "render", lambda self, state, size: real(self, state, size).flip(-1))
    with pytest.raises(SystemExit, match="pictures"):
        script.pictures(preset, torch.device("cpu"))


def test_benchmark_refuses_a_pusher_that_goes_elsewhere(script, preset, monkeypatch):
    pytest.importorskip("pymunk")
    script.physics(preset)
    monkeypatch.setattr(script.pusht, "DAMPER", 19.0)
    with pytest.raises(SystemExit, match="free pusher"):
        script.physics(preset)
