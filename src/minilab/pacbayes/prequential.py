"""A code without a file: predict each token, pay for it, and only then learn from it.

Dawid's prequential code (1984). A model that has learned from the tokens before k says p_k to token k, and

    bits of the text = Σ_k -log2 p_k(token k),

with an arithmetic coder (`coding`) that sender and receiver drive by the same training. No weight is sent: the receiver
trains along, and has the model when it has the text. A file (`compress`, `llm`) is the other way, a code in two parts:
first the model, then the text at what that model loses. Both are lengths of one text, and may be compared.

What each bounds is not the same. Notable:

- A file names one hypothesis. Its bits are a prior, and Occam's bound is on the risk of that hypothesis.
- Here each token was new to the model that met it. X_k is the loss of the model that stood at token k, fixed by what
  came before, and `llm.token_bound` at 0 nats holds, however many weights there are. It is on the mean over k of
  E[X_k | tokens before k]: the risk of *learning as it goes*, each model at its own place. The last one may be better
  or worse, and nothing is said of it.
- `llm.document_bound` is the same with a document for an example: the mean, over documents, of what the learner as it
  stood before each would lose on a new one, learning within it. If documents are independent and of one law, that is
  what one of these learners, drawn at random, loses on average.
- What a file leaves free, steps and learning rate, has to be fixed here beforehand or paid for: it is the learner.
- `prequential_bits` is what the last model must know, and no prior. To name that model by Occam's rules one must send a
  message from which it can be made. The text is one, and it is far too long (`as_a_message`).

Sender and receiver must train to the same bit, as on one machine with one thread. Losses are those of the model as it
is; a bound smooths it.

Shapes: R windows of L tokens and one more, T tokens scored, V vocabulary.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minilab.core.train import TrainConfig, train
from minilab.pacbayes.bounds import nats_of
from minilab.pacbayes.llm import Bound, Scored, Text, token_bound
from minilab.pacbayes.sequences import entropy, smoothed


def learn_as_it_goes(model: nn.Module, text: Text, V: int, *, lr: float, batch: int, alpha: float = 0.01) -> Scored:
    """One pass over a text in its order, `batch` windows a step: each token is scored before any step has seen it.

    Trains what of `model` asks for it, in place: Adam, and half a cosine down. `alpha` is for `llm.foreseen_bound`, as
    in `llm.score`.
    """
    log_p, foreseen = [], []

    def loss(model: nn.Module, rows: Tensor) -> Tensor:
        there = rows[:, 1:] >= 0  # B L
        log_probs = model(rows[:, :-1].clamp(min=0))[there].float().log_softmax(dim=-1)  # T V, in the text's order
        said = log_probs.gather(1, rows[:, 1:][there][:, None])[:, 0]
        log_p.append(said.detach().double().cpu())
        foreseen.append(entropy(smoothed(log_probs.detach(), alpha)).double().cpu())
        return -said.mean()

    def in_order(step: int) -> Tensor:
        return text.rows[step * batch : (step + 1) * batch]

    config = TrainConfig(math.ceil(len(text.rows) / batch), lr=lr, betas=(0.9, 0.999), weight_decay=0.0,
                         min_lr_ratio=0.02, clip=None, precision="fp32")
    train(model, in_order, loss, config)
    tokens = (text.rows[:, 1:] >= 0).sum(dim=1)
    return Scored(torch.cat(log_p), torch.cat(foreseen), text.document.repeat_interleave(tokens).cpu(), alpha, V)


def text_bits(scored: Scored) -> float:
    """What a text costs that is coded by these predictions: -Σ log2 p."""
    return -float(scored.log_p.sum()) / math.log(2)


def prequential_bits(losses: Sequence[float], tokens_per_step: int, final: float) -> float:
    """What training in one pass taught a model: the area between its losses and its `final` one, in bits.

    `losses` are means in nats over the `tokens_per_step` tokens of each step, before the step, and no token came twice.
    `final` is what the trained model loses on the same tokens: on others, what it knows by heart would be free. Whoever
    has the code that trains can read the text from sum(losses), and then has the model too; with the model alone the
    text would have cost `final` a token. The rest is what the model must know.

    An estimate, not a message: nobody can read a model from so many bits, no prior is shown that gives it this mass,
    and a bound made with it is no certificate. What needs no estimate is the mean of `losses`: each token was new to
    the model, and so `azuma` with 0 nats bounds the risk of learning as it goes.
    """
    if not losses or tokens_per_step < 1:
        raise ValueError(f"{len(losses)} steps of {tokens_per_step} tokens: give a loss a step, as `TrainLog.losses`")
    return tokens_per_step * (sum(losses) - len(losses) * final) / math.log(2)


def as_a_message(final: Scored, bits: float, delta: float) -> Bound:
    """Occam's bound on the last model, named by the only message there is: the text, in `bits`, that makes it.

    It adds span √(x/2) for x nats a token, and x is what a token costs. From 2 nats on it is vacuous: no span of
    `llm.ALPHAS` is less than ln V.
    """
    return token_bound(final, nats_of(bits), delta)
