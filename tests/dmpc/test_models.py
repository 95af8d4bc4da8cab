"""The three models on a system whose laws are known: s' = M s + B a."""

import copy
import math

import pytest
import torch
from dmpc.linear_system import B, M, linear_episodes

from minilab.dmpc.agent import Planner, dmpc
from minilab.dmpc.data import Scales, Windows
from minilab.dmpc.learn import Models, Recipe, learn, load_models, save_models
from minilab.dmpc.models import Dynamics, ModelConfig, Proposal
from minilab.dmpc.networks import NetworkConfig
from minilab.dmpc.rewards import planned

SMALL = NetworkConfig("mlp", width=64, layers=1)


def recipe(F: int = 4, **options) -> Recipe:
    settings = dict(steps=600, value_steps=400, batch=128, lr=2e-3, warmup=20, discount=0.8) | options
    return Recipe(F, ModelConfig(F, SMALL, levels=20, steps=10),
                  ModelConfig(F, SMALL, levels=20, steps=5, eta=0.0, clip=6.0),
                  **settings)


@pytest.fixture(scope="module")
def models() -> Models:
    return learn(linear_episodes(), recipe())


def rolled(state: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    out = []
    for a in actions.unbind(dim=-2):
        state = state @ M.T + a @ B.T
        out.append(state)
    return torch.stack(out, dim=-2)


def test_multi_step_dynamics_learn_a_linear_system(models):
    generator = torch.Generator().manual_seed(1)
    state, actions = torch.randn(50, 3, generator=generator), 2 * torch.rand(50, 2, 4, 2, generator=generator) - 1
    error = models.dynamics.predict(state, actions, generator) - rolled(state[:, None].expand(-1, 2, -1), actions)
    assert error.square().mean() < 1e-2


def test_chained_blocks_start_where_the_last_one_ended():
    scales = Scales(torch.zeros(3), torch.ones(3), torch.ones(4, 3))
    model = Dynamics(ModelConfig(2, SMALL, diffusion=False, clip=6.0), 3, 2, scales)
    actions = torch.rand(5, 3, 4, 2) - 0.5
    whole = model.predict(torch.zeros(5, 3), actions)
    assert whole.shape == (5, 3, 4, 3)
    second = model.predict(whole[:, 1, 1], actions[:, 1:2, 2:])
    torch.testing.assert_close(whole[:, 1:2, 2:], second)


def test_a_horizon_that_the_span_does_not_divide_is_refused():
    model = Dynamics(ModelConfig(3, SMALL), 3, 2, Scales(torch.zeros(3), torch.ones(3), torch.ones(4, 3)))
    with pytest.raises(ValueError, match="multiple of the model's 3"):
        model.predict(torch.zeros(1, 3), torch.zeros(1, 1, 4, 2))


def test_diffusion_proposes_both_ways_where_data_go_left_or_right_and_regression_neither():
    """Actions are +0.7 or -0.7 throughout a window: the mean, 0, is in no episode."""
    generator = torch.Generator().manual_seed(0)
    side = 1.4 * (torch.rand(128, 1, generator=generator) < 0.5).float() - 0.7
    episodes = linear_episodes(128, 24, law=lambda s: side.expand(-1, 2))
    windows, scales = Windows(episodes, 4), Scales.of(Windows(episodes, 4))
    drawn = {}
    for diffusion in (True, False):
        torch.manual_seed(0)
        model = Proposal(ModelConfig(4, SMALL, diffusion=diffusion, levels=20, steps=10), 3, 2, scales)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for _ in range(600):
            # The state would give the side away: at the start of an episode it cannot.
            window = windows.draw(128, generator)._replace(state=torch.zeros(128, 3))
            optimizer.zero_grad()
            model.training_loss(window, generator).backward()
            optimizer.step()
        with torch.no_grad():
            drawn[diffusion] = model.propose(torch.zeros(1, 3), 200, generator)[0]
    right = (drawn[True] > 0.5).all(dim=(1, 2)).float().mean()
    left = (drawn[True] < -0.5).all(dim=(1, 2)).float().mean()
    assert 0.3 < right < 0.7 and right + left > 0.9
    assert drawn[False].abs().max() < 0.3


def test_value_learns_discounted_returns(models):
    state = torch.tensor([[1.0, 0.5, 0.0], [0.1, 0.0, 0.0]])
    expected = torch.zeros(2)
    generator = torch.Generator().manual_seed(3)
    for i in range(2):  # Monte Carlo with the data's own uniform policy
        s, total = state[i].expand(4000, 3), torch.zeros(4000)
        for k in range(25):
            s = s @ M.T + (2 * torch.rand(4000, 2, generator=generator) - 1) @ B.T
            total += 0.8**k * -s.square().sum(dim=1)
        expected[i] = total.mean()
    torch.testing.assert_close(models.value(state), expected, atol=0.6, rtol=0)


def test_planner_on_learned_models_beats_the_data_and_improves_with_n(models):
    def objective(states, actions):
        return -states[..., 1:, :].square().sum(dim=(-1, -2))

    returns = []
    for n in (1, 8, 64):
        planner, state, total = dmpc(models, objective, n=n), torch.ones(32, 3), torch.zeros(32)
        planner.start(32)
        for _ in range(10):
            state = state @ M.T + planner.act(state) @ B.T
            total -= state.square().sum(dim=1)
        returns.append(float(total.mean()))
    assert returns[0] < returns[1] < returns[2]


def test_a_new_objective_leaves_every_weight_as_it_was(models):
    before = [p.clone() for part in models.parts().values() for p in part.state_dict().values()]
    for target in (0.0, 1.0):
        planner = dmpc(models, planned(lambda s, a, after, t=target: -(after[..., 0] - t).abs(), discount=0.9), n=4)
        planner.start(2)
        planner.act(torch.zeros(2, 3))
    after = [p for part in models.parts().values() for p in part.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_planner_runs_as_many_actions_of_a_plan_as_it_was_told():
    calls = []

    def propose(state, n):
        calls.append(len(state))
        return torch.arange(4.0).view(1, 1, 4, 1).expand(len(state), n, 4, 1)

    def predict(state, actions):
        return torch.zeros(*actions.shape[:3], 3)

    def objective(states, actions):
        return actions.sum(dim=(-1, -2))

    planner = Planner(propose, predict, objective, n=2, every=3)
    planner.start(5)
    assert [float(planner.act(torch.zeros(5, 3))[0, 0]) for _ in range(4)] == [0.0, 1.0, 2.0, 0.0]
    assert len(calls) == 2
    with pytest.raises(ValueError, match="at least 1 action"):
        Planner(propose, predict, objective, n=2, every=0)


def test_saved_models_plan_the_same_block(models, tmp_path):
    path = save_models(models, tmp_path / "m.safetensors", what="test", how_made="test", dtype="fp32")
    again = load_models(path)
    assert again.recipe == models.recipe
    state = torch.ones(2, 3)
    for one, other in ((models, again), (models.to("cpu"), again)):
        draws = [m.proposal.propose(state, 3, torch.Generator().manual_seed(7)) for m in (one, other)]
        assert torch.equal(*draws) and torch.equal(one.value(state), other.value(state))


def test_eight_bits_keep_the_scales_of_numbers_that_move_little(models, tmp_path):
    """One scale a row of 8-bit integers would set the unit of a slow number beside a fast one to zero."""
    wide = copy.deepcopy(models)
    wide.dynamics.changes.copy_(torch.tensor([1e-3, 1.0, 50.0]).repeat(4))
    again = load_models(save_models(wide, tmp_path / "m.safetensors", what="test", how_made="test", dtype="int8"))
    assert torch.equal(again.dynamics.change, wide.dynamics.change)
    given = torch.zeros(20, 3), 2 * torch.rand(20, 1, 4, 2, generator=torch.Generator().manual_seed(0)) - 1
    moved = [m.dynamics.predict(*given, torch.Generator().manual_seed(1)) / m.dynamics.change for m in (wide, again)]
    assert (moved[0] - moved[1]).abs().mean() < 0.05 * moved[0].abs().mean()


def test_training_is_a_function_of_the_seed():
    short = recipe(steps=5, value_steps=5)
    one, same, other = (learn(linear_episodes(8), short, seed=seed) for seed in (0, 0, 1))
    weights = [m.proposal.network.body.leave.weight for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_interrupted_training_goes_on_where_it_was(tmp_path):
    short = recipe(steps=6, value_steps=3)
    whole = learn(linear_episodes(8), short, folder=tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "proposal.safetensors").rename(tmp_path / "b" / "proposal.safetensors")
    resumed = learn(linear_episodes(8), short, folder=tmp_path / "b")  # finds a proposal that is done
    for name, part in whole.parts().items():
        again = resumed.parts()[name].state_dict()
        assert all(torch.equal(tensor, again[key]) for key, tensor in part.state_dict().items())


@pytest.mark.parametrize("kind", ["mlp", "transformer"])
def test_denoisers_use_every_input(kind):
    torch.manual_seed(0)
    net = NetworkConfig(kind, width=32, layers=2, heads=4, hidden=64).build(5, 3, 4, 2)
    for p in net.parameters():  # gates that start at zero would hide the conditions
        torch.nn.init.normal_(p, std=0.2)
    x, k, state, along = torch.randn(2, 5, 3), torch.tensor([1, 3]), torch.randn(2, 4), torch.randn(2, 5, 2)
    y = net(x, k, state, along)
    assert y.shape == x.shape
    given = (x, k, state, along)
    for i in range(4):
        changed = [part + 1 if i == j else part for j, part in enumerate(given)]
        assert not torch.allclose(net(*changed), y, atol=1e-4)


def test_the_papers_denoiser_has_the_size_that_its_settings_imply():
    """Width 256, 5 layers, feed-forward 2048, AdaLN: counted by hand, layer by layer."""
    net = NetworkConfig("transformer", 256, 5, 8, 2048).build(16, 17, 17, 6)
    block = 4 * (256 * 256 + 256) + (256 * 2048 + 2048) + (2048 * 256 + 256) + 256 * 1536 + 1536
    rest = 2 * (256 * 256 + 256) + (17 * 256 + 256) + (23 * 256 + 256) + 2 * 256 + (256 * 17 + 17)
    assert sum(p.numel() for p in net.parameters()) == 5 * block + rest
    assert math.isclose(5 * block + rest, 8.65e6, rel_tol=0.02)


def test_unknown_network_names_those_that_there_are():
    with pytest.raises(ValueError, match="mlp or transformer"):
        NetworkConfig("unet").build(4, 1, 1)
