"""A code without a file: against closed forms, a coder, a loop by hand, and laws whose risk is known."""

import copy
import math

import pytest
import torch
from torch import nn

from minilab.core.train import TrainConfig, learning_rate
from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.pacbayes.bounds import nats_of
from minilab.pacbayes.coding import Decoder, Encoder, adaptive_bits, entropy_bits
from minilab.pacbayes.llm import ALPHAS, Scored, document_bound, score, token_bound, windows
from minilab.pacbayes.prequential import as_a_message, learn_as_it_goes, prequential_bits, text_bits
from minilab.pacbayes.sequences import azuma, entropy, smoothed, smoothed_span

V, DELTA = 16, 0.05


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scored(losses: list[float], V: int = 2) -> Scored:
    """Tokens of one document, at these losses in nats."""
    log_p = -torch.tensor(losses, dtype=torch.float64)
    return Scored(log_p, None, torch.zeros(len(losses), dtype=torch.long), None, V)


def tosses(n: int, p: float = 0.3, seed: int = 0) -> list[int]:
    return (torch.rand(n, generator=generator(seed)) < p).long().tolist()


def counting(symbols: list[int], begin: float) -> list[float]:
    """Losses of who counts heads and tails as they come, from `begin` of each: 1 is Laplace's rule."""
    counts, losses = [begin, begin], []
    for x in symbols:
        losses.append(-math.log(counts[x] / sum(counts)))
        counts[x] += 1
    return losses


# The code.


def test_the_length_is_that_of_a_sequence_by_hand():
    assert text_bits(scored([math.log(2), math.log(4), math.log(8)])) == pytest.approx(1 + 2 + 3)


def test_laplaces_rule_sums_to_the_mixture_over_all_coins():
    """∫ p^k (1 - p)^(n - k) dp = 1 / ((n + 1) C(n, k)): what order heads come in plays no part."""
    symbols = tosses(200)
    n, k = len(symbols), sum(symbols)
    whole = math.log2((n + 1) * math.comb(n, k))
    assert text_bits(scored(counting(symbols, 1))) == pytest.approx(whole)
    assert text_bits(scored(counting(sorted(symbols), 1))) == pytest.approx(whole)
    learned = prequential_bits(counting(symbols, 1), 1, final=entropy_bits([k, n - k]) / n * math.log(2))
    assert learned == pytest.approx(whole - entropy_bits([k, n - k]))


def test_predicting_by_bayes_rule_is_one_code_and_no_longer_than_any_in_two_parts():
    """Three coins: to name one, and then code, costs -log2 P(coin) - log2 p(text | coin)."""
    symbols, coins, prior = tosses(60), [0.1, 0.35, 0.8], [0.5, 0.25, 0.25]
    weights, losses = list(prior), []
    for x in symbols:
        said = [c if x else 1 - c for c in coins]
        losses.append(-math.log(sum(w * s for w, s in zip(weights, said, strict=True)) / sum(weights)))
        weights = [w * s for w, s in zip(weights, said, strict=True)]
    k, n = sum(symbols), len(symbols)
    texts = [c**k * (1 - c) ** (n - k) for c in coins]
    found = text_bits(scored(losses))
    assert found == pytest.approx(-math.log2(sum(p * t for p, t in zip(prior, texts, strict=True))))
    assert found < min(-math.log2(p) - math.log2(t) for p, t in zip(prior, texts, strict=True))


def test_an_arithmetic_coder_that_learns_along_pays_these_bits_and_is_read():
    symbols = tosses(500)
    encoder, sizes = Encoder(), [1, 1]
    for x in symbols:
        encoder.put(x, sizes)
        sizes[x] += 1
    message = encoder.finish()
    bits = text_bits(scored(counting(symbols, 1)))
    assert bits <= 8 * len(message) <= bits + 2 + 8  # two to end, and a whole byte
    decoder, sizes, read = Decoder(message), [1, 1], []
    for _ in symbols:
        read.append(decoder.get(sizes))
        sizes[read[-1]] += 1
    assert read == symbols


# What was learned.


def test_the_area_above_the_final_loss_is_what_was_learned():
    assert prequential_bits([3.0, 2.0, 1.0], 10, 0.5) == pytest.approx((25 + 15 + 5) / math.log(2))
    assert prequential_bits([0.7] * 5, 100, 0.7) == pytest.approx(0.0)
    with pytest.raises(ValueError, match="a loss a step"):
        prequential_bits([], 10, 0.5)


def test_a_coin_of_unknown_bias_costs_what_an_adaptive_coder_pays_beyond_its_entropy():
    """Learning in one pass is to count. About ½ log2 n bits: the precision to which n tosses fix one number."""
    symbols = tosses(1000)
    counts = [symbols.count(0), symbols.count(1)]
    found = prequential_bits(counting(symbols, 0.5), 1, final=entropy_bits(counts) / 1000 * math.log(2))
    assert found == pytest.approx(adaptive_bits(counts) - entropy_bits(counts))
    assert found == pytest.approx(0.5 * math.log2(1000), abs=1)


# The pass.


def model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(TransformerConfig(V, 16, 1, 2, 1, 32, context=8, tie_embeddings=False))


def text_of(documents: int = 6, seed: int = 0):
    """Documents of several lengths, in which each token is the one before plus 1 or 2."""
    parts = [torch.zeros(1, dtype=torch.long)]
    for i in range(documents):
        steps = torch.randint(1, 3, (9 + 5 * i,), generator=generator(seed + i))
        parts += [1 + steps.cumsum(0) % (V - 1), torch.zeros(1, dtype=torch.long)]
    return windows(torch.cat(parts), 8)


def test_each_token_is_scored_by_the_model_before_its_step_as_in_a_loop_by_hand():
    text, one, two = text_of(), model(), model()
    found = learn_as_it_goes(one, text, V, lr=0.01, batch=3, alpha=0.1)
    steps = math.ceil(len(text.rows) / 3)
    config = TrainConfig(steps, lr=0.01, min_lr_ratio=0.02)
    optimizer, log_p, foreseen, document = torch.optim.Adam(two.parameters()), [], [], []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, config)
        losses = []
        for row, of in list(zip(text.rows, text.document, strict=True))[3 * step : 3 * step + 3]:
            row = row[row >= 0]
            said = two(row[None, :-1])[0].log_softmax(dim=-1)
            losses += [-said[i, token] for i, token in enumerate(row[1:].tolist())]
            foreseen += entropy(smoothed(said.detach(), 0.1)).tolist()
            document += [int(of)] * (len(row) - 1)
        log_p += [-loss.item() for loss in losses]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
    torch.testing.assert_close(found.log_p, torch.tensor(log_p, dtype=torch.float64), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.foreseen, torch.tensor(foreseen, dtype=torch.float64), atol=1e-4, rtol=1e-4)
    assert found.document.tolist() == document and (found.alpha, found.V) == (0.1, V)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_no_token_has_a_say_in_what_stands_before_it():
    text = text_of()
    changed = copy.deepcopy(text)
    changed.rows[5, 3] = 1 + changed.rows[5, 3] % (V - 1)  # in the second batch of four
    one, two = (learn_as_it_goes(model(), some, V, lr=0.01, batch=4).log_p for some in (text, changed))
    first = int((text.rows[:5, 1:] >= 0).sum()) + 2  # the changed token is the third that its window predicts
    assert torch.equal(one[:first], two[:first]) and one[first] != two[first]
    later = int((text.rows[:8, 1:] >= 0).sum())
    assert (one[later:] != two[later:]).all()


def test_learning_in_one_pass_lowers_the_loss_and_beats_guessing():
    text, learner = text_of(documents=40), model()
    found = learn_as_it_goes(learner, text, V, lr=0.01, batch=4)
    final = score(learner, text, alpha=None)
    assert final.bits < found.bits < math.log2(V)
    assert text_bits(found) == pytest.approx(found.bits * len(found.log_p))
    learned = prequential_bits((-found.log_p).tolist(), 1, final.bits * math.log(2))
    assert learned == pytest.approx(text_bits(found) - text_bits(final)) and learned > 0
    assert document_bound(found, 0.0, DELTA).value > token_bound(found, 0.0, DELTA).value  # 40 beside 4,000


# What it bounds.


def risk_and_losses(symbols: list[int], p: float, alpha: float) -> tuple[float, list[float]]:
    """Of who counts, mixed with guessing: the mean of E[X_k | tosses before k], and the losses before mixing."""
    heads, tails, expected, losses = 1, 1, [], []
    for x in symbols:
        q = heads / (heads + tails)
        losses.append(-math.log(q if x else 1 - q))
        mixed = (1 - alpha) * q + alpha / 2
        expected.append(-p * math.log(mixed) - (1 - p) * math.log(1 - mixed))
        heads, tails = heads + x, tails + 1 - x
    return sum(expected) / len(expected), losses


def test_at_0_nats_the_bound_holds_for_learning_as_it_goes_and_fails_for_losses_after_learning():
    """Laws of known risk. The negative: tokens that were scored after they had been learned, here all but by heart."""
    n, broken, peeking = 100, 0, 0
    for seed in range(200):
        symbols = tosses(n, 0.3, seed)
        risks = {alpha: risk_and_losses(symbols, 0.3, alpha) for alpha in ALPHAS}
        bound = token_bound(scored(risks[ALPHAS[0]][1]), 0.0, DELTA)
        broken += bound.value * math.log(2) < risks[bound.alpha][0]
        after = token_bound(scored([-math.log(0.99)] * n), 0.0, DELTA)
        peeking += after.value * math.log(2) < risks[after.alpha][0]
    assert broken <= DELTA * 200 and peeking > 0.9 * 200


def test_the_last_model_named_by_the_text_is_occams_bound_at_the_texts_bits_and_vacuous():
    final = scored([2.5] * 400, V)
    bits = 400 * 2.0 / math.log(2)  # 2 nats a token
    found = as_a_message(final, bits, DELTA)
    nats = nats_of(bits) + math.log(len(ALPHAS))
    by_hand = [azuma(float(final.losses(a).mean()), 400, nats, DELTA, smoothed_span(a, V)) for a in ALPHAS]
    assert found.value == pytest.approx(min(by_hand) / math.log(2))
    easy = as_a_message(scored([0.01] * 400, V), bits, DELTA)  # whatever the last model loses
    assert found.vacuous and easy.vacuous
    assert not as_a_message(scored([0.01] * 4000, V), bits / 100, DELTA).vacuous


def test_a_learner_of_nothing_has_learned_nothing():
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(2, 2))

        def forward(self, tokens):
            return torch.zeros(*tokens.shape, V) + 0 * self.unused.sum()

    found = learn_as_it_goes(Fixed(), text_of(), V, lr=0.1, batch=4)
    assert found.bits == pytest.approx(math.log2(V))
    assert prequential_bits((-found.log_p).tolist(), 1, math.log(V)) == pytest.approx(0, abs=1e-3)
