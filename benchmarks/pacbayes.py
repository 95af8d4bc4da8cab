"""Chapter 4's training in a subspace and its coder against the code of Lotfi et al. (2022).

    git clone https://github.com/activatedgeek/tight-pac-bayes
    python benchmarks/pacbayes.py --peer tight-pac-bayes

- `step`: one step of Adam on d numbers of the same network, along the directions of the same kind (a Kronecker product
  of two orthonormal factors, theirs "rdkronqr"). First both must say the same where they begin, and both projections
  must keep the lengths that they say they keep.
- `code`: symbols to bits and back. Theirs is an arithmetic coder in decimal numbers of many digits. First both must
  decode to what was encoded.

All are timed in turn (A B A B …), and a ratio is taken within each turn. Above 1, ours is faster. Their code is no
package: it is read from a folder, and without one there is nothing to compare with.
"""

import argparse
import copy
import dataclasses
import functools
import importlib
import sys
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from decimal import getcontext
from pathlib import Path

import minilab  # noqa: F401  (sets the OpenMP policy, which torch reads when it is loaded)

# isort: split
import numpy as np
import torch

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.core.timing import interleaved, spread
from minilab.pacbayes.coding import Decoder, Encoder, get_symbols, put_symbols
from minilab.pacbayes.experiments_speed import adam_steps
from minilab.pacbayes.networks import mlp
from minilab.pacbayes.subspace import Subspace

RATIOS = {"step": ("step", "rdkronqr"), "code": ("code", "decimal coder")}


@dataclass(frozen=True)
class Preset:
    name: str  # "cpu" or "gpu"
    device: str
    shape: tuple[int, ...] = (1, 28, 28)
    d: int = 1024
    batch: int = 128
    steps: int = 20  # a turn
    symbols: int = 1024  # a turn, of three kinds
    repeats: int = 9
    threads: int | None = 1
    seed: int = 1


PRESETS = {"cpu": Preset("cpu", "cpu"), "cuda": Preset("gpu", "cuda", steps=200)}


def benchmark(preset: Preset, peer: Path) -> Record:
    """Check that peers do the same, time all in turn, and record the ratios of speeds."""
    started, device = time.perf_counter(), pick_device(preset.device)
    contestants = trainings(preset, peer, device) | coders(preset, peer)
    with warnings.catch_warnings(action="ignore"):  # theirs transposes vectors
        seconds = interleaved(contestants, repeats=preset.repeats, warmup=2, device=device)
    work = {"step": preset.steps, "code": preset.symbols}
    ratios = {name: spread([b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True)])
              for name, (ours, theirs) in RATIOS.items()}
    rates = {side: spread([work[name] / s for s in seconds[side]]) for name, sides in RATIOS.items() for side in sides}
    record = Record.new(experiment="pacbayes/benchmark", preset=preset, started=started,
                        results={"ratios": ratios, "per_s": rates})
    record.provenance["command"] = f"python benchmarks/pacbayes.py --peer tight-pac-bayes --device {preset.device}"
    return record


def module_of(peer: Path, name: str) -> types.ModuleType:
    """A module of theirs. Their packages import what this has no need of, and are passed by."""
    if not (peer / "pactl").is_dir():
        raise SystemExit(f"{peer} has no folder pactl: give a clone of github.com/activatedgeek/tight-pac-bayes")
    for package in ("pactl", "pactl.nn", "pactl.bounds"):
        if package not in sys.modules:
            module = types.ModuleType(package)
            module.__path__ = [str(peer.joinpath(*package.split(".")))]
            sys.modules[package] = module
    return importlib.import_module(name)


def trainings(preset: Preset, peer: Path, device: torch.device) -> dict[str, Callable[[], None]]:
    """The same network in both. SystemExit if they differ where they begin, or a projection stretches otherwise."""
    projectors, d, seed = module_of(peer, "pactl.nn.projectors"), preset.d, preset.seed
    ours = Subspace(mlp, preset.shape, 10, d=d, seed=seed)
    theirs = copy.deepcopy(ours.network).requires_grad_(True)
    theirs = projectors.IDModule(
        theirs, lambda D, d, params, names: projectors.RoundedDoubleKronQR(D, d, params, names, seed=seed), d)
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(preset.batch, *preset.shape, generator=generator), torch.arange(preset.batch) % 10
    v = torch.randn(d, generator=generator)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        apart = float((ours(x) - theirs(x)).abs().max())
        stretch = [float(w.norm() / v.norm()) for w in (ours.P(v) * (d / len(ours.w0)) ** 0.5, theirs.P @ v)]
    if apart > 1e-4 or max(abs(s - 1) for s in stretch) > 1e-3:
        raise SystemExit(f"the two networks begin {apart:.2g} apart, and lengths become {stretch} times as long: "
                         "nothing was timed")
    ours, theirs, x, y = ours.to(device), theirs.to(device), x.to(device), y.to(device)

    return {name: adam_steps(model, [p for p in model.parameters() if len(p) == d], x, y, preset.steps)
            for name, model in (("step", ours), ("rdkronqr", theirs))}


def coders(preset: Preset, peer: Path) -> dict[str, Callable[[], list[int]]]:
    """Both ways of both coders. SystemExit if one does not decode to what was encoded."""
    theirs = module_of(peer, "pactl.bounds.quantize_fns")
    generator = torch.Generator().manual_seed(preset.seed)
    symbols = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), preset.symbols, replacement=True, generator=generator)
    shares, symbols = np.bincount(symbols.numpy()) / len(symbols), symbols.tolist()

    def ours() -> list[int]:
        encoder = Encoder()
        put_symbols(encoder, symbols, 3)
        return get_symbols(Decoder(encoder.finish()), len(symbols), 3)

    def decimal() -> list[int]:
        getcontext().prec = int(1.1 * np.log10(3) * len(symbols))  # as they set it
        return [int(k) for k in theirs.decode(theirs.encode(symbols, shares), shares, len(symbols))]

    for name, found in (("ours", ours()), ("theirs", decimal())):
        if found != symbols:
            raise SystemExit(f"{name} does not decode to what was encoded: nothing was timed")
    return {"code": ours, "decimal coder": decimal}


def table(record: Record) -> str:
    """The median ratios of speeds with their interquartile ranges."""
    return "\n".join(f"{' / '.join(RATIOS[name]):24}  {r['median']:8.2f}  {r['low']:.2f} to {r['high']:.2f}"
                     for name, r in record.results["ratios"].items())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, help="folder of a clone of github.com/activatedgeek/tight-pac-bayes")
    parser.add_argument("--device", choices=PRESETS, default="cpu")
    parser.add_argument("--repeats", type=int, help="turns; default: the preset's")
    parser.add_argument("--records", type=Path, help="folder for the record; default: records/")
    given = parser.parse_args(arguments)
    if given.peer is None:
        print("left out: their code is no package. Clone it, and give --peer (see the top of this file)")
        return
    changes = {} if given.repeats is None else {"repeats": given.repeats}
    record = with_threads(functools.partial(benchmark, peer=given.peer))(
        dataclasses.replace(PRESETS[given.device], **changes))
    print(table(record), record.save(given.records), sep="\n")


if __name__ == "__main__":
    main()
