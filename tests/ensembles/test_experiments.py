import math
from dataclasses import replace

import pytest
import torch

from minilab.cli import main
from minilab.core.records import Record, flatten
from minilab.ensembles import runs as module
from minilab.ensembles.experiments import EXPERIMENTS
from minilab.ensembles.experiments_data import DATA, moved
from minilab.ensembles.experiments_extras import EXTRAS, MASKS, batch_runs, in_order
from minilab.ensembles.experiments_members import JOINT, MEMBERS, ensemble, together_runs
from minilab.ensembles.experiments_teach import CONTINUED, new_domain
from minilab.ensembles.members import decays, validation_loss
from minilab.ensembles.recipes import Place, runs_at, time_scale
from minilab.ensembles.runs import Data, Outcome, outcome
from minilab.ensembles.search import search
from minilab.ensembles.study import CARD, LAPTOP, QUICK, TUNED, best, named, place_of, sized, told
from minilab.nn.transformer import Transformer


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # one cache for all: experiments share runs
        patch.setenv("MINILAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def run(name):
    return EXPERIMENTS[name].run(EXPERIMENTS[name].presets["cpu"]).results


def dry(name, capsys):
    """What the command line says would be trained: the missing runs, of how many, and the lines below."""
    assert main(["run", f"ensembles/{name}", "--preset", "cpu", "--dry-run"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    missing, _, count = first.split()[:3]
    return int(missing), int(count), rest


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_runs_in_small_and_its_numbers_are_finite_and_its_dry_run_lists_what_it_trains(
        name, monkeypatch, capsys):
    carried, real = [], module.train_members

    def train(windows, config, hypers, *args, **options):
        carried.extend(hypers)
        return real(windows, config, hypers, *args, **options)

    monkeypatch.setattr(module, "train_members", train)  # and not of experiments that train for themselves
    if keeps := EXPERIMENTS[name].dry_run is not None:
        missing, count, lines = dry(name, capsys)
        assert missing <= count and not carried
    else:
        assert main(["run", f"ensembles/{name}", "--dry-run"]) == 2 and "ensembles/joint" in capsys.readouterr().err
    found = dict(flatten(run(name)))
    assert len(found) > 10
    for key, value in found.items():
        assert value is None or isinstance(value, str) or math.isfinite(value), key
    if keeps:
        searches = any("depend on these outcomes" in line for line in lines)
        assert len(carried) > missing if searches else len(carried) == missing
        missing, _, lines = dry(name, capsys)
        assert missing == 0 and all("every run trains" in line for line in lines)
    else:
        assert not carried


def test_dry_run_of_members_whose_outcomes_alone_are_kept_trains_them_all_again(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(module, "runs_folder", lambda: tmp_path)
    preset = MEMBERS["cpu"]
    preset.study.carry(together_runs(preset), "cpu")
    missing, count, lines = dry("together", capsys)
    assert missing == count == 6 and all("its weights are not" in line for line in lines)


def test_dry_run_of_searches_goes_on_to_what_their_ends_ask_for(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(module, "runs_folder", lambda: tmp_path)
    study = JOINT["cpu"].study
    missing, _, lines = dry("joint", capsys)
    assert missing == 4 * 3 and lines[-1].startswith("4 of 4 searches have not ended")
    for size in (0, 1):
        search(study.task(size), study.regularized[size], study.grid, seeds=study.seeds[:1])
    missing, _, lines = dry("joint", capsys)  # two first moves, and two times a second seed and four members
    assert missing == 2 * 3 + 2 * (1 + 4) and lines[-1].startswith("2 of 4 searches have not ended")
    assert sum("seed 1:" in line for line in lines) == 4 and sum("seed 3:" in line for line in lines) == 2


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


@pytest.mark.parametrize("name", CONTINUED)
def test_both_domains_have_as_much_text_as_a_preset_asks_for(name):
    preset = CONTINUED[name]
    for data in (preset.study.data, new_domain(preset)):
        text = data.corpus()
        assert text.train.numel() >= data.tokens and text.valid.numel() >= data.valid_tokens


@pytest.mark.parametrize("name", DATA)
def test_there_is_text_for_every_number_of_tokens(name):
    for tokens in DATA[name].tokens:
        assert moved(DATA[name].study, tokens).data.corpus().train.numel() >= tokens


def test_a_model_that_has_learned_nothing_answers_a_quarter_of_the_questions_within_the_interval():
    for row in run("downstream")["rows"].values():
        for kind in ("easy", "hard"):
            _, low, high = row[kind]["score"]
            assert low <= 0.25 <= high


def test_chains_are_of_the_independent_members_seeds_and_begin_without_a_teacher():
    for row in run("extras")["chains"].values():
        apart, chains = row["independent"], row["chained"]
        assert len(chains) == 2 and len(apart["own"]) == 3
        for i, chain in enumerate(chains):
            assert chain["own"][0] == pytest.approx(apart["own"][i * 3 // 2], abs=1e-4)
            assert chain["own"][1] != pytest.approx(apart["own"][(i * 3 // 2 + 1) % 3], abs=1e-4)
        for found in (apart, *chains):
            assert found["logits"][0] == found["probabilities"][0] == found["own"][0]
        for average in ("logits", "probabilities"):  # one way to take all, as many ways to take one as members
            assert apart["any"][average][-1] == pytest.approx(apart[average][-1], abs=1e-5)
            assert apart["any"][average][0] == pytest.approx(sum(apart["own"]) / 3, abs=1e-5)


def test_losses_in_order_are_of_the_members_themselves_and_of_the_first_ones():
    from minilab.ensembles.evaluate import subset_losses
    from minilab.ensembles.experiments_members import predicting
    from minilab.ensembles.model import seeded

    members, valid = seeded(QUICK.models[0], (0, 1, 2)), QUICK.data.corpus().valid[:4]
    found = in_order(members, valid)
    assert found["own"] == pytest.approx(validation_loss(members, valid).tolist(), abs=1e-5)
    for k in range(3):
        first = torch.arange(3)[None] <= k
        for average in ("logits", "probabilities"):
            loss = float(subset_losses(predicting(members), valid, first, average=average).mean())
            assert found[average][k] == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("preset", EXTRAS.values(), ids=EXTRAS)
def test_batches_of_all_sizes_see_the_same_tokens_once_at_one_rate(preset):
    found = batch_runs(preset)
    usual = preset.study.batch
    assert list(found) == [usual // 2, usual, 2 * usual, 4 * usual]
    assert {runs[0].task.steps * batch for batch, runs in found.items()} == {preset.study.data.tokens
                                                                            // preset.study.data.length}
    for batch, runs in found.items():
        assert [run.hyper.data_seed for run in runs] == list(preset.seeds)
        assert all(run.task.batch == batch and run.epochs == 1 for run in runs)
        assert {(run.hyper.lr, run.hyper.weight_decay) for run in runs} == {(preset.lr, 0.1)}


def test_batches_that_do_not_fill_the_text_leave_the_same_rest_and_those_of_half_a_window_are_refused():
    odd = replace(EXTRAS["cpu"], study=QUICK.on(1024 + 32), batches=(1, 3))
    assert {batch * runs[0].task.steps for batch, runs in batch_runs(odd).items()} == {30}
    with pytest.raises(ValueError, match="multiples of 2 that are whole"):
        batch_runs(replace(odd, batches=(0.25, 1)))


def test_masks_of_the_extras_add_what_their_names_say():
    names = [name for name, _ in Transformer(QUICK.models[0]).named_parameters()]
    added = {arm: {name for name in names if mask(name) and not decays(name)} for arm, mask in MASKS.items()}
    norms = {"norm.weight", "blocks.0.attn_norm.weight", "blocks.0.ffn_norm.weight"}
    assert added == {"embedding decays too": {"embed.weight"}, "norms decay too": norms,
                     "all decays": norms | {"embed.weight"}}
    assert all(mask(name) for mask in MASKS.values() for name in names if decays(name))


def test_extras_compare_a_change_with_the_tuned_model_of_the_same_seed_and_place():
    rows, preset = run("extras")["changes"]["rows"], EXTRAS["cpu"]
    assert set(rows) == {"tuned", "hidden inputs", *MASKS}
    runs = runs_at(QUICK.task(0), preset.tuned, preset.seeds)
    assert rows["tuned"]["losses"] == pytest.approx([outcome(some).valid for some in runs], abs=1e-5)
    for name in set(rows) - {"tuned"}:
        assert len(rows[name]["losses"]) == 2 and rows[name] != rows["tuned"]


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
    task, places = QUICK.task(0), [Place(1, 1e-2, 0.1), Place(2, 1e-2, 0.1), Place(2, 1e-2, 0.4)]
    losses = [3.0, 3.4, 3.1, 3.1, 2.0, math.nan]
    outcomes = [Outcome(x, (x,), None) for x in losses]
    assert best(task, places, (0, 1), outcomes)["losses"] == [3.1, 3.1]
    with pytest.raises(ValueError, match="lower learning rates"):
        best(task, places[2:], (0, 1), outcomes[4:])
    assert told(task, places[0], outcomes[:2])["loss"] == pytest.approx(3.2)


def test_a_sweep_tells_of_its_sound_runs_and_counts_the_others():
    task, place = QUICK.task(0), Place(1, 1e-2, 0.1)
    outcomes = [Outcome(3.0, (3.5,), None), Outcome(math.nan, (math.nan,), 4), Outcome(3.2, (3.7,), None)]
    row = told(task, place, outcomes)
    assert row["losses"] == [3.0, 3.2] and row["diverged"] == 1
    assert row["loss"] == pytest.approx(3.1) and row["train"] == pytest.approx(3.6)
    assert math.isnan(told(task, place, outcomes[1:2])["loss"]) and "diverged" not in told(task, place, outcomes[:1])
    assert place_of(row) == place


@pytest.fixture
def spoiled(monkeypatch, tmp_path):
    """Runs of their own folder, in which members with the seeds that are put here diverge at step 3."""
    seeds, real = set(), module.train_members

    def train(windows, config, hypers, *args, **options):
        found = real(windows, config, hypers, *args, **options)
        for k, hyper in enumerate(hypers):
            if hyper.init_seed in seeds:
                found.losses[k, 3:] = math.nan
        return found

    monkeypatch.setattr(module, "train_members", train)
    monkeypatch.setattr(module, "runs_folder", lambda: tmp_path)
    return seeds


def test_an_ensemble_goes_on_without_a_diverged_member_and_says_who_it_was(spoiled):
    spoiled.add(1)
    task, place = QUICK.task(0), Place(1, 1e-2, 0.4)
    with pytest.warns(UserWarning, match="of 3 members of .*lr=0.01.* these diverged: seed 1 at step 3. They are left"):
        stack, row = ensemble(QUICK, task, place, 3, "cpu")
    with pytest.warns(UserWarning):  # also where all was kept before
        assert ensemble(QUICK, task, place, 3, "cpu")[1] == row
    assert stack.K == 2 and row["diverged"] == 1
    assert validation_loss(stack, task.data.corpus().valid).tolist() == pytest.approx(row["losses"], abs=1e-5)
    assert row["losses"] == [outcome(some).valid for some in runs_at(task, place, (0, 2))]


def test_too_few_sound_members_are_refused_with_what_to_lower(spoiled):
    spoiled.update((0, 2))
    with pytest.raises(ValueError, match="seed 0 at step 3, 2 at step 3. At least 2 .* lower the learning rate"):
        ensemble(QUICK, QUICK.task(0), Place(1, 1e-2, 0.4), 3, "cpu", least=2)
    with pytest.raises(ValueError, match="At least 1"):
        ensemble(QUICK, QUICK.task(0), Place(1, 1e-2, 0.4), 1, "cpu")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:of . members of")
def test_experiments_go_on_without_a_diverged_member(spoiled):
    spoiled.add(2)
    found = run("together")
    for row in found["places"].values():
        assert len(row["losses"]) == len(row["logits"]["losses"]) == 2 and row["diverged"] == 1
    distilled = run("distill")  # one of its three teachers is missing
    assert all(math.isfinite(loss) for row in distilled["rows"].values() for loss in row["losses"])
    larger = replace(JOINT["cpu"], K=5)
    for row in EXPERIMENTS["joint"].run(larger).results["sizes"].values():
        assert len(row["losses"]) == 4
    with pytest.raises(ValueError, match="At least 4 must be left"):
        run("joint")


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
