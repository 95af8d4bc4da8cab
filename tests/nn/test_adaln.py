import pytest
import torch

from minilab.nn.adaln import AdaLNBlock, LevelEmbedding, few_tokens, positions


def test_a_fresh_block_is_the_identity():
    x = torch.randn(2, 5, 16)
    assert torch.equal(AdaLNBlock(16, 4, 32, 8)(x, torch.randn(2, 8)), x)


def test_a_causal_block_lets_nothing_flow_back_in_time():
    torch.manual_seed(0)
    block = AdaLNBlock(16, 4, 32, 8, causal=True)
    torch.nn.init.normal_(block.steer.weight)
    x, c = torch.randn(1, 6, 16), torch.randn(1, 8)
    changed = x.clone()
    changed[0, 4, 0] += 1  # one number: the norm would hide a shift of all
    same = torch.isclose(block(x, c), block(changed, c)).all(dim=-1)[0]
    assert same.tolist() == [True] * 4 + [False, False]


def test_one_condition_a_token_equals_one_a_sequence_if_they_are_all_the_same():
    torch.manual_seed(0)
    block = AdaLNBlock(16, 2, 32, 8)
    torch.nn.init.normal_(block.steer.weight)
    x, c = torch.randn(3, 4, 16), torch.randn(3, 8)
    torch.testing.assert_close(block(x, c), block(x, c[:, None].expand(-1, 4, -1)))


def test_block_equals_its_formula_written_out():
    torch.manual_seed(1)
    D, H = 8, 2
    block = AdaLNBlock(D, H, 16, 4)
    for p in block.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x, c = torch.randn(1, 3, D), torch.randn(1, 4)
    a, b, g, a2, b2, g2 = (torch.nn.functional.silu(c) @ block.steer.weight.T + block.steer.bias)[0].chunk(6)

    def norm(v):
        return (v - v.mean(-1, keepdim=True)) / (v.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()

    h = norm(x[0]) * (1 + b) + a
    q, k, v = (h @ block.qkv.weight.T + block.qkv.bias).chunk(3, dim=-1)
    heads = []
    for i in range(H):
        part = slice(i * D // H, (i + 1) * D // H)
        weights = (q[:, part] @ k[:, part].T / (D / H) ** 0.5).softmax(dim=-1)
        heads.append(weights @ v[:, part])
    y = x[0] + g * (torch.cat(heads, dim=-1) @ block.out.weight.T + block.out.bias)
    h = norm(y) * (1 + b2) + a2
    hidden = torch.nn.functional.gelu(h @ block.up.weight.T + block.up.bias)
    y = y + g2 * (hidden @ block.down.weight.T + block.down.bias)
    torch.testing.assert_close(block(x, c)[0], y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_written_out_is_torchs_with_its_gradients(causal):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    ours = few_tokens(q, k, v, is_causal=causal)
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)  # scores are in float32
    weight = torch.randn_like(ours)
    for a, b in zip(torch.autograd.grad((ours * weight).sum(), (q, k, v)),
                    torch.autograd.grad((theirs * weight).sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_attention_written_out_drops_weights_and_keeps_their_mean():
    torch.manual_seed(0)
    q, k, v = torch.zeros(4000, 1, 2, 4), torch.randn(4000, 1, 2, 4), torch.ones(4000, 1, 2, 4)
    seen = few_tokens(q, k, v, dropout_p=0.25)  # equal weights, of which some are gone and the others 4 / 3
    assert sorted({round(float(x), 4) for x in seen.flatten()}) == [0.0, round(2 / 3, 4), round(4 / 3, 4)]
    assert seen.mean() == pytest.approx(1, abs=0.02)


def test_heads_that_do_not_divide_the_width_are_refused_unless_they_have_a_width_of_their_own():
    with pytest.raises(ValueError, match="5 heads"):
        AdaLNBlock(16, 5, 32, 8)
    assert AdaLNBlock(16, 5, 32, 8, head_dim=6)(torch.randn(2, 3, 16), torch.randn(2, 8)).shape == (2, 3, 16)


def test_options_left_alone_change_nothing_of_a_block():
    """Weights that exist must load, and a seed must give the weights that it gave."""
    torch.manual_seed(3)
    names = {name: tuple(p.shape) for name, p in AdaLNBlock(16, 4, 32, 8).named_parameters()}
    assert names == {"qkv.weight": (48, 16), "qkv.bias": (48,), "out.weight": (16, 16), "out.bias": (16,),
                     "up.weight": (32, 16), "up.bias": (32,), "down.weight": (16, 32), "down.bias": (16,),
                     "steer.weight": (96, 8), "steer.bias": (96,)}
    torch.manual_seed(3)
    first = torch.nn.Linear(16, 48)
    torch.manual_seed(3)
    assert torch.equal(AdaLNBlock(16, 4, 32, 8).qkv.weight, first.weight)


def test_heads_as_wide_as_by_default_are_the_default():
    blocks = []
    for head_dim in (None, 4):
        torch.manual_seed(0)
        blocks.append(AdaLNBlock(16, 4, 32, 8, head_dim=head_dim))
        torch.nn.init.normal_(blocks[-1].steer.weight)
    x, c = torch.randn(2, 3, 16), torch.randn(2, 8)
    assert torch.equal(blocks[0](x, c), blocks[1](x, c))


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    block = AdaLNBlock(16, 4, 32, 8, dropout=0.5)
    torch.nn.init.normal_(block.steer.weight)
    x, c = torch.randn(2, 3, 16), torch.randn(2, 8)
    assert not torch.equal(block(x, c), block(x, c))
    block.eval()
    assert torch.equal(block(x, c), block(x, c))


def test_inner_norms_undo_the_scale_that_is_common_to_all_numbers_of_a_token():
    torch.manual_seed(0)
    block = AdaLNBlock(16, 4, 32, 8, inner_norms=True)
    x, c = torch.randn(2, 3, 16), torch.randn(2, 8)
    outputs = []
    for scale in (0.0, 3.0):  # shift 0, gate 1
        block.steer.bias.data = torch.tensor([0.0, scale, 1.0] * 2).repeat_interleave(16)
        outputs.append(block(x, c))
    torch.testing.assert_close(*outputs, atol=1e-4, rtol=1e-4)


def test_levels_and_positions_are_told_apart():
    torch.manual_seed(0)
    levels = LevelEmbedding(32)(torch.arange(50))
    places = positions(64, 32)
    for vectors in (levels, places):
        assert torch.pdist(vectors).min() > 1e-3
