import pytest
import torch

from minilab.nn.adaln import AdaLNBlock, LevelEmbedding, positions


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


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="5 heads"):
        AdaLNBlock(16, 5, 32, 8)


def test_levels_and_positions_are_told_apart():
    torch.manual_seed(0)
    levels = LevelEmbedding(32)(torch.arange(50))
    places = positions(64, 32)
    for vectors in (levels, places):
        assert torch.pdist(vectors).min() > 1e-3
