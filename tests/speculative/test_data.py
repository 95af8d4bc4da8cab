"""Prompts: beginnings of paragraphs that a reader can look up."""

import pytest

from minilab.speculative import data


def test_prompts_are_beginnings_of_shipped_paragraphs_and_always_the_same():
    found = data.prompts(20)
    text = data.load_corpus("shipped")
    flat = " ".join(text.split())
    assert found == data.prompts(20) != data.prompts(20, seed=1)
    assert len(set(found)) == 20 and all(len(p.split()) == 24 and p[0].isupper() and p in flat for p in found)
    with pytest.raises(ValueError, match="not 1000000"):
        data.prompts(1_000_000)
