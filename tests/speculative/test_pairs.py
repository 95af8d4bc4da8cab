"""The pairs that a reader can load: the shipped one is exact on real text, others say what is wrong."""

import pytest
import torch
from scipy.stats import chi2

from minilab.nn.huggingface import load_hf_folder, save_hf_folder
from minilab.speculative import data, smollm
from minilab.speculative.pairs import load_hugging_face_pair, load_pair
from minilab.speculative.sampling import Sampling, target_probs
from minilab.speculative.training import bits_per_byte


def test_shipped_pair_loads_with_its_tokenizer(shipped):
    assert (shipped.name, shipped.chat, shipped.stop) == ("shipped", False, (0,))
    size = shipped.tokenizer.get_vocab_size()
    assert size == shipped.target.vocab_size == shipped.draft.vocab_size == 4096
    assert shipped.target.num_parameters() > 10 * shipped.draft.num_parameters()
    text = "Return the größte item,\n    or raise ValueError."
    assert shipped.decode(shipped.encode(text)) == text
    assert 0 not in shipped.encode(text), "no separator slips into a prompt"


def test_without_a_name_the_shipped_pair_stands_in_until_the_other_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path))
    assert load_pair().name == "shipped"
    with pytest.raises(FileNotFoundError, match=smollm.COMMAND):
        load_pair("smollm2")


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "", "Shipped"])
def test_unknown_name_lists_the_choices(name):
    with pytest.raises(ValueError, match="choose 'shipped' or 'smollm2'.*load_hugging_face_pair"):
        load_pair(name)


def test_shipped_pair_writes_the_same_greedily_with_and_without_the_draft(shipped):
    """Real text ends where it likes and accepts what it likes; batch and lookahead change nothing."""
    prompts = data.prompts(20, words=10, seed=5)
    expected = shipped.generate(prompts, max_new_tokens=20)
    fast = shipped.generate(prompts, K=4, max_new_tokens=20)
    assert fast.tokens == expected.tokens
    assert 0.3 < fast.acceptance_rate < 0.95, "this test needs both acceptances and rejections"
    alone = shipped.generate(prompts[:3], K=2, max_new_tokens=20)
    assert alone.tokens == expected.tokens[:3]


def likely_words(
    model, prompt: list[int], sampling: Sampling, length: int, least: float
) -> dict[tuple, float]:
    """Words of `length` tokens of at least that probability: their beginnings are no less likely."""
    words = {(): 1.0}
    for _ in range(length):
        with torch.no_grad():
            laws = target_probs(model(torch.tensor([[*prompt, *w] for w in words]))[:, -1], sampling).double()
        words = {
            (*w, t): p * law[t].item()
            for (w, p), law in zip(words.items(), laws, strict=True)
            for t in (law * p >= least).nonzero()[:, 0].tolist()
        }
    return words


@pytest.mark.slow
@pytest.mark.parametrize(
    "K, sampling", [(None, Sampling(1.0)), (2, Sampling(1.0)), (2, Sampling(0.8, top_p=0.9))]
)
def test_sampled_text_follows_the_targets_own_law(shipped, sampling, K):
    """Chi-square over the likely three-token continuations, whose probabilities the target alone gives."""
    text, samples = "Changed in version", 800
    law = likely_words(shipped.target, shipped.encode(text), sampling, 3, least=8 / samples)
    assert len(law) > 10 and 0.4 < sum(law.values()) < 0.99
    written = shipped.generate([text] * samples, K=K, max_new_tokens=3, sampling=sampling, seed=1)
    if K:
        assert 0.3 < written.acceptance_rate < 0.97
    rows = [tuple(row) for row in written.tokens]
    observed = [rows.count(word) for word in law]
    cells = [*zip(observed, law.values(), strict=True), (samples - sum(observed), 1 - sum(law.values()))]
    statistic = sum((n - p * samples) ** 2 / (p * samples) for n, p in cells)
    assert statistic < chi2.ppf(0.999, len(cells) - 1), "sampled text is not the target's"


def test_empty_prompt_starts_a_text(shipped):
    plain, fast = (shipped.generate([""], K=K, max_new_tokens=16) for K in (None, 3))
    assert shipped.encode("") == []
    assert plain.tokens == fast.tokens and 1 <= len(plain.tokens[0]) <= 16
    with torch.no_grad():
        first = (
            shipped.target(torch.tensor([[shipped.tokenizer.token_to_id(data.END)]]))[0, -1].argmax().item()
        )
    assert plain.tokens[0][0] == first


def test_rounds_stream_what_generate_collects(shipped):
    options = dict(K=3, max_new_tokens=12, sampling=Sampling(1.0), seed=3)
    rounds = list(shipped.rounds(["import os"], **options))
    assert len(rounds) > 1
    assert [t for r in rounds for t in r.tokens[0]] == shipped.generate(["import os"], **options).tokens[0]
    other = shipped.generate(["import os"], **{**options, "seed": 4})
    assert other.tokens != shipped.generate(["import os"], **options).tokens


TEXTS = ["the lazy dog and the quick fox", "a fox is a fox, and the dog is the dog"] * 3


def hf_folder(path, model, tokenizer):
    """A folder as the hub has it."""
    transformers = pytest.importorskip("transformers")
    save_hf_folder(model, path)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=data.END).save_pretrained(path)
    return str(path)


def test_pair_of_hugging_face_folders_writes_what_our_own_models_write(random_model, tmp_path):
    tokenizer = data.train_tokenizer(TEXTS, 270)
    models = [random_model(seed, 270) for seed in (0, 1)]
    folders = [
        hf_folder(tmp_path / name, model, tokenizer)
        for name, model in zip(("big", "small"), models, strict=True)
    ]
    pair = load_hugging_face_pair(*folders)
    assert (pair.name, pair.stop, pair.chat) == ("big+small", (0,), False)
    prompts = ["the quick dog", "a fox,  and", ""]
    assert [pair.encode(p) for p in prompts] == [tokenizer.encode(p).ids for p in prompts]
    assert [pair.decode(pair.encode(p)) for p in prompts] == prompts
    expected = []
    for prompt in prompts:  # the plainest decoding there is: no cache, no batch
        tokens = tokenizer.encode(prompt).ids or [0]
        start = len(tokens)
        while len(tokens) < start + 12 and tokens[start:][-1:] != [0]:
            tokens.append(load_hf_folder(folders[0])(torch.tensor([tokens]))[0, -1].argmax().item())
        expected.append(tokens[start:])
    assert pair.generate(prompts, max_new_tokens=12).tokens == expected
    assert pair.generate(prompts, K=3, max_new_tokens=12).tokens == expected


def test_a_draft_of_another_vocabulary_is_refused_even_at_the_same_size(random_model, tmp_path):
    """Same number of tokens, other meanings: no shape would betray it."""
    tokenizers = [
        data.train_tokenizer(texts, 270) for texts in (TEXTS, ["zebras graze", "lazy zebras doze"] * 3)
    ]
    assert tokenizers[0].get_vocab_size() == tokenizers[1].get_vocab_size()
    folders = [hf_folder(tmp_path / str(i), random_model(0, 270), t) for i, t in enumerate(tokenizers)]
    with pytest.raises(ValueError, match="another vocabulary.*same family"):
        load_hugging_face_pair(*folders)


def test_without_a_network_a_hub_name_points_to_the_shipped_pair(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(
        constants, "HF_HUB_OFFLINE", True
    )  # the library reads the variable when it is imported
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OSError, match=r"needs a network[\s\S]*load_pair\('shipped'\)") as caught:
        load_hugging_face_pair("Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B")
    assert "Qwen/Qwen3-8B" in str(caught.value)
    with pytest.raises(OSError, match=r"load_pair\('shipped'\)"):
        load_hugging_face_pair(str(tmp_path / "nothing"), str(tmp_path / "here"))


def test_shipped_target_compresses_text_it_never_saw(shipped):
    """Its record says 1.02 bits a byte over the whole held-out text; a page or two must come near that."""
    text = data.load_corpus("shipped")[:10_000]
    tokens = data.token_stream(text, shipped.tokenizer)
    rate = len(text.encode()) / len(tokens)
    target, draft = (
        bits_per_byte(m, tokens, rate, length=256, batch=4) for m in (shipped.target, shipped.draft)
    )
    assert 0.8 < target < 1.3, "broken weights or tokenizer"
    assert target + 0.15 < draft < 2.0
