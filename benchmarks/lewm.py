"""Chapter 3's regularizer, physics, pictures and planning against named peers.

- `sigreg`: SIGReg and its gradient with cosines and sines; the formula as it is written, with complex exponentials.
- `step`: our Push-T moves many copies one action each on MuJoCo; the published physics on pymunk, one space a copy, as
  gym-pusht and stable-worldmodel have it. First both must take a pusher that touches nothing to the same places.
  pymunk is no part of the book's environment: without it this one is left out.
- `draw`: our pictures of Push-T, many at once; Pillow, one after the other, four times as large and then reduced, so
  that its edges are as smooth. First the pictures must be the same but for the edges.
- `plan`: one decision of LeWM; of the same planner with patch tokens. Both are untrained: time does not depend on it.

All are timed in turn (A B A B …), and a ratio is taken within each turn. Above 1, its first side is faster.
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import minilab  # noqa: F401  (sets the OpenMP policy, which torch reads when it is loaded)

# isort: split
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.core.timing import interleaved, spread
from minilab.lewm.decisions import EAGER, LEWM, TOKENS, deciders, rivals
from minilab.lewm.model import LeWMConfig, cpu, gpu
from minilab.lewm.planner import PlanConfig, paper, small
from minilab.lewm.sigreg import quadrature, random_directions, sigreg
from minilab.lewm.worlds import pusht

OURS, THEIRS = f"{LEWM}, {EAGER}", f"{TOKENS}, {EAGER}"
RATIOS = {"sigreg": ("sigreg", "complex exponentials"), "step": ("step", "pymunk"), "draw": ("draw", "Pillow"),
          "plan": (OURS, THEIRS)}


@dataclass(frozen=True)
class Preset:
    name: str  # "cpu" or "gpu"
    device: str
    model: LeWMConfig
    plan: PlanConfig
    directions: int = 256
    samples: int = 128
    copies: int = 64  # of a world
    steps: int = 20  # of each, a turn
    frames: int = 256  # to draw, a turn
    pixels: int = 64  # of a frame's side
    repeats: int = 9
    threads: int | None = 1
    seed: int = 0


PRESETS = {"cpu": Preset("cpu", "cpu", cpu(), small(iterations=2)),
           "cuda": Preset("gpu", "cuda", gpu(), paper(iterations=2), directions=1024, frames=4096,
                          pixels=224)}


def benchmark(preset: Preset) -> Record:
    """Check that peers do the same, time all in turn, and record the ratios of speeds."""
    started, device = time.perf_counter(), pick_device(preset.device)
    plans = dict.fromkeys((LEWM, TOKENS), preset.plan)
    contestants = {**regularizers(preset, device), **physics(preset), **pictures(preset, device),
                   **deciders(rivals(preset.model, device), plans, device, seed=preset.seed)[0]}
    seconds = interleaved(contestants, repeats=preset.repeats, warmup=2, device=device)
    work = {"step": preset.copies * preset.steps, "draw": preset.frames}
    ratios, rates = {}, {}
    for name, sides in RATIOS.items():
        if all(side in seconds for side in sides):
            ours, theirs = (seconds[side] for side in sides)
            ratios[name] = spread([b / a for a, b in zip(ours, theirs, strict=True)])
            rates |= {side: spread([work.get(name, 1) / s for s in seconds[side]]) for side in sides}
    record = Record.new(experiment="lewm/benchmark", preset=preset, started=started,
                        results={"ratios": ratios, "per_s": rates})
    record.provenance["command"] = f"python benchmarks/lewm.py --device {preset.device}"
    return record


def regularizers(preset: Preset, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """Two ways to the gradient of SIGReg. SystemExit if they differ."""
    N, M, D, generator = preset.samples, preset.directions, preset.model.latent, torch.Generator(device)
    z = torch.randn(4, N, D, device=device, generator=generator.manual_seed(preset.seed)).requires_grad_()

    def ours() -> Tensor:
        value = sigreg(z, generator.manual_seed(preset.seed), directions=M)
        return torch.autograd.grad(value, z)[0]

    def theirs() -> Tensor:
        h = z @ random_directions(D, M, generator.manual_seed(preset.seed), like=z)
        t, phi, weight = quadrature(like=h)
        found = torch.exp(1j * t * h[..., None]).mean(dim=1)
        value = (N * ((found - phi).abs().square() @ weight)).mean()
        return torch.autograd.grad(value, z)[0]

    mine, other = ours(), theirs()
    if (gap := float((mine - other).norm() / mine.norm())) > 1e-3:
        raise SystemExit(f"the two gradients of SIGReg differ by {gap:.2g} of their length: nothing was timed")
    return {"sigreg": ours, "complex exponentials": theirs}


def physics(preset: Preset) -> dict[str, Callable[[], Tensor]]:
    """Push-T in our simulator and in pymunk; nothing without pymunk. SystemExit if free pushers differ."""
    try:
        import pymunk
    except ImportError:
        print("step: left out, since there is no pymunk to compare with (pip install pymunk)")
        return {}
    world, generator = pusht.PushT(), torch.Generator().manual_seed(preset.seed)
    start = world.reset(preset.copies, generator)
    actions = 2 * torch.rand(preset.steps, preset.copies, 2, generator=generator) - 1
    tables = [Table(pymunk) for _ in range(preset.copies)]

    def ours() -> Tensor:
        states = [start]
        for action in actions:
            states.append(world.step(states[-1], action))
        return torch.stack(states, dim=1)  # B T1 S

    def theirs() -> Tensor:
        for table, state in zip(tables, start.tolist(), strict=True):
            table.place(state)
        pushers = [[table.step(a) for table, a in zip(tables, action.tolist(), strict=True)] for action in actions]
        return torch.tensor(pushers).transpose(0, 1)  # B T 2

    states, pushers = ours(), theirs()
    gaps = torch.stack([pusht.gap(state) for state in states.unbind(dim=1)], dim=1)
    walls = torch.minimum(states[..., :2] - pusht.LOW, pusht.HIGH - states[..., :2]).amin(dim=2) - pusht.PUSHER
    free = (torch.minimum(gaps, walls) > pusht.PUSHER).int().cumprod(dim=1).bool()[:, 1:]  # from the beginning
    if (gap := float((states[:, 1:, :2] - pushers)[free].abs().max())) > 0.1:
        raise SystemExit(f"a free pusher is {gap:.2g} elsewhere than pymunk's: nothing was timed")
    return {"step": ours, "pymunk": theirs}


class Table:
    """One Push-T in pymunk, as published: a pusher of infinite mass, a block that forgets its velocity, four walls."""

    def __init__(self, pymunk) -> None:
        self.space = pymunk.Space()
        self.space.damping = 0
        for a, b in ((5, 5), (5, 506)), ((5, 506), (506, 506)), ((506, 506), (506, 5)), ((506, 5), (5, 5)):
            self.space.add(pymunk.Segment(self.space.static_body, a, b, 2))
        self.pusher = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self.block = pymunk.Body(pusht.MASS, pusht.INERTIA)
        self.block.center_of_gravity = (0, pusht.CENTER)
        parts = [[(x + i * half_x, y + j * half_y) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
                 for (x, y), (half_x, half_y) in (pusht.BAR, pusht.STEM)]
        self.space.add(self.pusher, pymunk.Circle(self.pusher, pusht.PUSHER), self.block,
                       *(pymunk.Poly(self.block, corners) for corners in parts))

    def place(self, state: list[float]) -> None:
        self.pusher.position, self.pusher.velocity = tuple(state[:2]), tuple(state[5:])
        self.block.angle, self.block.position, self.block.velocity = state[4], tuple(state[2:4]), (0, 0)

    def step(self, action: list[float]) -> tuple[float, float]:
        pusher, target = self.pusher, self.pusher.position + (pusht.REACH * action[0], pusht.REACH * action[1])
        for _ in range(pusht.SUBSTEPS):
            pull = pusht.SPRING * (target - pusher.position) - pusht.DAMPER * pusher.velocity
            pusher.velocity += pusht.DT * pull
            self.space.step(pusht.DT)
        return tuple(pusher.position)


def pictures(preset: Preset, device: torch.device, larger: int = 4) -> dict[str, Callable[[], Tensor]]:
    """Two ways to draw Push-T. SystemExit if the pictures differ."""
    world, size = pusht.PushT(), preset.pixels
    states = world.reset(preset.frames, torch.Generator().manual_seed(preset.seed))
    on_device, rows, scale = states.to(device), states.tolist(), size * larger / pusht.FRAME

    paints = [tuple(map(int, paint)) for paint in (pusht.LIGHT_GRAY, pusht.LIGHT_GREEN, pusht.SLATE_GRAY,
                                                    pusht.ROYAL_BLUE)]
    outline = [(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)]  # of the T

    def pixel(x: float) -> float:
        return scale * (x + 0.5) - 0.5

    def block(x: float, y: float, angle: float) -> list[tuple[float, float]]:
        cos, sin = math.cos(angle), math.sin(angle)
        return [(pixel(cos * u - sin * v + x), pixel(sin * u + cos * v + y)) for u, v in outline]

    background = Image.new("RGB", (size * larger,) * 2, "white")
    brush = ImageDraw.Draw(background)
    for edge, paint in ((pusht.LINE, paints[0]), (0.0, "white")):
        low, high = pixel(pusht.LOW - edge), pixel(pusht.HIGH + edge)
        brush.rectangle((low, low, high, high), fill=paint)
    brush.polygon(block(*pusht.GOAL), fill=paints[1])

    def one(state: list[float]) -> np.ndarray:
        picture = background.copy()
        brush = ImageDraw.Draw(picture)
        brush.polygon(block(*state[2:5]), fill=paints[2])
        brush.circle((pixel(state[0]), pixel(state[1])), scale * pusht.PUSHER, fill=paints[3])
        return np.asarray(picture.reduce(larger))

    def theirs() -> Tensor:
        return torch.from_numpy(np.stack([one(state) for state in rows])).movedim(-1, 1)

    mine = world.render(on_device, size).cpu().float()
    if (gap := float((mine - theirs()).abs().mean())) > 2:
        raise SystemExit(f"our pictures and Pillow's differ by {gap:.2g} of 255 on average: nothing was timed")
    return {"draw": lambda: world.render(on_device, size), "Pillow": theirs}


def table(record: Record) -> str:
    """The median ratios of speeds with their interquartile ranges."""
    return "\n".join(f"{' / '.join(RATIOS[name]):58}  {r['median']:6.2f}  {r['low']:.2f} to {r['high']:.2f}"
                     for name, r in record.results["ratios"].items())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=PRESETS, default="cpu")
    parser.add_argument("--repeats", type=int, help="turns; default: the preset's")
    parser.add_argument("--copies", type=int, help="copies of Push-T side by side; default: the preset's")
    parser.add_argument("--frames", type=int, help="pictures in a turn; default: the preset's")
    parser.add_argument("--records", type=Path, help="folder for the record; default: records/")
    given = parser.parse_args(arguments)
    changes = {k: v for k in ("repeats", "copies", "frames") if (v := getattr(given, k)) is not None}
    record = with_threads(benchmark)(dataclasses.replace(PRESETS[given.device], **changes))
    print(table(record), record.save(given.records), sep="\n")


if __name__ == "__main__":
    main()
