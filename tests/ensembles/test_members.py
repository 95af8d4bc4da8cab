"""Members trained together, held to single models trained by `torch.optim.AdamW`."""

import json
import math
import warnings
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import nn

from minilab.ensembles import members as module
from minilab.ensembles.members import (
    Hyper,
    RunConfig,
    decays,
    order,
    schedule,
    train_members,
    validation_loss,
)
from minilab.ensembles.model import seeded, weights_sha256
from minilab.ensembles.stored import load_members, save_member
from minilab.nn.transformer import Transformer, TransformerConfig

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CONFIG = TransformerConfig(24, 8, 2, 2, 2, 12, context=9, tie_embeddings=False)
HYPERS = (Hyper(1e-2, 0.0, 0, 0), Hyper(3e-3, 3.0, 1, 1), Hyper(3e-2, 1.0, 0, 5))
RUN = RunConfig(epochs=5, batch=3, clip=0.8, log_every=4)
STEPS = 5 * (16 // 3)
CARD = {"what": "a test", "how_made": "by a test", "licence": "CC0-1.0"}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("MINILAB_PROGRESS", "0")


def text(N: int = 16, *, seed: int = 0, device="cpu") -> torch.Tensor:
    """Windows of a text that can be learned: each token is mostly the one before, and one more."""
    generator = torch.Generator().manual_seed(seed)
    steps = 1 + (torch.rand(N, 10, generator=generator) < 0.2).long()
    return (steps.cumsum(1) + torch.randint(24, (N, 1), generator=generator)).remainder(24).to(device)


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [p.detach() for p in model.parameters()]


class Stop(Exception):
    pass


def stop_at(step: int):
    def stop(done: int, model) -> None:
        if done >= step:
            raise Stop

    return stop


def alone(windows, config, hyper: Hyper, run: RunConfig, start: Transformer | None = None
          ) -> tuple[Transformer, list[float], list[float]]:
    """One model, trained with torch's own optimizer and clipping: the model, its losses, its gradients' norms."""
    torch.manual_seed(hyper.init_seed)
    model = deepcopy(start) if start else Transformer(config)
    idle = [model.embed.weight] + [m.weight for m in model.modules() if type(m).__name__ == "RMSNorm"]
    busy = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    assert len(idle) + len(busy) == len(list(model.parameters()))
    groups = [{"params": busy, "weight_decay": hyper.weight_decay}, {"params": idle, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=hyper.lr, betas=run.betas)
    per_epoch = len(windows) // run.batch
    steps, losses, norms = run.epochs * per_epoch, [], []
    for step in range(steps):
        epoch, i = divmod(step, per_epoch)
        shuffled = torch.randperm(len(windows), generator=torch.Generator().manual_seed(
            hyper.data_seed * 1_000_003 + epoch))
        batch = windows[shuffled[i * run.batch : (i + 1) * run.batch]]
        rise = (step + 1) / 10 if step < 10 else (1 + math.cos(math.pi * (step - 10) / (steps - 10))) / 2
        for group in optimizer.param_groups:
            group["lr"] = hyper.lr * rise
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        if run.clip is not None:
            norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), run.clip)))
        optimizer.step()
        losses.append(loss.item())
    return model, losses, norms


@pytest.mark.parametrize("clip", [0.8, None])
def test_members_become_what_they_become_alone(clip):
    run = replace(RUN, clip=clip)
    together = train_members(text(), CONFIG, HYPERS, run)
    assert together.losses.shape == (3, STEPS) and together.diverged == [None] * 3
    for k, hyper in enumerate(HYPERS):
        model, losses, norms = alone(text(), CONFIG, hyper, run)
        if clip is not None:  # it acts, and not always
            assert 0 < sum(norm > clip for norm in norms) < STEPS
        assert losses[-1] < losses[0] - 0.1
        torch.testing.assert_close(together.losses[k], torch.tensor(losses), rtol=0, atol=1e-5)
        for a, b in zip(weights(together.model.member(k)), weights(model), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_members_of_one_start_become_what_they_become_alone_from_there():
    start = alone(text(seed=1), CONFIG, HYPERS[0], RUN)[0]
    before = [p.clone() for p in weights(start)]
    together = train_members(text(), CONFIG, HYPERS, RUN, start=start)
    assert all(torch.equal(a, b) for a, b in zip(weights(start), before, strict=True))
    for k, hyper in enumerate(HYPERS):
        model, losses, _ = alone(text(), CONFIG, hyper, RUN, start)
        torch.testing.assert_close(together.losses[k], torch.tensor(losses), rtol=0, atol=1e-5)
        for a, b in zip(weights(together.model.member(k)), weights(model), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="hidden_dim=16.* cannot start from a model of .*hidden_dim=12"):
        train_members(text(), replace(CONFIG, hidden_dim=16), HYPERS, RUN, start=start)


@dataclass(frozen=True)
class Own:
    """Windows as they lie, and so many times the loss."""

    times: int = 1

    def as_they_lie(self, N, batch, *, seed, epoch):
        return torch.arange(N // batch * batch).view(-1, batch)

    def losses(self, model, windows):
        return self.times * model.losses(windows)


def test_an_order_and_a_loss_of_ones_own_are_followed():
    run, usual = replace(RUN, epochs=1), train_members(text(), CONFIG, HYPERS[1:2], replace(RUN, epochs=1))
    mixed = text()[order(16, 3, seed=1, epoch=0).flatten()]
    found = train_members(mixed, CONFIG, HYPERS[1:2], run, draw=Own().as_they_lie, loss=Own().losses)
    assert torch.equal(found.losses, usual.losses)
    assert all(torch.equal(a, b) for a, b in zip(weights(found.model), weights(usual.model), strict=True))
    twice = train_members(text(), CONFIG, HYPERS[1:2], run, loss=Own(2).losses)
    assert twice.losses[0, 0] == 2 * usual.losses[0, 0]
    short = train_members(mixed[:6], CONFIG, HYPERS[:1], RUN, draw=Own().as_they_lie)
    assert short.losses.shape == (1, 10)  # five epochs of two steps


def test_a_diverging_member_is_frozen_and_the_others_do_not_notice():
    calm = train_members(text(), CONFIG, (*HYPERS, HYPERS[0]), RUN)
    with pytest.warns(UserWarning, match=r"member 3 diverged at step \d+ \(Hyper\(lr=1e\+30.*the others go on"):
        wild = train_members(text(), CONFIG, (*HYPERS, Hyper(1e30, 0.0)), RUN)
    assert wild.diverged[:3] == [None] * 3 and 0 < wild.diverged[3] < STEPS
    assert torch.equal(wild.losses[:3], calm.losses[:3])
    for a, b in zip(weights(wild.model), weights(calm.model), strict=True):
        assert torch.equal(a[:3], b[:3])
    assert wild.losses[3, wild.diverged[3] :].isnan().all() and wild.losses[3, : wild.diverged[3]].isfinite().all()
    assert all(a[3].isfinite().all() for a in weights(wild.model))
    with pytest.raises(ValueError, match=f"member 3 diverged at step {wild.diverged[3]}"):
        save_member(wild, 3, "nowhere.safetensors", card=CARD)


def test_a_member_stays_where_its_gradient_ceased_to_be_finite_also_after_a_resume(tmp_path, monkeypatch):
    losses, kept = module.Stack.losses, {}

    def poisoned(self, windows):
        result = losses(self, windows)
        if len(kept) == 6:  # a finite loss with an infinite slope
            result = result + torch.tensor([0.0, 1.0, 0.0]) * (self.folded.norm.weight[1, 0] * 0).sqrt()
        return result

    def keep(done, model):
        kept[done] = [p.clone() for p in weights(model)]
        if done == 8:
            raise Stop

    run = replace(RUN, checkpoint=tmp_path / "run.safetensors", checkpoint_every=1, log_every=1)
    with monkeypatch.context() as patch, pytest.raises(Stop), pytest.warns(UserWarning, match="1 diverged at step 6"):
        patch.setattr(module.Stack, "losses", poisoned)
        train_members(text(), CONFIG, HYPERS, run, on_log=keep)
    result, calm = train_members(text(), CONFIG, HYPERS, run), train_members(text(), CONFIG, HYPERS, RUN)
    assert result.diverged == [None, 6, None] and result.losses[1, 6:].isnan().all()
    for now, then, never in zip(weights(result.model), kept[6], weights(calm.model), strict=True):
        assert torch.equal(now[1], then[1]) and torch.equal(now[[0, 2]], never[[0, 2]])


def test_matrices_and_the_head_decay_but_norms_and_the_embedding_do_not():
    names = [name for name, _ in Transformer(replace(CONFIG, qkv_bias=True, qk_norm=True)).named_parameters()]
    assert {name for name in names if decays(name)} == {"head.weight"} | {
        f"blocks.{i}.{part}.weight" for i in range(2) for part in ("attn.qkv", "attn.o", "ffn.gate_up", "ffn.down")}


@pytest.mark.parametrize("decay_mask", [decays, lambda name: True, lambda name: decays(name) or name == "embed.weight",
                                        lambda name: "norm" in name, lambda name: False])
def test_a_decay_mask_decays_what_it_says_and_nothing_else(decay_mask):
    def after_a_step(decay: float) -> dict[str, torch.Tensor]:
        found = train_members(text(3), CONFIG, [Hyper(1e-2, decay)], replace(RUN, epochs=1), decay_mask=decay_mask)
        return dict(found.model.folded.named_parameters())

    before, none, some = dict(seeded(CONFIG, [0]).folded.named_parameters()), after_a_step(0.0), after_a_step(3.0)
    rate = 1e-2 * float(schedule(1, RUN)[0, 0])
    for name, start in before.items():  # the rest of a step does not know of the decay
        expected = -3.0 * rate * start if decay_mask(name) else torch.zeros_like(start)
        torch.testing.assert_close(some[name] - none[name], expected, rtol=1e-4, atol=1e-7)


def test_the_learning_rate_warms_up_for_ten_steps_at_least_and_ends_at_zero():
    shares = schedule(200, RUN)[:, 0]
    assert shares[:11].tolist() == pytest.approx([*(i / 10 for i in range(1, 11)), 1.0])
    assert shares[105] == pytest.approx(0.5) and 0 < shares[-1] < 1e-4 and shares.diff()[10:].max() < 0
    assert int(schedule(5000, RUN)[:, 0].argmax()) == 49  # a hundredth of the steps
    assert schedule(4, RUN)[:, 0].tolist() == pytest.approx([0.25, 0.5, 0.75, 1.0])  # shorter than a warm-up


def test_an_epoch_sees_each_window_once_in_an_order_of_its_own():
    first = order(17, 4, seed=3, epoch=0)
    assert first.shape == (4, 4) and len(set(first.flatten().tolist())) == 16
    assert torch.equal(first, order(17, 4, seed=3, epoch=0))
    others = [order(17, 4, seed=3, epoch=1), order(17, 4, seed=4, epoch=0)]
    assert not any(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("stops", [[4], [12], [8, 20]])
@pytest.mark.parametrize("wild", [False, True])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, stops, wild):
    hypers = (*HYPERS, Hyper(1e30, 0.0)) if wild else HYPERS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = train_members(text(), CONFIG, hypers, RUN)
        run = replace(RUN, checkpoint=tmp_path / "run.safetensors", checkpoint_every=3)
        for stop in stops:
            with pytest.raises(Stop):
                train_members(text(), CONFIG, hypers, run, on_log=stop_at(stop))
            torch.manual_seed(99)
        seen = []
        resumed = train_members(text(), CONFIG, hypers, run, on_log=lambda done, _: seen.append(done))
    assert seen[0] == stops[-1] - stops[-1] % 3 + 4 - (stops[-1] - stops[-1] % 3) % 4  # the next log
    assert torch.equal(resumed.losses.nan_to_num(-1.0), whole.losses.nan_to_num(-1.0))
    assert resumed.diverged == whole.diverged
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed.model), weights(whole.model), strict=True))


def test_a_finished_run_is_read_back_without_training(tmp_path, monkeypatch):
    run = replace(RUN, checkpoint=tmp_path / "run.safetensors")
    first = train_members(text(), CONFIG, HYPERS, run)
    monkeypatch.setattr(module.Stack, "losses", lambda *_: pytest.fail("trained again"))
    again = train_members(text(), CONFIG, HYPERS, replace(run, log_every=1))
    assert torch.equal(again.losses, first.losses) and again.wall_s == first.wall_s
    assert all(torch.equal(a, b) for a, b in zip(weights(again.model), weights(first.model), strict=True))


@pytest.mark.parametrize("change, named", [
    ({"epochs": 6}, "epochs 5, not 6"), ({"clip": 1.0}, "clip 0.8, not 1.0"), ({"hypers": HYPERS[:2]}, "members"),
    ({"windows": text(seed=1)}, "corpus"), ({"config": replace(CONFIG, hidden_dim=16)}, "config"),
])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, named):
    run = replace(RUN, checkpoint=tmp_path / "run.safetensors")
    with pytest.raises(Stop):
        train_members(text(), CONFIG, HYPERS, replace(run, checkpoint_every=1, log_every=1), on_log=stop_at(2))
    other = replace(run, **{key: value for key, value in change.items() if key in ("epochs", "clip")})
    with pytest.raises(ValueError, match=f"belongs to another run .*{named}.*delete it"):
        train_members(change.get("windows", text()), change.get("config", CONFIG), change.get("hypers", HYPERS), other)


@pytest.mark.parametrize("given, other, named", [
    ({}, {"start": 3}, "start None, not '"), ({"start": 3}, {"start": 4}, "start '.*', not '"),
    ({"start": 3}, {}, "start '.*', not None"), ({"draw": Own().as_they_lie}, {}, "order '.*', not None"),
    ({"loss": Own(1).losses}, {"loss": Own(2).losses}, "loss '.*', not '"),
    ({"decay_mask": lambda name: "head" in name}, {}, "decay_mask .*'head.weight'.*, not None"),
])
def test_a_checkpoint_with_another_start_order_or_loss_is_refused(tmp_path, given, other, named):
    def options(chosen: dict) -> dict:
        return chosen | {"start": seeded(CONFIG, [chosen["start"]]).member(0)} if "start" in chosen else chosen

    run = replace(RUN, epochs=1, checkpoint=tmp_path / "run.safetensors")
    first = train_members(text(), CONFIG, HYPERS, run, **options(given))
    again = train_members(text(), CONFIG, HYPERS, run, **options(given))
    assert all(torch.equal(a, b) for a, b in zip(weights(again.model), weights(first.model), strict=True))
    with pytest.raises(ValueError, match=f"belongs to another run .*{named}"):
        train_members(text(), CONFIG, HYPERS, run, **options(other))


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, damage):
    run = replace(RUN, epochs=1, checkpoint=tmp_path / "run.safetensors")
    train_members(text(), CONFIG, HYPERS, run)
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:-20] if damage is None else damage)
    with pytest.raises(ValueError, match="run.safetensors is not a whole checkpoint .*delete it"):
        train_members(text(), CONFIG, HYPERS, run)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error")])
def test_a_full_disk_leaves_the_last_whole_checkpoint(tmp_path, monkeypatch, error):
    run = replace(RUN, checkpoint=tmp_path / "run.safetensors", checkpoint_every=4)
    with pytest.raises(Stop):
        train_members(text(), CONFIG, HYPERS, run, on_log=stop_at(8))
    before = run.checkpoint.read_bytes()

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half a checkpoint")
        raise error

    with monkeypatch.context() as patch, pytest.raises(OSError, match="run.safetensors was not saved .*Make room"):
        patch.setattr(module, "save_file", full)
        train_members(text(), CONFIG, HYPERS, run)
    assert run.checkpoint.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    whole = train_members(text(), CONFIG, HYPERS, RUN)
    assert torch.equal(train_members(text(), CONFIG, HYPERS, run).losses, whole.losses)


def test_validation_loss_is_the_mean_over_all_tokens_whatever_the_chunk():
    trained, held_out = train_members(text(), CONFIG, HYPERS, RUN), text(7, seed=2)
    expected = [F.cross_entropy(trained.model.member(k)(held_out[:, :-1]).flatten(0, 1), held_out[:, 1:].flatten())
                for k in range(3)]
    for chunk in (1, 3, 16):
        found = validation_loss(trained.model, held_out, chunk=chunk)
        torch.testing.assert_close(found, torch.stack(expected).detach())
    with pytest.raises(ValueError, match="no windows"):
        validation_loss(trained.model, held_out[:0])


def test_members_travel_in_files_of_their_own(tmp_path):
    trained = train_members(text(), CONFIG, HYPERS, RUN)
    paths = [save_member(trained, k, tmp_path / f"{k}.safetensors", card=CARD) for k in range(3)]
    back, cards = load_members([paths[2], paths[0]])
    for a, b in zip(weights(back), weights(trained.model), strict=True):
        assert torch.equal(a, b[[2, 0]])
    assert cards[0]["hyper"] == {"lr": 3e-2, "weight_decay": 1.0, "init_seed": 0, "data_seed": 5}
    assert cards[0]["run"]["epochs"] == 5 and cards[0]["licence"] == "CC0-1.0" and "start" not in cards[0]
    start = trained.model.member(1)
    later = train_members(text(seed=1), CONFIG, HYPERS[:1], RUN, start=start)
    card = load_members([save_member(later, 0, tmp_path / "later.safetensors", card=CARD)])[1][0]
    assert card["start"] == weights_sha256(start) != weights_sha256(trained.model.member(0))


def test_members_that_disagree_are_no_ensemble(tmp_path):
    run = replace(RUN, epochs=1)
    runs = {"a": (text(), CONFIG), "corpus": (text(seed=1), CONFIG), "config": (text(), replace(CONFIG, n_layers=1))}
    files = {name: save_member(train_members(*data, HYPERS[:1], run), 0, tmp_path / f"{name}.safetensors", card=CARD)
             for name, data in runs.items()}
    for key in ("corpus", "config"):
        with pytest.raises(ValueError, match=f"{key}.safetensors has {key} .*but .*a.safetensors has"):
            load_members([files["a"], files[key]])
    card = files["a"].with_suffix(".json")
    card.write_text(json.dumps({k: v for k, v in json.loads(card.read_text()).items() if k != "corpus"}))
    with pytest.raises(ValueError, match="lacks corpus; a member's file comes from save_member"):
        load_members([files["a"]])
    with pytest.raises(ValueError, match="0 models"):
        load_members([])


@pytest.mark.parametrize("windows, told", [
    (text()[:0], "0 windows do not fill one batch of 3"), (text()[:2], "2 windows do not fill"),
    (text()[:, :1], "0 predictions"), (text().repeat(1, 2), "19 predictions.*context is 9"),
    (text() + 5, "tokens run from 5 to 28.*knows 0 to 23"), (text() - 1, "tokens run from -1"),
])
def test_windows_that_do_not_fit_are_refused(windows, told):
    with pytest.raises(ValueError, match=told):
        train_members(windows, CONFIG, HYPERS, RUN)


def test_values_that_cannot_work_are_refused():
    for name, value in {"lr": 0.0, "weight_decay": -0.1, "init_seed": -1, "data_seed": -1}.items():
        with pytest.raises(ValueError, match=f"{name}={value!r}"):
            Hyper(**{name: value})
    with pytest.raises(ValueError, match="weight_decay=400"):
        Hyper(3e-3, 400.0)
    for name, value in {"epochs": 0, "batch": 0, "warmup": -0.1, "clip": 0.0, "betas": (0.9, 1.0),
                        "precision": "fp16", "checkpoint_every": 0, "log_every": 0}.items():
        with pytest.raises(ValueError, match=name):
            replace(RUN, **{name: value})
    with pytest.raises(ValueError, match="no members"):
        train_members(text(), CONFIG, [], RUN)


def test_bf16_computes_in_16_bits_and_keeps_the_weights_in_32():
    exact, rough = (train_members(text(), CONFIG, HYPERS, replace(RUN, precision=p)) for p in ("fp32", "bf16"))
    assert {p.dtype for p in rough.model.parameters()} == {torch.float32}
    assert not torch.equal(rough.losses, exact.losses)
    torch.testing.assert_close(rough.losses, exact.losses, rtol=0.03, atol=0.0)


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_replayed_step_trains_as_calls_do(precision):
    windows, hypers = text(device="cuda"), (*HYPERS, Hyper(1e30, 0.0))
    run = replace(RUN, precision=precision, log_every=100)
    with pytest.warns(UserWarning, match="member 3 diverged"):
        called = train_members(windows, CONFIG, hypers, replace(run, replay=False))
    with pytest.warns(UserWarning, match="member 3 diverged"):
        replayed = train_members(windows, CONFIG, hypers, run)
    on_cpu = train_members(text(), CONFIG, HYPERS, run)
    tolerance = 0.03 if precision == "bf16" else 1e-3
    torch.testing.assert_close(replayed.losses[:3], called.losses[:3], rtol=1e-3, atol=0.0)
    torch.testing.assert_close(replayed.losses[:3], on_cpu.losses, rtol=tolerance, atol=0.0)
