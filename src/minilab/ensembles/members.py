"""Train K language models in one program: an ensemble, or a sweep over learning rates and weight decays, in one run.

After Kim et al. (2025), who tune both for each size and go up to a weight decay of 3.2. Members share the corpus, the
shape and the number of epochs. Each has its own learning rate, weight decay, initialization and order of the data, and
becomes the model that it would become alone. Notable:

- Weights, gradients and moments of all members are rows of one matrix (K, P), so AdamW is ten lines, and what belongs
  to a member is a column (K, 1) beside it: learning rate, weight decay, gradient norm.
- The gradient is clipped by its norm over one member. A norm over all would tie members together.
- Matrices and the head decay, norms and the embedding do not (`decays`): with a decay of 3 the mask decides.
- A member whose loss or gradient is no longer finite stops where it is. The others do not notice.
- A step's windows are a function of the step, so a resumed run is the run that was never interrupted.
- Nothing in a step waits for the GPU, which replays it as one graph.
- Continued pre-training (`start`) and distillation (`draw`, `loss`) are this loop too.

Shapes: K members, P parameters of one, N windows of T + 1 tokens, B windows a step, S steps an epoch.
"""

import hashlib
import json
import math
import reprlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minilab.core.files import replacing
from minilab.core.progress import progress
from minilab.core.replay import ReplayedSteps
from minilab.core.train import TrainConfig, learning_rate
from minilab.ensembles.model import Stack, seeded, stack, weights_sha256
from minilab.nn.transformer import Transformer, TransformerConfig

EPS = 1e-8  # of AdamW
LEAST_WARMUP = 10  # steps: a hundredth of a short run is none

# (N, batch, *, seed, epoch): the windows of each step of an epoch. `order` is the usual one.
Order = Callable[..., Int[Tensor, "S B"]]
# What a step goes down for each member, from the model and the step's windows K B T1. `Stack.losses` is the usual one.
Loss = Callable[[Stack, Int[Tensor, "K B T1"]], Float[Tensor, "K"]]


@dataclass(frozen=True)
class Hyper:
    """What a member has of its own."""

    lr: float = 3e-3  # at the peak, after the warm-up
    weight_decay: float = 0.1  # a step shrinks what decays by lr * weight_decay
    init_seed: int = 0
    data_seed: int = 0  # of the order of the windows

    def __post_init__(self) -> None:
        checks = {
            "lr": self.lr > 0,
            "weight_decay": 0 <= self.weight_decay * self.lr < 1,  # from 1 on a step turns weights round
            "init_seed": self.init_seed >= 0, "data_seed": self.data_seed >= 0,
        }
        if bad := [f"{name}={getattr(self, name)!r}" for name, good in checks.items() if not good]:
            raise ValueError(f"a member cannot have {', '.join(bad)}; lr is positive, lr * weight_decay lies in "
                             "[0, 1), and seeds are not negative")


@dataclass(frozen=True)
class RunConfig:
    """What the members of a run share. Raises ValueError for values that cannot work."""

    epochs: int
    batch: int = 2  # windows a step, of each member
    warmup: float = 0.01  # share of the steps, but at least LEAST_WARMUP of them
    clip: float | None = 1.0  # largest gradient norm of a member; None does not clip
    betas: tuple[float, float] = (0.9, 0.95)  # Adam's decay of the first and second moment
    precision: str = "auto"  # fp32, bf16, or auto: bf16 autocast on a CUDA device that has it
    checkpoint: str | Path | None = None  # file to resume from and to save to (.safetensors)
    checkpoint_every: int = 1000  # steps between checkpoints
    log_every: int = 50  # steps between looks at the losses
    replay: bool = True  # on a GPU, run a step as one CUDA graph
    compile: bool = False  # run blocks, losses and the weights' update through torch.compile

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1, "batch": self.batch >= 1,
            "warmup": 0 <= self.warmup <= 1, "clip": self.clip is None or self.clip > 0,
            "betas": all(0 <= beta < 1 for beta in self.betas), "precision": self.precision in ("auto", "fp32", "bf16"),
            "checkpoint_every": self.checkpoint_every >= 1, "log_every": self.log_every >= 1,
        }
        if bad := [f"{name}={getattr(self, name)!r}" for name, good in checks.items() if not good]:
            raise ValueError(f"RunConfig cannot work with {', '.join(bad)}; see the comments on its fields")


@dataclass(frozen=True)
class Members:
    """Trained members, and how they came to be."""

    model: Stack
    hypers: tuple[Hyper, ...]
    run: RunConfig
    losses: Float[Tensor, "K steps"]  # on each step's windows before the step; NaN from where a member diverged
    corpus: str  # SHA-256 of the windows
    unusual: dict[str, str | list[str]]  # start, order, loss and decay_mask (what decays), if they were given
    wall_s: float  # seconds of training over all resumed parts, without on_log and saving

    @property
    def diverged(self) -> list[int | None]:
        """The step at which each member ceased to be finite; None for the sound ones."""
        return [None if finite.all() else int(finite.int().argmin()) for finite in self.losses.isfinite()]


def decays(name: str) -> bool:
    """Whether the parameter of this name decays: matrices and the head do; norms, biases and the embedding do not."""
    return not (name == "embed.weight" or "norm" in name or name.endswith("bias"))


def order(N: int, batch: int, *, seed: int, epoch: int) -> Int[Tensor, "S B"]:
    """The windows of each step of an epoch: a new permutation, less what does not fill a step."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(N, generator=generator)[: N // batch * batch].view(-1, batch)


def schedule(steps: int, run: RunConfig) -> Float[Tensor, "steps 3"]:
    """Each step's numbers: the learning rate as a share of its peak, which rises on a line and then falls on half a
    cosine to zero, and `adamw`'s u1 and u2."""
    warmup = min(steps, max(LEAST_WARMUP, round(run.warmup * steps)))
    config = TrainConfig(steps, lr=1.0, warmup=warmup, min_lr_ratio=0.0)
    b1, b2 = run.betas
    return torch.tensor([[learning_rate(t, config), 1 - b1 ** (t + 1), 1 - b2 ** (t + 1)] for t in range(steps)])


@torch.no_grad()
def adamw(weights: Float[Tensor, "K P"], grads: Float[Tensor, "K P"], m: Float[Tensor, "K P"], v: Float[Tensor, "K P"],
          *, lr: Float[Tensor, "K 1"], decay: Float[Tensor, "K 1"], decayed: int, unbias: Float[Tensor, "2"],
          betas: tuple[float, float]) -> None:
    """One step of AdamW (Loshchilov & Hutter 2019) in place, each member with its own lr and decay:

        m <- b1 m + (1 - b1) g          v <- b2 v + (1 - b2) g^2
        w <- (1 - lr decay) w - lr (m / u1) / (sqrt(v / u2) + eps)

    The first `decayed` columns decay. `unbias` is u1, u2 = 1 - b1^t, 1 - b2^t at step t = 1, 2, ... What `grads` held
    is lost: once the moments have it, its memory serves the rest.
    """
    (b1, b2), (u1, u2) = betas, unbias
    m.lerp_(grads, 1 - b1)
    v.mul_(b2).addcmul_(grads, grads, value=1 - b2)
    weights[:, :decayed].mul_(1 - lr * decay)
    root = u2.sqrt()  # drawn out of the fraction, which saves two passes over the weights
    denominator = torch.sqrt(v, out=grads).add_(EPS * root)
    weights.addcmul_(-lr * root / u1, torch.div(m, denominator, out=grads))


def train_members(
    windows: Int[Tensor, "N T1"],
    config: TransformerConfig,
    hypers: Sequence[Hyper],
    run: RunConfig,
    *,
    start: Transformer | None = None,
    draw: Order = order,
    loss: Loss | None = None,
    decay_mask: Callable[[str], bool] = decays,
    on_log: Callable[[int, Stack], None] | None = None,
) -> Members:
    """Train one member for each of `hypers` on the device of `windows`.

    All begin with the weights of `start`, if given, and not with those of their seeds: continued pre-training. A
    checkpoint knows `draw` and `loss` by their repr: give a method of a dataclass that shows what it depends on.
    `decay_mask` says by a parameter's name whether it decays. `on_log(steps, model)` is called every `log_every`
    steps and at the end, with the number of steps done: for a curve of validation losses.

    Members that diverge are frozen with a warning. Raises ValueError for windows that do not fit the model or the
    batch, and if the checkpoint is damaged or belongs to another run; OSError if it cannot be saved.
    """
    hypers = tuple(hypers)
    _check(windows, config, hypers, run, start)
    corpus, windows = _fingerprint(windows), windows.long()
    model = seeded(config, [hyper.init_seed for hyper in hypers]) if start is None else stack([start] * len(hypers))
    unusual = {"start": start and weights_sha256(start), "order": None if draw is order else repr(draw),
               "loss": loss and repr(loss), "decay_mask": None if decay_mask is decays else [
                   name for name, _ in model.folded.named_parameters() if decay_mask(name)]}
    state = _State(model.float().to(windows.device), hypers, run, loss or Stack.losses, decay_mask,
                   {"corpus": corpus, **unusual})
    first = state.resume()
    one_step = ReplayedSteps(state.step, windows.device) if run.replay and windows.is_cuda else state.step
    per_epoch = len(draw(len(windows), run.batch, seed=hypers[0].data_seed, epoch=0))
    steps = run.epochs * per_epoch
    numbers = schedule(steps, run).to(windows.device)  # where the GPU reads them without waiting
    clock, epoch = time.perf_counter(), None
    bar = progress(range(first, steps), desc=f"{len(hypers)} members", unit="step")
    for step in bar:
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            drawn = [draw(len(windows), run.batch, seed=hyper.data_seed, epoch=epoch) for hyper in hypers]
            drawn = torch.stack(drawn, dim=1).to(windows.device)  # S K B
        state.pending.append(one_step((windows[drawn[step % per_epoch]], numbers[step])))
        done = step + 1
        log_now = done == steps or done % run.log_every == 0
        save_now = run.checkpoint is not None and (done == steps or done % run.checkpoint_every == 0)
        if log_now or save_now:
            state.record()
            state.wall_s += time.perf_counter() - clock
            bar.set_postfix_str(f"loss {state.losses[:, -1].nanmean():.4g}", refresh=False)
            if save_now:
                state.save()
            if log_now and on_log is not None:
                on_log(done, state.model)
            clock = time.perf_counter()
    state.model.plain_losses()  # whoever reads the members brings other shapes
    return Members(state.model, hypers, run, state.losses, corpus, {k: v for k, v in unusual.items() if v},
                   state.wall_s)


def _check(windows: Tensor, config: TransformerConfig, hypers: Sequence[Hyper], run: RunConfig,
           start: Transformer | None) -> None:
    """Raise ValueError for what cannot be trained on."""
    if not hypers:
        raise ValueError("no members: give at least one Hyper")
    if start is not None and start.config != config:
        raise ValueError(f"members of {config} cannot start from a model of {start.config}: give its configuration")
    N, length = windows.shape[0], windows.shape[1] - 1
    if N < run.batch:
        raise ValueError(f"{N} windows do not fill one batch of {run.batch}: give more text, shorter windows, or a "
                         "smaller batch")
    if not 1 <= length <= config.context:
        raise ValueError(f"windows of {length + 1} tokens give {length} predictions, and the model's context is "
                         f"{config.context}: cut windows of 2 to {config.context + 1} tokens")
    low, high = int(windows.min()), int(windows.max())
    if low < 0 or high >= config.vocab_size:
        raise ValueError(f"tokens run from {low} to {high}, and the model knows 0 to {config.vocab_size - 1}: use the "
                         "tokenizer that the model is made for, or a larger vocab_size")


def _fingerprint(windows: Int[Tensor, "N T1"]) -> str:
    """SHA-256 of the tokens and of how they are cut."""
    digest = hashlib.sha256(str(tuple(windows.shape)).encode())
    digest.update(windows.cpu().long().contiguous().numpy())
    return digest.hexdigest()


def numbers(run: RunConfig) -> dict:
    """What of a run sets its result, and not how it is watched or kept."""
    free = ("checkpoint", "checkpoint_every", "log_every", "replay", "compile")
    return {name: value for name, value in asdict(run).items() if name not in free}


class _State:
    """What changes in a run and what a checkpoint holds: weights, moments, who is alive, losses."""

    def __init__(self, model: Stack, hypers: tuple[Hyper, ...], run: RunConfig, loss: Loss,
                 decay_mask: Callable[[str], bool], given: Mapping) -> None:
        self.model, self.hypers, self.run, self.loss, device = model, hypers, run, loss, model.device
        identity = {"config": asdict(model.config), "members": [asdict(hyper) for hyper in hypers], **numbers(run)}
        self.identity = json.loads(json.dumps({**identity, **given}))  # as it reads back: tuples become lists
        named = sorted(self.model.folded.named_parameters(), key=lambda item: not decay_mask(item[0]))
        self.params = [p for _, p in named]
        sizes = [p[0].numel() for p in self.params]
        self.decayed = sum(size for (name, _), size in zip(named, sizes, strict=True) if decay_mask(name))
        self.weights = torch.cat([p.detach().flatten(1) for p in self.params], dim=1)  # K P
        for p, part in zip(self.params, self.weights.split(sizes, dim=1), strict=True):
            p.data = part.view(p.shape)  # from here on a parameter is a view of its columns
        self.grads, self.m, self.v = (torch.zeros_like(self.weights) for _ in range(3))
        self.lr, self.decay = torch.tensor([[h.lr, h.weight_decay] for h in hypers], device=device).split(1, 1)  # K 1
        self.alive = torch.ones(len(hypers), 1, dtype=torch.bool, device=device)
        self.saved = {"weights": self.weights, "m": self.m, "v": self.v, "alive": self.alive}
        self.losses, self.pending, self.wall_s = torch.empty(len(hypers), 0), [], 0.0
        self.bf16 = run.precision == "bf16" or (
            run.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        self.update = torch.compile(self._update, dynamic=False) if run.compile else self._update
        if run.compile:
            model.compile_losses()

    def step(self, batch: tuple[Int[Tensor, "K B T1"], Float[Tensor, "3"]]) -> Float[Tensor, "K"]:
        """The members' losses on their windows, and a step down each. `batch` has a row of `schedule` too."""
        windows, numbers = batch
        with torch.autocast(windows.device.type, torch.bfloat16, enabled=self.bf16):
            losses = self.loss(self.model, windows)
        grads = torch.autograd.grad(losses.sum(), self.params)
        torch.cat([g.flatten(1) for g in grads], dim=1, out=self.grads)  # K P
        return self.update(losses.detach(), numbers)

    def _update(self, losses: Float[Tensor, "K"], numbers: Float[Tensor, "3"]) -> Float[Tensor, "K"]:
        """Change the weights by what `self.grads` holds; the losses, NaN for who is not alive."""
        grads, norms = self.grads, self.grads.norm(dim=1, keepdim=True)  # K P, K 1
        self.alive &= (losses[:, None] + norms).isfinite()
        grads.masked_fill_(~self.alive, 0.0)  # before the product: 0 times NaN is NaN
        if self.run.clip is not None:
            grads.mul_((self.run.clip / (norms + 1e-6)).clamp(max=1.0).nan_to_num())
        adamw(self.weights, grads, self.m, self.v, lr=torch.where(self.alive, self.lr * numbers[0], 0.0),
              decay=self.decay, decayed=self.decayed, unbias=numbers[1:], betas=self.run.betas)
        return losses.masked_fill(~self.alive[:, 0], math.nan)

    def record(self) -> None:
        """Fetch the pending losses from the device (the only wait of the loop), and warn of who diverged."""
        start, new = self.losses.shape[1], torch.stack(self.pending, dim=1).cpu()  # K steps
        self.pending.clear()
        was_alive = self.losses[:, -1:].isfinite().all(dim=1)
        for k in (was_alive & ~new[:, -1].isfinite()).nonzero()[:, 0].tolist():
            step = start + int(new[k].isfinite().int().argmin())
            warnings.warn(f"member {k} diverged at step {step} ({self.hypers[k]}) and stays as it was before; "
                          "the others go on. Lower its lr or lengthen the warm-up", stacklevel=3)
        self.losses = torch.cat((self.losses, new), dim=1)

    def save(self) -> None:
        """Write the checkpoint in one step: a full disk leaves the one before."""
        path = Path(self.run.checkpoint)
        tensors = {name: t.cpu() for name, t in self.saved.items()} | {"losses": self.losses.contiguous()}
        try:
            with replacing(path) as temporary:
                header = {"run": json.dumps(self.identity), "wall_s": str(self.wall_s)}
                save_file(tensors, temporary, metadata=header)
        except (OSError, SafetensorError) as error:
            raise OSError(f"{path} was not saved ({error}). Make room for it and run again: training goes on from "
                          "the last checkpoint that was saved") from error

    def resume(self) -> int:
        """Restore the checkpoint if there is one, and return the step to go on with."""
        if self.run.checkpoint is None or not (path := Path(self.run.checkpoint)).is_file():
            return 0
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata()
                found = {name: file.get_tensor(name) for name in file.keys()}
            identity, self.wall_s, self.losses = json.loads(header["run"]), float(header["wall_s"]), found["losses"]
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a whole checkpoint ({error}); delete it to start over") from error
        if changed := [key for key, now in self.identity.items() if identity.get(key) != now]:
            difference = ", ".join(f"{key} {reprlib.repr(identity.get(key))}, not {reprlib.repr(self.identity[key])}"
                                   for key in changed)
            raise ValueError(f"{path} belongs to another run ({difference}); delete it, or name another file")
        for name, t in self.saved.items():
            t.copy_(found[name])
        return self.losses.shape[1]


@torch.no_grad()
def validation_loss(model: Stack, windows: Int[Tensor, "N T1"], *, chunk: int = 16) -> Float[Tensor, "K"]:
    """Mean cross-entropy of each member in nats a token, all on the same windows, `chunk` of them at a time."""
    if not len(windows):
        raise ValueError("no windows to validate on: give at least one")
    total = torch.zeros(model.K, dtype=torch.float64)
    for rows in windows.to(model.device).long().split(chunk):
        total += len(rows) * model.losses(rows.expand(model.K, *rows.shape)).cpu()
    return (total / len(windows)).float()
