"""Chapter 5's members in one program against the same members trained with named peers.

- `transformers`: the K models as Hugging Face's LlamaForCausalLM, one after the other, each with PyTorch's fused AdamW
  and its clipping of gradients.
- `torch.func`: K modules stacked as PyTorch's tutorial on ensembles has it (`stack_module_state`, `vmap`), with one
  AdamW for all. On a CPU its attention is one call a member: PyTorch has no batched one there, and says so.

First all must show the same losses over all steps, or in 16 bits over the warm-up, since roundings grow to tenths of a
nat: weights, text and its order, schedule, decay and clipping are the same. Nothing is compiled. All are timed in turn
(A B C A B C …), and a ratio is taken within each turn. Above 1, ours is faster. Ours makes its members anew in each
turn, which counts; theirs learn on from where the turn before ended.
"""

import argparse
import dataclasses
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import minilab  # noqa: F401  (sets the OpenMP policy, which torch reads when it is loaded)

# isort: split
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.core.timing import interleaved, spread
from minilab.ensembles.members import LEAST_WARMUP, Hyper, RunConfig, decays, order, schedule, train_members
from minilab.ensembles.model import seeded
from minilab.ensembles.study import CARD, LAPTOP, Study
from minilab.nn.huggingface import save_hf_folder
from minilab.nn.transformer import Transformer

RATIOS = {"transformers": ("members", "transformers"), "torch.func": ("members", "torch.func")}
Step = Callable[[Tensor, float], Tensor]  # windows K B T+1 and a factor of the learning rate to losses K


@dataclass(frozen=True)
class Preset:
    name: str  # "cpu" or "gpu"
    device: str
    study: Study
    size: int
    K: int = 8
    steps: int = 20  # a turn
    repeats: int = 7
    threads: int | None = 1
    seed: int = 0


PRESETS = {"cpu": Preset("cpu", "cpu", LAPTOP, 1), "cuda": Preset("gpu", "cuda", CARD, 1, steps=60, repeats=3)}


def benchmark(preset: Preset) -> Record:
    """Check that all learn alike, time all in turn, and record the ratios of speeds."""
    started, device = time.perf_counter(), pick_device(preset.device)
    contestants = trainings(preset, device)
    with warnings.catch_warnings(action="ignore"):  # of slow attention, see above
        apart = require_same({name: train() for name, train in contestants.items()}, preset)
        seconds = interleaved(contestants, repeats=preset.repeats, device=device)
    ratios = {name: spread([b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True)])
              for name, (ours, theirs) in RATIOS.items()}
    task = preset.study.task(preset.size)
    tokens = preset.K * preset.steps * task.batch * task.data.length
    rates = {name: spread([tokens / s for s in found]) for name, found in seconds.items()}
    record = Record.new(experiment="ensembles/benchmark", preset=preset, started=started,
                        results={"ratios": ratios, "per_s": rates, "apart": apart})
    record.provenance["command"] = f"python benchmarks/ensembles.py --device {preset.device}"
    return record


def trainings(preset: Preset, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """Three ways to train the same members on the same windows; each returns the losses, K by steps."""
    task, seeds = preset.study.task(preset.size), range(preset.seed, preset.seed + preset.K)
    windows = task.data.corpus().train[: preset.steps * task.batch].to(device).long()
    run, hypers = RunConfig(1, task.batch, precision=task.precision), [Hyper(3e-3, 0.4, seed, seed) for seed in seeds]
    factors = schedule(preset.steps, run)[:, 0].tolist()
    drawn = torch.stack([order(len(windows), task.batch, seed=seed, epoch=0) for seed in seeds], dim=1)  # S K B
    half = torch.autocast(device.type, torch.bfloat16, enabled=task.precision == "bf16")

    def ours() -> Tensor:
        return train_members(windows, task.model, hypers, run).losses

    def with_steps(begin: Callable[[list[Transformer], Hyper, RunConfig], Step]) -> Callable[[], Tensor]:
        models = seeded(task.model, seeds).to(device)
        step = begin([models.member(k) for k in range(preset.K)], hypers[0], run)

        def train() -> Tensor:
            losses = []
            for rows, factor in zip(drawn, factors, strict=True):
                with half:  # anew, or weights would stay in half precision as they were when it began
                    losses.append(step(windows[rows], factor))
            return torch.stack(losses, dim=1).cpu()

        return train

    return {"members": ours, "transformers": with_steps(llamas), "torch.func": with_steps(stacked)}


def llamas(models: list[Transformer], hyper: Hyper, run: RunConfig) -> Step:
    """Hugging Face's, one after the other."""
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        paths = [save_hf_folder(model, Path(folder) / str(k)) for k, model in enumerate(models)]
        theirs = [transformers.AutoModelForCausalLM.from_pretrained(path).to(models[0].device).train()
                  for path in paths]
    optimizers = [adamw_of(dict(model.named_parameters()), hyper, run) for model in theirs]

    def step(windows: Tensor, factor: float) -> Tensor:
        found = []
        for model, optimizer, rows in zip(theirs, optimizers, windows, strict=True):
            loss = loss_of(model(input_ids=rows[:, :-1], use_cache=False).logits, rows[:, 1:])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), run.clip)
            go(optimizer, hyper.lr * factor)
            found.append(loss.detach())
        return torch.stack(found)

    return step


def stacked(models: list[Transformer], hyper: Hyper, run: RunConfig) -> Step:
    """PyTorch's way to stack modules."""
    weights, _ = stack_module_state(models)
    optimizer = adamw_of(weights, hyper, run)

    def loss(weights: dict[str, Tensor], rows: Tensor) -> Tensor:
        return loss_of(functional_call(models[0], weights, (rows[:, :-1],)), rows[:, 1:])

    each = vmap(grad_and_value(loss))

    def step(windows: Tensor, factor: float) -> Tensor:
        grads, losses = each({name: w.detach() for name, w in weights.items()}, windows)
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in grads.values()]).norm(dim=0)  # K
        scale = (run.clip / (norms + 1e-6)).clamp(max=1.0)
        for name, grad in grads.items():
            weights[name].grad = grad * scale.view(-1, *[1] * (grad.dim() - 1))
        go(optimizer, hyper.lr * factor)
        return losses

    return step


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def adamw_of(weights: dict[str, Tensor], hyper: Hyper, run: RunConfig) -> torch.optim.AdamW:
    """PyTorch's, with the decay where ours is."""
    of = {"decays": [], "stays": []}
    for name, w in weights.items():
        of["decays" if decays(name.replace("model.embed_tokens", "embed")) else "stays"].append(w)
    return torch.optim.AdamW([{"params": of["decays"], "weight_decay": hyper.weight_decay},
                              {"params": of["stays"], "weight_decay": 0.0}], betas=run.betas, fused=True)


def go(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad()


def require_same(losses: dict[str, Tensor], preset: Preset) -> dict[str, float]:
    """By how many nats losses are off ours at most. SystemExit if that is more than roundings."""
    steps, most = (LEAST_WARMUP, 5e-2) if preset.study.precision == "bf16" else (preset.steps, 1e-4)
    apart = {name: float((losses[name] - losses["members"])[:, :steps].abs().max()) for name in RATIOS}
    for name, gap in apart.items():
        if gap > most:
            raise SystemExit(f"losses by {name} are up to {gap:.2g} nats off ours: nothing was timed")
    return apart


def table(record: Record) -> str:
    """The median ratios of speeds with their interquartile ranges."""
    return "\n".join(f"{' / '.join(RATIOS[name]):22}  {r['median']:6.2f}  {r['low']:.2f} to {r['high']:.2f}"
                     for name, r in record.results["ratios"].items())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=PRESETS, default="cpu")
    parser.add_argument("--repeats", type=int, help="turns; default: the preset's")
    parser.add_argument("--records", type=Path, help="folder for the record; default: records/")
    given = parser.parse_args(arguments)
    changes = {} if given.repeats is None else {"repeats": given.repeats}
    record = with_threads(benchmark)(dataclasses.replace(PRESETS[given.device], **changes))
    print(table(record), record.save(given.records), sep="\n")


if __name__ == "__main__":
    main()
