import json
import math
from dataclasses import replace

import pytest
import torch

from minilab.ensembles.members import Hyper, RunConfig, train_members, validation_loss
from minilab.ensembles.runs import (
    Data,
    Outcome,
    Run,
    Stage,
    Task,
    carry_out,
    dry_run,
    grouped,
    members,
    outcome,
    parameters,
    runs_folder,
)
from minilab.nn.transformer import Transformer, TransformerConfig

TINY = TransformerConfig(1024, dim=8, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=16, context=32,
                         tie_embeddings=False)
TASK = Task(Data(tokens=512, length=32, valid_tokens=256), TINY)
RUNS = [Run(TASK, 2, Hyper(1e-2, decay, seed, seed)) for decay in (0.0, 1.0) for seed in (0, 1)]


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MINILAB_CACHE", str(tmp_path))


def test_outcome_is_that_of_the_same_training_alone():
    run, text = RUNS[3], TASK.data.corpus()
    found = carry_out(RUNS, device="cpu")[3]
    alone = train_members(text.train, TINY, [run.hyper], RunConfig(2, 2))
    assert found.valid == pytest.approx(float(validation_loss(alone.model, text.valid)), abs=1e-5)
    assert found.train == pytest.approx(alone.losses[0].view(2, 8).mean(dim=1).tolist(), abs=1e-5)


def test_what_is_there_is_not_trained_again(monkeypatch):
    first = carry_out(RUNS[:2], device="cpu")
    trained = []
    monkeypatch.setattr("minilab.ensembles.runs.train_members",
                        lambda *args, **kw: trained.append(args[2]) or train_members(*args, **kw))
    both = carry_out(RUNS[:3], device="cpu")
    assert trained == [[RUNS[2].hyper]] and both[:2] == first
    told = dry_run([Stage(RUNS)]).splitlines()
    assert told[0].startswith(f"1 of 4 runs are missing, {RUNS[3].flops:.1e}") and "decay 1, seed 1" in told[1]


def test_dry_run_counts_what_the_calls_would_train_one_after_the_other():
    def told(*stages):
        first, *rest = dry_run(stages, then="and more").splitlines()
        assert rest.pop() == "and more" and len(rest) == int(first.split()[0])
        return first.partition(" runs")[0], sum("its weights are not" in line for line in rest)

    carry_out(RUNS[:1], device="cpu")
    carry_out(RUNS[1:2], device="cpu", keep=True)
    assert told(Stage(RUNS[:3])) == ("1 of 3", 0)
    assert told(Stage(RUNS[:3], keep=True)) == ("2 of 3", 1)
    assert told(Stage(RUNS[:3], keep=True), Stage(RUNS[:3])) == ("2 of 3", 1)
    assert told(Stage(RUNS[2:3]), Stage(RUNS[2:3], keep=True)) == ("2 of 2", 0)  # `carry_out` does it twice as well


def test_kept_members_are_what_was_measured_and_are_trained_anew_if_they_were_not_kept():
    found = carry_out(RUNS[:2], device="cpu")
    with pytest.raises(FileNotFoundError, match="keep=True"):
        members(RUNS[:2])
    assert carry_out(RUNS[:2], device="cpu", keep=True) == found
    losses = validation_loss(members(RUNS[:2], device="cpu"), TASK.data.corpus().valid)
    assert losses.tolist() == pytest.approx([o.valid for o in found], abs=1e-5)


def test_interrupted_training_goes_on_and_leaves_no_checkpoint(monkeypatch):
    whole = carry_out(RUNS[:2], device="cpu", folder=runs_folder() / "other")

    def interrupted(*args, **kw):
        raise KeyboardInterrupt

    monkeypatch.setattr("minilab.ensembles.runs.validation_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        carry_out(RUNS[:2], device="cpu")
    assert [path.name.split("-")[0] for path in runs_folder().glob("*.safetensors")] == ["unfinished"]
    monkeypatch.setattr("minilab.ensembles.runs.validation_loss", validation_loss)
    monkeypatch.setattr("minilab.ensembles.members._State.step", interrupted)  # all its steps are done
    assert carry_out(RUNS[:2], device="cpu") == whole
    assert not list(runs_folder().glob("*.safetensors"))


def test_diverged_run_has_an_outcome_that_says_when(monkeypatch):
    wild = Run(TASK, 2, Hyper(1e-2))

    def spoiled(windows, config, hypers, run, **kw):
        found = train_members(windows, config, hypers, run, **kw)
        found.losses[0, 5:] = math.nan
        return found

    monkeypatch.setattr("minilab.ensembles.runs.train_members", spoiled)
    found = carry_out([wild], device="cpu", keep=True)[0]
    assert found.diverged == 5 and math.isnan(found.valid)
    assert json.loads((runs_folder() / f"{wild.key}.json").read_text())["outcome"]["valid"] is None
    monkeypatch.setattr("minilab.ensembles.runs.train_members", None)  # it is not tried again
    assert carry_out([wild], device="cpu", keep=True)[0].diverged == 5
    with pytest.raises(ValueError, match=r"lr=0.01.* diverged: leave them out, or train them with a lower"):
        members([wild])  # no advice to keep what cannot be kept


def test_outcome_of_a_run_whose_last_step_spoiled_it_is_not_sound():
    assert Outcome(3.0, (3.0,), None).sound
    assert not Outcome(math.nan, (3.0,), None).sound and not Outcome(math.inf, (3.0,), None).sound
    assert not Outcome(math.nan, (math.nan,), 5).sound


def test_groups_share_task_and_length_and_are_no_larger_than_asked():
    longer = [replace(run, epochs=3) for run in RUNS[:1]]
    assert [len(group) for group in grouped(RUNS + longer, 3)] == [3, 1, 1]
    assert [run for group in grouped(RUNS + longer, 3) for run in group] == RUNS + longer


def test_a_run_with_anything_changed_has_another_key():
    base = RUNS[0]
    other = [replace(base, epochs=3), replace(base, hyper=replace(base.hyper, data_seed=9)),
             replace(base, task=replace(TASK, batch=1)), replace(base, task=replace(TASK, precision="bf16")),
             replace(base, task=replace(TASK, data=replace(TASK.data, tokens=480)))]
    assert len({run.key for run in (base, *other)}) == 6


def test_parameters_are_counted_as_torch_counts_them():
    model = Transformer(TINY)
    assert parameters(TINY) == model.num_parameters()
    assert parameters(TINY, embedding=False) == model.num_parameters() - 2 * 1024 * 8


def test_flops_are_those_that_torch_counts_but_for_attention():
    from torch.utils.flop_counter import FlopCounterMode

    model, tokens = Transformer(TINY), torch.zeros(1, 32, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(tokens).sum().backward()
    run = Run(Task(Data(tokens=32, length=32), TINY, batch=1), 1, Hyper())
    attention = 32 * 12 * TINY.n_layers * 32 * TINY.dim
    norms = 32 * 6 * (2 * TINY.n_layers + 1) * TINY.dim  # counted as weights
    products = run.flops - attention - norms
    assert products <= counter.get_total_flops() <= products + attention


def test_outcome_of_a_run_that_was_not_carried_out_is_no_file():
    with pytest.raises(FileNotFoundError, match="carry_out"):
        outcome(RUNS[0])
