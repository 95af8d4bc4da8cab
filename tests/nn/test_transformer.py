"""The decoder against Hugging Face's, and its cache against recomputation."""

import pytest
import torch

from minilab.nn.huggingface import load_hf_folder, save_hf_folder
from minilab.nn.transformer import Transformer, TransformerConfig, rope_frequencies

transformers = pytest.importorskip("transformers")

TINY = TransformerConfig(vocab_size=97, dim=48, n_layers=3, n_heads=6, n_kv_heads=2, hidden_dim=80, context=64)
VARIANTS = {
    "llama-gqa-tied": TINY,
    "llama-mha-untied": TransformerConfig(vocab_size=97, dim=48, n_layers=2, n_heads=4, n_kv_heads=4,
                                          hidden_dim=64, head_dim=16, context=64, tie_embeddings=False),
    "llama3-rope": TransformerConfig(vocab_size=97, dim=48, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=64,
                                     context=64, rope_theta=5e5, rope_scaling=(8.0, 1.0, 4.0, 16)),
    "qwen2": TransformerConfig(vocab_size=97, dim=48, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=64,
                               context=64, qkv_bias=True, norm_eps=1e-6),
    "qwen3": TransformerConfig(vocab_size=97, dim=48, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=64,
                               head_dim=24, context=64, qk_norm=True),
}


def make(config: TransformerConfig = TINY, seed: int = 0) -> Transformer:
    """A model whose every parameter is random, so that no term hides behind a zero or a one."""
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * (0.1 if p.dim() == 2 else 0.3) + (0 if p.dim() == 2 else 1))
    return model


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("length", [1, 2, 17, 64])
@torch.no_grad()
def test_logits_equal_hugging_face(tmp_path, variant, length):
    model = make(VARIANTS[variant])
    save_hf_folder(model, tmp_path)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert type(reference).__name__.lower().startswith(reference.config.model_type)
    tokens = torch.randint(97, (2, length))
    expected = reference(tokens).logits
    torch.testing.assert_close(model(tokens), expected, rtol=1e-5, atol=1e-5)
    cache = model.new_cache(2, 64)
    steps = [model(tokens[:, t : t + 1], cache=cache) for t in range(length)]
    torch.testing.assert_close(torch.cat(steps, dim=1), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_hugging_face_folder_round_trip(tmp_path, variant):
    model = make(VARIANTS[variant])
    # Written by transformers itself, so that import does not depend on our own export's habits.
    save_hf_folder(model, tmp_path / "ours")
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    loaded = load_hf_folder(tmp_path / "theirs")
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@torch.no_grad()
def test_rollback_leaves_no_trace_of_forgotten_tokens():
    model, tokens = make(), torch.randint(97, (2, 12))
    cache = model.new_cache(2, 32)
    model(tokens[:, :6], cache=cache)
    model(torch.randint(97, (2, 9)), cache=cache)  # a wrong guess
    cache.rollback(6)
    torch.testing.assert_close(model(tokens[:, 6:], cache=cache), model(tokens)[:, 6:], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_rows_of_unequal_length_equal_rows_alone():
    model, tokens = make(), torch.randint(97, (3, 20))
    lengths = torch.tensor([5, 12, 1])
    cache = model.new_cache(3, 32)
    model(tokens[:, :12], cache=cache)  # right-padded prompts: what follows a row's end is forgotten
    cache.rollback(lengths)
    new = torch.stack([tokens[b, n : n + 4] for b, n in enumerate(lengths)])
    logits = model(new, cache=cache)
    assert cache.lengths.tolist() == [9, 16, 5]
    for b, n in enumerate(lengths):
        alone = model(tokens[b : b + 1, : n + 4])[:, n:]
        torch.testing.assert_close(logits[b : b + 1], alone, rtol=1e-5, atol=1e-5)
    cache.keep_rows(torch.tensor([1]))
    again = model(tokens[1:2, 16:18], cache=cache)
    torch.testing.assert_close(again, model(tokens[1:2, :18])[:, 16:], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_tree_mask_gives_each_branch_the_logits_of_its_own_path():
    """Two continuations in one pass: siblings share a position and do not see each other."""
    model = make()
    trunk, left, right = torch.randint(97, (1, 5)), torch.randint(97, (1, 2)), torch.randint(97, (1, 2))
    cache = model.new_cache(1, 16)
    model(trunk, cache=cache)
    tokens = torch.stack((left[0, 0], right[0, 0], left[0, 1], right[0, 1]))[None]
    mask = torch.ones(4, 9, dtype=torch.bool)
    mask[:, 5:] = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]], dtype=torch.bool)
    logits = model(tokens, cache=cache, positions=torch.tensor([5, 5, 6, 6]), mask=mask)
    for branch, rows in ((left, [0, 2]), (right, [1, 3])):
        alone = model(torch.cat((trunk, branch), dim=1))[:, 5:]
        torch.testing.assert_close(logits[:, rows], alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_large_cached_block_uses_the_same_mathematics_as_small_ones():
    model, tokens = make(), torch.randint(97, (2, 60))
    cache = model.new_cache(2, 64)
    model(tokens[:, :7], cache=cache)
    torch.testing.assert_close(model(tokens[:, 7:], cache=cache), model(tokens)[:, 7:], rtol=1e-5, atol=1e-5)


def test_llama3_rope_keeps_fast_and_slows_slow_frequencies():
    plain = rope_frequencies(TransformerConfig(**{**VARIANTS["llama3-rope"].__dict__, "rope_scaling": None}))
    scaled = rope_frequencies(VARIANTS["llama3-rope"])
    turns = 16 * plain / (2 * torch.pi)
    ratio = scaled / plain
    assert torch.all(ratio[turns > 4] == 1) and torch.allclose(ratio[turns < 1], torch.tensor(1 / 8))


def test_limits_are_refused_with_the_numbers_that_clash():
    model = make()
    with pytest.raises(ValueError, match="65 tokens pass the model's context of 64"):
        model(torch.zeros(1, 65, dtype=torch.long))
    with pytest.raises(ValueError, match="longer than the model's context"):
        model.new_cache(1, 65)
    cache = model.new_cache(1, 8)
    with pytest.raises(ValueError, match="9 tokens do not fit the cache of 8"):
        model(torch.zeros(1, 9, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="cannot roll back from"):
        cache.rollback(3)
    with pytest.raises(ValueError, match="must divide n_heads"):
        TransformerConfig(vocab_size=9, dim=12, n_layers=1, n_heads=4, n_kv_heads=3, hidden_dim=8)


def test_unsupported_folder_says_what_is_supported(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder"):
        load_hf_folder(tmp_path)
    save_hf_folder(make(), tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"llama"', '"gpt2"'))
    with pytest.raises(ValueError, match="supported are llama, qwen2, qwen3"):
        load_hf_folder(tmp_path)
    (tmp_path / "config.json").write_text(text.replace('"num_hidden_layers": 3', '"num_hidden_layers": 4'))
    with pytest.raises(ValueError, match="do not fit its config"):
        load_hf_folder(tmp_path)
