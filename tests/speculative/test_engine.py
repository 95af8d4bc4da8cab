"""Speculative speculative decoding: whatever is guessed, and however the tasks run, the text is the target's."""

import itertools
import os
from functools import partial

import pytest
import torch
from scipy.stats import chi2

from minilab.nn.graphs import StaticModel
from minilab.speculative import data, engine, fanout
from minilab.speculative.decoding import autoregressive, collect, speculative
from minilab.speculative.fallback import FALLBACKS, fast_fallback, follow_ngram
from minilab.speculative.sampling import Sampling, target_probs
from minilab.speculative.worker import DraftProcess

PROMPTS = [[5, 3, 8], [1], [7] * 20, [2, 9, 2, 9, 2], [4, 4]]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
SIX = partial(fanout.uniform, 6)


def run(target, draft, prompts=PROMPTS, **options):
    options = {"K": 3, "fan_out": SIX, "max_new_tokens": 12} | options
    rounds = list(engine.ssd(target, draft, prompts, **options))
    return collect(iter(rounds), len(prompts)), rounds


def target_and_draft(random_model, seed: int, vocab: int):
    """A target, and a draft that often agrees with it."""
    target, draft = random_model(seed, vocab), random_model(seed, vocab)
    with torch.no_grad():
        for p in draft.parameters():
            if p.dim() == 2:
                p += 0.2 * p.std() * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    return target, draft


@pytest.fixture(scope="module")
def models(random_model):
    return target_and_draft(random_model, 0, 23)


@pytest.fixture(scope="module")
def ways(models):
    """Each way to run the two sides: the draft to hand to `ssd`, and the executor."""
    with DraftProcess(models[1]) as process:
        yield {"sequential": (models[1], engine.sequential), "process": (process, engine.sequential),
               "static": (StaticModel(models[1]), engine.sequential)}


@pytest.mark.parametrize("fallback", FALLBACKS)
@pytest.mark.parametrize("way", ["sequential", "process", "static"])
@pytest.mark.parametrize("K, budget", [(1, 1), (3, 6), (4, 30)])
def test_greedy_output_equals_autoregressive(models, ways, fallback, way, K, budget):
    expected = collect(autoregressive(models[0], PROMPTS, max_new_tokens=25), len(PROMPTS)).tokens
    draft, executor = ways[way]
    found, rounds = run(models[0], draft, K=K, fan_out=partial(fanout.uniform, budget), max_new_tokens=25,
                        fallback=fallback, executor=executor)
    assert found.tokens == expected
    hits = [hit for step in rounds[1:] for hit in step.hits]
    assert any(hits) and (budget == 30 or not all(hits)), "this test needs both hits and misses"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_streams_without_a_gpu_are_refused_with_a_way_out():
    with pytest.raises(ValueError, match="needs a CUDA GPU; on CPU cores a DraftProcess"):
        engine.Overlapped()


@needs_cuda
@pytest.mark.parametrize("fallback", FALLBACKS)
@pytest.mark.parametrize("devices", [(0, 0), (0, 1)])
def test_on_streams_the_text_is_that_of_one_task_after_the_other(random_model, fallback, devices):
    """Greedy it is the target's; at a temperature both ways draw the same numbers, so it is equal too."""
    if max(devices) >= torch.cuda.device_count():
        pytest.skip("there is one GPU")
    target, draft = (StaticModel(m.to(f"cuda:{device}"))
                     for m, device in zip(target_and_draft(random_model, 0, 23), devices, strict=True))
    for sampling in (Sampling(0.0), Sampling(1.0)):
        options = dict(max_new_tokens=60, fallback=fallback, sampling=sampling)
        expected, _ = run(target, draft, **options)
        found, _ = run(target, draft, executor=engine.Overlapped(draft.device), **options)
        assert found.tokens == expected.tokens
        if sampling.greedy:
            assert found.tokens == collect(autoregressive(target, PROMPTS, max_new_tokens=60), len(PROMPTS)).tokens


@pytest.mark.slow
@pytest.mark.parametrize("fallback", FALLBACKS)
def test_shipped_pair_writes_the_same_text_on_hundreds_of_prompts(shipped, fallback):
    prompts = [shipped.encode(p) for p in data.prompts(240, words=8, seed=3)]
    expected = collect(autoregressive(shipped.target, prompts, max_new_tokens=12), 240).tokens
    found, _ = run(shipped.target, shipped.draft, prompts, K=4, fan_out=partial(fanout.geometric, 12, alpha=0.6, r=0.5),
                   fallback=fallback)
    assert found.tokens == expected


@pytest.mark.parametrize("fallback, C", [("jit", 1.0), ("jit", 0.3), ("jit", 0.0), ("ngram", 0.5), ("random", 1.0)])
@pytest.mark.parametrize("sampling", [Sampling(2.0), Sampling(1.5, top_k=4)])
def test_sampled_output_is_distributed_as_the_target(random_model, fallback, C, sampling):
    """Chi-square over all 5^4 outputs; four tokens of K = 1 cross several lookups of the cache."""
    (target, draft), samples = target_and_draft(random_model, 3, 5), 8_000
    words = list(itertools.product(range(5), repeat=4))
    texts = torch.tensor([(4, 1, *w) for w in words])
    probs = target_probs(target(texts), sampling)[:, 1:5].gather(-1, texts[:, 2:, None]).prod(dim=1)[:, 0]
    found, rounds = run(target, draft, [[4, 1]] * samples, K=1, fan_out=partial(fanout.uniform, 2), max_new_tokens=4,
                        sampling=sampling, fallback=fallback, C=C, seed=5)
    hits = [hit for step in rounds[1:] for hit in step.hits]
    assert min(sum(hits), len(hits) - sum(hits)) > 500, "this test needs both hits and misses"
    index = (torch.tensor(found.tokens) @ torch.tensor([125, 25, 5, 1])).bincount(minlength=625).double()
    assert index[probs == 0].sum() == 0
    common = probs * samples >= 5
    observed = torch.cat((index[common], index[~common].sum()[None]))
    expected = torch.cat((probs[common], probs[~common].sum()[None])).double() * samples
    kept = expected > 1e-9
    statistic = ((observed - expected)[kept] ** 2 / expected[kept]).sum().item()
    assert statistic < chi2.ppf(0.999, int(kept.sum()) - 1)


def test_a_perfect_draft_with_every_guess_always_hits(random_model):
    model = random_model(0, 23)
    for sampling in (Sampling(), Sampling(1.0)):
        found, rounds = run(model, model, fan_out=lambda K: [0] * K + [23], sampling=sampling)
        assert all(all(step.hits) for step in rounds[1:])
        assert all(k == step.drafted for step in rounds for k in step.accepted)
        assert all(step.seconds.fallback == 0 for step in rounds[1:])


def test_rank_tells_which_fan_out_would_have_hit(models):
    """One run gives the whole hit curve: the next round hits exactly if its rank is below the fan-out."""
    for sampling in (Sampling(), Sampling(1.5)):
        _, rounds = run(*models, fan_out=lambda K: [2] * (K + 1), max_new_tokens=40, sampling=sampling)
        seen = set()
        for now, later in itertools.pairwise(rounds):
            rank_of = dict(zip(now.rows, now.ranks, strict=True))
            for row, hit in zip(later.rows, later.hits, strict=True):
                assert hit == (rank_of[row] < 2)
                seen.add(hit)
        assert seen == {True, False}


def test_more_guesses_hit_more_often(models):
    rates = []
    for budget in (4, 16, 64):
        _, rounds = run(*models, fan_out=partial(fanout.uniform, budget), max_new_tokens=40, sampling=Sampling(1.0))
        hits = [hit for step in rounds[1:] for hit in step.hits]
        rates.append(sum(hits) / len(hits))
    assert rates[0] < rates[1] < rates[2]


def test_saguaro_trades_acceptance_for_hits(models):
    found = {}
    for C in (1.0, 0.1):
        result, rounds = run(*models, PROMPTS * 8, max_new_tokens=40, sampling=Sampling(1.5), C=C)
        rejected = [r for step in rounds for r, k in zip(step.ranks, step.accepted, strict=True) if k < step.drafted]
        found[C] = result.acceptance_rate, sum(r < 2 for r in rejected) / len(rejected)
    assert found[0.1][0] < found[1.0][0] - 0.05, "acceptance must fall"
    assert found[0.1][1] > found[1.0][1] + 0.05, "guesses after a rejection must hit more often"


@pytest.mark.parametrize("fallback", FALLBACKS)
def test_rounds_do_not_depend_on_how_the_tasks_run(models, ways, fallback):
    """One seed, one text, one cache: the way of running decides about time alone."""
    runs = [run(models[0], draft, sampling=Sampling(1.0), C=0.5, executor=executor, fallback=fallback, seed=9)[1]
            for draft, executor in ways.values()]
    facts = [[(r.rows, r.tokens, r.accepted, r.hits, r.ranks, r.guesses, r.cache_bytes) for r in rounds]
             for rounds in runs]
    assert facts[0] == facts[1] == facts[2]


@pytest.mark.parametrize("way", ["sequential", "process"])
def test_without_inspection_the_rounds_are_the_same_and_their_statistics_empty(models, ways, way):
    draft, executor = ways[way]
    options = dict(K=3, fan_out=partial(fanout.uniform, 6), max_new_tokens=20, sampling=Sampling(1.0), seed=2)
    (text, seen), (same, unseen) = (run(models[0], draft, executor=executor, inspect=inspect, **options)
                                    for inspect in (True, False))
    assert text.tokens == same.tokens and [r.hits for r in seen] == [r.hits for r in unseen]
    assert all(r.ranks and r.guesses and r.prepared for r in seen)
    assert not any(r.ranks or r.guesses or r.prepared for r in unseen)


def test_a_process_goes_on_after_a_cancelled_stream_and_reports_what_failed(models, random_model):
    with DraftProcess(models[1]) as process:
        stream = engine.ssd(models[0], process, PROMPTS, K=3, fan_out=SIX, max_new_tokens=30)
        first = next(stream)
        stream.close()
        assert run(models[0], process)[1][0].tokens == first.tokens
        with pytest.raises(RuntimeError, match="draft's process failed(.|\n)*out of range"):
            run(models[0], process, [[5, 99]])  # no such token
        assert run(models[0], process)[1][0].tokens == first.tokens
        process._process.kill()
        with pytest.raises(RuntimeError, match="ended"):
            run(models[0], process)


def test_a_process_keeps_to_its_core_and_gives_the_callers_back(models):
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("cores cannot be chosen here")
    before = os.sched_getaffinity(0)
    with DraftProcess(models[1]) as process:
        assert len(os.sched_getaffinity(0)) == len(os.sched_getaffinity(process._process.pid)) == 1
        assert os.sched_getaffinity(0) != os.sched_getaffinity(process._process.pid)
    assert os.sched_getaffinity(0) == before


def test_rounds_are_those_of_plain_speculation_when_the_fallback_is_the_draft(models):
    """Greedy with jit: a hit holds what the draft would have drafted just in time, so only the waiting differs."""
    plain = collect(speculative(*models, PROMPTS, K=3, max_new_tokens=25), len(PROMPTS))
    found, _ = run(*models, max_new_tokens=25)
    assert [s.accepted for s in found.rounds] == [s.accepted for s in plain.rounds]


def test_stop_token_inside_a_cached_branch_ends_the_row(models):
    plain = collect(autoregressive(models[0], PROMPTS, max_new_tokens=30), len(PROMPTS)).tokens
    stop = plain[2][7]
    expected = [row[: row.index(stop) + 1] if stop in row else row for row in plain]
    found, rounds = run(*models, max_new_tokens=30, K=5, fan_out=partial(fanout.uniform, 40), stop=(stop,))
    assert found.tokens == expected and min(map(len, expected)) < 30
    assert any(hit for step in rounds[1:] for hit in step.hits)


@pytest.mark.parametrize("new", [1, 2, 3, 11])
def test_generation_may_end_at_the_contexts_last_position(random_model, new):
    target, draft = (random_model(seed, 11, context=16) for seed in (0, 1))
    prompts = [[1, 2, 3, 4, 5], [6, 7]]
    expected = collect(autoregressive(target, prompts, max_new_tokens=new), 2).tokens
    for fallback in FALLBACKS:
        assert run(target, draft, prompts, max_new_tokens=new, K=6, fallback=fallback)[0].tokens == expected


def test_a_stream_may_be_cancelled_half_way(models):
    stream, again = (engine.ssd(*models, PROMPTS, K=3, fan_out=SIX, max_new_tokens=30) for _ in range(2))
    first = next(stream)
    stream.close()
    assert next(again).tokens == first.tokens


def test_a_failing_task_reaches_the_caller(models):
    class Broken:
        vocab_size, context, start_token = 23, 256, 0
        device = torch.device("cpu")

        def __init__(self, model):
            self.new_cache, self.passes, self.model = model.new_cache, 0, model

        def __call__(self, *args, **kwargs):
            self.passes += 1
            if self.passes > 3:
                raise RuntimeError("out of memory")
            return self.model(*args, **kwargs)

    with pytest.raises(RuntimeError, match="out of memory"):
        run(Broken(models[0]), models[1])


def test_rows_that_missed_are_prepared_by_the_fan_out_for_them(models):
    lists = {True: lambda K: [2] * K + [1], False: lambda K: [1] + [2] * K}
    _, rounds = run(*models, fan_out=lists[True], after_miss=lists[False], max_new_tokens=40)
    seen = set()
    for step in rounds:
        for hit, guesses in zip(step.hits, step.guesses, strict=True):
            counts = [sum(k == j for k, _ in guesses) for j in range(step.drafted + 1)]
            assert counts == lists[hit](step.drafted)
            seen.add(hit)
    assert seen == {True, False}


def test_cache_budget_cuts_the_branches_and_not_the_text(models):
    expected = collect(autoregressive(models[0], PROMPTS, max_new_tokens=12), len(PROMPTS)).tokens
    found, rounds = run(*models, cache_bytes=3 * 5 * (16 + 8 * 3))
    assert found.tokens == expected
    assert rounds[0].cache_bytes == 3 * 5 * (16 + 8 * 3), "three branches for each of five rows"


@pytest.mark.parametrize("options, message", [
    ({"K": 0}, "at least 1 draft token"),
    ({"fan_out": lambda K: [0] * (K + 1)}, "same sum, at least 1"),
    ({"after_miss": partial(fanout.uniform, 5)}, "same sum"),
    ({"fallback": "oracle"}, "choose one of jit, ngram, random"),
    ({"cache_bytes": 100}, "too small for one branch"),
    ({"max_new_tokens": 1000}, "pass the context"),
    ({"C": 2.0, "sampling": Sampling(1.0)}, "C must lie"),
])  # fmt: skip
def test_impossible_requests_say_what_to_do(models, options, message):
    with pytest.raises(ValueError, match=message):
        run(*models, **options)


def test_draft_of_another_vocabulary_or_a_shorter_context_is_refused(models, random_model):
    with pytest.raises(ValueError, match="another vocabulary"):
        run(models[0], random_model(0, 24))
    with pytest.raises(ValueError, match="pass the context of 16"):
        run(models[0], random_model(0, 23, context=16))


def test_ngram_follows_the_latest_longest_match():
    assert follow_ngram([1, 2, 3, 9, 1, 2, 3], 2) == [9, 1]
    assert follow_ngram([1, 2, 8, 3, 2, 7, 1, 2], 3) == [8, 3, 2], "two tokens matched beat the later one"
    assert follow_ngram([5, 4, 5, 4], 5) == [5, 4, 5, 4, 5], "a continuation into the present goes on"
    assert follow_ngram([1, 2, 3], 2) is None and follow_ngram([1], 2) is None
    guesses = fast_fallback("ngram", [[1, 2, 3, 9, 1, 2, 3], [1, 2, 3]], 2, 30, torch.Generator().manual_seed(0))
    assert guesses[0].tolist() == [9, 1] and guesses.shape == (2, 2) and int(guesses.max()) < 30
