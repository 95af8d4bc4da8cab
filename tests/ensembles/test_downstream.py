"""Questions with one true answer that only the context tells, scores by hand, and a folder that others read."""

import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from minilab.corpus.text import END, documents
from minilab.ensembles.data import load_text, token_ids, tokenizer
from minilab.ensembles.downstream import (
    CHOICES,
    FROZEN,
    Question,
    accuracy,
    averaged,
    credit,
    cuts,
    digest,
    harness_task,
    hf_export,
    make_questions,
    questions,
    score,
    without_context,
)
from minilab.nn.transformer import Transformer, TransformerConfig

V = 1024
SMALL = TransformerConfig(vocab_size=V, dim=16, n_layers=2, n_heads=2, n_kv_heads=2, hidden_dim=32, context=128,
                          tie_embeddings=False)


@pytest.fixture(scope="module", params=["easy", "hard"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def asked(kind):
    return questions(kind)


@pytest.fixture(scope="module")
def some():
    return questions("hard")[:8]


@pytest.fixture(scope="module")
def member():
    torch.manual_seed(0)
    model = Transformer(SMALL).eval().requires_grad_(False)
    for p in model.parameters():
        p.mul_(1 + 9 * (p.dim() == 2))  # logits far from uniform
    return model


def one(model):
    return lambda tokens: model(tokens)[None]


# Questions.


def test_questions_are_the_frozen_ones(asked, kind):
    assert digest(asked) == FROZEN[kind] and len(asked) >= 1000


def test_each_question_is_held_out_text_with_its_own_ending(asked):
    real = {(cut.context, cut.ending) for cut in cuts(load_text("web-valid"))}
    for question in asked:
        assert [(question.context, choice) in real for choice in question.choices].index(True) == question.answer
        assert len(set(question.choices)) == CHOICES


def test_endings_are_whole_words_of_a_page_and_hard_ones_begin_with_the_same(asked, kind):
    held = load_text("web-valid")
    endings = {cut.ending for cut in cuts(held)}
    for question in asked:
        assert endings.issuperset(question.choices)
        for choice in question.choices:
            assert choice[0] == " " and choice[1] != " " and "\n" not in choice and 24 <= len(choice) <= 36
        assert len({choice.split()[0] for choice in question.choices}) == 1 or kind == "easy"
    for question in asked[:200]:
        real = question.context + question.choices[question.answer]
        assert held[held.index(real) + len(real)].isspace()


def test_wrong_endings_come_from_three_other_pages(asked):
    own, of = {}, {}
    for cut in cuts(load_text("web-valid")):
        own[cut.context] = cut.page
        of.setdefault(cut.ending, set()).add(cut.page)
    for question in asked:
        wrong = [of[c] for i, c in enumerate(question.choices) if i != question.answer]
        assert all(found - {own[question.context]} for found in wrong)
        assert len(set.union(*wrong)) >= CHOICES - 1


def test_the_answers_place_is_drawn_evenly_also_among_the_first(asked):
    for some in (asked, asked[:200]):
        counts = Counter(question.answer for question in some)
        assert stats.chisquare([counts[i] for i in range(CHOICES)]).pvalue > 0.001


def test_an_ending_is_wrong_as_often_as_any(asked):
    times = Counter(choice for question in asked for choice in question.choices)
    assert sum(times[choice] in (3, 4, 5) for choice in times) > 0.85 * len(times)


def test_endings_alone_do_not_tell_the_answer(asked):
    """A distractor that is made up or cut otherwise shows in its length or in how common its tokens are."""
    counts = token_ids("web-train", V).long().bincount(minlength=V).double() + 1
    common = (counts / counts.sum()).log()
    ids = [[ending.ids for ending in tokenizer(V).encode_batch(list(question.choices))] for question in asked]
    signs = {"long": torch.tensor([[float(len(choice)) for choice in question.choices] for question in asked]),
             "tokens": torch.tensor([[float(len(i)) for i in row] for row in ids]),
             "common": torch.tensor([[common[i].mean().item() for i in row] for row in ids])}
    for name, sign in signs.items():
        for sided in (sign, -sign):
            right = credit(sided[None], asked)[0]
            assert abs(right.mean() - 0.25) < 4 * right.std() / len(asked) ** 0.5, name


def test_questions_follow_from_text_and_seed():
    text = f"{END}\n".join(documents(load_text("web-valid"))[:60])
    some = make_questions(text, same_word=True)
    assert make_questions(text, same_word=True) == some and len(some) > 100
    other = make_questions(text, same_word=True, seed=1)
    assert digest(other) != digest(some) and {q.context for q in other} == {q.context for q in some}
    with pytest.raises(ValueError, match="39 characters in 1 documents give no question.*go on with the same word"):
        make_questions("A page that is too short for a question", same_word=True)
    with pytest.raises(ValueError, match="unknown kind of questions 'fair'; choose easy or hard"):
        questions("fair")


# Scores.


def test_score_is_the_mean_log_probability_of_the_endings_tokens(some, member):
    scores = score(one(member), some, tokenizer(V), chunk=3)
    assert scores.shape == (1, 8, CHOICES)
    for r, question in enumerate(some):
        for c, choice in enumerate(question.choices):
            ids = tokenizer(V).encode(question.context + choice).ids
            start = len(tokenizer(V).encode(question.context).ids)
            logits = member(torch.tensor([ids]))[0]
            losses = F.cross_entropy(logits[start - 1 : -1], torch.tensor(ids[start:]))
            assert scores[0, r, c] == pytest.approx(-losses.item(), abs=1e-5)


def test_endings_at_a_time_change_nothing(some, member):
    torch.testing.assert_close(score(one(member), some, tokenizer(V), chunk=1),
                               score(one(member), some, tokenizer(V), chunk=64), rtol=1e-5, atol=1e-5)


def test_averaged_members_score_as_their_averaged_log_probabilities(some):
    torch.manual_seed(1)
    tables = torch.randn(3, V, V)  # three bigram models

    def members(tokens):
        return tables[:, tokens]

    found = score(averaged(members), some, tokenizer(V))[0]
    law = tables.log_softmax(-1).mean(0).exp()
    law = law / law.sum(-1, keepdim=True)
    for r, question in enumerate(some):
        context = tokenizer(V).encode(question.context).ids
        for c, choice in enumerate(question.choices):
            ids = context[-1:] + tokenizer(V).encode(choice).ids
            wanted = sum(math.log(law[a, b]) for a, b in zip(ids, ids[1:], strict=False)) / (len(ids) - 1)
            assert found[r, c] == pytest.approx(wanted, abs=1e-4)
    assert score(members, some, tokenizer(V)).shape == (3, 8, CHOICES)


def test_a_model_that_knows_the_text_is_always_right_and_a_uniform_one_guesses():
    some = questions("hard")[:100]
    known = {tuple(tokenizer(V).encode(q.context + q.choices[q.answer]).ids) for q in some}
    tree = {}
    for row in known:
        for i in range(1, len(row)):
            tree.setdefault(row[:i], set()).add(row[i])

    def knows(tokens):
        logits = torch.zeros(1, *tokens.shape, V)
        for b, row in enumerate(tokens.tolist()):
            for t in range(len(row)):
                logits[0, b, t, list(tree.get(tuple(row[: t + 1]), ()))] = 20.0
        return logits

    (perfect,) = accuracy(score(knows, some, tokenizer(V)), some)
    assert perfect.share == 1 and 0.95 < perfect.low < perfect.high <= 1
    (guess,) = accuracy(score(lambda tokens: torch.zeros(1, *tokens.shape, V), some, tokenizer(V)), some)
    assert guess.share == pytest.approx(0.25) and guess.low < 0.25 < guess.high


def test_what_an_ending_scores_without_context_is_what_it_scores_behind_the_separator(some, member):
    (bare,) = score(one(member), without_context(some[:2]), tokenizer(V))
    ids = tokenizer(V).encode(some[1].choices[0]).ids
    losses = F.cross_entropy(member(torch.tensor([[0, *ids[:-1]]]))[0], torch.tensor(ids))
    assert bare[1, 0] == pytest.approx(-losses.item(), abs=1e-5)


def test_endings_that_tie_share_the_credit():
    some = [Question("a", (" b", " c", " d", " e"), 2)] * 3
    scores = torch.tensor([[[0.0, 0, 1, 0], [1.0, 0, 1, 0], [1.0, 0, 0, 0]]])
    assert credit(scores, some).tolist() == [[1.0, 0.5, 0.0]]


def test_no_questions_are_refused(member):
    with pytest.raises(ValueError, match="0 questions, 16 endings at a time"):
        score(one(member), [], tokenizer(V))


# Export.


def test_exported_member_has_the_same_logits_and_tokens_in_transformers(member, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = hf_export(member, tokenizer(V), tmp_path / "member")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(model).__name__ == "LlamaForCausalLM"
    words = transformers.AutoTokenizer.from_pretrained(folder)
    text = load_text("manual-valid")[:300] + " naïve  日本"
    ids = words(text, return_tensors="pt").input_ids
    assert ids[0].tolist() == tokenizer(V).encode(text).ids and words.decode(ids[0]) == text
    assert (words.bos_token_id, words.eos_token_id, words.model_max_length) == (0, 0, 128)
    with torch.no_grad():
        torch.testing.assert_close(model(ids[:, :100]).logits, member(ids[:, :100]), rtol=1e-4, atol=1e-4)


def test_a_tokenizer_of_another_model_is_not_exported(member, tmp_path):
    with pytest.raises(ValueError, match="a tokenizer of 2048 tokens, but the model has 1024"):
        hf_export(member, tokenizer(2048), tmp_path)


def test_harness_task_holds_the_questions(some, tmp_path):
    yaml = pytest.importorskip("yaml")
    folder = harness_task(some, tmp_path / "task")
    task = yaml.safe_load((folder / "minilab_endings.yaml").read_text())
    lines = Path(task["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [Question(row["context"], tuple(row["choices"]), row["answer"]) for row in rows] == list(some)
    assert task["target_delimiter"] == "" and task["doc_to_text"] == "{{context}}", "an ending has its own space"
    assert (task["doc_to_choice"], task["doc_to_target"]) == ("choices", "answer")


def test_the_harness_itself_counts_as_many_right_answers(some, member, tmp_path):
    """Its `acc` goes by sums of log p, its `acc_norm` by their means per byte, as the docstring says."""
    pytest.importorskip("lm_eval", reason="the harness is not installed: pip install 'lm_eval[hf]'")
    folder, task = hf_export(member, tokenizer(V), tmp_path / "member"), harness_task(some, tmp_path / "task")
    here = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu", "--tasks", "minilab_endings",
                    "--model_args", f"pretrained={folder},dtype=float32", "--include_path", task,
                    "--output_path", tmp_path / "out"], env=here, check=True, capture_output=True)
    told = json.loads(next((tmp_path / "out").rglob("results*.json")).read_text())["results"]["minilab_endings"]
    means = score(one(member), some, tokenizer(V))[0]  # of a token
    sums = means * torch.tensor([[len(tokenizer(V).encode(choice).ids) for choice in q.choices] for q in some])
    size = torch.tensor([[len(choice.encode()) for choice in q.choices] for q in some])
    right = torch.tensor([q.answer for q in some])
    for metric, by in (("acc", sums), ("acc_norm", sums / size)):
        assert told[f"{metric},none"] == pytest.approx(float((by.argmax(1) == right).float().mean()))
