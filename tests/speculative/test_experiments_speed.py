"""AR, SD and SSD side by side, at a size that takes seconds: what the records say must follow from what ran."""

from dataclasses import replace

import pytest

from minilab.core.records import Record
from minilab.core.style import figure_html
from minilab.speculative import experiments_speed, figures
from minilab.speculative.engine import AsyncRound, Times
from minilab.speculative.interactive import race_html

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def headline():
    preset = replace(experiments_speed.HEADLINE["cpu"], prompts=2, new_tokens=16, repeats=2, temperatures=(0.0, 0.7))
    return experiments_speed.headline(preset)


@pytest.fixture(scope="module")
def batches():
    return experiments_speed.batches(replace(experiments_speed.BATCHES["cpu"], batches=(1, 3), new_tokens=12))


def test_all_write_the_same_greedy_text_and_the_fastest_is_the_fastest(headline):
    for temperature, found in headline.results["temperatures"].items():
        if temperature == "0.0":
            assert set(found["same_text"].values()) == {1.0}
        for kind, name in found["fastest"].items():
            rivals = [n for n in found["tokens_per_s"] if n.split()[0] == kind]
            best = max(found["tokens_per_s"][n]["median"] for n in rivals)
            assert found["tokens_per_s"][name]["median"] == pytest.approx(best, rel=0.05)  # medians of 2 are means
        assert found["tokens_per_round"]["ar"] == 1 < found["tokens_per_round"]["ssd"]
        assert 0 < found["hit_rate"] < 1 and 0 < found["acceptance_rate"] < 1


def test_a_simulated_overlap_is_faster_than_the_same_parts_in_sequence(headline):
    for found in headline.results["temperatures"].values():
        simulated = found["simulated"]
        assert simulated["in_sequence_tokens_per_s"] < simulated["overlapped_tokens_per_s"]
        assert found["together_s"] >= 0.9 * (found["verify_s"] + found["prepare_s"]), "this one ran in sequence"
        beside = found["overlapped"]
        assert beside["together_s"] >= max(beside["verify_s"], 0.9 * beside["prepare_s"])


def test_batches_compare_with_plain_decoding_of_as_many_texts(batches):
    points = batches.results["points"]
    assert [p["batch"] for p in points] == [1, 3]
    for point in points:
        assert set(point["tokens_per_s"]) == {"ar", "sd", "jit", "random"}
        assert point["over_ar"]["ar"] == {"median": 1.0, "low": 1.0, "high": 1.0}
        assert all(0 < p < 1 for p in point["hit_rate"].values())
    assert points[1]["tokens_per_s"]["ar"]["median"] > points[0]["tokens_per_s"]["ar"]["median"]


@pytest.fixture(scope="module")
def temperature():
    return experiments_speed.temperature(replace(experiments_speed.TEMPERATURE["cpu"], new_tokens=24))


def test_both_fan_outs_spend_one_budget_and_the_geometric_one_shrinks(temperature):
    assert [point["temperature"] for point in temperature.results["points"]] == [0.0, 1.0]
    for point in temperature.results["points"]:
        uniform, geometric = point["fan_out"]["uniform"], point["fan_out"]["geometric"]
        assert sum(uniform) == sum(geometric) == 8 and geometric[:-1] == sorted(geometric[:-1], reverse=True)
        assert set(point["tokens_per_s"]) == {"ar", "sd", "uniform", "geometric"}
        assert all(0 < rate < 1 for rate in point["hit_rate"].values()) and 0 < point["acceptance_rate"] < 1


def test_records_survive_the_file_and_their_figures_are_drawn(headline, batches, temperature, tmp_path):
    for record, draw in ((headline, figures.headline), (batches, figures.batches),
                         (temperature, figures.temperature)):
        loaded = Record.load(record.name, preset="cpu", root=record.save(tmp_path).parents[1])
        assert loaded.results == record.results
        assert figure_html(draw(record), alt="x") == figure_html(draw(loaded), alt="x")


def test_parts_are_medians_of_full_rounds_and_means_of_all():
    def step(drafted, accepted, hits, verify, fallback=0.0):
        n = len(hits)
        return AsyncRound(list(range(n)), [[0]] * n, accepted, drafted, hits, [0] * n, [[]], [[]], [[]], [0] * n,
                          Times(verify, 2 * verify, 3 * verify, fallback), 0)

    rounds = [step(3, [3, 0], [False, True], 1.0, 5.0), step(3, [1, 2], [True, True], 2.0), step(3, [0], [True], 3.0),
              step(1, [1], [False], 90.0, 70.0)]
    found = experiments_speed.parts(rounds)
    assert (found["verify_s"], found["prepare_s"], found["together_s"], found["fallback_s"]) == (2.0, 4.0, 6.0, 5.0)
    assert found["hit_rate"] == pytest.approx(4 / 6)
    assert found["acceptance_rate"] == pytest.approx(7 / (3 + 1 + 2 + 3 + 1 + 1))


def test_a_summary_takes_each_kind_at_its_fastest():
    def around(median: float) -> dict[str, float]:
        return {"median": median, "low": median - 0.1, "high": median + 0.1}

    found = {"tokens_per_s": {"ar": around(50.0), "sd 2": around(70.0), "sd 3": around(80.0), "ssd 3 8": around(99.7)},
             "fastest": {"ar": "ar", "sd": "sd 3", "ssd": "ssd 3 8"}, "sd_over_ar": around(1.6),
             "ssd_over_sd": around(1.25), "ssd_over_ar": around(2.0)}
    assert experiments_speed.summary(found).splitlines() == [
        "AR 50, SD 80, SSD 100 tokens/s", "  sd_over_ar 1.60 (1.50 to 1.70)", "  ssd_over_sd 1.25 (1.15 to 1.35)",
        "  ssd_over_ar 2.00 (1.90 to 2.10)"]


def test_three_racers_bring_one_text_in_fewer_and_fewer_steps(tmp_path):
    record = experiments_speed.race(replace(experiments_speed.RACE["cpu"], new_tokens=24))
    streams = record.results["streams"]
    assert [s["label"] for s in streams] == ["AR", "SD", "SSD"]
    texts = {"".join(text for piece in s["pieces"] for text in piece["text"]) for s in streams}
    assert len(texts) == 1 and {s["tokens"] for s in streams} == {24}
    assert len(streams[0]["pieces"]) == 24 > max(len(s["pieces"]) for s in streams[1:])
    loaded = Record.load("speculative/race", preset="cpu", root=record.save(tmp_path).parents[1])
    assert "SSD" in race_html(loaded.results["streams"])
