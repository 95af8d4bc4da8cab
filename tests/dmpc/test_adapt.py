"""Only the dynamics learn anew, and they do learn the new body."""

from dataclasses import replace

import pytest
import torch
from dmpc.linear_system import B, M, linear_episodes

from minilab.dmpc.adapt import Play, adapted, play_data, practised, prediction_error
from minilab.dmpc.agent import dmpc
from minilab.dmpc.bodies import load_body, weaken
from minilab.dmpc.data import Mixture, Windows
from minilab.dmpc.envs import HALF_CHEETAH
from minilab.dmpc.learn import Models, Recipe, learn
from minilab.dmpc.models import ModelConfig
from minilab.dmpc.networks import NetworkConfig
from minilab.dmpc.policies import Linear
from minilab.dmpc.rewards import planned, run

SMALL = NetworkConfig("mlp", width=64, layers=1)
RECIPE = Recipe(4, proposal=ModelConfig(4, SMALL, levels=20, steps=5),
                dynamics=ModelConfig(4, SMALL, levels=20, steps=5, eta=0.0, clip=6.0), steps=400,
                value_steps=50, batch=128, lr=2e-3, warmup=20, discount=0.8)


@pytest.fixture(scope="module")
def models() -> Models:
    return learn(linear_episodes(), RECIPE)


def reversed_episodes(n: int = 48):
    """The same system with its motors wired the wrong way round."""
    episodes = linear_episodes(n, seed=9)
    states = [episodes.states[:, 0]]
    for a in episodes.actions.unbind(dim=1):
        states.append(states[-1] @ M.T - a @ B.T)
    return replace(episodes, states=torch.stack(states, dim=1))


def test_adapting_teaches_the_new_dynamics_and_nothing_else(models):
    old, new, test = linear_episodes(seed=1), reversed_episodes(), reversed_episodes(16)
    before = {name: [p.clone() for p in part.state_dict().values()] for name, part in models.parts().items()}
    retold = adapted(models, old, new, Play(updates=400, old=0.0, lr=2e-3))
    assert prediction_error(retold, test) < prediction_error(models, test) / 3
    assert retold.proposal is models.proposal and retold.value is models.value
    for name, part in models.parts().items():  # and the model that was given is as it was
        assert all(torch.equal(a, b) for a, b in zip(before[name], part.state_dict().values(), strict=True))


def test_adapting_the_proposal_leaves_the_dynamics_alone(models):
    other = adapted(models, linear_episodes(seed=1), reversed_episodes(), Play(updates=5), part="proposal")
    assert other.dynamics is models.dynamics and other.proposal is not models.proposal


def test_play_goes_on_in_rounds_with_what_the_last_one_taught():
    task, body = HALF_CHEETAH, weaken(load_body(HALF_CHEETAH.body), "bshin", 0.0)
    recipe = replace(RECIPE, steps=5, value_steps=5, warmup=2)
    old = play_data(Linear(torch.zeros(6, 17), torch.zeros(17), torch.ones(17)), task.name, body,
                    Play(episodes=4, steps=12), seed=0)
    begun, players = learn(old, recipe), []

    def planner(found: Models):
        players.append(found)
        return dmpc(found, planned(run(task), discount=1.0), n=2)

    found, played = practised(begun, planner, body, old, Play(episodes=5, steps=8, rounds=2, updates=3))
    assert len(played) == 5 and players[0] is begun and len(players) == 2
    assert players[1].proposal is begun.proposal is found.proposal and players[1].dynamics is not begun.dynamics


def test_a_mixture_keeps_its_share_of_the_old_world():
    episodes = linear_episodes(8)
    far = replace(episodes, states=episodes.states + 100)
    window = Mixture(Windows(episodes, 4), Windows(far, 4), 0.25).draw(40, torch.Generator().manual_seed(0))
    assert (window.state[:, 0] < 50).sum() == 10 and window.actions.shape == (40, 4, 2)


def test_play_happens_in_the_broken_body():
    """A policy that pulls one motor as hard as it can bends a whole body, and not one in which that motor is dead."""
    weights = torch.zeros(6, 17)
    weights[0, 0] = 1.0
    pull = Linear(weights, torch.full((17,), -100.0), torch.ones(17))
    play, whole = Play(episodes=3, steps=20, noise=0.0), load_body(HALF_CHEETAH.body)
    bent, idle = (play_data(pull, "HalfCheetah-v5", body, play, 0).states[:, 10:, 2].mean()
                  for body in (whole, weaken(whole, "bthigh", 0.0)))
    assert bent > 0.3 and abs(idle) < 0.1


def test_a_planner_with_the_true_dynamics_of_a_reversed_system_beats_one_that_believes_the_old(models):
    def truth(state, actions):
        out, s = [], state[:, None].expand(-1, actions.shape[1], -1)
        for a in actions.unbind(dim=2):
            s = s @ M.T - a @ B.T
            out.append(s)
        return torch.stack(out, dim=2)

    def objective(states, actions):
        return -states[..., 1:, :].square().sum(dim=(-1, -2))

    totals = []
    for predict in (None, truth):
        planner, state, total = dmpc(models, objective, n=32), torch.ones(32, 3), 0.0
        planner.predict = predict or planner.predict
        planner.start(32)
        for _ in range(10):
            state = state @ M.T - planner.act(state) @ B.T
            total -= float(state.square().sum(dim=1).mean())
        totals.append(total)
    assert totals[1] > totals[0]


def test_the_objective_of_running_accepts_plans_of_the_cheetah():
    score = planned(run(HALF_CHEETAH), discount=0.9)(torch.zeros(2, 3, 5, 17), torch.ones(2, 3, 4, 6))
    torch.testing.assert_close(score, torch.full((2, 3), -0.6 * (1 - 0.9**4) / 0.1))
