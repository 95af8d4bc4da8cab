"""The margin bound against numpy's norms, a numerical integral, and what must not change it."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from minilab.pacbayes import margins
from minilab.pacbayes.bounds import ranked_nats
from minilab.pacbayes.margins import GRID, Layer, certificate, complexity, layers, margin_bound, rademacher
from minilab.pacbayes.networks import cnn, mlp


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def networks(seed: int = 0) -> tuple[nn.Sequential, nn.Sequential]:
    """One as it began, and one whose weights have moved."""
    torch.manual_seed(seed)
    begun = mlp((1, 4, 4), 3, width=8)
    moved = copy.deepcopy(begun)
    with torch.no_grad():
        for p in moved.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator(p.numel()))
    return moved, begun


def examples(n: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 1, 4, 4, generator=generator(1)), torch.randint(3, (n,), generator=generator(2))


def test_margins_are_the_true_output_less_the_largest_other():
    logits, y = torch.tensor([[2.0, 5, 1], [2, 5, 1], [4, 4, 0]]), torch.tensor([1, 2, 0])
    assert margins.margins(logits, y).tolist() == [3, -4, 0]


def test_norms_are_those_of_the_layers_with_their_biases_as_columns():
    """The augmented layers say what the network says, and numpy finds their norms."""
    network, begun = networks()
    found = layers(network[2:], begun[2:])
    W1, b1, W2, b2 = (p.detach().double().numpy() for p in network.parameters())
    V1, c1, V2, c2 = (p.detach().double().numpy() for p in begun.parameters())
    A1 = np.block([[W1, b1[:, None]], [np.zeros((1, 16)), np.ones((1, 1))]])
    A2 = np.concatenate((W2, b2[:, None]), axis=1)
    x, _ = examples(5)
    seen = np.concatenate((network[:2](x).double().numpy(), np.ones((5, 1))), axis=1)
    said = (A2 @ np.maximum(A1 @ seen.T, 0)).T
    np.testing.assert_allclose(said, network(x).detach().double().numpy(), atol=1e-5)
    changed = [np.concatenate((W - V, (b - c)[:, None]), axis=1) for W, b, V, c in ((W1, b1, V1, c1), (W2, b2, V2, c2))]
    for layer, A, change in zip(found, (A1, A2), changed, strict=True):
        assert layer.spectral == pytest.approx(np.linalg.svd(A, compute_uv=False)[0])
        assert layer.moved == pytest.approx(sum(math.sqrt(sum(x * x for x in row)) for row in change))
    assert [layer.width for layer in found] == [17, 9]  # 16 inputs and a 1 to 8 and a 1; 9 to 3


def test_the_whole_bound_is_its_formula_at_the_best_margin():
    """Written out once more, in the paper's order, with the integral of the covering numbers taken numerically."""
    network, begun = networks()
    x, y = examples()
    n, delta, nats = len(y), 0.05, 2.0
    found = certificate(network, begun, x, y, delta=delta, nats=nats, chunk=77)
    with torch.no_grad():
        logits = network(x).double().numpy()
        seen = network[:2](x).double().numpy()
    margin = np.array([row[t] - max(row[j] for j in range(3) if j != t) for row, t in zip(logits, y, strict=True)])
    inputs = math.sqrt((seen**2).sum() + n)
    stretch = layers(network[2:], begun[2:])
    places = [[math.ceil(math.log(v) / math.log(GRID)) for v in (layer.spectral, layer.moved)] for layer in stretch]
    (s1, b1), (s2, b2) = [[GRID**k for k in pair] for pair in places]
    covers = inputs**2 * math.log(2 * 17**2) * (s1 * s2) ** 2 * ((b1 / s1) ** (2 / 3) + (b2 / s2) ** (2 / 3)) ** 3

    def price(k):
        rank = sorted(range(-300, 301), key=lambda j: (abs(j), -j)).index(k) + 1
        return math.log(rank) + math.log(rank + 1)

    least = math.inf
    for k in range(math.floor(math.log(margin.max(), GRID)), -80, -1):
        gamma = GRID**k
        edges = np.geomspace(1 / n, math.sqrt(n), 4001)
        middle = np.sqrt(edges[1:] * edges[:-1])
        integral = (np.sqrt(covers) * 2 / gamma / middle * np.diff(edges)).sum()
        average = 4 * (1 / n) / math.sqrt(n) + 12 / n * integral
        paid = nats + sum(price(j) for pair in places for j in pair) + price(k)
        value = (margin <= gamma).mean() + 2 * average + 3 * math.sqrt((math.log(2 / delta) + paid) / (2 * n))
        least = min(least, value)
    assert found.value == pytest.approx(least, rel=1e-4)
    assert found.value > 1  # far beyond guessing, and said so


def test_the_union_over_the_grid_costs_little_and_its_prior_sums_to_one():
    stretch = [Layer(2.0, 3.0, 40), Layer(1.5, 0.7, 40)]
    free = complexity(stretch, inputs=10.0, gamma=0.5)
    found = margin_bound(torch.linspace(0.1, 3, 1000), stretch, inputs=10.0, delta=0.05)
    paid = complexity(stretch, inputs=10.0, gamma=found.gamma)
    assert paid <= found.complexity <= paid * GRID**4  # the four norms, each rounded up by a step at most
    assert free == pytest.approx(paid * found.gamma / 0.5)
    total = sum(math.exp(-ranked_nats(rank)) for rank in range(1, 100_000))
    assert 0.9999 < total <= 1


def test_doubling_a_layer_and_halving_the_next_or_outputs_and_margin_changes_nothing():
    network, begun = networks()
    for net in (network, begun):  # without biases, for which no such thing holds
        for layer in (net[2], net[4]):
            layer.bias = None
        net.requires_grad_(False)
    one = [Layer(float(torch.linalg.matrix_norm(a.weight, 2)), float((a.weight - b.weight).norm(dim=1).sum()), 16)
           for a, b in ((network[2], begun[2]), (network[4], begun[4]))]
    two = [Layer(2 * one[0].spectral, 2 * one[0].moved, 16), Layer(one[1].spectral / 2, one[1].moved / 2, 16)]
    first, second = (complexity(stretch, inputs=7.0, gamma=0.3) for stretch in (one, two))
    assert first == pytest.approx(second)
    louder = [one[0], Layer(5 * one[1].spectral, 5 * one[1].moved, 16)]
    assert complexity(louder, inputs=7.0, gamma=1.5) == pytest.approx(first)


def test_the_average_is_no_smaller_than_that_of_one_linear_unit():
    """Units a of length 1 at most, a margin of 1: the exact average over signs is that of |sum of signed x| / n, and
    the class of losses, twice as steep, cannot have a smaller bound than what it contains."""
    n, inputs = 200, torch.randn(200, 10, generator=generator())
    signs = 2.0 * torch.randint(2, (2000, n), generator=generator(1)) - 1
    exact = float((signs @ inputs).norm(dim=1).mean()) / n
    r = complexity([Layer(1.0, 1.0, 10)], inputs=float(inputs.norm()), gamma=1.0)
    assert rademacher(r, n) > 2 * exact


def test_the_average_has_the_constants_that_others_give_for_the_papers_lemma_a8():
    """As Graf et al. (2022) compute it: 4/n + 9 ln n / √n √ln(2 entries) (Σ C_i^(2/3))^(3/2), with
    C_i = (4 / gamma) (|X| / √n) s_1 ... s_L b_i / s_i. The first term is not ours, and far too small to matter."""
    n, inputs, gamma, side = 3000, 80.0, 0.7, 30
    spectral, moved = [1.5, 0.8, 2.0], [3.0, 4.0, 0.5]
    scale = 4 / gamma * inputs / math.sqrt(n) * math.prod(spectral)
    parts = [scale * b / s for s, b in zip(spectral, moved, strict=True)]
    theirs = 9 * math.log(n) / math.sqrt(n) * math.sqrt(math.log(2 * side**2)) * sum(c ** (2 / 3) for c in parts) ** 1.5
    r = complexity([Layer(s, b, side) for s, b in zip(spectral, moved, strict=True)], inputs=inputs, gamma=gamma)
    assert rademacher(r, n) - 4 / n**1.5 == pytest.approx(theirs)
    assert rademacher(r, n) <= 4 / n + theirs


def test_a_network_that_did_not_move_pays_for_its_margin_and_its_chance_alone():
    network, _ = networks()
    x, y = examples(50_000)
    found = certificate(network, network, x, y, delta=0.05)
    assert found.complexity < 10 and found.risk <= found.value < found.risk + 0.2


def test_more_examples_and_larger_margins_bound_more_tightly():
    stretch, margin = [Layer(1.0, 1.0, 10)], torch.ones(10_000)
    value = margin_bound(margin, stretch, inputs=100.0, delta=0.05).value
    assert margin_bound(2 * margin, stretch, inputs=100.0, delta=0.05).value < value
    more = margin_bound(margin.repeat(4), stretch, inputs=200.0, delta=0.05).value  # as many squares an example
    assert more < value


def test_what_the_bound_is_not_for_is_refused():
    x, y = examples(20)
    pictures = cnn((1, 4, 4), 3, width=2)
    with pytest.raises(ValueError, match="linear layers with ReLUs"):
        certificate(pictures, pictures, x, y, delta=0.05)
    with pytest.raises(ValueError, match="has no linear layer"):
        layers(nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match="a Tanh"):
        net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))
        layers(net, net)
    with pytest.raises(ValueError, match="right about nothing"):
        margin_bound(-torch.ones(5), [Layer(1.0, 1.0, 2)], inputs=1.0, delta=0.05)
    with pytest.raises(ValueError, match="delta = 1.5"):
        margin_bound(torch.ones(5), [Layer(1.0, 1.0, 2)], inputs=1.0, delta=1.5)
    with pytest.raises(ValueError, match="are\\s+positive"):
        margin_bound(torch.ones(5), [Layer(0.0, 1.0, 2)], inputs=1.0, delta=0.05)
    with pytest.raises(ValueError, match="at least 1 example"):
        margin_bound(torch.ones(0), [Layer(1.0, 1.0, 2)], inputs=1.0, delta=0.05)
