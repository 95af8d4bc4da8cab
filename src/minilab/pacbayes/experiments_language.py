"""Certificates for language models of growing width, and for one that comes trained, in bits per token."""

import math
import time
from dataclasses import asdict, dataclass, replace

import torch

from minilab.core.device import pick_device, with_threads
from minilab.core.progress import progress
from minilab.core.records import Record
from minilab.corpus.text import load_corpus, load_tokenizer, token_stream
from minilab.nn.store import load_model
from minilab.nn.transformer import TransformerConfig
from minilab.pacbayes.compress import Recipe
from minilab.pacbayes.llm import Text, certificate, document_bound, foreseen_bound, learn, score, token_bound, windows
from minilab.pacbayes.lora import corrected


@dataclass(frozen=True)
class LanguagePreset:
    name: str
    corpus: str = "shipped"  # which the tokenizer has not seen
    documents: int | None = None  # the first so many; None takes all
    widths: tuple[int, ...] = (32, 64, 128, 256)
    layers: int = 2
    rank: int = 1
    length: int = 64  # tokens of a window
    recipe: Recipe = Recipe(d=2025, L=3, power=0.0, steps=600, rounded_steps=300, lr=0.1, rounded_lr=0.04, batch=8)
    trained: str | None = "speculative/draft.safetensors"  # a model that has not seen the corpus either
    delta: float = 0.05
    seeds: tuple[int, ...] = (1,)  # of the random weights and of what is trained of them
    seed: int = 0
    threads: int | None = 1
    device: str = "auto"


LANGUAGE = {
    "cpu": LanguagePreset("cpu", documents=2, widths=(32,), trained=None, device="cpu",
                          recipe=Recipe(d=100, L=3, power=0.0, steps=3, rounded_steps=3, lr=0.1, batch=4)),
    "two-cores": LanguagePreset("two-cores", device="cpu"),
    "gpu": LanguagePreset("gpu", widths=(32, 64, 128, 256, 512), layers=4, seeds=(1, 2, 3), recipe=Recipe(
        d=4096, L=3, power=0.0, steps=6000, rounded_steps=3000, lr=0.1, rounded_lr=0.04, batch=64), device="cuda"),
}


@with_threads
def language(preset: LanguagePreset) -> Record:
    """SubLoRA on models of random weights and several widths, and a trained model as it is: three bounds for each.

    In `rows` are those of the first seed, in `seeds` the tightest bound of each, a list for each width.
    """
    started, device, tokenizer = time.perf_counter(), pick_device(preset.device), load_tokenizer()
    V, text = tokenizer.get_vocab_size(), _text(preset, tokenizer, device)
    rows, seeds = {}, {}
    for width in progress(preset.widths, desc="widths", unit="model"):
        base = TransformerConfig(V, width, preset.layers, n_heads=max(2, width // 32), n_kv_heads=max(1, width // 64),
                                 hidden_dim=2 * width, context=preset.length, tie_embeddings=False)
        build = corrected(base, rank=preset.rank)
        found = []
        for seed in preset.seeds:
            recipe = replace(preset.recipe, network=build, seed=seed)
            message = learn(text, V, recipe, networks=(build,))
            found.append(certificate(message, text, V, networks=(build,), delta=preset.delta))
        rows[f"width {width}"] = asdict(found[0])
        seeds[f"width {width}"] = [one.foreseen.value for one in found]
    if preset.trained:
        scored = score(load_model(preset.trained, device=device), text)
        rows["trained elsewhere, as it is"] = {"bits": 0, "loss": scored.bits} | {
            name: asdict(bound(scored, 0.0, preset.delta)) for name, bound in (
                ("documents", document_bound), ("tokens", token_bound), ("foreseen", foreseen_bound))}
    return Record.new(experiment="pacbayes/language", preset=preset, started=started, results={
        "guess": math.log2(V), "tokens": int((text.rows[:, 1:] >= 0).sum()), "rows": rows, "seeds": seeds,
        "documents": len(text.document.unique())})


def _text(preset: LanguagePreset, tokenizer, device: torch.device) -> Text:
    text = windows(token_stream(load_corpus(preset.corpus), tokenizer), preset.length)
    if preset.documents is not None:
        kept = text.document < preset.documents
        text = Text(text.rows[kept], text.document[kept])
    return Text(*(part.to(device) for part in text))
