"""Learning on the smallest world there is: a blob that its actions move."""

import dataclasses
import warnings
from typing import NamedTuple

import pytest
import torch

from minilab.lewm.data import Scale
from minilab.lewm.learn import LearnConfig, diagnose, foresight, learn, lewm_loss, load_model, save_model, small
from minilab.lewm.model import LeWM, cpu
from minilab.lewm.sigreg import expected, sigreg
from minilab.nn.vision import VisionConfig

D = 6
TINY = cpu(2, vision=VisionConfig("conv", image=16, width=24, channels=(8, 16)), latent=D, width=24, hidden=48,
           head_hidden=48, heads=2, head_dim=12, dropout=0.0)


class Clip(NamedTuple):
    frames: torch.Tensor
    actions: torch.Tensor


def draw(n: int, generator: torch.Generator) -> Clip:
    """Four frames of a blob that moves by two pixels times the action."""
    actions = torch.randn(n, 4, 2, generator=generator)
    place = 5 + 6 * torch.rand(n, 1, 2, generator=generator)
    places = torch.cat((place, place + 2 * actions[:, :3].cumsum(dim=1)), dim=1).clamp(1, 14)  # n T 2
    grid = torch.exp(-(torch.arange(16) - places[..., None]).square() / 8)  # n T 2 16
    blob = 255 * grid[:, :, 1, :, None] * grid[:, :, 0, None, :]
    return Clip(blob[:, :, None].expand(-1, -1, 3, -1, -1).to(torch.uint8), actions)


def fresh(config=TINY) -> LeWM:
    torch.manual_seed(0)
    return LeWM(config)


def settings(steps: int = 250, **options) -> LearnConfig:
    return small(steps, **{"batch": 32, "lam": 0.2, "directions": 32, "lr": 3e-3, **options})


HELD_OUT = draw(128, torch.Generator().manual_seed(99))


@pytest.fixture(scope="module")
def learned():
    model = fresh()
    return model, learn(model, draw, settings(), held_out=HELD_OUT)


def test_a_model_learns_to_predict_from_actions_and_its_latents_stay_apart(learned):
    model, history = learned
    first, last = history.moments[0], history.moments[-1]
    assert [m.step for m in history.moments] == [49, 99, 149, 199, 249] and len(history.log.losses) == 250
    assert last.held_out.error < 0.1 < first.held_out.error
    assert last.held_out.error_shuffled > 3 * last.held_out.error
    assert last.held_out.error_copy > 2 * last.held_out.error
    assert 0.7 < last.held_out.std < 1.3
    assert last.held_out.mode_gap < 0.05
    assert last.sigreg < 0.2 * expected(32, 0, 0)
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_prediction_alone_warns_and_collapses_with_the_lowest_loss_of_all(learned):
    model = fresh(dataclasses.replace(TINY, head_norm="layer"))
    with pytest.warns(UserWarning, match="collapse"):
        history = learn(model, draw, settings(lam=0.0), held_out=HELD_OUT)
    seen, healthy = history.moments[-1].held_out, learned[1].moments[-1].held_out
    assert seen.prediction < 0.1 * healthy.prediction
    assert seen.std < 0.1 and seen.error > 2 * healthy.error
    assert seen.sigreg > 0.98 * expected(128, 0, 0)  # a point at 0, or worse, elsewhere
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn(fresh(), draw, settings(2))


def test_the_loss_is_its_parts_and_stops_no_gradient():
    model, generator = fresh(), torch.Generator().manual_seed(3)
    parts = lewm_loss(model, HELD_OUT, generator, lam=0.3, directions=16)
    z, predicted = model(*HELD_OUT)
    prediction = (predicted - z[:, 1:]).square().sum(dim=-1).mean() / D
    spread = torch.stack([sigreg(z[:, t], torch.Generator().manual_seed(3), directions=16) for t in range(4)]).mean()
    torch.testing.assert_close(parts.prediction, prediction)
    torch.testing.assert_close(parts.sigreg, spread)
    torch.testing.assert_close(parts.total, prediction + 0.3 * spread)
    weight = model.encoder.out.weight
    stopped = (predicted - z[:, 1:].detach()).square().mean()
    (whole,) = torch.autograd.grad(lewm_loss(model, HELD_OUT, generator, lam=0.0).total, weight)
    (half,) = torch.autograd.grad(stopped, weight)
    assert not torch.allclose(whole, half, rtol=0.05)


def test_diagnostics_of_latents_that_are_known():
    """A model whose latents are given: three directions of equal spread, and one step that repeats the last."""
    generator = torch.Generator().manual_seed(0)
    z = torch.zeros(512, 2, D)
    z[..., :3] = 2 * torch.linalg.qr(torch.randn(1024, 3, generator=generator))[0].view(512, 2, 3) * 32

    class Given(torch.nn.Module):
        def encode(self, frames):
            return z

        def forward(self, frames, actions):
            return z, z[:, 1:] + actions[:, :1]

    model = Given().train()
    step = torch.randn(512, 2, D, generator=generator)
    told = diagnose(model, Clip(torch.zeros(512, 2, 3, 16, 16, dtype=torch.uint8), step), generator)
    assert model.training
    variance = z.flatten(0, 1).var(dim=0).mean()
    assert told.rank == pytest.approx(3, abs=0.05)
    assert told.std == pytest.approx(1.0, rel=0.05)  # half of the numbers have a spread of 2, the others none
    assert told.error == pytest.approx(float(step[:, 0].square().mean() / variance), rel=1e-4)
    assert told.prediction == pytest.approx(float(step[:, 0].square().mean()), rel=1e-4)
    assert told.mode_gap == 0
    assert told.error_copy == pytest.approx(2.0, rel=0.2)  # two independent draws


def test_foresight_of_who_knows_what_a_block_does_and_of_who_drifts():
    """Latents that add up blocks: the truth is imagined without an error, a drift grows as its square."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randn(2000, 5, D, generator=generator)
    z = torch.cat((torch.zeros(2000, 1, D), blocks[:, :-1].cumsum(dim=1)), dim=1)  # of frame t: variance t

    class Given(torch.nn.Module):
        def encode(self, frames):
            return z

        def imagine(self, history, actions):
            return history + (actions + drift).cumsum(dim=1)

    for drift in (0.0, 0.1):
        found = foresight(Given(), Clip(torch.zeros(2000, 5, 3, 16, 16, dtype=torch.uint8), blocks))
        ahead, variance = torch.arange(1.0, 5), z.flatten(0, 1).var(dim=0).mean()
        torch.testing.assert_close(found.imagined, (drift * ahead) ** 2 / variance, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(found.still, ahead / variance, rtol=0.05, atol=0)


def test_looking_at_a_model_tells_its_modes_apart_and_changes_nothing():
    """BatchNorm begins with averages of 0 and 1, which are no batch's."""
    model = fresh().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told = diagnose(model, HELD_OUT, torch.Generator().manual_seed(0))
    assert told.mode_gap > 0.1 and model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    other = diagnose(fresh(dataclasses.replace(TINY, head_norm="layer")), HELD_OUT)
    assert other.mode_gap == 0


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path):
    whole = fresh()
    learn(whole, draw, settings(6, log_every=2))
    path, count = tmp_path / "checkpoint.safetensors", 0

    def failing(n, generator):
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return draw(n, generator)

    model = fresh()
    with pytest.raises(KeyboardInterrupt):
        learn(model, failing, settings(6, log_every=2), checkpoint=path, checkpoint_every=2)
    resumed = LeWM(TINY)
    learn(resumed, draw, settings(6, log_every=2), checkpoint=path)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)


def test_a_model_with_a_history_of_one_sees_each_frame_alone():
    model = fresh(dataclasses.replace(TINY, history=1)).eval()
    z, predicted = model(*HELD_OUT)
    alone = torch.cat([model.predict(z[:, t : t + 1], HELD_OUT.actions[:, t : t + 1]) for t in range(3)], dim=1)
    torch.testing.assert_close(predicted, alone)
    with pytest.raises(ValueError, match="at most 2"):
        fresh(dataclasses.replace(TINY, history=2))(*HELD_OUT)


def test_directions_and_knots_of_the_configuration_are_the_losses():
    losses = {}
    for knots in (5, 17):
        history = learn(fresh(), draw, settings(1, directions=3, knots=knots))
        generator = torch.Generator().manual_seed(0)  # of the first step
        clip = draw(32, generator)
        wanted = lewm_loss(fresh().train(), clip, generator, lam=0.2, directions=3, knots=knots).total
        losses[knots] = history.log.losses[0]
        assert losses[knots] == pytest.approx(wanted.item())
    assert losses[5] != losses[17]


def test_another_loss_can_take_the_place_of_ours():
    called = []

    def other(model, clip, generator):
        called.append(len(clip.frames))
        return lewm_loss(model, clip, generator, lam=1.0, directions=8)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn(fresh(), draw, settings(2, lam=0.0), loss=other)
    assert called == [32, 32]


def test_a_batch_without_a_spread_is_refused():
    with pytest.raises(ValueError, match="batch of 1 has no spread"):
        settings(batch=1)


@pytest.mark.parametrize("lam", [-0.1, float("nan")])
def test_a_weight_that_would_reward_collapse_is_refused(lam):
    with pytest.raises(ValueError, match="lam is .*0 or more.*the paper's is 0.09"):
        settings(lam=lam)


@pytest.mark.parametrize("dtype, tolerance", [("fp32", 0), ("fp16", 2e-2)])
def test_a_saved_model_comes_back_with_its_running_averages_and_scale(learned, tmp_path, dtype, tolerance):
    model, _ = learned
    scale = Scale(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 3.0]))
    path = save_model(model, tmp_path / "model.safetensors", what="a test", how_made="here", scale=scale, dtype=dtype)
    again, its_scale = load_model(path)
    assert again.config == model.config and not again.training
    for ours, theirs in zip(model(*HELD_OUT), again(*HELD_OUT), strict=True):
        torch.testing.assert_close(theirs, ours, atol=tolerance, rtol=0)
    assert torch.equal(its_scale.mean, scale.mean) and torch.equal(its_scale.std, scale.std)
    assert load_model(save_model(model, tmp_path / "bare.safetensors", what="a", how_made="b"))[1] is None
