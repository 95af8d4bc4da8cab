"""Compounding errors against closed forms, and against models that are fitted to data."""

import math

import pytest
import torch

from minilab.dmpc import figures
from minilab.dmpc.linear import hidden, multi_step_error, rolled_error, rotation


@pytest.mark.parametrize("m, e", [(0.9, 0.05), (1.0, 0.02), (1.1, -0.03)])
def test_scalar_error_is_the_difference_of_two_powers(m, e):
    k = torch.arange(1, 41, dtype=torch.float64)
    found = rolled_error(torch.tensor([[m]], dtype=torch.float64), torch.tensor([[e]], dtype=torch.float64), 40)
    torch.testing.assert_close(found, ((m + e) ** k - m**k).abs(), rtol=1e-9, atol=1e-12)


def test_small_error_in_a_rotation_grows_like_k():
    """For E = e M the model is (1 + e) M: the error is (1 + e)^k - 1, k e to first order."""
    M = rotation(0.3)
    torch.testing.assert_close(rolled_error(M, 1e-6 * M, 50), 1e-6 * torch.arange(1, 51, dtype=torch.float64),
                               rtol=1e-4, atol=0)


def test_error_is_the_sum_of_single_errors_carried_to_the_end():
    M, generator = rotation(0.5, 1.02), torch.Generator().manual_seed(0)
    E = 0.1 * torch.randn(2, 2, generator=generator, dtype=torch.float64)
    power = torch.linalg.matrix_power
    k = 7
    carried = sum(power(M + E, k - 1 - i) @ E @ power(M, i) for i in range(k))
    assert float(rolled_error(M, E, k)[-1]) == pytest.approx(float(torch.linalg.matrix_norm(carried)) / 2**0.5)


def test_error_is_what_random_states_show():
    M, E = rotation(0.4, 0.97), torch.tensor([[0.03, 0.0], [0.01, -0.02]], dtype=torch.float64)
    s = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    off = s @ (torch.linalg.matrix_power(M + E, 9) - torch.linalg.matrix_power(M, 9)).T
    assert float(rolled_error(M, E, 9)[-1]) == pytest.approx(float(off.square().mean().sqrt()), rel=0.01)


def test_multi_step_error_is_the_single_error_at_every_step():
    M, E = rotation(0.4, 1.1), 0.05 * torch.eye(2, dtype=torch.float64)
    assert multi_step_error(E, 5).tolist() == pytest.approx([0.05] * 5)
    assert float(rolled_error(M, E, 1)[0]) == pytest.approx(0.05)


def test_hidden_half_agrees_with_least_squares_on_data():
    angle, K, n = 0.2, 12, 400_000
    phase = 2 * math.pi * torch.rand(n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = [2**0.5 * (angle * k + phase).cos() for k in range(K + 1)]
    one = (x[0] @ x[1]) / (x[0] @ x[0])
    rolled, direct = hidden(angle, K)
    for k in (1, 5, 12):
        map_k = (x[0] @ x[k]) / (x[0] @ x[0])
        assert float(rolled[k - 1]) == pytest.approx(float((one**k * x[0] - x[k]).square().mean().sqrt()), abs=0.01)
        assert float(direct[k - 1]) == pytest.approx(float((map_k * x[0] - x[k]).square().mean().sqrt()), abs=0.01)
    assert (rolled >= direct - 1e-12).all() and rolled[0] == direct[0]


def test_figure_starts_every_world_at_the_same_error():
    fig = figures.compounding(error=0.02, K=20)
    first = [line.get_ydata()[0] for line in fig.axes[0].lines]
    assert [float(y) for y in first] == pytest.approx([0.02] * 4)
