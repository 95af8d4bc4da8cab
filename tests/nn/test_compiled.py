"""Compiled blocks must change nothing but the speed.

Run as a program, this file prints the largest relative difference for each shape of a pass.
"""

import json
import sys
from importlib.util import find_spec
from shutil import which

import pytest
import torch
from alone import run_alone

from minilab.nn.graphs import StaticModel
from minilab.nn.transformer import Transformer, TransformerConfig

SHAPES = {"cuda": ((1, 1), (1, 4), (3, 1), (3, 4)),  # rows, tokens: those that are compiled apart
          "cpu": ((1, 1), (1, 4))}  # each takes a quarter of a minute
TOLERANCE = {"cpu": 1e-4, "cuda": 5e-3}  # on a GPU products may round their factors to 19 bits (tf32)


def differences(device: str) -> dict[str, float]:
    """Compiled against plain: the largest difference of a logit, in standard deviations of the logits.

    Each shape is read twice behind the same prefix: the second time through a graph if there is a GPU.
    """
    torch.manual_seed(0)
    plain = Transformer(TransformerConfig(vocab_size=23, dim=64, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=96,
                                          context=128)).eval().requires_grad_(False).to(device)
    compiled, found = StaticModel(plain, compile=True), {}
    with torch.inference_mode():
        for rows, width in SHAPES[device]:
            prefix, new = (torch.randint(23, (rows, n), device=device) for n in (9, width))
            lengths = torch.tensor([9, 4, 1][:rows])
            logits = []
            for model in (plain, compiled, compiled):
                cache = model.new_cache(rows, 60)
                model(prefix, cache=cache)
                cache.rollback(lengths)
                logits.append(model(new, cache=cache))
                assert cache.lengths.tolist() == (lengths + width).tolist()
            expected, *others = logits
            found[f"{rows} x {width}"] = max(float((x - expected).abs().max() / expected.std()) for x in others)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_compiled_blocks_give_the_same_logits_for_one_token_and_for_several(device):
    if device == "cuda" and not (torch.cuda.is_available() and find_spec("triton")):
        pytest.skip("needs a CUDA GPU and Triton")
    if device == "cpu" and not any(map(which, ("g++", "clang++"))):
        pytest.skip("needs a C++ compiler")
    found = run_alone(__file__, device)
    assert len(found) == len(SHAPES[device])
    assert max(found.values()) < TOLERANCE[device], found


if __name__ == "__main__":
    print(json.dumps(differences(sys.argv[1])))
