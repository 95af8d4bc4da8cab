"""Masks are what Xu et al. describe, a function of the batch, and hide nothing of what is to be predicted."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from minilab.ensembles.data import corpus
from minilab.ensembles.masking import MaskedInputs, mixed, uniform, unused_token
from minilab.ensembles.members import Hyper, RunConfig, order, train_members
from minilab.ensembles.model import seeded
from minilab.nn.transformer import TransformerConfig

MASK = 23
CONFIG = TransformerConfig(24, 8, 2, 2, 2, 12, context=32, tie_embeddings=False)
HYPERS = (Hyper(1e-2, 0.4, 0, 0), Hyper(3e-3, 1.0, 1, 1))
RUN = RunConfig(epochs=4, batch=2, log_every=5)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("MINILAB_PROGRESS", "0")


def text(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(MASK, shape, generator=torch.Generator().manual_seed(seed))


def weights(model) -> list[torch.Tensor]:
    return [p.detach() for p in model.parameters()]


def test_numbers_are_uniform_and_know_nothing_of_their_neighbors():
    u = uniform(text(50, 4, 257)).double()  # 51,400 numbers
    assert 0 <= u.min() and u.max() < 1
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 0.01
    for a, b in ((u[..., 1:], u[..., :-1]), (u[:, 1:], u[:, :-1]), (u[1:], u[:-1])):
        assert abs(stats.pearsonr(a.flatten().numpy(), b.flatten().numpy()).statistic) < 0.02


def test_a_hash_is_a_permutation_in_which_a_bit_changes_half_of_all_bits():
    x = torch.arange(2**17)
    assert len(mixed(x).unique()) == len(x)
    flipped = torch.stack([mixed(x) ^ mixed(x ^ (1 << bit)) for bit in range(32)])  # 32 n
    share = torch.stack([(flipped >> bit & 1).double().mean(dim=1) for bit in range(32)])
    assert (share - 0.5).abs().max() < 0.1
    assert int(mixed(x).min()) >= 0 and int(mixed(x).max()) < 2**32


@pytest.mark.parametrize("most", [0.5, 0.2])
def test_a_windows_share_of_hidden_tokens_is_uniform_up_to_the_most_and_the_first_are_spared(most):
    hidden = MaskedInputs(MASK, most=most).hidden(text(200, 4, 1025))
    assert hidden.shape == (200, 4, 1024) and not hidden[..., :8].any() and hidden[..., 8].any()
    share = hidden[..., 8:].double().mean(dim=-1).flatten()
    assert float(share.mean()) == pytest.approx(most / 2, abs=0.02)
    assert stats.kstest(share.numpy(), "uniform", args=(0, most)).pvalue > 0.01
    assert MaskedInputs(MASK, most=1.0, spared=0).hidden(text(200, 4, 65))[..., 0].any()


def test_masks_are_of_the_batch_alone_and_change_with_any_of_it():
    hidden, windows = MaskedInputs(MASK).hidden, text(3, 4, 65)
    assert torch.equal(hidden(windows), hidden(windows.clone()))
    assert torch.equal(hidden(windows)[1:2], hidden(windows[1:2]))  # a member's as when it is alone
    assert torch.equal(hidden(windows), hidden(windows.int()))
    other = windows.clone()
    other[:, 3, 64] = (other[:, 3, 64] + 1) % MASK  # a target, of another window
    swapped = windows[:, [1, 0, 2, 3]]
    for a, b in ((hidden(windows)[:, 0], hidden(other)[:, 0]), (hidden(windows)[:, 0], hidden(swapped)[:, 1]),
                 (hidden(windows)[:, 0], hidden(windows)[:, 1])):
        assert not any(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_window_has_another_mask_in_every_epoch():
    windows, numbers = text(64, 33), []
    for epoch in range(8):
        steps = order(64, 2, seed=0, epoch=epoch)
        step, place = (steps == 5).nonzero()[0].tolist()
        numbers.append(uniform(windows[steps[step]][None])[0, place])
    assert len(torch.stack(numbers).unique(dim=0)) == 8


def test_masks_read_no_number_of_a_tensor_so_a_graph_can_hold_them():
    windows = text(2, 3, 33).to("meta")  # here .item() and `if tensor` raise
    assert MaskedInputs(MASK).hidden(windows).shape == (2, 3, 32)


def test_targets_stay_and_inputs_are_replaced_by_the_mask():
    model, loss, windows = seeded(CONFIG, (0, 1)), MaskedInputs(MASK, weight=0.7), text(2, 3, 33)
    hidden, found = loss.hidden(windows), loss.losses(model, windows)
    for k in range(2):
        net, targets = model.member(k), windows[k, :, 1:].flatten()
        read = [[MASK if h else int(x) for x, h in zip(*row, strict=True)]
                for row in zip(windows[k, :, :-1], hidden[k], strict=True)]
        plain, masked = (F.cross_entropy(net(x).flatten(0, 1), targets)
                         for x in (windows[k, :, :-1], torch.tensor(read)))
        torch.testing.assert_close(found[k], plain + 0.7 * masked)
        assert not torch.isclose(plain, masked, rtol=1e-5)


def test_a_loss_that_hides_nothing_is_so_many_times_the_plain_one():
    model, windows = seeded(CONFIG, (0, 1)), text(2, 3, 33)
    torch.testing.assert_close(MaskedInputs(MASK, most=0.0).losses(model, windows), 1.4 * model.losses(windows))
    none = MaskedInputs(MASK, most=0.0, weight=1e-9)
    usual, found = (train_members(text(12, 33), CONFIG, HYPERS, RUN, loss=loss) for loss in (None, none.losses))
    for a, b in zip(weights(usual.model), weights(found.model), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_members_with_hidden_inputs_become_what_they_become_alone():
    loss = MaskedInputs(MASK).losses
    together = train_members(text(12, 33), CONFIG, HYPERS, RUN, loss=loss)
    for k, hyper in enumerate(HYPERS):
        alone = train_members(text(12, 33), CONFIG, [hyper], RUN, loss=loss)
        for a, b in zip(weights(together.model), weights(alone.model), strict=True):
            torch.testing.assert_close(a[k], b[0], rtol=0, atol=1e-5)


class Stop(Exception):
    pass


def test_an_interrupted_training_with_hidden_inputs_ends_as_one_that_was_not(tmp_path):
    def stop(done, _):
        if done >= 10:
            raise Stop

    windows, loss = text(12, 33), MaskedInputs(MASK)
    whole = train_members(windows, CONFIG, HYPERS, RUN, loss=loss.losses)
    run = replace(RUN, checkpoint=tmp_path / "run.safetensors", checkpoint_every=3)
    with pytest.raises(Stop):
        train_members(windows, CONFIG, HYPERS, run, loss=loss.losses, on_log=stop)
    torch.manual_seed(99)
    with pytest.raises(ValueError, match="belongs to another run .*loss '"):
        train_members(windows, CONFIG, HYPERS, run, loss=replace(loss, weight=0.5).losses)
    resumed = train_members(windows, CONFIG, HYPERS, run, loss=loss.losses)
    assert torch.equal(resumed.losses, whole.losses)
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed.model), weights(whole.model), strict=True))


@pytest.mark.parametrize("vocab", [1024, 2048])
def test_the_mask_is_a_token_that_no_text_has(vocab):
    token = unused_token(vocab)
    for name in ("web", "manual"):
        text = corpus(name, vocab_size=vocab)
        assert 0 < token < vocab and not any((part == token).any() for part in (text.train, text.valid))


def test_masks_that_cannot_work_are_refused():
    for bad in ({"token": -1}, {"weight": 0.0}, {"most": 1.5}, {"spared": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))}={next(iter(bad.values()))}"):
            MaskedInputs(**{"token": MASK} | bad)


@needs_cuda
def test_a_graph_has_the_masks_of_calls_and_of_the_processor():
    windows, loss = text(12, 33), MaskedInputs(MASK)
    assert torch.equal(loss.hidden(windows[None].cuda()).cpu(), loss.hidden(windows[None]))
    run = replace(RUN, precision="fp32", log_every=100)
    replayed, called, there = (
        train_members(where, CONFIG, HYPERS, replace(run, replay=replay), loss=loss.losses)
        for where, replay in ((windows.cuda(), True), (windows.cuda(), False), (windows, True)))
    torch.testing.assert_close(replayed.losses, called.losses, rtol=1e-3, atol=0.0)
    torch.testing.assert_close(replayed.losses, there.losses, rtol=1e-3, atol=0.0)
