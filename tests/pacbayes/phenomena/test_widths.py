"""The double descent of small networks on digits."""

from dataclasses import replace

import pytest
import torch

from minilab.pacbayes.phenomena.dimension import effective_dimension
from minilab.pacbayes.phenomena.mlp import MLP, FitConfig, cross_entropy, fit
from minilab.pacbayes.phenomena.task import Task, altered
from minilab.pacbayes.phenomena.widths import WidthConfig, widths


def test_test_loss_and_effective_dimension_rise_to_the_threshold_and_fall_behind_it(digits):
    config = WidthConfig(widths=(4, 9, 32), samples=300, training=FitConfig(steps=1200), lanczos_steps=250)
    r = widths(digits, config)
    assert r.train_error.mean(dim=1)[0] > 0.1 and (r.train_error[2] == 0).all()
    for curve in (r.test_loss, r.effective_dimension(1.0)):
        narrow, threshold, wide = curve.mean(dim=1)
        assert threshold > 1.1 * narrow and threshold > 1.1 * wide
    assert r.parameters.tolist() == [65 * w + 10 * (w + 1) for w in config.widths]


@pytest.mark.parametrize("without", [{"altered": 0.0}, {"training": FitConfig(steps=600, decay=0.01)},
                                     {"training": FitConfig(steps=100)}])
def test_true_labels_or_a_penalty_or_an_early_end_take_the_peak_away(digits, without):
    config = WidthConfig(widths=(4, 8, 24), samples=300, training=FitConfig(steps=800), lanczos_steps=1)
    r = widths(digits, replace(config, **without))
    assert (r.test_loss.mean(dim=1).diff() < 0).all()


def test_the_dimension_is_that_of_the_dense_hessian_of_the_same_network():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(30, 4, generator=generator), torch.randint(3, (30,), generator=generator)
    task, training = Task(x, y, x, y), FitConfig(steps=200)
    found = widths(task, WidthConfig(widths=(3,), samples=30, altered=0.5, seeds=2, training=training, seed=7))
    generator, net = torch.Generator().manual_seed(7), MLP((4, 3, 3))
    labels = altered(y, [0.5], 3, generator)
    w, _ = fit(net, net.draw(2, generator), x, labels, training)
    H = torch.stack([torch.func.hessian(lambda u: 30 * cross_entropy(net(u[None], x), labels)[0])(row) for row in w])
    expected = effective_dimension(torch.linalg.eigvalsh(H), 1.0)
    assert found.effective_dimension(1.0)[0].tolist() == pytest.approx(expected.tolist(), rel=1e-3)
    assert found.eigenvalues.shape == (1, 2, 300) and (found.eigenvalues != 0).sum(dim=2).max() <= net.P
