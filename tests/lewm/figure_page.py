"""A page for the interactive figures, and what their tests share."""

import re
from pathlib import Path

import torch
from browser import THEMES, WIDTHS, serve, visit

from minilab.lewm.interactive import static
from minilab.lewm.model import LeWM, cpu
from minilab.lewm.worlds.rooms import Rooms

PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Figures</title>
<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width"><style>
body {{ margin: 0 1rem; color: #222832; background: #fff; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ced6dd; background: #121212; }} }}</style></head>
<body><main><article><h1>Figures</h1>{figures}</article></main></body></html>"""
TAGS = ("figure", "style", "script", "table", "tr", "td", "th", "svg", "div", "p", "span", "label", "canvas", "button")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def without_scripts(html: str) -> str:
    return re.sub(r"(?s)<(script|style)\b.*?</\1>", "", html)


def cells(html: str) -> dict[str, list[str]]:
    """The table of a figure, by row."""
    return {row: re.findall(r"<td>(.*?)</td>", rest) for row, rest in
            re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', without_scripts(html))}


def faults(html: str) -> list[str]:
    """What a self-contained figure must not have: gaps, ids, addresses, tags left open."""
    text = re.sub(r'(?s)<script type="application/json">.*?</script>|base64,[\w+/=]+', "", html)
    found = re.findall(r"\$[a-z]\w*|\bid=|https?://|//cdn|require\(|\bimport\b", text)
    return found + [tag for tag in TAGS if html.count(f"</{tag}>") != len(re.findall(rf"<{tag}[\s>]", html))]


def told(figure) -> str:
    """What a figure in a browser says in words."""
    return figure.locator("[data-out=told]").inner_text().replace("\N{MINUS SIGN}", "-")


def visible(page, selector: str) -> set[bool]:
    """{True} if all elements are seen, {False} if none is."""
    return {element.is_visible() for element in page.locator(selector).all()}


def without_javascript(browser, figures: str):
    """A page in a browser that runs no script."""
    page = browser.new_page(java_script_enabled=False)
    page.set_content(PAGE.format(figures=figures))
    return page


def computed(page, scripts: tuple[str, ...], body: str, *arguments):
    """What the body of a function of `a` returns that knows the scripts."""
    source = "".join(map(static.read, scripts))
    return page.evaluate("([source, body, ...rest]) => new Function('a', source + ';' + body)(rest)",
                         [source, body, *arguments])


def page_faults(browser, folder: Path, figures: str) -> list[str]:
    """What axe and the checks of the book's pages find, narrow and light, wide and dark, without a network."""
    (folder / "page.html").write_text(PAGE.format(figures=figures), encoding="utf-8")
    with serve(folder) as site:
        return [fault for width, theme in zip(WIDTHS, THEMES, strict=True)
                for fault in visit(browser, site, "page.html", width=width, theme=theme).faults]


def random_model(**options) -> LeWM:
    """An untrained model that tells pictures of Two Rooms apart, and whose actions matter."""
    torch.manual_seed(0)
    model = LeWM(cpu(10, dropout=0.0, **options)).requires_grad_(False)
    for name, tensor in model.state_dict().items():
        if name.endswith("norm.weight"):
            tensor.uniform_(0.5, 2.0)
        elif name.endswith(("norm.bias", "steer.bias")):
            tensor.normal_(std=0.3)
        elif name.endswith("steer.weight"):
            tensor.normal_(std=0.2)
    world, history = Rooms(), model.config.history
    frames = world.render(world.reset(64 * (history + 1), generator()), 32).unflatten(0, (64, history + 1))
    seen, out = model.encoder(frames.flatten(0, 1)), model.encoder.out
    mean, std = seen.mean(dim=0), seen.std(dim=0)
    out.weight /= std[:, None]
    out.bias.copy_((out.bias - mean) / std)
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)):
        norm.momentum = 1.0
    model(frames, torch.randn(64, history + 1, 10, generator=generator()))
    return model.eval()
