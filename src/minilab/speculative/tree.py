"""Preparing for many outcomes at once: K tokens for each guessed outcome, in one draft pass a depth.

Kumar, Dao and May (2026), appendix B.1 and Figure 8. While the target verifies s_1..s_K, the draft

1. reads [t*, s_1..s_K] in one *glue* pass: row j of its logits is the draft's law after j accepted tokens;
2. *forks*: in row j it takes the F_j likeliest tokens as guesses of the bonus token. s_{j+1} is left out,
   since a bonus token at its place means that it was rejected; after K accepted tokens nothing is left out;
3. grows all M = sum F_j branches together, one token each a pass, under a mask that lets a branch see the
   prefix, its own j accepted tokens, and its own ancestors, and nothing of the other branches.

Slots of the draft's cache, N being the number of final tokens, of which the newest is not yet read:
`0..N-2` prefix, `N-1..N+K-1` glue, then M slots for each depth. Branches are forgotten at the end; the glue stays,
so that whatever the outcome, the draft has read the accepted tokens.

Shapes: B batch, K draft tokens, M branches a row, V vocabulary, S slots.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minilab.speculative.models import Cache, TreeModel
from minilab.speculative.sampling import Sampling, draw


def glue(draft: TreeModel, cache: Cache, newest: Int[Tensor, "B 1"], s: Int[Tensor, "B K"]
         ) -> Float[Tensor, "B K1 V"]:
    """The draft's logits after j = 0..K accepted tokens, the rejected token's set to -inf in rows j < K."""
    logits = draft(torch.cat((newest, s), dim=1), cache=cache)
    logits[:, :-1].scatter_(-1, s[..., None], float("-inf"))
    return logits


def fork(logits: Float[Tensor, "B K1 V"], fan_out: Int[Tensor, "B K1"], branches: int, most: int
         ) -> tuple[Int[Tensor, "B M"], Int[Tensor, "B M"]]:
    """For each branch of each row: how many accepted tokens it assumes, and the bonus token it assumes.

    Every row of `fan_out` has the sum M = `branches` and no number above `most`. The ranking is by the raw logits,
    whatever the temperature.
    """
    ranked = logits.topk(most, dim=-1).indices  # B K+1 most
    ends = fan_out.cumsum(dim=1)  # of each k's branches
    branch = torch.arange(branches, device=logits.device).expand(len(logits), -1)  # B M
    k = torch.searchsorted(ends, branch.contiguous(), right=True)
    rank = branch - (ends - fan_out).gather(1, k)
    return k, ranked.flatten(1).gather(1, k * most + rank)


def tree_mask(read: Int[Tensor, "B"], K: int, prefix: Int[Tensor, "B M"], depth: int, end: int
              ) -> Bool[Tensor, "B M S"]:
    """What each branch sees of slots 0..end-1 while its token of `depth` is read; `read` = N - 1 a row."""
    M = prefix.shape[1]
    place = torch.arange(end, device=prefix.device) - read[:, None]  # B S: 0..K glue, then depth after depth
    in_tree = place - (K + 1)
    trunk = (place <= K)[:, None] & (place[:, None] <= prefix[..., None])  # B M S
    own = (in_tree % M)[:, None] == torch.arange(M, device=prefix.device)[:, None]
    return trunk | (own & (in_tree >= 0)[:, None] & (in_tree < (depth + 1) * M)[:, None])


def grow(draft: TreeModel, cache: Cache, logits: Float[Tensor, "B K1 V"], prefix: Int[Tensor, "B M"],
         roots: Int[Tensor, "B M"], top: Sequence[int], sampling: Sampling, C: float, generator: torch.Generator | None
         ) -> tuple[Int[Tensor, "B M K"], Float[Tensor, "B M K V"] | None]:
    """A token for each of the K numbers in `top`, for each forked branch, and the distributions they were drawn from.

    `top[i]` is the number of guesses that the next round will have for i accepted tokens: see `sampling.draw`.
    The cache is left as `glue` left it.
    """
    trunk, glued, (M, token) = cache.lengths, logits.shape[1] - 1, (prefix.shape[1], roots)
    read = (trunk - glued - 1).to(prefix.device)  # N - 1
    place = read[:, None] + 1 + prefix
    tokens, probs = [], []
    for depth, starved in enumerate(top):
        mask = tree_mask(read, glued, prefix, depth, cache.end(M))
        # Only a branch that is too long for the context to be used has positions beyond it.
        positions = (place + depth).clamp(max=draft.context - 1)
        law = draft(token, cache=cache, positions=positions, mask=mask)  # B M V
        token, q = draw(law, sampling, generator, C, starved)
        tokens.append(token)
        probs.append(q)
    cache.rollback(trunk)
    return torch.stack(tokens, dim=2), None if sampling.greedy else torch.stack(probs, dim=2)
