"""The curve against its definition and a solved problem, and the way around between two networks."""

import torch

from minilab.pacbayes.phenomena.mlp import MLP, FitConfig, cross_entropy, fit
from minilab.pacbayes.phenomena.modes import ModesConfig, bezier, modes, train_bend


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_curve_keeps_its_ends_and_is_the_line_when_its_bend_is_the_middle():
    ends, bend, t = normal(2, 5), normal(5, seed=1), torch.linspace(0, 1, 9)
    curve = bezier(ends, bend, t)
    assert torch.equal(curve[0], ends[0]) and torch.equal(curve[-1], ends[1])
    torch.testing.assert_close(curve[4], ends.mean(dim=0) / 2 + bend / 2)
    line = bezier(ends, ends.mean(dim=0), t)
    torch.testing.assert_close(line, torch.lerp(ends[0], ends[1], t[:, None]))


def test_the_bend_of_a_quadratic_loss_is_that_of_its_closed_form():
    """min over θ of ∫ |φ(t) - c|² dt: with ∫ b0 b1 = ∫ b1 b2 = 1/10, ∫ b1² = 2/15, ∫ b1 = 1/3."""
    ends, c = normal(2, 4), normal(4, seed=1)
    bend = train_bend(lambda w: (w - c).square().sum(dim=1), ends, FitConfig(steps=1500, lr=0.03, decay=0), 64,
                      torch.Generator().manual_seed(2))
    torch.testing.assert_close(bend, (c / 3 - ends.sum(dim=0) / 10) * 15 / 2, atol=0.02, rtol=0)


def test_without_a_penalty_the_way_around_is_farther_out(digits):
    net, seen, short = MLP((64, 16, 10)), digits.first(200), FitConfig(steps=400)
    ends, _ = fit(net, net.draw(2, torch.Generator().manual_seed(0)), seen.x, seen.y[None], short)

    def farthest(decay: float) -> float:
        bend = train_bend(lambda w: cross_entropy(net(w, seen.x), seen.y[None]), ends, FitConfig(400, decay=decay), 8,
                          torch.Generator().manual_seed(1))
        return float(bezier(ends, bend, torch.linspace(0, 1, 11)).norm(dim=1).max())

    assert farthest(0.0) > 1.05 * farthest(1e-3)


def test_between_two_networks_the_line_climbs_and_the_curve_does_not(digits):
    short = FitConfig(steps=500)
    r = modes(digits, ModesConfig(samples=300, ends=short, bend=short, grid=21))
    for line, curve in zip(r.line, r.curve, strict=True):
        assert line[0] == curve[0] and line[-1] == curve[-1]
    assert r.line.train_loss.max() > 10 * r.curve.train_loss.max()
    assert r.line.train_error.max() > 0.02 and r.curve.train_error.max() == 0
    ends = torch.stack((r.curve.test_error[0], r.curve.test_error[-1]))
    assert r.line.test_error.max() > ends.max() + 0.03 > r.curve.test_error.max()
