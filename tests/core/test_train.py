"""The training loop, held to AdamW, the schedule and the moving average written out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from torch import nn

from minilab.core.train import TrainConfig, _Run, learning_rate, train

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("MINILAB_PROGRESS", "0")


def make_model(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Dropout(dropout), nn.Linear(8, 3)).double()


def batch(step: int):
    generator = torch.Generator().manual_seed(1000 + step)
    x = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    return x, torch.sin(x[:, :3])


def loss_fn(model, data):
    x, y = data
    return (model(x) - y).square().mean()


def weights_of(model) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def by_hand(config: TrainConfig) -> tuple[list[list[torch.Tensor]], list[float]]:
    """The weights after each step and the losses, from the formulas of AdamW, clipping and the schedule."""
    model = make_model()
    params = list(model.parameters())
    m = [torch.zeros_like(p) for p in params]
    v = [torch.zeros_like(p) for p in params]
    b1, b2 = config.betas
    history, losses = [weights_of(model)], []
    for t in range(1, config.steps + 1):
        loss = loss_fn(model, batch(t - 1))
        grads = torch.autograd.grad(loss, params)
        norm = math.sqrt(sum(float(g.square().sum()) for g in grads))
        shrink = 1.0 if config.clip is None else min(1.0, config.clip / (norm + 1e-6))
        if t <= config.warmup:
            lr = config.lr * t / config.warmup
        else:
            angle = math.pi * (t - 1 - config.warmup) / (config.steps - config.warmup)
            low = config.lr * config.min_lr_ratio
            lr = low + (config.lr - low) * (1 + math.cos(angle)) / 2
        with torch.no_grad():
            for p, g, mi, vi in zip(params, grads, m, v, strict=True):
                g = g * shrink
                mi.mul_(b1).add_(g, alpha=1 - b1)
                vi.mul_(b2).add_(g * g, alpha=1 - b2)
                decay = config.weight_decay if p.ndim >= 2 else 0.0
                p -= lr * decay * p
                p -= lr * (mi / (1 - b1**t)) / ((vi / (1 - b2**t)).sqrt() + 1e-8)
        history.append(weights_of(model))
        losses.append(loss.item())
    return history, losses


CONFIG = TrainConfig(steps=12, lr=0.05, weight_decay=0.3, warmup=3, min_lr_ratio=0.1, clip=0.1, log_every=5)


@pytest.mark.parametrize(
    "change", [{}, {"clip": None}, {"warmup": 0}, {"weight_decay": 0.0}, {"betas": (0.8, 0.99)}]
)
def test_loop_is_adamw_with_clipping_and_schedule_written_out(change):
    config = replace(CONFIG, **change)
    history, losses = by_hand(config)
    model = make_model()
    log = train(model, batch, loss_fn, config)
    assert log.losses == pytest.approx(losses, rel=1e-6)  # the log is kept in float32
    for ours, theirs in zip(model.parameters(), history[-1], strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-9, atol=1e-12)
    assert log.steps == list(range(12)) and log.wall_s > 0
    assert log.lr == [learning_rate(s, config) for s in range(12)]


def test_the_hand_written_loop_would_notice_each_classic_bug():
    plain = by_hand(CONFIG)[0][-1]
    for change in ({"weight_decay": 0.0}, {"clip": None}, {"warmup": 0}, {"min_lr_ratio": 0.0}):
        other = by_hand(replace(CONFIG, **change))[0][-1]
        assert max(float((a - b).abs().max()) for a, b in zip(plain, other, strict=True)) > 1e-4, change


def test_norms_and_biases_are_not_decayed():
    config = TrainConfig(steps=1, lr=0.1, weight_decay=1.0)
    model = make_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(
        model, batch, lambda m, b: 0.0 * sum(p.sum() for p in m.parameters()), config
    )  # no gradient but decay
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] * (0.9 if p.ndim >= 2 else 1.0))


def test_schedule_rises_linearly_then_follows_half_a_cosine():
    config = TrainConfig(steps=110, lr=2.0, warmup=10, min_lr_ratio=0.1)
    assert [learning_rate(s, config) for s in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert learning_rate(10, config) == pytest.approx(2.0)  # no step down or up at the seam
    assert learning_rate(60, config) == pytest.approx((2.0 + 0.2) / 2)  # half way is the mean
    assert learning_rate(110, config) == pytest.approx(0.2)
    values = [learning_rate(s, config) for s in range(10, 110)]
    assert values == sorted(values, reverse=True) and values[-1] > 0.2
    assert learning_rate(9, TrainConfig(steps=10, warmup=10, lr=1.0)) == 1.0


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_ema_weights_are_the_closed_form_average(decay):
    config = replace(CONFIG, ema=decay)
    history, _ = by_hand(config)
    model = make_model()
    train(model, batch, loss_fn, config)
    steps = config.steps
    share = [decay**steps] + [(1 - decay) * decay ** (steps - t) for t in range(1, steps + 1)]
    for i, p in enumerate(model.parameters()):
        average = sum(w * weights[i] for w, weights in zip(share, history, strict=True))
        torch.testing.assert_close(p.detach(), average, rtol=1e-9, atol=1e-12)


class Interrupt:
    """Batches that press Ctrl-C at one step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, step: int):
        if step == self.at:
            raise KeyboardInterrupt
        return batch(step)


@pytest.mark.parametrize("stops", [[3], [5], [8], [11], [6, 9]])
@pytest.mark.parametrize("log_every", [1, 4])
def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, stops, log_every):
    config = replace(CONFIG, ema=0.9, log_every=log_every, checkpoint_every=3)
    whole, told, told_again = make_model(dropout=0.3), [], []
    log = train(whole, batch, loss_fn, config, on_log=lambda *line: told.append(line))

    config = replace(config, checkpoint=tmp_path / "run.safetensors")
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            train(make_model(dropout=0.3), Interrupt(stop), loss_fn, config)
        torch.manual_seed(99)  # a new process has another random state
    resumed = make_model(dropout=0.3)
    torch.manual_seed(99)
    asked = []
    log_again = train(
        resumed,
        lambda s: asked.append(s) or batch(s),
        loss_fn,
        config,
        on_log=lambda *line: told_again.append(line),
    )
    assert asked[0] == stops[-1] - stops[-1] % 3  # it went on from the last checkpoint
    assert log_again.losses == log.losses and log_again.lr == log.lr and log_again.steps == log.steps
    assert told_again == told[len(told) - len(told_again) :] and told_again
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert (
        log.losses != train(make_model(), batch, loss_fn, replace(config, checkpoint=None)).losses
    )  # dropout acts


def test_finished_run_is_read_back_without_training(tmp_path):
    config = replace(CONFIG, ema=0.9, checkpoint=tmp_path / "run.safetensors")
    first, second = make_model(), make_model()
    log = train(first, batch, loss_fn, config)
    again = train(second, lambda step: pytest.fail("trained again"), loss_fn, config)
    assert again == log
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_buffers_travel_with_the_checkpoint(tmp_path):
    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()

    config = replace(CONFIG, checkpoint_every=4)
    whole, resumed = make(), make()
    train(whole, batch, loss_fn, config)
    config = replace(config, checkpoint=tmp_path / "run.safetensors")
    with pytest.raises(KeyboardInterrupt):
        train(make(), Interrupt(9), loss_fn, config)
    train(resumed, batch, loss_fn, config)
    assert all(torch.equal(a, b) for a, b in zip(whole.buffers(), resumed.buffers(), strict=True))
    assert int(resumed[1].num_batches_tracked) == 12


def test_tied_weights_are_trained_and_resumed_once(tmp_path):
    def make():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Tanh(), nn.Linear(6, 6, bias=False)).double()
        model[2].weight = model[0].weight
        return model

    def loss(model, data):
        return model(data[0]).square().mean()

    config = replace(CONFIG, ema=0.5, checkpoint=tmp_path / "run.safetensors", checkpoint_every=4)
    whole, resumed = make(), make()
    train(whole, batch, loss, replace(config, checkpoint=None))
    with pytest.raises(KeyboardInterrupt):
        train(make(), Interrupt(6), loss, config)
    train(resumed, batch, loss, config)
    assert resumed[2].weight is resumed[0].weight and torch.equal(resumed[0].weight, whole[0].weight)


def test_interrupted_save_leaves_the_last_whole_checkpoint(tmp_path, monkeypatch):
    config = replace(CONFIG, checkpoint=tmp_path / "run.safetensors", checkpoint_every=4)
    with pytest.raises(KeyboardInterrupt):
        train(make_model(), Interrupt(5), loss_fn, config)
    before = config.checkpoint.read_bytes()

    def half(tensors, path, metadata):
        path.write_bytes(b"half a checkpoint")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("minilab.core.train.save_file", half)
        train(make_model(), batch, loss_fn, config)
    assert config.checkpoint.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    assert (
        train(make_model(), batch, loss_fn, config).losses
        == train(make_model(), batch, loss_fn, replace(config, checkpoint=None)).losses
    )


def test_checkpoint_is_safetensors_that_others_can_read(tmp_path):
    config = replace(CONFIG, checkpoint=tmp_path / "run.safetensors")
    model = make_model()
    train(model, batch, loss_fn, config)
    with safe_open(config.checkpoint, framework="pt") as file:
        assert torch.equal(file.get_tensor("model.0.weight"), model[0].weight.detach())


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", "truncated"])
def test_damaged_checkpoint_is_refused_by_name(tmp_path, damage):
    config = replace(CONFIG, checkpoint=tmp_path / "run.safetensors")
    train(make_model(), batch, loss_fn, config)
    config.checkpoint.write_bytes(config.checkpoint.read_bytes()[:-20] if damage == "truncated" else damage)
    with pytest.raises(ValueError, match="run.safetensors is not a whole checkpoint .*delete it"):
        train(make_model(), batch, loss_fn, config)


def test_checkpoint_of_another_run_is_refused(tmp_path):
    config = replace(CONFIG, checkpoint=tmp_path / "run.safetensors")
    train(make_model(), batch, loss_fn, config)
    with pytest.raises(ValueError, match=r"belongs to another run \(lr 0.05, not 0.01\)"):
        train(make_model(), batch, loss_fn, replace(config, lr=0.01))
    with pytest.raises(ValueError, match="another run .*shapes"):
        train(nn.Linear(6, 3).double(), batch, loss_fn, config)
    train(make_model(), batch, loss_fn, replace(config, log_every=1, checkpoint_every=2))  # these may change


def test_diverging_loss_stops_the_run_and_keeps_the_sound_checkpoint(tmp_path):
    config = replace(CONFIG, checkpoint=tmp_path / "run.safetensors", checkpoint_every=4, log_every=100)

    def diverging(model, data):
        return loss_fn(model, data[0]) * (math.nan if data[1] >= 6 else 1.0)

    with pytest.raises(ValueError, match="the loss is nan at step 6, with learning rate .*lower lr"):
        train(make_model(), lambda step: (batch(step), step), diverging, config)
    with safe_open(config.checkpoint, framework="pt") as file:
        assert all(torch.isfinite(file.get_tensor(name)).all() for name in file.keys())


def test_logs_are_means_since_the_last_one():
    lines = []
    log = train(make_model(), batch, loss_fn, CONFIG, on_log=lambda *line: lines.append(line))
    assert [line[0] for line in lines] == [4, 9, 11]
    means = [sum(part) / len(part) for part in (log.losses[:5], log.losses[5:10], log.losses[10:])]
    assert [line[1] for line in lines] == pytest.approx(means)
    assert [line[2] for line in lines] == [learning_rate(s, CONFIG) for s in (4, 9, 11)]


def test_model_trains_in_train_mode_and_gets_its_mode_back():
    model = make_model().eval()
    modes = []
    train(
        model,
        batch,
        lambda m, b: modes.append(m.training) or loss_fn(m, b),
        CONFIG,
        on_log=lambda *_: model.eval(),  # as a validation does
    )
    assert all(modes) and not model.training


def test_frozen_parameters_stay():
    model = make_model()
    model[0].weight.requires_grad_(False)
    before = weights_of(model)
    train(model, batch, loss_fn, replace(CONFIG, ema=0.5))
    moved = [not torch.equal(a, b.detach()) for a, b in zip(before, model.parameters(), strict=True)]
    assert moved == [False, True, True, True, True, True]


def test_losses_are_fetched_only_at_logs(monkeypatch):
    fetched = []
    record = _Run.record
    monkeypatch.setattr(
        _Run, "record", lambda run, losses: fetched.append(len(losses)) or record(run, losses)
    )
    train(make_model(), batch, loss_fn, CONFIG)
    assert fetched == [5, 5, 2]


def test_bf16_autocast_keeps_the_weights_in_fp32():
    seen = []

    def loss(model, data):
        out = model(data[0].float())
        seen.append(out.dtype)
        return out.float().square().mean()

    model = make_model().float()
    train(model, batch, loss, replace(CONFIG, precision="bf16"))
    assert set(seen) == {torch.bfloat16} and {p.dtype for p in model.parameters()} == {torch.float32}
    seen.clear()
    train(model, batch, loss, CONFIG)  # auto, on a CPU
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"lr": 0.0},
        {"warmup": 13},
        {"ema": 1.0},
        {"clip": 0.0},
        {"precision": "fp16"},
        {"log_every": 0},
    ],
)
def test_impossible_configuration_names_the_field(change):
    name, value = next(iter(change.items()))
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        replace(CONFIG, **change)


@needs_cuda
def test_gpu_is_not_waited_for_between_logs_and_resumes_exactly(tmp_path):
    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.2), nn.Linear(64, 8)).cuda()

    data = torch.randn(40, 32, 64, device="cuda")

    def loss(model, x):
        return model(x).square().mean()

    def guarded(step):  # steps 0 and 10 follow set-up and a log; all between may not synchronize
        torch.cuda.set_sync_debug_mode("error" if 1 <= step % 10 <= 8 else "default")
        return data[step]

    config = TrainConfig(steps=40, lr=1e-3, ema=0.9, log_every=10, checkpoint_every=10)
    whole = make()
    try:
        log = train(whole, guarded, loss, config)
        config = replace(config, checkpoint=tmp_path / "run.safetensors")

        def stop(step):
            if step == 25:
                raise KeyboardInterrupt
            return data[step]

        torch.cuda.set_sync_debug_mode("default")
        with pytest.raises(KeyboardInterrupt):
            train(make(), stop, loss, config)
        resumed = make()
        torch.manual_seed(5)
        assert train(resumed, lambda step: data[step], loss, config).losses == log.losses
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replayed_steps_train_as_the_same_calls_do(tmp_path, precision):
    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.GELU(), nn.Linear(32, 4)).cuda()

    def batches(step):
        generator = torch.Generator("cuda").manual_seed(step)
        return {"x": torch.randn(64, 16, generator=generator, device="cuda"), "noise": generator}

    def noisy(model, batch):
        target = torch.empty(64, 4, device="cuda").normal_(generator=batch["noise"])
        return (model(batch["x"]) - batch["x"][:, :4] - 0.1 * target).square().mean()

    config = TrainConfig(steps=40, lr=1e-2, warmup=5, ema=0.9, clip=0.5, log_every=7, precision=precision)
    called, replayed, resumed = make(), make(), make()
    logs = [train(called, batches, noisy, config), train(replayed, batches, noisy, replace(config, replay=True))]
    stopped = replace(config, replay=True, checkpoint=tmp_path / "run.safetensors", checkpoint_every=10)

    def stop(step):
        if step == 25:
            raise KeyboardInterrupt
        return batches(step)

    with pytest.raises(KeyboardInterrupt):
        train(make(), stop, noisy, stopped)
    logs.append(train(resumed, batches, noisy, stopped))
    for log, model in zip(logs[1:], (replayed, resumed), strict=True):
        assert log.losses == pytest.approx(logs[0].losses, rel=1e-3)
        for name, value in called.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-3, atol=1e-4)
