"""Exactness of speculative decoding: token for token when greedy, in distribution when sampled."""

import itertools

import pytest
import torch
from scipy.stats import chi2

from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.speculative.decoding import autoregressive, collect, speculative, verify_greedy, verify_sampled
from minilab.speculative.models import HuggingFaceModel
from minilab.speculative.sampling import Sampling, target_probs


def tiny(seed: int, vocab: int = 23, layers: int = 2, context: int = 96, spread: float = 0.5) -> Transformer:
    """A random model with strong dependence on the whole history."""
    config = TransformerConfig(vocab_size=vocab, dim=32, n_layers=layers, n_heads=4, n_kv_heads=2, hidden_dim=48,
                               context=context)
    torch.manual_seed(seed)
    model = Transformer(config).eval().requires_grad_(False)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.normal_(0, spread if p is model.embed.weight else 0.25)
    return model


def related(target: Transformer, noise: float, seed: int = 1) -> Transformer:
    """A draft that agrees with the target often but not always."""
    draft = Transformer(target.config).eval()
    draft.load_state_dict(target.state_dict())
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in draft.parameters():
            p += noise * p.std() * torch.randn_like(p) if p.dim() == 2 else 0
    return draft


@pytest.fixture(scope="module")
def pair():
    target = tiny(0)
    return target, related(target, 0.3)


PROMPTS = [[5, 3, 8], [1], [], [7] * 20, [2, 9, 2, 9, 2]]


@pytest.mark.parametrize("K", [0, 1, 2, 5, 9])
@pytest.mark.parametrize("noise", [0.0, 0.15, 0.3, 3.0])
def test_greedy_speculative_equals_greedy_autoregressive(pair, K, noise):
    """Every acceptance rate from all (K + 1 a round) to almost none, rows of unequal length and speed."""
    target, draft = pair[0], related(pair[0], noise)
    expected = collect(autoregressive(target, PROMPTS, max_new_tokens=30), 5)
    result = collect(speculative(target, draft, PROMPTS, K=K, max_new_tokens=30), 5)
    assert result.tokens == expected.tokens
    if noise == 0.0 and K:
        assert result.acceptance_rate == 1.0, "the draft is the target: a starved KV cache shows here"
    if 0 < noise < 1 and K > 1:
        assert 0.1 < result.acceptance_rate < 0.99, "this test needs partial acceptance"


def test_rows_of_a_batch_do_not_feel_each_other(pair):
    alone = [collect(speculative(*pair, [p], K=4, max_new_tokens=25), 1).tokens[0] for p in PROMPTS]
    assert collect(speculative(*pair, PROMPTS, K=4, max_new_tokens=25), 5).tokens == alone


def test_the_drafts_cache_is_never_stale(pair):
    """The draft's proposals equal those it makes from a fresh cache, whatever was accepted before."""
    target, draft = pair
    reads = []

    class Spy:
        vocab_size, context, start_token, device = draft.vocab_size, draft.context, 0, draft.device
        new_cache = staticmethod(draft.new_cache)

        def __call__(self, tokens, *, cache, last_only=False):
            logits = draft(tokens, cache=cache, last_only=last_only)
            reads.append((int(cache.lengths[0]), int(logits[0, -1].argmax())))
            return logits

    result = collect(speculative(target, Spy(), [[5, 3, 8]], K=4, max_new_tokens=40), 1)
    text = [5, 3, 8] + result.tokens[0]
    fresh = draft(torch.tensor([text]))[0].argmax(-1)
    position, checked = 3, 0
    proposals = [r for r in reads if r[0] >= 3]
    for step in result.rounds:
        mine, proposals = proposals[: step.drafted], proposals[step.drafted :]
        for (_, token), at in zip(mine[: step.accepted[0] + 1], itertools.count(position), strict=False):
            assert token == fresh[at - 1]
            checked += 1
        position += len(step.tokens[0])
    assert checked > 30


@pytest.mark.parametrize("sampling", [Sampling(1.0), Sampling(0.7, top_k=4), Sampling(2.5, top_p=0.9)])
@pytest.mark.parametrize("K", [1, 3])
def test_sampled_output_is_distributed_as_the_target(sampling, K):
    """Chi-square over all 5^3 three-token outputs, whose probabilities are computed by enumeration."""
    target, samples = tiny(3, vocab=5, spread=0.4), 12_000
    draft = related(target, 0.8)
    words = list(itertools.product(range(5), repeat=3))
    with torch.no_grad():
        texts = torch.tensor([(4, 1, *w) for w in words])
        probs = target_probs(target(texts), sampling)[:, 1:4].gather(-1, texts[:, 2:, None]).prod(dim=1)[:, 0]
    assert probs.sum().item() == pytest.approx(1, abs=1e-5)
    rounds = speculative(target, draft, [[4, 1]] * samples, K=K, max_new_tokens=3, sampling=sampling,
                         generator=torch.Generator().manual_seed(0))
    result = collect(rounds, samples)
    assert 0.3 < result.acceptance_rate < 0.97
    index = (torch.tensor(result.tokens) @ torch.tensor([25, 5, 1])).bincount(minlength=125).double()
    assert index[probs == 0].sum() == 0, "a token outside top-k or top-p was produced"
    common = probs * samples >= 5  # cells too rare for the chi-square approximation are pooled
    observed = torch.cat((index[common], index[~common].sum()[None]))
    expected = torch.cat((probs[common].double(), probs[~common].sum()[None].double())) * samples
    keep = expected > 0
    statistic = ((observed - expected)[keep] ** 2 / expected[keep]).sum().item()
    assert statistic < chi2.ppf(0.999, int(keep.sum()) - 1), "sampled output is not the target's"


def test_acceptance_rate_estimates_the_overlap_of_the_distributions():
    torch.manual_seed(0)
    p, q = torch.softmax(torch.randn(2, 6), -1)
    n = 50_000
    s = torch.multinomial(q, n, replacement=True)[:, None]
    accepted, _ = verify_sampled(p.expand(n, 2, 6), q.expand(n, 1, 6), s)
    assert accepted.float().mean().item() == pytest.approx(torch.minimum(p, q).sum().item(), abs=0.01)


def test_acceptances_after_a_rejection_do_not_count():
    p = torch.zeros(1, 4, 3)
    p[0, :, 0] = 1
    q = torch.full((1, 3, 3), 1 / 3)
    accepted, bonus = verify_sampled(p, q, torch.tensor([[0, 1, 0]]))
    assert accepted.tolist() == [1] and bonus.tolist() == [0]


def test_greedy_rule_is_the_sampled_rule_on_one_hot_distributions():
    torch.manual_seed(0)
    best, s = torch.randint(3, (200, 5)), torch.randint(3, (200, 4))
    p, q = torch.eye(3)[best], torch.eye(3)[s]
    for ours, theirs in zip(verify_greedy(best, s), verify_sampled(p, q, s), strict=True):
        assert torch.equal(ours, theirs)


def test_stop_tokens_end_a_row_inside_an_accepted_run(pair):
    free = collect(autoregressive(pair[0], PROMPTS, max_new_tokens=30), 5).tokens
    stop = {free[0][7], free[3][2]}
    expected = collect(autoregressive(pair[0], PROMPTS, max_new_tokens=30, stop=stop), 5).tokens
    for row, whole in zip(expected, free, strict=True):
        end = next((i + 1 for i, t in enumerate(whole) if t in stop), len(whole))
        assert row == whole[:end]
    for draft in (pair[1], pair[0]):
        assert collect(speculative(pair[0], draft, PROMPTS, K=5, max_new_tokens=30, stop=stop), 5).tokens == expected


def test_a_sequence_may_fill_the_context_to_its_last_position(pair):
    prompt = list(range(1, 20))
    new = pair[0].context - len(prompt)
    expected = collect(autoregressive(pair[0], [prompt], max_new_tokens=new), 1).tokens
    assert len(expected[0]) == new
    assert collect(speculative(*pair, [prompt], K=6, max_new_tokens=new), 1).tokens == expected


def test_tokens_stream_round_by_round(pair):
    rounds = list(speculative(pair[0], pair[0], [[5]], K=3, max_new_tokens=10))
    assert [len(r.tokens[0]) for r in rounds] == [4, 4, 2]
    assert [r.drafted for r in rounds] == [3, 3, 1], "no draft tokens beyond what is still wanted"


@pytest.mark.parametrize("call, message", [
    (dict(prompts=[[1] * 90], max_new_tokens=10), r"pass the context of 96.*prompt\[-86:\]"),
    (dict(prompts=[[1]], max_new_tokens=0), "at least 1"),
    (dict(prompts=[], max_new_tokens=4), "no prompts"),
    (dict(prompts=[[1]], max_new_tokens=4, K=-1), "cannot be -1"),
])
def test_bad_input_is_refused_early(pair, call, message):
    with pytest.raises(ValueError, match=message):
        next(speculative(*pair, **{"K": 2, **call}))


def test_a_draft_of_another_vocabulary_is_refused(pair):
    with pytest.raises(ValueError, match="another vocabulary"):
        next(speculative(pair[0], tiny(0, vocab=29), [[1]], K=2, max_new_tokens=4))


@pytest.mark.parametrize("K", [2, 5])
def test_hugging_face_models_give_the_same_tokens_as_ours(pair, tmp_path, K):
    """Cross-check of both caches: ours with scattered rows, theirs with masked slots."""
    transformers = pytest.importorskip("transformers")
    from minilab.nn.huggingface import save_hf_folder

    target, draft = (HuggingFaceModel(transformers.AutoModelForCausalLM.from_pretrained(
        save_hf_folder(model, tmp_path / str(i)), dtype=torch.float32)) for i, model in enumerate(pair))
    expected = collect(autoregressive(pair[0], PROMPTS, max_new_tokens=25), 5).tokens
    assert collect(autoregressive(target, PROMPTS, max_new_tokens=25), 5).tokens == expected
    assert collect(speculative(target, draft, PROMPTS, K=K, max_new_tokens=25), 5).tokens == expected
    assert collect(speculative(target, pair[1], PROMPTS, K=K, max_new_tokens=25), 5).tokens == expected
