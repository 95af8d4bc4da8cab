import csv
import math

import nbformat
import pytest
import torch

from minilab.ensembles import contest
from minilab.ensembles.contest import BASELINE, BUDGET, DATA, Entry, leaderboard, read_entry, score, split
from minilab.ensembles.data import corpus
from minilab.ensembles.members import Hyper, RunConfig, train_members, validation_loss


def notebook(path, *cells):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(book, path)
    return path


def rows(set_of_windows):
    return set(map(tuple, set_of_windows.tolist()))


def test_a_seed_draws_its_own_text_and_other_pages_are_held_out():
    text = corpus(DATA.name, vocab_size=DATA.vocab, length=DATA.length)
    train, held = split(0)
    assert train.numel() == DATA.tokens // DATA.length * (DATA.length + 1)
    assert rows(train) <= rows(text.train) and rows(held) <= rows(text.valid)
    assert all(torch.equal(a, b) for a, b in zip(split(0), (train, held), strict=True))
    assert rows(train) != rows(split(1)[0]) and rows(held) != rows(split(1)[1])


def test_cost_grows_with_members_and_epochs_and_ends_at_the_budget():
    one = Entry().flops
    assert Entry(members=3).flops == Entry(epochs=24).flops == 3 * one == Entry(members=3, epochs=4).flops * 2
    assert Entry(members=4).flops <= BUDGET < 5 * one
    with pytest.raises(ValueError, match="take fewer epochs or members"):
        Entry(members=5)


@pytest.mark.parametrize("wrong", [{"members": 0}, {"layers": True}, {"dim": 18}, {"average": "losses"},
                                   {"lr": -1.0}, {"weight_decay": 200.0}])
def test_an_entry_that_cannot_be_trained_is_refused(wrong):
    with pytest.raises(ValueError):
        Entry(**wrong).runs  # noqa: B018


@pytest.mark.parametrize("huge", [{"members": 10**9}, {"epochs": 10**9}, {"layers": 10**9}, {"dim": 4 * 10**9}])
def test_an_entry_that_nobody_could_hold_in_memory_is_refused_at_once(huge):
    with pytest.raises(ValueError, match="take fewer epochs or members"):
        Entry(**huge)


def test_the_score_is_the_loss_of_what_the_entry_says():
    train, held = split(3)
    entry = Entry(dim=8, epochs=1, lr=0.02, weight_decay=0.5)
    found = train_members(train, entry.runs[0].task.model, [Hyper(0.02, 0.5, 0, 0)],
                          RunConfig(1, contest.BATCH, precision="fp32"))
    assert score(entry, 3) == pytest.approx(float(validation_loss(found.model, held)), abs=1e-5)


def test_an_entry_is_read_from_the_last_line_that_gives_it(tmp_path):
    path = notebook(tmp_path / "ada.ipynb", "%pip install x\nentry = {'members': 1}", "entry = {'members': 2}",
                    "# tried\nloss = 5.3\nentry = {\n    'members': 3, 'lr': 2e-2,\n}", "print(entry['members'])")
    assert read_entry(path) == Entry(members=3, lr=0.02)


@pytest.mark.parametrize("later", [
    "entry['members'] = 4", "entry.update(members=4)", "for members in (1, 4):\n    entry = {'members': members}",
    "entry |= {'members': 4}", "del entry", "if True:\n    entry = {'members': 4}", "entry: dict = {'members': 4}",
    "%%time\nentry = {'members': 4}", "%time entry = {'members': 4}",
    "%%time\nentry['members'] = 4", "entry, loss = {'members': 4}, 5.3",
])  # fmt: skip
def test_an_entry_that_may_be_changed_later_is_refused(tmp_path, later):
    path = notebook(tmp_path / "fay.ipynb", "entry = {'members': 2}", later)
    with pytest.raises(ValueError, match="may change its entry"):
        read_entry(path)
    assert read_entry(notebook(path, later, "entry = {'members': 2}")) == Entry(members=2)


@pytest.mark.parametrize("later", [
    "score(Entry(**entry), 0)", "%time score(Entry(**entry), seed=0)", "mine = Entry(**entry)",
    "for d in (0.1, 0.4):\n    print(entry | {'lr': d})", "entry == {'members': 4}", "entries = [entry]",
    "def test(entry):\n    assert entry", "%%time\nentry == 1", "other['entry'] = entry.get('members')",
])  # fmt: skip
def test_an_entry_that_is_only_used_later_is_read(tmp_path, later):
    assert read_entry(notebook(tmp_path / "gus.ipynb", "entry = {'members': 2}", later)) == Entry(members=2)


@pytest.mark.parametrize("cell, said", [
    ("x = 1", "no line"), ("entry = best()", "is no entry"), ("entry = {...}", "is no entry"),
    ("entry = {'size': 3}", "write numbers for dim"), ("entry = {'members': 99}", "fewer epochs"),
    ("entry = {'lr': __import__('os').getpid()}", "is no entry"),
])  # fmt: skip
def test_what_is_no_entry_is_refused_and_not_run(tmp_path, cell, said):
    with pytest.raises(ValueError, match=said):
        read_entry(notebook(tmp_path / "ben.ipynb", cell))


def test_the_leaderboard_ranks_by_loss_and_keeps_the_broken_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(contest, "score", lambda entry, seed: math.nan if entry.lr > 1 else 6 - entry.members + seed)
    inbox = tmp_path / "inbox"
    (inbox / "late").mkdir(parents=True)
    for name, cell in {"ada": "entry = {'members': 2}", "late/ben": "entry = {'members': 4}", "cleo": "entry = 1",
                       "dan": "entry = {'lr': 2.0}"}.items():
        notebook(inbox / f"{name}.ipynb", cell)
    (inbox / "eve.ipynb").write_text("not a notebook", encoding="utf-8")
    with open(leaderboard(inbox, tmp_path / "ranks.csv", seed=1), newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["file"] for row in table] == ["late/ben.ipynb", "ada.ipynb", "the course's baseline", "cleo.ipynb",
                                              "dan.ipynb", "eve.ipynb"]
    assert [row["loss"] for row in table] == ["3.0000", "5.0000", "6.0000", "nan", "nan", "nan"]
    assert [bool(row["error"]) for row in table] == [False] * 3 + [True] * 3
    assert [row["rank"] for row in table] == ["1", "2", "3", "", "", ""]
    assert table[2]["entry"] == str(BASELINE) and table[4]["error"] == "diverged"


def test_entries_within_chance_share_a_rank(tmp_path, monkeypatch):
    losses = {1: 5.5, 2: 5.3, 3: 5.29, 4: 5.275}
    monkeypatch.setattr(contest, "score", lambda entry, seed: losses[entry.members])
    for members in (2, 3, 4):
        notebook(tmp_path / f"{members}.ipynb", f"entry = {{'members': {members}}}")
    with open(leaderboard(tmp_path, tmp_path / "ranks.csv", seed=1), newline="", encoding="utf-8") as file:
        assert [row["rank"] for row in csv.DictReader(file)] == ["1", "1", "2", "4"]


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="give the folder of the submitted notebooks"):
        leaderboard(tmp_path, tmp_path / "ranks.csv", seed=1)
