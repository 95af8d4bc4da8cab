"""Lines of text about records: what they say must be what the record holds."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from minilab.core.records import Record
from minilab.ensembles import tables
from minilab.ensembles.members import Hyper
from minilab.ensembles.recipes import Place
from minilab.ensembles.runs import Run, parameters
from minilab.ensembles.scaling import bootstrap
from minilab.ensembles.study import QUICK
from minilab.ensembles.tables_data import resampled, savings

N = (1e5, 3e5, 1e6, 4e6)


def planted(A=1e5, E=3.0, alpha=1.0, seeds=(-0.01, 0.0, 0.01)) -> np.ndarray:
    """Losses of three seeds around a law; their deviation is 0.01."""
    return np.array([[A / n**alpha + E + seed for seed in seeds] for n in N])


def test_a_planted_law_is_told_with_the_noise_of_its_seeds():
    one, free, noise = tables.laws(N, planted()).splitlines()
    assert one.startswith("exponent 1.00: E 3.000, off by 0.000;")
    assert free.startswith("exponent 1.00 (free): E 3.000, off by 0.000;")
    assert noise.startswith(f"a mean is good to {0.01 / 3**0.5:.3f}, the exponent from 0.9")
    low, high = (float(end) for end in one.split("misfit, ")[1].removesuffix(" by seeds").split(" to "))
    assert low < 3 < high and high - low < 0.03


def test_a_floor_that_no_point_holds_is_open():
    flat = np.array([[3.0, 3.001], [3.0, 2.999], [3.001, 3.0], [3.0, 3.0]])
    assert "open" in tables.laws(N, flat)
    with pytest.raises(ValueError, match="two or more"):
        tables.laws(N, flat[:, :1])


@pytest.mark.parametrize("preset", ["gpu", "two-cores"])
def test_each_size_has_its_line_with_the_best_of_its_losses(preset):
    results = Record.load("ensembles/decay", preset=preset).results
    lines = tables.decays(results).splitlines()[2:]
    assert len(lines) == len(results["parameters"])
    for line, rows in zip(lines, map(results["rows"].get, map(tables.named, results["parameters"])), strict=True):
        best = min(rows.values(), key=lambda row: row["loss"])
        held = [float(x) for x in line.split(";")[1].split()]
        assert held[-1] == round(best["loss"], 3) == min(held) and held[1] == round(rows["0.1"]["loss"], 3)
        assert f": {best['weight_decay']:g} (" in line


def test_places_say_where_the_grid_ended_and_how_the_first_seed_came_out():
    results = Record.load("ensembles/sizes", preset="gpu").results
    for recipe in ("standard", "regularized"):
        lines, losses = tables.places(results, recipe).splitlines(), tables.losses_of(results, recipe)
        rows = [results["recipes"][recipe]["sizes"][tables.named(n)] for n in results["parameters"]]
        assert [bool(row["at_edge"]) for row in rows] == ["grid's end" in line for line in lines[1:-1]]
        assert not any("cut short" in line for line in lines) and all(row["certified"] for row in rows)
        assert lines[-1] == f"the seed that searched is the best at {(losses.argmin(axis=1) == 0).sum()} of 4 sizes"
        assert all(f"{mean:.3f}" in line for mean, line in zip(losses.mean(axis=1), lines[1:-1], strict=True))


def test_epochs_are_told_in_the_order_of_numbers_with_the_least():
    results = Record.load("ensembles/epochs", preset="gpu").results
    lines = tables.epochs(results).splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == ["decay 0.1", "decay 1.6"]
    for decay, told, least in zip(("0.1", "1.6"), lines[::2], lines[1::2], strict=True):
        losses = {int(n): row["loss"] for n, row in results["rows"][decay].items()}
        assert told == f"decay {decay}: " + ", ".join(f"{n}: {losses[n]:.2f}" for n in (1, 2, 4, 8, 16, 32, 64))
        best = min(losses, key=losses.get)
        assert least.startswith(f"   least at {best}: {losses[best]:.3f} [") and "after 64" in least


@pytest.mark.parametrize("preset", ["gpu", "two-cores"])
def test_places_of_members_are_told_with_floors_and_where_probabilities_overtake(preset):
    places = Record.load("ensembles/together", preset=preset).results["places"]
    lines = tables.together({"places": places}).splitlines()
    alone = []
    for first, second, third, last in zip(*(lines[i::4] for i in range(4)), strict=True):
        row = places[first.split(":")[0]]
        alone.append(float(first.split("one ")[1].split()[0]))
        assert f"floor {row['logits']['1/K']['E']:.3f} ±" in first
        one, two = row["logits"]["losses"][:2]
        assert float(second.split("by two members ")[1].split(";")[0]) == pytest.approx(2 * two - one, abs=6e-4)
        errors = [float(part.split("%")[0]) / 100 for part in third.split("(")[2:]]
        assert errors == pytest.approx([row["calibration"][who]["error"] for who in ("one", "all")], abs=6e-4)
        less = np.array(row["probabilities"]["losses"]) < np.array(row["logits"]["losses"])
        overtakes = less[1:].any()
        assert ("never ahead" in last) == (not overtakes)
        assert not overtakes or f"ahead from {2 + less[1:].argmax()} on" in last and less[1 + less[1:].argmax():].all()
    assert alone == sorted(alone) and len(alone) == len(places)


def test_a_limit_of_limits_is_told_with_both_errors_and_open_ends():
    results = Record.load("ensembles/joint", preset="gpu").results
    lines = tables.joint(results).splitlines()
    for n, line in zip(results["parameters"], lines[1:], strict=False):
        row = results["sizes"][tables.named(n)]
        assert line.split(":")[0].strip() == tables.named(n) and f"; {row['losses'][0]:.3f}, " in line
        assert f", {row['1/K']['E']:.3f} ± {row['1/K']['standard_error']:.3f} ({row['two members']:.3f});" in line
    limit = results["limits"]["1/K"]
    at = [i for i, line in enumerate(lines) if line.startswith("members 1/K")][0]
    assert f"E {limit['E']:.3f}" in lines[at] and "off by 0.051" in lines[at] and limit["open"] == [True, False]
    ends = f"open to {limit['profile'][1]:.2f} by misfit"
    assert lines[at + 1] == f"   ± {limit['standard_error']:.3f} by other members, {ends}"


def test_students_come_from_the_best_to_the_worst_and_no_gain_is_no_share():
    told = tables.students({"rows": {"a": {"losses": [3.5, 3.3]}, "b": {"losses": [3.2]}},
                            "retention": {"a": [0.25, 0.2, 0.3], "c": None}}).splitlines()
    assert told == ["3.200 b", "3.400 [3.300, 3.500] a", "kept a: 25%, 95 % 20% to 30%", "kept c: no gain to keep"]


def test_answers_are_told_by_both_ways_to_score():
    way = {"gain": [0.5, 0.4, 0.6], "score": [0.3, 0.2, 0.4]}
    told = tables.answers({"guess": 0.25, "questions": {"easy": 8},
                           "rows": {"x": {"loss": 3.0, "easy": way}, "y": {"loss": 4.0, "easy": way}}}).splitlines()
    assert told[0].startswith("easy, 8 questions, guessing 25%")
    assert [line.split(",")[0].strip() for line in told[1:]] == ["y", "x"]
    assert told[2].endswith("loss 3.000: 50.0% [40.0%, 60.0%]; 30.0% [20.0%, 40.0%]")


def test_beyond_the_paper_each_change_is_told_by_its_mean_and_range_over_seeds():
    chain = {"own": [5.0, 4.9, 4.7], "logits": [5.0, 4.6, 4.5], "probabilities": [5.0, 4.5, 4.4]}
    lower = {key: [x - 0.2 for x in losses] for key, losses in chain.items()}
    apart = {"own": [5.0, 5.1, 5.2], "logits": [5.0, 4.4, 4.3],
             "any": {"logits": [5.1, 4.4, 4.3], "probabilities": [5.1, 4.45, 4.2]}}
    told = tables.beyond({
        "chains": {"16 epochs": {"independent": apart, "chained": [chain, lower]}},
        "changes": {"rows": {"a": {"losses": [4.5, 4.75]}, "b": {"losses": [4.0, 4.2]},
                             "tuned": {"losses": [4.5, 4.5]}}},
        "batches": {"16": {"steps": 8, "losses": [5.0]}, "4": {"steps": 32, "losses": [4.8]}}}).splitlines()
    assert told[1:7] == ["16 epochs", "  one: 5.100; 4.700 [4.600, 4.800]",
                         "  by place in the chain: 4.900 4.800 4.600", "    2: 4.400; 4.500 [4.400, 4.600]",
                         "    3: 4.300; 4.400 [4.300, 4.500], by probabilities 4.200; 4.300 [4.200, 4.400]",
                         "  averaging 3 gains 0.800; 0.367 [0.367, 0.367]"]
    assert told[8:10] == ["  b: -0.400 [-0.500, -0.300], give or take 0.100",
                          "  a: +0.125 [+0.000, +0.250], give or take 0.125"]
    assert told[11:] == ["    4, 32 steps: 4.800", "   16, 8 steps: 5.000"]


def counted(*, spread: float, usual_spread: float = 0.0) -> dict:
    """A record of four counts whose standard losses halve with each doubling of the text, from 4 on, and whose two
    seeds are so far from their mean: those of the regularized recipe, and those of the standard one at 1024 tokens."""
    def seeds(loss: float, apart: float = 0.0) -> dict:
        return {"loss": loss, "losses": [loss - apart, loss + apart]}

    rows = {}
    for n, usual in ((2048, 1.0), (512, 4.0), (4096, 0.5), (1024, 2.0)):
        apart = usual_spread if n == 1024 else 0.0
        heavy = {"95k": seeds(usual, spread), "9k": seeds(2 * usual), "190k": seeds(1.25 * usual)}
        law = {"profile": [usual / 2, 2 * usual], "open": [False, False]}
        rows[str(n)] = {"standard": {"loss": usual, "sizes": {"95k": seeds(usual, apart), "9k": seeds(2 * usual)}},
                        "regularized": {"best": usual, "loss": usual, "law": law, "sizes": heavy},
                        "joint": {"best": usual / 2, "loss": usual / 4, "standard_error": usual / 16, "law": law,
                                  "curves": {"95k": [usual, usual / 2], "9k": [usual, usual]}}}
    return {"parameters": [9000, 95_000, 190_000], "rows": rows,
            "laws": {"standard": {"A": 2048.0, "alpha": 1.0, "E": 0.0, "residuals": [0.01, -0.02],
                                  "profile": [0.0, 0.1], "open": [True, False]}}}


def test_what_is_saved_has_the_interval_that_its_own_seeds_give():
    # Two seeds at L - d and L + d, drawn twice: their mean is off by -d, 0 or d, a quarter, half and a quarter of the
    # time, and is stretched by the root of 2. So 95 percent end at L - 1.41 d and L + 1.41 d, however many are drawn.
    far = 0.1 * 2**0.5
    found = savings(counted(spread=0.1))
    assert list(found) == ["512", "1024", "2048", "4096"]
    row = found["1024"]["regularized"]  # from 2 nats on, the law 2048 / n needs 2 / L times the text
    assert (row.best.interval.low, row.best.interval.high) == pytest.approx((2 / (2 + far), 2 / (2 - far)))
    assert row.best.value == pytest.approx(1)
    # along lines, a doubling between 2 and 1 nats, or one between 4 and 2
    assert row.between == pytest.approx(1)
    assert (row.between_span.low, row.between_span.high) == pytest.approx((2 ** (-far / 2), 2**far))
    last = found["4096"]["regularized"]  # where the last line goes on: a doubling is half a nat
    assert last.between_span.high == pytest.approx(2 ** (far / 0.5))


def test_what_members_save_has_the_interval_that_the_standard_seeds_and_their_limit_give():
    far = 0.1 * 2**0.5
    still, moved = savings(counted(spread=0.1)), savings(counted(spread=0.1, usual_spread=0.1))
    joint = still["1024"]["joint"]  # nothing known of how far another four would be
    assert (joint.best.interval.low, joint.best.value, joint.best.interval.high) == pytest.approx((2, 2, 2))
    assert joint.limit.value == pytest.approx(4)  # a quarter of the loss; 1.96 errors of an eighth of 2 beside it
    assert joint.limit.interval.low == pytest.approx(2 / (0.5 + 1.96 * 0.125), rel=0.05)
    assert joint.limit.interval.high == pytest.approx(2 / (0.5 - 1.96 * 0.125), rel=0.12)
    span = moved["1024"]["joint"].between_span  # 1 nat is the next loss itself: whatever the line, it is reached there
    assert (span.low, span.high) == pytest.approx((2, 2))
    law = moved["1024"]["joint"].best.interval  # the law, in contrast, is another one with other seeds
    assert law.low < 1.95 and law.high > 2.05
    span = moved["1024"]["regularized"].between_span  # its own seeds and those of the standard recipe
    assert span.low < 2 ** (-far / 2) and span.high > 2**far


def test_laws_and_the_means_that_they_are_of_belong_together():
    # Through three counts the law is exact, so each drawn law meets the means that are said to be its own.
    tokens, seeds = [512, 1024, 4096], [[5.0, 5.1, 4.95], [4.6, 4.5, 4.55], [4.0, 4.1, 4.05]]
    laws = bootstrap(tokens, seeds, np.random.default_rng(3), draws=50)
    means = resampled(seeds, np.random.default_rng(3), draws=50)
    off = np.stack([laws(n) for n in tokens], axis=1) - means
    assert means.std(axis=0).min() > 0.02 and np.abs(off).max() < 1e-3


@pytest.mark.parametrize("preset", ["gpu", "two-cores"])
def test_what_is_saved_is_the_number_of_the_record_with_an_interval_around_it(preset):
    results = Record.load("ensembles/data", preset=preset).results
    found = savings(results, draws=200)
    for n, row in results["efficiency"].items():
        for recipe, saved in found[n].items():
            for times, name in ((saved.limit, recipe), (saved.best, f"{recipe}, nothing extrapolated")):
                assert times.value == pytest.approx(row[name], rel=1e-4)
                assert times.interval.low < times.value < times.interval.high
            assert saved.between_span.low < saved.between < saved.between_span.high


def test_what_is_saved_is_told_by_tokens_with_and_without_a_law():
    results = counted(spread=0.0)
    results["rows"]["4096"]["joint"]["loss"] = 0.0
    told = tables.saved(results).splitlines()
    assert told[7:14] == ["1,024 tokens: standard 2.000 (95k)",
                          "   regularized: best 2.000 (95k), 1.00 times the text [1.00, 1.00]",
                          *told[9:10],
                          "      limit's misfit: 1.00 to 4.00, or 0.5 to 2.0 times",
                          "   joint: best 1.000 (95k), 2.00 times the text [2.00, 2.00]",
                          *told[12:13],
                          "      limit's misfit: 1.00 to 4.00, or 0.5 to 2.0 times"]
    assert told[9].startswith("      by the law 1.00 [1.00, 1.00]; limit 2.000, 1.00 [")
    assert told[12].startswith("      by the law 2.00 [2.00, 2.00]; limit 0.500, 4.00 [")
    assert told[25] == "   joint: best 0.250 (95k), 1.41 times the text [1.41, 1.41], beyond"
    assert told[26] == "      by the law 2.00 [2.00, 2.00]; limit 0.000, never;"
    assert told[28:] == ["standard losses over tokens: exponent 1.00, E 0.00, off by 0.020",
                         "   E open to 0.10 by misfit; from count to count, measured: 2.00, 1.00, 0.50 less"]


def test_where_searches_ended_is_told_from_the_least_tokens_to_the_most():
    def row(loss, decay):
        return {"regularized": {"sizes": {"9k": {"loss": loss, "weight_decay": decay, "time_scale": 0.5 / decay}}},
                "standard": {"sizes": {"9k": {"loss": loss + 0.125}}},
                "joint": {"curves": {"9k": [loss + 0.5, loss + 0.25, loss]}}}

    told = tables.tuned({"parameters": [9000], "rows": {"1024": row(4.0, 0.4), "512": row(5.0, 0.8)}}).splitlines()
    assert told == ["9k: decay 0.8, 0.4; memory in epochs 0.62, 1.2", "   standard 5.12, 4.12; tuned 5.00, 4.00",
                    "   one by the rule 5.50, 4.50; 3 of them 5.00, 4.00"]


def test_ends_of_searches_are_counted_beside_where_they_began():
    def place(decay, *edge):
        tried = [{"epochs": 8, "lr": 0.01, "weight_decay": w, "loss": 4.0 + abs(w - decay)} for w in (0.4, 0.8, 1.6)]
        return {"epochs": 8, "lr": 0.01, "weight_decay": decay, "loss": 4.0, "losses": [4.0, 4.25], "at_edge": [*edge],
                "tried": [*tried, {"epochs": 4, "lr": 0.01, "weight_decay": 0.4, "loss": 1.0}]}

    row = {"standard": {"sizes": {"9k": place(0.4, "lr"), "95k": place(0.8)}},
           "regularized": {"sizes": {"9k": place(0.8, "lr", "epochs"), "95k": place(0.8)}},
           "joint": {"curves": {"9k": [4.5, 3.9], "95k": [4.5, 4.1]}}}
    told = tables.ends({"parameters": [9000, 95_000], "rows": {"512": row}},
                       {512: [Place(8, 0.01, 0.4), Place(16, 0.01, 0.8)]}).splitlines()
    assert told == ["2 regularized searches, 1 with the decay where they began; members ahead in 1",
                    "4 searches, at an end of the grid: epochs 1, lr 2",
                    "95k: twice or half the decay worse by 0.400 to 0.800, seeds 0.25 apart"]


def test_members_that_went_on_are_told_beside_those_that_began_apart():
    row = {"one member": 4.5, "ensemble": 4.25, "soup": 4.375}
    told = tables.went_on({"base": 5.0, "from scratch": 4.75, "rows": {"1 epochs": row}, "begun apart": row})
    assert told.splitlines() == ["not one step of it: 5.000; trained on it alone: 4.750",
                                 "1 epochs: one 4.500, all 4.250, soup 4.375",
                                 "begun apart, old text: one 4.500, all 4.250, soup 4.375"]


def test_speeds_are_told_with_what_they_are_compared_with():
    def spread(x):
        return {"median": x, "low": x - 0.25, "high": x + 0.25}

    size = {"tokens_per_s": {"in one program": spread(2000.0)}, "share_of_rate": {"in one program": spread(0.5)},
            "times_faster": {"one after another": spread(1.5)}}
    sizes = {"1.2M": size | {"parameters": 1_200_000}, "95k": size | {"parameters": 95_000}}
    assert tables.speeds({"K": 8, "flops_per_s": 1e11, "sizes": sizes}).splitlines() == [
        "8 members; products at 1e+11 operations a second",
        "  95k: 2,000 tokens a second, 50% of that rate; times as fast as",
        "   one after another 1.50 [1.25, 1.75]",
        " 1.2M: 2,000 tokens a second, 50% of that rate; times as fast as",
        "   one after another 1.50 [1.25, 1.75]"]


def test_copyists_are_told_with_the_epoch_from_which_on_they_copy():
    told = tables.copies({"epochs": [0.5, 1.0], "losses": [4.5, 4.0], "saved": [[0.0, 0.05], [-0.05, 0.5]]})
    assert told.splitlines() == ["member 1: loss 4.000, saves 0.50 nats, copies from epoch 1 on",
                                 "member 0: loss 4.500, saves -0.05 nats, does not copy"]


def test_a_search_is_told_with_its_distinct_runs_and_the_time_that_their_operations_take():
    study = replace(QUICK, models=QUICK.models[:1], standard=QUICK.standard[:1], regularized=QUICK.regularized[:1])
    usual, longer, heavy = ({"epochs": e, "lr": 1e-2, "weight_decay": w} for e, w in ((1, 0.1), (2, 0.1), (1, 0.4)))
    sizes = {name: {study.names[0]: best | {"tried": tried}} for name, best, tried in (
        ("standard", longer, [usual, longer]), ("regularized", heavy, [usual, heavy]))}
    record = Record("ensembles", "sizes", "cpu", {"study": json.loads(json.dumps(asdict(study)))}, {
        "parameters": [parameters(study.models[0])],
        "recipes": {name: {"sizes": rows} for name, rows in sizes.items()}}, {"wall_s": 60.0})
    epochs = [1, 2, 2, 1, 1]  # one that both tried, and two seeds of either end
    flops = sum(Run(study.task(0), e, Hyper()).flops for e in epochs)
    assert tables.search(record, flops / 20).splitlines() == [
        f"5 runs, {flops:.1e} operations: 20 s at {flops / 20:.1e} a second;", "   took 60 s, 3.0 times that"]
