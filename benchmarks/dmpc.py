"""Chapter 2's simulation and planning against named peers.

- `step`: our simulator steps many bodies one action each; Gymnasium's SyncVectorEnv does the same with its own
  environments, one after the other. First both must come to the same states.
- `imagine`: whole blocks of actions from where the bodies stand; MuJoCo's own `rollout` does the same.
- `plan`: one decision of D-MPC; Diffuser's planner with a network of the same kind and size, guided by the gradient of
  the same objective. Neither has learned anything: time does not depend on what they say.

All are timed in turn (A B A B …), and a ratio is taken within each turn. Above 1, its first side is faster.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import minilab  # noqa: F401  (sets the OpenMP policy, which torch reads when it is loaded)

# isort: split
import numpy as np
import torch

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.core.timing import interleaved, spread
from minilab.dmpc.bodies import quiet
from minilab.dmpc.envs import HALF_CHEETAH, HOPPER, Simulator
from minilab.dmpc.experiments_speed import planners
from minilab.dmpc.learn import Recipe, papers, small


@dataclass(frozen=True)
class Preset:
    name: str  # "cpu" or "gpu"
    device: str
    recipe: Recipe
    copies: int = 64
    steps: int = 20  # of each body, a turn
    n: int = 64  # candidates of a plan
    repeats: int = 9
    threads: int | None = 1
    seed: int = 0


PRESETS = {"cpu": Preset("cpu", "cpu", small(width=256)), "cuda": Preset("gpu", "cuda", papers())}
RATIOS = {"step": ("step", "gymnasium"), "imagine": ("imagine", "mujoco.rollout"), "plan": ("D-MPC", "Diffuser")}


def benchmark(preset: Preset) -> Record:
    """Check that the simulators agree, time all in turn, and record the ratios of speeds."""
    started = time.perf_counter()
    moving = simulators(preset)
    planning = planners(preset.recipe, HOPPER, preset.n, pick_device(preset.device))
    seconds = interleaved(moving | planning, repeats=preset.repeats, warmup=2, device=preset.device)
    ratios = {name: spread([b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True)])
              for name, (ours, theirs) in RATIOS.items()}
    actions = preset.copies * preset.steps
    rates = {name: spread([(actions if name in moving else 1) / s for s in found]) for name, found in seconds.items()}
    record = Record.new(experiment="dmpc/benchmark", preset=preset, started=started,
                        results={"ratios": ratios, "per_s": rates})
    record.provenance["command"] = f"python benchmarks/dmpc.py --device {preset.device}"
    return record


def simulators(preset: Preset) -> dict[str, Callable[[], object]]:
    """Four ways to move HalfCheetah, two by two with the same work. SystemExit if their states differ."""
    import gymnasium
    import mujoco
    from mujoco import rollout

    B, T, task = preset.copies, preset.steps, HALF_CHEETAH
    ours, generator = Simulator(task, B), torch.Generator().manual_seed(preset.seed)
    ours.reset(generator)
    start = ours.physics
    actions = 2 * torch.rand(T, B, ours.action_dim, generator=generator) - 1
    with quiet():
        theirs = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make(task.environment) for _ in range(B)])
    theirs.reset(seed=preset.seed)
    data, model = mujoco.MjData(ours.model), ours.model

    def step() -> np.ndarray:
        ours.place(start)
        return torch.stack([ours.step(a).state for a in actions]).numpy()

    def gym() -> np.ndarray:
        for env, row in zip(theirs.envs, start, strict=True):
            env.unwrapped.set_state(row[: model.nq], row[model.nq :])
        return np.stack([theirs.step(a.numpy())[0] for a in actions])

    blocks = actions.transpose(0, 1)[:, None]  # B 1 T A
    control = blocks[:, 0].repeat_interleave(task.frame_skip, dim=1).double().numpy()
    full = np.concatenate((np.zeros((B, 1)), start), axis=1)  # time first

    def mujoco_rollout() -> np.ndarray:
        return rollout.rollout(model, data, full, control)[0]

    if (gap := np.abs(step() - gym()).max()) > 1e-3:
        raise SystemExit(f"our states and Gymnasium's differ by {gap:.2g}: nothing was timed")
    imagined = ours.imagine(blocks, start)[:, 0, -1].numpy()
    if (gap := np.abs(imagined - mujoco_rollout()[:, -1, 2:]).max()) > 1e-3:
        raise SystemExit(f"our imagined states and MuJoCo's differ by {gap:.2g}: nothing was timed")
    return {"step": step, "gymnasium": gym, "imagine": lambda: ours.imagine(blocks, start),
            "mujoco.rollout": mujoco_rollout}


def table(record: Record) -> str:
    """The median ratios of speeds with their interquartile ranges."""
    return "\n".join(f"{' / '.join(RATIOS[name]):26}  {r['median']:6.2f}  {r['low']:.2f} to {r['high']:.2f}"
                     for name, r in record.results["ratios"].items())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=PRESETS, default="cpu")
    parser.add_argument("--repeats", type=int, help="turns; default: the preset's")
    parser.add_argument("--copies", type=int, help="bodies side by side; default: the preset's")
    parser.add_argument("--records", type=Path, help="folder for the record; default: records/")
    given = parser.parse_args(arguments)
    changes = {k: v for k in ("repeats", "copies") if (v := getattr(given, k)) is not None}
    record = with_threads(benchmark)(dataclasses.replace(PRESETS[given.device], **changes))
    print(table(record), record.save(given.records), sep="\n")


if __name__ == "__main__":
    main()
