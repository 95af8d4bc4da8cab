"""Films of episodes: small animated pictures that a page carries in itself.

- A film is an animated WebP of about 40 frames and 100 kB at most. Every browser plays it, nothing is fetched, and it
  stands in the page beside others. Four moments of it stand in for it in print, where the reader's system asks for less
  motion, and when the reader stops it.
- Pixels differ between machines, by drivers and by processors. So what a chapter shows are assets: `save_film` writes
  the two pictures and a card with their hashes, `load_film` reads them, and `show_video` then displays the same bytes
  everywhere, which a strict comparison of notebooks may see. In a lab, `film` renders live, and the comparison hides
  the pictures' bytes (tests/nbval_sanitize.cfg).
- Rendering needs OpenGL, off screen: EGL on Linux if MuJoCo was not told otherwise. Physics, scores and the figures of
  limbs (`poses.py`) need none.

Shapes: T1 states, S numbers in a state.
"""

import base64
import copy
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path

import mujoco
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from minilab.core.display import display_html
from minilab.core.files import replacing
from minilab.core.style import PALETTE
from minilab.core.weights import asset_path
from minilab.core.widget import Static
from minilab.dmpc.bodies import load_body
from minilab.dmpc.data import LICENCE
from minilab.dmpc.envs import Task
from minilab.dmpc.poses import Limbs, limbs, poses

_static = Static("minilab.dmpc")
NO_GL = ("MuJoCo finds no OpenGL to draw with ({}). Set the environment variable MUJOCO_GL to egl (GPU or Mesa), "
         "osmesa (software) or glfw (a screen) before Python starts, and install its library; on Debian or Ubuntu: "
         "apt-get install libegl1 libgl1-mesa-dri. Without it physics, planning and scores still work, and so do films "
         "that ship as assets and the figures of limbs.")
MOST_BYTES = 120_000
QUALITIES = (75, 60, 45, 30, 20, 10, 5)


@dataclass(frozen=True)
class Film:
    """An animated picture, four of its moments as one picture, and what they show."""

    title: str
    alt: str
    movie: bytes  # WebP
    stills: bytes  # WebP of the same shape: two rows of two moments
    width: int  # px, of the movie
    height: int


def film(task: Task, states: Float[Tensor, "T1 S"], *, title: str, alt: str, model: mujoco.MjModel | None = None,
         mark: tuple[str, ...] = (), width: int = 224, height: int = 144, fps: float = 12.0) -> Film:
    """Render an episode (or a plan) in real time. `mark` names bodies to paint red, such as the broken foot.

    `states` are observed: a row of `Episodes.states`, cut to its length. Raises RuntimeError without OpenGL, and
    ValueError for an empty `alt`, a name that is not a body, and an episode too long for a small film.
    """
    if not alt.strip():
        raise ValueError("alt is empty; describe what the film shows in a sentence, as to someone on the phone")
    stride = max(1, round(1 / (fps * task.dt)))
    frames = render(_marked(model or load_body(task.body), mark), poses(states, task.dt)[::stride], width, height)
    at = np.linspace(0, len(frames) - 1, 4).round().astype(int)
    framed = np.pad(frames[at], ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=255)  # a seam between the moments
    grid = np.concatenate([np.concatenate(list(pair), axis=1) for pair in (framed[:2], framed[2:])], axis=0)[2:-2, 2:-2]
    return Film(title, alt, _movie(frames, round(1000 * stride * task.dt)), _webp(Image.fromarray(grid), quality=70),
                width, height)


def render(model: mujoco.MjModel, qpos: Float[np.ndarray, "n Q"], width: int, height: int
           ) -> UInt8[np.ndarray, "n height width 3"]:
    """Pictures of a body in these positions, from the side; the camera follows smoothly."""
    data, body = mujoco.MjData(model), limbs(model, qpos)
    x = _smooth(body.torso[:, 0])
    camera = _camera(body, width / height)
    pictures = np.zeros((len(qpos), height, width, 3), np.uint8)
    with _screen(model, width, height) as (context, scene):
        for i, q in enumerate(qpos):
            data.qpos[:] = q
            mujoco.mj_forward(model, data)
            camera.lookat[0] = x[i]
            mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, mujoco.mjtCatBit.mjCAT_ALL, scene)
            view = mujoco.MjrRect(0, 0, width, height)
            mujoco.mjr_render(view, scene, context)
            mujoco.mjr_readPixels(pictures[i], None, view, context)
    return pictures[:, ::-1]  # OpenGL counts rows from below


def save_film(film: Film, path: Path | str, *, how_made: str) -> Path:
    """Write NAME.webp, NAME-stills.webp and the card NAME.json; return the path of the first."""
    path = Path(path).with_suffix(".webp")
    for target, content in ((path, film.movie), (_stills(path), film.stills)):
        with replacing(target) as temporary:
            temporary.write_bytes(content)
    card = {"what": film.alt, "title": film.title, "how_made": how_made, "licence": LICENCE, "width": film.width,
            "height": film.height, "sha256": _hash(film.movie), "stills_sha256": _hash(film.stills)}
    with replacing(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def load_film(path: Path | str) -> Film:
    """Read a film, by path or by the name of an asset ("dmpc/run.webp"), once its hashes are right.

    Raises FileNotFoundError if there is none, and ValueError if it is damaged.
    """
    path = Path(path) if Path(path).is_file() else asset_path(str(path))
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    movie, stills = path.read_bytes(), _stills(path).read_bytes()
    if (_hash(movie), _hash(stills)) != (card["sha256"], card["stills_sha256"]):
        raise ValueError(f"{path.name} or its stills are damaged: they are not what their card promises; restore them "
                         "from git, or install minilab again")
    return Film(card["title"], card["what"], movie, stills, card["width"], card["height"])


def show_video(*films: Film, caption: str) -> None:
    """Display films side by side (below each other on a phone)."""
    display_html(video_html(*films, caption=caption), "\n".join(f"Film: {f.title}. {f.alt}" for f in films))


def video_html(*films: Film, caption: str) -> str:
    """The <figure> that `show_video` displays. Raises ValueError without a film."""
    if not films:
        raise ValueError("show_video needs at least one film")
    shown = "".join(
        f'<div style="max-width:{f.width * 1.5:.0f}px"><p class="ml-title">{escape(f.title)}</p>'
        f'{_image(f.movie, f, "ml-movie", f.alt)}{_image(f.stills, f, "ml-stills", "Four moments: " + f.alt)}</div>'
        for f in films)
    return _static.fill("video.html", style=_static.style("video.css"), films=shown, caption=escape(caption))


def _image(picture: bytes, film: Film, kind: str, alt: str) -> str:
    data = base64.b64encode(picture).decode()
    return (f'<img class="{kind}" alt="{escape(alt)}" width="{film.width}" height="{film.height}" '
            f'src="data:image/webp;base64,{data}">')


def _movie(frames: UInt8[np.ndarray, "n height width 3"], milliseconds: int) -> bytes:
    """The frames as an endless WebP, at the highest quality that keeps it small."""
    images = [Image.fromarray(frame) for frame in frames]
    for quality in QUALITIES:
        movie = _webp(images[0], quality=quality, save_all=True, append_images=images[1:], duration=milliseconds,
                      loop=0, minimize_size=True)
        if len(movie) <= MOST_BYTES:
            return movie
    raise ValueError(f"{len(frames)} frames take {len(movie) / 1e3:.0f} kB, above {MOST_BYTES / 1e3:.0f} kB: film "
                     "fewer steps, a smaller picture or a lower fps")


def _webp(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", method=4, **options)
    return buffer.getvalue()


def _stills(path: Path) -> Path:
    return path.with_name(f"{path.stem}-stills.webp")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _smooth(x: Float[np.ndarray, "n"], reach: int = 4) -> Float[np.ndarray, "n"]:
    """A moving average, so that the camera does not shake with the gait."""
    padded = np.pad(x, reach, mode="reflect", reflect_type="odd") if len(x) > reach else np.pad(x, reach, mode="edge")
    return np.convolve(padded, np.full(2 * reach + 1, 1 / (2 * reach + 1)), mode="valid")


def _camera(body: Limbs, aspect: float) -> mujoco.MjvCamera:
    """From the side, so far away that the body fits in its highest and lowest moment."""
    top = max(float(body.ends[..., 1].max()), 0.9)
    wide = float(np.ptp(body.ends[..., 0], axis=(1, 2)).max())
    camera = mujoco.MjvCamera()
    camera.lookat[:] = 0, 0, 0.45 * top
    camera.distance = max(1.25 * top, 1.15 * wide / aspect) / (2 * np.tan(np.radians(45 / 2))) + 0.3
    camera.azimuth, camera.elevation = 90, -8
    return camera


def _marked(model: mujoco.MjModel, names: tuple[str, ...]) -> mujoco.MjModel:
    """A copy to be looked at: soft colors, and some bodies in red."""
    model = copy.copy(model)
    model.mat_reflectance[:], model.mat_specular[:] = 0, 0
    for i in range(model.ntex):  # Gymnasium's sky is dark and its floor black and white: both soft, and fewer bytes
        size = model.tex_height[i] * model.tex_width[i] * model.tex_nchannel[i]
        part = slice(model.tex_adr[i], model.tex_adr[i] + size)
        if model.tex_type[i] == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            model.tex_data[part] = 226
        elif model.tex_type[i] == mujoco.mjtTexture.mjTEXTURE_2D:
            model.tex_data[part] = (165 + 0.35 * model.tex_data[part]).astype(np.uint8)
    known = [model.body(i).name for i in range(model.nbody)]
    for name in names:
        if name not in known:
            raise ValueError(f"no body called {name!r} to mark; choose one of {', '.join(known[1:])}")
        of = model.geom_bodyid == model.body(name).id
        model.geom_matid[of] = -1
        model.geom_rgba[of] = [*(int(PALETTE.red[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1]
    return model


@contextmanager
def _screen(model: mujoco.MjModel, width: int, height: int) -> Iterator[tuple[mujoco.MjrContext, mujoco.MjvScene]]:
    """An off-screen buffer to render into. Raises RuntimeError, naming MUJOCO_GL, if no OpenGL is to be had."""
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    model.vis.quality.offsamples = 8
    screen, reasons = None, []
    for name, context in _contexts():
        try:
            screen = context()(width, height)
            screen.make_current()
            drawn = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
            break
        except Exception as error:  # each backend fails in its own way, down to AttributeError on a missing library
            reasons.append(f"{name}: {str(error) or type(error).__name__}")
    else:
        raise RuntimeError(NO_GL.format("; ".join(reasons)))
    try:
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, drawn)
        scene = mujoco.MjvScene(model, 1000)
        scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0  # a shadow map too coarse for so small a picture
        yield drawn, scene
    finally:
        drawn.free()
        screen.free()


def _contexts() -> Iterator[tuple[str, Callable]]:
    """Ways to reach OpenGL: EGL where MuJoCo would open a window of its own accord, else what it was told."""
    from mujoco.rendering.classic import gl_context

    told = getattr(gl_context, "GLContext", None) or _switched_off
    name = "off" if told is _switched_off else told.__module__.rsplit(".", 1)[-1]
    if name == "glfw":
        yield "egl", _egl
    yield name, lambda: told


def _switched_off(width: int, height: int) -> None:
    raise RuntimeError("MUJOCO_GL says that nothing is to be drawn")


def _egl() -> type:
    from mujoco.egl import GLContext

    return GLContext
