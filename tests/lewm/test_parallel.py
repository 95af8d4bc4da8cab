"""Training in two processes, each with half of every batch, beside one process with the whole."""

import dataclasses

import pytest
import torch
import torch.multiprocessing as mp
from lewm.test_learn import HELD_OUT, TINY, draw, fresh, settings
from lewm.two_processes import SHARE, STEPS, shared_training

from minilab.lewm.learn import Loss, learn
from minilab.lewm.sigreg import sigreg


def in_one(norm, loss=None):
    """A model and its losses, learned in this process from whole batches."""
    model = fresh(dataclasses.replace(TINY, head_norm=norm))
    config = settings(STEPS, batch=2 * SHARE)
    return model, learn(model, draw, config, loss=loss and (lambda *given: loss(*given, config))).log.losses


def in_two(norm, folder):
    """The same of two processes: of each its model, and its losses."""
    mp.spawn(shared_training, args=(str(folder), norm), nprocs=2)
    found = []
    for rank in range(2):
        state, losses = torch.load(folder / f"rank{rank}.pt")
        model = fresh(dataclasses.replace(TINY, head_norm=norm))
        model.load_state_dict(state)
        found.append((model, losses))
    return found


def norms_of_halves(model, clip, generator, config):
    """LeWM's loss, written once more, with a BatchNorm that sees each half of a batch alone."""
    halves = [model(*half) for half in zip(*(part.chunk(2) for part in clip), strict=True)]
    z, predicted = (torch.cat(parts) for parts in zip(*halves, strict=True))
    prediction = (predicted - z[:, 1:]).square().mean()
    spread = sigreg(z.transpose(0, 1), generator, directions=config.directions)
    return Loss(prediction + config.lam * spread, prediction, spread)


def answers(model):
    """In training, where the bias before a BatchNorm, whose gradient is rounding, has no effect."""
    with torch.no_grad():
        return torch.cat([part.flatten() for part in model.train()(*HELD_OUT)])


@pytest.mark.parametrize("norm, reference", [
    ("layer", None), pytest.param("batch", norms_of_halves, marks=pytest.mark.slow)])
def test_two_processes_learn_what_one_does_but_for_batchnorms_own_statistics(norm, reference, tmp_path):
    ours, losses = in_one(norm, reference)
    found = in_two(norm, tmp_path)
    start = answers(fresh(dataclasses.replace(TINY, head_norm=norm)))
    moved = (answers(ours) - start).abs().max()
    for model, _ in found:
        assert (answers(model) - answers(ours)).abs().max() < 1e-3 * moved
    assert torch.tensor([each for _, each in found]).mean(dim=0).tolist() == pytest.approx(losses, rel=1e-4)
    if norm == "batch":
        whole, losses_of_whole = in_one(norm)
        assert (answers(whole) - answers(ours)).abs().max() > 1e-2 * moved
        assert losses_of_whole != pytest.approx(losses, rel=1e-3)
