"""Making a draft: the data it sees, the losses it learns from, the two numbers it is judged by."""

import copy
import math

import pytest
import torch

from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.speculative.decoding import autoregressive, collect
from minilab.speculative.sampling import GREEDY, Sampling
from minilab.speculative.training import (
    bits_per_byte,
    blocks,
    continuations,
    distillation_loss,
    next_token_loss,
    overlap,
    windows,
)

P = [[0.50, 0.30, 0.15, 0.05], [0.10, 0.20, 0.30, 0.40], [0.25, 0.25, 0.30, 0.20], [0.70, 0.10, 0.15, 0.05]]
Q = [[0.94, 0.01, 0.04, 0.01], [0.40, 0.30, 0.20, 0.10], [0.10, 0.60, 0.25, 0.05], [0.60, 0.20, 0.10, 0.10]]
WARM = Sampling(temperature=1.0)


def text(n: int, vocab: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(vocab, (n,), generator=torch.Generator().manual_seed(seed))


def predictions(tokens: torch.Tensor, length: int) -> list[tuple[int, int]]:
    """(newest token, next token) at each position of the whole blocks of a text."""
    last = (len(tokens) - 1) // length * length
    return list(zip(tokens[:last].tolist(), tokens[1 : last + 1].tolist(), strict=True))


def test_a_window_depends_on_step_and_seed_alone():
    tokens = text(500, 97)
    draw = windows(tokens, 12, 3, seed=4)
    first = draw(7)
    draw(8)
    torch.manual_seed(99)
    assert torch.equal(draw(7), first)
    assert torch.equal(windows(tokens, 12, 3, seed=4)(7), first), "a resumed run sees other data"
    assert not torch.equal(draw(8), first)
    assert not torch.equal(windows(tokens, 12, 3, seed=5)(7), first)


def test_windows_are_stretches_of_the_text_and_reach_both_its_ends():
    draw = windows(torch.arange(20, dtype=torch.int32), 4, 8, seed=0)
    batches = torch.cat([draw(step) for step in range(60)])
    assert batches.shape == (480, 5) and batches.dtype == torch.long
    assert (batches.diff(dim=1) == 1).all()
    assert set(batches[:, 0].tolist()) == set(range(16)), "every start, and none that runs over the end"
    counts = batches[:, 0].bincount()
    assert counts.min() > 10, "starts are drawn evenly: 30 expected of each"


def test_a_text_of_one_window_is_enough_and_a_shorter_one_is_refused():
    assert windows(torch.arange(5), 4, 2, seed=0)(0).tolist() == [[0, 1, 2, 3, 4]] * 2
    with pytest.raises(ValueError, match="4 tokens are fewer than one window of 5"):
        windows(torch.arange(4), 4, 2, seed=0)


@pytest.mark.parametrize("n, length, batch", [(41, 8, 2), (41, 8, 16), (46, 8, 3), (48, 8, 4), (9, 8, 1)])
def test_blocks_predict_each_token_once(n, length, batch):
    found = list(blocks(torch.arange(n, dtype=torch.int32), length, batch))
    assert all(1 <= len(b) <= batch and b.shape[1] == length + 1 for b in found)
    whole = torch.cat(found)
    count = (n - 1) // length * length
    assert whole[:, 1:].flatten().tolist() == list(range(1, count + 1))
    assert whole[:, :-1].flatten().tolist() == list(range(count))


def test_a_text_shorter_than_a_block_is_refused_in_words(table_model):
    with pytest.raises(ValueError, match="8 tokens are fewer than one window of 9"):
        next(blocks(torch.arange(8), 8, 2))
    with pytest.raises(ValueError, match="fewer than one window"):
        bits_per_byte(table_model(P), torch.tensor([0, 1]), 1.0, length=8)


def test_next_token_loss_is_the_mean_surprise_of_a_loop(random_model):
    model, batch = random_model(0, 11), text(3 * 8, 11).view(3, 8)
    losses = []
    for row in batch:
        for t in range(1, 8):
            logits = model(row[None, :t])[0, -1].detach().double()
            losses.append(float(logits.exp().sum().log() - logits[row[t]]))
    assert next_token_loss(model, batch).item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_even_guesses_cost_the_log_of_the_vocabulary():
    config = TransformerConfig(vocab_size=37, dim=8, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=8)
    model = Transformer(config).eval()
    model.embed.weight.data.zero_()  # the head is tied to it
    found = bits_per_byte(model, text(100, 37), 2.5, length=16, batch=4)
    assert found == pytest.approx(math.log2(37) / 2.5, rel=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 4, 50])
def test_bits_per_byte_weigh_every_token_alike(table_model, batch):
    """10 blocks: batches of 3 and 4 leave a short one, which a mean of means would count too much."""
    tokens = text(85, 4)
    bits = [-math.log2(P[x][y]) for x, y in predictions(tokens, 8)]
    assert len(bits) == 80
    found = bits_per_byte(table_model(P), tokens, 3.0, length=8, batch=batch)
    assert found == pytest.approx(sum(bits) / len(bits) / 3.0, rel=1e-5)


@pytest.mark.parametrize("sampling", [WARM, GREEDY, Sampling(0.5, top_k=7)])
def test_overlap_of_a_model_with_itself_is_one(random_model, sampling):
    model = random_model(0, 23)
    assert overlap(model, model, text(200, 23), sampling, length=16) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("batch", [3, 16])
def test_overlap_is_one_minus_total_variation(table_model, temperature, batch):
    """At temperature 1/2 a table's rows are squared and scaled to sum to 1, for target and draft alike."""

    def law(row):
        warmed = [p ** (1 / temperature) for p in row]
        return [p / sum(warmed) for p in warmed]

    tokens = text(60, 4)
    distance = [
        sum(abs(p - q) for p, q in zip(law(P[x]), law(Q[x]), strict=True)) / 2
        for x, _ in predictions(tokens, 8)
    ]
    found = overlap(table_model(P), table_model(Q), tokens, Sampling(temperature), length=8, batch=batch)
    assert found == pytest.approx(1 - sum(distance) / len(distance), rel=1e-5)


def test_greedy_overlap_is_the_share_of_positions_with_the_same_best_token(table_model):
    tokens = text(60, 4)
    same = [P[x].index(max(P[x])) == Q[x].index(max(Q[x])) for x, _ in predictions(tokens, 8)]
    assert 0 < sum(same) < len(same)
    found = overlap(table_model(P), table_model(Q), tokens, GREEDY, length=8)
    assert found == pytest.approx(sum(same) / len(same))


def test_distillation_ends_where_the_student_is_the_teacher(random_model):
    teacher = random_model(0, 23).requires_grad_()
    student = copy.deepcopy(teacher)
    loss = distillation_loss(teacher)(student, text(4 * 9, 23).view(4, 9))
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert max(p.grad.abs().max() for p in student.parameters()) < 1e-6
    assert all(p.grad is None for p in teacher.parameters())


def test_distillation_loss_is_the_divergence_of_the_student_from_the_teacher(table_model):
    """KL(p || q) in nats, in double precision; the other direction differs, and is what a swap would give."""
    batch = text(5 * 7, 4).view(5, 7)
    contexts = batch[:, :-1].flatten()
    p, q = (torch.tensor(table, dtype=torch.double)[contexts] for table in (P, Q))
    forward, backward = ((a * (a / b).log()).sum(-1).mean().item() for a, b in ((p, q), (q, p)))
    assert abs(forward - backward) > 0.01
    student = table_model(Q).requires_grad_()
    loss = distillation_loss(table_model(P))(student, batch)
    assert loss.item() == pytest.approx(forward, rel=1e-5)
    loss.backward()
    assert student.head.weight.grad.abs().max() > 0.01


def test_distillation_pulls_a_table_to_its_teacher(table_model):
    """The mean of p, not the tokens of the text: each row that is seen becomes the teacher's own."""
    teacher, student = table_model(P), table_model(Q).requires_grad_()
    loss_fn, batch = distillation_loss(teacher), torch.tensor([[0, 1, 2, 3, 0]])
    optimizer = torch.optim.Adam([student.head.weight], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss_fn(student, batch).backward()
        optimizer.step()
    found = student(torch.tensor([[0, 1, 2, 3]]))[0].softmax(-1)
    torch.testing.assert_close(found, torch.tensor(P), atol=2e-3, rtol=0)


PROMPTS = [[5, 3, 8], [1], [7] * 20, [2, 9, 2, 9, 2], [4, 4]]


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_continuations_are_each_prompt_and_what_decoding_it_alone_gives(random_model, batch):
    model = random_model(3, 23)
    free = [collect(autoregressive(model, [p], max_new_tokens=12), 1).tokens[0] for p in PROMPTS]
    stop = free[0][4]
    expected = [
        p + (new[: new.index(stop) + 1] if stop in new else new) for p, new in zip(PROMPTS, free, strict=True)
    ]
    assert continuations(model, PROMPTS, new_tokens=12, batch=batch) == [
        p + new for p, new in zip(PROMPTS, free, strict=True)
    ]
    assert continuations(model, PROMPTS, new_tokens=12, batch=batch, stop=(stop,)) == expected


def test_sampled_continuations_differ_between_batches_and_repeat_with_the_seed(random_model):
    """A generator made anew for each batch would write the same text again and again."""
    model = random_model(3, 23)

    def write(seed):
        return continuations(model, [[5]] * 6, new_tokens=10, batch=2, sampling=WARM, seed=seed)

    first = write(0)
    assert len({tuple(row) for row in first}) == 6
    assert write(0) == first and write(1) != first
    assert continuations(model, [], new_tokens=10, batch=2) == []
