"""Read and write Hugging Face model folders (config.json + safetensors), Llama and Qwen architectures.

Only file formats are shared: nothing here imports `transformers`. Weights are renamed, and matrices that
read the same input are joined; no number changes, because `nn.transformer` keeps Hugging Face's RoPE layout.

Loading copies one tensor at a time out of the files into place, so that a model takes its own size of memory
on its device and next to none beside it.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from minilab.nn.transformer import Transformer, TransformerConfig

ARCHITECTURES = {"llama": {}, "qwen2": {"qkv_bias": True}, "qwen3": {"qk_norm": True}}

# our name -> Hugging Face's, the layer's number in place of the star
NAMES = {
    "embed.weight": ["model.embed_tokens.weight"],
    "norm.weight": ["model.norm.weight"],
    "head.weight": ["lm_head.weight"],
    "blocks.*.attn_norm.weight": ["model.layers.*.input_layernorm.weight"],
    "blocks.*.ffn_norm.weight": ["model.layers.*.post_attention_layernorm.weight"],
    "blocks.*.attn.qkv.weight": [f"model.layers.*.self_attn.{x}_proj.weight" for x in "qkv"],
    "blocks.*.attn.qkv.bias": [f"model.layers.*.self_attn.{x}_proj.bias" for x in "qkv"],
    "blocks.*.attn.o.weight": ["model.layers.*.self_attn.o_proj.weight"],
    "blocks.*.attn.q_norm.weight": ["model.layers.*.self_attn.q_norm.weight"],
    "blocks.*.attn.k_norm.weight": ["model.layers.*.self_attn.k_norm.weight"],
    "blocks.*.ffn.gate_up.weight": [f"model.layers.*.mlp.{x}_proj.weight" for x in ("gate", "up")],
    "blocks.*.ffn.down.weight": ["model.layers.*.mlp.down_proj.weight"],
}


def hf_names(name: str) -> list[str]:
    """Hugging Face's names for the parts of one of our tensors, in the order in which they are joined."""
    layer = re.search(r"(?<=blocks\.)\d+", name)
    pattern = name.replace(f".{layer[0]}.", ".*.", 1) if layer else name
    return [part.replace("*", layer[0] if layer else "") for part in NAMES[pattern]]


def hf_parts(model: Transformer) -> dict[str, Tensor]:
    """The tensors of `model` under Hugging Face's names: views, so that what is written there is the model's.

    A tied output head has no name of its own.
    """
    config, views = model.config, {}
    heads = [n * config.head_dim for n in (config.n_heads, config.n_kv_heads, config.n_kv_heads)]
    for name, tensor in model.state_dict().items():
        if name == "head.weight" and config.tie_embeddings:
            continue
        parts = hf_names(name)
        sizes = {1: [len(tensor)], 2: [config.hidden_dim] * 2, 3: heads}[len(parts)]
        views |= zip(parts, tensor.split(sizes), strict=True)
    return views


def config_from_hf(config: dict) -> TransformerConfig:
    """Our configuration from the content of a config.json.

    Raises ValueError for another architecture, activation or RoPE variant, naming what is supported, and for
    quantized weights.
    """
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise ValueError(f"model_type {kind!r} is not supported; supported are {', '.join(ARCHITECTURES)}")
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"activation {config['hidden_act']!r} is not supported; these models use 'silu'")
    if config.get("quantization_config"):
        raise ValueError("quantized weights are not supported")
    if kind != "qwen2" and (config.get("attention_bias") or config.get("mlp_bias")):
        raise ValueError(f"{kind} weights with biases are not supported")
    if config.get("use_sliding_window") or set(config.get("layer_types") or ()) - {"full_attention"}:
        raise ValueError("sliding-window attention is not supported")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "llama3"):
        raise ValueError(f"RoPE variant {rope_type!r} is not supported; supported are 'default' and 'llama3'")
    scaling = None
    if rope_type == "llama3":
        scaling = (rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"],
                   rope["original_max_position_embeddings"])
    heads = config["num_attention_heads"]
    return TransformerConfig(
        vocab_size=config["vocab_size"], dim=config["hidden_size"], n_layers=config["num_hidden_layers"],
        n_heads=heads, n_kv_heads=config.get("num_key_value_heads") or heads,
        hidden_dim=config["intermediate_size"], head_dim=config.get("head_dim"),
        context=config["max_position_embeddings"],
        rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 10_000.0))), rope_scaling=scaling,
        start_token=config.get("bos_token_id") or 0, norm_eps=config["rms_norm_eps"],
        tie_embeddings=config.get("tie_word_embeddings", False),
        **ARCHITECTURES[kind])


def config_to_hf(config: TransformerConfig) -> dict:
    """The content of a config.json that `transformers` reads as the same model."""
    kind = "qwen3" if config.qk_norm else "qwen2" if config.qkv_bias else "llama"
    rope = {"rope_theta": config.rope_theta, "rope_type": "default"}
    if config.rope_scaling is not None:
        factor, low, high, original = config.rope_scaling
        rope |= {"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                 "original_max_position_embeddings": original}
    name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[kind]
    return {
        "architectures": [f"{name}ForCausalLM"], "model_type": kind, "vocab_size": config.vocab_size,
        "hidden_size": config.dim, "num_hidden_layers": config.n_layers, "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads, "head_dim": config.head_dim,
        "intermediate_size": config.hidden_dim, "max_position_embeddings": config.context,
        "rope_theta": config.rope_theta, "rope_parameters": rope,
        "rope_scaling": None if config.rope_scaling is None else rope, "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings, "hidden_act": "silu", "attention_bias": False,
        "mlp_bias": False, "use_sliding_window": False, "bos_token_id": config.start_token,
        "eos_token_id": config.start_token}


def load_hf_folder(path: Path | str, *, dtype: torch.dtype = torch.float32, device="cpu") -> Transformer:
    """A `Transformer` from a Hugging Face folder (one safetensors file or several shards).

    Raises FileNotFoundError if the folder holds no model or lacks a shard, ValueError if it holds another
    architecture or its tensors do not fit its configuration.
    """
    path = Path(path)
    files = weight_files(path)
    model = _blank(config_from_hf(json.loads((path / "config.json").read_text())), dtype, device)
    try:
        _fill(model, files)
    except ValueError as error:
        raise ValueError(f"the tensors in {path} do not fit its config.json: {error}") from None
    return model.eval()


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a model folder: the one, or the shards that its index names, or all there are.

    Raises FileNotFoundError if there is no model, or a shard of it is missing.
    """
    whole, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if whole.is_file():
        files = [whole]
    elif index.is_file():
        files = [path / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    else:
        files = sorted(path.glob("*.safetensors"))
    if not files or not (path / "config.json").is_file():
        raise FileNotFoundError(f"{path} is no model folder: it needs config.json and *.safetensors")
    if missing := [file.name for file in files if not file.is_file()]:
        raise FileNotFoundError(f"{path} is incomplete: {missing[0]} is missing ({len(missing)} of {len(files)} "
                                "files); download the model again")
    return files


def _blank(config: TransformerConfig, dtype: torch.dtype, device) -> Transformer:
    """A model whose memory is reserved and not written: no time for an initialization, none of it twice."""
    with torch.device("meta"):
        model = Transformer(config)
    state = {name: torch.empty_like(t, dtype=dtype, device=device) for name, t in model.state_dict().items()
             if name != "head.weight" or not config.tie_embeddings}
    model.load_state_dict({"head.weight": state["embed.weight"]} | state, assign=True)
    if config.tie_embeddings:
        model.head.weight = model.embed.weight
    return model


def _fill(model: Transformer, files: list[Path]) -> None:
    """Copy the tensors of the files into the model. Raises ValueError for a missing, wrong or unknown one."""
    wanted = hf_parts(model)
    for file in files:
        with safe_open(file, framework="pt") as shard:
            for name in shard.keys():
                tied_head = name == "lm_head.weight" and model.config.tie_embeddings
                if tied_head or name.endswith("rotary_emb.inv_freq"):
                    continue  # stored again by some, computed by us
                if name not in wanted:
                    raise ValueError(f"nothing here reads the tensor {name}")
                tensor, place = shard.get_tensor(name), wanted.pop(name)
                if tensor.shape != place.shape:
                    raise ValueError(f"{name} has shape {tuple(tensor.shape)}, not {tuple(place.shape)}")
                place.copy_(tensor)
    if wanted:
        raise ValueError(f"the tensor {next(iter(wanted))} is missing")


def cut_vocabulary(model: Transformer, size: int) -> Transformer:
    """`model` itself with the first `size` tokens only, for rows of its embedding that no token uses.

    Raises ValueError if it has fewer.
    """
    if size > model.vocab_size:
        raise ValueError(f"the model has {model.vocab_size} tokens, fewer than {size}")
    if size < model.vocab_size:
        model.config = replace(model.config, vocab_size=size)
        for layer in (model.embed, model.head):
            layer.weight = nn.Parameter(layer.weight.detach()[:size], requires_grad=layer.weight.requires_grad)
        if model.config.tie_embeddings:
            model.head.weight = model.embed.weight
    return model


def save_hf_folder(model: Transformer, path: Path | str) -> Path:
    """Write config.json and model.safetensors, so that `AutoModelForCausalLM.from_pretrained(path)` works."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    theirs = {name: tensor.contiguous() for name, tensor in hf_parts(model).items()}
    save_file(theirs, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps(config_to_hf(model.config), indent=2) + "\n")
    return path
