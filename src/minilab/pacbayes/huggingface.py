"""Bounds for the models of others: any causal language model that `transformers` loads, under the same certificate.

    model, tokenizer = load("a folder, or a name on the hub")
    text = text_of(documents, tokenizer, length=256)
    found = certify(model, text, recipe)

Few numbers correct the frozen model (`lora`, `subspace`); they are rounded, coded, decoded, and the three bounds of
`llm` follow, in bits per token. Notable:

- The checkpoint and its tokenizer belong to the prior: they must be older than the text, or must not have seen it. A
  model that was trained on the text is no prior. What it takes to send that one is the length of its file
  (`bounds.nats_of(8 * bytes)` for `llm.token_bound`).
- With a configuration in the place of a model, weights are random from the seed, as in Lotfi et al. (2024).
- Queries, values and the head are corrected, as in `lora`. Where an architecture keeps queries, keys and values in one
  matrix in an order of its own, all three are. Other matrices can be named.
- Weights are loaded in float32. To rebuild a model from its message takes float64 for a moment, twice as much memory.
- For Llama and Qwen, files are those of our own `Transformer` of the same weights: each opens in the other.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minilab.pacbayes import llm
from minilab.pacbayes.compress import TRIED, Recipe
from minilab.pacbayes.llm import Text, windows
from minilab.pacbayes.lora import LoRA, Place, check_vocabulary
from minilab.pacbayes.networks import Build

MATRICES = ("q_proj", "v_proj", "query", "value", "c_attn", "query_key_value", "qkv_proj", "Wqkv")  # ends of names


class CausalLM(nn.Module):
    """A model of `transformers` as a plain function from tokens to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.eval()

    @property
    def head(self) -> nn.Module:
        """Its output layer. Raises ValueError for a model that predicts no tokens."""
        head = self.model.get_output_embeddings()
        if head is None:
            raise ValueError(f"{type(self.model).__name__} has no output over tokens: load a causal language model")
        return head

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        return self.model(input_ids=tokens, use_cache=False).logits


def load(source: str, *, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, object]:
    """Model and tokenizer of a folder, or of a name on the hub.

    Raises ImportError without `transformers`, and OSError if there is no such folder or name.
    """
    transformers = _transformers()
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(source)


def _transformers():
    try:
        import transformers
    except ImportError:
        raise ImportError("Hugging Face models need transformers: pip install 'minilab[labs]'") from None
    return transformers


def text_of(documents: Sequence[str], tokenizer, *, length: int) -> Text:
    """Documents in the tokenizer's tokens, each between two of its end tokens, in windows of `length` predictions.

    Raises ValueError for a tokenizer without an end token, for no documents, and for one that holds an end token: it
    would count as two.
    """
    end = tokenizer.eos_token_id
    if end is None or not documents:
        raise ValueError(f"{len(documents)} documents, end token {tokenizer.eos_token!r}: give at least one document, "
                         "and a tokenizer that has an end token (`tokenizer.eos_token = ...`)")
    # Special tokens in a document are the characters that they are written with.
    ids = tokenizer(list(documents), add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    if broken := [i for i, document in enumerate(ids) if end in document]:
        raise ValueError(f"document {broken[0]} holds the end token {tokenizer.eos_token!r}, and would count as two: "
                         "split it there, or take the token out")
    return windows(torch.tensor([end, *(x for document in ids for x in (*document, end))]), length, separator=end)


def corrected(base, *, rank: int = 1, matrices: Sequence[str] = MATRICES) -> Build:
    """What builds the network for a `Subspace`: over a given model, or over random weights of a configuration.

    `matrices` are the ends of the names of the layers to correct, beside the head. Raises ValueError, when it builds,
    if no layer has such a name.
    """

    def lora(shape: tuple[int, ...], classes: int) -> LoRA:
        model = CausalLM(base if isinstance(base, nn.Module) else _random(base))
        check_vocabulary(len(model.head.weight), classes)
        return LoRA(model, rank, places(model, matrices))

    return lora


def _random(config) -> nn.Module:
    """Drawn in float64 and kept in float32, as a projection is."""
    return _transformers().AutoModelForCausalLM.from_config(config, dtype=torch.float64).float()


def places(model: CausalLM, matrices: Sequence[str] = MATRICES) -> list[Place]:
    """Where to correct: in each layer that is named so, and last in the head."""
    within = {name: layer for name, layer in model.named_modules() if _matrix(layer) and layer is not model.head}
    found = [place for name, layer in within.items() if _end(name) in matrices for place in _in_layer(name, layer)]
    if not found:
        raise ValueError(f"no layer is named {' or '.join(matrices)}: give `matrices`, some of "
                         f"{', '.join(sorted({_end(name) for name in within}))}")
    head = next(name for name, layer in model.named_modules() if layer is model.head)
    return [*found, Place(f"{head}.weight", *model.head.weight.shape)]


def _end(name: str) -> str:
    return name.rpartition(".")[2]


def _matrix(layer: nn.Module) -> bool:
    weight = getattr(layer, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(layer, nn.Embedding)


def _in_layer(name: str, layer: nn.Module) -> list[Place]:
    matrix = f"{name}.weight"
    transposed = type(layer).__name__ == "Conv1D"  # GPT-2's layers are stored as in x out
    rows, columns = reversed(layer.weight.shape) if transposed else layer.weight.shape
    if transposed and rows == 3 * columns:  # GPT-2: queries, keys, values
        return [Place(matrix, columns, columns, below=2 * columns, transposed=True),
                Place(matrix, columns, columns, above=2 * columns, transposed=True)]
    return [Place(matrix, rows, columns, transposed=transposed)]


def certify(model: nn.Module, text: Text, recipe: Recipe, *, rank: int = 1, matrices: Sequence[str] = MATRICES,
            delta: float = 0.05, tried: int = TRIED) -> llm.Certified:
    """Learn a correction of the model, write it, and say what the message certifies. On the text's device.

    The model is frozen and moves to that device. `recipe.power` must be 0, and its network is put in. Raises
    ValueError for windows that are longer than the model's context.
    """
    build, V = corrected(model, rank=rank, matrices=matrices), len(CausalLM(model).head.weight)
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and text.rows.shape[1] - 1 > context:
        raise ValueError(f"windows of {text.rows.shape[1] - 1} tokens, but the model sees {context}: make the text's "
                         "`length` shorter")
    file = llm.learn(text, V, replace(recipe, network=build), networks=(build,))
    return llm.certificate(file, text, V, networks=(build,), delta=delta, tried=tried)
