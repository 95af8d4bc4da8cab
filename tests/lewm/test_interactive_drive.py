"""Two Rooms and a model in a page: the world is torch's, and so is the surprise of every block that is driven."""

import base64
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lewm.figure_page import (
    PAGE,
    cells,
    computed,
    faults,
    generator,
    page_faults,
    random_model,
    told,
    visible,
    without_javascript,
)
from live import controls, drawn, press
from PIL import Image

from minilab.lewm.data import Scale
from minilab.lewm.decoder import ConvDecoder
from minilab.lewm.export import quantized
from minilab.lewm.interactive_drive import (
    EVENTS,
    GEOMETRY,
    KEYS,
    OPENING,
    START,
    WORLD,
    Driver,
    drive,
    drive_html,
    live_drive,
    measured,
    show_drive,
)
from minilab.lewm.model import LeWM, cpu
from minilab.lewm.surprise import BLUE, surprise
from minilab.lewm.worlds import rooms
from minilab.nn.vision import VisionConfig

SCALE = Scale(torch.tensor([0.1, -0.2]), torch.tensor([0.7, 0.8]))


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def data(model):
    return drive(model, SCALE, generator(), films=30)


def test_a_driver_is_as_surprised_as_the_films_of_its_drive(model):
    """The whole film at once, through `surprise`: keys held for a block, a jump, and a new color from there on."""
    places = WORLD.reset(2, generator(3))
    names = ["right", "teleport", "down", "recolor", "left", "teleport", "teleport", "recolor", "up"]
    driver = Driver(model, SCALE, places)
    state, jumps, blue, film, blocks = torch.tensor([START]), 0, False, [driver.frame()], []
    for name in names:
        assert driver.move(name) == driver.trace[-1]
        action = torch.tensor([KEYS.get(name, (0.0, 0.0))])
        blocks.append(((action.expand(5, 2) - SCALE.mean) / SCALE.std).flatten())
        for _ in range(5):
            state = WORLD.step(state, action)
        if name == "teleport":
            state, jumps = places[[jumps % 2]], jumps + 1
        blue ^= name == "recolor"
        film.append(WORLD.render(state, 32, color=torch.tensor([BLUE]) if blue else None)[0])
    assert torch.equal(driver.frame(), film[-1])
    blocks.append(torch.zeros(10))
    seen = surprise(model, torch.stack(film)[None], torch.stack(blocks)[None])[0]
    torch.testing.assert_close(torch.tensor(driver.trace), seen, atol=1e-6, rtol=1e-4)


class Copies(LeWM):
    """Expects that nothing changes; its latent is the picture."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.config = SimpleNamespace(history=2, actions=10, vision=SimpleNamespace(image=32))

    def encode(self, frames):
        return frames.flatten(2).float()

    def imagine(self, z_history, actions, past=None):
        return z_history[:, -1:]


def test_an_event_is_all_that_happens_in_its_block():
    seen = measured(Copies(), SCALE, generator(), films=50)
    blocks = seen["none"].view(50, 3)
    assert (blocks[:, -1] == 0).all() and (blocks[:, :-1] > 0).float().mean() > 0.5
    assert (seen["recolor"] > 0).all() and (seen["teleport"] > 0).float().mean() > 0.9


def test_most_blocks_of_an_intact_world_are_under_the_level(data):
    assert data["measured"]["none"]["above"] == pytest.approx(0.05, abs=0.01)
    assert set(data["measured"]) == {"none", *EVENTS} and len(data["trace"]) == len(OPENING)


def test_figure_without_scripts_shows_the_opening_and_how_often_events_surprise(data, capsys):
    html = drive_html(data)
    assert faults(html) == [] and len(html.encode()) < 400_000
    found = cells(html)
    for row, name in (("nothing happens", "none"), ("the dot jumps", "teleport"), ("the dot changes color", "recolor")):
        assert found[row] == [f"{data['measured'][name]['median']:.2g}", f"{data['measured'][name]['above']:.1%}"]
    assert f"teleport {data['trace'][4]:.2g}, up {data['trace'][5]:.2g}" in html
    show_drive(data)
    assert f"the dot jumps: median {found['the dot jumps'][0]}, above" in capsys.readouterr().out


def test_models_that_do_not_fit_the_world_or_the_page_are_refused():
    odd = LeWM(cpu(10, vision=VisionConfig("conv", image=48, width=64))).eval()
    with pytest.raises(ValueError, match="48 pixels do not divide the world's 224"):
        drive(odd, SCALE, generator())
    large = drive(LeWM(cpu(10, hidden=512, head_hidden=512)).eval(), SCALE, generator(), films=2)
    with pytest.raises(ValueError, match="above 400 kB: train a smaller model, such as cpu"):
        drive_html(large)


# With a kernel.


def views(html: str) -> list[np.ndarray]:
    found = re.findall("base64,([^\"]+)", html)
    return [np.array(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_live_drive_goes_on_from_the_opening_as_the_driver_does(model):
    torch.manual_seed(0)
    decoder = ConvDecoder(model.config.latent, 32).requires_grad_(False).eval()
    torch.nn.init.normal_(decoder.layers[-1].weight)  # it begins by drawing nothing
    figure, g = live_drive(model, SCALE, generator(), decoder=decoder, films=30), generator()
    level = float(measured(model, SCALE, g, films=30)["none"].quantile(0.95))
    driver = Driver(model, SCALE, WORLD.reset(64, g))
    for name in OPENING:
        driver.move(name)
    assert list(controls(figure)) == [*KEYS, *EVENTS] and f"less than {level:.3g}" in drawn(figure)
    for name in ("right", "teleport", "recolor", "stay"):
        html, told = press(figure, name), driver.move(name)
        assert cells(html)[f"{len(driver.trace)}, {name}"] == [f"{told:.3g}"]
        now, then = views(html)
        assert (now == driver.frame().permute(1, 2, 0).numpy()).all()
        picture = decoder(driver.expected[None])[0].clamp(0, 1).permute(1, 2, 0).numpy()
        assert np.abs(then / 255 - picture).max() <= 0.5 / 255 + 1e-6 and then.std() > 1


def test_without_a_decoder_a_live_drive_shows_the_world(model):
    html = drawn(live_drive(model, SCALE, generator(), films=10))
    assert len(views(html)) == 1 and html.count("<svg") == 1


# In a browser.


@pytest.fixture
def page(browser, data):
    page = browser.new_page(reduced_motion="reduce")
    page.set_content(PAGE.format(figures=drive_html(data)))
    yield page
    page.close()


def shown(page) -> tuple[int, str, float]:
    """What the last block of the page was."""
    number, name, value = re.match(r"Block (\d+), (\w+): surprise ([\d.e-]+), ", told(page)).groups()
    return int(number), name, float(value)


@pytest.mark.slow
def test_script_moves_and_draws_the_dot_as_the_world_does(page):
    g = generator()
    state = torch.cat((WORLD.reset(1000, g), torch.tensor([100.0, 20.0]) + torch.rand(1000, 2, generator=g) * 60))
    action = 4 * torch.rand(2000, 2, generator=g) - 2
    geometry = {name: getattr(rooms, name) for name in GEOMETRY}
    moved, drawn, painted = computed(page, ("rooms.js",), """
        const world = twoRooms(a[0], 32), some = a[1].slice(0, 24);
        return [a[1].map((s, i) => world.step(s, a[2][i])), some.map(s => [...world.render(s, a[3])]),
                some.map(s => [...world.render(s, a[4])])];""",
        geometry, state.tolist(), action.tolist(), rooms.RED, BLUE)
    np.testing.assert_allclose(moved, WORLD.step(state, action), atol=1e-4)
    assert (np.array(moved)[:, 0] == rooms.LEFT - rooms.PUSHED_BACK).sum() > 20
    for pixels, color in ((drawn, None), (painted, torch.tensor([BLUE]).expand(24, 3))):
        gap = np.abs(np.array(pixels) - WORLD.render(state[:24], 32, color=color).flatten(1).int().numpy())
        assert gap.max() <= 1 and (gap > 0).mean() < 1e-3


@pytest.mark.slow
def test_page_opens_and_is_driven_on_as_the_driver_is(page, model, data):
    driver = Driver(quantized(model), SCALE, torch.tensor(data["places"]))
    opening = [driver.move(name) for name in OPENING]
    np.testing.assert_allclose(opening, data["trace"], rtol=6e-3)
    assert shown(page) == (12, "right", pytest.approx(opening[-1], rel=0.06))
    stage = page.locator(".ml-stage")
    for key, name in (("ArrowDown", "down"), ("ArrowLeft", "left"), ("t", "teleport"), ("ArrowUp", "up"),
                      ("r", "recolor"), (" ", "stay"), ("ArrowRight", "right"), ("T", "teleport")):
        stage.press(key)
        expected = driver.move(name)
        assert shown(page) == (len(driver.trace), name, pytest.approx(expected, rel=0.06))
    for button, name in (("recolor", "recolor"), ("teleport", "teleport"), ("↑ up", "up"), ("stay", "stay")):
        page.get_by_role("button", name=button).click()
        expected = driver.move(name)
        assert shown(page) == (len(driver.trace), name, pytest.approx(expected, rel=0.06))
    above = sum(s > data["level"] for s in driver.trace)
    assert page.locator("[data-plot=trace] circle.odd").count() == above
    picture = page.evaluate("""() => { const c = document.querySelector('canvas');
        return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }""")
    seen = np.array(picture).reshape(32, 32, 4)[..., :3].transpose(2, 0, 1)
    assert np.abs(seen - driver.frame().int().numpy()).max() <= 1


@pytest.mark.slow
def test_recolor_is_pressed_while_the_dot_is_blue_and_start_over_begins_anew(page):
    first, recolor = shown(page), page.get_by_role("button", name="recolor")
    recolor.click()
    assert recolor.get_attribute("aria-pressed") == "true" and "blue dot" in told(page)
    page.get_by_role("button", name="10 random moves").click()
    assert shown(page)[0] == 23 and shown(page)[1] in KEYS
    page.wait_for_function("document.querySelector('[role=status]').textContent.startsWith('Block 23, ')")
    page.get_by_role("button", name="Start over").click()
    assert shown(page) == first and recolor.get_attribute("aria-pressed") == "false"


@pytest.mark.slow
def test_the_dot_glides_and_of_keys_that_come_meanwhile_only_the_last_is_kept(browser, page, data):
    page.emulate_media(reduced_motion="no-preference")
    page.evaluate("""() => { for (const key of ["ArrowLeft", "ArrowUp", "ArrowUp", "ArrowDown"])
        document.querySelector(".ml-stage").dispatchEvent(new KeyboardEvent("keydown", { key })); }""")
    assert shown(page)[0] == 12
    page.wait_for_function("document.querySelector('[data-out=told]').textContent.startsWith('Block 14, down')")
    page.wait_for_timeout(400)
    assert shown(page)[:2] == (14, "down")


@pytest.mark.slow
def test_print_keeps_the_trace_and_a_page_without_scripts_the_opening(browser, page, data):
    page.emulate_media(media="print")
    assert visible(page, "canvas, [data-plot=trace], table, img") == {True} and visible(page, "button") == {False}
    plain = without_javascript(browser, drive_html(data))
    assert visible(plain, "table, img") == {True} and visible(plain, "button, svg, canvas") == {False}
    plain.close()


@pytest.mark.slow
def test_two_on_a_page_pass_axe_and_fit_a_phone(browser, data, tmp_path):
    assert page_faults(browser, tmp_path, drive_html(data) * 2) == []
