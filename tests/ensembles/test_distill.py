"""Samples against laws made by hand, batches counted, and losses worked out one model at a time."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from minilab.ensembles import distill as distill_module
from minilab.ensembles import members as members_module
from minilab.ensembles.distill import (
    Imitation,
    chain,
    distilled,
    imitation_chains,
    invert,
    retention,
    sample_windows,
)
from minilab.ensembles.members import Hyper, RunConfig, order, train_members
from minilab.ensembles.model import Stack, seeded, stack
from minilab.nn.transformer import Transformer, TransformerConfig

V = 6
CONFIG = TransformerConfig(V, 8, 2, 2, 2, 12, context=9, tie_embeddings=False)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("MINILAB_PROGRESS", "0")


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def bigram(log_p: torch.Tensor) -> Transformer:
    """A model whose next token depends on the last alone: log_p[x] is the law after x."""
    model = Transformer(TransformerConfig(V, V, 1, 1, 1, 4, context=12, tie_embeddings=False, norm_eps=1e-12))
    with torch.no_grad():
        model.blocks[0].attn.o.weight.zero_()
        model.blocks[0].ffn.down.weight.zero_()
        model.embed.weight.copy_(torch.eye(V))
        model.head.weight.copy_(log_p.T / V**0.5)  # the norm makes e_x as long as √V
    return model


def table(number: int) -> torch.Tensor:
    return (1.5 * torch.randn(V, V, generator=seed(number))).log_softmax(dim=1)


def lively(K: int = 3) -> Stack:
    """Models that look at all tokens so far, with weights large enough that a mistake shows."""
    model = seeded(CONFIG, range(K))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.6 * torch.randn(p.shape, generator=seed(7)))
    return model


def transitions_p_value(windows: torch.Tensor, law: torch.Tensor) -> float:
    """Of the chi-square test that each token was drawn from the law after the one before it."""
    counts = torch.zeros(V, V).index_put_((windows[:, :-1], windows[:, 1:]), torch.tensor(1.0), accumulate=True)
    expected = counts.sum(dim=1, keepdim=True) * law
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return float(stats.chi2.sf(statistic, V * (V - 1)))


# Samples.


def test_samples_follow_the_law_of_the_model_through_the_ends_of_documents():
    law = table(0)
    windows = sample_windows(stack([bigram(law)]), 2000, 12, seed(), start_token=0)
    assert windows.shape == (2000, 13) and (windows[:, 0] == 0).all()
    assert (windows[:, 1:] == 0).sum() > 500  # the separator: the text goes on behind it
    assert transitions_p_value(windows, law.exp()) > 0.01
    assert transitions_p_value(windows, table(1).exp()) < 1e-9


def test_an_ensemble_writes_by_the_normalized_geometric_mean_and_not_by_the_mean_of_probabilities():
    tables = [table(k) for k in range(3)]
    windows = sample_windows(stack([bigram(t) for t in tables]), 3000, 12, seed(), start_token=0, source="ensemble")
    geometric = torch.stack(tables).exp().prod(dim=0) ** (1 / 3)
    assert transitions_p_value(windows, geometric / geometric.sum(dim=1, keepdim=True)) > 0.01
    assert transitions_p_value(windows, torch.stack(tables).exp().mean(dim=0)) < 1e-9


@pytest.mark.parametrize("batch", [1, 4, 512])
def test_members_of_a_mixture_take_turns_each_with_windows_of_its_own(batch):
    steps = [torch.full((V, V), -60.0).scatter(1, (torch.arange(V)[:, None] + k + 1) % V, 0.0) for k in range(3)]
    model = stack([bigram(t) for t in steps])
    expected = [[(2 + (i % 3 + 1) * t) % V for t in range(8)] for i in range(8)]
    assert sample_windows(model, 8, 7, seed(), start_token=2, batch=batch).tolist() == expected
    assert sample_windows(model, 8, 7, seed(), start_token=2, batch=batch, source=1).tolist() == [expected[1]] * 8


@pytest.mark.parametrize("batch", [4, 512])
@pytest.mark.parametrize("source", ["mixture", "ensemble", 2])
def test_samples_are_those_of_single_models_without_a_cache_whatever_the_batch(source, batch):
    model, starts = lively(), torch.randint(V, (11,), generator=seed(3))
    found = sample_windows(model, 11, 9, seed(5), start_token=starts, source=source, batch=batch)
    u = torch.rand(12 if source == "mixture" else 11, 9, generator=seed(5)).double()
    singles = [model.member(k) for k in range(3)]
    for i in range(11):
        authors = {"mixture": [singles[i % 3]], "ensemble": singles}.get(source, [singles[2]])
        text = [int(starts[i])]
        for t in range(9):
            logits = torch.stack([m(torch.tensor([text]))[0, -1] for m in authors]).double().mean(dim=0)
            text.append(int((logits.softmax(dim=0).cumsum(dim=0) <= u[i, t]).sum()))
        assert found[i].tolist() == text


def test_sampling_repeats_with_its_generator_and_another_gives_another():
    once, again, other = (sample_windows(lively(), 20, 9, seed(s), start_token=0) for s in (1, 1, 2))
    assert torch.equal(once, again) and not torch.equal(once, other)


def test_inversion_never_draws_what_has_no_probability():
    probs = torch.tensor([0.0, 0.25, 0.0, 0.75, 0.0])
    last = 1 - 2**-24  # the largest number that torch.rand gives
    u = torch.tensor([0.0, 0.2499, 0.25, 0.9, last])
    assert invert(probs.expand(5, 5), u).tolist() == [1, 1, 3, 3, 3]
    rough = torch.rand(1000, 301, generator=seed()).softmax(dim=1)
    rough[:, -1] = 0.0  # sums are off 1 by rounding and by this
    assert invert(rough, torch.full((1000,), last)).max() == 299


@pytest.mark.parametrize("change, told", [
    ({"source": "both"}, "source = 'both': choose mixture, ensemble"), ({"source": 3}, "a member from 0 to 2"),
    ({"n": 0}, "0 windows"), ({"batch": 0}, "0 at a time"), ({"length": 10}, "context of 9"),
    ({"start_token": 6}, "start tokens from 6 to 6"),
])
def test_samples_that_cannot_be_are_refused(change, told):
    given = {"n": 4, "length": 5, "start_token": 0, **change}
    with pytest.raises(ValueError, match=told):
        sample_windows(lively(), given.pop("n"), given.pop("length"), seed(), **given)


def test_a_member_that_diverged_does_not_write():
    model = lively()
    with torch.no_grad():
        model.folded.norm.weight[1, 0] = math.nan
    with pytest.raises(ValueError, match="not all finite"):
        sample_windows(model, 4, 5, seed(), start_token=0)


# A student's text.


def windows(n: int, number: int = 0) -> torch.Tensor:
    """A text that can be learned: mostly the token before, and one more."""
    steps = 1 + (torch.rand(n, 9, generator=seed(number)) < 0.2).long()
    return (steps.cumsum(1) + torch.randint(V, (n, 1), generator=seed(number))).remainder(V)


@pytest.mark.parametrize("real, pool, w, batch", [
    (16, 100, 0.75, 4), (16, 100, 0.5, 2), (16, 7, 0.9, 10), (16, 30, 0.75, 2), (15, 20, 0.7, 4), (9, 9, 0.5, 3),
    (8, 5, 0.0, 2), (5, 3, 0.0, 2),
])
def test_each_real_window_comes_once_an_epoch_and_each_batch_has_its_share_of_samples(real, pool, w, batch):
    mix, used = distilled(windows(real), windows(pool, 1), w), torch.zeros(real + pool)
    for epoch in range(6):
        found = mix.order(real + pool, batch, seed=3, epoch=epoch)
        assert len(found) == math.ceil(round(real / batch / (1 - w), 6))  # S / (1 - w)
        assert sorted(found[found < real].tolist()) == list(range(real))
        per_batch = (found >= real).sum(dim=1)
        if real % batch == 0:
            whole = abs(w * batch - round(w * batch)) < 1e-9 and real % round(batch * (1 - w)) == 0
            assert ((per_batch - w * batch).abs() < (1e-9 if whole else 1)).all()
        used += found.flatten().bincount(minlength=real + pool)
    assert (used[:real] == 6).all() and used[real:].max() - used[real:].min() <= 1
    assert torch.equal(mix.windows[:real], windows(real)) and torch.equal(mix.windows[real:], windows(pool, 1))


def test_orders_differ_between_epochs_and_seeds_and_pair_no_window_with_one_sample():
    mix = distilled(windows(9), windows(9, 1), 0.5)
    orders = [mix.order(18, 2, seed=s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert not any(torch.equal(a, b) for a, b in zip(orders, orders[1:] + orders[:1], strict=True))
    pairs = [{frozenset(batch) for batch in found.tolist()} for found in orders]
    assert not pairs[0] <= pairs[1] and all({len(pair & set(range(9))) for pair in p} == {1} for p in pairs)


def test_without_samples_a_mixture_has_the_usual_order():
    mix = distilled(windows(8), windows(5, 1), 0.0)
    for epoch in range(2):
        assert torch.equal(mix.order(13, 2, seed=6, epoch=epoch), order(8, 2, seed=6, epoch=epoch))


def test_a_student_takes_the_steps_that_show_it_real_text_in_every_epoch():
    mix = distilled(windows(16), windows(40, 1), 0.75)
    hypers, run = [Hyper(1e-2, 0.1, 4, 4)], RunConfig(3, 4)
    found = train_members(mix.windows, CONFIG, hypers, run, draw=mix.order)
    assert found.losses.shape == (1, 3 * 4 * 4)  # E S / (1 - w)
    first = mix.windows[mix.order(56, 4, seed=4, epoch=0)[0]]
    torch.testing.assert_close(found.losses[:, 0], seeded(CONFIG, [4]).losses(first[None]).detach())
    assert found.unusual == {"order": "<bound method Mixture.order of Mixture(real=16, w=0.75)>"}


def test_a_share_that_is_none_and_windows_that_do_not_match_are_refused():
    for w in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=f"w = {w}: give a share"):
            distilled(windows(4), windows(4), w)
    for synthetic in (windows(4)[:0], windows(4)[:, :5]):
        with pytest.raises(ValueError, match="at least one of each, of one length"):
            distilled(windows(4), synthetic, 0.5)
    with pytest.raises(ValueError, match="order of 8 windows, asked for 4"):
        distilled(windows(4), windows(4), 0.5).order(4, 2, seed=0, epoch=0)


def test_in_a_chain_each_member_learns_from_the_one_before_and_a_second_call_reads_it_back(tmp_path, monkeypatch):
    real, hypers = windows(16), [Hyper(1e-2, 0.5, k, k) for k in range(3)]
    run = RunConfig(2, 4, checkpoint=tmp_path / "chain.safetensors")
    found = chain(real, CONFIG, hypers, run, seed(1), w=0.5, pool=32, start_token=0)
    generator, apart = seed(1), replace(run, checkpoint=None)
    expected = [train_members(real, CONFIG, hypers[:1], apart).model]
    for hyper in hypers[1:]:
        mix = distilled(real, sample_windows(expected[-1], 32, 8, generator, start_token=0), 0.5)
        expected.append(train_members(mix.windows, CONFIG, [hyper], apart, draw=mix.order).model)
    for k, single in enumerate(expected):
        assert all(torch.equal(a[k], b[0]) for a, b in zip(found.parameters(), single.parameters(), strict=True))
    monkeypatch.setattr(members_module.Stack, "losses", lambda *_: pytest.fail("trained again"))
    again = chain(real, CONFIG, hypers, run, seed(1), w=0.5, pool=32, start_token=0)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), found.parameters(), strict=True))


# The teacher's probabilities.


def test_imitation_is_cross_entropy_and_the_divergence_from_the_averaged_teacher():
    teacher, students = lively(3), lively(2)
    texts = torch.randint(V, (2, 4, 9), generator=seed(2))  # each student's own
    found = Imitation(teacher, 0.7).losses(students, texts)
    for k in range(2):
        tokens, target = texts[k, :, :-1], texts[k, :, 1:]
        q = torch.distributions.Categorical(logits=students.member(k)(tokens))
        p = torch.stack([teacher.member(j)(tokens).softmax(dim=-1) for j in range(3)]).log().mean(dim=0).exp()
        p = torch.distributions.Categorical(probs=p / p.sum(dim=-1, keepdim=True))
        expected = (-q.log_prob(target) + 0.7 * torch.distributions.kl_divergence(p, q)).mean()
        torch.testing.assert_close(found[k], expected, rtol=1e-4, atol=1e-5)
    found.sum().backward()
    assert all(p.grad is None for p in teacher.parameters()) and all(p.grad.any() for p in students.parameters())


def test_imitation_pulls_a_student_to_its_teacher():
    teacher, texts, hypers, run = lively(3), windows(16), [Hyper(1e-2, 0.0, 9, 9)], RunConfig(20, 4, clip=None)
    together = teacher(texts[:, :-1].expand(3, -1, -1)).mean(dim=0).log_softmax(dim=-1).detach()

    @torch.no_grad()
    def distance(model: Stack) -> float:
        log_q = model(texts[None, :, :-1])[0].log_softmax(dim=-1)
        return float(F.kl_div(log_q, together, log_target=True, reduction="none").sum(dim=-1).mean())

    plain = train_members(texts, CONFIG, hypers, run)
    near = train_members(texts, CONFIG, hypers, run, loss=Imitation(teacher, 5.0).losses)
    assert distance(near.model) < 0.5 * distance(plain.model)
    assert near.unusual["loss"].startswith("<bound method Imitation.losses of Imitation(weight=5.0, tutors=False, ")
    with pytest.raises(ValueError, match="weight = 0.0"):
        Imitation(teacher, 0.0)


def test_imitation_pulls_on_logits_by_differences_of_probabilities():
    """The slope of KL(p || q) on the logits of q is q - p, that of the cross-entropy q - e_y."""
    teacher, student, texts = lively(1), stack([lively(2).member(1)]), torch.randint(V, (1, 4, 9), generator=seed(2))
    states: list[torch.Tensor] = []
    hook = student.folded.norm.register_forward_hook(lambda module, given, found: states.append(found))
    loss = Imitation(teacher, 0.7).losses
    loss(student, texts).sum().backward()
    hook.remove()
    tokens, targets = texts[..., :-1], texts[..., 1:]
    p, q = (model(tokens)[0].detach().softmax(dim=-1) for model in (teacher, student))  # B T V
    pull = (q - F.one_hot(targets[0], V) + 0.7 * (q - p)) / targets.numel()
    torch.testing.assert_close(student.folded.head.weight.grad[0], torch.einsum("btv,btd->vd", pull, states[0]))
    ways = [1e-3 * torch.randn(w.shape, generator=seed(i)) for i, w in enumerate(student.parameters())]
    slope = sum(float((w.grad * way).sum()) for w, way in zip(student.parameters(), ways, strict=True))
    ends = []
    for sign in (1, -1):  # and by a difference along one direction, of all weights
        moved = deepcopy(student)
        with torch.no_grad():
            for w, way in zip(moved.parameters(), ways, strict=True):
                w.add_(sign * way)
        ends.append(float(loss(moved, texts).detach()))
    assert (ends[0] - ends[1]) / 2 == pytest.approx(slope, rel=0.01)


def test_a_chain_of_weight_0_is_independent_members():
    real, hypers, run = windows(16), [Hyper(1e-2, 0.5, k, k + 1) for k in range(3)], RunConfig(2, 4)
    (found,) = imitation_chains(real, CONFIG, [hypers], run, weight=0.0)
    together = train_members(real, CONFIG, hypers, run).model
    for k, hyper in enumerate(hypers):
        alone = train_members(real, CONFIG, [hyper], run).model
        for a, b, c in zip(found.parameters(), alone.parameters(), together.parameters(), strict=True):
            assert torch.equal(a[k], b[0])
            torch.testing.assert_close(a[k], c[k], rtol=0, atol=1e-5)


def test_in_an_imitation_chain_only_the_one_before_teaches_and_a_second_call_goes_on(tmp_path, monkeypatch):
    real, hypers, run = windows(16), [Hyper(1e-2, 0.5, k, k) for k in range(3)], RunConfig(2, 4)
    (found,) = imitation_chains(real, CONFIG, [hypers], run, weight=1.5)
    expected = train_members(real, CONFIG, hypers[:1], run).model
    for k, hyper in enumerate(hypers):
        if k:
            expected = train_members(real, CONFIG, [hyper], run, loss=Imitation(expected, 1.5).losses).model
        assert all(torch.equal(a[k], b[0]) for a, b in zip(found.parameters(), expected.parameters(), strict=True))

    class Stop(Exception):
        pass

    train, kept = distill_module.train_members, replace(run, checkpoint=tmp_path / "chain.safetensors")

    def interrupted(windows, config, some, own, **given):
        def stop(done, model):
            if some[0].init_seed == 1 and done >= 6:
                raise Stop

        return train(windows, config, some, replace(own, log_every=1, checkpoint_every=5), on_log=stop, **given)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(distill_module, "train_members", interrupted)
        imitation_chains(real, CONFIG, [hypers], kept, weight=1.5)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["chain-0.safetensors", "chain-1.safetensors"]
    (again,) = imitation_chains(real, CONFIG, [hypers], kept, weight=1.5)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), found.parameters(), strict=True))


def test_chains_side_by_side_are_each_what_it_is_alone():
    real, run = windows(16), RunConfig(2, 4)
    chains = [[Hyper(lr, 0.5, k, k) for k in seeds] for lr, seeds in ((1e-2, (0, 1, 2)), (3e-3, (2, 0, 1)))]
    together = imitation_chains(real, CONFIG, chains, run, weight=1.5)
    for hypers, found in zip(chains, together, strict=True):
        (alone,) = imitation_chains(real, CONFIG, [hypers], run, weight=1.5)
        for a, b in zip(found.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="chains of 3, 2 members"):
        imitation_chains(real, CONFIG, [chains[0], chains[1][:2]], run, weight=1.5)


def test_a_tutor_teaches_one_student():
    teachers, students = seeded(CONFIG, (5, 6, 7)), seeded(CONFIG, (0, 1, 2))
    texts = windows(12).unflatten(0, (3, 4))
    found = Imitation(teachers, 0.7, tutors=True).losses(students, texts)
    for k in range(3):
        alone = Imitation(stack([teachers.member(k)]), 0.7).losses(stack([students.member(k)]), texts[k : k + 1])
        torch.testing.assert_close(found[k], alone[0])
    with pytest.raises(ValueError, match="2 tutors of 3 students"):
        Imitation(seeded(CONFIG, (5, 6)), 0.7, tutors=True).losses(students, texts)


# What the student keeps.


def test_retention_is_the_students_share_of_the_ensembles_gain():
    ensemble = torch.rand(50, generator=seed())
    found = retention(ensemble + 0.2, ensemble + 0.05, ensemble, seed(1))
    assert found == pytest.approx((0.75, 0.75, 0.75), abs=1e-5)  # the same in every window: no doubt
    assert retention(ensemble + 0.2, ensemble + 0.3, ensemble, seed(1)).share == pytest.approx(-0.5, abs=1e-5)


def test_the_interval_of_a_retention_is_as_wide_as_the_delta_method_has_it():
    R, generator = 400, seed(3)
    gain = 0.2 + 0.1 * torch.randn(R, generator=generator)
    kept = 0.8 * gain + 0.05 * torch.randn(R, generator=generator)
    hard = 4 + torch.randn(R, generator=generator)  # windows differ far more than the models do
    found = retention(hard, hard - kept, hard - gain, seed(4))
    deviation = float((kept - found.share * gain).std() / gain.mean()) / R**0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    assert found.low < 0.8 < found.high


def test_a_share_of_no_gain_is_refused():
    losses = 4 + torch.randn(30, generator=seed())
    with pytest.raises(ValueError, match="gains -0.1000 nats.*better ensemble"):
        retention(losses, losses, losses + 0.1, seed())
    with pytest.raises(ValueError, match="may be chance"):
        retention(losses, losses, losses - 0.01 - 0.3 * torch.randn(30, generator=seed(1)), seed())
    with pytest.raises(ValueError, match="losses of 30, 29 and 30 windows"):
        retention(losses, losses[:29], losses, seed())
