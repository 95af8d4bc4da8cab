import math

import pytest

from minilab.core.records import Record, flatten
from minilab.ensembles.experiments import EXPERIMENTS
from minilab.ensembles.experiments_data import moved
from minilab.ensembles.recipes import Place, time_scale
from minilab.ensembles.runs import Data
from minilab.ensembles.study import CARD, LAPTOP, QUICK, TUNED, best, named, sized, told


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # one cache for all: experiments share runs
        patch.setenv("MINILAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def run(name):
    return EXPERIMENTS[name].run(EXPERIMENTS[name].presets["cpu"]).results


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_runs_in_small_and_its_numbers_are_finite(name):
    found = dict(flatten(run(name)))
    assert len(found) > 10
    for key, value in found.items():
        assert value is None or isinstance(value, str) or math.isfinite(value), key


def test_best_of_several_rates_is_shown_for_each_number_of_epochs():
    rows = run("epochs")["rows"]
    assert set(rows) == {"0.1", "1.6"} and set(rows["0.1"]) == {"1", "2"}
    assert rows["0.1"]["2"]["loss"] < rows["0.1"]["1"]["loss"]  # two epochs of eight tokens a parameter


def test_sizes_end_with_a_certificate_and_the_law_goes_through_the_means():
    found = run("sizes")["recipes"]["regularized"]
    rows = found["sizes"].values()
    assert all(row["certified"] and len(row["losses"]) == 2 for row in rows)
    law, N = found["law"]["free"], run("sizes")["parameters"]
    for row, size, residual in zip(rows, N, law["residuals"], strict=True):
        assert row["loss"] - (law["A"] * size ** -law["alpha"] + law["E"]) == pytest.approx(residual, abs=1e-4)


def test_first_point_of_a_curve_is_the_mean_member():
    for row in run("together")["places"].values():
        assert row["logits"]["losses"][0] == pytest.approx(row["loss"], abs=1e-4)
        assert row["probabilities"]["losses"][-1] < row["loss"]


def test_two_members_shortcut_is_what_its_name_says():
    row = next(iter(run("joint")["sizes"].values()))
    assert row["two members"] == pytest.approx(2 * row["losses"][1] - row["losses"][0], abs=1e-5)


def test_standard_recipe_saves_nothing_over_itself():
    for row in run("data")["efficiency"].values():
        assert row["standard"] == pytest.approx(1)


def test_students_are_measured_beside_their_teachers_and_keep_what_the_definition_says():
    found = run("distill")
    rows = {name: sum(row["losses"]) / len(row["losses"]) for name, row in found["rows"].items()}
    assert rows["ensemble"] < rows["one teacher"]
    for arm, kept in found["retention"].items():
        if kept:
            share = (rows["regularized"] - rows[arm]) / (rows["regularized"] - rows["ensemble"])
            assert kept[0] == pytest.approx(share, rel=1e-3) and kept[1] <= kept[0] <= kept[2]


def test_soup_of_one_beginning_is_near_its_ensemble_and_of_two_it_is_not():
    found = run("continued")
    for row in found["rows"].values():
        assert row["soup"] - row["ensemble"] < 0.05
    apart = found["begun apart"]
    assert apart["soup"] - apart["ensemble"] > 0.05


def test_a_model_that_has_learned_nothing_answers_a_quarter_of_the_questions_within_the_interval():
    for row in run("downstream")["rows"].values():
        for kind in ("easy", "hard"):
            _, low, high = row[kind]["score"]
            assert low <= 0.25 <= high


@pytest.mark.parametrize(("study", "span"), [(LAPTOP, 10), (CARD, 20)])
def test_studies_are_of_the_sizes_that_the_paper_compares(study, span):
    from minilab.ensembles.runs import parameters

    N = [parameters(model) for model in study.models]
    assert len(N) == 4 and N[-1] / N[0] > span and study.task(0).steps >= 100
    assert 0.3 < N[0] / study.data.tokens < 2 and N[-1] / study.data.tokens > 7  # the paper's: 0.75 and 7


def test_places_moved_to_more_tokens_keep_their_time_scale():
    study = moved(LAPTOP, 2 * LAPTOP.data.tokens)
    for i in range(4):
        assert time_scale(study.task(i), study.regularized[i]) == pytest.approx(
            time_scale(LAPTOP.task(i), LAPTOP.regularized[i]))


def test_best_place_has_the_least_mean_and_no_diverged_seed():
    from minilab.ensembles.runs import Outcome

    task, places = QUICK.task(0), [Place(1, 1e-2, 0.1), Place(2, 1e-2, 0.1), Place(2, 1e-2, 0.4)]
    losses = [3.0, 3.4, 3.1, 3.1, 2.0, math.nan]
    outcomes = [Outcome(x, (x,), None) for x in losses]
    assert best(task, places, (0, 1), outcomes)["losses"] == [3.1, 3.1]
    with pytest.raises(ValueError, match="lower learning rates"):
        best(task, places[2:], (0, 1), outcomes[4:])
    assert told(task, places[0], outcomes[:2])["loss"] == pytest.approx(3.2)


def test_sizes_are_named_by_their_parameters():
    assert named(95_400) == "95.4k" and named(5.8e6) == "5.8M"
    model = sized(64, 3, vocab=1024, length=128)
    assert model.hidden_dim == 224 and model.head_dim == 32 and not model.tie_embeddings
    assert QUICK.on(64).data == Data(64, length=32, valid_tokens=512)


def test_tuned_searches_begin_where_those_of_the_record_ended():
    ended = Record.load("ensembles/sizes", preset="gpu").results["recipes"]
    for recipe in ("standard", "regularized"):
        rows = [ended[recipe]["sizes"][name] for name in TUNED.names]
        assert getattr(TUNED, recipe) == tuple(Place(r["epochs"], r["lr"], r["weight_decay"]) for r in rows)
