"""The benchmark scripts run from end to end, here on what takes seconds."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minilab.core.device import hardware
from minilab.ensembles.study import QUICK
from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.speculative import data
from minilab.speculative.pairs import Pair


def loaded(name: str):
    path = Path(__file__).parents[1] / f"benchmarks/{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def script():
    return loaded("speculative")


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


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_members_learn_as_named_peers_do_and_are_timed_beside_them(monkeypatch, tmp_path, capsys):
    script = loaded("ensembles")
    small = replace(script.PRESETS["cpu"], study=QUICK.on(8192), size=0, K=3, steps=96)
    losses = {name: train() for name, train in script.trainings(small, torch.device("cpu")).items()}
    assert losses["members"].shape == (3, 96)
    assert losses["members"][:, -8:].mean() < losses["members"][:, :8].mean() - 0.1  # they learn
    script.require_same(losses, small)
    with pytest.raises(SystemExit, match="torch.func are up to 0.001 nats off"):
        script.require_same(losses | {"torch.func": losses["members"] + 1e-3}, small)
    half = replace(small, study=replace(small.study, precision="bf16"))
    script.require_same({name: train() for name, train in script.trainings(half, torch.device("cpu")).items()}, half)
    with monkeypatch.context() as patch:  # a peer whose embedding decays, too
        patch.setattr(script, "decays", lambda name: "norm" not in name)
        other = script.trainings(small, torch.device("cpu"))["transformers"]()
        with pytest.raises(SystemExit, match="by transformers are up to"):
            script.require_same(losses | {"transformers": other}, small)
    monkeypatch.setitem(script.PRESETS, "cpu", replace(small, steps=4))
    script.main(["--repeats", "1", "--records", str(tmp_path)])
    results = json.loads((tmp_path / "ensembles/benchmark.cpu.json").read_text())["results"]
    assert results["ratios"].keys() == script.RATIOS.keys() and all(r["low"] > 0 for r in results["ratios"].values())
    assert "members / transformers" in capsys.readouterr().out
