"""A system whose laws are known, s' = M s + B a, for tests that need no physics."""

import torch

from minilab.dmpc.data import Episodes

M = torch.tensor([[0.9, 0.2, 0.0], [-0.2, 0.9, 0.0], [0.0, 0.0, 0.8]])
B = torch.tensor([[0.0, 0.5], [0.5, 0.0], [0.3, 0.3]])


def linear_episodes(n: int = 64, T: int = 40, *, seed: int = 0, law=None) -> Episodes:
    """Episodes of the linear system; `law(state, generator)` gives the actions, by default uniform ones."""
    generator = torch.Generator().manual_seed(seed)
    law = law or (lambda s: 2 * torch.rand(len(s), 2, generator=generator) - 1)
    states, actions = [torch.randn(n, 3, generator=generator)], []
    for _ in range(T):
        actions.append(law(states[-1]).clamp(-1, 1))
        states.append(states[-1] @ M.T + actions[-1] @ B.T)
    states, actions = torch.stack(states, dim=1), torch.stack(actions, dim=1)
    return Episodes("HalfCheetah-v5", states, actions, -states[:, 1:].square().sum(dim=-1), torch.full((n,), T),
                    torch.zeros(n, dtype=torch.bool), ("linear",) * n)
