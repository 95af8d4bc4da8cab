"""The picture of a cache must say what the round says, and be safe in a page."""

import re
from functools import partial

import pytest

from minilab.speculative import engine, fanout, picture


@pytest.fixture(scope="module")
def rounds(shipped):
    prompt = shipped.encode("The file is opened in binary mode, so that")
    steps, before = [], list(prompt)
    for step in engine.ssd(shipped.target, shipped.draft, [prompt], K=3, max_new_tokens=60,
                           fan_out=partial(fanout.uniform, 4)):
        steps.append((step, list(before)))
        before += step.tokens[0]
    return steps


def test_every_branch_is_there_and_only_the_outcome_is_marked(shipped, rounds):
    seen = set()
    for step, before in rounds:
        html = picture.cache_html(step, before, shipped.decode)
        outcome = (step.accepted[0], step.bonus[0])
        hit = outcome in step.guesses[0]
        assert html.count("<li><b>") + html.count("<li class=hit>") == len(step.guesses[0])
        assert html.count("class=hit") == hit and html.count('class="missed"') == (not hit)
        assert html.count("<li class=came>") == 1 and html.count("<s>") == step.drafted
        lines = picture.cache_text(step, before, shipped.decode).splitlines()
        assert len(lines) == 2 + len(step.guesses[0])
        assert sum(line.startswith("*") for line in lines) == hit
        seen.add(hit)
    assert seen == {True, False}, "this test needs a hit and a miss"


def test_a_hit_is_what_the_next_round_sends(rounds):
    for (now, _), (later, _) in zip(rounds, rounds[1:], strict=False):
        outcome = (now.accepted[0], now.bonus[0])
        if outcome in now.guesses[0]:
            branch = now.prepared[0][now.guesses[0].index(outcome)]
            assert later.hits[0] and later.speculation[0] == branch[: later.drafted]


def test_text_is_escaped_and_line_breaks_are_shown(rounds):
    step, before = rounds[0]
    html = picture.cache_html(step, before, lambda tokens: "<u>&\n" * len(tokens))
    body = re.sub(r"<style>.*?</style>", "", html, flags=re.S)
    assert "&lt;u&gt;&amp;⏎" in body and "<u>" not in body


def test_a_row_that_is_not_there_is_refused(shipped, rounds):
    with pytest.raises(IndexError):
        picture.cache_html(rounds[0][0], [1], shipped.decode, row=1)
