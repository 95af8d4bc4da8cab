"""Diffuser and Decision Diffuser: guidance against closed forms, and both on a linear system."""

import copy
from dataclasses import replace

import pytest
import torch
from dmpc.linear_system import B, M, linear_episodes

from minilab.dmpc.baselines.decision_diffuser import decision_diffuser, learn_decision_diffuser
from minilab.dmpc.baselines.diffuser import Guide, diffuser, guided_sample, learn_diffuser, plan, spread
from minilab.dmpc.data import Windows
from minilab.dmpc.learn import fit, small
from minilab.dmpc.networks import NetworkConfig
from minilab.nn.diffusion import cosine_schedule, sample

F = 4
RECIPE = replace(small(F, width=96, layers=2, steps=800, batch=128), lr=2e-3)

def law(state, generator=torch.Generator().manual_seed(1)):  # noqa: B008
    """The data's policy: steady gains, and noise of spread 0.3."""
    gains = torch.tensor([[-0.3, -0.1, 0.0], [0.0, 0.2, -0.2]])
    return state @ gains.T + 0.3 * torch.randn(len(state), 2, generator=generator)


EPISODES = linear_episodes(100, 20, law=law)


def step(state, action, motors=B):
    return state @ M.T + action @ motors.T


def nearness(states, actions):
    """An objective: minus the squared distance to the origin, summed."""
    return -states[..., 1:, :].square().sum(dim=(-1, -2))


def drift(states, actions):
    """Another one: how far the first number has moved."""
    return states[..., -1, 0] - states[..., 0, 0]


@pytest.fixture(scope="module")
def joint():
    return learn_diffuser(EPISODES, RECIPE)


@pytest.fixture(scope="module")
def imaginer():
    return learn_decision_diffuser(EPISODES, RECIPE, drift)


def states(n, seed=9):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)) / 2


def weights(model):
    return torch.cat([p.flatten() for p in model.state_dict().values()]).double().sum().item()


def gaussian_denoiser(mean, std, abar):
    """E[x_0 | x_k] when the data are normal."""

    def denoise(x, k):
        left = abar[k][:, None]
        gain = left.sqrt() * std**2 / (left * std**2 + 1 - left)
        return mean + gain * (x - left.sqrt() * mean)

    return denoise


def draw_guided(guide, slope=0.5, mean=0.3, std=0.8, n=20_000, levels=300):
    abar, generator = cosine_schedule(levels), torch.Generator().manual_seed(0)
    noise = torch.randn(n, 1, generator=generator)
    denoiser = gaussian_denoiser(mean, std, abar)
    return guided_sample(denoiser, lambda x0: slope * x0[:, 0], lambda x: x, noise, abar, guide, steps=levels,
                         generator=generator)


def test_a_linear_objective_tilts_a_gaussian_by_its_variance_times_the_slope():
    """N(m, s^2) exp(g x) is N(m + s^2 g, s^2): samples move this way, this far, and keep their spread."""
    for scale, unit, steps in ((1.0, 1.0, 1), (2.0, 1.0, 1), (-1.0, 1.0, 1), (1.0, 2.0, 1), (1.0, 1.0, 2)):
        x = draw_guided(Guide(scale=scale, unit=unit, steps=steps, off=0))
        expected = 0.3 + 0.8**2 * 0.5 * scale / unit * steps
        assert x.mean() == pytest.approx(expected, abs=0.04)
        assert x.std() == pytest.approx(0.8, abs=0.03)


def test_where_the_guide_is_off_samples_are_those_of_the_ancestral_sampler():
    abar = cosine_schedule(20)
    denoiser = gaussian_denoiser(0.3, 0.8, abar)
    expected = sample(denoiser, (50, 1), abar, steps=20, eta=1.0, generator=torch.Generator().manual_seed(3))
    for guide in (Guide(scale=0.0), Guide(off=20)):
        generator = torch.Generator().manual_seed(3)
        noise = torch.empty(50, 1).normal_(generator=generator)
        seen = guided_sample(denoiser, lambda x0: x0[:, 0], lambda x: x, noise, abar, guide, steps=20,
                             generator=generator)
        torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-5)


def test_the_present_state_is_kept_exactly_whatever_the_guide_wants(joint):
    s = states(5)
    for scale in (0.0, 50.0):
        plans = plan(joint, s, nearness, n=3, guide=Guide(scale=scale), generator=torch.Generator().manual_seed(0))
        assert plans.states.shape == (5, 3, F + 1, 3) and plans.actions.shape == (5, 3, F, 2)
        torch.testing.assert_close(plans.states[:, :, 0], s[:, None].expand(-1, 3, -1), atol=1e-5, rtol=0)
        assert plans.actions.abs().max() <= 1


def error(plans, motors=B):
    """How far imagined states are from where the imagined actions lead, in one step, root mean square."""
    return float((plans.states[:, :, 1:] - step(plans.states[:, :, :-1], plans.actions, motors)).square().mean().sqrt())


def test_diffuser_imagines_what_its_actions_do(joint):
    plans = plan(joint, states(100), nearness, n=4, guide=Guide(scale=0.0), generator=torch.Generator().manual_seed(0))
    moves = float((plans.states[:, :, 1:] - plans.states[:, :, :-1]).square().mean().sqrt())
    assert error(plans) < 0.35 * moves
    # The actions are the data's own: K s and noise of spread 0.3.
    assert plans.actions[:, :, 0].var(dim=1).mean().sqrt() == pytest.approx(0.3, abs=0.1)


def test_the_guide_raises_the_objective_and_any_objective_will_do(joint):
    s, before = states(50), weights(joint)
    windows = Windows(EPISODES, F)
    for objective in (nearness, drift, lambda s, a: -drift(s, a), lambda s, a: a[..., 0, 1]):
        unit = spread(objective, windows)
        scores = [plan(joint, s, objective, n=4, guide=Guide(scale=scale, unit=unit),
                       generator=torch.Generator().manual_seed(0)).scores.mean() for scale in (0.0, 0.5, 2.0)]
        assert scores == sorted(scores) and scores[2] - scores[0] > 0.05 * unit
    assert weights(joint) == before


def test_diffuser_acts_inside_inference_mode_too(joint):
    controller = diffuser(joint, nearness, n=4, every=2)
    controller.start(3)
    with torch.inference_mode():
        for _ in range(3):
            assert controller.act(states(3)).shape == (3, 2)


def test_the_joint_model_is_adapted_by_fitting_a_copy(joint):
    """New motors, play data of them: the copy learns what they do, and the model itself stays."""
    turned = torch.tensor([1.0, -1.0])  # the second motor turns the other way
    play = linear_episodes(100, 20, law=law, seed=5)
    play, before = replace(play, actions=play.actions * turned), weights(joint)
    adapted = copy.deepcopy(joint)
    fit(adapted, Windows(play, F), RECIPE, steps=600)

    def imagined(model):
        generator = torch.Generator().manual_seed(0)
        return plan(model, states(100), nearness, n=4, guide=Guide(scale=0.0), generator=generator)

    assert error(imagined(adapted), B * turned) < 0.6 * error(imagined(joint), B * turned)
    assert weights(joint) == before


def test_guidance_of_weight_one_is_the_conditional_estimate_and_of_zero_the_unconditional(imaginer):
    s, x, k = states(7), torch.randn(7, F, 3), torch.randint(0, 50, (7,))
    R = torch.linspace(0, 1, 7)
    normal = (s - imaginer.mean) / imaginer.std
    told = imaginer.network(x, k, torch.cat((normal, R[:, None], torch.ones(7, 1)), dim=1))
    without = imaginer.network(x, k, torch.cat((normal, torch.zeros(7, 2)), dim=1))
    for weight, expected in ((0.0, without), (1.0, told), (1.2, 1.2 * told - 0.2 * without)):
        seen = imaginer.estimate(x, k, state=s, R=R, weight=weight)
        torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-5)
    assert (told - without).abs().max() > 0.01


def test_the_inverse_model_reads_off_the_action_between_two_states(imaginer):
    s, a = states(200), torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) - 0.5
    assert (imaginer.act_between(s, step(s, a)) - a).square().mean().sqrt() < 0.06


def test_the_future_that_is_imagined_scores_what_was_asked_for(imaginer):
    windows = Windows(EPISODES, F)
    w = windows.take(torch.arange(len(windows)))
    scores = drift(torch.cat((w.state[:, None], w.states), dim=1), w.actions)
    torch.testing.assert_close(imaginer.range, torch.stack((scores.min(), scores.max())))
    s, low, width = states(200), float(scores.min()), float(scores.max() - scores.min())
    for target in (0.35, 0.5, 0.65):
        imagined = imaginer.imagine(s, target=target, weight=1.0, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(imagined[:, 0], s)
        assert float(drift(imagined, None).mean() - low) / width == pytest.approx(target, abs=0.06)


def test_the_more_is_asked_of_decision_diffuser_the_more_the_true_system_gives(imaginer):
    reached = []
    for target in (0.3, 0.5, 0.7):
        state, controller = states(100), decision_diffuser(imaginer, target=target, every=2)
        controller.start(100)
        for _ in range(2 * F):
            state = step(state, controller.act(state))
        reached.append(float(state[:, 0].mean()))
    assert reached == sorted(reached) and reached[2] - reached[0] > 0.5


def test_both_take_transformers_and_the_guides_gradient_passes_through_them():
    network = NetworkConfig("transformer", width=32, layers=1, heads=4, hidden=64)
    recipe = replace(RECIPE, steps=2, dynamics=replace(RECIPE.dynamics, network=network))
    joint, s = learn_diffuser(EPISODES, recipe), states(3)
    free, pulled = (plan(joint, s, drift, n=2, guide=Guide(scale=scale), generator=torch.Generator().manual_seed(0))
                    for scale in (0.0, 50.0))
    assert (pulled.scores > free.scores).all()
    controller = decision_diffuser(learn_decision_diffuser(EPISODES, recipe, drift))
    controller.start(3)
    assert controller.act(s).shape == (3, 2)
