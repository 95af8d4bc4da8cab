"""Compiled members must become what the plain ones become.

Run as a program, this file prints what it found on a device.
"""

import json
import sys
from importlib.util import find_spec

import pytest
import torch
from alone import run_alone

from minilab.ensembles.distill import Imitation
from minilab.ensembles.members import Hyper, RunConfig, train_members
from minilab.ensembles.model import Stack, seeded
from minilab.ensembles.study import sized

TINY = sized(64, 3, vocab=128, length=32)
HYPERS = [Hyper(1e-2, 0.4, k, k) for k in range(3)]


def differences(device: str, backend: str) -> dict[str, float]:
    """How far gradients and the losses of the first steps are from those of members that are not compiled."""
    from torch._dynamo.utils import counters

    as_asked = torch.compile
    torch.compile = lambda fn, **options: as_asked(fn, **options | {"backend": backend})
    windows = torch.randint(128, (64, 33), generator=torch.Generator().manual_seed(0)).to(device)
    plain, *twice = (train_members(windows, TINY, HYPERS, RunConfig(1, 4, compile=compile, precision="fp32"))
                     for compile in (False, True, True))
    found = {"losses": max(float((plain.losses - again.losses).abs()[:, :10].max()) for again in twice),
             "graphs": counters["stats"]["unique_graphs"]}
    teachers = [seeded(TINY, seeds).to(device) for seeds in ((7, 8), (7, 8, 9))]
    taught, off = windows[:12].unflatten(0, (3, 4)), []
    for loss in (Stack.losses, *(Imitation(teacher, 1.0, tutors=teacher.K == 3).losses for teacher in teachers)):
        grads = []
        for compiled in (False, True):
            stack = seeded(TINY, (0, 1, 2)).to(device)
            if compiled:
                stack.compile_losses(backend=backend)
                for teacher in teachers:
                    teacher.compile_losses(backend=backend)
            loss(stack, taught).sum().backward()
            grads.append(torch.cat([p.grad.flatten() for p in stack.parameters()]))
        off.append(float((grads[0] - grads[1]).abs().max() / grads[0].abs().max()))
    return found | {"gradients": max(off), "breaks": sum(counters["graph_break"].values())}


@pytest.mark.slow
def test_compiled_members_learn_alike_and_all_blocks_and_all_stacks_of_a_shape_share_three_graphs():
    """With the compiler's own machinery up to where code is generated, which takes minutes on a processor."""
    found = run_alone(__file__, "cpu", "aot_eager")
    assert found["graphs"] == 3 and found["breaks"] == 0  # a block, a member's loss, the update
    assert found["gradients"] < 1e-5 and found["losses"] < 1e-4


@pytest.mark.slow
@pytest.mark.skipif(not (torch.cuda.is_available() and find_spec("triton")), reason="needs a CUDA GPU and Triton")
def test_members_compiled_for_a_gpu_learn_alike():
    found = run_alone(__file__, "cuda", "inductor")
    assert found["gradients"] < 1e-3 and found["losses"] < 1e-2  # its products round their factors


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(differences(*sys.argv[1:])))
