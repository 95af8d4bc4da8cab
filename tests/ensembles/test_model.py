"""The stack, held to the single models that it is made of."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from minilab.ensembles.model import Stack, seeded, stack, token_losses
from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.speculative.decoding import autoregressive, collect
from minilab.speculative.sampling import GREEDY

CONFIG = TransformerConfig(37, 16, 2, 4, 2, 24, context=20, tie_embeddings=False)
K, B, T = 3, 2, 11


def models(config: TransformerConfig = CONFIG) -> list[Transformer]:
    """Models with weights large enough that a mistake shows, gains included."""
    made = []
    for seed in range(K):
        generator = torch.Generator().manual_seed(seed)
        model = Transformer(config)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.3 * torch.randn(p.shape, generator=generator))
        made.append(model)
    return made


def tokens(length: int = T) -> torch.Tensor:
    return torch.randint(37, (K, B, length), generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("change", [{}, {"n_kv_heads": 4}, {"qkv_bias": True, "qk_norm": True}, {"head_dim": 6}])
def test_each_member_computes_what_the_single_model_does(change):
    singles = models(replace(CONFIG, **{"head_dim": None, **change}))
    together = stack(singles)(tokens())
    assert together.shape == (K, B, T, 37)
    for single, logits, text in zip(singles, together, tokens(), strict=True):
        torch.testing.assert_close(logits, single(text), rtol=1e-5, atol=1e-5)


def test_losses_and_their_gradients_are_those_of_the_single_models():
    singles, windows = models(), tokens(T + 1)
    many = stack(singles)
    losses = many.losses(windows)
    losses.sum().backward()
    named = dict(many.folded.named_parameters())
    for k, (single, text) in enumerate(zip(singles, windows, strict=True)):
        loss = F.cross_entropy(single(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        loss.backward()
        torch.testing.assert_close(losses[k], loss)
        for name, p in single.named_parameters():
            torch.testing.assert_close(named[name].grad[k], p.grad, rtol=1e-4, atol=1e-6)


def test_losses_of_all_members_in_one_product_are_those_of_one_at_a_time():
    """A GPU takes all at once, a processor one after another."""
    states, heads = torch.randn(3, 10, 4).requires_grad_(), torch.randn(3, 7, 4).requires_grad_()
    targets = torch.randint(7, (3, 10))
    together = token_losses(states, heads, targets)
    for k in range(3):
        torch.testing.assert_close(together[k], F.cross_entropy(states[k] @ heads[k].T, targets[k]))
    slopes = torch.autograd.grad(together.sum(), (states, heads))
    apart = torch.cat([token_losses(*part) for part in zip(states.split(1), heads.split(1), targets.split(1),
                                                           strict=True)])
    for slope, alone in zip(slopes, torch.autograd.grad(apart.sum(), (states, heads)), strict=True):
        torch.testing.assert_close(slope, alone)


def test_a_window_of_one_token_sees_no_other():
    many = stack(models())
    windows = tokens(2)
    expected = F.cross_entropy(many(windows[..., :1]).flatten(0, 2), windows[..., 1:].flatten(), reduction="none")
    torch.testing.assert_close(many.losses(windows), expected.view(K, B).mean(1))


def test_members_come_out_as_they_went_in():
    singles = models()
    many = stack(singles)
    for k, single in enumerate(singles):
        member = many.member(k)
        assert member.state_dict().keys() == single.state_dict().keys()
        assert all(torch.equal(a, b) for a, b in zip(member.parameters(), single.parameters(), strict=True))
    with torch.no_grad():
        member.embed.weight.zero_()
    assert many.folded.embed.weight[k].abs().sum() > 0  # a copy
    assert sum(p.numel() for p in many.parameters()) == K * singles[0].num_parameters()


def test_a_member_begins_as_a_single_model_of_its_seed_and_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    many = seeded(CONFIG, [3, 0, 3])
    assert torch.equal(torch.rand(1), expected)
    for k, seed in enumerate([3, 0, 3]):
        torch.manual_seed(seed)
        for a, b in zip(many.member(k).parameters(), Transformer(CONFIG).parameters(), strict=True):
            assert torch.equal(a, b)


def test_one_cache_serves_all_members_when_they_write():
    singles = models()
    many, prompts = stack(singles), [[1, 2, 3], [4, 5]]
    together = collect(autoregressive(many.folded, prompts * K, max_new_tokens=6, sampling=GREEDY), B * K).tokens
    for k, single in enumerate(singles):
        alone = collect(autoregressive(single, prompts, max_new_tokens=6, sampling=GREEDY), B).tokens
        assert together[k * B : (k + 1) * B] == alone


def test_what_cannot_be_stacked_is_refused():
    with pytest.raises(ValueError, match="tie_embeddings=False"):
        Stack(replace(CONFIG, tie_embeddings=True), 2)
    with pytest.raises(ValueError, match="at least 1"):
        Stack(CONFIG, 0)
    with pytest.raises(ValueError, match="2 models of 2 configurations"):
        stack([Transformer(CONFIG), Transformer(replace(CONFIG, n_layers=1))])
    with pytest.raises(ValueError, match="0 models"):
        stack([])
