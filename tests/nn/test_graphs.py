"""Fixed shapes must change nothing but the speed; on a GPU the same tests hold for captured graphs."""

import gc

import pytest
import torch

from minilab.nn.graphs import StaticCache, StaticModel, captured, generator_for
from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.speculative.decoding import autoregressive, collect, speculative
from minilab.speculative.sampling import Sampling

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PROMPTS = [[5, 3, 8], [1], [7] * 20, [2, 9, 2, 9, 2], list(range(20)) * 2]  # the last is longer than WIDEST


def model(seed: int, n_kv_heads: int = 1) -> Transformer:
    torch.manual_seed(seed)
    made = Transformer(TransformerConfig(vocab_size=23, dim=32, n_layers=2, n_heads=4, n_kv_heads=n_kv_heads,
                                         hidden_dim=32, context=128)).eval().requires_grad_(False)
    with torch.no_grad():
        for p in made.parameters():
            if p.dim() == 2:
                p.normal_(0, 0.3)
    return made.to(DEVICE)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_a_pass_over_rows_of_unequal_length_gives_the_same_logits(n_kv_heads):
    plain = model(0, n_kv_heads)
    static, tokens = StaticModel(plain), torch.randint(23, (3, 9)).to(DEVICE)
    caches = plain.new_cache(3, 60), static.new_cache(3, 60)
    with torch.inference_mode():
        for which, cache in zip((plain, static), caches, strict=True):
            which(tokens, cache=cache)
            cache.rollback(torch.tensor([9, 4, 1]))
        for width in (1, 3, 1, 3):  # the second time through a graph
            new = torch.randint(23, (3, width)).to(DEVICE)
            expected, found = plain(new, cache=caches[0]), static(new, cache=caches[1])
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
            assert torch.equal(caches[0].lengths, caches[1].lengths)


def test_greedy_decoding_is_the_same_also_when_rows_leave_and_memory_is_used_again():
    target, draft = model(0), model(1)
    static = StaticModel(target), StaticModel(draft)
    for prompts, new in ((PROMPTS, 20), (PROMPTS[:3], 9), (PROMPTS[::-1], 20)):
        stop = (4,)  # rows end at different times
        expected, found = (collect(autoregressive(model, prompts, max_new_tokens=new, stop=stop), len(prompts)).tokens
                           for model in (target, static[0]))
        assert found == expected
        found = collect(speculative(*static, prompts, K=3, max_new_tokens=new, stop=stop), len(prompts)).tokens
        assert found == expected


def test_sampling_draws_the_same_numbers_every_time():
    static = StaticModel(model(0)), StaticModel(model(1))

    def text(seed: int) -> list[list[int]]:
        generator = torch.Generator(DEVICE).manual_seed(seed)
        return collect(speculative(*static, PROMPTS, K=3, max_new_tokens=12, sampling=Sampling(1.0),
                                   generator=generator), len(PROMPTS)).tokens

    first = text(0)  # on a GPU this run captures, the next ones replay
    assert text(0) == first and text(1) != first and text(0) == first


def test_a_buffer_serves_one_cache_at_a_time_and_then_the_next():
    static = StaticModel(model(0))
    one, two = static.new_cache(2, 50), static.new_cache(2, 50)
    assert one.k.data_ptr() != two.k.data_ptr()
    address = one.k.data_ptr()
    del one
    gc.collect()
    three = static.new_cache(1, 40)  # rounded up, 40 slots are as many as 50
    assert three.k.data_ptr() == address and three.lengths.tolist() == [0]
    with pytest.raises(ValueError, match="longer than the model's context"):
        static.new_cache(1, 129)


def test_a_captured_function_may_be_a_chain_and_returns_what_it_would_have():
    static = StaticModel(model(0))
    cache = static.new_cache(2, 60)

    def chain(token):
        tokens = []
        for _ in range(4):
            token = static(token, cache=cache)[:, -1:].argmax(dim=-1)
            tokens.append(token)
        return torch.cat(tokens, dim=1), None

    start = torch.tensor([[3], [5]], device=DEVICE)
    with torch.inference_mode():
        for _ in range(3):
            cache.rollback(0)
            found, nothing = captured((cache,), "chain", chain, start, device=static.device)
            assert nothing is None and cache.lengths.tolist() == [4, 4] and not cache.inside
            expected, text = [], start
            for _ in range(4):
                text = torch.cat((text, static.model(text)[:, -1:].argmax(dim=-1)), dim=1)
            expected = text[:, 1:]
            assert torch.equal(found, expected)
    plain, host = static.model.new_cache(1, 9), torch.device("cpu")
    assert captured((plain,), "any", lambda x: x + 1, torch.ones(1), device=host) == 2, "no graph: a call"


def test_an_error_inside_leaves_the_cache_usable():
    static = StaticModel(model(0))
    cache = static.new_cache(1, 60)
    with pytest.raises((IndexError, RuntimeError)):
        captured((cache,), "broken", lambda x: static(x, cache=cache)[:, 5], torch.tensor([[1]]), device=static.device)
    cache.lengths = torch.zeros(1, dtype=torch.long)
    assert not cache.inside and static(torch.tensor([[1]], device=DEVICE), cache=cache).shape == (1, 1, 23)


def test_generators_are_the_callers_own_without_a_gpu():
    generator = torch.Generator(DEVICE).manual_seed(3)
    static = StaticModel(model(0))
    mine = generator_for(static.new_cache(1, 9), generator)
    assert mine is generator if DEVICE == "cpu" else mine is not generator
    assert generator_for(static.model.new_cache(1, 9), generator) is generator
    assert isinstance(static.new_cache(1, 9), StaticCache)
