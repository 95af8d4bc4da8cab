"""The systems that LeWM is compared with: their terms by hand, and each of them for three steps in Two Rooms."""

import math
import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from minilab.core import train as train_module
from minilab.lewm.baselines import tokens as tokens_module
from minilab.lewm.baselines.arms import ARMS, Setting, ema_loss, stop_gradient_loss, train_arm
from minilab.lewm.baselines.cloning import Chance, Cloner, Cloning, hindsight_error
from minilab.lewm.baselines.regularizers import (
    COURSE,
    ORIGINAL,
    TUNED,
    InverseDynamics,
    PldmWeights,
    covariance,
    pldm_terms,
    variance_hinge,
    weighed,
)
from minilab.lewm.baselines.teacher import Teacher
from minilab.lewm.baselines.tokens import DinoTokens, frozen_tokens
from minilab.lewm.collect import Recipe, collect
from minilab.lewm.data import Clips, Scale
from minilab.lewm.learn import diagnose, small
from minilab.lewm.model import LeWM, cpu
from minilab.lewm.planner import PlanConfig
from minilab.lewm.rollout import Agent, attempt
from minilab.nn.vision import VisionConfig

SIZE, D = 32, 16
CONFIG = cpu(10, latent=D, width=32, heads=2, hidden=48, head_hidden=32, dropout=0.0, head_norm="layer")
LEARN = small(3, batch=8, directions=16, log_every=1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return Clips(collect(Recipe("rooms", episodes=40, steps=40), folder=tmp_path_factory.mktemp("data")), size=SIZE)


def fresh(config=CONFIG) -> LeWM:
    torch.manual_seed(0)
    model = LeWM(config)
    for block in model.predictor.blocks:
        torch.nn.init.normal_(block.steer.weight, std=0.3)
    return model


def setting(clips, learning=LEARN):
    return Setting(CONFIG, learning, clips.draw, None, 0, torch.device("cpu"))


# PLDM's terms


def test_the_hinge_asks_for_a_spread_of_1_and_for_no_more():
    z = torch.tensor([[0.0, -3, 5], [0, 3, 5 + 2 * 0.3]])  # variances 0, 18 and 0.18
    expected = (1 - math.sqrt(1e-4)) / 3 + 0 + (1 - math.sqrt(0.18 + 1e-4)) / 3
    assert variance_hinge(z).item() == pytest.approx(expected, rel=1e-5)


def test_covariance_counts_pairs_of_numbers_and_not_their_spread():
    z = torch.tensor([[1.0, 2, 0], [-1, -2, 0], [0, 0, 0]])  # cov(1, 2) = (2 + 2) / 2 = 2, the others 0
    assert covariance(z).item() == pytest.approx(2 * 2**2 / (3 * 2))
    assert covariance(z[:, :1] * torch.tensor([1.0, 0, 0])).item() == 0
    both = covariance(torch.stack((z, torch.zeros_like(z)))).item()
    assert both == pytest.approx(covariance(z).item() / 2)  # the mean over time


def test_a_copied_number_satisfies_the_hinge_and_not_the_covariance():
    z = 2 * torch.randn(500, 1, generator=generator()).expand(-1, 4)
    assert variance_hinge(z).item() == 0 and covariance(z).item() > 10


def test_terms_along_time_are_those_of_the_batch_turned():
    z, actions = torch.randn(5, 4, 3, generator=generator()), torch.randn(5, 4, 2, generator=generator(1))
    every = PldmWeights(*6 * [1.0])
    inverse = InverseDynamics(3, 2, hidden=7)
    terms = pldm_terms(z, actions, every, inverse)
    turned = pldm_terms(z.transpose(0, 1), actions.transpose(0, 1), replace(every, inverse=0.0))
    torch.testing.assert_close(terms["time_variance"], turned["variance"])
    torch.testing.assert_close(terms["time_covariance"], turned["covariance"])
    by_hand = torch.stack([torch.stack([(z[b, t + 1] - z[b, t]).square().mean() for t in range(3)]) for b in range(5)])
    torch.testing.assert_close(terms["smooth"], by_hand.mean())
    guess = torch.stack([inverse.layers(torch.cat((z[:, t], z[:, t + 1]), dim=1)) for t in range(3)], dim=1)
    torch.testing.assert_close(terms["inverse"], (guess - actions[:, :3]).square().mean())
    torch.testing.assert_close(weighed(terms, every), sum(terms.values()))
    assert set(pldm_terms(z, actions, TUNED)) == {"variance", "covariance", "smooth", "time_variance"}
    with pytest.raises(ValueError, match="inverse model: give one"):
        pldm_terms(z, actions, COURSE)


def test_gradients_of_the_terms_are_their_finite_differences():
    z = (0.4 * torch.randn(5, 3, 2, generator=generator(), dtype=torch.float64)).requires_grad_()
    actions = torch.randn(5, 3, 2, generator=generator(1), dtype=torch.float64)
    inverse = InverseDynamics(2, 2, hidden=4).double()
    weights = replace(ORIGINAL, time_covariance=1.0)
    assert torch.autograd.gradcheck(lambda z: weighed(pldm_terms(z, actions, weights, inverse), weights), z)


# Targets that stand still, or nearly


def test_stop_gradient_stops_the_target_alone(clips):
    model, clip = fresh().eval(), clips.draw(8, generator())
    weight = model.encoder.out.weight
    z, predicted = model(clip.frames, clip.actions)
    half = torch.autograd.grad((predicted - z[:, 1:].detach()).square().mean(), weight)[0]
    ours = torch.autograd.grad(stop_gradient_loss(model, clip, generator(), LEARN).total, weight)[0]
    torch.testing.assert_close(ours, half)
    z, predicted = model(clip.frames, clip.actions)
    whole = torch.autograd.grad((predicted - z[:, 1:]).square().mean(), weight)[0]
    assert not torch.allclose(ours, whole, rtol=0.05)


def test_momentum_rises_from_its_start_to_1_and_the_teacher_follows_that_much():
    model = fresh()
    teacher = Teacher(model, steps=10)
    first = teacher.encoder.out.weight.clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    kept = 1.0
    for step in range(13):
        m = 0.996 + 0.004 * min(step, 10) / 10
        assert float(teacher.momentum) == pytest.approx(m, abs=1e-6)
        kept *= m
        teacher.follow(model)
        torch.testing.assert_close(teacher.encoder.out.weight, first + 1 - kept, atol=1e-5, rtol=0)


def test_no_gradient_reaches_the_teacher_and_it_trails_the_model_in_training(clips):
    built = ARMS["ema"].build(setting(clips)).train()
    ema_loss(built, clips.draw(8, generator()), generator(), LEARN).total.backward()
    assert all(p.grad is None for p in built.aids["teacher"].parameters())
    assert built.model.encoder.out.weight.grad.abs().max() > 0
    torch.optim.SGD(built.model.parameters(), lr=1.0).step()
    before = built.aids["teacher"].encoder.out.weight.clone()
    ema_loss(built, clips.draw(8, generator()), generator(), LEARN)
    expected = torch.lerp(before, built.model.encoder.out.weight, 1 - (0.996 + 0.004 / 3))
    torch.testing.assert_close(built.aids["teacher"].encoder.out.weight, expected)
    assert int(built.aids["teacher"].step) == 2


# Frozen tokens


def token_model(clips, history=3):
    torch.manual_seed(0)
    config = replace(CONFIG, history=history)
    model = frozen_tokens(config, fresh().encoder, clips.draw(64, generator()).frames)
    return model.eval()


def test_tokens_are_the_map_before_the_last_in_units_of_the_data(clips):
    model = token_model(clips)
    assert (model.tokens, model.config.latent) == (16, 16 * 64)
    frames = clips.draw(64, generator()).frames
    z = model.encode(frames).unflatten(2, (16, 64))
    torch.testing.assert_close(z.mean(dim=(0, 1)), torch.zeros(16, 64), atol=1e-3, rtol=0)
    assert 0.5 < z.std() < 1.01  # silent channels stay silent
    layers = model.encoder.encoder.layers
    image = model.encoder.encoder.normalized(frames[0, :1])
    map_ = layers[5](layers[4](layers[3](layers[2](layers[1](layers[0](image))))))  # 1 64 4 4
    torch.testing.assert_close(z[0, 0, 6], (map_[0, :, 1, 2] - model.mean[6]) / model.std, atol=1e-4, rtol=1e-4)


def test_a_token_sees_its_whole_frame_and_those_before_and_nothing_after(clips):
    model = token_model(clips)
    z, actions = torch.randn(2, 3, 1024, generator=generator()), torch.randn(2, 3, 10, generator=generator(1))
    said = model.predict(z, actions)
    for at in range(3):
        later = z.clone()
        later[:, at, :64] += 1  # its first token
        changed = (model.predict(later, actions) - said).abs().unflatten(2, (16, 64)).amax(dim=(0, 3)) > 1e-6  # T P
        assert changed.all(dim=1).tolist() == [t >= at for t in range(3)]
        assert changed.any(dim=1).tolist() == [t >= at for t in range(3)]
        other = actions.clone()
        other[:, at] += 1
        changed = (model.predict(z, other) - said).abs().amax(dim=(0, 2)) > 1e-6
        assert changed.tolist() == [t >= at for t in range(3)]
    with pytest.raises(ValueError, match="at most 3"):
        model.predict(torch.zeros(1, 4, 1024), torch.zeros(1, 4, 10))


def test_training_leaves_a_frozen_encoder_as_it_was(clips):
    base = fresh()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    out = train_arm("frozen_learned", CONFIG, clips.draw, LEARN, base=base)
    assert out.model.encoder.encoder is base.encoder
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert not out.model.train().encoder.training


def test_a_vit_gives_its_own_patches(clips):
    vision = VisionConfig("vit", image=SIZE, patch=8, width=24, depth=1, heads=2, hidden=32)
    model = frozen_tokens(replace(CONFIG, vision=vision), vision.build(), clips.draw(8, generator()).frames)
    assert (model.tokens, model.config.latent) == (16, 16 * 24)


def save_tiny(folder, **options):
    """What `DinoTokens` reads, with 12 numbers a token and random weights."""
    transformers = pytest.importorskip("transformers")
    tiny = dict(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    transformers.Dinov2Model(transformers.Dinov2Config(**{**tiny, **options})).save_pretrained(folder)


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """A cache of minilab that is empty, and no network."""
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path))
    monkeypatch.setattr(pytest.importorskip("huggingface_hub.constants"), "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(tokens_module, "DINO", "nobody/dinov2-small")  # the real one may have been downloaded before


@pytest.mark.slow  # transformers takes seconds to import
def test_dinov2_is_read_from_a_folder_and_its_absence_explained(tmp_path, clips, no_hub):
    save_tiny(tmp_path / "tiny")
    frames = clips.draw(4, generator()).frames
    model = frozen_tokens(CONFIG, DinoTokens(str(tmp_path / "tiny"), size=28), frames).eval()
    assert model.encode(frames).shape == (4, 4, 4 * 12)
    torch.testing.assert_close(model.std, torch.ones(12))  # DINOv2's tokens are normed already
    with pytest.raises(OSError, match="frozen encoder of ours"):
        DinoTokens(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="patches of 14"):
        DinoTokens(str(tmp_path / "tiny"), size=32)
    weights = load_file(tmp_path / "tiny" / "model.safetensors")
    save_file({name: weights[name] for name in weights if "projection" not in name},
              tmp_path / "tiny" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 2 of DINOv2's tensors.*would stay random"):
        DinoTokens(str(tmp_path / "tiny"), size=28)


@pytest.mark.slow
def test_the_arm_on_dinov2_reads_the_folder_of_the_cache_and_says_so_before_it_draws_a_clip(clips, no_hub, monkeypatch):
    def never(n, generator):
        raise AssertionError("a clip was drawn")

    with pytest.raises(OSError, match="hf download .*dinov2-small.*make that folder .*frozen_learned"):
        train_arm("frozen_dino", CONFIG, never, LEARN)
    save_tiny(tokens_module.dino_folder())
    out = train_arm("frozen_dino", CONFIG, clips.draw, LEARN)
    theirs = DinoTokens(str(tokens_module.dino_folder())).tokens(clips.draw(1, generator()).frames[0])
    assert out.model.config.latent == 196 * 12  # of 196 pixels
    torch.testing.assert_close(out.model.encode(clips.draw(1, generator()).frames)[0], theirs.flatten(1))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install"):
        train_arm("frozen_dino", CONFIG, never, LEARN)


# Agents without a model


def test_hindsight_goals_come_later_and_blocks_are_those_that_left_the_frame():
    """Frames say their time; a policy that answers its input shows which were chosen."""
    T, seen = 6, []

    class Told(Cloning):
        def __init__(self):
            torch.nn.Module.__init__(self)

        def encode(self, frames):
            return frames[:, :, 0, 0, :1].float()

        def forward(self, z, z_goal):
            seen.append((z, z_goal))
            return z

    frames = torch.zeros(4000, T, 3, 4, 4, dtype=torch.uint8)
    frames[:, :, 0, 0, 0] = torch.arange(T, dtype=torch.uint8)
    clip = SimpleNamespace(frames=frames, actions=torch.arange(float(T)).view(1, T, 1).expand(4000, T, 1))
    assert hindsight_error(Told(), clip, generator()).item() == 0  # block t beside frame t
    at, goal = seen[0]
    pairs = {(int(a), int(g)) for a, g in zip(at, goal, strict=True)}
    assert pairs == {(a, g) for a in range(T - 1) for g in range(a + 1, T)}
    assert (at == 0).float().mean().item() == pytest.approx(1 / (T - 1), abs=0.03)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_latents_stay_and_others_learn_with_the_policy(frozen, clips):
    model = fresh(replace(CONFIG, head_norm="batch"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cloning = Cloning(model, frozen=frozen).train()
    hindsight_error(cloning, clips.draw(8, generator()), generator()).backward()
    assert (model.encoder.out.weight.grad is None) == frozen
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()) == frozen
    assert cloning.policy[0].weight.grad.abs().max() > 0


def test_a_cloner_acts_in_the_worlds_units():
    scale = Scale(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 3.0]))
    cloning = Cloning(fresh().eval(), frozen=True).eval()
    frames = torch.randint(0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator())
    agent = Cloner(cloning, scale)
    agent.start(frames.flip(0))
    z, z_goal = cloning.encode(frames[:, None])[:, 0], cloning.encode(frames.flip(0)[:, None])[:, 0]
    block = cloning(z, z_goal)
    torch.testing.assert_close(agent.act(frames)[:, 1, 0], block[:, 2] * 2 + 0.5)
    drawn = Chance(5, 2, generator()).act(torch.zeros(4000, 3, SIZE, SIZE, dtype=torch.uint8))
    assert drawn.shape == (4000, 5, 2) and drawn.abs().max() <= 1 and abs(drawn.mean()) < 0.02


# All of them


@pytest.fixture(scope="module")
def bases(clips):
    return {name: train_arm(name, CONFIG, clips.draw, LEARN).model for name in ("sigreg", "reconstruction")}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name == "frozen_dino" else name
                                  for name in ARMS])
def test_every_arm_learns_looks_and_acts(name, clips, bases, request):
    if name == "frozen_dino":
        request.getfixturevalue("no_hub")
        save_tiny(tokens_module.dino_folder())
    held_out = clips.draw(16, generator(1))
    base = bases.get(ARMS[name].stands_on)
    out = train_arm(name, CONFIG, clips.draw, LEARN, held_out=held_out, base=base)
    moments = out.history.moments
    assert len(moments) == (0 if name == "chance" else 3)
    for moment in moments:
        assert math.isfinite(moment.prediction) and all(map(math.isfinite, moment.terms.values()))
        assert (moment.held_out is not None) == ARMS[name].plans
    if ARMS[name].plans:
        assert isinstance(out.model, LeWM) and not out.model.training
        told = diagnose(out.model, held_out, generator(), directions=16)
        assert all(math.isfinite(value) for value in vars(told).values())
    agent = out.agent(clips.scale, PlanConfig(samples=8, elites=2, iterations=2), generator())
    assert isinstance(agent, Agent)
    start, goal = clips.world.reset(6, generator()).chunk(2)
    done = attempt(clips.world, agent, start, goal, budget=50, size=SIZE)
    assert done.states.shape == (3, 51, 2) and done.states.isfinite().all()
    assert (done.states[:, -1] - start).norm(dim=1).max() > 0


def test_arms_begin_with_the_same_weights(clips):
    learning = replace(LEARN, steps=1, lr=1e-12, weight_decay=0.0)
    plans = [name for name, arm in ARMS.items() if arm.plans and not name.startswith("frozen")]
    weights = [train_arm(name, CONFIG, clips.draw, learning).model.encoder.out.weight for name in plans]
    for weight in weights[1:]:
        torch.testing.assert_close(weight, weights[0], atol=1e-6, rtol=0)


def test_an_arm_that_stands_on_another_trains_it_first(clips):
    out = train_arm("cloning_frozen", CONFIG, clips.draw, LEARN)
    base = train_arm("sigreg", CONFIG, clips.draw, LEARN).model
    torch.testing.assert_close(out.model.model.encoder.out.weight, base.encoder.out.weight, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="no arm 'magic'; choose one of sigreg"):
        train_arm("magic", CONFIG, clips.draw, LEARN)


def test_without_a_weight_sigreg_warns_of_its_collapse_and_those_that_have_no_such_weight_do_not(clips):
    weightless = replace(LEARN, steps=1, lam=0.0)
    with pytest.warns(UserWarning, match="lam = 0.*will collapse"):
        train_arm("sigreg", CONFIG, clips.draw, weightless)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("prediction", "hinge"):
            train_arm(name, CONFIG, clips.draw, weightless)
        train_arm("sigreg", CONFIG, clips.draw, replace(LEARN, steps=1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm.learns])
def test_an_arm_learns_on_a_gpu_what_its_losses_say_one_call_at_a_time(name, clips, monkeypatch, request):
    if name == "frozen_dino":
        request.getfixturevalue("no_hub")
        save_tiny(tokens_module.dino_folder())
    on_gpu = Clips(clips.data.to("cuda"), size=SIZE)
    base = fresh().cuda().eval() if ARMS[name].stands_on else None
    learning = replace(LEARN, steps=12, precision="fp32")
    losses = []
    for replays in (True, False):
        if not replays:
            monkeypatch.setattr(train_module, "ReplayedSteps", lambda fn, device: fn)
        losses.append(train_arm(name, CONFIG, on_gpu.draw, learning, base=base, device="cuda:0").history.log.losses)
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
