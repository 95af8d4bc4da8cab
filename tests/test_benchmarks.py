"""The benchmark scripts run from end to end, here on a random pair that takes seconds."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from minilab.core.device import hardware
from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.speculative import data
from minilab.speculative.pairs import Pair


@pytest.fixture
def script():
    path = Path(__file__).parents[1] / "benchmarks/speculative.py"
    spec = importlib.util.spec_from_file_location("benchmark_speculative", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pair() -> Pair:
    """A random target and a draft that agrees with it now and then."""
    tokenizer = data.load_tokenizer()
    torch.manual_seed(0)
    config = TransformerConfig(vocab_size=tokenizer.get_vocab_size(), dim=32, n_layers=1, n_heads=2,
                               n_kv_heads=1, hidden_dim=32, context=512)
    models = [Transformer(config).eval() for _ in range(2)]
    with torch.no_grad():
        for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
            ours.mul_(10 if ours.dim() == 2 else 1)
            theirs.copy_(ours + 0.1 * ours.std(correction=0) * torch.randn_like(ours))
    return Pair("tiny", *models, tokenizer, stop=())


def test_benchmark_records_every_ratio_and_its_hardware(script, pair, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "load_pair", lambda name, **options: pair)
    script.main(["--repeats", "2", "--new-tokens", "8", "--records", str(tmp_path)])
    record = json.loads((tmp_path / "speculative/benchmark.cpu.json").read_text())
    assert record["results"]["ratios"].keys() == script.RATIOS.keys()
    for ratio in record["results"]["ratios"].values():
        assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
    assert 0 < record["results"]["acceptance_rate"] <= 1 and record["results"]["predicted"] > 0
    assert {"torch", "transformers"} <= record["provenance"]["versions"].keys()
    found = record["provenance"]["hardware"]
    assert found["torch_threads"] == torch.get_num_threads()
    assert found["cores"] == hardware()["cores"]  # all of them, also the one that the draft's process had
    printed = capsys.readouterr().out
    assert all(f"{ours} / {other} " in printed for ours, other in script.RATIOS.values())


def test_benchmark_refuses_to_time_decodings_that_differ(script):
    same = {"autoregressive": lambda: [[1, 2]], "generate": lambda: [[1, 2]]}
    script.require_same(same)
    with pytest.raises(SystemExit, match="assisted decodes prompt 0"):
        script.require_same({**same, "assisted": lambda: [[1, 3]]})
