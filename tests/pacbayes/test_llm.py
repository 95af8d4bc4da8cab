"""Language models under a bound: what a message is of, what is scored, and what is paid."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.pacbayes.bounds import nats_of
from minilab.pacbayes.compress import TRIED, Recipe, rebuild
from minilab.pacbayes.llm import (
    ALPHAS,
    Scored,
    certificate,
    document_bound,
    drawn_documents,
    foreseen_bound,
    learn,
    score,
    token_bound,
    windows,
)
from minilab.pacbayes.lora import LoRA, corrected
from minilab.pacbayes.message import SEAL, decode, unseal
from minilab.pacbayes.sequences import entropy, smoothed, smoothed_span
from minilab.pacbayes.subspace import Subspace

V, DELTA = 16, 0.05
CONFIG = TransformerConfig(V, 16, 1, 4, 2, 32, context=32, tie_embeddings=False)
NETWORK = corrected(CONFIG)
RECIPE = Recipe(network=NETWORK, d=64, L=3, steps=120, rounded_steps=60, batch=16, lr=0.1, power=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def base(*, tied: bool = False, seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(TransformerConfig(V, 16, 2, 4, 2, 32, context=32, tie_embeddings=tied))


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(V, shape, generator=generator(seed))


def with_factors(model: LoRA) -> LoRA:
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(generator=generator(p.numel()))
    return model


# The network.


@pytest.mark.parametrize("tied", [False, True])
def test_before_training_the_model_is_the_one_beneath(tied):
    model = base(tied=tied)
    assert torch.equal(LoRA(model, 3)(tokens(2, 9)), model(tokens(2, 9)))


@pytest.mark.parametrize("tied", [False, True])
def test_queries_values_and_the_head_are_corrected_and_nothing_else(tied):
    model = base(tied=tied)
    lora, by_hand = with_factors(LoRA(model, 3)), copy.deepcopy(model)
    by_hand.head.weight = torch.nn.Parameter(by_hand.head.weight.clone())  # apart from a tied embedding
    q0, v0, q1, v1, head = ((f.B @ f.A).detach() for f in lora.factors)
    with torch.no_grad():
        for block, q, v in zip(by_hand.blocks, (q0, q1), (v0, v1), strict=True):
            block.attn.qkv.weight[:16] += q  # 4 heads of 4, then 2 of keys and 2 of values
            block.attn.qkv.weight[24:] += v
        by_hand.head.weight += head
    assert torch.equal(lora(tokens(2, 9)), by_hand(tokens(2, 9)))
    assert not torch.equal(lora(tokens(2, 9)), model(tokens(2, 9)))


def test_gradients_reach_the_few_numbers_and_nothing_beneath():
    subspace = Subspace(NETWORK, (), V, d=25)
    (model,) = subspace.network.frozen
    for _ in range(2):  # at v = 0 too, where B is 0 and only B moves the output
        subspace(tokens(2, 9)).square().sum().backward()
        assert subspace.v.grad.abs().min() > 0
        subspace.v.data += 0.1
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert [name for name, p in subspace.named_parameters() if p.requires_grad] == ["v"]


def test_the_model_beneath_goes_where_the_network_goes_and_begins_as_the_seed_says():
    one, same, other = (Subspace(NETWORK, (), V, d=25, seed=seed) for seed in (3, 3, 4))
    out = [s(tokens(1, 5)) for s in (one, same, other)]
    assert torch.equal(out[0], out[1]) and not torch.equal(out[0], out[2])
    assert one.double().network.frozen[0].embed.weight.dtype == torch.float64


def test_models_of_another_vocabulary_and_empty_corrections_are_refused():
    with pytest.raises(ValueError, match="16 tokens and the text is written in 17"):
        Subspace(NETWORK, (), 17, d=25)
    with pytest.raises(ValueError, match="at least 1"):
        LoRA(base(), 0)


# The text.


def stream(documents: list[list[int]]) -> torch.Tensor:
    return torch.tensor([0, *(x for document in documents for x in (*document, 0))], dtype=torch.int32)


def test_windows_predict_each_token_once_and_stay_within_a_document():
    documents = [[5] * 3, list(range(1, 12)), [7], []]
    text = windows(stream(documents), 4)
    assert text.document.bincount().tolist() == [1, 3, 1, 1]
    for i, document in enumerate(documents):
        rows = text.rows[text.document == i]
        assert rows[0, 0] == 0
        predicted = rows[:, 1:][rows[:, 1:] >= 0]
        assert predicted.tolist() == [*document, 0]
        assert torch.equal(rows[1:, 0], rows[:-1, -1])  # the last of one is the first of the next
    with pytest.raises(ValueError, match="one before and one behind"):
        windows(torch.tensor([3, 4, 0]), 4)


def test_documents_are_drawn_as_wholes_and_count_as_often_as_they_come():
    text = windows(stream([[1] * 9, [2] * 2, [3] * 6]), 4)
    drawn = drawn_documents(text, 300, generator())
    first = [int(drawn.rows[drawn.document == i][0, 1]) for i in range(300)]
    assert [first.count(x) for x in (1, 2, 3)] == pytest.approx([100] * 3, abs=30)
    for i in (0, 1, 2):
        assert torch.equal(drawn.rows[drawn.document == i], text.rows[text.document == first[i] - 1])


# The score.


@pytest.fixture(scope="module")
def scored_text():
    model = with_factors(LoRA(base(), 2))
    return model, windows(stream([list(range(1, 14)), [3, 3], list(range(9, 0, -1))]), 5)


def test_each_token_is_scored_after_those_before_it_in_its_window(scored_text):
    model, text = scored_text
    found = score(model, text, alpha=0.1, chunk=4)
    expected = []
    for row, document in zip(text.rows, text.document, strict=True):
        for t in range(1, int((row >= 0).sum())):
            log_probs = model(row[None, :t])[0, -1].log_softmax(-1)
            expected.append((log_probs[row[t]], entropy(smoothed(log_probs, 0.1)), document))
    log_p, foreseen, document = (torch.stack(column).detach() for column in zip(*expected, strict=True))
    torch.testing.assert_close(found.log_p.float(), log_p)
    torch.testing.assert_close(found.foreseen.float(), foreseen)
    assert torch.equal(found.document, document)
    assert found.bits == pytest.approx(-float(log_p.mean()) / math.log(2))


def test_picked_tokens_are_those_of_the_whole(scored_text):
    model, text = scored_text
    picked = torch.tensor([20, 3, 3, 0])
    whole, some = score(model, text), score(model, text, picked=picked, chunk=3)
    torch.testing.assert_close(some.log_p, whole.log_p[picked])
    assert torch.equal(some.document, whole.document[picked])
    with pytest.raises(ValueError, match="draw documents"):
        document_bound(some, 1.0, DELTA)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_smoothed_losses_are_those_of_the_smoothed_law_and_stay_in_its_span(alpha):
    log_probs = (8 * torch.randn(200, V, generator=generator(), dtype=torch.float64)).log_softmax(-1)
    log_probs[0] = torch.full((V,), -torch.inf).index_fill(0, torch.tensor(2), 0.0)
    y = tokens(200).index_fill(0, torch.tensor(0), 5)  # what the model held to be impossible
    given = Scored(log_probs.gather(1, y[:, None])[:, 0], torch.zeros(200), y, alpha, V)
    losses = given.losses(alpha)
    torch.testing.assert_close(losses, -smoothed(log_probs, alpha).gather(1, y[:, None])[:, 0])
    assert losses[0] == pytest.approx(math.log(V / alpha))
    low = -math.log(1 - alpha + alpha / V)
    assert low <= losses.min() and losses.max() <= low + smoothed_span(alpha, V) + 1e-9


# The bounds.


def some_scores() -> Scored:
    """Three documents of 40, 10 and 300 tokens."""
    document = torch.arange(3).repeat_interleave(torch.tensor([40, 10, 300]))
    log_p = -(1.5 + document + torch.rand(350, generator=generator(), dtype=torch.float64))
    return Scored(log_p, -log_p.mean() + torch.zeros_like(log_p), document, 0.01, 4096)


@pytest.mark.parametrize("n", [None, 1000])
def test_the_bounds_are_their_formulas_for_the_best_alpha_in_bits(n):
    given, nats = some_scores(), 40.0
    p = given.log_p.exp().tolist()
    for bound, parts in [(document_bound, [p[:40], p[40:50], p[50:]]), (token_bound, [[x] for x in p])]:
        m, least = len(parts), math.inf
        for alpha in ALPHAS:
            losses = [[-math.log2((1 - alpha) * x + alpha / 4096) for x in part] for part in parts]
            loss = sum(sum(part) / len(part) for part in losses) / m
            span, paid = math.log2(1 + (1 - alpha) * 4096 / alpha), nats + math.log(8)
            if n is None:
                gap = math.sqrt((paid + math.log(1 / DELTA)) / (2 * m))
            else:
                r = m / (m + n)
                gap = math.sqrt((paid + math.log(1 / (r * DELTA))) / (2 * n))
                gap += math.sqrt(math.log(1 / ((1 - r) * DELTA)) / (2 * m))
            least = min(least, loss + span * gap)
        assert bound(given, nats, DELTA, n=n).value == pytest.approx(least, rel=1e-12)


def test_a_model_that_foresees_its_losses_is_bounded_more_tightly():
    given = some_scores()
    known = given._replace(foreseen=given.losses(given.alpha))
    blind, seeing = (foreseen_bound(s, 1.0, DELTA) for s in (given, known))
    assert seeing.loss == blind.loss < seeing.value < blind.value < token_bound(given, 1.0, DELTA).value


def chain_text(law: torch.Tensor, documents: int, length: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Documents from a Markov chain on the tokens from 1 on, with 0 after each; and the law of each token."""
    state, states = torch.zeros(documents, dtype=torch.long), []
    for _ in range(length):
        state = torch.multinomial(law[state], 1, generator=generator(seed + len(states)))[:, 0]
        states.append(state)
    ends = torch.zeros(documents, 1, dtype=torch.long)
    rows = torch.cat((torch.stack(states, 1), ends), 1)
    laws = law[torch.cat((ends, rows[:, :-1]), 1)]
    laws[:, -1] = torch.eye(V)[0]
    return torch.cat((ends[0], rows.flatten())), laws.flatten(0, 1)


@pytest.fixture(scope="module")
def chain():
    """A chain whose next token is one of three, a text of it, the laws of its tokens, and a file that was learned."""
    law = torch.zeros(V, V)
    for x in range(V):
        law[x, 1 + torch.randperm(V - 1, generator=generator(x))[:3]] = torch.tensor([0.8, 0.15, 0.05])
    ids, laws = chain_text(law, 600, 31, seed=0)
    text = windows(ids, 32)
    return text, laws, learn(text, V, RECIPE, networks=(NETWORK,))


def test_the_file_is_the_model_that_was_trained_bit_for_bit(chain):
    text, _, file = chain
    values = decode(unseal(file)[0]).values().double()
    subspace = Subspace(NETWORK, (), V, d=64).double()
    sent = {name: w.float() for name, w in subspace.weights(values).items()}
    with torch.no_grad():  # as it is scored: attention that keeps gradients sums in another order
        expected = functional_call(subspace.float().network, sent, (text.rows[:, :-1],))
        assert torch.equal(rebuild(file, (), V, networks=(NETWORK,))(text.rows[:, :-1]), expected)


def test_a_file_certifies_more_than_guessing_and_no_less_than_the_risk(chain):
    """The chain is known, and so is what the rebuilt model loses if each token is drawn again after its past."""
    text, laws, file = chain
    found = certificate(file, text, V, networks=(NETWORK,))
    with torch.no_grad():
        logits = rebuild(file, (), V, networks=(NETWORK,))(text.rows[:, :-1].clamp(min=0))
    log_probs = logits[text.rows[:, 1:] >= 0].log_softmax(-1)
    for bound in (found.tokens, found.foreseen):
        risk = -float((laws * smoothed(log_probs, bound.alpha)).sum(-1).mean()) / math.log(2)
        assert risk <= bound.value < 3.2
        assert not bound.vacuous
    assert found.foreseen.value < found.tokens.value < found.documents.value  # 19,200 tokens, 600 documents
    scored = score(rebuild(file, (), V, networks=(NETWORK,)), text)
    assert found.bits == 8 * (len(file) - SEAL) and found.loss == pytest.approx(scored.bits)
    nats = nats_of(found.bits) + math.log(TRIED)
    assert found.tokens == token_bound(scored, nats, DELTA) and found.documents == document_bound(scored, nats, DELTA)


def test_scoring_without_alpha_says_the_same_of_each_token_and_foresees_nothing():
    text, model = windows(stream([[1, 2, 3], [4, 5]]), 2), base()
    whole, bare = score(model, text), score(model, text, alpha=None)
    assert torch.equal(bare.log_p, whole.log_p) and torch.equal(bare.document, whole.document)
    assert token_bound(bare, 3.0, DELTA) == token_bound(whole, 3.0, DELTA)
    assert bare.foreseen is None and whole.foreseen is not None
    with pytest.raises(ValueError, match="give `score` an alpha"):
        foreseen_bound(bare, 3.0, DELTA)


def test_a_text_of_random_tokens_leaves_nothing_to_certify():
    ids = torch.cat((tokens(1, seed=1) * 0, tokens(6000, seed=2), torch.zeros(1, dtype=torch.long)))
    text = windows(ids, 32)
    found = certificate(learn(text, V, RECIPE, networks=(NETWORK,)), text, V, networks=(NETWORK,))
    assert all(bound.vacuous for bound in (found.documents, found.tokens, found.foreseen))
    assert found.loss == pytest.approx(math.log2(V), abs=0.05)


def test_recipes_for_other_losses_and_for_networks_that_no_message_names_are_refused():
    text = windows(stream([[1, 2]]), 4)
    with pytest.raises(ValueError, match="not in the list"):
        learn(text, V, RECIPE, networks=(corrected(CONFIG),))
    with pytest.raises(ValueError, match="power=0"):
        learn(text, V, replace(RECIPE, power=0.5), networks=(NETWORK,))
