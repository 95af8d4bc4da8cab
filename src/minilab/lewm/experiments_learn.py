"""What keeps latents apart, side by side, and the settings of SIGReg and of the model one at a time."""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.lewm.baselines.arms import ARMS, Trained
from minilab.lewm.experiments_plan import PUSHT, imagination
from minilab.lewm.learn import diagnose
from minilab.lewm.model import convolutions
from minilab.lewm.probes import gather, probe
from minilab.lewm.sigreg import carried_over
from minilab.lewm.straight import straightness
from minilab.lewm.study import QUICK, Ground, Setting, rooms, share, with_learning, with_model
from minilab.nn.vision import VisionConfig

NO_CHOICE = ("frozen_random", "frozen_learned", "frozen_dino", "reconstruction", "sigreg_reconstruction")  # of heads
EIGHT = ("sigreg", "prediction", "stop_gradient", "ema", "hinge", "pldm", "frozen_random", "reconstruction")


@dataclass(frozen=True)
class CollapsePreset:
    name: str
    setting: Setting
    arms: tuple[str, ...] = EIGHT
    heads: tuple[str, ...] = ("layer", "batch")
    frames: int = 4000  # that the probes read
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


CARD = rooms(episodes=10_000, steps=2000, seeds=(0, 1, 2), tasks=200)
COLLAPSE = {
    "cpu": CollapsePreset("cpu", QUICK, arms=("sigreg", "prediction"),
                          heads=("layer",), frames=400, device="cpu"),
    "two-cores": CollapsePreset("two-cores", rooms(tasks=100), device="cpu"),
    "gpu": CollapsePreset("gpu", CARD, device="cuda"),
}


@with_threads
def collapse(preset: CollapsePreset) -> Record:
    """Eight ways to learn latents, with LayerNorm and with BatchNorm in the heads: which collapse, and what shows it.

    The arms that draw pictures have a BatchNorm whatever the preset says, and frozen tokens have no heads: each of
    these has one row.
    """
    started, device = time.perf_counter(), pick_device(preset.device)
    rows, curves, floor = {}, {}, []
    for heads in preset.heads:
        setting = with_model(preset.setting, head_norm=heads)
        ground = Ground(setting, device)
        for arm in preset.arms:
            if heads != preset.heads[0] and arm in NO_CHOICE:
                continue
            trained = [ground.trained(arm, seed) for seed in setting.seeds]
            rows[f"{arm}, {heads}"] = {"what": ARMS[arm].what, **seen(ground, trained, preset.frames)}
            curves[f"{arm}, {heads}"] = _curve(trained[0])
    ground = Ground(preset.setting, device)
    for seed in preset.setting.seeds:
        floor.append(ground.reached(ground.agent(ground.trained("chance", seed), seed), seed))
    return Record.new(experiment="lewm/collapse", preset=preset, started=started,
                      results={"arms": rows, "curves": curves, "chance": share(floor)})


def seen(ground: Ground, trained: list[Trained], frames: int) -> dict:
    """What tells a model that learned from one that collapsed, over the seeds of one arm."""
    look = ground.held_out.draw(512, ground.generator(2))
    found = [dataclasses.asdict(diagnose(t.model, look, ground.generator(3))) for t in trained]
    probes = [_probed(ground, t, frames) for t in trained]
    return {**{part: _mean([f[part] for f in found]) for part in found[0]},
            "sigreg_loss": _mean([t.history.moments[-1].sigreg for t in trained]),
            "probes": {part: _mean([p[part] for p in probes]) for part in probes[0]},
            "success": share([ground.reached(ground.agent(t, seed), seed)
                              for t, seed in zip(trained, ground.setting.seeds, strict=True)])}


def _probed(ground: Ground, trained: Trained, frames: int) -> dict[str, float]:
    """Errors of the probes of the world's first quantity; 1 is chance."""
    read = gather(trained.model, ground.held_out, frames, ground.generator(4))
    first = next(iter(ground.world.quantities))
    scores = probe(read._replace(targets={first: read.targets[first]}), ground.generator(5))[first]
    return {"linear": scores.linear.mse, "mlp": scores.mlp.mse}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _curve(trained: Trained) -> dict[str, list[float]]:
    moments = trained.history.moments
    return {"step": [m.step for m in moments], "prediction": [m.prediction for m in moments],
            "sigreg": [m.sigreg for m in moments], "std": [m.held_out.std for m in moments if m.held_out]}


@dataclass(frozen=True)
class KnobsPreset:
    name: str
    setting: Setting
    lam: tuple[float, ...] = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    batch: tuple[int, ...] = (32, 128)  # each twice: with the same lam, and with lam * batch held
    directions: tuple[int, ...] = (4, 16, 1024)
    knots: tuple[int, ...] = (5, 65)
    latent: tuple[int, ...] = (4, 8, 16, 64)
    history: tuple[int, ...] = (1,)
    heads: tuple[str, ...] = ("layer", "none")
    encoders: tuple[VisionConfig, ...] = ()
    steps: tuple[int, ...] = ()  # of training
    frames: int = 4000  # that the probes read
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


KNOBS = {
    "cpu": KnobsPreset("cpu", QUICK, lam=(1.0,), batch=(32,), directions=(16,), knots=(5,),
                       latent=(8,), history=(1,), heads=("none",), steps=(10,), frames=400, device="cpu",
                       encoders=(VisionConfig(image=32, patch=8, width=32, depth=1, heads=2, hidden=64),)),
    "two-cores": KnobsPreset("two-cores", rooms(tasks=100), lam=(0.001, 0.01, 0.03, 0.3, 1.0, 3.0), device="cpu"),
    "two-cores-knots": KnobsPreset("two-cores-knots", rooms(tasks=100, seeds=(0, 1, 2)), lam=(), batch=(),
                                   directions=(), latent=(), history=(), heads=(), device="cpu"),
    "gpu": KnobsPreset("gpu", replace(CARD, seeds=(0, 1, 2)), device="cuda"),
    # What it takes to see the block's angle.
    "gpu-pusht": KnobsPreset(
        "gpu-pusht", with_learning(replace(PUSHT, seeds=(0,)), steps=20_000, lam=0.09),
        lam=(0.03, 0.3, 1.0), batch=(), directions=(), knots=(), latent=(192, 384), history=(), heads=("layer",),
        encoders=(convolutions(),), threads=4, device="cuda"),
}


@with_threads
def knobs(preset: KnobsPreset) -> Record:
    """LeWM with one setting changed at a time: lam, batch, directions, knots, latent, history, encoder, steps, heads.

    For each: what it learned, what a small network reads off its latent, and the goals that it reaches.
    """
    started, device = time.perf_counter(), pick_device(preset.device)
    rows: dict[str, dict] = {}
    found: dict[Setting, dict] = {}  # the usual position stands with every knob
    for knob, label, setting in turned(preset):
        if setting not in found:
            found[setting] = _learned(setting, preset.frames, device)
        rows.setdefault(knob, {})[label] = found[setting]
    return Record.new(experiment="lewm/knobs", preset=preset, results={"knobs": rows}, started=started)


def _learned(setting: Setting, frames: int, device: torch.device) -> dict:
    """What LeWM comes to with a setting, over its seeds."""
    ground = Ground(setting, device)
    trained = [ground.trained("sigreg", seed) for seed in setting.seeds]
    look = ground.held_out.draw(512, ground.generator(2))
    found = [dataclasses.asdict(diagnose(t.model, look, ground.generator(3))) for t in trained]
    paths = ground.clips_of(ground.unseen, 8).draw(256, ground.generator(4)).frames
    with torch.no_grad():
        straight = [float(straightness(t.model.encode(paths))) for t in trained]
    read = [probe(gather(t.model, ground.held_out, frames, ground.generator(4)), ground.generator(5)) for t in trained]
    ok = [ground.reached(ground.agent(t, seed), seed) for t, seed in zip(trained, setting.seeds, strict=True)]
    return {**{part: _mean([f[part] for f in found]) for part in found[0]}, **imagination(ground, trained),
            "straightness": _mean(straight), "success": share(ok),
            "read": {quantity: _mean([r[quantity].mlp.mse for r in read]) for quantity in read[0]}}


def turned(preset: KnobsPreset) -> Iterator[tuple[str, str, Setting]]:
    """Each knob, the label of its position, and the setting with it. A knob without positions is not turned."""
    usual = preset.setting
    c, m = usual.learning, usual.config

    def positions(given: tuple, usual: float) -> list:
        return sorted({*given, usual}) if given else []

    for lam in positions(preset.lam, c.lam):
        yield "lam", f"{lam:g}", with_learning(usual, lam=lam)
    for batch in positions(preset.batch, c.batch):
        yield "batch, lam held", str(batch), with_learning(usual, batch=batch)
        carried = carried_over(c.lam, c.batch, batch)
        yield "batch, lam * batch held", str(batch), with_learning(usual, batch=batch, lam=carried)
    for directions in positions(preset.directions, c.directions):
        yield "directions", str(directions), with_learning(usual, directions=directions)
    for knots in positions(preset.knots, c.knots):
        yield "knots", str(knots), with_learning(usual, knots=knots)
    for latent in positions(preset.latent, m.latent):
        yield "latent", str(latent), with_model(usual, latent=latent)
    for history in positions(preset.history, m.history):
        yield "history", str(history), with_model(usual, history=history)
    for steps in positions(preset.steps, c.steps):
        yield "steps", str(steps), with_learning(usual, steps=steps)
    for vision in (m.vision, *preset.encoders) if preset.encoders else ():
        label = f"ViT, patches of {vision.patch}" if vision.kind == "vit" else "convolutions"
        yield "encoder", label, with_model(usual, vision=vision)
    for heads in (m.head_norm, *preset.heads) if preset.heads else ():
        yield "heads", heads, with_model(usual, head_norm=heads)
