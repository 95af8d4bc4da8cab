"""Imitation: act as the data did, with no model of what follows and no objective.

Behavior cloning is a regression from the state to one action. Diffusion policy (Chi et al., 2023) draws a block of
actions and runs the first few of them. The latter is D-MPC's own proposal with N = 1, so that the gap between the two
is what planning adds.

Shapes: B states, F steps, S numbers in a state, A in an action.
"""

from dataclasses import replace

import torch

from minilab.dmpc.baselines.common import Chunked, learn_proposal
from minilab.dmpc.data import Episodes
from minilab.dmpc.learn import Recipe
from minilab.dmpc.models import Proposal


def learn_cloning(episodes: Episodes, recipe: Recipe, **options) -> Proposal:
    """The mean action of the data in each state: the recipe's proposal with one step and without noise."""
    return learn_proposal(episodes, recipe, replace(recipe.proposal, span=1, diffusion=False), **options)


def imitation(proposal: Proposal, *, every: int = 1, seed: int = 0) -> Chunked:
    """Draw one block of actions and run `every` of them. Raises ValueError if the block is shorter."""
    if every > proposal.config.span:
        raise ValueError(f"the proposal's blocks have {proposal.config.span} actions: {every} of them cannot be run")
    generator = torch.Generator(proposal.mean.device).manual_seed(seed)
    return Chunked(lambda state: proposal.propose(state, 1, generator)[:, 0], every=every, device=proposal.mean.device)
