"""Members' speed: which steps are timed, and how often."""

from dataclasses import replace

import pytest
import torch

from minilab.ensembles import experiments_speed as speed
from minilab.ensembles.members import Hyper
from minilab.ensembles.runs import parameters

PRESET = replace(speed.SPEED["cpu"], K=3, steps=4, repeats=2)


def test_each_way_is_timed_for_the_second_half_of_as_many_trainings_as_it_needs(monkeypatch):
    """A step takes 0.25 s and 0.5 s more for each member, after 7 s of set-up; a plain member 5 s."""
    now, asked = [0.0], []

    def train_members(windows, config, hypers, run, *, on_log):
        now[0] += 7.0
        steps = len(windows) // run.batch
        asked.append((len(hypers), steps))
        for done in range(1, steps + 1):
            now[0] += 0.25 + 0.5 * len(hypers)
            if done % run.log_every == 0:
                on_log(done, None)

    monkeypatch.setattr(speed, "train_members", train_members)
    monkeypatch.setattr(speed, "plain", lambda windows, task, hyper, preset: 5.0)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(speed, "product_rate", lambda device, size, dtype: 1e9)
    found = speed.timed(PRESET, 0, torch.device("cpu"))
    assert found == {speed.TOGETHER: [4 * 1.75] * 2, speed.APART: [3 * 4 * 0.75] * 2, speed.PLAIN: [3 * 5.0] * 2}
    assert asked == 2 * [(3, 8), (1, 8), (1, 8), (1, 8)]
    rows = speed.speed(PRESET).results["sizes"]
    row, tokens = next(iter(rows.values())), 3 * 4 * PRESET.study.batch * PRESET.study.data.length
    assert row["times_faster"][speed.PLAIN]["median"] == pytest.approx(15 / 7, rel=1e-5)
    assert row["tokens_per_s"][speed.APART]["median"] == pytest.approx(tokens / 9, rel=1e-5)


def test_the_peer_times_its_second_half_and_decays_what_ours_decays(monkeypatch):
    made = []

    class Counted(torch.optim.AdamW):
        def __init__(self, groups, **options):
            super().__init__(groups, **options)
            self.steps = 0
            made.append(self)

        def step(self):
            self.steps += 1
            return super().step()

    monkeypatch.setattr(torch.optim, "AdamW", Counted)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: made[0].steps)  # a second a step
    task = PRESET.study.task(0)
    windows = torch.randint(task.data.vocab, (2 * PRESET.steps * task.batch, task.data.length + 1))
    assert speed.plain(windows, task, Hyper(weight_decay=0.3), PRESET) == PRESET.steps
    decayed, others = (group["params"] for group in made[0].param_groups)
    assert [group["weight_decay"] for group in made[0].param_groups] == [0.3, 0.0]
    assert all(p.dim() == 2 for p in decayed) and sum(p.dim() == 2 for p in others) == 1  # the embedding


def test_the_papers_shapes_have_its_numbers_of_parameters():
    """Its Section 2.1 names them 150M and 300M; the counts are those of the authors' own formula."""
    assert [round(parameters(model) / 1e5) for model in speed.PAPER.models] == [1541, 2996]
    assert [round(parameters(model, embedding=False) / 1e5) for model in speed.PAPER.models] == [228, 1026]
