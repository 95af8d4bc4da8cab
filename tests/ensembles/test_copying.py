"""What a member saves on tokens that it reads again: known for members that are written down."""

import math

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from minilab.ensembles.copying import saved_by_copying
from minilab.ensembles.members import Hyper, RunConfig, train_members
from minilab.ensembles.model import Stack, seeded
from minilab.ensembles.study import sized

V, LENGTH = 32, 16


class Copyists(Stack):
    """Members that learn nothing: each gives so many more logits to the token that stood there half a window ago."""

    def __init__(self, *more: float) -> None:
        super().__init__(sized(8, 1, vocab=V, length=LENGTH), len(more))
        self.more = torch.tensor(more)

    def forward(self, tokens: Int[Tensor, "K B T"]) -> Float[Tensor, "K B T V"]:
        back, stood = LENGTH // 2 - 1, torch.zeros(*tokens.shape, V)  # position t says token t + 1
        stood[:, :, back:] = torch.nn.functional.one_hot(tokens[:, :, : tokens.shape[2] - back], V).float()
        return self.more[:, None, None, None] * stood


def test_who_copies_saves_what_its_sureness_says_and_who_does_not_saves_nothing():
    even, sure = saved_by_copying(Copyists(0.0, 5.0), LENGTH, n=4).tolist()
    assert even == pytest.approx(0, abs=1e-6)
    assert sure == pytest.approx(math.log(V) - math.log((math.e**5 + V - 1) / math.e**5), abs=1e-5)


def test_members_that_learned_nothing_save_nothing_and_those_taught_to_copy_save_most_of_it():
    config = sized(32, 2, vocab=V, length=LENGTH)
    drawn = torch.randint(V, (4000, LENGTH // 2), generator=torch.Generator().manual_seed(1))
    taught = train_members(drawn.repeat(1, 2), config, [Hyper(lr=1e-2, init_seed=k) for k in (0, 1)],
                           RunConfig(epochs=4, batch=16))
    before, after = (saved_by_copying(members, LENGTH) for members in (seeded(config, (0, 1)), taught.model))
    assert before.abs().max() < 0.2 and after.min() > 0.7 * math.log(V)


def test_a_window_that_cannot_be_read_twice_is_refused():
    with pytest.raises(ValueError, match="at least 4"):
        saved_by_copying(Copyists(0.0), 3)
