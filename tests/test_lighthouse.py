"""`make lighthouse` ends with an error if a page scores low, and gives a busy machine another chance."""

import importlib.machinery
import importlib.util

import pytest
from checkout import ROOT


@pytest.fixture
def lighthouse(monkeypatch, tmp_path):
    """The script as a module, which starts no server and writes its table elsewhere."""
    loader = importlib.machinery.SourceFileLoader("lighthouse", str(ROOT / ".ci" / "lighthouse"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("lighthouse", loader))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "build").mkdir()
    monkeypatch.setattr(module.subprocess, "Popen", lambda *_, **__: type("Server", (), {"pid": 0}))
    monkeypatch.setattr(module.os, "killpg", lambda *_: None)
    monkeypatch.setattr(module.urllib.request, "urlopen", lambda *_: None)
    return module


@pytest.mark.parametrize(
    ("scores", "code", "runs"),
    [
        ([[0.95, 0.95, 0.95, 0.5]], 0, 1),  # what search engines like is told and not judged
        ([[1, 0.94, 1, 1]], 1, 1),
        ([[1, 1, 0.94, 1]], 1, 1),
        ([[0.94, 1, 1, 1]], 1, 3),
        ([[0.6, 1, 1, 1], [0.7, 1, 1, 1], [0.97, 1, 1, 1]], 0, 3),  # the machine was busy
        ([[0.6, 0.9, 1, 1]], 1, 1),
    ],
)
def test_a_low_score_is_an_error(lighthouse, monkeypatch, capsys, scores, code, runs):
    asked = []

    def told(page, desktop):
        asked.append(page)
        return [1, 1, 1, 1] if desktop else scores[min(len(asked), len(scores)) - 1]

    monkeypatch.setattr(lighthouse, "scores", told)
    assert lighthouse.main(["index.html"]) == code
    assert len(asked) == runs + 1
    assert f"{code} of 2 below 95" in capsys.readouterr().out
