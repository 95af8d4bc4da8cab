"""How our models are made: the target and draft that ship, a larger pair that does not, and a draft for SmolLM2.

A draft is distilled from its target *as shipped* (int8 multiplied out), on two kinds of text: the corpus,
and what the target itself writes, since that is where the two will have to agree.
"""

import time
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from minilab.core.device import cache_dir, pick_device, seed_everything
from minilab.core.files import package_data, replacing
from minilab.core.records import Record
from minilab.core.train import TrainConfig, train
from minilab.nn.huggingface import load_hf_folder
from minilab.nn.store import load_model, save_model
from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.speculative import data, smollm
from minilab.speculative.decoding import collect, speculative
from minilab.speculative.pairs import pair_folder
from minilab.speculative.sampling import GREEDY, Sampling
from minilab.speculative.training import (
    bits_per_byte,
    by_blocks,
    continuations,
    distillation_loss,
    next_token_loss,
    overlap,
    windows,
)

WARM = Sampling(temperature=1.0)


@dataclass(frozen=True)
class PairPreset:
    """Sizes and lengths of one pair's training."""

    name: str
    corpus: str  # "full" (built from packages) or "stdlib" (docstrings that every reader has)
    target: TransformerConfig
    draft: TransformerConfig
    target_steps: int
    draft_steps: int  # of next-token training, and again of distillation
    window: int  # tokens in a training window
    batch: int  # windows in a batch
    own_texts: int  # continuations that the target writes for its draft
    sample_batch: int = 2048  # texts that it writes at a time; their keys and values must fit the memory
    lr: float = 2e-3
    out: str | None = None  # the name that `load_pair` will know the pair by; None keeps nothing
    compile: bool = False
    seed: int = 0
    device: str = "auto"


def _decoder(vocab_size: int, dim: int, n_layers: int, n_heads: int, n_kv_heads: int, hidden_dim: int
             ) -> TransformerConfig:
    return TransformerConfig(vocab_size=vocab_size, dim=dim, n_layers=n_layers, n_heads=n_heads,
                             n_kv_heads=n_kv_heads, hidden_dim=hidden_dim, context=1024)


PAIR = {
    "cpu": PairPreset("cpu", corpus="stdlib", target=_decoder(4096, 128, 3, 4, 2, 352),
                      draft=_decoder(4096, 48, 1, 2, 1, 128), target_steps=150, draft_steps=60, window=128, batch=8,
                      own_texts=16),
    "gpu": PairPreset("gpu", corpus="full", target=_decoder(4096, 512, 7, 8, 2, 1248),
                      draft=_decoder(4096, 160, 2, 5, 1, 512), target_steps=2000, draft_steps=1500, window=512,
                      batch=256, own_texts=16_384, out="shipped", compile=True),
    # 319 and 14 million parameters. 512 texts of 288 tokens keep 15 GB of keys and values.
    "large": PairPreset("large", corpus="full", target=_decoder(4096, 1024, 25, 8, 4, 3072),
                        draft=_decoder(4096, 512, 4, 8, 4, 1376), target_steps=1400, draft_steps=900, window=512,
                        batch=64, own_texts=4096, sample_batch=512, lr=8e-4, out="large", compile=True),
}


def pair(preset: PairPreset) -> Record:
    """Train a target on text, and a draft for it; measure how much each step of the draft's making buys."""
    started = time.perf_counter()
    device = pick_device(preset.device)
    seed_everything(preset.seed)
    train_tokens, valid_tokens, bytes_per_token = _corpus_tokens(preset.corpus)

    def fit(model: Transformer, batches, loss_fn, steps: int, lr: float) -> list[float]:
        config = TrainConfig(steps=steps, lr=lr, warmup=steps // 20, weight_decay=0.2, log_every=50)
        forward = by_blocks(model) if preset.compile else model
        return train(model, batches, lambda _, batch: loss_fn(forward, batch), config).losses

    def text(offset: int):
        return windows(train_tokens, preset.window, preset.batch, seed=preset.seed + offset, device=device)

    def quality(model: Transformer) -> float:
        return bits_per_byte(model.eval(), valid_tokens, bytes_per_token, length=preset.window)

    target = Transformer(preset.target).to(device)
    curve = fit(target, text(0), next_token_loss, preset.target_steps, preset.lr)
    results = {"train_tokens": len(train_tokens), "valid_tokens": len(valid_tokens),
               "bytes_per_token": bytes_per_token, "target_parameters": target.num_parameters(),
               "target_loss": _thin(curve), "target_bpb_fp32": quality(target)}
    target = _as_shipped(target, "target", preset, results)
    results["target_bpb"] = quality(target)

    draft = Transformer(preset.draft).to(device)
    results["draft_parameters"] = draft.num_parameters()
    prompts = [valid_tokens[i : i + 48].tolist() for i in range(0, len(valid_tokens) - 48, len(valid_tokens) // 64)]

    def judge(name: str) -> None:
        results[name] = {"bpb": quality(draft), **agreement(target, draft, valid_tokens, prompts[:64],
                                                           window=preset.window)}

    fit(draft, text(1), next_token_loss, preset.draft_steps, preset.lr)
    judge("draft_from_text")
    own = own_text(target, train_tokens, preset)
    own_batches = windows(own, preset.window, preset.batch, seed=preset.seed + 2, device=device)
    mixed = text(3)
    fit(draft, lambda step: (own_batches if step % 2 else mixed)(step), distillation_loss(target),
        preset.draft_steps, preset.lr / 2)
    judge("draft_distilled")
    draft = _as_shipped(draft, "draft", preset, results)
    judge("draft")
    return Record.new(experiment="speculative/pair", preset=preset, results=results, started=started)


def agreement(target: Transformer, draft: Transformer, tokens: Tensor, prompts: list[list[int]], *, window: int,
              K: int = 5) -> dict[str, float]:
    """Acceptance between two models: on a text (overlap), and while decoding (accepted over tested tokens)."""
    found = {"overlap_on_text": overlap(target, draft, tokens[:60_000], WARM, length=window)}
    for name, sampling in (("acceptance_greedy", GREEDY), ("acceptance_sampled", WARM)):
        generator = torch.Generator(target.device).manual_seed(0)
        run = collect(speculative(target, draft, prompts, K=K, max_new_tokens=96, sampling=sampling,
                                  generator=generator), len(prompts))
        found |= {name: run.acceptance_rate, name.replace("acceptance", "tokens_per_round"): run.tokens_per_round}
    return found


def own_text(target: Transformer, tokens: Tensor, preset: PairPreset) -> Tensor:
    """Texts that the target continues from the corpus, half of them greedily, as one stream of tokens."""
    generator = torch.Generator().manual_seed(preset.seed + 7)
    starts = torch.randint(len(tokens) - 32, (preset.own_texts,), generator=generator)
    prompts = [tokens[i : i + 32].tolist() for i in starts]
    half, texts = len(prompts) // 2, []
    for part, sampling in ((prompts[:half], GREEDY), (prompts[half:], WARM)):
        texts += continuations(target, part, new_tokens=preset.window // 2, batch=preset.sample_batch,
                               sampling=sampling, seed=preset.seed)
    order = torch.randperm(len(texts), generator=generator).tolist()
    return torch.tensor([t for i in order for t in texts[i]])


def _corpus_tokens(corpus: str) -> tuple[Tensor, Tensor, float]:
    """Token streams for training and validation, and the bytes that a validation token stands for."""
    tokenizer = data.load_tokenizer()
    parts = [data.load_corpus(f"{corpus}-{part}") for part in ("train", "valid")]
    train_tokens, valid_tokens = (data.token_stream(text, tokenizer) for text in parts)
    return train_tokens, valid_tokens, len(parts[1].encode()) / len(valid_tokens)


def _as_shipped(model: Transformer, name: str, preset: PairPreset, results: dict) -> Transformer:
    """Save the model in int8 and read it back, so that all later numbers are those of the file."""
    if preset.out is None:
        return model.eval()
    card = {
        "what": f"{name} of the {preset.out} pair: a Llama-style decoder for technical English",
        "how_made": f"minilab run speculative/pair --preset {preset.name}",
        "licence": "MIT for the weights; the corpus's card lists the texts it learned from, with their licenses",
        "metrics": {k: v for k, v in results.items() if isinstance(v, float)},
    }
    path = pair_folder(preset.out) / f"{name}.safetensors"
    return load_model(save_model(model, path, card), device=model.device)


def _thin(losses: list[float], points: int = 60) -> dict[str, list]:
    """A loss curve as at most `points` means over equal stretches."""
    size = max(1, -(-len(losses) // points))
    cuts = range(0, len(losses), size)
    return {"step": [min(i + size, len(losses)) for i in cuts],
            "loss": [sum(losses[i : i + size]) / len(losses[i : i + size]) for i in cuts]}


@dataclass(frozen=True)
class SmolDraftPreset:
    """Sizes and lengths for the distillation of SmolLM2's draft."""

    name: str
    draft: TransformerConfig
    chats: int  # conversations that the target makes up
    reply_tokens: int  # longest reply
    sample_batch: int
    steps: int
    window: int
    batch: int
    lr: float = 2e-3
    out: str | None = None
    compile: bool = False
    seed: int = 0
    device: str = "auto"


SMOL_DRAFT = {
    "cpu": SmolDraftPreset("cpu", draft=_decoder(49152, 32, 1, 2, 1, 96), chats=4, reply_tokens=24, sample_batch=4,
                           steps=4, window=32, batch=1),
    "gpu": SmolDraftPreset("gpu", draft=_decoder(49152, 128, 4, 4, 2, 256), chats=32_768, reply_tokens=256,
                           sample_batch=2048, steps=6000, window=512, batch=32, out="speculative", compile=True),
}


def smollm_draft(preset: SmolDraftPreset) -> Record:
    """Distill a shallow draft for SmolLM2-135M-Instruct from conversations that it makes up itself.

    Raises FileNotFoundError if the model was not fetched yet.
    """
    started = time.perf_counter()
    device = pick_device(preset.device)
    seed_everything(preset.seed)
    half = torch.bfloat16 if device.type == "cuda" else torch.float32
    target = load_hf_folder(smollm.folder(), dtype=half, device=device)
    stream, replies = saved_conversations(target, preset)
    held_out = max(len(stream) // 50, preset.window + 1)
    draft = Transformer(preset.draft).to(device)
    start_from_embedding(draft, target)
    batches = windows(stream[held_out:], preset.window, preset.batch, seed=preset.seed, device=device)
    config = TrainConfig(steps=preset.steps, lr=preset.lr, warmup=preset.steps // 20, weight_decay=0.01)
    loss = distillation_loss(target)  # compiled whole: most of its work is on logits of 49,152 tokens
    losses = train(draft, batches, torch.compile(loss) if preset.compile else loss, config).losses
    if preset.out is not None:
        card = {"what": "draft for SmolLM2-135M-Instruct, in its vocabulary",
                "how_made": f"minilab run speculative/smollm_draft --preset {preset.name}",
                "licence": "Apache-2.0, as the model that it was distilled from"}
        path = save_model(draft, package_data("assets") / preset.out / "smollm2-draft.safetensors", card)
        draft = load_model(path, device=device)
    tokenizer = smollm.load_tokenizer()
    prompts = [tokenizer.encode(smollm.chat_prompt(q), add_special_tokens=False).ids for q in data.QUESTIONS]
    results = {"own_tokens": len(stream), "replies": replies, "draft_parameters": draft.num_parameters(),
               "loss": _thin(losses),
               "held_out": agreement(target, draft.to(half), stream[:held_out], prompts, window=preset.window)}
    return Record.new(experiment="speculative/smollm_draft", preset=preset, results=results, started=started)


def saved_conversations(target: Transformer, preset: SmolDraftPreset) -> tuple[Tensor, int]:
    """`conversations`, kept in the cache folder when they take minutes to make: a broken training starts from them."""
    if preset.out is None:
        return conversations(target, preset)
    settings = f"{preset.chats}-{preset.reply_tokens}-{preset.sample_batch}-{preset.seed}"
    path = cache_dir() / f"smollm2-chats-{settings}.safetensors"
    if not path.is_file():
        stream, replies = conversations(target, preset)
        with replacing(path) as temporary:
            save_file({"stream": stream, "replies": torch.tensor(replies)}, temporary)
    saved = load_file(path)
    return saved["stream"], int(saved["replies"])


def conversations(target: Transformer, preset: SmolDraftPreset) -> tuple[Tensor, int]:
    """Chats made up by an instruct model: given the head of a user turn it writes a question, then the reply.

    A third of the replies is greedy, a third at temperature 0.7, a third at 1. Returns one stream of tokens
    and the number of chats.
    """
    tokenizer = smollm.load_tokenizer()
    end = tokenizer.token_to_id("<|im_end|>")
    before, after = smollm.chat_prompt("\0").split("\0")
    head, tail = (tokenizer.encode(part, add_special_tokens=False).ids for part in (before, after))
    asked = continuations(target, [head] * preset.chats, new_tokens=min(64, preset.reply_tokens), seed=preset.seed,
                          batch=preset.sample_batch, sampling=WARM, stop=(end,))
    asked = [chat[:-1] + tail for chat in asked if chat[-1] == end]  # a question that never ends is dropped
    asked = asked or [head + tail]
    chats = []
    for i, temperature in enumerate((0.0, 0.7, 1.0)):
        chats += continuations(target, asked[i::3], new_tokens=preset.reply_tokens, batch=preset.sample_batch,
                               sampling=Sampling(temperature=temperature), stop=(end,), seed=preset.seed + i)
    order = torch.randperm(len(chats), generator=torch.Generator().manual_seed(preset.seed)).tolist()
    return torch.tensor([t for i in order for t in chats[i]]), len(chats)


@torch.no_grad()
def start_from_embedding(draft: Transformer, target: Transformer) -> None:
    """Give the draft the main directions of the target's embedding: nearly all of its parameters, for free."""
    E = target.embed.weight.float()
    U, S, _ = torch.linalg.svd(E.double(), full_matrices=False)
    D = draft.config.dim
    reduced = (U[:, :D] * S[:D]).float()  # V D
    draft.embed.weight.copy_(reduced / reduced.std() * 0.02)
