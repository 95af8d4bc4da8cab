"""The planner in 16 bits and as one graph decides what the plain one does."""

import jaxtyping
import pytest
import torch
from dmpc.linear_system import linear_episodes

from minilab.core.device import pick_device
from minilab.dmpc.agent import Planner, dmpc, swift
from minilab.dmpc.data import Scales, Windows
from minilab.dmpc.learn import Models, Recipe, blank
from minilab.dmpc.models import ModelConfig
from minilab.dmpc.networks import NetworkConfig
from minilab.dmpc.rewards import planned

F = 4
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")))
NETWORKS = {"mlp": NetworkConfig("mlp", width=64, layers=1),
            "transformer": NetworkConfig("transformer", width=32, layers=2, heads=2, hidden=64)}


def models(kind: str) -> Models:
    """Models that have learned nothing, with all their weights at work."""
    torch.manual_seed(0)
    network = NETWORKS[kind]
    recipe = Recipe(F, ModelConfig(F, network, levels=20, steps=5),
                    ModelConfig(F, network, levels=20, steps=3, eta=0.0, clip=6.0))
    parts = blank(recipe, 3, 2, Scales.of(Windows(linear_episodes(8), F)))
    for part in parts:
        for p in part.parameters():
            if not p.any():  # gates begin at zero
                torch.nn.init.normal_(p, std=0.1)
        part.eval().requires_grad_(False)
    return Models("linear", recipe, *parts)


def objective(model: Models):
    return planned(lambda s, a, after: -after.square().sum(dim=-1), discount=0.9, value=model.value)


@pytest.fixture
def unchecked():
    """Without the checks of shapes, which `torch.compile` cannot trace."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("device", DEVICES)
def test_in_16_bits_it_draws_the_same_plans_up_to_rounding(kind, device):
    plain = models(kind).to(device)
    before = [p.clone() for p in plain.proposal.parameters()]
    state = torch.randn(3, 3, device=device)
    exact, rounded = (dmpc(m, objective(plain), n=32, seed=1).plan(state) for m in (plain, swift(plain)))
    for name in ("actions", "states", "scores"):
        ours, theirs = getattr(rounded, name), getattr(exact, name)
        assert 1e-5 < (ours - theirs).norm() / theirs.norm() < 0.05  # other digits, the same plans
    assert all(torch.equal(a, b) for a, b in zip(before, plain.proposal.parameters(), strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_one_graph_draws_what_single_calls_draw(device):
    m, state = models("mlp").to(device), torch.randn(2, 3)
    generator = torch.Generator(device).manual_seed(7)
    single = Planner(lambda s, n: m.proposal.propose(s, n, generator), lambda s, a: m.dynamics.predict(s, a, generator),
                     objective(m), n=8, device=device)
    graph = dmpc(m, objective(m), n=8, seed=7)
    for turn in range(3):
        with torch.inference_mode(turn == 1):  # as in a rollout, and outside
            torch.testing.assert_close(graph.plan(state + turn).chosen, single.plan(state + turn).chosen)


def test_an_objective_that_is_nan_is_refused_on_each_device():
    device = pick_device("auto")
    m = models("mlp").to(device)
    planner = dmpc(m, lambda states, actions: states.sum(dim=(-1, -2)) * float("nan"), n=4)
    with pytest.raises(ValueError, match="NaN for 4 of 4"):
        planner.plan(torch.zeros(1, 3))
