"""Certificates for language models of growing width, for one that comes trained, and without a file; bits per token."""

import math
import time
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn

from minilab.core.device import pick_device, with_threads
from minilab.core.progress import progress
from minilab.core.records import Record
from minilab.corpus.text import load_corpus, load_tokenizer, token_stream
from minilab.nn.store import load_model
from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.pacbayes.bounds import uniform_nats
from minilab.pacbayes.compress import TRIED, Recipe, begun
from minilab.pacbayes.llm import (
    Scored,
    Text,
    certificate,
    document_bound,
    foreseen_bound,
    learn,
    score,
    token_bound,
    windows,
)
from minilab.pacbayes.lora import corrected
from minilab.pacbayes.prequential import as_a_message, learn_as_it_goes, prequential_bits, text_bits


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


BOUNDS = {"documents": document_bound, "tokens": token_bound, "foreseen": foreseen_bound}


@with_threads
def language(preset: LanguagePreset) -> Record:
    """SubLoRA on models of random weights and several widths, and a trained model as it is: three bounds for each.

    In `rows` are those of the first seed, in `seeds` the tightest bound of each, a list for each width.
    """
    started, device, tokenizer = time.perf_counter(), pick_device(preset.device), load_tokenizer()
    V, text = tokenizer.get_vocab_size(), _text(preset, tokenizer, device)
    rows, seeds = {}, {}
    for width in progress(preset.widths, desc="widths", unit="model"):
        build = corrected(_base(preset, V, width), rank=preset.rank)
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
            name: asdict(bound(scored, 0.0, preset.delta)) for name, bound in BOUNDS.items()}
    return Record.new(experiment="pacbayes/language", preset=preset, started=started, results={
        "guess": math.log2(V), "tokens": int((text.rows[:, 1:] >= 0).sum()), "rows": rows, "seeds": seeds,
        "documents": len(text.document.unique())})


@dataclass(frozen=True)
class PrequentialPreset:
    name: str
    corpus: str = "shipped"
    documents: int | None = None  # the first so many; None takes all
    most: int = 32  # windows of a document, from its beginning
    width: int = 64
    layers: int = 2
    rank: int = 1
    length: int = 64  # tokens of a window
    recipe: Recipe = LANGUAGE["two-cores"].recipe  # of the file; lr and batch also as it goes
    lr: float = 3e-3  # where all weights learn
    batch: int = 2
    points: int = 64  # of the curve of losses
    delta: float = 0.05
    seed: int = 0
    threads: int | None = 1
    device: str = "cpu"


PREQUENTIAL = {
    "cpu": PrequentialPreset("cpu", documents=3, most=2, width=32, recipe=LANGUAGE["cpu"].recipe, points=4),
    "two-cores": PrequentialPreset("two-cores"),
}


@with_threads
def prequential(preset: PrequentialPreset) -> Record:
    """One text, coded with a file and without: bits in all, and what each code bounds.

    A file of few numbers, the same numbers without a file, and all weights without one. What sets up the learner is
    paid for as decoders are, as one of `TRIED`.
    """
    started, device, tokenizer = time.perf_counter(), pick_device(preset.device), load_tokenizer()
    V, text = tokenizer.get_vocab_size(), _text(preset, tokenizer, device)
    build = corrected(_base(preset, V, preset.width), rank=preset.rank)
    recipe = replace(preset.recipe, network=build)
    tokens = int((text.rows[:, 1:] >= 0).sum())
    file = asdict(certificate(learn(text, V, recipe, networks=(build,)), text, V, networks=(build,),
                              delta=preset.delta))
    rows = {"a file": {"numbers": recipe.d, "text_bits": file["loss"] * tokens,
                       "all_bits": file["bits"] + file["loss"] * tokens, **file}}
    some = begun(recipe, (), V, (build,)).to(device)
    rows["as it goes, the same numbers"] = _as_it_goes(some, text, V, recipe.lr, recipe.batch, preset)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        every = Transformer(_base(preset, V, preset.width)).to(device)
    rows["as it goes, all weights"] = _as_it_goes(every, text, V, preset.lr, preset.batch, preset)
    return Record.new(experiment="pacbayes/prequential", preset=preset, started=started, results={
        "guess": math.log2(V), "tokens": tokens, "documents": len(text.document.unique()), "rows": rows})


def _as_it_goes(model: nn.Module, text: Text, V: int, lr: float, batch: int, preset: PrequentialPreset) -> dict:
    """A row: the bits of the text, bounds on learning as it goes, and what is known of the model at the end."""
    nats = uniform_nats(TRIED)
    scored = learn_as_it_goes(model, text, V, lr=lr, batch=batch)
    final, bits = score(model, text, alpha=None), text_bits(scored)
    return {"numbers": sum(p.numel() for p in model.parameters() if p.requires_grad), "bits": 0, "text_bits": bits,
            "all_bits": bits, "loss": scored.bits, "curve": _curve(scored, preset.points),
            "final_loss": final.bits, "learned_bits": prequential_bits((-scored.log_p).tolist(), 1,
                                                                      final.bits * math.log(2)),
            "final_as_a_message": asdict(as_a_message(final, bits, preset.delta)),
            **{name: asdict(bound(scored, nats, preset.delta)) for name, bound in BOUNDS.items()}}


def _curve(scored: Scored, points: int) -> list[float]:
    """Mean bits a token in so many equal parts of the text."""
    return [-float(part.mean()) / math.log(2) for part in scored.log_p.tensor_split(points)]


def _base(preset: LanguagePreset | PrequentialPreset, V: int, width: int) -> TransformerConfig:
    return TransformerConfig(V, width, preset.layers, n_heads=max(2, width // 32), n_kv_heads=max(1, width // 64),
                             hidden_dim=2 * width, context=preset.length, tie_embeddings=False)


def _text(preset: LanguagePreset | PrequentialPreset, tokenizer, device: torch.device) -> Text:
    text = windows(token_stream(load_corpus(preset.corpus), tokenizer), preset.length)
    kept = torch.ones_like(text.document, dtype=torch.bool)
    if preset.documents is not None:
        kept &= text.document < preset.documents
    if isinstance(preset, PrequentialPreset):
        begins = torch.searchsorted(text.document, text.document)  # where a window's document begins
        kept &= torch.arange(len(kept)) - begins < preset.most
    return Text(text.rows[kept].to(device), text.document[kept].to(device))
