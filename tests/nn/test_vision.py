"""Encoders against independent references: torch's own layers, and Hugging Face's count."""

import pytest
import torch

from minilab.nn.vision import ConvEncoder, VisionConfig, ViT, ViTBlock

SMALL = VisionConfig("vit", image=16, width=12, patch=4, depth=2, heads=3, hidden=24)
CONV = VisionConfig("conv", image=32, width=20)


def frames(n: int = 2, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_block_equals_torchs_encoder_layer():
    torch.manual_seed(0)
    block = ViTBlock(12, 3, 24)
    theirs = torch.nn.TransformerEncoderLayer(12, 3, 24, 0.0, "gelu", batch_first=True, norm_first=True)
    for p in block.parameters():
        torch.nn.init.normal_(p, std=0.4)
    pairs = {"self_attn.in_proj_weight": block.qkv.weight, "self_attn.in_proj_bias": block.qkv.bias,
             "self_attn.out_proj.weight": block.out.weight, "self_attn.out_proj.bias": block.out.bias,
             "linear1.weight": block.up.weight, "linear1.bias": block.up.bias,
             "linear2.weight": block.down.weight, "linear2.bias": block.down.bias,
             "norm1.weight": block.norms[0].weight, "norm1.bias": block.norms[0].bias,
             "norm2.weight": block.norms[1].weight, "norm2.bias": block.norms[1].bias}  # fmt: skip
    theirs.load_state_dict(pairs)
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(block(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_a_block_of_which_one_token_is_wanted_gives_it_as_the_whole_block_does():
    torch.manual_seed(0)
    block = ViTBlock(12, 3, 24)
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(block(x, only=1), block(x)[:, :1])
    model = ViT(SMALL)
    torch.testing.assert_close(model(frames()), model._seen(frames())[:, 0])


def test_the_default_is_vit_tiny_to_the_parameter():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(hidden_size=192, num_hidden_layers=12, num_attention_heads=3,
                                    intermediate_size=768, image_size=224, patch_size=14)
    with torch.device("meta"):
        ours = ViT(VisionConfig())
        theirs = transformers.ViTModel(config, add_pooling_layer=False)
    assert count(ours) == count(theirs) == 5_501_376


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("config, tokens", [(SMALL, (2, 16, 12)), (CONV, (2, 4, 64))])
def test_one_vector_an_image_and_one_a_patch(config, tokens):
    model = config.build()
    assert model(frames(2, config.image)).shape == (2, config.width)
    assert model.tokens(frames(2, config.image)).shape == tokens


@pytest.mark.parametrize("config", [SMALL, CONV])
def test_bytes_and_floats_of_the_same_image_are_normalized_alike(config):
    torch.manual_seed(0)
    model, images = config.build(), frames(2, config.image)
    torch.testing.assert_close(model(images), model(images / 255))
    red = torch.zeros(1, 3, config.image, config.image)
    red[:, 0] = 1
    torch.testing.assert_close(model.normalized(red)[0, :, 0, 0],
                               torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]))


def test_patches_are_numbered_row_by_row():
    """Without blocks a patch's vector depends on that patch alone."""
    torch.manual_seed(0)
    model = ViT(VisionConfig("vit", image=16, width=12, patch=4, depth=0, heads=3))
    images = frames(1)
    changed = images.clone()
    changed[0, :, 4:8, 8:12] = 0  # second row, third column
    same = (model.tokens(images) == model.tokens(changed)).all(dim=-1)[0]
    assert (~same).nonzero().flatten().tolist() == [4 + 2]
    assert torch.equal(model(images), model(changed))  # nor does the CLS token see any


def test_the_last_map_keeps_where_a_thing_is():
    torch.manual_seed(0)
    model = ConvEncoder(CONV)
    left, right = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    left[..., 8, 8], right[..., 8, 24] = 1, 1
    assert (model(left) - model(right)).abs().max() > 1e-4


@pytest.mark.parametrize("config", [SMALL, CONV])
def test_an_image_of_another_size_is_refused(config):
    with pytest.raises(ValueError, match=f"{config.image} x {config.image} pixels, not 48 x 48"):
        config.build()(frames(1, 48))


@pytest.mark.parametrize("options", [dict(kind="vit", image=30, patch=8), dict(kind="conv", image=40)])
def test_an_image_that_does_not_divide_is_refused(options):
    with pytest.raises(ValueError, match="choose a multiple"):
        VisionConfig(**options)
