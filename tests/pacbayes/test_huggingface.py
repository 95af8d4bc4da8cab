"""Certificates for models of `transformers`: the same as ours for the same model, and by hand for others."""

import copy
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from minilab.nn.huggingface import save_hf_folder
from minilab.nn.transformer import Transformer, TransformerConfig
from minilab.pacbayes import huggingface, llm, lora
from minilab.pacbayes.compress import Recipe, rebuild
from minilab.pacbayes.huggingface import CausalLM, certify, load, places, text_of
from minilab.pacbayes.llm import windows
from minilab.pacbayes.lora import LoRA
from minilab.pacbayes.subspace import Subspace

transformers = pytest.importorskip("transformers")

V = 16
RECIPE = Recipe(d=64, L=3, steps=20, rounded_steps=10, batch=16, lr=0.1, power=0)
CHAPTER = Path(__file__).parents[2] / "chapters" / "04-generalization-bounds.ipynb"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(V, shape, generator=generator(seed))


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=V, n_positions=32, n_embd=16, n_layer=2, n_head=4, bos_token_id=0,
                                     eos_token_id=0)
    return transformers.GPT2LMHeadModel(config).eval()


def neox() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(vocab_size=V, hidden_size=16, num_hidden_layers=1, num_attention_heads=4,
                                        intermediate_size=32, max_position_embeddings=32, bos_token_id=0,
                                        eos_token_id=0)
    return transformers.GPTNeoXForCausalLM(config).eval()


def with_factors(model: LoRA) -> LoRA:
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(generator=generator(p.numel()))
    return model


def text() -> llm.Text:
    """Documents that count: each token is the one before it and 1, or now and then any."""
    rows = (torch.randint(1, V, (400, 1), generator=generator(1)) + torch.arange(20)) % (V - 1) + 1
    odd = torch.rand(rows.shape, generator=generator(2)) < 0.1
    rows = torch.where(odd, torch.randint(1, V, rows.shape, generator=generator(3)), rows)
    return windows(torch.cat((rows.new_zeros(1), nn.functional.pad(rows, (0, 1)).flatten())), 21)


@pytest.fixture(scope="module", params=[False, True], ids=["free", "tied"])
def exported(request, tmp_path_factory) -> tuple[Transformer, nn.Module]:
    """A model of ours, and what `transformers` makes of its folder."""
    torch.manual_seed(0)
    ours = Transformer(TransformerConfig(V, 16, 2, 4, 2, 32, context=32, tie_embeddings=request.param)).eval()
    path = save_hf_folder(ours, tmp_path_factory.mktemp("exported"))
    return ours, transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def test_a_correction_of_our_model_is_that_of_the_exported_one(exported):
    ours, theirs = exported
    spaces = [Subspace(build, (), V, d=64, seed=3)
              for build in (lora.corrected(ours, rank=2), huggingface.corrected(theirs, rank=2))]
    v = torch.randn(64, generator=generator())
    one, two = (space.at(v, tokens(2, 9)) for space in spaces)
    torch.testing.assert_close(one, two, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(one, ours(tokens(2, 9)), atol=1e-2)


def test_a_file_opens_in_both_and_certifies_the_same(exported):
    ours, theirs = exported
    networks = lora.corrected(ours, rank=2), huggingface.corrected(theirs, rank=2)
    given = text()
    file = llm.learn(given, V, replace(RECIPE, network=networks[0]), networks=networks[:1])
    one, two = (llm.certificate(file, given, V, networks=(network,)) for network in networks)
    assert one.bits == two.bits and one.loss == pytest.approx(two.loss, abs=1e-4)
    for name in ("documents", "tokens", "foreseen"):
        assert getattr(one, name).value == pytest.approx(getattr(two, name).value, abs=1e-4)


def test_gpt2s_queries_values_and_head_are_corrected_and_nothing_else():
    """In one matrix of its own for the three, stored as in x out, and with a head tied to the embedding."""
    model = gpt2()
    network, by_hand = with_factors(LoRA(CausalLM(model), 3, places(CausalLM(model)))), copy.deepcopy(model)
    by_hand.lm_head.weight = nn.Parameter(by_hand.lm_head.weight.clone())
    q0, v0, q1, v1, head = ((f.B @ f.A).detach() for f in network.factors)
    with torch.no_grad():
        for block, q, v in zip(by_hand.transformer.h, (q0, q1), (v0, v1), strict=True):
            block.attn.c_attn.weight[:, :16] += q.T
            block.attn.c_attn.weight[:, 32:] += v.T
        by_hand.lm_head.weight += head
    x = tokens(2, 9)
    torch.testing.assert_close(network(x), by_hand(x).logits)
    assert not torch.allclose(network(x), model(x).logits, atol=1e-2)


def test_a_matrix_in_an_order_of_its_own_is_corrected_whole():
    network = with_factors(LoRA(CausalLM(neox()), 2, places(CausalLM(neox()))))
    (inner, head), by_hand = network.factors, copy.deepcopy(network.frozen[0].model)
    assert (inner.place.rows, inner.place.columns, head.place.rows) == (48, 16, V)
    with torch.no_grad():
        by_hand.gpt_neox.layers[0].attention.query_key_value.weight += inner.B @ inner.A
        by_hand.get_output_embeddings().weight += head.B @ head.A
    torch.testing.assert_close(network(tokens(2, 9)), by_hand(tokens(2, 9)).logits)


def test_a_model_of_others_is_certified_below_guessing_and_only_its_few_numbers_learn():
    model, given = gpt2(), text()
    before = {name: p.clone() for name, p in model.named_parameters()}
    found = certify(model, given, replace(RECIPE, d=100, steps=100, rounded_steps=50, lr=0.3), rank=2)
    assert found.loss < found.foreseen.value < math.log2(V) and not found.foreseen.vacuous
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters())


def test_weights_of_a_configuration_are_those_of_the_seed():
    build = huggingface.corrected(gpt2().config)
    one, same, other = (Subspace(build, (), V, d=25, seed=seed)(tokens(1, 5)) for seed in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_a_rebuilt_model_says_what_was_sent_bit_for_bit():
    network = huggingface.corrected(gpt2())
    file = llm.learn(text(), V, replace(RECIPE, network=network, steps=5, rounded_steps=5), networks=(network,))
    one, two = (rebuild(file, (), V, networks=(network,))(tokens(2, 9)) for _ in range(2))
    assert torch.equal(one, two)


def tokenizer_of(words: list[str]):
    from tokenizers import Tokenizer, models, pre_tokenizers

    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unknown>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<end>", unk_token="<unknown>")


@pytest.fixture(scope="module")
def tokenizer():
    """Words w0 to w13, an unknown one, and an end that no document can write."""
    return tokenizer_of([*(f"w{i}" for i in range(14)), "<unknown>"])


def test_documents_stand_between_end_tokens_that_none_can_forge(tokenizer):
    found = text_of(["w3 w4 w5", "w1 <end> w2"], tokenizer, length=3)
    rows = [[x for x in row if x >= 0] for row in found.rows.tolist()]
    assert found.document.tolist() == [0, 0, 1, 1]
    assert rows == [[15, 3, 4, 5], [5, 15], [15, 1, 14, 2], [2, 15]]
    with pytest.raises(ValueError, match="document 1 holds the end token"):
        text_of(["w3 w4 w5", "w1 <end> w2"], tokenizer_of(["w1", "w2", "w3", "<end>", "<unknown>"]), length=3)


def test_the_three_lines_of_the_chapter_work(tokenizer, tmp_path):
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    (lines,) = (block for block in re.findall(r"```python\n(.*?)```", prose, re.S) if "huggingface" in block)
    gpt2().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    given = {"folder": str(tmp_path), "documents": [f"w{i} w{i + 1} w{i + 2}" for i in range(1, 9)],  # 8 of them
             "recipe": replace(RECIPE, steps=3, rounded_steps=3)}
    lines = re.sub(r"length=\d+", "length=8", lines)
    exec(lines, given)
    assert given["found"].tokens.V == V and given["found"].bits > 0


def test_what_cannot_be_certified_is_refused_with_what_to_do(tokenizer, monkeypatch):
    with pytest.raises(ValueError, match="no layer is named nonsense.*c_attn"):
        places(CausalLM(gpt2()), ["nonsense"])
    with pytest.raises(ValueError, match="16 tokens and the text is written in 17"):
        Subspace(huggingface.corrected(gpt2()), (), 17, d=25)
    with pytest.raises(ValueError, match="windows of 40 tokens, but the model sees 32"):
        certify(gpt2(), windows(torch.cat((tokens(1) * 0, 1 + tokens(60) % 15, tokens(1) * 0)), 40), RECIPE)
    with pytest.raises(ValueError, match="no output over tokens"):
        certify(transformers.GPT2Model(gpt2().config), text(), RECIPE)
    with pytest.raises(ValueError, match="0 documents"):
        text_of([], tokenizer, length=3)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"minilab\[labs\]"):
        load("anything")
