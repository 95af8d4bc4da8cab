"""Networks side by side against torch's own layers, and training against what it must reach."""

import pytest
import torch
from torch import nn

from minilab.pacbayes.phenomena.mlp import MLP, FitConfig, cross_entropy, errors, fit


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_row_of_weights_is_the_network_that_torch_makes_of_it():
    net = MLP((5, 4, 3, 2))
    w, x = net.draw(3, generator()), torch.randn(7, 5, generator=generator(1))
    for row, said in zip(w, net(w, x), strict=True):
        reference, start = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), 0
        for layer in reference[::2]:
            for parameter, shape in ((layer.weight, layer.weight.T.shape), (layer.bias, layer.bias.shape)):
                parameter.data = row[start : start + shape.numel()].view(shape).T.contiguous() if len(shape) == 2 \
                    else row[start : start + shape.numel()]
                start += shape.numel()
        assert start == net.P
        torch.testing.assert_close(said, reference(x))


def test_a_drawn_network_keeps_the_size_of_what_it_is_given():
    """N(0, 2 / inputs) makes up for the half that ReLU takes; biases add a little."""
    net = MLP((64, 256, 256, 1))
    said = net(net.draw(500, generator()), torch.randn(8, 64, generator=generator(1)))
    assert 1 < said.square().mean() < 5


def test_networks_that_train_together_end_where_they_end_alone():
    net, x = MLP((3, 4, 2)), torch.randn(20, 3, generator=generator())
    w, y = net.draw(2, generator(1)), torch.randint(2, (2, 20), generator=generator(2))
    together, history = fit(net, w, x, y, FitConfig(steps=50))
    for k in range(2):
        alone, losses = fit(net, w[k : k + 1], x, y[k : k + 1], FitConfig(steps=50))
        torch.testing.assert_close(together[k], alone[0])
        torch.testing.assert_close(history[:, k], losses[:, 0])


def test_training_ends_at_the_mode_of_the_penalized_loss():
    """Without a hidden layer the problem is convex: its gradient is zero at one point only."""
    net, x = MLP((3, 2)), torch.randn(40, 3, generator=generator(), dtype=torch.double)
    y, decay = torch.randint(2, (1, 40), generator=generator(1)), 0.1
    w, _ = fit(net, net.draw(4, generator(2)).double(), x, y, FitConfig(steps=2000, decay=decay))
    w.requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(net(w, x), y).sum(), w)
    assert (gradient + decay * w).abs().max() < 1e-4
    assert (w - w[:1]).abs().max() < 1e-3


def test_cross_entropy_and_errors_are_those_of_each_network_on_its_own_labels():
    p = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.1], [0.2, 0.8]]])
    y = torch.tensor([[0, 1], [1, 1]])
    torch.testing.assert_close(cross_entropy(p.log(), y),
                               -torch.tensor([(0.9 * 0.8), (0.1 * 0.8)]).log() / 2)
    assert errors(p.log(), y).tolist() == [0, 0.5]
    assert errors(p.log(), y[1:]).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("wrong", [lambda: MLP((3,)), lambda: MLP((3, 0, 2)), lambda: FitConfig(steps=0),
                                   lambda: FitConfig(lr=0), lambda: FitConfig(decay=-1)])
def test_what_cannot_train_says_so(wrong):
    with pytest.raises(ValueError, match="give"):
        wrong()
