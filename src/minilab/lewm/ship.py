"""The models that ship with minilab: a world model and a decoder for each world, as 8-bit integers."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from minilab.core.device import pick_device, with_threads
from minilab.core.files import package_data
from minilab.core.records import Record, command_for
from minilab.core.weights import load_weights, save_weights
from minilab.lewm.baselines.arms import Trained
from minilab.lewm.data import LICENCE, Scale
from minilab.lewm.decoder import ConvDecoder, Decoder, learn_decoder, reconstruction_error
from minilab.lewm.experiments_plan import PUSHT, SUCCESS
from minilab.lewm.learn import diagnose, load_model, save_model
from minilab.lewm.model import LeWM
from minilab.lewm.study import QUICK, Ground, Setting, rooms, share


@dataclass(frozen=True)
class ModelsPreset:
    name: str
    setting: Setting
    decoder_steps: int = 1500
    out: str | None = None  # folder for the files; None is the package's assets
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


MODELS = {
    "cpu": ModelsPreset("cpu", QUICK, decoder_steps=5, out="build", device="cpu"),
    "two-cores": ModelsPreset("two-cores", rooms(steps=1500, tasks=100), device="cpu"),
    "gpu-rooms": ModelsPreset("gpu-rooms", SUCCESS["gpu"].settings[0], decoder_steps=4000, device="cuda"),
    "gpu-disc": ModelsPreset("gpu-disc", SUCCESS["gpu"].settings[1], decoder_steps=4000, device="cuda"),
    "gpu-pusht": ModelsPreset("gpu-pusht", PUSHT, decoder_steps=8000, device="cuda"),
}


@with_threads
def models(preset: ModelsPreset) -> Record:
    """Train the world model and the decoder of a world, write them, and compare what was written with what was trained.
    """
    started, setting = time.perf_counter(), preset.setting
    ground, world = Ground(setting, pick_device(preset.device)), setting.world.name
    trained, made_by = ground.trained("sigreg", preset.seed), command_for("lewm/models", preset.name)
    folder = Path(preset.out) if preset.out else package_data("assets") / "lewm"
    path = save_model(trained.model, folder / f"{world}.safetensors", dtype="int8", scale=ground.seen.scale,
                      how_made=made_by, what=f"LeWM's encoder and predictor for the world {world!r}",
                      recipe=asdict(setting.recipe))
    decoder = ConvDecoder(setting.config.latent, setting.config.vision.image).to(ground.device)
    learn_decoder(decoder, trained.model, ground.clips.draw, steps=preset.decoder_steps, seed=preset.seed)
    drawn = save_decoder(decoder, folder / f"{world}-decoder.safetensors", how_made=made_by, world=world)
    look = ground.held_out.draw(512, ground.generator(2))
    rows = {}
    for name, model in (("trained", trained.model), ("shipped", load_model(path, device=ground.device)[0])):
        agent = ground.agent(Trained("sigreg", model, trained.history, setting.config.actions), preset.seed)
        rows[name] = {"success": share([ground.reached(agent, preset.seed)]),
                      **asdict(diagnose(model, look, ground.generator(3)))}
        kept = decoder if name == "trained" else load_decoder(drawn, device=ground.device)
        with torch.no_grad():
            rows[name]["drawing"] = float(reconstruction_error(kept, model.encode(look.frames), look.frames))
    return Record.new(experiment="lewm/models", preset=preset, started=started, results={
        **rows, "bytes": {p.name: p.stat().st_size for p in (path, drawn)},
        "parameters": sum(p.numel() for p in trained.model.parameters())})


def shipped(world: str, *, device: torch.device | str = "cpu") -> tuple[LeWM, Decoder, Scale]:
    """The models of a world as they come with minilab. Raises FileNotFoundError for a world without any."""
    model, scale = load_model(f"lewm/{world}.safetensors", device=device)
    return model, load_decoder(f"lewm/{world}-decoder.safetensors", device=device), scale


def save_decoder(decoder: ConvDecoder, path: Path, *, how_made: str, world: str) -> Path:
    """Write a decoder as one file with a card."""
    return save_weights(decoder.state_dict(), path, dtype="int8", card={
        "what": f"a decoder of latents of the world {world!r}, for looking only", "how_made": how_made,
        "licence": LICENCE, "latent": decoder.enter.in_features, "image": decoder.background.shape[-1]})


def load_decoder(path: Path | str, *, device: torch.device | str = "cpu") -> ConvDecoder:
    """Read what `save_decoder` wrote, by path or by the name of an asset, once its hash is right."""
    state, card = load_weights(path, device=device)
    decoder = ConvDecoder(card["latent"], card["image"])
    decoder.load_state_dict(state)
    return decoder.to(device).eval().requires_grad_(False)
