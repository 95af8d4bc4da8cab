"""Our decoding against `transformers` with the same weights, and speculation against its formula.

Ours: `autoregressive`, `speculative`, and `ssd`, where the draft prepares the next round during verification.
Theirs: `generate`, `assisted` (the same draft, as many tokens a round) and `lookup` (as many, copied from the text
before it, without a draft). What ends in `_many` decodes the whole batch at once, all else one prompt after another.

Everything is float32 and greedy. First both libraries must produce the same tokens; then all are timed in
turn (A B A B …), and a ratio is taken within each turn, so that a machine that slows down for a while slows
both sides of it. A ratio above 1 says that its first side is faster.

- On a CPU all keep to one core and one thread, which for this pair was the faster choice for each of them. Only
  `ssd` has a second core, for the process of its draft.
- On a GPU ours run as CUDA graphs, compiled where Triton is installed, all before the clock starts; theirs run as
  `generate` does by default. `ssd` has a K of its own there, so `ssd / speculative` compares settings as well.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import minilab  # noqa: F401  (sets the OpenMP policy, which torch reads when it is loaded)

# isort: split
import torch
from torch import Tensor

from minilab.core.device import pick_device, with_threads
from minilab.core.records import Record
from minilab.core.timing import interleaved, spread
from minilab.nn.huggingface import save_hf_folder
from minilab.nn.transformer import Transformer
from minilab.speculative import data, fanout, theory
from minilab.speculative.decoding import Generation, autoregressive, collect, speculative
from minilab.speculative.engine import Executor, ssd
from minilab.speculative.experiments import pass_costs
from minilab.speculative.experiments_speed import side_by_side
from minilab.speculative.models import ModelFacts
from minilab.speculative.pairs import Pair, fast, load_pair


@dataclass(frozen=True)
class Preset:
    name: str  # "cpu" or "gpu"
    device: str
    K: int = 3  # draft tokens a round, in both libraries
    ssd_K: int = 3  # the same of `ssd`
    branches: int = 8  # outcomes that ssd prepares for
    batch: int = 8
    singles: int = 3  # prompts of the batch that are also decoded one by one
    new_tokens: int = 48
    repeats: int = 11
    threads: int | None = None  # None leaves torch's own number
    pair: str = "shipped"
    seed: int = 0


PRESETS = {"cpu": Preset("cpu", "cpu", threads=1),
           "cuda": Preset("gpu", "cuda", ssd_K=4, branches=20, new_tokens=128, repeats=5)}
RATIOS = {  # of speeds: the first contestant's over the second's
    "autoregressive_batch_1": ("autoregressive", "generate"),
    "autoregressive_batch_8": ("autoregressive_many", "generate_many"),
    "speculative": ("speculative", "assisted"),
    "speculative_over_lookup": ("speculative", "lookup"),
    "speculative_over_generate": ("speculative", "generate"),
    "speculative_over_autoregressive": ("speculative", "autoregressive"),
    "speculative_over_autoregressive_batch_8": ("speculative_many", "autoregressive_many"),
    "ssd_over_assisted": ("ssd", "assisted"),
    "ssd_over_speculative": ("ssd", "speculative"),
    "ssd_over_autoregressive": ("ssd", "autoregressive"),
}


def benchmark(preset: Preset, pair: Pair, device: torch.device) -> Record:
    """Check that all decode the same tokens, time them in turn, and record the ratios."""
    started = time.perf_counter()
    theirs = [peer(model, device) for model in (pair.target, pair.draft)]
    pair = fast(pair)
    with side_by_side(pair.draft) as (draft, executor):
        results = measure(preset, pair, draft, executor, *theirs)
    # Only now: while the draft has a core to itself, this process sees one core less than there are.
    record = Record.new(experiment="speculative/benchmark", preset=preset, results=results, started=started)
    record.provenance["command"] = f"python benchmarks/speculative.py --device {preset.device}"
    return record


def measure(preset: Preset, pair: Pair, ssd_draft: ModelFacts, executor: Executor, target, draft) -> dict:
    """The record's results; `target` and `draft` are the pair as `transformers` models."""
    device = pair.target.device
    prompts = [pair.encode(text) for text in data.prompts(preset.batch)]
    prompts = [p[-min(map(len, prompts)) :] for p in prompts]  # equal lengths: generate() needs no padding
    singles = prompts[: preset.singles]

    def decode(method, rows: list[list[int]], **options) -> Generation:
        rounds = method(pair.target, prompts=rows, max_new_tokens=preset.new_tokens, **options)
        return collect(rounds, len(rows))

    def one_by_one(method, **options) -> Generation:
        runs = [decode(method, [p], **options) for p in singles]
        return Generation([r.tokens[0] for r in runs], [step for r in runs for step in r.rounds])

    draft.generation_config.update(num_assistant_tokens=preset.K, num_assistant_tokens_schedule="constant",
                                   assistant_confidence_threshold=0.0)
    ids = torch.tensor(prompts, device=device)

    def generate(rows: Tensor, **options) -> list[list[int]]:
        found = target.generate(rows, attention_mask=torch.ones_like(rows), do_sample=False, pad_token_id=0,
                                max_new_tokens=preset.new_tokens, **options)
        return found[:, rows.shape[1] :].tolist()

    def generate_singles(**options) -> list[list[int]]:
        return [generate(row[None], **options)[0] for row in ids[: preset.singles]]

    chain = dict(draft=pair.draft, K=preset.K)
    ahead = dict(draft=ssd_draft, K=preset.ssd_K, fan_out=partial(fanout.uniform, preset.branches),
                 executor=executor, inspect=False)
    contestants = {
        "autoregressive": lambda: one_by_one(autoregressive).tokens,
        "generate": generate_singles,
        "speculative": lambda: one_by_one(speculative, **chain).tokens,
        "assisted": lambda: generate_singles(assistant_model=draft),
        "lookup": lambda: generate_singles(prompt_lookup_num_tokens=preset.K),
        "ssd": lambda: one_by_one(ssd, **ahead).tokens,
        "autoregressive_many": lambda: decode(autoregressive, prompts).tokens,
        "generate_many": lambda: generate(ids),
        "speculative_many": lambda: decode(speculative, prompts, **chain).tokens,
    }
    require_same(contestants)
    seconds = interleaved(contestants, repeats=preset.repeats, device=device)
    ratios = {name: spread([b / a for a, b in zip(seconds[ours], seconds[other], strict=True)])
              for name, (ours, other) in RATIOS.items()}
    rows = {n: preset.batch if n.endswith("_many") else preset.singles for n in contestants}
    rate = {n: spread([rows[n] * preset.new_tokens / s for s in seconds[n]]) for n in contestants}
    alpha, cost = one_by_one(speculative, **chain).acceptance_rate, pass_costs(pair, (preset.K,), device)
    predicted = theory.speedup(alpha, preset.K, *(cost[part][str(preset.K)] for part in ("draft", "verify")))
    return dict(ratios=ratios, tokens_per_s=rate, acceptance_rate=alpha, cost=cost, predicted=predicted)


def peer(model: Transformer, device: torch.device):
    """The same weights as a `transformers` model that never stops early."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # generate() warns about how its own assisted decoding calls it
    with tempfile.TemporaryDirectory() as folder:
        theirs = AutoModelForCausalLM.from_pretrained(save_hf_folder(model, folder), dtype=torch.float32)
    theirs.generation_config.eos_token_id = None
    return theirs.to(device).eval()


def require_same(contestants: dict[str, Callable[[], list[list[int]]]]) -> None:
    """Run each once. SystemExit unless all of one batch size produce the same tokens."""
    found = {name: decode() for name, decode in contestants.items()}
    for name, rows in found.items():
        reference = found["autoregressive_many" if name.endswith("_many") else "autoregressive"]
        for i, (row, expected) in enumerate(zip(rows, reference, strict=True)):
            if row != expected:
                raise SystemExit(f"{name} decodes prompt {i} as {row}, not as {expected}: nothing was timed")


def table(record: Record) -> str:
    """The median ratios of speeds with their interquartile ranges, and the prediction for one of them."""
    lines = [f"{' / '.join(RATIOS[name]):42}  {r['median']:6.2f}  {r['low']:.2f} to {r['high']:.2f}"
             for name, r in record.results["ratios"].items()]
    return "\n".join([*lines, f"{'speculative / autoregressive, by formula':42}  {record.results['predicted']:6.2f}"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=PRESETS, default="cpu")
    parser.add_argument("--repeats", type=int, help="turns; default: the preset's")
    parser.add_argument("--new-tokens", type=int, help="tokens a prompt; default: the preset's")
    parser.add_argument("--records", type=Path, help="folder for the record; default: records/")
    given = parser.parse_args(arguments)
    changes = {k: v for k in ("repeats", "new_tokens") if (v := getattr(given, k)) is not None}
    preset = dataclasses.replace(PRESETS[given.device], **changes)
    device = pick_device(preset.device)
    pair = load_pair(preset.pair, device=device)
    record = with_threads(lambda preset: benchmark(preset, pair, device))(preset)
    print(table(record), record.save(given.records), sep="\n")


if __name__ == "__main__":
    main()
