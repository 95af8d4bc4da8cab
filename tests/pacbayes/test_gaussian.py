"""Posteriors over weights: KL and outputs against draws of whole networks, and certificates that hold."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from minilab.pacbayes.bounds import classic, maurer, occam_kl, quadratic, ranked_nats
from minilab.pacbayes.gaussian import (
    PER_E,
    WIDEST,
    GaussianClassifier,
    GaussianLinear,
    GaussianRecipe,
    certificate,
    cut_cross_entropy,
    learn,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(inputs=4, width=8, classes=3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, classes))


def stirred(classifier: GaussianClassifier) -> GaussianClassifier:
    with torch.no_grad():
        for layer in classifier.gaussians:
            layer.mu.add_(0.3 * torch.randn(layer.mu.shape, generator=generator(1)))
            layer.log_sigma.add_(0.5 * torch.randn(layer.mu.shape, generator=generator(2)))
    return classifier


def three_clouds(n, seed, spread=0.5):
    g = generator(seed)
    y = torch.randint(3, (n,), generator=g)
    centers = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, -1], [0, 0, 1, 0]])
    return 2 * centers[y] + spread * torch.randn(n, 4, generator=g), y


def drawn_networks(classifier, x, draws):
    """Logits of whole networks, one after the other, each the same for all examples."""
    g, outputs = generator(5), []
    for _ in range(draws):
        h = x
        for layer in classifier.layers:
            if isinstance(layer, GaussianLinear):
                w = layer.mu + layer.log_sigma.exp() * torch.randn(layer.mu.shape, generator=g)
                h = h @ w[:, :-1].T + w[:, -1]
            else:
                h = layer(h)
        outputs.append(h.detach())
    return torch.stack(outputs)


def test_kl_is_that_of_independent_normals():
    classifier = stirred(GaussianClassifier(network(), 0.2))
    expected = sum(kl_divergence(Normal(layer.mu, layer.log_sigma.exp()), Normal(layer.mu0, 0.2)).sum()
                   for layer in classifier.gaussians)
    assert float(classifier.kl().detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert float(GaussianClassifier(network(), 0.2).kl().detach()) == pytest.approx(0, abs=1e-5)


def test_outputs_have_the_law_of_networks_that_are_drawn_whole():
    classifier = stirred(GaussianClassifier(network(), 0.2))
    x = torch.randn(3, 4, generator=generator(3))
    whole = drawn_networks(classifier, x, 20_000)  # draws, examples, classes
    ours = classifier(x.repeat(20_000, 1), generator(4)).detach().view(20_000, 3, 3)
    error = whole.std(dim=0) / math.sqrt(20_000)
    assert ((ours.mean(dim=0) - whole.mean(dim=0)).abs() < 6 * error).all()
    torch.testing.assert_close(ours.std(dim=0), whole.std(dim=0), rtol=0.03, atol=0)
    for example in range(3):  # the outputs of an example are correlated, as they share its hidden layer
        torch.testing.assert_close(torch.corrcoef(ours[:, example].T), torch.corrcoef(whole[:, example].T), atol=0.03,
                                   rtol=0)


def test_examples_of_a_pass_do_not_share_weights():
    """Two copies of one example: with one network for both their outputs would be equal."""
    classifier = stirred(GaussianClassifier(network(), 0.2))
    twice = classifier(torch.ones(2, 4).repeat(5000, 1), generator(6)).detach()
    a, b = twice[::2, 0], twice[1::2, 0]
    assert abs(float(torch.corrcoef(torch.stack((a, b)))[0, 1])) < 0.06


def test_a_posterior_without_spread_is_its_mean():
    net, x = network(), torch.randn(10, 4, generator=generator(7))
    torch.testing.assert_close(GaussianClassifier(net, 1e-7)(x, generator()), net(x), atol=1e-4, rtol=0)


def test_cross_entropy_is_cut_to_the_unit_interval():
    y = torch.tensor([0, 1])
    sure = torch.tensor([[50.0, -50], [50, -50]])
    assert float(cut_cross_entropy(sure, y, 1e-4)) == pytest.approx(0.5, abs=1e-6)  # all right, and as wrong as can be
    even = torch.zeros(2, 2)
    assert float(cut_cross_entropy(even, y, 1e-4)) == pytest.approx(math.log(2) / math.log(1e4))


def test_learning_lowers_the_bound_and_the_certificate_is_made_of_its_parts():
    x, y = three_clouds(2000, 10)
    test = three_clouds(1000, 11)
    prior = GaussianClassifier(network(), 0.5)
    before = certificate(prior, x, y, *test, passes=2)
    assert before.kl == pytest.approx(0, abs=1e-4)
    learn(prior, x, y, GaussianRecipe(steps=400, batch=200, lr=0.02))
    after = certificate(prior, x, y, *test, passes=5)
    assert after.bound.value < 0.35 < before.bound.value and not after.bound.vacuous
    assert after.draws == 10_000 and after.kl > 1
    assert after.bound.value == pytest.approx(maurer(occam_kl(after.risk, 10_000, 0.0, 0.01), 2000, after.kl, 0.05))
    paid = certificate(prior, x, y, *test, passes=5, nats=7.0)
    assert paid.kl == pytest.approx(after.kl + 7) and paid.bound.value > after.bound.value
    assert after.test_risk < after.bound.value


def test_random_labels_are_not_certified():
    x, _ = three_clouds(500, 12)
    y = torch.randint(3, (500,), generator=generator(13))
    classifier = GaussianClassifier(network(width=64), 0.3)
    learn(classifier, x, y, GaussianRecipe(steps=300, batch=100, lr=0.02))
    assert certificate(classifier, x, y, x, y, passes=5).bound.vacuous


@pytest.mark.parametrize("objective", [classic, quadratic])
def test_a_step_follows_the_gradient_of_the_objective(objective):
    """The derivative of the loss by one mean, with the same draws, by finite differences."""
    classifier = stirred(GaussianClassifier(network(), 0.2)).double()
    x, y = three_clouds(50, 14)

    def bound() -> torch.Tensor:
        return objective(cut_cross_entropy(classifier(x.double(), generator(15)), y, 1e-5), 50, classifier.kl(), 0.05)

    bound().backward()
    mu, step = classifier.gaussians[0].mu, 1e-6
    found, values = float(mu.grad[2, 1]), []
    for sign in (1, -1):
        with torch.no_grad():
            mu[2, 1] += sign * step
            values.append(float(bound()))
            mu[2, 1] -= sign * step
    assert found == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


def test_a_prior_that_learned_is_where_the_posterior_begins_again():
    classifier = stirred(GaussianClassifier(network(), 0.2))
    x, means = torch.ones(1, 4), [layer.mu.detach().clone() for layer in classifier.gaussians]
    classifier.begin_here(0.05)
    assert float(classifier.kl().detach()) == pytest.approx(0, abs=1e-5)
    assert all(torch.equal(layer.mu, mean) for layer, mean in zip(classifier.gaussians, means, strict=True))
    assert float(classifier(x.repeat(20_000, 1), generator()).detach().std(dim=0).mean()) < 0.5


def test_a_learned_prior_width_ends_on_the_list_and_is_paid_for():
    classifier = GaussianClassifier(network(), 0.123, learn_sigma0=True)
    nats = classifier.settle()
    j = PER_E * (math.log(WIDEST) - 2 * float(classifier.log_sigma0.detach()))
    assert j == pytest.approx(round(j), abs=1e-3) and nats == pytest.approx(ranked_nats(round(j)))
    assert 0.123 * math.exp(-0.5 / PER_E) <= float(classifier.log_sigma0.detach().exp()) <= 0.123
    wide = GaussianClassifier(network(), 3.0, learn_sigma0=True)
    assert wide.settle() == pytest.approx(ranked_nats(1)) and float(wide.log_sigma0.detach().exp()) < math.sqrt(WIDEST)


def test_one_pass_is_that_many_trials_though_their_chances_differ():
    """The risk on 40 examples, from one trial of each: too small a bound in at most a fifth of 2,000 passes."""
    classifier = stirred(GaussianClassifier(network(), 0.5))
    x, y = three_clouds(40, 16)
    wrong = torch.cat([classifier(x.repeat(500, 1), generator(seed)).argmax(dim=1).view(500, 40) != y
                       for seed in range(4)]).double()  # passes, examples
    chances = wrong.mean(dim=0)
    assert chances.std() > 0.1
    bounds = occam_kl(wrong.mean(dim=1), 40, 0.0, 0.2)
    assert 0.005 < float((bounds < chances.mean()).double().mean()) <= 0.2
    assert float((wrong.mean(dim=1) < chances.mean()).double().mean()) > 0.3  # the bare share of errors fails


def test_layers_that_share_weights_are_refused():
    with pytest.raises(ValueError, match="Conv2d uses a weight more than once"):
        GaussianClassifier(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)), 0.1)
