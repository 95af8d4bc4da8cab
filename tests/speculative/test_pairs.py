"""The pairs that a reader can load: the shipped one is exact on real text, others say what is wrong."""

import http.server
import json
import shutil
import sys
import threading

import pytest
import torch
from scipy.stats import chi2
from tokenizers.processors import TemplateProcessing

from minilab import cli
from minilab.core.records import Record
from minilab.nn.huggingface import load_hf_folder, save_hf_folder
from minilab.nn.store import save_model
from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.speculative import data, memory, pairs, smollm
from minilab.speculative.models import HuggingFaceModel
from minilab.speculative.pairs import load_hugging_face_pair, load_pair, load_pair_for, prompts_for
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


@pytest.mark.parametrize("there", [(), ("target",)])  # nothing, or a training that broke between the two
def test_a_large_pair_that_is_not_there_says_how_to_train_it(there, tmp_path, monkeypatch):
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path))
    for name in there:
        card = dict(what="-", how_made="-", licence="-")
        save_model(tiny(0), pairs.pair_folder("large") / f"{name}.safetensors", card)
    missing = "draft" if there else "target"
    with pytest.raises(FileNotFoundError, match=rf"{missing}\.safetensors is not there.*`{pairs.MAKE_LARGE}`.*corpus"):
        load_pair("large")


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "", "Shipped", "+", "a+", "+b", "a+b+c"])
def test_unknown_name_lists_the_choices(name):
    with pytest.raises(ValueError, match=r"'shipped', 'smollm2' or 'large', or join .*Qwen3-8B\+Qwen/Qwen3-0.6B"):
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
SHAPE = dict(vocab_size=270, dim=32, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=48, context=512)
TURN = (
    "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} >{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return data.train_tokenizer(TEXTS, 270)


def write_tokenizer(path, tokenizer, **settings):
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=data.END, **settings)
    fast.save_pretrained(path)


def hf_folder(path, model, tokenizer, **settings):
    """A folder as the hub has it."""
    save_hf_folder(model, path)
    write_tokenizer(path, tokenizer, **settings)
    return str(path)


def tiny(seed: int = 0, **changes) -> Transformer:
    torch.manual_seed(seed)
    model = Transformer(TransformerConfig(**SHAPE | changes)).eval().requires_grad_(False)
    for p in model.parameters():
        p.copy_(torch.randn_like(p) * 0.3 + (p.dim() == 1))
    return model


def gpt2_folder(path, tokenizer, seed: int):
    """A model that our decoder cannot be: learned positions, LayerNorm, biases."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = transformers.GPT2Config(vocab_size=270, n_positions=512, n_embd=32, n_layer=2, n_head=2,
                                     bos_token_id=0, eos_token_id=0, initializer_range=0.3)
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    write_tokenizer(path, tokenizer)
    return str(path)


def greedy_by_transformers(folder: str, prompts: list[list[int]], n: int) -> list[list[int]]:
    """What the library itself writes, one prompt after the other."""
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    texts = []
    for prompt in prompts:
        tokens = torch.tensor([prompt])
        made = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=n, do_sample=False,
                              eos_token_id=0, pad_token_id=0)
        texts.append(made[0, len(prompt) :].tolist())
    return texts


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer):
    """Models of one vocabulary: as our decoder can be them, in one file and in shards, and as it cannot."""
    transformers = pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("models")
    made = {
        "llama": hf_folder(root / "llama", tiny(0), tokenizer),
        "untied": hf_folder(root / "untied", tiny(1, tie_embeddings=False), tokenizer),
        "qwen3": hf_folder(root / "qwen3", tiny(2, qk_norm=True, head_dim=16), tokenizer),
        "gpt2": gpt2_folder(root / "gpt2", tokenizer, 3),
    }
    whole = transformers.AutoModelForCausalLM.from_pretrained(made["untied"])
    whole.save_pretrained(root / "sharded", max_shard_size="20KB")
    write_tokenizer(root / "sharded", tokenizer)
    assert (root / "sharded" / "model.safetensors.index.json").is_file()
    return made | {"sharded": str(root / "sharded")}


@pytest.mark.parametrize(
    ("target", "draft"),
    [("llama", "untied"), ("sharded", "qwen3"), ("qwen3", "llama"), ("gpt2", "llama"), ("llama", "gpt2")],
)
def test_two_folders_in_one_string_write_what_transformers_writes(folders, target, draft):
    pair = load_pair(f"{folders[target]}+{folders[draft]}")
    assert pair.name == f"{target}+{draft}" and pair.stop == (0,)
    for model, name in ((pair.target, target), (pair.draft, draft)):
        assert isinstance(model, HuggingFaceModel if name == "gpt2" else Transformer), "the fast path where it can be"
    prompts = ["the quick dog", "a fox,  and", "dog"]
    tokens = [pair.encode(p) for p in prompts]
    expected = greedy_by_transformers(folders[target], tokens, 12)
    assert pair.generate(prompts, max_new_tokens=12).tokens == expected
    assert pair.generate(prompts, K=3, max_new_tokens=12).tokens == expected


def test_experiments_load_a_pair_by_its_string_in_the_devices_type(folders):
    pair = load_pair_for(f" {folders['sharded']} + {folders['llama']} ", torch.device("cpu"))
    assert pair.target.embed.weight.dtype == torch.float32
    half = load_pair(f"{folders['sharded']}+{folders['gpt2']}", dtype=torch.bfloat16)
    assert half.target.embed.weight.dtype == half.draft.model.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in (*half.target.parameters(), *half.draft.model.parameters()))


@pytest.mark.parametrize("experiment", ["acceptance", "hits", "speed"])
def test_the_command_line_runs_an_experiment_on_two_folders(folders, tmp_path, capsys, experiment):
    name = f"{folders['sharded']}+{folders['qwen3']}"
    settings = "--set prompts=2 --set new_tokens=20" + {
        "speed": " --set lookaheads=2 --set repeats=1", "hits": " --set K=2"}.get(experiment, "")
    words = ["run", f"speculative/{experiment}", "--pair", name, *settings.split(), "--records", str(tmp_path)]
    assert cli.main(words) == 0, capsys.readouterr().err
    record = Record.load(f"speculative/{experiment}", root=tmp_path)
    assert record.config["pair"] == name and f"  with pair {name}\n" in capsys.readouterr().out


def test_pair_of_hugging_face_folders_writes_what_our_own_models_write(random_model, tokenizer, tmp_path):
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


def test_a_chat_models_prompt_is_its_own_template(folders, tokenizer, tmp_path):
    from transformers import AutoTokenizer

    chat = shutil.copytree(folders["llama"], tmp_path / "chat")
    write_tokenizer(chat, tokenizer, chat_template=TURN)
    (chat / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 7]}))
    pair = load_hugging_face_pair(str(chat), folders["untied"])
    question = "the quick dog"
    expected = AutoTokenizer.from_pretrained(chat).apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True)
    expected = expected if isinstance(expected, list) else expected["input_ids"]
    assert pair.encode(question) == expected != tokenizer.encode(question).ids
    assert pair.decode(pair.encode(question)) == "<|user|> the quick dog >"
    assert pair.chat and prompts_for(pair, 2) == list(data.QUESTIONS[:2])
    assert pair.stop == (0, 5, 7), "the tokenizer's end and the model's own"
    assert pair.encode("") == []


def test_a_beginning_token_of_the_tokenizer_is_kept_and_not_doubled(folders, tokenizer, tmp_path):
    """Llama's texts begin with a token that its tokenizer adds; its chat template writes that token out."""
    begins = type(tokenizer).from_str(tokenizer.to_str())
    begins.post_processor = TemplateProcessing(single=f"{data.END} $A", special_tokens=[(data.END, 0)])
    base, chat = (shutil.copytree(folders["llama"], tmp_path / name) for name in ("base", "chat"))
    write_tokenizer(base, begins)
    write_tokenizer(chat, begins, chat_template=data.END + TURN)
    plain = tokenizer.encode("the dog").ids
    assert load_hugging_face_pair(str(base), folders["llama"]).encode("the dog") == [0, *plain]
    assert load_hugging_face_pair(str(chat), folders["llama"]).encode("the dog").count(0) == 1


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_embeddings_of_unequal_padding_make_a_pair(folders, tokenizer, tmp_path, kind):
    """Qwen2.5's 7B has 128 rows more than its 0.5B, for the same 151,665 tokens."""
    padded = tiny(4, vocab_size=288)
    expected = hf_folder(tmp_path / "padded", padded, tokenizer)
    pair = load_hugging_face_pair(expected, folders[kind])
    assert pair.target.vocab_size == pair.draft.vocab_size == 270
    logits = pair.target(torch.arange(9)[None])
    assert torch.equal(logits, padded(torch.arange(9)[None])[..., :270])
    fast, plain = (pair.generate(["the dog"], K=K, max_new_tokens=10).tokens for K in (2, None))
    assert fast == plain
    swapped = load_hugging_face_pair(folders[kind], expected)
    assert swapped.draft.vocab_size == swapped.target.vocab_size == 270


def test_an_embedding_smaller_than_its_tokenizer_is_refused(folders, tokenizer, tmp_path):
    small = hf_folder(tmp_path / "small", tiny(0, vocab_size=260), tokenizer)
    with pytest.raises(ValueError, match="small has an embedding of 260 rows for a tokenizer of 270 tokens"):
        load_hugging_face_pair(folders["llama"], small)


def test_a_draft_of_another_vocabulary_is_refused_even_at_the_same_size(random_model, tmp_path):
    """Same number of tokens, other meanings: no shape would betray it."""
    tokenizers = [
        data.train_tokenizer(texts, 270) for texts in (TEXTS, ["zebras graze", "lazy zebras doze"] * 3)
    ]
    assert tokenizers[0].get_vocab_size() == tokenizers[1].get_vocab_size()
    folders = [hf_folder(tmp_path / str(i), random_model(0, 270), t) for i, t in enumerate(tokenizers)]
    with pytest.raises(ValueError, match="another vocabulary.*same family"):
        load_hugging_face_pair(*folders)


def test_memory_is_checked_before_any_weight_is_read(folders, monkeypatch):
    def load(*arguments, **options):
        raise AssertionError("too late")

    monkeypatch.setattr(pairs, "_load", load)
    monkeypatch.setattr(memory, "free_bytes", lambda device: memory.GIB)
    both = sum(memory.weight_bytes(tiny(s, **c).config) for s, c in ((0, {}), (1, {"tie_embeddings": False})))
    asked = []
    check = memory.check_fits
    monkeypatch.setattr(memory, "check_fits", lambda *arguments: (asked.append(arguments), check(*arguments)))
    with pytest.raises(ValueError, match=r"needs 1\.0 GiB on cuda .* and 1\.0 GiB are free"):
        load_pair(f"{folders['llama']}+{folders['untied']}", dtype=torch.bfloat16, device="cuda")
    assert asked[0][0] == both
    with pytest.raises(ValueError, match="are free"):
        load_pair(f"{folders['gpt2']}+{folders['llama']}", dtype=torch.bfloat16, device="cuda")
    gpt2 = sum(p.numel() for p in load_pair_weights(folders["gpt2"]))
    assert asked[1][0] == 2 * gpt2 + memory.weight_bytes(tiny(0).config), "counted without loading it"


def load_pair_weights(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).parameters()


def test_four_bits_without_their_library_say_what_to_install(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ImportError, match="pip install bitsandbytes accelerate"):
        load_pair(f"{folders['llama']}:4bit+{folders['untied']}")


def test_a_target_at_four_bits_decodes_with_a_draft_in_our_own_decoder(folders, tokenizer, tmp_path):
    pytest.importorskip("bitsandbytes")
    target = hf_folder(tmp_path / "target", tiny(0, dim=128, hidden_dim=256), tokenizer)
    pair = load_pair(f"{target}:4bit+{folders['llama']}")
    assert pair.name == "target:4bit+llama" and isinstance(pair.draft, Transformer)
    assert pair.target.model.model.layers[0].mlp.down_proj.weight.dtype == torch.uint8
    fast, plain = (pair.generate(["the dog"], K=K, max_new_tokens=10).tokens for K in (2, None))
    assert fast == plain


def test_without_transformers_the_extra_is_named(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'minilab\[labs\]'"):
        load_pair(f"{folders['llama']}+{folders['untied']}")


def in_the_hubs_cache(cache, name: str, folder: str) -> None:
    """Lay a folder out as a download of `name` is."""
    repository = cache / ("models--" + name.replace("/", "--"))
    shutil.copytree(folder, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")


def test_hub_names_are_found_in_the_cache_without_a_network(folders, monkeypatch, tmp_path):
    offline(monkeypatch, tmp_path)
    for name in ("sharded", "llama", "gpt2"):
        in_the_hubs_cache(tmp_path, f"someone/{name}", folders[name])
    pair = load_pair("someone/sharded+someone/llama")
    assert pair.name == "sharded+llama" and isinstance(pair.target, Transformer)
    assert isinstance(load_pair(f"{folders['llama']}+someone/gpt2").draft, HuggingFaceModel)
    next(tmp_path.glob("models--someone--sharded/snapshots/abc/model-00001-of-*")).unlink()
    with pytest.raises(OSError, match=r"incomplete: model-00001-of[\s\S]*needs a network"):
        load_pair("someone/sharded+someone/llama")


def offline(monkeypatch, cache):
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # the library reads the variable when it is imported
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def test_without_a_network_a_hub_name_points_to_the_shipped_pair(monkeypatch, tmp_path):
    offline(monkeypatch, tmp_path)
    with pytest.raises(OSError, match=r"needs a network[\s\S]*load_pair\('shipped'\)") as caught:
        load_pair("Qwen/Qwen3-8B+Qwen/Qwen3-0.6B")
    assert "Qwen/Qwen3-8B" in str(caught.value)
    with pytest.raises(OSError, match=r"load_pair\('shipped'\)"):
        load_hugging_face_pair(str(tmp_path / "nothing"), str(tmp_path / "here"))


def test_a_gated_model_points_to_its_license_and_the_login(monkeypatch, tmp_path):
    """A hub on this machine answers as the real one does for a model whose license was not accepted."""

    class Gate(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("X-Error-Message", "Access to model meta/llama is restricted")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    constants = pytest.importorskip("huggingface_hub").constants
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gate) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                            address + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(OSError, match="gated: accept its license .*`hf auth login`") as caught:
            load_pair("meta/llama+meta/llama-small")
        server.shutdown()
    assert "needs a network" not in str(caught.value)


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
