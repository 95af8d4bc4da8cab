"""Decoders that draw what a latent stands for."""

import pytest
import torch

from minilab.lewm.data import Clip
from minilab.lewm.decoder import (
    ConvDecoder,
    CrossDecoder,
    imagined_strip,
    learn_decoder,
    picture,
    reconstruction_error,
)
from minilab.lewm.model import LeWM, cpu
from minilab.lewm.worlds import world_named

SIZE, D = 32, 32


def decoders():
    torch.manual_seed(0)
    return {"conv": ConvDecoder(D, SIZE), "cross": CrossDecoder(D, SIZE, patch=8, width=48, depth=2, heads=3),
            "tokens": CrossDecoder(D, SIZE, tokens=4, patch=8, width=48, depth=2, heads=3)}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LeWM(cpu(10, head_norm="layer", dropout=0.0)).eval()


@pytest.fixture(scope="module")
def clip():
    """16 frames of Two Rooms."""
    generator = torch.Generator().manual_seed(0)
    world = world_named("rooms")
    states = world.reset(16, generator).view(4, 4, 2)
    frames = world.render(states.flatten(0, 1), SIZE).unflatten(0, (4, 4))
    none = torch.zeros(4, dtype=torch.long)
    return Clip(frames, torch.randn(4, 4, 10, generator=generator), states, none, none)


@pytest.mark.parametrize("kind", decoders())
def test_a_decoder_draws_16_frames_by_heart(kind, model, clip):
    decoder = decoders()[kind].begin(clip.frames)
    z = model.encode(clip.frames).detach()
    assert z.std(dim=(0, 1)).max() < 0.1  # an untrained encoder hardly tells frames apart, and that is enough
    blank = (clip.frames / 255 - (clip.frames / 255).mean(dim=(0, 1))).square().mean()  # of the mean picture
    optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = reconstruction_error(decoder, z, clip.frames)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * blank.item()
    drawn = picture(decoder, z)
    assert drawn.dtype == torch.uint8 and drawn.shape == clip.frames.shape
    nearest = torch.cdist(drawn.flatten(0, 1).flatten(1).float(), clip.frames.flatten(0, 1).flatten(1).float())
    assert nearest.argmin(dim=1).tolist() == list(range(16))


def test_patches_are_put_where_they_belong():
    """Each query's patch is its own color: in the picture, rows of patches from the top left."""
    decoder = CrossDecoder(4, 8, patch=4, width=12, heads=1, depth=0)
    decoder.leave = torch.nn.Identity()
    decoder.norm = torch.nn.Identity()
    decoder.queries = torch.nn.Parameter(torch.arange(4.0)[None, :, None] * 100 + torch.arange(48.0))
    drawn = decoder.eval()(torch.zeros(1, 4)).detach()[0]
    for patch in range(4):
        row, column = divmod(patch, 2)
        there = drawn[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert torch.equal(there, 100 * patch + torch.arange(48.0).view(3, 4, 4))


def test_attention_to_a_single_latent_adds_one_vector_to_every_query():
    block = decoders()["cross"].blocks[0]
    keys, queries = torch.randn(2, 1, 48), torch.randn(2, 16, 48)
    _, value = block.kv(block.norms[1](keys)).chunk(2, dim=-1)
    x = queries + block.out(value)
    mixed = block.down(torch.nn.functional.gelu(block.up(block.norms[2](x))))
    torch.testing.assert_close(block(queries, keys), x + mixed)


def test_learning_to_draw_leaves_the_model_as_it_was(model, clip):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    decoder = ConvDecoder(D, SIZE, channels=8)
    learn_decoder(decoder, model, lambda n, generator: clip, steps=40, lr=3e-3)
    torch.testing.assert_close(decoder.background, (clip.frames / 255).mean(dim=(0, 1)), atol=0.1, rtol=0)
    assert decoder.layers[-1].weight.abs().max() > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not decoder.training and not any(p.requires_grad for p in decoder.parameters())
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        learn_decoder(decoder, LeWM(cpu(10)), lambda n, generator: clip, steps=1)


@pytest.mark.parametrize("history", [1, 3])
def test_a_strip_shows_the_truth_what_the_latent_keeps_and_what_is_imagined(model, clip, history):
    decoder = decoders()["conv"].begin(clip.frames).eval()
    torch.nn.init.normal_(decoder.layers[-1].weight, std=0.1)
    strip = imagined_strip(model, decoder, clip, history=history)
    assert torch.equal(strip.real, clip.frames)
    assert torch.equal(strip.imagined[:, :history], strip.reconstructed[:, :history])
    z = model.encode(clip.frames)
    one = model.predict(z[:, :history], clip.actions[:, :history])[:, -1]
    assert (strip.imagined[:, history].int() - picture(decoder, one).int()).abs().max() <= 1
    assert strip.imagined.shape == clip.frames.shape


def test_a_fresh_decoder_draws_the_mean_picture(clip):
    for decoder in decoders().values():
        drawn = decoder.begin(clip.frames)(torch.randn(3, D))
        torch.testing.assert_close(drawn, (clip.frames / 255).mean(dim=(0, 1)).expand(3, -1, -1, -1))


def test_pictures_that_do_not_fit_say_what_would():
    with pytest.raises(ValueError, match="power of 2"):
        ConvDecoder(D, 48)
    with pytest.raises(ValueError, match="patches of 16"):
        CrossDecoder(D, 40)
