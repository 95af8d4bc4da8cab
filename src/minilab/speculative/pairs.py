"""A target, its draft and their tokenizer, ready to decode text.

`load_pair()` gives the best pair at hand: SmolLM2-135M-Instruct if it was fetched, else the pair that ships
with minilab. `load_pair("shipped")` and `load_pair("smollm2")` insist on one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from minilab.core.files import package_data
from minilab.nn.huggingface import load_hf_folder
from minilab.nn.store import load_model
from minilab.speculative import data, smollm
from minilab.speculative.decoding import Generation, Round, autoregressive, collect, speculative
from minilab.speculative.models import HuggingFaceModel, LanguageModel
from minilab.speculative.sampling import GREEDY, Sampling

SMOLLM2_DRAFT = "speculative/smollm2-draft.safetensors"


@dataclass(frozen=True)
class Pair:
    """Two models of one vocabulary."""

    name: str
    target: LanguageModel
    draft: LanguageModel
    tokenizer: Tokenizer
    stop: tuple[int, ...]  # tokens that end a text
    chat: bool = False  # whether a prompt is a question to wrap as a chat turn

    def encode(self, text: str) -> list[int]:
        """The tokens of a prompt; a chat model's prompt becomes a user turn and the head of the reply."""
        text = smollm.chat_prompt(text) if self.chat and text else text
        return self.tokenizer.encode(text, add_special_tokens=False).ids

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


def load_pair(name: str | None = None, *, dtype: torch.dtype = torch.float32, device="cpu") -> Pair:
    """The pair called `name`, or the best that is there.

    Raises ValueError for an unknown name and FileNotFoundError if SmolLM2 was not fetched.
    """
    if name is None:
        name = "smollm2" if smollm.available() and (package_data("assets") / SMOLLM2_DRAFT).is_file() else "shipped"
    if name == "shipped":
        target, draft = (load_model(f"speculative/{n}.safetensors", dtype=dtype, device=device)
                         for n in ("target", "draft"))
        return Pair(name, _frozen(target), _frozen(draft), data.load_tokenizer(), stop=(target.start_token,))
    if name == "smollm2":
        target = load_hf_folder(smollm.folder(), dtype=dtype, device=device)
        draft = load_model(SMOLLM2_DRAFT, dtype=dtype, device=device)
        tokenizer = smollm.load_tokenizer()
        stop = tuple(tokenizer.token_to_id(t) for t in ("<|im_end|>", "<|endoftext|>"))
        return Pair(name, _frozen(target), _frozen(draft), tokenizer, stop=stop, chat=True)
    raise ValueError(f"unknown pair {name!r}; choose 'shipped' or 'smollm2', or give two Hugging Face names to "
                     "load_hugging_face_pair")


def load_pair_for(name: str, device: torch.device) -> Pair:
    """The pair called `name` in the number type that an experiment on `device` uses: bf16 where a GPU has it."""
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return load_pair(name, dtype=torch.bfloat16 if half else torch.float32, device=device)


def prompts_for(pair: Pair, n: int) -> list[str]:
    """n prompts that suit the pair: questions for a chat model, else beginnings of held-out paragraphs."""
    return [data.QUESTIONS[i % len(data.QUESTIONS)] for i in range(n)] if pair.chat else data.prompts(n)


def _frozen(model: nn.Module) -> nn.Module:
    """The model without gradients: a graph through a cache that is written in place would never be freed."""
    return model.requires_grad_(False)


def load_hugging_face_pair(target: str, draft: str, *, dtype: torch.dtype = torch.float32, device="cpu") -> Pair:
    """Two causal LMs by hub name or folder, such as "Qwen/Qwen3-8B" and "Qwen/Qwen3-0.6B".

    Raises ValueError if their tokenizers differ, OSError (with a way out) if one is neither here nor reachable.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        raise ImportError("Hugging Face models need transformers: pip install 'minilab[labs]'") from None
    try:
        tokenizers = [AutoTokenizer.from_pretrained(name) for name in (target, draft)]
        vocab = [tokenizer.get_vocab() for tokenizer in tokenizers]
        if vocab[0] != vocab[1]:
            raise ValueError(f"{draft} has another vocabulary than {target}: its tokens mean something else. "
                             "Choose a draft of the same family")
        models = [HuggingFaceModel(_frozen(AutoModelForCausalLM.from_pretrained(name, dtype=dtype).to(device)),
                                   vocab_size=len(tokenizers[0])) for name in (target, draft)]
    except OSError as error:
        raise OSError(f"{error}\n\n{target} and {draft} must be folders here or be downloaded from the hub, which "
                      "needs a network. Without one, use load_pair('shipped'), the pair that comes with "
                      "minilab") from None
    end = tokenizers[0].eos_token_id
    return Pair(f"{Path(target).name}+{Path(draft).name}", *models, tokenizers[0].backend_tokenizer,
                stop=() if end is None else (end,))
