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

from minilab.speculative.cache import SpeculationCache
from minilab.speculative.models import Cache, TreeModel
from minilab.speculative.sampling import Sampling, sample, starve, target_probs


def glue(draft: TreeModel, cache: Cache, newest: Int[Tensor, "B 1"], s: Int[Tensor, "B K"]
         ) -> Float[Tensor, "B K1 V"]:
    """The draft's logits after j = 0..K accepted tokens, the rejected token's set to -inf in rows j < K."""
    logits = draft(torch.cat((newest, s), dim=1), cache=cache)
    logits[:, :-1].scatter_(-1, s[..., None], float("-inf"))
    return logits


def fork(logits: Float[Tensor, "B K1 V"], fan_out: Int[Tensor, "B K1"]
         ) -> tuple[Int[Tensor, "B M"], Int[Tensor, "B M"]]:
    """For each branch of each row: how many accepted tokens it assumes, and the bonus token it assumes.

    Every row of `fan_out` has the sum M. The ranking is by the raw logits, whatever the temperature.
    """
    B, M = len(fan_out), int(fan_out[0].sum())
    most = min(int(fan_out.max()), logits.shape[-1])
    ranked = logits.topk(most, dim=-1).indices  # B K+1 most
    wanted = torch.arange(most, device=logits.device) < fan_out[..., None]
    k = torch.arange(fan_out.shape[1], device=logits.device)[None, :, None].expand_as(ranked)
    return k[wanted].view(B, M), ranked[wanted].view(B, M)


def tree_mask(read: Int[Tensor, "B"], K: int, prefix: Int[Tensor, "B M"], depth: int, end: int
              ) -> Bool[Tensor, "B M S"]:
    """What each branch sees of slots 0..end-1 while its token of `depth` is read; `read` = N - 1 a row."""
    M = prefix.shape[1]
    place = torch.arange(end, device=prefix.device) - read[:, None]  # B S: 0..K glue, then depth after depth
    in_tree = place - (K + 1)
    trunk = (place <= K)[:, None] & (place[:, None] <= prefix[..., None])  # B M S
    own = (in_tree % M)[:, None] == torch.arange(M, device=prefix.device)[:, None]
    return trunk | (own & (in_tree >= 0)[:, None] & (in_tree < (depth + 1) * M)[:, None])


def grow(draft: TreeModel, cache: Cache, logits: Float[Tensor, "B K1 V"], fan_out: Int[Tensor, "B K1"],
         top: Sequence[int], sampling: Sampling, C: float, generator: torch.Generator | None) -> SpeculationCache:
    """A token for each of the K numbers in `top`, for each forked branch; the cache is left as `glue` left it.

    `top[i]` is the number of guesses that the next round will have for i accepted tokens: see `next_draft`.
    """
    trunk, glued = cache.lengths, logits.shape[1] - 1
    read = trunk - glued - 1  # N - 1
    prefix, token = fork(logits, fan_out)
    place, M, roots = read.to(prefix.device)[:, None] + 1 + prefix, prefix.shape[1], token
    tokens, probs = [], []
    for depth, starved in enumerate(top):
        mask = tree_mask(read.to(prefix.device), glued, prefix, depth, int(cache.lengths.max()) + M)
        # Only a branch that is too long for the context to be used has positions beyond it.
        positions = (place + depth).clamp(max=draft.context - 1)
        law = draft(token, cache=cache, positions=positions, mask=mask)  # B M V
        token, q = next_draft(law, sampling, C, starved, generator)
        tokens.append(token)
        probs.append(q)
    cache.rollback(trunk)
    stacked = None if sampling.greedy else torch.stack(probs, dim=2)
    return SpeculationCache(prefix, roots, torch.stack(tokens, dim=2), stacked)


def next_draft(logits: Float[Tensor, "*b V"], sampling: Sampling, C: float, top: int, generator: torch.Generator | None
               ) -> tuple[Int[Tensor, "*b"], Float[Tensor, "*b V"] | None]:
    """A draft token and the very distribution it was drawn from (None when greedy, where C has no say).

    Saguaro sampling: the `top` likeliest tokens, those that are guessed as bonus tokens, are proposed less
    often by the factor C, so that a rejection leaves the residual on them.
    """
    if sampling.greedy:
        return logits.argmax(dim=-1), None
    q = starve(target_probs(logits, sampling), top, C)
    return sample(q, generator), q
