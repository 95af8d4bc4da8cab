"""Average the weights of members, not what they say: one model of a member's size, a soup (Wortsman et al. 2022).

- Members that began apart say much the same in other words: hidden units may be permuted, signs turned. The mean of
  many such weights knows less than a table of token counts.
- Members that began as one model, by continued pre-training (`train_members(..., start=model)`), stay near one another.
  Then their soup is about as good as their ensemble, for the price of one.
"""

from minilab.ensembles.model import Stack
from minilab.nn.transformer import Transformer


def soup(members: Stack) -> Transformer:
    """The model whose weights are the members' mean."""
    result = members.member(0)
    result.load_state_dict({name: t.mean(dim=0) for name, t in members.folded.state_dict().items()})
    return result
