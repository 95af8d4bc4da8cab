"""Probes on latents whose content is known."""

import pytest
import torch

from minilab.lewm.collect import Recipe, collect
from minilab.lewm.data import Clips
from minilab.lewm.model import LeWM, cpu
from minilab.lewm.probes import (
    Frames,
    ProbeConfig,
    gather,
    mean_tokens,
    probe,
    quantities,
    ridge,
    score,
    split,
    standardized,
)
from minilab.lewm.worlds.rooms import Rooms

D, E, PER = 8, 60, 25  # width, episodes, frames of each
QUICK = ProbeConfig(epochs=40)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def frames():
    """A hidden number in [-1, 1]² that latents hold linearly, one that they hold squared, and one that they do not."""
    g = generator()
    hidden = 2 * torch.rand(E * PER, 2, generator=g) - 1
    linear = 100 + 50 * hidden
    z = torch.cat((linear, torch.randn(E * PER, D - 2, generator=g)), dim=1) @ torch.randn(D, D, generator=g)
    targets = {"held": linear, "squared": hidden.square(), "noise": torch.randn(E * PER, 1, generator=g)}
    return Frames(z, targets, torch.arange(E).repeat_interleave(PER))


def test_probes_find_what_is_there_and_nothing_else(frames):
    found = probe(frames, generator(), QUICK)
    assert found["held"].linear.r > 0.9999 and found["held"].linear.mse < 1e-3
    assert found["held"].mlp.r > 0.98
    assert abs(found["squared"].linear.r) < 0.2 and found["squared"].linear.mse > 0.9
    assert found["squared"].mlp.r > 0.9 and found["squared"].mlp.mse < 0.2
    for told in found["noise"]:
        assert abs(told.r) < 0.2 and told.mse > 0.8


def test_the_same_generator_gives_the_same_scores(frames):
    short = ProbeConfig(epochs=2)
    assert probe(frames, generator(), short) == probe(frames, generator(), short) != probe(frames, generator(1), short)


def test_no_episode_is_in_two_parts_and_none_is_left_out():
    episode = torch.randint(0, 40, (900,), generator=generator())
    parts = split(episode, generator())
    names = [set(episode[part].tolist()) for part in parts]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    assert sum(part.int() for part in parts).eq(1).all()
    assert [len(n) for n in names] == [28, 6, 6]
    with pytest.raises(ValueError, match="2 episodes are too few"):
        split(torch.tensor([0, 0, 1]), generator())


def test_what_repeats_within_an_episode_is_not_known_of_a_new_one():
    """Each episode has a color of its own and a number: learned by heart, it must not help."""
    color, number = torch.randn(E, D, generator=generator(1)), torch.randn(E, 1, generator=generator(2))
    at = torch.arange(E).repeat_interleave(PER)
    told = probe(Frames(color[at], {"number": number[at]}, at), generator(), QUICK)["number"]
    assert told.linear.mse > 0.7 and told.mlp.mse > 0.7


def test_ridge_is_the_closed_form_of_its_best_alpha():
    g = generator()
    z, w = torch.randn(90, 3, generator=g), torch.randn(3, 2, generator=g)
    y = z @ w + 0.5 * torch.randn(90, 2, generator=g)
    parts = split(torch.arange(90), g)
    said = ridge(z, y, parts)
    candidates = []
    for alpha in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0):
        # ridge is least squares with sqrt(alpha) I below the inputs and 0 below the targets
        below = (alpha * 0.001 * int(parts.fit.sum())) ** 0.5 * torch.eye(3)
        inputs, outputs = torch.cat((z[parts.fit], below)), torch.cat((y[parts.fit], torch.zeros(3, 2)))
        weight = torch.linalg.lstsq(inputs, outputs).solution
        candidates.append((float((z[parts.choice] @ weight - y[parts.choice]).square().mean()), weight))
    torch.testing.assert_close(said, z[parts.test] @ min(candidates, key=lambda c: c[0])[1], atol=1e-4, rtol=1e-4)


def test_scores_are_the_mean_error_and_pearsons_correlation():
    said, true = torch.randn(50, 3, generator=generator(1)), torch.randn(50, 3, generator=generator(2))
    told = score(said, true)
    r = sum(torch.corrcoef(torch.stack((said[:, i], true[:, i])))[0, 1] for i in range(3)) / 3
    assert told.r == pytest.approx(float(r), abs=1e-5)
    assert told.mse == pytest.approx(float((said - true).pow(2).sum() / 150), rel=1e-5)
    assert score(torch.ones(50, 3), true).r == 0


def test_targets_are_in_units_of_the_fitted_part_alone():
    x = torch.cat((3 + 2 * torch.randn(500, 2, generator=generator()), 1000 * torch.ones(100, 2)))
    fit = torch.arange(600) < 500
    y = standardized(x, fit)
    torch.testing.assert_close(y[fit].mean(dim=0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(y[fit].std(dim=0), torch.ones(2))
    assert standardized(torch.ones(9, 2), torch.arange(9) < 5).abs().max() == 0


def test_a_neuron_that_speaks_only_in_the_test_does_not_shout():
    x = torch.randn(200, 2, generator=generator())
    x[:, 1] = 0
    x[150:, 1] = 1
    assert standardized(x, torch.arange(200) < 150).abs().max() < 150


def test_angles_are_read_as_sine_and_cosine_and_places_give_a_speed():
    world = Rooms()
    world.quantities = {"block xy": slice(0, 2), "block angle": slice(2, 3)}
    states = torch.tensor([[[0.0, 0, 0.5], [30, 40, 9]]])
    found = quantities(world, states, 5)
    assert list(found) == ["block xy", "block speed", "block angle", "block angle (sin, cos)"]
    assert float(found["block speed"]) == 10
    torch.testing.assert_close(found["block angle (sin, cos)"], torch.tensor([[0.479426, 0.877583]]))


def test_frames_of_a_world_keep_latent_state_and_episode_together(tmp_path):
    clips = Clips(collect(Recipe("rooms", episodes=30, steps=30), folder=tmp_path), frames=2, size=32)
    torch.manual_seed(0)
    model = LeWM(cpu(10)).eval()
    frames = gather(model, clips, 70, generator(), batch=32)
    assert frames.z.shape == (70, 32) and set(frames.targets) == {"agent xy", "agent speed"}
    place = frames.targets["agent xy"][11]
    seen = model.encode(clips.frames(place[None, None]))[:, 0]
    torch.testing.assert_close(frames.z[11:12], seen, atol=1e-5, rtol=1e-4)
    first, length = clips.data.ep_offset[frames.episode[11]], clips.data.ep_len[frames.episode[11]]
    assert (clips.data.states[first : first + length] == place).all(dim=1).any()
    assert frames.targets["agent speed"].max() <= 5 * 2**0.5 + 1e-4
    with pytest.raises(ValueError, match="two frames"):
        gather(model, Clips(clips.data, frames=1, size=32), 4, generator())


def test_tokens_are_averaged_as_they_lie_side_by_side():
    z = torch.arange(12.0).view(1, 12)
    assert mean_tokens(z, 3).tolist() == [[4, 5, 6, 7]]
