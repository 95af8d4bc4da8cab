"""How pairs are made: the whole recipe on a page of text, and each of its steps."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from minilab.core.records import Record
from minilab.nn.huggingface import save_hf_folder
from minilab.nn.store import load_model
from minilab.nn.transformer import Block, Transformer
from minilab.speculative import data, recipes, smollm
from minilab.speculative.decoding import speculative
from minilab.speculative.pairs import load_pair
from minilab.speculative.recipes import PairPreset, SmolDraftPreset, _decoder, _thin
from minilab.speculative.sampling import Sampling
from minilab.speculative.training import bits_per_byte, overlap

DOCUMENT = (
    "The {} of a list is the number of its items. It is never {}; a list of no items has the {} zero.\n"
)
WORDS = ["length", "size", "count", "weight", "depth", "order"]
TRAIN = data.END.join(DOCUMENT.format(a, b, a) for a in WORDS for b in ["negative", "odd", "shared"])
VALID = data.END.join(DOCUMENT.format(w, "large", w) for w in WORDS[:2])
V = 300


def short(*models_and_prompts, **options):
    """`speculative` for as many tokens as a test has time for."""
    return speculative(*models_and_prompts, **{**options, "max_new_tokens": 12})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A pair trained end to end on one page, its assets written to a folder of its own."""
    root, tokenizer = tmp_path_factory.mktemp("made"), data.train_tokenizer([TRAIN], V)
    preset = PairPreset(
        "cpu",
        corpus="page",
        target=_decoder(V, 48, 1, 2, 1, 64),
        draft=_decoder(V, 8, 1, 2, 1, 8),
        target_steps=80,
        draft_steps=30,
        window=16,
        batch=16,
        own_texts=6,
        lr=1e-2,
        out="tiny",
        device="cpu",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load_corpus", {"page-train": TRAIN, "page-valid": VALID}.__getitem__)
        patch.setattr(data, "load_tokenizer", lambda: tokenizer)
        patch.setenv("MINILAB_CACHE", str(root))
        patch.setattr(recipes, "speculative", short)
        record = recipes.pair(preset)
    return record, root, data.token_stream(VALID, tokenizer), preset


def test_pair_learns_from_its_text(made):
    record, _, valid, _ = made
    found, rate = record.results, len(VALID.encode()) / len(valid)
    assert found["bytes_per_token"] == pytest.approx(rate, rel=1e-5)
    assert (found["train_tokens"] > found["valid_tokens"]) and found["valid_tokens"] == len(valid)
    even = math.log2(V) / rate
    assert found["target_bpb"] < even / 3, "the text repeats itself"
    assert found["target_bpb"] < found["draft"]["bpb"] < even
    losses = found["target_loss"]["loss"]
    assert losses[0] > 3 * losses[-1] and found["target_loss"]["step"][-1] == 80


def test_saved_assets_are_the_models_that_were_measured(made):
    record, root, valid, preset = made
    target, draft = (
        load_model(root / "pairs" / "tiny" / f"{name}.safetensors") for name in ("target", "draft")
    )
    assert (target.config, draft.config) == (preset.target, preset.draft)
    found = record.results
    assert (target.num_parameters(), draft.num_parameters()) == (
        found["target_parameters"],
        found["draft_parameters"],
    )
    for model, bits in ((target, found["target_bpb"]), (draft, found["draft"]["bpb"])):
        assert bits_per_byte(model, valid, found["bytes_per_token"], length=16) == pytest.approx(
            bits, rel=1e-4
        )
    assert found["target_bpb"] != found["target_bpb_fp32"], "measured before rounding to int8"
    assert found["target_bpb"] == pytest.approx(found["target_bpb_fp32"], rel=0.05)
    agreed = overlap(target, draft, valid, Sampling(1.0), length=16)
    assert agreed == pytest.approx(found["draft"]["overlap_on_text"], rel=1e-4)


def test_record_of_a_pair_tells_what_each_step_bought_and_survives_its_file(made, tmp_path):
    record = made[0]
    for stage in ("draft_from_text", "draft_distilled", "draft"):
        found = record.results[stage]
        assert all(
            0 < found[key] <= 1 for key in ("overlap_on_text", "acceptance_greedy", "acceptance_sampled")
        )
        assert all(1 < found[f"tokens_per_round_{kind}"] <= 6 for kind in ("greedy", "sampled"))
    assert record.results["draft_from_text"] != record.results["draft_distilled"]
    record.save(tmp_path)
    assert Record.load("speculative/pair", root=tmp_path) == record


def test_a_recipe_without_a_folder_keeps_nothing(made, tmp_path, monkeypatch):
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path))
    preset, model = dataclasses.replace(made[3], out=None), Transformer(made[3].draft)
    assert recipes._as_shipped(model, "draft", preset, {}) is model and not model.training
    assert list(tmp_path.iterdir()) == []


def test_the_targets_own_text_continues_the_corpus_half_greedily(random_model, made):
    target, preset = random_model(0, V, context=64), made[3]
    tokens = torch.randint(V, (400,), generator=torch.Generator().manual_seed(0))
    own = recipes.own_text(target, tokens, preset)
    texts = own.view(preset.own_texts, 32 + preset.window // 2)
    starts = {tuple(tokens[i : i + 32].tolist()) for i in range(len(tokens) - 31)}
    assert all(tuple(row[:32].tolist()) in starts for row in texts)
    best = target(texts)[:, 31:-1].argmax(-1)
    greedy = (best == texts[:, 32:]).all(dim=1)
    assert greedy.sum() == preset.own_texts // 2
    assert torch.equal(recipes.own_text(target, tokens, preset), own)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The cpu preset at its smallest on one page, in the shipped tokens, kept as the large pair in an own cache."""
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path))
    monkeypatch.setattr(data, "load_corpus", {"stdlib-train": TRAIN, "stdlib-valid": 4 * VALID}.__getitem__)
    monkeypatch.setattr(recipes, "speculative", short)
    return dataclasses.replace(recipes.PAIR["cpu"], target=_decoder(4096, 32, 2, 2, 1, 48),
                               draft=_decoder(4096, 16, 2, 2, 1, 16), target_steps=2, draft_steps=2, window=16, batch=2,
                               own_texts=4, out="large", device="cpu")


def test_a_trained_large_pair_is_loaded_by_its_name(page, tmp_path):
    found = recipes.pair(page).results
    loaded = load_pair("large")
    assert (loaded.name, loaded.stop, loaded.chat) == ("large", (0,), False)
    assert (loaded.target.config, loaded.draft.config) == (page.target, page.draft)
    assert loaded.target.num_parameters() == found["target_parameters"]
    texts = [loaded.generate(["The length of"], K=K, max_new_tokens=8).tokens for K in (None, 3)]
    assert texts[0] == texts[1]
    card = json.loads((tmp_path / "pairs" / "large" / "target.json").read_text())
    assert card["what"].startswith("target of the large pair") and "shipped" not in card["what"]


def test_the_target_is_kept_when_the_drafts_training_breaks(page, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "own_text", None)
    with pytest.raises(TypeError):
        recipes.pair(page)
    assert load_model(tmp_path / "pairs" / "large" / "target.safetensors").config == page.target


def test_blocks_compiled_for_training_change_no_number(page, monkeypatch):
    """Type checks cannot be compiled, so the compiler is replaced: what it is asked for counts here."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda f: asked.append(f) or f)
    plain = recipes.pair(page).results
    assert asked == []
    compiled = recipes.pair(dataclasses.replace(page, compile=True)).results
    assert asked == [Block.forward] * 3  # the target's training, and the draft's two
    assert compiled == plain


@pytest.mark.parametrize("n", [1, 7, 59, 60, 61, 150, 2000])
def test_thinned_curve_keeps_the_mean_and_the_end(n):
    losses = np.random.default_rng(n).normal(3, 1, n)
    thin = _thin(losses.tolist())
    assert len(thin["step"]) == len(thin["loss"]) <= 60 and thin["step"][-1] == n
    sizes = np.diff([0, *thin["step"]])
    assert np.dot(sizes, thin["loss"]) / n == pytest.approx(losses.mean())
    assert (sizes[:-1] == sizes[0]).all() and 0 < sizes[-1] <= sizes[0]
    assert thin["loss"][0] == pytest.approx(losses[: thin["step"][0]].mean())


def test_draft_embedding_starts_on_the_targets_main_directions(random_model):
    """The best rank-8 approximation of the Gram matrix E E^T, from its eigenvectors (Eckart and Young)."""
    target, draft = random_model(0, 60, dim=32), random_model(1, 60, dim=8)
    with torch.no_grad():
        target.embed.weight *= torch.linspace(2, 0.2, 32)  # some directions matter more than others
    values, vectors = torch.linalg.eigh((target.embed.weight @ target.embed.weight.T).double().detach())
    best = vectors[:, -8:] * values[-8:] @ vectors[:, -8:].T
    recipes.start_from_embedding(draft, target)
    E = draft.embed.weight.detach().double()
    gram = E @ E.T
    correlation = torch.corrcoef(torch.stack((gram.flatten(), best.flatten())))[0, 1]
    assert correlation > 1 - 1e-6
    assert (gram / gram.norm() - best / best.norm()).norm() < 1e-4, "directions keep their relative strength"
    assert E.std().item() == pytest.approx(0.02, rel=1e-3), "and the whole is of the usual size"
    assert draft.head.weight is draft.embed.weight


@pytest.fixture
def chat(tmp_path, monkeypatch, random_model):
    """A random chat model in the place of SmolLM2, its tokens made of the questions' own text."""
    words = [smollm.chat_prompt(q) for q in data.QUESTIONS]
    tokenizer = data.train_tokenizer(words, V)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    model = random_model(0, tokenizer.get_vocab_size(), context=512)
    with torch.no_grad():  # a chat ends now and then
        model.embed.weight[tokenizer.token_to_id("<|im_end|>")] *= 1.5
    folder = save_hf_folder(model, tmp_path / "smollm2")
    monkeypatch.setattr(smollm, "folder", lambda: folder)
    monkeypatch.setattr(smollm, "load_tokenizer", lambda: tokenizer)
    monkeypatch.setattr(recipes, "package_data", lambda name: tmp_path / name)
    monkeypatch.setattr(recipes, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(recipes, "speculative", short)
    preset = SmolDraftPreset(
        "cpu",
        draft=_decoder(model.vocab_size, 8, 1, 2, 1, 8),
        chats=40,
        reply_tokens=16,
        sample_batch=16,
        steps=3,
        window=16,
        batch=2,
        out="tiny",
        device="cpu",
    )
    return model, tokenizer, preset


def test_conversations_are_whole_chats_in_the_models_own_format(chat):
    model, tokenizer, preset = chat
    stream, count = recipes.conversations(model, preset)
    head, tail = smollm.chat_prompt("\0").split("\0")
    chats = tokenizer.decode(stream.tolist(), skip_special_tokens=False).split(head)
    assert chats[0] == "" and len(chats) - 1 == count
    assert 3 <= count < preset.chats, "this test needs questions that end, and some that are dropped"
    for text in chats[1:]:
        question, reply = text.split(tail)  # one of each
        assert "<|im_end|>" not in question
        assert "<|im_end|>" not in reply.removesuffix("<|im_end|>")


def test_smollm_draft_is_distilled_saved_and_judged(chat, tmp_path, monkeypatch):
    model, _, preset = chat
    monkeypatch.setattr(data, "QUESTIONS", data.QUESTIONS[:2])
    found = recipes.smollm_draft(preset).results
    draft = load_model(tmp_path / "assets" / "tiny" / "smollm2-draft.safetensors")
    assert draft.config == preset.draft and draft.vocab_size == model.vocab_size
    assert found["draft_parameters"] == draft.num_parameters()
    assert found["replies"] >= 1 and found["own_tokens"] > preset.window and len(found["loss"]["loss"]) == 3
    assert 0 < found["held_out"]["overlap_on_text"] < 1
    assert 1 <= found["held_out"]["tokens_per_round_greedy"] <= 6
    monkeypatch.setattr(recipes, "conversations", None)  # a second run starts from the chats of the first
    assert recipes.smollm_draft(preset).results["loss"] == found["loss"]


def test_smollm_draft_needs_its_target_first(tmp_path, monkeypatch):
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=smollm.COMMAND):
        recipes.smollm_draft(recipes.SMOL_DRAFT["cpu"])


def test_presets_fit_the_vocabularies_they_are_for():
    size = data.load_tokenizer().get_vocab_size()
    for preset in recipes.PAIR.values():
        assert preset.target.vocab_size == preset.draft.vocab_size == size
        assert preset.draft.dim < preset.target.dim and preset.window < preset.target.context
    assert {p.draft.vocab_size for p in recipes.SMOL_DRAFT.values()} == {49152}
