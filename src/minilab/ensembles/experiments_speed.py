"""How fast members learn in one program, beside the same members one after another, and beside plain PyTorch."""

import time
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.core.timing import product_rate, spread, wait
from minilab.ensembles.members import Hyper, RunConfig, decays, train_members
from minilab.ensembles.runs import Run, Task, parameters
from minilab.ensembles.study import CARD, LAPTOP, QUICK, Study
from minilab.nn.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class SpeedPreset:
    name: str
    study: Study
    sizes: tuple[int, ...]  # which of the study's
    K: int = 8
    steps: int = 40  # that are timed, after as many again
    repeats: int = 5
    compile: bool = False
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


# The paper's 150M and 300M with its vocabulary and context; `speed` draws its tokens at random.
PAPER = replace(CARD, batch=4, data=replace(CARD.data, vocab=128_256, length=4096), models=tuple(
    TransformerConfig(vocab_size=128_256, context=4096, dim=dim, n_layers=layers, n_heads=dim // 64,
                      n_kv_heads=dim // 64, head_dim=64, hidden_dim=7 * dim // 2, tie_embeddings=False)
    for dim, layers in ((512, 6), (768, 12))), standard=CARD.standard[:2], regularized=CARD.regularized[:2])

SPEED = {
    "cpu": SpeedPreset("cpu", QUICK, (0,), K=2, steps=2, repeats=1, device="cpu"),
    "two-cores": SpeedPreset("two-cores", LAPTOP, (0, 1, 3), device="cpu"),
    "gpu": SpeedPreset("gpu", CARD, (0, 1, 2, 3), steps=300, repeats=3, compile=True, device="cuda"),
    "gpu-paper": SpeedPreset("gpu-paper", PAPER, (0, 1), K=2, steps=10, repeats=3, compile=True, device="cuda"),
}


@with_threads
def speed(preset: SpeedPreset) -> Record:
    """Tokens a second of K members in one program and one by one, and the share of the device's own rate."""
    started, device, rows = time.perf_counter(), pick_device(preset.device), {}
    study = preset.study
    kind = torch.bfloat16 if study.precision == "bf16" else torch.float32
    rate = product_rate(device, 8192 if device.type == "cuda" else 1024, kind)
    for i in preset.sizes:
        seconds, task = timed(preset, i, device), study.task(i)
        tokens = preset.K * preset.steps * task.batch * task.data.length
        flops = Run(task, 1, Hyper()).flops / task.data.tokens  # of a token
        rows[study.names[i]] = {
            "parameters": parameters(task.model),
            "tokens_per_s": {way: spread([tokens / s for s in found]) for way, found in seconds.items()},
            "times_faster": {way: spread([a / b for a, b in zip(seconds[way], seconds[TOGETHER], strict=True)])
                             for way in (APART, PLAIN)},
            "share_of_rate": {way: spread([tokens * flops / rate / s for s in found])
                              for way, found in seconds.items()}}
    return Record.new(experiment="ensembles/speed", preset=preset, started=started, results={
        "K": preset.K, "flops_per_s": rate, "sizes": rows})


TOGETHER, APART, PLAIN = "in one program", "one after another", "plain PyTorch"


def timed(preset: SpeedPreset, size: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds that K members take for so many steps each, in three ways, by turns.

    Each training does as many steps before, in which kernels are compiled, captured and chosen.
    """
    task = preset.study.task(size)
    generator, shape = torch.Generator().manual_seed(preset.seed), (2 * preset.steps * task.batch, task.data.length + 1)
    windows = torch.randint(task.data.vocab, shape, generator=generator).to(device)
    hypers = [Hyper(init_seed=k, data_seed=k) for k in range(preset.K)]

    def stacks(groups: list[list[Hyper]]) -> float:
        run, marks = RunConfig(1, task.batch, precision=task.precision, log_every=preset.steps,
                               compile=preset.compile), []
        for group in groups:
            train_members(windows, task.model, group, run, on_log=lambda *_: marks.append(time.perf_counter()))
        return sum(marks[1::2]) - sum(marks[::2])

    ways = {TOGETHER: lambda: stacks([hypers]), APART: lambda: stacks([[hyper] for hyper in hypers]),
            PLAIN: lambda: preset.K * plain(windows, task, hypers[0], preset)}
    found = {way: [] for way in ways}
    for _ in range(preset.repeats):
        for way, seconds in ways.items():
            found[way].append(seconds())
    return found


def plain(windows: Int[Tensor, "n T1"], task: Task, hyper: Hyper, preset: SpeedPreset) -> float:
    """Seconds of one member's steps with PyTorch's own AdamW and no stack: the peer, compiled where ours is."""
    model = Transformer(task.model).to(windows.device)
    read = torch.compile(model, dynamic=False) if preset.compile else model
    groups = {True: [], False: []}
    for name, p in model.named_parameters():
        groups[decays(name)].append(p)
    optimizer = torch.optim.AdamW([{"params": groups[True], "weight_decay": hyper.weight_decay},
                                   {"params": groups[False], "weight_decay": 0.0}],
                                  lr=hyper.lr, betas=(0.9, 0.95), fused=True)
    half = torch.autocast(windows.device.type, torch.bfloat16, enabled=task.precision == "bf16")
    for step, rows in enumerate(windows.split(task.batch)):
        if step == preset.steps:
            wait(windows.device)
            start = time.perf_counter()
        with half:
            logits = read(rows[:, :-1])
        F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    wait(windows.device)
    return time.perf_counter() - start
