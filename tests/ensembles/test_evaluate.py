"""Ensembles' losses against a subset-by-subset reference in double precision, and the inequalities that they obey."""

import itertools
import math

import pytest
import torch

from minilab.ensembles import evaluate
from minilab.ensembles.evaluate import (
    KCurve,
    all_subsets,
    bits_per_byte,
    calibration,
    jackknife_error,
    k_curve,
    log_normalizer,
    paired_difference,
    subset_losses,
    token_log_probs,
    top_predictions,
)

K, R, T, V = 4, 5, 6, 11
AVERAGES = ("logits", "probabilities")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def bigram(seed=0, members=K, spread=2.0):
    """Members that look at the last token only: a table of logits each."""
    table = spread * torch.randn(members, V, V, generator=generator(seed))
    return lambda tokens: table[:, tokens]


@pytest.fixture
def windows():
    return torch.randint(V, (R, T + 1), generator=generator(7))


def by_hand(predict, windows, members, average):
    """The loss of one ensemble on each window, from its law over the vocabulary written out in full."""
    logits = predict(windows[:, :-1]).double()[list(members)]
    if average == "logits":
        law = logits.mean(dim=0).softmax(dim=-1)
    else:
        law = logits.softmax(dim=-1).mean(dim=0)
    return -law.gather(2, windows[:, 1:, None])[..., 0].log().mean(dim=1)


@pytest.mark.parametrize("average", AVERAGES)
def test_every_subset_is_the_ensemble_written_out(average, windows):
    predict, subsets = bigram(), all_subsets(K)
    losses = subset_losses(predict, windows, subsets, average=average, chunk=2)
    for row, loss in zip(subsets, losses, strict=True):
        torch.testing.assert_close(loss, by_hand(predict, windows, row.nonzero()[:, 0].tolist(), average),
                                   atol=2e-6, rtol=1e-6)


def test_subsets_are_all_there_once_and_the_smallest_come_first():
    rows = [tuple(row.nonzero()[:, 0].tolist()) for row in all_subsets(5)]
    assert sorted(rows) == sorted(c for k in range(1, 6) for c in itertools.combinations(range(5), k))
    assert [len(row) for row in rows] == sorted(len(row) for row in rows)


@pytest.mark.parametrize("average", AVERAGES)
def test_the_curve_is_the_mean_over_subsets_and_begins_at_the_members(average, windows):
    predict = bigram()
    curve = k_curve(predict, windows, K, average=average)
    for k in range(1, K + 1):
        losses = [by_hand(predict, windows, c, average).mean() for c in itertools.combinations(range(K), k)]
        assert float(curve.mean[k - 1]) == pytest.approx(float(torch.stack(losses).mean()), abs=2e-6)
    members = -token_log_probs(predict, windows).double().mean(dim=(1, 2))
    torch.testing.assert_close(curve.losses[:K].mean(dim=1), members, atol=2e-6, rtol=1e-6)
    torch.testing.assert_close(curve.whole, by_hand(predict, windows, range(K), average), atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("spread", [0.1, 2.0, 30.0])
def test_no_ensemble_loses_more_than_its_members_on_average(average, spread, windows):
    """In each window: Jensen for probabilities, Z <= 1 for logits. And the curve falls throughout."""
    curve = k_curve(bigram(1, spread=spread), windows, K, average=average)
    mean = curve.subsets.double() @ curve.losses[:K] / curve.subsets.sum(dim=1, keepdim=True)
    assert (curve.losses <= mean + 1e-5).all()
    assert (curve.mean.diff() < 0).all()


def test_the_gain_of_averaged_logits_is_the_normalizer(windows):
    """Loss of the ensemble = mean loss of its members + E[log Z], which is never positive."""
    predict = bigram()
    found = predict(windows[:, :-1]).log_softmax(dim=-1).flatten(1, 2)
    log_z = log_normalizer(found, torch.full((1, K), 1 / K))
    curve = k_curve(predict, windows, K)
    assert (log_z < 0).all()
    assert float(curve.whole.mean()) == pytest.approx(float(curve.mean[0] + log_z.mean()), abs=2e-6)


@pytest.mark.parametrize("average", AVERAGES)
def test_copies_of_one_member_gain_nothing(average, windows):
    one = bigram(3, members=1)
    curve = k_curve(lambda tokens: one(tokens).expand(K, -1, -1, -1), windows, K, average=average)
    torch.testing.assert_close(curve.losses, curve.losses[:1].expand_as(curve.losses), atol=2e-6, rtol=0)


def test_a_gain_of_1_over_k_for_members_that_hardly_differ(windows):
    """To second order in what members differ by, c(1 - 1/k) is what k of them gain."""
    base, noise = torch.randn(V, V, generator=generator(1)), torch.randn(K, V, V, generator=generator(2))
    curve = k_curve(lambda tokens: (base + 0.03 * noise)[:, tokens], windows, K)
    gain = curve.mean[0] - curve.mean
    expected = gain[-1] * (1 - 1 / torch.arange(1, K + 1).double()) / (1 - 1 / K)
    torch.testing.assert_close(gain, expected, atol=3e-6, rtol=0.01)


@pytest.mark.parametrize("average", AVERAGES)
def test_chunks_change_nothing(average, windows, monkeypatch):
    usual = subset_losses(bigram(), windows, all_subsets(K), average=average)
    monkeypatch.setattr(evaluate, "CELLS", 1)  # a token at a time
    for chunk in (1, 3, 100):
        torch.testing.assert_close(subset_losses(bigram(), windows, all_subsets(K), average=average, chunk=chunk),
                                   usual, atol=1e-6, rtol=0)


@pytest.mark.parametrize("average", AVERAGES)
def test_members_that_contradict_each_other_far_beyond_float32(average):
    """Each is sure of another token by 300 nats: every probability but one is 0 in float32, and Z is e^-200."""
    def predict(tokens):
        return (300 * torch.eye(3))[:, None, None].expand(3, *tokens.shape, 3)

    windows = torch.tensor([[0, 0], [0, 1]])
    loss = subset_losses(predict, windows, torch.tensor([[True, True, True], [False, True, True]]), average=average)
    expected = {"logits": [[math.log(3)] * 2, [150 + math.log(2), math.log(2)]],
                "probabilities": [[math.log(3)] * 2, [300.0, math.log(2)]]}[average]
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), atol=1e-4, rtol=0)


@pytest.mark.parametrize("average", AVERAGES)
def test_a_token_that_all_members_rule_out_changes_nothing(average, windows):
    """Logits of -inf, as for the padding of a vocabulary."""
    predict = bigram()
    padded = subset_losses(lambda tokens: torch.nn.functional.pad(predict(tokens), (0, 3), value=-torch.inf), windows,
                           all_subsets(K), average=average)
    torch.testing.assert_close(padded, subset_losses(predict, windows, all_subsets(K), average=average),
                               atol=1e-6, rtol=0)


def test_the_curve_without_a_member_is_the_curve_of_the_others(windows):
    predict = bigram()
    curve = k_curve(predict, windows, K)
    for k in range(K):
        others = [i for i in range(K) if i != k]
        alone = k_curve(lambda tokens, others=others: predict(tokens)[others], windows, K - 1)
        torch.testing.assert_close(curve.left_out[k], alone.mean, atol=1e-6, rtol=0)
    assert curve.standard_error.shape == (K - 1,)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    members = torch.randn(9, generator=generator(), dtype=torch.float64)
    left_out = (members.sum() - members) / 8
    assert float(jackknife_error(left_out)) == pytest.approx(float(members.std() / 3))
    losses = torch.cat((members[:3, None], torch.zeros(4, 1, dtype=torch.float64)))
    curve = KCurve(all_subsets(3), losses)
    assert float(curve.standard_error[0]) == pytest.approx(float(members[:3].std() / 3**0.5))


def test_one_member_has_a_curve_of_one_point(windows):
    curve = k_curve(bigram(members=1), windows, 1)
    assert curve.mean.shape == (1,) and curve.left_out.shape == (1, 0)


def test_a_paired_difference_does_not_see_what_windows_share():
    g = generator(3)
    hard = 5 * torch.randn(400, generator=g)
    better = 0.02 + 0.1 * torch.randn(400, generator=g)
    found = paired_difference(hard + better, hard, g)
    assert found.mean == pytest.approx(float(better.mean()), abs=1e-6)
    assert found.standard_error == pytest.approx(float(better.std()) / 20, rel=0.1)
    assert found.low < found.mean < found.high
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * found.standard_error, rel=0.1)


def test_bits_per_byte_by_hand():
    """A uniform law over 256 bytes costs 8 bits a byte, in tokens of one byte or of two."""
    assert bits_per_byte(math.log(256), tokens=10, bytes=10) == pytest.approx(8)
    assert bits_per_byte(math.log(256**2), tokens=5, bytes=10) == pytest.approx(8)
    assert bits_per_byte(3.0, tokens=100, bytes=237) == pytest.approx(3 / math.log(2) / 2.37)


# Calibration.


def test_a_table_by_hand():
    table = calibration(torch.tensor([0.1, 0.2, 0.6, 0.7, 1.0]), torch.tensor([False, True, False, True, True]), bins=2)
    assert table.count.tolist() == [2, 3] and table.edges.tolist() == [0, 0.5, 1]
    assert table.accuracy.tolist() == pytest.approx([0.5, 2 / 3])
    assert table.confidence.tolist() == pytest.approx([0.15, 2.3 / 3])
    assert table.error == pytest.approx((0.7 + 0.3) / 5)
    assert table.overconfidence == pytest.approx((2.6 - 3) / 5)


def test_a_bin_holds_its_upper_edge_and_the_first_holds_zero():
    table = calibration(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), torch.tensor([True] * 3), bins=4)
    assert table.count.tolist() == [1, 1, 0, 1] and table.accuracy[2].isnan()


def test_a_calibrated_model_has_hardly_an_error_and_one_that_is_too_sure_has_its_excess():
    g = generator(5)
    confidence = 0.3 + 0.6 * torch.rand(200_000, generator=g, dtype=torch.float64)
    right = torch.rand(200_000, generator=g, dtype=torch.float64) < confidence
    assert calibration(confidence, right).error < 3 * (15 / 200_000) ** 0.5 / 2
    surer = calibration(confidence + 0.1, right)
    assert surer.error == pytest.approx(0.1, abs=0.005) and surer.overconfidence == pytest.approx(0.1, abs=0.005)
    assert calibration(confidence - 0.1, right).overconfidence == pytest.approx(-0.1, abs=0.005)


@pytest.mark.parametrize("average", AVERAGES)
def test_top_predictions_are_those_of_the_averaged_law(average, windows):
    predict = bigram()
    confidence, correct = top_predictions(predict, windows, average=average, chunk=2)
    logits = predict(windows[:, :-1]).double()
    law = logits.mean(0).softmax(-1) if average == "logits" else logits.softmax(-1).mean(0)
    torch.testing.assert_close(confidence.double(), law.amax(-1).flatten(), atol=1e-6, rtol=0)
    assert torch.equal(correct, (law.argmax(-1) == windows[:, 1:]).flatten())


def test_an_ensemble_is_less_sure_than_its_members(windows):
    """The largest probability of a mean law is at most the mean of the largest."""
    predict = bigram()
    alone = [top_predictions(lambda tokens, k=k: predict(tokens)[k : k + 1], windows)[0] for k in range(K)]
    together, _ = top_predictions(predict, windows, average="probabilities")
    assert (together <= torch.stack(alone).mean(dim=0) + 1e-6).all()


# Bad input.


@pytest.mark.parametrize("call, says", [
    (lambda w: k_curve(bigram(), w, 0), "1 to 12"),
    (lambda w: k_curve(bigram(), w, 13), "choose some subsets"),
    (lambda w: k_curve(bigram(), w, 3), "4 members answer"),
    (lambda w: k_curve(bigram(), w[:, :1], K), "at least 2"),
    (lambda w: k_curve(bigram(), w[:0], K), "R windows"),
    (lambda w: k_curve(bigram(), w, K, average="mean"), "choose logits"),
    (lambda w: top_predictions(bigram(), w, average="mean"), "choose logits"),
    (lambda w: k_curve(bigram(), w, K, chunk=0), "positive chunk"),
    (lambda w: k_curve(lambda tokens: bigram()(tokens)[..., :6], w, K), "tokenizer"),
    (lambda w: k_curve(lambda tokens: bigram()(tokens)[:, :, 1:], w, K), "K B T V"),
    (lambda w: subset_losses(bigram(), w, torch.zeros(1, K, dtype=torch.bool)), "no member"),
    (lambda w: paired_difference(torch.zeros(3), torch.zeros(4), generator()), "same windows"),
    (lambda w: bits_per_byte(3.0, tokens=0, bytes=4), "0 tokens"),
    (lambda w: calibration(torch.tensor([2.0]), torch.tensor([True])), "not logits"),
    (lambda w: calibration(torch.tensor([0.5]), torch.tensor([True, True])), "one outcome"),
    (lambda w: calibration(torch.tensor([0.5]), torch.tensor([True]), bins=0), "at least one bin"),
])
def test_bad_input_says_what_to_do(call, says, windows):
    with pytest.raises(ValueError, match=says):
        call(windows)


def test_a_diverged_member_is_named(windows):
    def predict(tokens):
        logits = bigram()(tokens).clone()
        logits[2, :, 1] = torch.nan
        return logits

    with pytest.raises(ValueError, match=r"members \[2\]"):
        k_curve(predict, windows, K)
