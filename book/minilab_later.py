"""Figures that wait until the reader comes near: data, scripts and pictures lie in files of their own.

In a notebook a figure is whole: data and script stand in its output. In a page of the book that is up to half of what
is sent before a word shows. So both move to `_static/figures`, one file a figure, and `static/later.js` asks for it
when the figure is near the window. Until then, and without scripts, a figure shows its table.

Pictures that stand in a page as base64 become files, too. The browser asks for a film when it comes near, and for the
pixels of a drawing once it has the page.

A figure's script takes all figures of its kind that are not live yet. Those that wait are marked, so that it leaves
them alone.
"""

import base64
import hashlib
import re
from pathlib import Path
from posixpath import relpath

# What `minilab.core.widget.ending` writes.
ENDING = re.compile(
    r'<script type="application/json">(?P<data>[^<]*)</script>\n<script>(?P<code>\(\(\) => \{\n.*?\n\}\)\(\);)</script>'
    r"</figure>", re.DOTALL)  # fmt: skip
PICTURE = re.compile(r'<(?P<tag>img|image)(?P<before> [^<>]*?)\b(?P<name>src|href)="data:image/(?P<kind>png|webp|jpeg);'
                     r'base64,(?P<data>[^"]{1500,})"')  # a smaller one is not worth a request
# What `minilab.core.style` writes around a drawing, and the height of a caption of one line with what is around it.
DRAWN = re.compile(r'(?P<figure><figure class="minilab-figure" style="margin:0)'
                   r'(?P<svg>"><svg [^>]* width="(?P<width>\d+)" height="(?P<height>\d+)")')
CAPTION = 41
FOLDER = "_static/figures"
FILE = """for (const part of document.querySelectorAll('script[data-figure="{name}"]')) {{
  part.textContent = JSON.stringify({data});
  delete part.closest("figure").dataset.live;
}}
{code}
"""
LIVE = "[data-live]", '[data-live=""]'  # so that a rule for live figures does not match one that waits


def measured(body: str) -> str:
    """A page's body whose drawings say how high they are, for as long as they are not laid out.

    A drawing shrinks where the page is narrower than it, which a phone's is but for 2 rem.
    """
    def told(found: re.Match) -> str:
        ratio = int(found["height"]) / int(found["width"])
        high = f"calc(min({found['height']}px,{ratio:.3f}*(100vw - 2rem)) + {CAPTION}px)"
        return f"{found['figure']};contain-intrinsic-height:auto {high}{found['svg']}"

    return DRAWN.sub(told, body)


def pictured(body: str, here: str, out: Path) -> str:
    """A page's body with its larger pictures in files below `out`; `here` is the page's folder in it."""
    def moved(found: re.Match) -> str:
        content = base64.b64decode(found["data"])
        file = f"{FOLDER}/{hashlib.sha256(content).hexdigest()[:12]}.{found['kind']}"
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (out / file).write_bytes(content)
        waits = ' loading="lazy"' if found["tag"] == "img" else ""
        return f'<{found["tag"]}{waits}{found["before"]}{found["name"]}="{relpath(file, here)}"'

    return PICTURE.sub(moved, body)


def postponed(body: str, here: str, out: Path) -> str:
    """A page's body with its figures' data and scripts in files below `out`; `here` is the page's folder in it."""
    parts, start = [], 0
    for found in ENDING.finditer(body):
        name = hashlib.sha256((found["data"] + found["code"]).encode()).hexdigest()[:12]
        file = out / FOLDER / f"{name}.js"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(FILE.format(name=name, data=found["data"], code=found["code"]), encoding="utf-8")
        source = relpath(f"{FOLDER}/{name}.js", here)
        before, tag, inside = body[start : found.start()].rpartition("<figure")
        parts += [before, tag, inside.replace(">", ' data-live="later">', 1),
                  f'<script type="application/json" data-figure="{name}" data-src="{source}"></script></figure>']
        start = found.end()
    return "".join([*parts, body[start:]]).replace(*LIVE) if parts else body
