"""Progress bars: the items pass through, the bar tells and closes, and silence is silent."""

import pytest

from minilab.core.progress import progress


def test_items_pass_through_and_the_bar_tells_the_rest(monkeypatch, capsys):
    monkeypatch.setenv("MINILAB_PROGRESS", "1")
    assert list(progress(range(3), desc="rounds", unit="round")) == [0, 1, 2]
    assert "rounds: 100%" in capsys.readouterr().err


def test_silent_when_asked(monkeypatch, capsys):
    monkeypatch.setenv("MINILAB_PROGRESS", "0")
    bar = progress(iter("ab"), desc="rounds", total=2)
    for _ in bar:
        bar.set_postfix_str("loss 1", refresh=False)
    assert capsys.readouterr() == ("", "")


def test_interrupt_closes_the_bar_and_ends_its_line(monkeypatch, capsys):
    monkeypatch.setenv("MINILAB_PROGRESS", "1")

    def work():
        for i in progress(range(100), desc="rounds"):
            if i == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert capsys.readouterr().err.endswith("\n")
