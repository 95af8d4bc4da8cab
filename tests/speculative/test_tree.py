"""Tree drafting: each branch must be what the draft would write had it read that branch's text alone."""

import copy

import pytest
import torch

from minilab.speculative.cache import SpeculationCache, branches_within
from minilab.speculative.decoding import prefill
from minilab.speculative.models import HuggingFaceModel
from minilab.speculative.sampling import GREEDY, Sampling, acceptance, residual, starve
from minilab.speculative.tree import fork, glue, grow, tree_mask

SEQUENCES = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1]]  # rows of unequal length
S = torch.tensor([[5, 3, 5], [8, 9, 7]])  # three draft tokens each
FAN_OUT = torch.tensor([[2, 0, 1, 3], [1, 2, 2, 1]])  # six branches each, differently spread


def grown(draft, sampling=GREEDY, C=1.0, top=(2, 1, 1), seed=0):
    cache = prefill(draft, SEQUENCES, 40, scratch=18)
    logits = glue(draft, cache, torch.tensor([row[-1:] for row in SEQUENCES]), S)
    prefix, roots = fork(logits, FAN_OUT, branches=6, most=3)
    grown = grow(draft, cache, logits, prefix, roots, top, sampling, C, torch.Generator().manual_seed(seed))
    return SpeculationCache(prefix, roots, *grown), cache, logits


def text_of(prepared: SpeculationCache, row: int, branch: int) -> list[int]:
    """The final tokens, the accepted ones, and the guessed bonus token of a branch."""
    k = int(prepared.accepted[row, branch])
    return [*SEQUENCES[row], *S[row, :k].tolist(), int(prepared.bonus[row, branch])]


def as_hugging_face(model, tmp_path):
    from transformers import AutoModelForCausalLM

    from minilab.nn.huggingface import save_hf_folder

    return HuggingFaceModel(AutoModelForCausalLM.from_pretrained(save_hf_folder(model, tmp_path)))


@pytest.mark.parametrize("kind", ["ours", "hugging face"])
def test_each_branch_is_the_drafts_own_continuation_of_its_text(kind, random_model, tmp_path):
    plain = random_model(0, 11)
    prepared, cache, _ = grown(plain if kind == "ours" else as_hugging_face(plain, tmp_path))
    assert prepared.tokens.shape == (2, 6, 3)
    for row in range(2):
        for branch in range(6):
            text = text_of(prepared, row, branch)
            for token in prepared.tokens[row, branch].tolist():
                assert int(plain(torch.tensor([text]))[0, -1].argmax()) == token
                text.append(token)
    assert cache.lengths.tolist() == [len(row) + 3 for row in SEQUENCES], "branches must be forgotten, the glue kept"


def test_stored_distributions_are_those_of_each_branchs_text(random_model):
    draft, sampling = random_model(1, 11), Sampling(0.8)
    prepared, _, _ = grown(draft, sampling, C=0.4)
    for row, branch in [(0, 0), (0, 2), (1, 5)]:
        text = text_of(prepared, row, branch)
        for depth, top in enumerate((2, 1, 1)):
            law = (draft(torch.tensor([text]))[0, -1] / 0.8).softmax(-1)
            torch.testing.assert_close(prepared.probs[row, branch, depth], starve(law, top, 0.4), atol=1e-5, rtol=1e-4)
            text.append(int(prepared.tokens[row, branch, depth]))


def test_fork_takes_the_likeliest_tokens_but_never_the_rejected_one(random_model):
    draft = random_model(2, 11)
    prepared, _, _ = grown(draft)
    for row, sequence in enumerate(SEQUENCES):
        for k in range(4):
            guesses = prepared.bonus[row][prepared.accepted[row] == k].tolist()
            law = draft(torch.tensor([[*sequence, *S[row, :k].tolist()]]))[0, -1]
            ranked = [t for t in law.argsort(descending=True).tolist() if k == 3 or t != int(S[row, k])]
            assert guesses == ranked[: int(FAN_OUT[row, k])]


def test_mask_is_the_papers_figure():
    """Figure 8: 10 prefix columns, K = 3, F = 4, third depth: 16 branches over 10 + 4 + 48 = 62 columns."""
    prefix = torch.arange(4).repeat_interleave(4)[None]
    mask = tree_mask(torch.tensor([10]), 3, prefix, 2, 62)[0]
    assert mask.shape == (16, 62)
    assert mask[:, :10].all()
    assert torch.equal(mask[:, 10:14], torch.ones(4, 4).tril().bool().repeat_interleave(4, dim=0))
    assert torch.equal(mask[:, 14:], torch.eye(16).bool().repeat(1, 3))


def test_lookup_finds_what_was_prepared_and_nothing_else():
    prepared = SpeculationCache(torch.tensor([[0, 0, 2], [1, 0, 2]]), torch.tensor([[4, 5, 4], [7, 7, 7]]),
                                torch.arange(12).view(2, 3, 2), None)
    for accepted, bonus, expected in [((0, 1), (5, 7), ([2, 3], [6, 7])), ((2, 2), (4, 7), ([4, 5], [10, 11]))]:
        hit, tokens, probs = prepared.lookup(torch.tensor(accepted), torch.tensor(bonus))
        assert hit.all() and tokens.tolist() == list(expected) and probs is None
    hit, _, _ = prepared.lookup(torch.tensor([1, 0]), torch.tensor([4, 7]))
    assert hit.tolist() == [False, True], "the bonus token alone is no key"


def test_cache_is_bounded_in_bytes():
    size = 16 + 8 * 3 + 4 * 3 * 11
    assert branches_within(None, 6, rows=2, K=3, vocab_size=11, greedy=False) == 6
    assert branches_within(5 * 2 * size, 6, rows=2, K=3, vocab_size=11, greedy=False) == 5
    with pytest.raises(ValueError, match=f"need {2 * size} bytes"):
        branches_within(2 * size - 1, 6, rows=2, K=3, vocab_size=11, greedy=False)


def test_stated_bytes_are_the_tensors_own(random_model):
    prepared, _, _ = grown(random_model(0, 11), Sampling(1.0))
    assert prepared.nbytes == 2 * 6 * (16 + 8 * 3 + 4 * 3 * 11)
    assert grown(random_model(0, 11))[0].nbytes == 2 * 6 * (16 + 8 * 3)


def test_saguaro_example_of_theorem_19():
    """C = 47/147 keeps the acceptance at 0.98 and moves the whole residual onto the two cached tokens."""
    p, q = torch.tensor([0.48, 0.48, 0.02, 0.02]), torch.tensor([0.49, 0.49, 0.01, 0.01])
    starved = starve(q, 2, 47 / 147)
    torch.testing.assert_close(starved, torch.tensor([0.47, 0.47, 0.03, 0.03]))
    for law in (q, starved):
        assert acceptance(p, law).item() == pytest.approx(0.98)
    logits = q.log().expand(1, 2, 4).clone()

    def hits_after_rejection(law):
        total = torch.tensor(0.0)
        for s in range(4):
            rejected = (law - p).clamp(min=0)[s] / (law - p).clamp(min=0).sum()
            masked = logits.clone()
            masked[0, 0, s] = float("-inf")
            _, guesses = fork(masked, torch.tensor([[2, 0]]), branches=2, most=2)
            total += rejected * residual(p, law)[guesses[0]].sum()
        return total.item()

    assert hits_after_rejection(starved) == pytest.approx(1.0, abs=1e-5)
    assert hits_after_rejection(q) == pytest.approx(0.5, abs=1e-5)


def test_starving_is_monotone_and_stays_a_distribution():
    q = torch.randn(50, 9, generator=torch.Generator().manual_seed(0)).softmax(-1)
    top = q.topk(3).indices
    masses = [starve(q, 3, C).gather(-1, top).sum(-1) for C in (1.0, 0.6, 0.2, 0.0)]
    for more, less in zip(masses, masses[1:], strict=False):
        assert (less < more).all()
    assert masses[-1].abs().max() == 0 and torch.equal(starve(q, 3, 1.0), q)
    one_hot = torch.eye(9)[:2]
    assert torch.equal(starve(one_hot, 1, 0.0), one_hot), "mass that has nowhere to go stays"
    with pytest.raises(ValueError, match="C must lie"):
        starve(q, 3, 1.5)


def test_growing_leaves_the_draft_as_if_it_had_only_read_the_glue(random_model):
    draft = random_model(4, 11)
    _, cache, _ = grown(draft)
    after = copy.deepcopy(cache)
    token = torch.tensor([[1], [2]])
    fresh = [draft(torch.tensor([[*row, *S[i].tolist(), int(token[i])]]))[0, -1] for i, row in enumerate(SEQUENCES)]
    torch.testing.assert_close(draft(token, cache=after)[:, -1], torch.stack(fresh), atol=1e-4, rtol=1e-4)
