"""Soups of members that began together, and of members that did not."""

import math

import pytest
import torch

from minilab.ensembles.average import soup
from minilab.ensembles.evaluate import subset_losses
from minilab.ensembles.members import Hyper, RunConfig, train_members, validation_loss
from minilab.ensembles.model import seeded, stack
from minilab.nn.transformer import TransformerConfig

CONFIG = TransformerConfig(24, 16, 2, 2, 2, 24, context=9, tie_embeddings=False)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("MINILAB_PROGRESS", "0")


def text(n: int, step: int, seed: int = 0) -> torch.Tensor:
    """A language in which each token is mostly the one before, and `step` more."""
    generator = torch.Generator().manual_seed(seed)
    steps = step + (torch.rand(n, 10, generator=generator) < 0.1).long()
    return (steps.cumsum(1) + torch.randint(24, (n, 1), generator=generator)).remainder(24)


def test_a_soup_of_copies_is_the_copy():
    one = seeded(CONFIG, [3]).member(0)
    for a, b in zip(soup(stack([one] * 4)).parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_each_weight_is_the_members_mean_and_the_members_stay_as_they_were():
    members = seeded(CONFIG, [0, 1, 2])
    before = [p.clone() for p in members.parameters()]
    result = dict(soup(members).named_parameters())
    for name in result:
        mean = sum(dict(members.member(k).named_parameters())[name] for k in range(3)) / 3
        torch.testing.assert_close(result[name], mean)
    assert all(torch.equal(a, b) for a, b in zip(members.parameters(), before, strict=True))


def test_two_members_that_say_the_same_in_other_words_make_a_soup_that_guesses():
    one = seeded(CONFIG, [3]).member(0)
    with torch.no_grad():
        for p in one.parameters():
            p.mul_(20)  # far from a guess by itself
    other = stack([one]).member(0)
    with torch.no_grad():  # turn the residual stream round: what writes to it, and what reads it
        for name, p in other.named_parameters():
            if "norm" not in name:
                p.neg_()
    tokens = text(20, 1)
    torch.testing.assert_close(one(tokens[:, :-1]), other(tokens[:, :-1]))
    found = validation_loss(stack([one, soup(stack([one, other]))]), tokens)
    assert float(found[0]) > 4 and float(found[1]) == pytest.approx(math.log(24))


def test_members_of_one_start_make_a_soup_as_good_as_their_ensemble():
    hypers, run = [Hyper(1e-2, 0.1, k, k) for k in range(3)], RunConfig(8, 4)
    start = train_members(text(64, 1), CONFIG, hypers[:1], run).model.member(0)
    members = train_members(text(24, 3, seed=2), CONFIG, hypers, run, start=start).model
    held_out = text(64, 3, seed=3)
    loss, alone = float(validation_loss(stack([soup(members)]), held_out)), validation_loss(members, held_out)
    every = torch.ones(1, 3, dtype=torch.bool)
    together = subset_losses(lambda t: members(t.expand(3, -1, -1)), held_out, every).mean()
    assert loss < float(alone.min()) and loss == pytest.approx(float(together), abs=0.05)
