"""Films: what is in the pictures, that they survive the disk, and what a page shows of them where."""

import io
import re

import numpy as np
import pytest
import torch
from checkout import ROOT
from nbval.plugin import get_sanitize_patterns
from PIL import Image, ImageSequence

from minilab.dmpc import video
from minilab.dmpc.bodies import load_body
from minilab.dmpc.envs import HALF_CHEETAH
from minilab.dmpc.video import Film, film, load_film, render, save_film, show_video, video_html


def picture(shade: int, frames: int = 3) -> bytes:
    images = [Image.new("RGB", (32, 20), (shade, 10 * i, 0)) for i in range(frames)]
    return video._webp(images[0], quality=50, save_all=True, append_images=images[1:], duration=100, loop=0)


FILM = Film("Before <1>", "A body & its floor.", picture(50), picture(90, 1), 160, 100)
OTHER = Film("After", "It fell.", picture(120), picture(200, 1), 160, 100)


def falling(steps: int) -> torch.Tensor:
    """A cheetah that moves to the right at 2 m/s and turns."""
    states = torch.zeros(steps + 1, 17)
    states[:, 1] = torch.linspace(0, 1.0, steps + 1)
    states[:, 8] = 2.0
    return states


@pytest.fixture(scope="module")
def gl():
    try:
        render(load_body(HALF_CHEETAH.body), np.zeros((1, 9)), 8, 8)
    except RuntimeError as error:
        pytest.skip(str(error))


def test_film_plays_in_real_time_is_small_and_moves(gl):
    shown = film(HALF_CHEETAH, falling(40), title="Turning", alt="It turns.")
    with Image.open(io.BytesIO(shown.movie)) as movie:
        frames = [np.asarray(f.convert("RGB"), dtype=float) for f in ImageSequence.Iterator(movie)]
        movie.seek(1)
        movie.load()
        assert movie.info["duration"] == 100 and movie.size == (shown.width, shown.height)
    assert len(frames) == 21  # every second of 41 states, 0.05 s apart
    assert np.abs(frames[0] - frames[-1]).max() > 60 and len(shown.movie) < 150_000
    with Image.open(io.BytesIO(shown.stills)) as stills:
        assert abs(stills.width / stills.height - shown.width / shown.height) < 0.02
        quarter = np.asarray(stills.convert("RGB"), dtype=float)[: shown.height - 4, : shown.width - 4]
    assert np.abs(quarter - frames[0][4:, 4:]).mean() < 12 or np.abs(quarter - frames[0][:-4, 4:]).mean() < 12


def test_camera_keeps_the_body_in_the_picture(gl):
    states = falling(40)
    model = video._marked(load_body(HALF_CHEETAH.body), ("torso",))
    seen = render(model, video.poses(states, 0.05)[::10], 120, 80).astype(int)
    red = (seen[..., 0] > 90) & (seen[..., 1] < 0.6 * seen[..., 0])
    for frame in red:
        columns = np.flatnonzero(frame.any(axis=0))
        assert frame.sum() > 30 and columns.min() > 2 and columns.max() < 117


def test_marking_paints_the_copy_and_not_the_body():
    model = load_body(HALF_CHEETAH.body)
    before = model.geom_rgba.copy(), model.tex_data.copy()
    marked = video._marked(model, ("bfoot",))
    assert (model.geom_rgba == before[0]).all() and (model.tex_data == before[1]).all()
    changed = (marked.geom_rgba != model.geom_rgba).any(axis=1)
    assert [model.geom(i).name for i in np.flatnonzero(changed)] == ["bfoot"]
    with pytest.raises(ValueError, match="no body called 'tail' to mark; choose one of torso"):
        video._marked(model, ("tail",))


def test_without_opengl_the_error_names_mujoco_gl_and_what_still_works(monkeypatch):
    def broken():
        raise AttributeError("'NoneType' object has no attribute 'glGetError'")

    monkeypatch.setattr(video, "_contexts", lambda: iter([("egl", broken), ("off", lambda: None)]))
    with pytest.raises(RuntimeError, match="egl: .*glGetError.*MUJOCO_GL.*scores still work"):
        film(HALF_CHEETAH, falling(4), title="x", alt="x")


def test_film_without_alternative_text_and_one_that_grows_too_large_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="alt is empty"):
        film(HALF_CHEETAH, falling(4), title="x", alt=" ")
    noise = np.random.default_rng(0).integers(0, 255, (40, 100, 160, 3)).astype(np.uint8)
    with pytest.raises(ValueError, match="40 frames take .* film fewer steps"):
        video._movie(noise, 100)


def test_film_survives_the_disk_and_damage_is_seen(tmp_path):
    path = save_film(FILM, tmp_path / "run.webp", how_made="by a test")
    assert load_film(path) == FILM
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run-stills.webp", "run.json", "run.webp"]
    (tmp_path / "run-stills.webp").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="run.webp or its stills are damaged"):
        load_film(path)
    with pytest.raises(FileNotFoundError, match="no asset"):
        load_film("dmpc/absent.webp")


def test_saved_film_has_what_every_asset_must_have(tmp_path):
    from test_repo import asset_faults

    save_film(FILM, tmp_path / "run.webp", how_made="by a test")
    assert asset_faults(list(tmp_path.iterdir())) == []


def test_page_holds_both_pictures_of_each_film_with_alternative_text():
    html = video_html(FILM, OTHER, caption="See & say.")
    assert re.findall(r'<img class="([\w-]+)" alt="([^"]*)"', html) == [
        ("ml-movie", "A body &amp; its floor."), ("ml-stills", "Four moments: A body &amp; its floor."),
        ("ml-movie", "It fell."), ("ml-stills", "Four moments: It fell.")]
    assert "Before &lt;1&gt;" in html and "See &amp; say." in html
    assert not re.search(r"\$[a-z]|\bid=|https?://|<script", html)
    with pytest.raises(ValueError, match="at least one film"):
        video_html(caption="x")


def test_nbval_hides_the_pixels_and_not_the_words():
    def sanitized(*films):
        html = video_html(*films, caption="c")
        for pattern, replacement in get_sanitize_patterns((ROOT / "tests" / "nbval_sanitize.cfg").read_text("utf-8")):
            html = re.sub(pattern, replacement, html)
        return html

    redrawn = Film(FILM.title, FILM.alt, OTHER.movie, OTHER.stills, 160, 100)
    assert sanitized(redrawn) == sanitized(FILM) and sanitized(OTHER) != sanitized(FILM)
    assert "base64,PICTURE" in sanitized(FILM)


def test_show_prints_the_words_where_there_is_no_notebook(capsys):
    show_video(FILM, caption="c")
    assert capsys.readouterr().out == "Film: Before <1>. A body & its floor.\n"


# In a browser.

PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Films</title>
<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width"><style>
body {{ margin: 0 1rem; color: #222832; background: #fff; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ced6dd; background: #121212; }} }}</style></head>
<body><main><article><h1>Films</h1>{films}</article></main></body></html>"""
BOTH = PAGE.format(films=video_html(FILM, OTHER, caption="c"))


def kinds_shown(page) -> list[str]:
    return page.eval_on_selector_all("img", "all => all.filter(e => e.checkVisibility()).map(e => e.className)")


@pytest.mark.slow
def test_films_stop_when_asked_and_stand_still_in_print(browser):
    page = browser.new_page()
    page.set_content(BOTH)
    assert kinds_shown(page) == ["ml-movie"] * 2
    page.get_by_role("checkbox", name="stop, and show four moments").check()
    assert kinds_shown(page) == ["ml-stills"] * 2
    page.get_by_role("checkbox").uncheck()
    page.emulate_media(media="print")
    assert kinds_shown(page) == ["ml-stills"] * 2 and not page.get_by_role("checkbox").is_visible()
    page.close()


@pytest.mark.slow
def test_reader_who_asks_for_less_motion_gets_stills_and_may_play(browser):
    page = browser.new_page(reduced_motion="reduce")
    page.set_content(BOTH)
    assert kinds_shown(page) == ["ml-stills"] * 2
    page.get_by_role("checkbox", name="play", exact=True).check()
    assert kinds_shown(page) == ["ml-movie"] * 2
    page.close()


@pytest.mark.slow
def test_films_pass_axe_and_stand_side_by_side_on_a_wide_page(browser, tmp_path):
    from browser import THEMES, WIDTHS, serve, visit

    (tmp_path / "page.html").write_text(BOTH, encoding="utf-8")
    with serve(tmp_path) as site:
        for width in WIDTHS:
            for theme in THEMES:
                assert visit(browser, site, "page.html", width=width, theme=theme).faults == []
    for width, beside in ((390, False), (900, True)):
        page = browser.new_page(viewport={"width": width, "height": 700})
        page.set_content(BOTH)
        first, second = (e.bounding_box() for e in page.locator("img.ml-movie").all())
        assert (first["y"] == second["y"]) is beside
        page.close()
