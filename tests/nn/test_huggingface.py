"""Folders that others write: shards, stray files, padded vocabularies, and what our decoder cannot be."""

import json

import pytest
import torch

from minilab.nn.huggingface import config_from_hf, config_to_hf, cut_vocabulary, load_hf_folder, save_hf_folder
from minilab.nn.transformer import Transformer, TransformerConfig

transformers = pytest.importorskip("transformers")

SMALL = dict(vocab_size=97, dim=48, n_layers=3, n_heads=4, n_kv_heads=2, hidden_dim=64, context=64)
VARIANTS = {
    "llama-tied": TransformerConfig(**SMALL),
    "llama-untied": TransformerConfig(**SMALL, tie_embeddings=False),
    "qwen3-untied": TransformerConfig(**SMALL, head_dim=24, qk_norm=True, tie_embeddings=False),
}


def make(config: TransformerConfig) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(config).eval().requires_grad_(False)
    for p in model.parameters():
        p.copy_(torch.randn_like(p) * 0.2 + (p.dim() == 1))
    return model


@pytest.fixture(params=VARIANTS)
def sharded(request, tmp_path):
    """A model, and its folder as transformers writes it in several files."""
    model = make(VARIANTS[request.param])
    save_hf_folder(model, tmp_path / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    return model, tmp_path / "shards"


def test_shards_hold_the_same_model_as_one_file(sharded):
    model, folder = sharded
    loaded = load_hf_folder(folder)
    tokens = torch.arange(20)[None]
    assert torch.equal(loaded(tokens), model(tokens))
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.testing.assert_close(loaded(tokens), reference(tokens).logits, rtol=1e-5, atol=1e-5)
    assert (loaded.head.weight is loaded.embed.weight) == model.config.tie_embeddings


def test_weights_arrive_in_the_type_that_was_asked_for(sharded):
    model, folder = sharded
    loaded = load_hf_folder(folder, dtype=torch.bfloat16)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.bfloat16()), name
    stored = {t.data_ptr(): t.untyped_storage().nbytes() for t in loaded.parameters()}
    assert sum(stored.values()) == 2 * model.num_parameters(), "nothing is kept beside the weights"


def test_only_the_files_that_the_index_names_are_read(sharded):
    """Repositories hold adapters and second copies under other names."""
    model, folder = sharded
    first = next(folder.glob("model-*.safetensors"))
    (folder / "consolidated.safetensors").write_bytes(first.read_bytes())
    tokens = torch.arange(9)[None]
    assert torch.equal(load_hf_folder(folder)(tokens), model(tokens))


def test_a_download_that_broke_off_names_the_missing_shard(sharded):
    folder = sharded[1]
    last = sorted(folder.glob("model-*.safetensors"))[-1]
    last.unlink()
    with pytest.raises(FileNotFoundError, match=rf"incomplete: {last.name} is missing \(1 of \d+ files\); download"):
        load_hf_folder(folder)


def test_a_tensor_too_few_or_too_many_is_named(sharded):
    folder = sharded[1]
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2, "layer_types": None}))
    with pytest.raises(ValueError, match=r"nothing here reads the tensor model.layers.2\."):
        load_hf_folder(folder)
    (folder / "config.json").write_text(json.dumps(config))
    gone = index["weight_map"]["model.norm.weight"]
    index["weight_map"] = {k: v for k, v in index["weight_map"].items() if v != gone}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"do not fit its config.json: the tensor \S+ is missing"):
        load_hf_folder(folder)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_cut_vocabulary_leaves_the_other_tokens_as_they_were(variant):
    model, tokens = make(VARIANTS[variant]), torch.arange(30)[None]
    before = model(tokens)
    assert cut_vocabulary(model, 97) is model and model.vocab_size == 97
    assert cut_vocabulary(model, 90).vocab_size == 90
    assert torch.equal(model(tokens), before[..., :90])
    assert (model.head.weight is model.embed.weight) == model.config.tie_embeddings
    assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="90 tokens, fewer than 91"):
        cut_vocabulary(model, 91)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model_type": "gemma2"}, "model_type 'gemma2' is not supported; supported are llama, qwen2, qwen3"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "quantized weights"),
        ({"model_type": "qwen3", "attention_bias": True}, "qwen3 weights with biases"),
        ({"mlp_bias": True}, "llama weights with biases"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding-window"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "RoPE variant 'yarn'"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
    ],
)
def test_what_the_decoder_cannot_be_is_refused_before_weights_are_read(change, complaint):
    config = config_to_hf(VARIANTS["llama-tied"])
    assert config_from_hf(config) == VARIANTS["llama-tied"]
    with pytest.raises(ValueError, match=complaint):
        config_from_hf(config | change)
