"""The simulator against closed forms, against hand-drawn rounds, and against the engine's own clock."""

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from minilab.speculative import fanout, theory
from minilab.speculative.engine import sequential, ssd
from minilab.speculative.simulate import (
    SCHEDULERS,
    Costs,
    Outcome,
    draw_outcomes,
    long_run,
    outcomes_of,
    replay,
    simulate,
)

UNIT = {"verify": 1.0, "step": 1.0}
HIT, MISS = Outcome((2,), (True,)), Outcome((1,), (False,))


def kinds(line) -> list[tuple]:
    return [(e.lane, e.kind, e.start, e.end, e.round) for e in line.events]


def durations(line, rounds: int) -> np.ndarray:
    """Seconds of each round, from the end of the one before."""
    ends = np.zeros(rounds)
    for event in line.events:
        ends[event.round] = max(ends[event.round], event.end)
    return np.diff(ends, prepend=0.0)


def assert_rate(line, outcomes, expected: float) -> None:
    """Tokens a second are as expected within four standard errors of the ratio of two means."""
    tokens = np.array([sum(o.accepted) + len(o.accepted) for o in outcomes])
    seconds = durations(line, len(outcomes))
    error = np.std(tokens - expected * seconds) / np.sqrt(len(outcomes)) / seconds.mean()
    assert error < 0.01 * expected, "too few rounds for this test to mean something"
    assert abs(line.tokens_per_s - expected) < 4 * error


def test_autoregressive_decoding_takes_one_step_a_token():
    line = simulate("ar", Costs(verify=3.0, step=0.5, draft=0.1, prepare=1.0), [Outcome((2, 0, 1), (True,) * 3)] * 7, 4)
    assert line.seconds == pytest.approx(7 * 0.5) and line.tokens == 7 * 3
    assert line.idle("target") == 0 and line.idle("draft") == 1


@pytest.mark.parametrize("alpha, K, cost, verify", [(0.8, 4, 0.12, 1.0), (0.6, 2, 0.05, 1.4), (0.9, 8, 0.3, 1.2)])
def test_speculative_decoding_gains_what_theorem_3_8_says(alpha, K, cost, verify):
    outcomes = draw_outcomes(alpha, K, 0.5, 20_000, seed=1)
    line = simulate("sd", Costs(verify=verify, step=1.0, draft=cost, prepare=9.0), outcomes, K)
    assert_rate(line, outcomes, theory.speedup(alpha, K, cost, verify))


@pytest.mark.parametrize("hit_rate, T_p, T_b", [(0.8, 0.7, 0.4), (0.3, 1.0, 0.0), (1.0, 1.6, 0.4), (0.0, 0.5, 0.4)])
def test_ssd_gains_what_theorem_7_says(hit_rate, T_p, T_b):
    E = theory.expected_tokens(0.8, 4)
    outcomes = draw_outcomes(0.8, 4, hit_rate, 20_000, seed=2)
    line = simulate("ssd", Costs(**UNIT, draft=0.1, prepare=T_p, fallback=T_b), outcomes, 4)
    assert_rate(line, outcomes, theory.ssd_speedup(hit_rate, E_hit=E, E_miss=E, T_p=T_p, T_b=T_b))


@pytest.mark.parametrize("batch, hit_rate", [(4, 0.9), (16, 0.95)])
def test_batch_waits_for_any_miss_as_corollary_16_says(batch, hit_rate):
    E = theory.expected_tokens(0.7, 3)
    outcomes = draw_outcomes(0.7, 3, hit_rate, 20_000, batch=batch, seed=3)
    line = simulate("ssd", Costs(**UNIT, draft=0.2, prepare=0.8), outcomes, 3)
    gain = theory.ssd_batch_speedup(batch, hit_rate, E_hit=E, E_miss=E, T_p=0.8, T_b=0.6)
    assert_rate(line, outcomes, batch * gain)


def test_preparation_longer_than_verification_delays_misses_too():
    """Theorem 7 lets a miss end it; here, as in the engine, the draft must finish first."""
    costs = Costs(**UNIT, draft=0.1, prepare=1.5)
    assert durations(simulate("ssd", costs, [MISS, HIT, MISS], 4), 3) == pytest.approx([1.9, 1.5, 1.9])


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("contention", [1.0, 1.4])
def test_long_run_is_where_the_simulation_tends_to(scheduler, contention):
    costs = Costs(verify=1.2, step=1.0, draft=0.1, prepare=0.7, handshake=0.05, contention=contention)
    outcomes = draw_outcomes(0.75, 4, 0.8, 20_000, batch=2, seed=4)
    line = simulate(scheduler, costs, outcomes, 4)
    mean = long_run(scheduler, costs, 4, alpha=0.75, hit_rate=0.8, batch=2)
    if scheduler == "ar":
        assert line.tokens_per_s == pytest.approx(mean.tokens / mean.seconds)
    else:
        assert_rate(line, outcomes, mean.tokens / mean.seconds)
    for lane, idle in (("target", mean.idle_target), ("draft", mean.idle_draft)):
        assert line.idle(lane) == pytest.approx(idle, abs=0.01)


def test_a_hit_goes_on_at_once_and_a_miss_waits_for_the_fallback():
    line = simulate("ssd", Costs(verify=4.0, step=3.0, draft=1.0, prepare=3.0, handshake=0.5), [MISS, HIT], 2)
    assert kinds(line) == [
        ("draft", "handshake", 0.0, 0.5, 0), ("draft", "fallback", 0.5, 2.5, 0),
        ("draft", "prepare", 2.5, 5.5, 0), ("target", "verify", 2.5, 6.5, 0),
        ("draft", "handshake", 6.5, 7.0, 1),
        ("draft", "prepare", 7.0, 10.0, 1), ("target", "verify", 7.0, 11.0, 1)]
    assert line.idle("target") == pytest.approx(3 / 11) and line.idle("draft") == pytest.approx(2 / 11)
    assert [line.tokens_by(t) for t in (6.4, 6.5, 10.9, 11.0)] == [0, 2, 2, 5]


def test_lanes_slow_each_other_only_while_both_are_busy():
    costs = Costs(verify=3.0, step=1.0, draft=0.0, prepare=1.0, contention=1.5)
    assert kinds(simulate("ssd", costs, [HIT], 2)) == [  # until 1.5 at two thirds of the speed, then 2 of 3 remain
        ("draft", "prepare", 0.0, 1.5, 0), ("target", "verify", 0.0, 3.5, 0)]
    slow_draft = Costs(verify=1.0, step=1.0, draft=0.0, prepare=3.0, contention=1.5)
    assert kinds(simulate("ssd", slow_draft, [HIT], 2)) == [
        ("target", "verify", 0.0, 1.5, 0), ("draft", "prepare", 0.0, 3.5, 0)]


@pytest.mark.parametrize("verify, prepare", [(1.0, 1.0), (1.3, 0.4), (0.6, 2.0)])
def test_contention_of_two_gains_nothing_and_of_one_the_whole_shorter_task(verify, prepare):
    def seconds(contention):
        costs = Costs(verify=verify, step=1.0, draft=0.1, prepare=prepare, contention=contention)
        return simulate("ssd", costs, [HIT] * 5, 2).seconds

    assert seconds(2.0) == pytest.approx(5 * (verify + prepare))
    assert seconds(1.0) == pytest.approx(5 * max(verify, prepare))
    assert seconds(1.0) < seconds(1.3) < seconds(2.0)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("costs", [
    Costs(verify=1.1, step=1.0, draft=0.13, prepare=0.7, handshake=0.03, contention=1.3),
    Costs(verify=1.1, step=1.0, draft=0.13, prepare=1.9, fallback=0.0, contention=1.7),
])
def test_events_of_a_lane_are_ordered_and_never_overlap(scheduler, costs):
    outcomes = draw_outcomes(0.8, 4, 0.7, 300, batch=2, seed=5)
    line = simulate(scheduler, costs, outcomes, 4)
    ends = [e.end for e in line.events]
    assert ends == sorted(ends) and line.seconds == ends[-1]
    for lane in ("target", "draft"):
        mine = [e for e in line.events if e.lane == lane]
        assert all(e.start < e.end for e in mine)
        assert all(a.end <= b.start and a.round <= b.round for a, b in itertools.pairwise(mine))
    passes = [e.round for e in line.events if e.lane == "target"]
    assert passes == list(range(300)), "the target passes once a round"
    missed = {i for i, o in enumerate(outcomes) if not all(o.hit)}
    waited = {e.round for e in line.events if e.kind == "fallback"}
    assert waited == (missed if scheduler == "ssd" and costs.fallback is None else set())


def test_schedulers_make_the_same_tokens_of_the_same_outcomes():
    outcomes = draw_outcomes(0.8, 4, 0.7, 50, batch=3, seed=6)
    expected = sum(k + 1 for o in outcomes for k in o.accepted)
    for scheduler in ("sd", "ssd"):
        line = simulate(scheduler, Costs(**UNIT, draft=0.1, prepare=0.5), outcomes, 4)
        assert line.tokens == line.tokens_by(line.seconds) == expected


def test_ssd_is_never_slower_than_sd_when_preparing_hides_behind_the_verification():
    outcomes = draw_outcomes(0.8, 4, 0.6, 200, seed=7)
    costs = Costs(**UNIT, draft=0.1, prepare=0.9)
    assert simulate("ssd", costs, outcomes, 4).seconds < simulate("sd", costs, outcomes, 4).seconds
    never = [Outcome(o.accepted, (False,)) for o in outcomes]
    assert simulate("ssd", costs, never, 4).seconds == pytest.approx(simulate("sd", costs, never, 4).seconds)


def test_outcomes_follow_their_law_and_the_first_round_misses():
    outcomes = draw_outcomes(0.7, 3, 0.6, 20_000, batch=2, seed=8)
    counts = np.bincount([k for o in outcomes for k in o.accepted], minlength=4)
    expected = 40_000 * theory.accepted_pmf(0.7, 3)
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # chi-square, 3 degrees of freedom: p = 0.001
    hits = np.array([o.hit for o in outcomes])
    assert [o.hit for o in draw_outcomes(0.7, 3, 1.0, 3, batch=2)] == [(False, False), (True, True), (True, True)]
    assert hits[1:].mean(axis=0) == pytest.approx(0.6, abs=4 * (0.24 / 20_000) ** 0.5)
    assert hits.all(axis=1).mean() == pytest.approx(0.36, abs=4 * (0.23 / 20_000) ** 0.5), "rows are independent"
    assert draw_outcomes(0.7, 3, 0.6, 5, seed=8) == draw_outcomes(0.7, 3, 0.6, 5, seed=8)
    for alpha, k in ((0.0, 0), (1.0, 3)):
        assert {o.accepted for o in draw_outcomes(alpha, 3, 1.0, 50)} == {(k,)}


@pytest.fixture(scope="module")
def measured(random_model):
    """Rounds of a real engine, of models large enough that what a simulation leaves out is small."""
    target, draft = (random_model(0, 23, dim=256, layers=4) for _ in range(2))
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in draft.parameters():
            if p.dim() == 2:
                p += 0.1 * p.std() * torch.randn(p.shape, generator=noise)
    return list(ssd(target, draft, [[5, 3, 8], [7] * 9], K=3, fan_out=partial(fanout.uniform, 16), max_new_tokens=40,
                    executor=sequential))


def test_replay_in_sequence_takes_what_the_engine_took(measured):
    sequence, overlapped = replay(measured)
    walls = np.array([r.seconds.together + r.seconds.fallback for r in measured])
    assert sequence.seconds == pytest.approx(walls.sum(), rel=0.05)
    parts = [sum(getattr(r.seconds, part) for r in measured) for part in ("verify", "prepare", "fallback")]
    assert min(parts) > 0.05 * walls.sum(), "each part must matter for this test to notice that it is left out"
    hidden = sum(min(r.seconds.verify, r.seconds.prepare) for r in measured)
    assert overlapped.seconds == pytest.approx(sequence.seconds - hidden)
    assert sequence.tokens == overlapped.tokens == 2 * 40
    assert replay(measured, contention=2.0)[1].seconds == pytest.approx(sequence.seconds)
    assert replay(measured, handshake=0.5)[1].seconds == pytest.approx(overlapped.seconds + 0.5 * len(measured))


def test_replay_never_looks_at_the_time_of_both_together(measured):
    other = [replace(r, seconds=replace(r.seconds, together=1e9)) for r in measured]
    assert replay(other) == replay(measured)


def test_outcomes_of_the_engine_are_its_rounds(measured):
    outcomes = outcomes_of(measured)
    assert sum(k + 1 for o in outcomes for k in o.accepted) == 2 * 40
    assert [list(o.hit) for o in outcomes] == [r.hits for r in measured]
    assert {all(o.hit) for o in outcomes} == {True, False}, "this test needs both hits and misses"
    costs = Costs(**UNIT, draft=0.1, prepare=0.5)
    misses = sum(not all(r.hits) for r in measured)
    assert simulate("ssd", costs, outcomes, 3).seconds == pytest.approx(len(measured) + 0.3 * misses)


@pytest.mark.parametrize("change, message", [
    ({"draft": -0.1}, "draft is -0.1"),
    ({"fallback": -1.0}, "fallback is -1.0"),
    ({"handshake": float("nan")}, "handshake is nan"),
    ({"prepare": float("inf")}, "finite number"),
    ({"verify": 0.0}, "a pass of the target takes time"),
    ({"contention": 0.9}, "contention is 0.9"),
])
def test_impossible_costs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Costs(**({"verify": 1.0, "step": 1.0, "draft": 0.1, "prepare": 0.5} | change))


@pytest.mark.parametrize("call, message", [
    (lambda costs: simulate("pearl", costs, [HIT], 2), "choose one of ar, sd, ssd"),
    (lambda costs: simulate("sd", costs, [], 2), "there are 0 outcomes"),
    (lambda costs: simulate("sd", costs, [HIT], 0), "K is 0"),
    (lambda costs: simulate("sd", costs, [HIT], 1), "accepts .2,. of K=1"),
    (lambda costs: simulate("sd", costs, [Outcome((-1,), (True,))], 1), "accepts .-1,. of K=1"),
    (lambda costs: Outcome((1, 2), (True,)), "one entry a row"),
    (lambda costs: draw_outcomes(0.8, 4, 1.1, 5), "hit rate 1.1"),
    (lambda costs: draw_outcomes(-0.1, 4, 0.5, 5), "alpha is -0.1"),
    (lambda costs: draw_outcomes(0.8, 4, 0.5, 0), "0 rounds of 1 rows"),
    (lambda costs: long_run("ar", costs, 4, alpha=0.8, hit_rate=-0.2), "hit rate -0.2"),
    (lambda costs: replay([]), "it got 0 rounds"),
])
def test_impossible_requests_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(Costs(**UNIT, draft=0.1, prepare=0.5))
