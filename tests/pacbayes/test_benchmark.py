"""The benchmark runs from end to end, here against a stand-in of the peer's code, and refuses peers that differ."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest

PROJECTORS = '''
import copy
import torch
from torch import nn
from torch.func import functional_call


class RoundedDoubleKronQR:
    def __init__(self, D, d, params, names, seed):
        generator = torch.Generator().manual_seed(seed)
        self.Q = torch.linalg.qr(torch.randn(D, d, generator=generator)).Q

    def __matmul__(self, v):
        return self.Q @ v


class IDModule(nn.Module):
    def __init__(self, net, projector, d):
        super().__init__()
        self.net = (copy.deepcopy(net).requires_grad_(False),)
        self.v, params = nn.Parameter(torch.zeros(d)), dict(net.named_parameters())
        self.w0, self.sizes = torch.cat([p.flatten() for p in params.values()]).detach(), params
        self.P = projector(len(self.w0), d, None, list(params))

    def forward(self, x):
        parts = (self.w0 + self.P @ self.v).split([p.numel() for p in self.sizes.values()])
        weights = {name: part.view(p.shape) for part, (name, p) in zip(parts, self.sizes.items())}
        return functional_call(self.net[0], weights, (x,))
'''
QUANTIZE = '''
def encode(sequence, probs):
    return list(sequence)


def decode(bits, probs, N):
    return bits[:N]
'''


@pytest.fixture
def script():
    path = Path(__file__).parents[2] / "benchmarks/pacbayes.py"
    spec = importlib.util.spec_from_file_location("benchmark_pacbayes", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks itself up
    spec.loader.exec_module(module)
    module.PRESETS["cpu"] = dataclasses.replace(module.PRESETS["cpu"], shape=(1, 4, 4), d=16, batch=8, steps=2,
                                                symbols=50)
    yield module
    for name in [name for name in sys.modules if name == spec.name or name.split(".")[0] == "pactl"]:
        del sys.modules[name]


def peer(folder: Path, projectors: str = PROJECTORS, quantize: str = QUANTIZE) -> str:
    for name, text in (("nn/projectors.py", projectors), ("bounds/quantize_fns.py", quantize)):
        path = folder / "pactl" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return str(folder)


def test_benchmark_records_every_ratio(script, tmp_path, capsys):
    script.main(["--peer", peer(tmp_path / "peer"), "--repeats", "2", "--records", str(tmp_path)])
    record = json.loads((tmp_path / "pacbayes/benchmark.cpu.json").read_text())
    assert record["results"]["ratios"].keys() == script.RATIOS.keys()
    assert all(0 < r["low"] <= r["median"] <= r["high"] for r in record["results"]["ratios"].values())
    printed = capsys.readouterr().out
    assert all(" / ".join(sides) in printed for sides in script.RATIOS.values())


def test_benchmark_refuses_to_time_what_is_not_the_same(script, tmp_path):
    moved = PROJECTORS.replace("self.w0 + self.P", "1.1 * self.w0 + self.P")
    with pytest.raises(SystemExit, match="networks begin"):
        script.main(["--peer", peer(tmp_path / "moved", moved), "--records", str(tmp_path)])


def test_benchmark_refuses_coders_that_lose_symbols(script, tmp_path):
    short = QUANTIZE.replace("bits[:N]", "bits[: N - 1]")
    with pytest.raises(SystemExit, match="theirs does not decode"):
        script.main(["--peer", peer(tmp_path / "short", quantize=short), "--records", str(tmp_path)])


def test_benchmark_says_what_it_needs(script, tmp_path, capsys):
    script.main([])
    assert "give --peer" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="clone of github.com"):
        script.main(["--peer", str(tmp_path)])
