"""The imagined roll-out: its data, what it says without scripts, and what it does in a browser."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from checkout import ROOT
from lewm.figure_page import (
    PAGE,
    cells,
    faults,
    generator,
    page_faults,
    random_model,
    told,
    visible,
    without_javascript,
)
from live import drawn, turn
from nbval.plugin import get_sanitize_patterns
from PIL import Image

from minilab.core.records import Record
from minilab.lewm.collect import Recipe, collect
from minilab.lewm.data import Clips
from minilab.lewm.decoder import ConvDecoder
from minilab.lewm.interactive import ROWS, live_rollout, rollout, rollout_html, show_rollout

T, SIZE, N = 6, 32, 20


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    data = collect(Recipe("rooms", episodes=20, steps=60), folder=tmp_path_factory.mktemp("data"))
    return Clips(data, frames=T, size=SIZE)


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def decoder(clips):
    torch.manual_seed(0)
    decoder = ConvDecoder(32, SIZE, channels=4).begin(clips.draw(8, generator()).frames)
    torch.nn.init.normal_(decoder.layers[-1].weight, std=0.1)
    return decoder.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def data(model, decoder, clips):
    return rollout(model, decoder, clips, generator(), compared=N)


def picture(source: str) -> np.ndarray:
    """Rows of frames out of a page: row T H W 3."""
    grid = np.array(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB"))
    return grid.reshape(len(ROWS), SIZE, -1, SIZE, 3).swapaxes(1, 2)


def test_live_roll_out_imagines_the_clip_that_is_asked_for(model, decoder, clips):
    """Step by step; the unit is the variance of the latents of other clips."""
    figure = live_rollout(model, decoder, clips, compared=N)
    assert drawn(figure).count("<svg") == 1 and "Clip 0 of" in drawn(figure)
    html = turn(figure, {"clip": 7, "frames given": 2})
    clip = clips.take(torch.tensor([7]))
    z, unit = model.encode(clip.frames), model.encode(clips.draw(N, generator()).frames).flatten(0, 1).var(dim=0).mean()
    seen = z[:, :2]
    for t in range(2, T):
        first = max(0, t - model.config.history)
        seen = torch.cat((seen, model.imagine(seen[:, first:], clip.actions[:, t - 1 : t],
                                              clip.actions[:, first : t - 1])), dim=1)
    for row, guess in (("imagined", seen[:, 2:]), ("if nothing moved", z[:, 1:2])):
        expected = ((guess - z[:, 2:]).square().mean(dim=-1) / unit)[0].tolist()
        assert [float(cell) for cell in cells(html)[row]] == pytest.approx(expected, rel=6e-3)
    for values in ({"clip": -1, "frames given": 1}, {"clip": len(clips)}, {"clip": 0, "frames given": 4}):
        assert "give a clip from 0 to" in turn(figure, values)


@pytest.mark.parametrize("history", [1, 3])
def test_roll_outs_are_the_models_own_predictions_fed_back(model, decoder, clips, history):
    """Step by step, for all clips; the best and the worst are those with the lowest and the highest mean error."""
    data = rollout(model, decoder, clips, generator(1), history=history, compared=N)
    clip = clips.draw(N, generator(1))
    z = model.encode(clip.frames)
    seen = list(z[:, :history].unbind(dim=1))
    for t in range(history, T):
        begin = max(0, t - 3)
        seen.append(model.predict(torch.stack(seen[begin:t], dim=1), clip.actions[:, begin:t])[:, -1])
    gaps = torch.stack(seen, dim=1) - z
    error = (gaps[:, history:] ** 2).mean(dim=-1) / z.flatten(0, 1).var(dim=0).mean()
    np.testing.assert_allclose(data["mean"], error.mean(dim=0), rtol=6e-3)
    by_mean = error[error.mean(dim=1).argsort()]
    assert [e["name"] for e in data["episodes"]] == ["best", "median", "worst"]
    for episode, i in zip(data["episodes"], (0, 10, N - 1), strict=True):
        np.testing.assert_allclose(episode["error"], by_mean[i], rtol=6e-3)
    stay = ((z[:, history - 1 : history] - z[:, history:]) ** 2).mean(dim=(0, 2)) / z.flatten(0, 1).var(dim=0).mean()
    np.testing.assert_allclose(data["stay"], stay, rtol=6e-3)


def test_frames_are_those_of_the_clip_and_the_decoders(model, decoder, clips, data):
    clip = clips.draw(N, generator())
    real, decoded, imagined = picture(data["episodes"][1]["frames"])
    i = next(i for i in range(N) if np.array_equal(clip.frames[i].permute(0, 2, 3, 1), real))
    drawn = decoder(model.encode(clip.frames[i : i + 1])[0]).clamp(0, 1).mul(255).permute(0, 2, 3, 1)
    assert np.abs(decoded - drawn.numpy()).max() <= 1
    assert np.array_equal(imagined[0], decoded[0]) and not np.array_equal(imagined[1:], decoded[1:])


def test_data_survive_a_record_and_give_the_same_page(data, tmp_path):
    Record("lewm", "rollout", "cpu", {}, data, {}).save(tmp_path)
    again = Record.load("lewm/rollout", root=tmp_path)
    assert rollout_html(again) == rollout_html(data) and json.loads(json.dumps(data)) == again.results


def test_the_comparison_of_notebooks_sees_errors_and_not_pixels(data):
    def sanitized(data):
        html = rollout_html(data)
        for pattern, replacement in get_sanitize_patterns((ROOT / "tests" / "nbval_sanitize.cfg").read_text("utf-8")):
            html = re.sub(pattern, replacement, html)
        return html

    repainted = [{**e, "frames": data["episodes"][0]["frames"]} for e in data["episodes"]]
    assert sanitized({**data, "episodes": repainted}) == sanitized(data)
    assert sanitized({**data, "mean": [2 * m for m in data["mean"]]}) != sanitized(data)


def test_figure_is_whole_and_small(data):
    html = rollout_html(data)
    assert faults(html) == [] and len(html.encode()) < 120_000


def test_roll_out_without_scripts_has_all_frames_and_a_table(data):
    html = rollout_html(data)
    assert html.count("<img") == 3
    found = cells(html)
    for episode in data["episodes"]:
        error = episode["error"]
        assert found[f"{episode['name']} of {N}"] == [f"{error[t]:.2g}" for t in (0, 2, 4)]


def test_what_the_data_lack_is_refused(model, decoder, clips, data):
    with pytest.raises(ValueError, match="no episode called 'first'; choose one of best, median, worst"):
        rollout_html(data, episode="first")
    with pytest.raises(ValueError, match="2 clips of 6 frames, 1 of them given: compare at least 3"):
        rollout(model, decoder, clips, generator(), compared=2)
    with pytest.raises(ValueError, match="at least one frame to imagine"):
        rollout(model, decoder, clips, generator(), history=T)
    noise = "data:image/webp;base64," + "A" * 400_000
    with pytest.raises(ValueError, match="above 400 kB: give shorter clips"):
        rollout_html({**data, "episodes": [{**e, "frames": noise} for e in data["episodes"]]})


def test_show_prints_the_table_where_there_is_no_notebook(data, capsys):
    show_rollout(data)
    first = data["episodes"][0]["error"][0]
    assert f"best of {N}: 1 block {first:.2g}, 3 blocks" in capsys.readouterr().out


# In a browser.


@pytest.fixture
def page(browser, data):
    page = browser.new_page()
    page.set_content(PAGE.format(figures=rollout_html(data)))
    yield page
    page.close()


@pytest.mark.slow
def test_roll_out_steps_through_the_frames(page, data):
    pixels = """row => { const c = document.querySelectorAll('canvas')[row];
        return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }"""

    def shown() -> np.ndarray:
        return np.array([page.evaluate(pixels, row) for row in range(3)]).reshape(3, SIZE, SIZE, 4)[..., :3]

    frames = picture(data["episodes"][1]["frames"])
    page.wait_for_function("document.querySelector('img').complete")
    assert told(page).startswith("Frame 1: 1 block imagined")
    page.get_by_role("button", name="Step").click()
    page.get_by_role("button", name="Step").click()
    assert np.array_equal(shown(), frames[:, 3])
    error = data["episodes"][1]["error"][2]
    assert told(page) == (
        f"Frame 3: 3 blocks imagined, from actions alone. Error {error:.2g}; mean of {N} clips {data['mean'][2]:.2g}, "
        f"and {data['stay'][2]:.2g} if nothing moved.")
    page.get_by_role("button", name=f"worst of {N}").click()
    page.get_by_role("slider", name="frame").press("End")
    assert np.array_equal(shown(), picture(data["episodes"][2]["frames"])[:, T - 1])
    assert page.get_by_role("button", name="Step").is_disabled()
    page.get_by_role("slider", name="frame").press("Home")
    assert told(page) == "Frame 0: the model is given it."
    assert [e.is_visible() for e in page.locator("img").all()] == [False, False, True]


@pytest.mark.slow
def test_print_keeps_the_frames_and_the_curves_and_a_page_without_scripts_all_strips(browser, page, data):
    page.emulate_media(media="print")
    assert visible(page, "table, img, canvas, [data-plot=error]") == {True}
    assert visible(page, "button, input") == {False}
    plain = without_javascript(browser, rollout_html(data))
    assert visible(plain, "table, img") == {True}
    assert visible(plain, "button, input, svg, canvas") == {False}
    plain.close()


@pytest.mark.slow
def test_two_on_a_page_pass_axe_and_fit_a_phone(browser, data, tmp_path):
    assert page_faults(browser, tmp_path, rollout_html(data) * 2) == []
