"""A figure that the reader drives: Two Rooms by arrow keys, and how surprised a world model is by every block.

The world and the model run in the page, without a kernel: `static/rooms.js` is the world, `static/model.js` the model,
with the weights that `export.py` wrote. The reader may break the world, as in `surprise.py`: put the dot elsewhere, or
give it another color. Notable:

- A key holds one action for a block, since a model knows nothing shorter. Nobody in its data moves like that, and a
  held key surprises more than a held-out clip does. So the level that the figure draws comes from driving by random
  keys in an intact world.
- An event is a block without a move, at whose end the dot stands elsewhere or has the other color.
- A color that was never seen is new to the encoder, not to physics. The table says how often a model takes offense.
- With a kernel `live_drive` asks the model itself, however large, and a decoder draws what it had expected to see.
- Before the reader begins, the page has driven an opening itself, and computed what `Driver` computes here.

Shapes: n films, L blocks, k actions in a block of A numbers each, S numbers in a state, D latent width.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from minilab.core.display import display_html
from minilab.core.style import INK, PALETTE, figure
from minilab.core.widget import ending, live, plain_text, told
from minilab.lewm.data import Scale
from minilab.lewm.decoder import picture
from minilab.lewm.export import exported, quantized
from minilab.lewm.interactive import digits, small_enough, static, webp
from minilab.lewm.model import LeWM
from minilab.lewm.surprise import BLUE, surprise, unroll
from minilab.lewm.worlds import rooms

KEYS = {"up": (0.0, -1.0), "left": (-1.0, 0.0), "stay": (0.0, 0.0), "right": (1.0, 0.0), "down": (0.0, 1.0)}
EVENTS = {"teleport": "the dot jumps", "recolor": "the dot changes color"}
OPENING = ("right", "right", "down", "stay", "teleport", "up", "left", "recolor", "left", "recolor", "stay", "right")
START = (40.0, 60.0)
GEOMETRY = ("FRAME", "MARGIN", "LINE", "WALL", "HALF_WALL", "DOOR", "HALF_DOOR", "DOOR_SLACK", "RADIUS", "SPEED", "LOW",
            "HIGH", "LEFT", "RIGHT", "PUSHED_BACK")
SHARE = 0.95  # of the blocks in an intact world that stay under the level
CAPTION = (
    "The model sees what you see, and was never told what a dot or a wall is. Before each block it predicts the next "
    "latent from the last ones and from your key; surprise is how far off it was. Moving, stopping and running into a "
    "wall are mostly expected. A dot that jumps is not, once; after that the world obeys its laws again. A new color "
    "breaks no law of motion, but the encoder never saw one."
)
WORLD = rooms.Rooms()
Drive = Mapping[str, Any]  # what `drive` returns


class Driver:
    """Two Rooms, driven block by block, and a model that watches. A teleport puts the dot on the next of `places`."""

    def __init__(self, model: LeWM, scale: Scale, places: Float[Tensor, "n S"]) -> None:
        self.model, self.blocks, self.places = model, key_blocks(model, scale), places
        self.state, self.blue, self.jumps = torch.tensor([START]), False, 0
        self.latents, self.ran, self.trace, self.moves = [self._look()], [], [], []
        self.expected = self.latents[0]

    def frame(self) -> UInt8[Tensor, "3 size size"]:
        """What the model sees now."""
        color = torch.tensor([BLUE]) if self.blue else None
        return WORLD.render(self.state, self.model.config.vision.image, color=color)[0]

    @torch.no_grad()
    def move(self, name: str) -> float:
        """Drive one block, by a key or an event, and return the surprise."""
        key = name if name in KEYS else "stay"
        for _ in range(self.model.config.actions // 2):
            self.state = WORLD.step(self.state, torch.tensor([KEYS[key]]))
        if name == "teleport":
            self.state, self.jumps = self.places[[self.jumps % len(self.places)]], self.jumps + 1
        self.blue ^= name == "recolor"
        self.ran.append(self.blocks[key])
        self.latents.append(self._look())
        h = min(self.model.config.history, len(self.ran))
        z, blocks = torch.stack(self.latents[-h - 1 :])[None], torch.stack(self.ran[-h:])[None]
        self.expected = self.model.predict(z[:, :-1], blocks)[0, -1]
        self.moves.append(name)
        self.trace.append(float((self.expected - z[0, -1]).square().mean()))
        return self.trace[-1]

    @torch.no_grad()
    def _look(self) -> Float[Tensor, "D"]:
        return self.model.encode(self.frame()[None, None])[0, 0]


def live_drive(model: LeWM, scale: Scale, generator: torch.Generator, *, decoder: nn.Module | None = None,
               films: int = 300) -> Any:
    """Two Rooms driven with a kernel, as `live` says: a button for each key and event, and the model as it is.

    A model in a page is rounded and small. This one may be as large as you like, and a `decoder` draws what it had
    expected. It begins after the page's opening. Model and generator are the processor's.
    """
    level = float(measured(model, scale, generator, films=films)["none"].quantile(SHARE))
    driver = Driver(model, scale, WORLD.reset(64, generator))
    for name in OPENING:
        driver.move(name)
    buttons = {name: partial(driver.move, name) for name in (*KEYS, *EVENTS)}
    return live(buttons, lambda: _watched(driver, decoder, level))


def _watched(driver: Driver, decoder: nn.Module | None, level: float) -> str:
    """What there is to see, what was expected, and the surprise of all blocks so far."""
    views = {"what happens": driver.frame()}
    if decoder is not None:
        views["what the model expected"] = picture(decoder, driver.expected[None])[0]
    pictures = "".join(
        f'<figure style="margin:0 1rem 0 0"><img alt="{name}" src="{webp(view[None, None])}" width="200" '
        f'style="image-rendering:pixelated"><figcaption>{name}</figcaption></figure>' for name, view in views.items())
    blocks = range(1, len(driver.trace) + 1)
    fig, ax = figure(height=3.0)
    ax.axhline(level, color=INK, linewidth=1, linestyle="--")
    ax.plot(blocks, driver.trace, color=PALETTE.blue)
    for block, name, value in zip(blocks, driver.moves, driver.trace, strict=True):
        ax.plot(block, value, "o", color=PALETTE.orange if name in EVENTS else PALETTE.blue)
    ax.set(xlabel="block (orange: an event)", ylabel="surprise", yscale="log")
    last = [[f"{block}, {driver.moves[block - 1]}", f"{driver.trace[block - 1]:.3g}"] for block in blocks[-5:]]
    text = f"In an intact world {SHARE:.0%} of the blocks surprise less than {level:.3g} (dashed). The last ones:"
    alt = f"The surprise of {len(blocks)} blocks, and the level {level:.3g}."
    return f'<div style="display:flex;flex-wrap:wrap">{pictures}</div>' + told(
        text, ["block", "surprise"], last, fig, alt=alt)


def key_blocks(model: LeWM, scale: Scale) -> dict[str, Float[Tensor, "kA"]]:
    """What each key does for a block, as the model is told it."""
    k = model.config.actions // 2
    return {name: scale.blocks(torch.tensor([action]).expand(k, 2)) for name, action in KEYS.items()}


def measured(model: LeWM, scale: Scale, generator: torch.Generator, *, films: int = 300
             ) -> dict[str, Float[Tensor, "b"]]:
    """Surprises of blocks driven by random keys, and of those in which the world was broken, by what was done to it."""
    L, k, size = model.config.history + 1, model.config.actions // 2, model.config.vision.image
    keys = torch.tensor(list(KEYS.values()))
    acts = keys[torch.randint(len(keys), (films, L), generator=generator)]  # n L A
    acts[:, -1] = torch.tensor(KEYS["stay"])
    acts = acts[:, :, None].expand(-1, -1, k, -1)
    states = unroll(WORLD, WORLD.reset(films, generator), acts)
    frames = WORLD.render(states.flatten(0, 1), size).unflatten(0, (films, L + 1))
    endings = {"teleport": WORLD.render(WORLD.reset(films, generator), size),
               "recolor": WORLD.render(states[:, -1], size, color=torch.tensor([BLUE]).expand(films, 3))}
    blocks = scale.blocks(torch.cat((acts, acts[:, -1:]), dim=1))  # the last one leaves the film
    told = {"none": surprise(model, frames, blocks).flatten()}
    for event, last in endings.items():
        broken = torch.cat((frames[:, :-1], last[:, None]), dim=1)
        told[event] = surprise(model, broken, blocks)[:, -1]
    return told


def drive(model: LeWM, scale: Scale, generator: torch.Generator, *, films: int = 300,
          opening: Sequence[str] = OPENING) -> dict:
    """All that the page needs to drive Two Rooms before a model, as plain data. The generator is the processor's.

    Raises ValueError for a model that no page can run, and for pictures whose pixels do not divide the world's.
    """
    size = model.config.vision.image
    if rooms.FRAME % size:
        raise ValueError(f"pictures of {size} pixels do not divide the world's {rooms.FRAME}: train on 16, 28, 32 or "
                         "56")
    scale = Scale(scale.mean.cpu(), scale.std.cpu())
    payload, rounded = exported(model, key_blocks(model, scale)), quantized(model)
    told = measured(rounded, scale, generator, films=films)
    level = float(told["none"].quantile(SHARE))
    places = WORLD.reset(64, generator).round(decimals=1)
    driver = Driver(rounded, scale, places)
    frames = [driver.frame()]
    for name in opening:
        driver.move(name)
        frames.append(driver.frame())
    return {
        "model": payload, "skip": model.config.actions // 2, "size": size, "keys": KEYS, "start": START,
        "world": {name: getattr(rooms, name) for name in GEOMETRY}, "red": rooms.RED, "blue": BLUE,
        "places": [[round(v, 1) for v in place] for place in places.tolist()], "opening": list(opening),
        "trace": [digits(s) for s in driver.trace], "frames": webp(torch.stack(frames)[None]),
        "share": SHARE, "level": digits(level),
        "measured": {name: {"median": digits(float(s.median())), "above": round(float((s > level).float().mean()), 3)}
                     for name, s in told.items()}}


def drive_html(data: Drive, *, caption: str = CAPTION) -> str:
    """Two Rooms to be driven by keys and buttons, and the trace of surprise.

    Raises ValueError for a model too large for a page.
    """
    names = ["start", *data["opening"]]
    alt = f"{len(names)} frames of the opening: {', '.join(names)}."
    told = ", ".join(f"{name} {s:.2g}" for name, s in zip(data["opening"], data["trace"], strict=True))
    kept = {name: part for name, part in data.items() if name not in ("frames", "measured", "trace")}
    pad = "".join(f'<button type="button" data-move="{name}" class="ml-{name}">{text}</button>' for name, text in
                  (("up", "↑ up"), ("left", "← left"), ("stay", "stay"), ("right", "right →"), ("down", "down ↓")))
    html = static.fill(
        "drive.html", style=static.style("drive.css"), pad=pad, size=str(data["size"]), alt=escape(alt),
        frames=data["frames"], opening=f"The opening: {told}.",
        ending=ending(*_still(data), caption=caption, data=kept,
                      script="".join(map(static.read, ("rooms.js", "model.js", "drive.js")))))
    return small_enough(html, "train a smaller model, such as cpu(head_hidden=64, hidden=128)")


def show_drive(data: Drive, **options: Any) -> None:
    """Display the world to be driven, with the options of `drive_html`; in plain text, how often it surprises."""
    display_html(drive_html(data, **options), plain_text("drive Two Rooms, and watch the surprise", *_still(data)))


def _still(data: Drive) -> tuple[str, list[str], list[list[str]]]:
    """How surprising blocks are, with and without an event."""
    rows = [[text, f"{data['measured'][name]['median']:.2g}", f"{data['measured'][name]['above']:.1%}"]
            for name, text in {"none": "nothing happens", **EVENTS}.items()]
    title = f"Surprise of a block of {data['skip']} actions; level {data['level']:.2g}"
    return title, ["", "median", "above the level"], rows
