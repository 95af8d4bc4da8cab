"""The models that ship with minilab: trained on the diverse tier, stored as 8-bit integers, and what that costs."""

import time
from dataclasses import dataclass
from pathlib import Path

from minilab.core.device import pick_device, with_threads
from minilab.core.files import package_data
from minilab.core.records import Record, command_for
from minilab.dmpc.adapt import prediction_error
from minilab.dmpc.agent import dmpc
from minilab.dmpc.learn import Models, load_models, save_models, small
from minilab.dmpc.study import QUICK, Setting, interval, play, trained

ASSET = "dmpc/halfcheetah.safetensors"
SHIPPED = small(width=256, steps=8000, value_steps=3000)


@dataclass(frozen=True)
class ModelsPreset:
    name: str
    setting: Setting
    out: str | None = None  # folder for the file; None is the package's assets
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


MODELS = {
    "cpu": ModelsPreset("cpu", Setting(QUICK, tier="diverse", episodes=2, steps=20, n=8, held_out=0.1), out="build",
                        device="cpu"),
    "two-cores": ModelsPreset("two-cores", Setting(SHIPPED, tier="diverse", size="full", episodes=12, steps=100,
                                                   held_out=0.05), device="cpu"),
    "gpu": ModelsPreset("gpu", Setting(SHIPPED, tier="diverse", size="full", held_out=0.05), device="cuda"),
}


@with_threads
def models(preset: ModelsPreset) -> Record:
    """Train the models that ship, write them, and compare what was written with what was trained."""
    started, setting, device = time.perf_counter(), preset.setting, pick_device(preset.device)
    whole = trained(setting, preset.seed, device)
    path = (Path(preset.out) if preset.out else package_data("assets") / "dmpc") / Path(ASSET).name
    save_models(whole.to("cpu"), path, dtype="int8", how_made=command_for("dmpc/models", preset.name),
                what=f"D-MPC's proposal, dynamics and value for {setting.task}, F = {setting.recipe.F}")
    held_out = setting.data()[1]
    rows = {}
    for name, found in (("trained", whole), ("shipped", load_models(path, device=device))):
        run = play(_planner(found, setting, preset.seed), setting, seed=preset.seed, desc=name)
        rows[name] = {"return": interval([run.returns.tolist()]), "error": prediction_error(found, held_out)}
    return Record.new(experiment="dmpc/models", preset=preset, started=started,
                      results={**rows, "bytes": path.stat().st_size,
                               "parameters": {name: sum(p.numel() for p in part.parameters())
                                              for name, part in whole.parts().items()}})


def _planner(models: Models, setting: Setting, seed: int):
    return dmpc(models, setting.objective(models), n=setting.n, every=setting.every, seed=seed)


def shipped(device: str = "cpu") -> Models:
    """D-MPC's models for HalfCheetah-v5 as they come with minilab."""
    return load_models(ASSET, device=device)
