"""What memory.py computes from a configuration is what torch allocates, and what the models' makers publish."""

import pytest
import torch

from minilab.nn.huggingface import save_hf_folder
from minilab.nn.transformer import KVCache, Transformer, TransformerConfig
from minilab.speculative import memory
from minilab.speculative.cache import SpeculationCache, branches_within
from minilab.speculative.memory import FOUR_BIT, GIB, MODELS, PAIRS, pair_memory, parameters

# As their makers publish them, in millions.
PUBLISHED = {
    "Qwen/Qwen3-8B": 8190,
    "Qwen/Qwen3-0.6B": 596,
    "meta-llama/Llama-3.1-8B-Instruct": 8030,
    "meta-llama/Llama-3.2-1B-Instruct": 1236,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1710,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134.5,
}
SMALL = dict(vocab_size=300, dim=64, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=96)
VARIANTS = [
    TransformerConfig(**SMALL),
    TransformerConfig(**SMALL, tie_embeddings=False, head_dim=24),
    TransformerConfig(**SMALL, qk_norm=True),
    TransformerConfig(**SMALL, qkv_bias=True),
]


def on_no_device(config: TransformerConfig) -> Transformer:
    with torch.device("meta"):
        return Transformer(config)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_the_model_and_those_published(name):
    count = parameters(MODELS[name])
    assert count.total == on_no_device(MODELS[name]).num_parameters()
    assert count.total / 1e6 == pytest.approx(PUBLISHED[name], rel=0.01)


@pytest.mark.parametrize("name", MODELS)
def test_the_published_count_tells_whether_the_head_is_tied(name):
    """Otherwise the count could not be the source of that entry."""
    config = MODELS[name]
    head = config.vocab_size * config.dim
    other = parameters(config).total + (head if config.tie_embeddings else -head)
    assert other / 1e6 != pytest.approx(PUBLISHED[name], rel=0.03)


@pytest.mark.parametrize("config", VARIANTS, ids=["tied", "untied", "qk-norm", "qkv-bias"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weight_and_cache_bytes_are_what_torch_allocates(config, dtype):
    model = Transformer(config).to(dtype)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    assert memory.weight_bytes(config, bits=8 * dtype.itemsize) == weights
    cache = KVCache(config, batch=3, max_len=50, dtype=dtype)
    held = cache.k.nbytes + cache.v.nbytes
    assert memory.kv_bytes(config, 50, rows=3, itemsize=dtype.itemsize) == held


def test_four_bits_are_those_of_bitsandbytes(tmp_path):
    pytest.importorskip("bitsandbytes")
    transformers = pytest.importorskip("transformers")
    config = TransformerConfig(vocab_size=300, dim=128, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=192,
                               qk_norm=True, tie_embeddings=False)
    save_hf_folder(Transformer(config), tmp_path)
    quantization = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=quantization, dtype=torch.bfloat16, device_map={"": "cpu"})
    scales = [p.quant_state.absmax for p in model.parameters() if getattr(p, "quant_state", None) is not None]
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *scales))
    assert len(scales) == 2 * 7
    assert memory.weight_bytes(config, bits=FOUR_BIT) == held


@pytest.mark.parametrize("greedy", [True, False])
def test_speculation_bytes_are_those_of_a_cache(greedy):
    B, M, K, V = 2, 7, 3, 50
    keys, tokens = torch.zeros(B, M, dtype=torch.long), torch.zeros(B, M, K, dtype=torch.long)
    cache = SpeculationCache(keys, keys, tokens, None if greedy else torch.zeros(B, M, K, V))
    computed = memory.speculation_bytes(M, K, V, rows=B, greedy=greedy)
    assert computed == cache.nbytes
    options = dict(rows=B, K=K, vocab_size=V, greedy=greedy)
    assert branches_within(computed, 100, **options) == M
    assert branches_within(computed - 1, 100, **options) == M - 1


def test_grouped_queries_divide_the_cache_and_rows_multiply_it():
    target = MODELS["Qwen/Qwen3-8B"]
    whole = TransformerConfig(**{**target.__dict__, "n_kv_heads": target.n_heads})
    assert memory.kv_bytes(whole, 1000) == 4 * memory.kv_bytes(target, 1000)
    target, draft = (MODELS[name] for name in PAIRS[0])
    one, eight = (pair_memory(target, draft, rows=rows) for rows in (1, 8))
    assert (eight.target_kv, eight.draft_kv) == (8 * one.target_kv, 8 * one.draft_kv)
    assert eight.speculation == 8 * one.speculation and eight.target == one.target
    assert pair_memory(target, draft, greedy=True).speculation < one.speculation / 1000


def test_the_card_is_the_smallest_that_holds_the_total():
    sizes = memory.PairMemory(target=0, draft=0, target_kv=0, draft_kv=0, speculation=0, reserve=0)
    for total, card in ((8 * GIB, 8), (8 * GIB + 1, 12), (48 * GIB, 48), (48 * GIB + 1, None)):
        assert memory.PairMemory(**{**sizes.__dict__, "target": total}).card == card


def test_fit_is_checked_where_the_free_memory_is_known(monkeypatch):
    memory.check_fits(10**15, "cpu", "a giant")  # nobody knows
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10 * GIB)
    memory.check_fits(9 * GIB, "cuda", "a pair")
    with pytest.raises(ValueError, match=r"big with small needs 10\.5 GiB on cuda:1 \(9\.5 of weights.* 10\.0 GiB are "
                                         r"free.*TARGET:4bit\+DRAFT"):
        memory.check_fits(19 * GIB // 2, "cuda:1", "big with small")
