"""Two figures that the reader sets in motion: what SIGReg sees of a cloud, and imagined roll-outs beside real ones.

Each is one self-contained piece of HTML as in the chapters before: no kernel, no library, nothing fetched, no ids.
Without scripts tables (and the frames) stay, in print also what the reader had made of it. Notable:

- The cloud's statistic is computed in the page, by the same quadrature as `sigreg.py`; only its points come from here.
- The X, the ring and the lumps have mean 0 and covariance I. A loss on variances and covariances is content with each,
  and SIGReg is not: they differ from a Gaussian, in some directions more than in others.
- A roll-out is plain data, which a record can hold: `rollout` asks a model and its decoder once. The episodes shown
  are not picked by hand. They are the best, the median and the worst of all that were compared.
- With a kernel `live_cloud` draws directions in any dimension, where chance finds the X ever more seldom, and
  `live_rollout` takes any clip.
- Keys that are pressed in a figure belong to it: `data-lm-suppress-shortcuts` says so to JupyterLab, whose own arrow
  and letter keys would otherwise move to another cell or change it.
- Frames are WebP without loss. Their bytes may differ between processors by a rounding; the comparison of notebooks
  hides them, as it does for films.

The third figure, which the reader drives, is in `interactive_drive.py`. Shapes: n points, M directions, B clips,
T frames, D latent width.
"""

import base64
import io
import math
from collections.abc import Mapping
from html import escape
from typing import Any

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from minilab.core.display import display_html
from minilab.core.records import Record
from minilab.core.style import INK, PALETTE, figure
from minilab.core.widget import Choice, Static, choices, ending, live, plain_text, slider, told
from minilab.lewm.data import Clip, Clips
from minilab.lewm.decoder import imagined_strip
from minilab.lewm.figures import pictures
from minilab.lewm.model import LeWM
from minilab.lewm.sigreg import epps_pulley, expected, random_directions

static = Static("minilab.lewm")
MOST_BYTES = 400_000  # of a figure in a page

CLOUD_CAPTION = (
    "SIGReg asks of one direction after another whether the points, seen along it, are a sample of N(0, 1). The X has "
    "mean 0 and covariance I, and midway between its arms nothing is wrong with it; along an arm the statistic rises. "
    "A random draw of N(0, I) scores about the floor. Gradient steps end below it, because points that repel one "
    "another lie more evenly than random ones."
)
KNOTS, T_MAX, DIRECTIONS, RATE = 17, 3.0, 90, 0.4  # of the statistic; directions in a half turn; size of a step
SLIDERS = (  # start, name, what it is, smallest, largest, step, digits
    (1, "along", "spread of z₁", 0, 2.5, 0.05, 2),
    (1, "across", "spread of z₂", 0, 2.5, 0.05, 2),
    (0, "shift", "shift of z₁", -2, 2, 0.05, 2),
    (45, "theta", "direction θ (°)", 0, 180, 1, 0),
)
FEWEST, MOST = 20, 300  # points: fewer have a collapse near their floor
MOST_NUMBERS = 500_000  # projections, with a kernel: a second
Points = Float[Tensor, "n 2"]


def clouds(n: int = 120, seed: int = 0) -> dict[str, Points]:
    """Clouds by shape: a draw of N(0, I), three with mean 0 and covariance I that are no such draw, and a collapse."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    sign = 1.0 - 2.0 * (torch.arange(n) % 2)
    along, turn = normal(n), torch.arange(n) * (2 * torch.pi / n)
    gaussian = normal(n, 2)
    shapes = {
        "X": torch.stack((along, along * sign), dim=1) + 0.08 * normal(n, 2),
        "ring": torch.stack((turn.cos(), turn.sin()), dim=1) + 0.05 * normal(n, 2),
        "two lumps": torch.stack((sign + 0.25 * normal(n), normal(n)), dim=1),
    }
    return {"Gaussian": gaussian, **{name: whitened(points) for name, points in shapes.items()},
            "collapsed": 0.02 * normal(n, 2)}


def whitened(points: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
    """The same shape with mean 0 and covariance I."""
    centered = points - points.mean(dim=0)
    root = torch.linalg.cholesky(centered.mT @ centered / len(points))
    return torch.linalg.solve_triangular(root, centered.mT, upper=False).mT


def cloud_html(points: Mapping[str, Points] | None = None, *, shape: str = "X", caption: str = CLOUD_CAPTION) -> str:
    """A cloud with buttons for its shape, sliders and gradient steps, and what SIGReg sees of it.

    `points` replaces the shapes by clouds of yours, such as two numbers of a model's latents. Raises ValueError for a
    shape that there is none of, and for clouds of other than 20 to 300 finite points.
    """
    points = _rounded(clouds() if points is None else points)
    if shape not in points:
        raise ValueError(f"no shape called {shape!r}; choose one of {', '.join(points)}")
    data = {"shapes": points, "start": shape, "knots": KNOTS, "t_max": T_MAX, "directions": DIRECTIONS, "rate": RATE}
    return static.fill(
        "cloud.html", style=static.style("cloud.css"), shapes=choices("shape", {name: name for name in points}, shape),
        sliders="".join(slider(*one) for one in SLIDERS),
        ending=ending(*_cloud_still(points), caption=caption, data=data,
                      script="".join(map(static.read, ("sigreg.js", "cloud.js")))))


def show_cloud(points: Mapping[str, Points] | None = None, **options: Any) -> None:
    """Display the cloud, with the options of `cloud_html`; in plain text, its table."""
    html = cloud_html(points, **options)
    title, head, rows = _cloud_still(_rounded(clouds() if points is None else points))
    display_html(html, plain_text("what SIGReg sees of a cloud", title, head, rows))


def live_cloud(points: Mapping[str, Float[Tensor, "_ _"]] | None = None, *, shape: str | None = None,
               dimensions: int | None = None, directions: int = DIRECTIONS) -> Any:
    """What SIGReg sees with a kernel, as `live` says: any number of points, of dimensions and of directions.

    `points` replaces the shapes by clouds of yours, of any width, such as a model's latents: of each, the first points
    are taken. Further dimensions are N(0, 1). Raises ValueError for a shape that there is none of.
    """
    known = clouds() if points is None else points
    shapes = Choice({name: name for name in known}, shape or ("X" if points is None else next(iter(known))))
    n, D = known[shapes.start].shape
    controls = {"shape": shapes, "points n": n, "dimensions D": dimensions or D, "directions M": directions, "seed": 0}

    def draw(name: str, n: int, D: int, M: int, seed: int) -> str:
        if n < FEWEST or M < 1 or n * M > MOST_NUMBERS:
            raise ValueError(f"{n} points along {M} directions: give {FEWEST} points or more, one direction or more, "
                             f"and at most {MOST_NUMBERS:,} projections")
        cloud = (clouds(n, seed) if points is None else points)[name][:n].double().cpu()
        if len(cloud) < n or D < cloud.shape[1] or not cloud.isfinite().all():
            raise ValueError(f"{name!r} is {tuple(cloud.shape)}: give at most so many points, no fewer dimensions, and "
                             "finite numbers")
        generator = torch.Generator().manual_seed(seed + 10_000)  # the seed itself would draw the cloud's numbers again
        others = torch.randn(n, D - cloud.shape[1], generator=generator, dtype=torch.float64)
        v = random_directions(D, M, generator, like=cloud)
        return _seen(name, torch.cat((cloud, others), dim=1) @ v,
                     torch.randn(n, D, generator=generator, dtype=torch.float64) @ v)

    return live(controls, draw)


def _seen(name: str, h: Float[Tensor, "n M"], normal: Float[Tensor, "n M"]) -> str:
    """The statistic of each direction beside those of a draw of N(0, I), and what the highest one sees."""
    n, M = h.shape
    found = {each: epps_pulley(seen, knots=KNOTS, t_max=T_MAX)
            for each, seen in ((name, h), ("a draw of N(0, I)", normal))}
    floor, collapse, worst = expected(n, 0, 1), expected(n, 0, 0), int(found[name].argmax())
    fig, (left, right) = figure(1, 2, width=8, height=3.2)
    bins, grid = torch.linspace(-2, math.log10(2 * collapse), 41), torch.linspace(-4, 4, 201)
    for values, kind, color in zip(found.values(), ("stepfilled", "step"), PALETTE, strict=False):
        left.hist(values.log10(), bins=bins, histtype=kind, color=color, linewidth=1.5)
    for level, style in ((floor, ":"), (collapse, "--")):
        left.axvline(math.log10(level), color=INK, linewidth=1, linestyle=style)
    left.set(xlabel="log₁₀ of the statistic", ylabel="directions")
    right.hist(h[:, worst].clamp(-4, 4), bins=32, range=(-4, 4), density=True, color=PALETTE.blue)
    right.plot(grid, (-grid.square() / 2).exp() / math.sqrt(2 * math.pi), color=PALETTE.orange)
    right.set(xlabel="points along the highest direction", ylabel="density")
    rows = [[each, *(f"{value:.2f}" for value in (values.mean(), values.min(), values.max()))]
            for each, values in found.items()]
    text = (f"SIGReg of {n} points along {M} random directions (blue), and of a draw of N(0, I) (orange); the floor "
            f"(dotted) is {floor:.2f}, collapse (dashed) {collapse:.1f}")
    alt = f"Histogram of {M} statistics, of which the highest is {rows[0][3]}, and of the points along that direction."
    return told(text, ["", "mean", "lowest", "highest"], rows, fig, alt=alt)


def _rounded(points: Mapping[str, Points]) -> dict[str, list[list[float]]]:
    """Three decimals are enough for a picture, and the same on every machine."""
    for name, cloud in points.items():
        if cloud.ndim != 2 or cloud.shape[1] != 2 or not FEWEST <= len(cloud) <= MOST or not cloud.isfinite().all():
            raise ValueError(f"{name!r} is {tuple(cloud.shape)}: give {FEWEST} to {MOST} finite points of 2 numbers "
                             "each")
    return {name: [[round(v, 3) + 0.0 for v in row] for row in cloud.double().tolist()]
            for name, cloud in points.items()}


def _cloud_still(points: Mapping[str, list[list[float]]]) -> tuple[str, list[str], list[list[str]]]:
    """What the statistic says of each shape."""
    angle = torch.arange(DIRECTIONS, dtype=torch.float64) * (torch.pi / DIRECTIONS)
    a = torch.stack((angle.cos(), angle.sin()))  # 2 M
    rows = []
    for name, cloud in points.items():
        told = epps_pulley(torch.tensor(cloud, dtype=torch.float64) @ a, knots=KNOTS, t_max=T_MAX)
        rows.append([name, f"{told.mean():.2f}", *(f"{told[m]:.2f} at {m * 180 // DIRECTIONS}°"
                                                   for m in (told.argmin(), told.argmax()))])
    n = len(next(iter(points.values())))
    title = (f"The statistic over {DIRECTIONS} directions of clouds of {n} points. A draw of N(0, I) scores about "
             f"{expected(n, 0, 1):.2f}, a cloud that is one point at 0 {expected(n, 0, 0):.1f}")
    return title, ["", "mean", "lowest", "highest"], rows


ROLLOUT_CAPTION = (
    "Right of the orange line the model sees nothing: it is told the actions and imagines. The decoder was trained "
    "afterwards and taught the model nothing, so the second picture says what a latent keeps, and what the third has "
    "otherwise is the error of prediction. On average it grows along the way, because each prediction starts from "
    "the last one. At the wall a small error can decide on which side the dot comes out."
)
ROWS = ("what happens", "drawn from its latent", "imagined")
RANKS = {"best": 0.0, "median": 0.5, "worst": 1.0}  # of the episodes that are shown, by mean error
Rollout = Mapping[str, Any]  # what `rollout` returns


@torch.no_grad()
def rollout(model: LeWM, decoder: nn.Module, clips: Clips, generator: torch.Generator, *, history: int = 1,
            compared: int = 200) -> dict:
    """Imagined roll-outs of some clips beside what happened, as plain data.

    Of `compared` clips the best, the median and the worst are shown, by the mean of their error: that of the imagined
    latent, over the variance of latents, so that 1 is what the best constant would get. Raises ValueError for clips
    with nothing to imagine beyond `history` frames, and for too few to compare.
    """
    if clips.T <= history or compared < len(RANKS):
        raise ValueError(f"{compared} clips of {clips.T} frames, {history} of them given: compare at least "
                         f"{len(RANKS)} clips with at least one frame to imagine")
    clip = clips.draw(compared, generator)
    error, stay = _errors(model, clip, history, _unit(model, clip))
    order = error.mean(dim=1).argsort()
    chosen = [int(order[round(rank * (compared - 1))]) for rank in RANKS.values()]
    strip = imagined_strip(model, decoder, Clip(*(part[chosen] for part in clip)), history=history)
    frames = torch.stack(list(strip), dim=1).cpu()  # b row T 3 H W
    return {"history": history, "skip": clips.skip, "size": frames.shape[-1], "compared": compared,
            "episodes": [{"name": name, "error": _each(error[i]), "frames": webp(grid)}
                         for name, i, grid in zip(RANKS, chosen, frames, strict=True)],
            "mean": _each(error.mean(dim=0)), "stay": _each(stay.mean(dim=0))}


def _unit(model: LeWM, clip: Clip) -> Float[Tensor, ""]:
    """The variance of latents."""
    return model.encode(clip.frames).flatten(0, 1).var(dim=0).mean().clamp(min=1e-20)


def _errors(model: LeWM, clip: Clip, history: int, unit: Float[Tensor, ""]) -> tuple[Float[Tensor, "B t"], ...]:
    """Of the latents imagined after the first `history`, and of who says that nothing moves, in units of variance."""
    z, past = model.encode(clip.frames), clip.actions[:, : history - 1] if history > 1 else None
    dreamed = model.imagine(z[:, :history], clip.actions[:, history - 1 : -1], past)
    return tuple(((guess - z[:, history:]).square().mean(dim=-1) / unit).cpu()
                 for guess in (dreamed, z[:, history - 1 : history]))


@torch.no_grad()
def live_rollout(model: LeWM, decoder: nn.Module, clips: Clips, *, compared: int = 200) -> Any:
    """An imagined roll-out with a kernel, as `live` says: of any clip, from as many frames as the model remembers.

    The variance that errors are measured by is that of the latents of `compared` clips.
    """
    device = clips.data.ep_len.device
    unit = _unit(model, clips.draw(compared, torch.Generator(device).manual_seed(0)))
    most = min(model.config.history, clips.T - 1)

    def draw(which: int, history: int) -> str:
        if not (0 <= which < len(clips) and 1 <= history <= most):
            raise ValueError(f"clip {which} from {history} frames: give a clip from 0 to {len(clips) - 1:,}, and 1 to "
                             f"{most} frames")
        clip = clips.take(torch.tensor([which]))
        error, stay = (_each(found[0]) for found in _errors(model, clip, history, unit))
        strip = imagined_strip(model, decoder, clip, history=history)
        fig = pictures({row: frames[0].cpu() for row, frames in zip(ROWS, strip, strict=True)})
        rows = [["imagined", *map(str, error)], ["if nothing moved", *map(str, stay)]]
        return told(f"Clip {which} of {len(clips):,}, imagined after the first {history}: error of the latent over the "
                    "variance of latents", ["", *(f"block {t}" for t in range(1, len(error) + 1))], rows, fig,
                    alt=f"Three rows of {clips.T} frames: {'; '.join(ROWS)}.")

    return live({"clip": 0, "frames given": 1}, torch.no_grad()(draw))


def rollout_html(data: Rollout | Record, *, episode: str = "median", caption: str = ROLLOUT_CAPTION) -> str:
    """The frames with a slider for the time and buttons for the episode, which the option sets to begin with.

    Raises ValueError for an episode that the data lack, and for data too large for a page.
    """
    data = data.results if isinstance(data, Record) else data
    names = [e["name"] for e in data["episodes"]]
    if episode not in names:
        raise ValueError(f"no episode called {episode!r}; choose one of {', '.join(names)}")
    h, L = data["history"], len(data["mean"])
    strips = "".join(_strip(e, data) for e in data["episodes"])
    bare = [{k: v for k, v in e.items() if k != "frames"} for e in data["episodes"]]
    html = static.fill(
        "rollout.html", style=static.style("rollout.css"), strips=strips,
        episodes=choices("episode", {name: f"{name} of {data['compared']}" for name in names}, episode),
        slider=slider(h, "t", "frame", 0, h + L - 1, 1, 0),
        views="".join(f'<div><p class="ml-small">{row}</p><canvas width="{data["size"]}" height="{data["size"]}" '
                      f'role="img" aria-label="{row}"></canvas></div>' for row in ROWS),
        ending=ending(*_rollout_still(data), caption=caption, data={**data, "rows": ROWS, "episodes": bare},
                      script=static.read("rollout.js")))
    return small_enough(html, "give shorter clips or smaller frames")


def show_rollout(data: Rollout | Record, **options: Any) -> None:
    """Display imagined roll-outs, with the options of `rollout_html`; in plain text, the table of their errors."""
    html = rollout_html(data, **options)
    still = _rollout_still(data.results if isinstance(data, Record) else data)
    display_html(html, plain_text("imagined roll-outs", *still))


def _strip(episode: Mapping[str, Any], data: Rollout) -> str:
    """The frames of an episode, three rows of them, and the line where imagination begins."""
    h, T = data["history"], data["history"] + len(data["mean"])
    alt = (f"Three rows of {T} frames, {data['skip']} steps apart: {'; '.join(ROWS)}. The first {h} of the last row "
           f"{'is' if h == 1 else 'are'} given. The error at the end is {episode['error'][-1]:.2g}.")
    name, labels = escape(episode["name"]), "".join(f"<span>{row}</span>" for row in ROWS)
    return (f'<div class="ml-strip" data-frames="{name}"><p class="ml-small"><b>{name} of {data["compared"]}</b></p>'
            f'<div class="ml-film"><div class="ml-rows">{labels}</div>'
            f'<div class="ml-frames"><img alt="{escape(alt)}" width="{T * data["size"]}" '
            f'height="{len(ROWS) * data["size"]}" src="{episode["frames"]}">'
            f'<i class="ml-now" style="width:{100 / T:.2f}%" hidden></i><i style="left:{100 * h / T:.2f}%"></i>'
            "</div></div></div>")


def _rollout_still(data: Rollout) -> tuple[str, list[str], list[list[str]]]:
    """Errors after some blocks."""
    L = len(data["mean"])
    shown = sorted({1, (L + 1) // 2, L})
    series = [(f"{e['name']} of {data['compared']}", e["error"]) for e in data["episodes"]]
    series += [(f"mean of {data['compared']}", data["mean"]), ("mean, if nothing moved", data["stay"])]
    rows = [[name, *(f"{values[t - 1]:.2g}" for t in shown)] for name, values in series]
    title = (f"Error of the imagined latent over the variance of latents, after so many blocks of {data['skip']} "
             "actions; 1 is what the best constant would get")
    return title, ["", *(f"{t} block{'s' if t > 1 else ''}" for t in shown)], rows


def webp(frames: UInt8[Tensor, "row T 3 H W"]) -> str:
    """Rows of frames as one picture in a page, without loss."""
    picture = frames.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)  # row·H T·W 3
    buffer = io.BytesIO()
    Image.fromarray(picture.numpy()).save(buffer, "WEBP", lossless=True, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def small_enough(html: str, remedy: str) -> str:
    """A figure as it is. Raises ValueError with the remedy for one too large for a page."""
    if len(html.encode()) > MOST_BYTES:
        raise ValueError(f"the figure takes {len(html.encode()) / 1e3:.0f} kB, above {MOST_BYTES / 1e3:.0f} kB: "
                         f"{remedy}")
    return html


def digits(value: float) -> float:
    """A number with three significant digits, for a small page."""
    return float(f"{value:.3g}")


def _each(values: Float[Tensor, "n"]) -> list[float]:
    return [digits(v) for v in values.tolist()]
