"""Read and write Hugging Face model folders (config.json + safetensors), Llama and Qwen architectures.

Only file formats are shared: nothing here imports `transformers`. Weights are renamed, and matrices that
read the same input are joined; no number changes, because `nn.transformer` keeps Hugging Face's RoPE layout.
"""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

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


def state_from_hf(theirs: dict[str, Tensor], model: Transformer) -> dict[str, Tensor]:
    """The state of `model` taken from Hugging Face tensors.

    Raises ValueError if a tensor is missing, left over, or of another shape.
    """
    left, state = dict(theirs), {}
    for name, param in model.state_dict().items():
        parts = hf_names(name)
        if name == "head.weight" and model.config.tie_embeddings:
            left.pop(parts[0], None)
            parts = hf_names("embed.weight")
        if missing := [part for part in parts if part not in theirs]:
            raise ValueError(f"the tensor {missing[0]} is missing")
        tensor = torch.cat([theirs[part] for part in parts]) if len(parts) > 1 else theirs[parts[0]]
        if tensor.shape != param.shape:
            raise ValueError(f"{' + '.join(parts)} has shape {tuple(tensor.shape)}, not {tuple(param.shape)}")
        state[name] = tensor
        for part in parts:
            left.pop(part, None)
    if left:
        raise ValueError(f"nothing here reads the tensor {next(iter(left))}")
    return state


def state_to_hf(model: Transformer) -> dict[str, Tensor]:
    """The tensors of `model` under Hugging Face's names."""
    config, theirs = model.config, {}
    heads = [n * config.head_dim for n in (config.n_heads, config.n_kv_heads, config.n_kv_heads)]
    for name, tensor in model.state_dict().items():
        parts = hf_names(name)
        if name == "head.weight" and config.tie_embeddings:
            continue
        sizes = {1: [len(tensor)], 2: [config.hidden_dim] * 2, 3: heads}[len(parts)]
        theirs |= {part: t.contiguous() for part, t in zip(parts, tensor.split(sizes), strict=True)}
    return theirs


def config_from_hf(config: dict) -> TransformerConfig:
    """Our configuration from the content of a config.json.

    Raises ValueError for another architecture, activation or RoPE variant, naming what is supported.
    """
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise ValueError(f"model_type {kind!r} is not supported; supported are {', '.join(ARCHITECTURES)}")
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"activation {config['hidden_act']!r} is not supported; these models use 'silu'")
    if kind == "llama" and (config.get("attention_bias") or config.get("mlp_bias")):
        raise ValueError("Llama weights with biases are not supported")
    if config.get("use_sliding_window"):
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

    Raises FileNotFoundError if the folder holds no model, ValueError if it holds another architecture or
    its tensors do not fit its configuration.
    """
    path = Path(path)
    shards = sorted(path.glob("*.safetensors"))
    if not shards or not (path / "config.json").is_file():
        raise FileNotFoundError(f"{path} is no model folder: it needs config.json and *.safetensors")
    config = config_from_hf(json.loads((path / "config.json").read_text()))
    theirs = {}
    for shard in shards:
        theirs |= load_file(shard)
    theirs = {name: t for name, t in theirs.items() if not name.endswith("rotary_emb.inv_freq")}
    with torch.device("meta"):
        model = Transformer(config)
    try:
        model.load_state_dict(state_from_hf(theirs, model), assign=True)
    except ValueError as error:
        raise ValueError(f"the tensors in {path} do not fit its config.json: {error}") from None
    if config.tie_embeddings:
        model.head.weight = model.embed.weight
    return model.to(device=device, dtype=dtype).eval()


def save_hf_folder(model: Transformer, path: Path | str) -> Path:
    """Write config.json and model.safetensors, so that `AutoModelForCausalLM.from_pretrained(path)` works."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    save_file(state_to_hf(model), path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps(config_to_hf(model.config), indent=2) + "\n")
    return path
