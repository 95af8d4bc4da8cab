"""A target, its draft and their tokenizer, ready to decode text.

`load_pair()` gives the best pair at hand: SmolLM2-135M-Instruct if it was fetched, else the pair that ships
with minilab. `load_pair("shipped")` and `load_pair("smollm2")` insist on one; `load_pair("large")` is a pair of our
own that you train on your GPU. Any two causal language models of one vocabulary make a pair by one string,
"Qwen/Qwen3-8B+Qwen/Qwen3-0.6B": names on the Hugging Face hub or folders.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from minilab.core.device import cache_dir
from minilab.core.files import package_data
from minilab.nn.graphs import StaticModel
from minilab.nn.huggingface import config_from_hf, cut_vocabulary, load_hf_folder
from minilab.nn.store import load_model
from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.speculative import data, memory, smollm
from minilab.speculative.decoding import Generation, Round, autoregressive, collect, speculative
from minilab.speculative.models import HuggingFaceModel, LanguageModel
from minilab.speculative.sampling import GREEDY, Sampling

SMOLLM2_DRAFT = "speculative/smollm2-draft.safetensors"
OURS = ("shipped", "large")  # trained by `recipes.pair`, with one tokenizer
MAKE_LARGE = "minilab run speculative/pair --preset large"
AT_FOUR_BITS = ":4bit"  # behind the target's name
EXAMPLE = "Qwen/Qwen3-8B+Qwen/Qwen3-0.6B"


@dataclass(frozen=True)
class Pair:
    """Two models of one vocabulary."""

    name: str
    target: LanguageModel
    draft: LanguageModel
    tokenizer: Tokenizer
    stop: tuple[int, ...]  # tokens that end a text
    template: Callable[[str], str] | None = None  # a question as a chat model's turn; None for other models
    begin: bool = False  # whether the tokenizer puts its own beginning-of-text token in front

    @property
    def chat(self) -> bool:
        """Whether a prompt is a question."""
        return self.template is not None

    def encode(self, text: str) -> list[int]:
        """The tokens of a prompt; a chat model's prompt becomes a user turn and the head of the reply."""
        if self.template is not None and text:
            return self.tokenizer.encode(self.template(text), add_special_tokens=False).ids
        return self.tokenizer.encode(text, add_special_tokens=self.begin).ids

    def decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens)

    def rounds(self, prompts: list[str], *, K: int | None = None, max_new_tokens: int, sampling: Sampling = GREEDY,
               seed: int = 0) -> Iterator[Round]:
        """Stream a decoding of text prompts: speculative with K draft tokens, or autoregressive if K is None."""
        decode = autoregressive if K is None else partial(speculative, draft=self.draft, K=K)
        return decode(self.target, prompts=[self.encode(p) for p in prompts], max_new_tokens=max_new_tokens,
                      sampling=sampling, stop=self.stop,
                      generator=torch.Generator(self.target.device).manual_seed(seed))

    def generate(self, prompts: list[str], **options) -> Generation:
        """`rounds`, run to the end."""
        return collect(self.rounds(prompts, **options), len(prompts))


def pair_folder(name: str) -> Path:
    """Where a pair of our own has its target.safetensors and draft.safetensors; it may be absent."""
    return package_data("assets") / "speculative" if name == "shipped" else cache_dir() / "pairs" / name


def load_pair(name: str | None = None, *, dtype: torch.dtype = torch.float32, device="cpu") -> Pair:
    """The pair called `name`, or the best that is there. "TARGET+DRAFT" is two Hugging Face names or folders, and
    "TARGET:4bit+DRAFT" the same with the target at 4 bits.

    Raises ValueError for an unknown name and FileNotFoundError if SmolLM2 was not fetched or "large" not trained; for
    two models see `load_hugging_face_pair`.
    """
    if name is None:
        name = "smollm2" if smollm.available() and (package_data("assets") / SMOLLM2_DRAFT).is_file() else "shipped"
    if name in OURS:
        paths = [pair_folder(name) / f"{n}.safetensors" for n in ("target", "draft")]
        if name == "large" and (missing := [path for path in paths if not path.is_file()]):
            raise FileNotFoundError(f"{missing[0]} is not there; train the large pair with `{MAKE_LARGE}` (about ten "
                                    "minutes on an H100, from the full corpus), or take 'shipped'")
        target, draft = (load_model(path, dtype=dtype, device=device) for path in paths)
        return Pair(name, _frozen(target), _frozen(draft), data.load_tokenizer(), stop=(target.start_token,))
    if name == "smollm2":
        target = load_hf_folder(smollm.folder(), dtype=dtype, device=device)
        draft = load_model(SMOLLM2_DRAFT, dtype=dtype, device=device)
        tokenizer = smollm.load_tokenizer()
        stop = tuple(tokenizer.token_to_id(t) for t in ("<|im_end|>", "<|endoftext|>"))
        return Pair(name, _frozen(target), _frozen(draft), tokenizer, stop=stop, template=smollm.chat_prompt)
    target, plus, draft = name.partition("+")
    if not (target.strip() and draft.strip()) or "+" in draft:
        raise ValueError(f"unknown pair {name!r}; choose 'shipped', 'smollm2' or 'large', or join two Hugging Face "
                         f"names or folders with one plus sign, as in {EXAMPLE!r}")
    return load_hugging_face_pair(target.strip().removesuffix(AT_FOUR_BITS), draft.strip(), dtype=dtype, device=device,
                                  four_bit=target.strip().endswith(AT_FOUR_BITS))


def load_pair_for(name: str, device: torch.device) -> Pair:
    """The pair called `name` in the number type that an experiment on `device` uses: bf16 where a GPU has it."""
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return load_pair(name, dtype=torch.bfloat16 if half else torch.float32, device=device)


def fast(pair: Pair) -> Pair:
    """The same pair for the clock: on a GPU our own models run as CUDA graphs, compiled where Triton is installed."""
    if pair.target.device.type != "cuda":
        return pair
    compiled = find_spec("triton") is not None
    target, draft = (StaticModel(m, compile=compiled) if isinstance(m, Transformer) else m
                     for m in (pair.target, pair.draft))
    return replace(pair, target=target, draft=draft)


def prompts_for(pair: Pair, n: int) -> list[str]:
    """n prompts that suit the pair: questions for a chat model, else beginnings of held-out paragraphs."""
    return [data.QUESTIONS[i % len(data.QUESTIONS)] for i in range(n)] if pair.chat else data.prompts(n)


def _frozen(model: nn.Module) -> nn.Module:
    """The model without gradients: a graph through a cache that is written in place would never be freed."""
    return model.requires_grad_(False)


def load_hugging_face_pair(target: str, draft: str, *, dtype: torch.dtype = torch.float32, device="cpu",
                           four_bit: bool = False) -> Pair:
    """Two causal LMs by hub name or folder, such as "Qwen/Qwen3-8B" and "Qwen/Qwen3-0.6B".

    Llama, Qwen2 and Qwen3 weights go into our own `Transformer`, the fast path; other models are wrapped. With
    `four_bit` the target's matrices are quantized by bitsandbytes when they are loaded (NF4), and it is wrapped.

    Raises ValueError if their tokenizers differ or a GPU has too little memory (said before any weight is read),
    OSError (with a way out) if one is neither here nor reachable or is gated, ImportError if transformers, or
    for `four_bit` bitsandbytes, is missing.
    """
    _require("transformers", "Hugging Face models need transformers: pip install 'minilab[labs]'")
    if four_bit:
        for library in ("bitsandbytes", "accelerate"):
            _require(library, f"a target at 4 bits needs {library}: pip install bitsandbytes accelerate")
    from transformers import AutoTokenizer

    suffix = AT_FOUR_BITS if four_bit else ""
    names = [str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name for name in (target, draft)]
    try:
        tokenizers = [AutoTokenizer.from_pretrained(name) for name in names]
        configs = [_read_config(name) for name in names]
        rows = _common_vocabulary(names, tokenizers, configs)
        bits = [memory.FOUR_BIT if four_bit else 8 * dtype.itemsize, 8 * dtype.itemsize]
        needed = sum(map(_weight_bytes, names, configs, bits))
        memory.check_fits(needed, device, f"{target}{suffix} with {draft}")
        models = [_load(name, config, rows, dtype=dtype, device=device, four_bit=quantize)
                  for name, config, quantize in zip(names, configs, (four_bit, False), strict=True)]
        stop = _stop_tokens(names[0], tokenizers[0])
    except OSError as error:
        raise OSError(f"{error}\n\n{_way_out(str(error), target, draft)}") from None
    template = None if tokenizers[0].chat_template is None else partial(_user_turn, tokenizers[0])
    return Pair(f"{Path(target).name}{suffix}+{Path(draft).name}", *models, tokenizers[0].backend_tokenizer,
                stop, template=template, begin=True)


def _require(library: str, message: str) -> None:
    if find_spec(library) is None:
        raise ImportError(message)


def _way_out(error: str, target: str, draft: str) -> str:
    if "gated" in error or "restricted" in error:
        return ("This model is gated: accept its license on its page on huggingface.co, then log in here with "
                "`hf auth login`. Or take models that are not, such as " + EXAMPLE)
    return (f"{target} and {draft} must be folders here or be downloaded from the hub, which needs a network. Without "
            "one, use load_pair('shipped'), the pair that comes with minilab")


def _user_turn(tokenizer, question: str) -> str:
    """A question in the model's own chat template, up to where the reply begins."""
    return tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False,
                                         add_generation_prompt=True)


def _read_config(name: str) -> dict:
    """The content of a model's config.json: a few kilobytes, read before gigabytes are."""
    from transformers.utils import cached_file

    return json.loads(Path(cached_file(name, "config.json")).read_text(encoding="utf-8"))


def _our_config(config: dict) -> TransformerConfig | None:
    """Our configuration of a model, None if `Transformer` cannot be it."""
    try:
        return config_from_hf(config)
    except (ValueError, KeyError):
        return None


def _common_vocabulary(names: Sequence[str], tokenizers: Sequence, configs: Sequence[dict]) -> int:
    """How many tokens both models have a row for. Raises ValueError if one token means two things.

    Embeddings are padded beyond the tokenizer, Qwen2.5's of 7B further than those of 0.5B. We keep the padding that
    both have: cut to the tokenizer's odd size, the output head would be a slower product on a GPU.
    """
    ours, theirs = (tokenizer.get_vocab() for tokenizer in tokenizers)
    if ours != theirs:
        differ = {word for word, _ in ours.items() ^ theirs.items()}
        raise ValueError(f"{names[1]} has another vocabulary than {names[0]}: its tokens mean something else "
                         f"({len(differ)} differ, such as {min(differ)!r}). Choose a draft of the same family")
    size = max(ours.values()) + 1
    rows = [(config.get("text_config") or config).get("vocab_size", size) for config in configs]
    if min(rows) < size:
        raise ValueError(f"{names[rows.index(min(rows))]} has an embedding of {min(rows)} rows for a tokenizer of "
                         f"{size} tokens: folder and tokenizer do not belong together")
    return min(rows)


def _weight_bytes(name: str, config: dict, bits: float) -> int:
    """Bytes that the weights will take at `bits` a matrix entry; 0 where nobody knows before they are loaded."""
    if (ours := _our_config(config)) is not None:
        return memory.weight_bytes(ours, bits=bits)
    if config.get("quantization_config"):
        return 0
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(name))
    return round(sum(p.numel() for p in model.parameters()) * bits / 8)


def _load(name: str, config: dict, rows: int, *, dtype: torch.dtype, device, four_bit: bool) -> LanguageModel:
    """A model in `Transformer` if that can be, else wrapped, with `rows` tokens."""
    if _our_config(config) is not None and not four_bit:
        folder = Path(name) if Path(name).is_dir() else _download(name)
        if any(folder.glob("*.safetensors")):  # some old repositories hold pickled weights, which we do not open
            return _frozen(cut_vocabulary(load_hf_folder(folder, dtype=dtype, device=device), rows))
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    options = {}
    if four_bit:
        options = {"quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype),
            "device_map": {"": torch.device(device)}}
    model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, **options)
    return HuggingFaceModel(_frozen(model if four_bit else model.to(device)), vocab_size=rows)


def _download(name: str) -> Path:
    """The folder of a model of the hub in its cache, with all that `load_hf_folder` reads."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=["config.json", "model*.safetensors", "model.safetensors.*"]))


def _stop_tokens(name: str, tokenizer) -> tuple[int, ...]:
    """The tokens that end a text: the tokenizer's, and those that the model's generation settings add."""
    from transformers import GenerationConfig

    try:
        ends = GenerationConfig.from_pretrained(name).eos_token_id
    except OSError:  # not every model has the file
        ends = None
    ends = ends if isinstance(ends, list) else [ends]
    return tuple(sorted({end for end in (tokenizer.eos_token_id, *ends) if end is not None}))
