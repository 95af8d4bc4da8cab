"""One small training loop for every model of the book.

- AdamW, with weight decay on matrices only: a norm's gain or a bias pulled to zero is a different model.
- Linear warm-up, then half a cosine down to `min_lr_ratio` of the peak; the gradient clipped to a norm.
- An exponential moving average (EMA) of the weights, which replaces them at the end.
- A run can stop anywhere. It continues from its last whole checkpoint with the losses that it would have had.
  That needs three things: batches are a function of the step, the random state of dropout is saved with the
  weights, and weights, optimizer and log are one file that is replaced in one step.
- The GPU is never waited for between logs: losses stay on the device until `log_every` of them are fetched.
- A small model's step is hundreds of kernels that take longer to launch than to run; `replay` launches them at once.
"""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from minilab.core.files import replacing
from minilab.core.progress import progress
from minilab.core.replay import ReplayedSteps


@dataclass(frozen=True)
class TrainConfig:
    """What a training run does. Raises ValueError for values that cannot work."""

    steps: int  # optimizer steps in all
    lr: float = 3e-4  # peak learning rate, reached after the warm-up
    weight_decay: float = 0.1  # on parameters of two dimensions or more
    betas: tuple[float, float] = (0.9, 0.95)  # Adam's decay of the first and second moment
    warmup: int = 0  # steps of linear warm-up
    min_lr_ratio: float = 0.1  # where the cosine ends, as a share of lr
    clip: float | None = 1.0  # largest gradient norm; None does not clip
    ema: float | None = None  # decay of the weights' moving average, such as 0.999; None keeps none
    precision: str = "auto"  # fp32, bf16, or auto: bf16 autocast on a CUDA device that has it
    checkpoint: str | Path | None = None  # file to resume from and to save to (.safetensors)
    checkpoint_every: int = 1000  # steps between checkpoints
    log_every: int = 50  # steps between looks at the loss
    compile: bool = False  # run the model through torch.compile
    replay: bool = False  # on a GPU, run a step as one CUDA graph: only for a loss that never waits for the GPU

    def __post_init__(self) -> None:
        checks = {
            "steps": self.steps >= 1,
            "lr": self.lr > 0,
            "weight_decay": self.weight_decay >= 0,
            "warmup": 0 <= self.warmup <= self.steps,
            "min_lr_ratio": 0 <= self.min_lr_ratio <= 1,
            "clip": self.clip is None or self.clip > 0,
            "ema": self.ema is None or 0 <= self.ema < 1,
            "precision": self.precision in ("auto", "fp32", "bf16"),
            "checkpoint_every": self.checkpoint_every >= 1,
            "log_every": self.log_every >= 1,
        }
        if bad := [f"{name}={getattr(self, name)!r}" for name, good in checks.items() if not good]:
            raise ValueError(f"TrainConfig cannot work with {', '.join(bad)}; see the comments on its fields")


@dataclass
class TrainLog:
    """What happened, step by step; an interrupted run that was resumed reads like one that was not."""

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    wall_s: float = 0.0  # seconds of training over all resumed parts, without on_log and saving


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of `step`, from 0: up to lr over the warm-up, then down half a cosine."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / (config.steps - config.warmup)
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * (1 + math.cos(math.pi * done)) / 2)


def train(
    model: nn.Module,
    batches: Callable[[int], Any],
    loss_fn: Callable[[nn.Module, Any], Tensor],
    config: TrainConfig,
    *,
    on_log: Callable[[int, float, float], None] | None = None,
) -> TrainLog:
    """Train `model` in place, on the device where it is, and return the log.

    `batches(step)` gives the batch of a step and must depend on nothing else, so that a resumed run sees the
    same data. `loss_fn(model, batch)` gives a scalar. `on_log(step, loss, lr)` is called every `log_every`
    steps with the mean loss since the last call. Raises ValueError if the loss is no longer finite, or if the
    checkpoint is damaged or belongs to another run.
    """
    run = _Run(model, config)
    start = run.resume()
    device = next(model.parameters()).device
    bf16 = config.precision == "bf16" or (
        config.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    forward = torch.compile(model) if config.compile else model
    was_training = model.training
    model.train()
    pending: list[Tensor] = []
    clock = time.perf_counter()
    bar = progress(range(start, config.steps), desc="train", unit="step")

    def step_once(batch: Any) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = loss_fn(forward, batch)
        loss.backward()
        if config.clip is not None:
            nn.utils.clip_grad_norm_(run.trained, config.clip)
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.update_ema()
        return loss.detach().float()

    one_step = ReplayedSteps(step_once, device) if run.replay else step_once
    for step in bar:
        run.set_lr(learning_rate(step, config))
        pending.append(one_step(batches(step)))

        last = step + 1 == config.steps
        log_now = last or (step + 1) % config.log_every == 0
        save_now = config.checkpoint is not None and (last or (step + 1) % config.checkpoint_every == 0)
        if log_now or save_now:
            run.record(pending)
            run.log.wall_s += time.perf_counter() - clock
        if log_now:
            window = run.log.losses[step - step % config.log_every :]
            mean = sum(window) / len(window)
            bar.set_postfix_str(f"loss {mean:.4g}", refresh=False)
            if on_log is not None:
                on_log(step, mean, learning_rate(step, config))
                model.train()  # a validation in on_log leaves it in eval mode
        if save_now:
            run.save()
        if log_now or save_now:
            clock = time.perf_counter()
    run.use_ema()
    model.train(was_training)
    return run.log


class _Run:
    """The state that a checkpoint holds: weights, optimizer, moving average, random state, log."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.config = config
        self.log = TrainLog()
        params = {name: p for name, p in model.named_parameters() if p.requires_grad}
        saved = model.state_dict().keys()
        buffers = {name: b for name, b in model.named_buffers() if name in saved}
        self.state = dict(model.named_parameters()) | buffers  # tied weights appear once
        self.trained = list(params.values())
        device = self.trained[0].device
        self.cuda = device if device.type == "cuda" else None
        self.replay = config.replay and self.cuda is not None
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.trained if p.ndim >= 2], "weight_decay": config.weight_decay},
                {"params": [p for p in self.trained if p.ndim < 2], "weight_decay": 0.0},
            ],
            # What a graph reads anew at each replay is in the GPU's memory.
            lr=torch.tensor(config.lr, device=device) if self.replay else config.lr,
            betas=config.betas,
            fused=self.cuda is not None,
            capturable=self.replay,
        )
        self.ema = {} if config.ema is None else {name: p.detach().clone() for name, p in params.items()}
        self._average = get_ema_multi_avg_fn(config.ema) if self.ema else None

    def set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            if self.replay:
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def update_ema(self) -> None:
        if self._average is not None:
            self._average(list(self.ema.values()), [p.detach() for p in self.trained], None)

    def use_ema(self) -> None:
        with torch.no_grad():
            for name, average in self.ema.items():
                self.state[name].copy_(average)

    def record(self, pending: list[Tensor]) -> None:
        """Fetch the pending losses from the device (the only wait of the loop) and empty the list."""
        values = torch.stack(pending).tolist() if pending else []
        pending.clear()
        for step, loss in enumerate(values, start=len(self.log.losses)):
            lr = learning_rate(step, self.config)
            if not math.isfinite(loss):
                raise ValueError(
                    f"the loss is {loss} at step {step}, with learning rate {lr:.3g}; "
                    "lower lr, lengthen the warm-up, or clip the gradient"
                )
            self.log.steps.append(step)
            self.log.losses.append(loss)
            self.log.lr.append(lr)

    def save(self) -> None:
        """Write the checkpoint file in one step; the log travels as JSON in its header."""
        tensors = {f"model.{name}": t.detach() for name, t in self.state.items()}
        tensors |= {f"ema.{name}": t for name, t in self.ema.items()}
        for i, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{slot}": t for slot, t in slots.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.cuda is not None:
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.cuda)
        header = {"log": json.dumps(dataclasses.asdict(self.log)), "config": json.dumps(self._identity())}
        with replacing(Path(self.config.checkpoint)) as temporary:
            save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, temporary, metadata=header)

    def resume(self) -> int:
        """Restore the checkpoint if there is one, and return the step to go on with."""
        if self.config.checkpoint is None or not Path(self.config.checkpoint).is_file():
            return 0
        path = Path(self.config.checkpoint)
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            log, identity = TrainLog(**json.loads(header["log"])), json.loads(header["config"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is not a whole checkpoint ({error}); delete it to start over"
            ) from error
        now = self._identity()
        if changed := [key for key in now if identity.get(key) != now[key]]:
            difference = ", ".join(
                f"{k} {reprlib.repr(identity.get(k))}, not {reprlib.repr(now[k])}" for k in changed
            )
            raise ValueError(f"{path} belongs to another run ({difference}); delete it, or name another file")
        self._restore(tensors)
        self.log = log
        return len(log.losses)

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, t in self.state.items():
                t.copy_(tensors[f"model.{name}"])
            for name, t in self.ema.items():
                t.copy_(tensors[f"ema.{name}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, t in tensors.items():
            if name.startswith("adam."):
                _, index, slot = name.split(".")
                state.setdefault(int(index), {})[slot] = t
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        torch.set_rng_state(tensors["random.cpu"])
        if self.cuda is not None and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.cuda)

    def _identity(self) -> dict:
        """What two runs must share for one to continue the other: what sets the numbers, and the shapes."""
        free = ("checkpoint", "checkpoint_every", "log_every", "compile", "replay")
        numbers = {k: v for k, v in dataclasses.asdict(self.config).items() if k not in free}
        shapes = {name: list(t.shape) for name, t in self.state.items()}
        return json.loads(json.dumps({**numbers, "shapes": shapes}))  # as it reads back: tuples become lists
