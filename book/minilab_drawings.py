"""Figures as they are drawn, in fewer bytes: what a page would otherwise send again and again is sent once.

Matplotlib writes each of its drawings as if it stood alone. On a page of the book twenty of them stand in a row:

- A letter or a marker that an earlier figure of the page has drawn is pointed at and not drawn again.
- A style that stands on many elements becomes a class, and groups that say nothing go.
- A path says how far it goes from point to point, which needs fewer digits and is exact.
- Places of letters and markers lose the digits past a ten-thousandth of a point. Fewer would do for the eye, but where
  a browser draws edges with few shades, some pixels would come out otherwise.

What is changed are drawings of `minilab.core.style`, which no script reaches into. The alternative text stays, and so
do all others, such as interactive figures. Names are made from what they name: pages that are joined into one, for the
PDF, share them. The EPUB has each drawing as a file of its own, since devices open a page of a megabyte slowly.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

# The root element that `minilab.core.style` writes.
DRAWING = re.compile(
    r'<svg xmlns="[^"]*" xmlns:xlink="[^"]*"(?P<root> viewBox="[^"]*" width="\d+" height="\d+" style="[^"]*"'
    r' fill="currentColor" stroke-linejoin="round" stroke-linecap="butt" role="img" aria-label="[^"]*")>'
    r"(?P<inside>.*?)</svg>", re.DOTALL)  # fmt: skip
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
TOKEN = re.compile(r"<[^>]*>|[^<]+")
ATTRIBUTE = re.compile(r' ([\w:-]+)="([^"]*)"')
SHAPES = re.compile(r"<defs>(.*?)</defs>", re.DOTALL)
CLIPPED = re.compile(r'<g clip-path="[^"]*">')
REFERENCE = re.compile(r"url\(#([^)]+)\)")
STYLED = re.compile(r' style="([^"]*)"')
PLACE = re.compile(r"translate\((-?[\d.]+) (-?[\d.]+)\)")
COMMAND = re.compile(r"([A-Za-z])([^A-Za-z]*)")
PAIRS = {"M": 1, "L": 1, "Q": 2, "C": 3, "Z": 0}  # points of a command
# What an element takes from those around it. Opacity is not among these: it would count twice.
INHERITED = {"fill", "fill-opacity", "stroke", "stroke-dasharray", "stroke-dashoffset", "stroke-linecap",
             "stroke-linejoin", "stroke-miterlimit", "stroke-opacity", "stroke-width"}  # fmt: skip


def lightened(page: str) -> str:
    """A page, or a part of one, with all its drawings as above. Raises ValueError if a name would mean two things."""
    known: dict[str, str] = {}  # what a name stands for
    drawn: set[str] = set()  # names of shapes that a figure further up has
    drawings = [(found["root"], _inside(found["inside"], known, drawn)) for found in DRAWING.finditer(page)]
    times = Counter(style for _, inside in drawings for style in STYLED.findall(inside))
    classes = {style: _named(style, known) for style, count in times.items() if count > 1}
    rules = "".join(f".{name}{{{style}}}" for style, name in classes.items())
    sheet = f"<style>{rules}</style>" if rules else ""  # in the first drawing, for all
    light = []
    for root, inside in drawings:
        inside = STYLED.sub(lambda s: f' class="{classes[s[1]]}"' if s[1] in classes else s[0], inside)
        light.append(f"<svg{root}>{sheet}{inside}</svg>")
        sheet = ""
    left = iter(light)
    return DRAWING.sub(lambda _: next(left), page)


def taken_out(page: str, folder: str) -> tuple[str, dict[str, str]]:
    """A page whose drawings are images in `folder`, an address as seen from the page; and their files by name."""
    files = {}

    def image(found: re.Match) -> str:
        # A file stands alone: nothing around it says its color, and older readers know links only by their namespace.
        drawing = lightened(found[0]).replace("<use href=", "<use xlink:href=")
        given = dict(ATTRIBUTE.findall(found["root"]))
        words = given["aria-label"]
        sized = "".join(f' {key}="{given[key]}"' for key in ("width", "height", "style"))
        root = f'<svg xmlns="{SVG}" xmlns:xlink="{XLINK}" color="#000" ' + drawing.removeprefix("<svg ")
        name = hashlib.sha256(root.encode()).hexdigest()[:16] + ".svg"
        files[name] = root
        return f'<img class="minilab-drawing" src="{folder}{name}" alt="{words}"{sized} />'

    return DRAWING.sub(image, page), files


def _named(text: str, known: dict[str, str]) -> str:
    """A short name made from what it names."""
    number, name = int(hashlib.sha256(text.encode()).hexdigest(), 16), "q"
    for _ in range(5):
        number, digit = divmod(number, 36)
        name += "0123456789abcdefghijklmnopqrstuvwxyz"[digit]
    if known.setdefault(name, text) != text:
        raise ValueError(f"two things of a page would have the name {name!r}: {text[:80]} and {known[name][:80]}")
    return name


def _inside(drawing: str, known: dict[str, str], drawn: set[str]) -> str:
    """What stands in a drawing's root element."""
    names = {old: _named(old, known) for old in re.findall(r' id="([^"]+)"', drawing)}  # as they were -> as they are
    shapes = {}  # of letters and markers, by their id as it was: what they are
    for tag in (tag for defined in SHAPES.findall(drawing) for tag in re.findall(r"<path [^>]*>", defined)):
        given = dict(ATTRIBUTE.findall(tag))
        if old := given.pop("id", ""):
            shapes[old] = given
            names[old] = _named(repr(_shortened("path", given)), known)
    out: list[str] = []
    opened: list[tuple[str, str]] = []  # elements around: how each was opened, and its end
    ended = 0, ""  # where the last group ended, and how it was opened
    for token in TOKEN.findall(drawing):
        kind = re.match(r"<([\w:-]+)", token)
        if token.startswith("</"):
            begin, end = opened.pop()
            if end and out[-1] == begin and begin.startswith(("<g", "<defs")):
                out.pop()  # it was empty
            elif end:
                out.append(end)
                ended = len(out), begin
        elif not kind:
            out.append(token)
        elif token == "<g>":
            opened.append(("", ""))
        else:
            given = dict(ATTRIBUTE.findall(token))
            name = names.get(given.get("id", ""), "")
            if given.get("id") in shapes:
                if name in drawn:
                    continue
                drawn.add(name)
            text = _tag(kind[1], given, names, shapes) + ("/>" if token.endswith("/>") else ">")
            if not token.endswith("/>"):
                opened.append((text, f"</{kind[1]}>"))
                if ended == (len(out), text) and CLIPPED.fullmatch(text):
                    out.pop()  # the group goes on
                    continue
            out.append(text)
    return "".join(out)


def _tag(kind: str, given: dict[str, str], names: dict[str, str], shapes: dict[str, dict[str, str]]) -> str:
    """The beginning of an element, up to where it would be closed."""
    if target := given.pop("xlink:href", ""):
        target = target.removeprefix("#")
        given = {"href": f"#{names[target]}" if target in names else target} | given
        theirs = _declarations(shapes.get(target, {}).get("style", ""))
        own = _declarations(given.get("style", "")).items()
        # What the shape says itself goes before what it would inherit from here.
        given["style"] = ";".join(f"{key}:{value}" for key, value in own if key not in INHERITED or key not in theirs)
    if "id" in given:
        given["id"] = names[given["id"]]
    given = _shortened(kind, given)
    text = "".join(f' {key}="{value}"' for key, value in given.items())
    return f"<{kind}" + REFERENCE.sub(lambda found: f"url(#{names[found[1]]})", text)


def _declarations(style: str) -> dict[str, str]:
    pairs = (part.partition(":") for part in style.split(";") if part.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _shortened(kind: str, given: dict[str, str]) -> dict[str, str]:
    """An element's attributes with its path, its place and its style in fewer characters."""
    given = dict(given)
    if "d" in given:
        given["d"] = shorter_path(given["d"])
    if "style" in given:
        given["style"] = ";".join(f"{key}:{value}" for key, value in _declarations(given["style"]).items())
    if kind in ("use", "g"):
        given |= {key: rounded(given[key], 4) for key in ("x", "y") if key in given}
        turned = given.pop("transform", "")
        if kind == "use" and (place := PLACE.fullmatch(turned)) and "x" not in given:
            # A letter's place in its text is in hundredths of the size of the font.
            given |= {"x": rounded(place[1], 3), "y": rounded(place[2], 3)}
        elif turned:
            given["transform"] = PLACE.sub(lambda p: f"translate({rounded(p[1], 4)} {rounded(p[2], 4)})", turned)
        given = {key: value for key, value in given.items() if (key, value) not in (("x", "0"), ("y", "0"))}
    return {key: value for key, value in given.items() if key != "style" or value}


def rounded(number: str, decimals: int) -> str:
    """A number with so many decimals at most, in as few characters as there can be."""
    return _short(Decimal(f"{float(number):.{decimals}f}"))


def _short(number: Decimal) -> str:
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    text = re.sub(r"^(-?)0\.", r"\1.", text)
    return "0" if text in ("-0", "") else text


def shorter_path(path: str) -> str:
    """The same path in fewer characters, by steps where these are shorter. One with arcs or numbers in powers of ten
    is left."""
    written, letter, last = "", "", ""  # so far; the command that numbers alone would repeat; the last number
    here = start = (Decimal(0), Decimal(0))
    for command, numbers in COMMAND.findall(path):
        command, values = command.replace("z", "Z"), [Decimal(n) for n in re.findall(r"-?[\d.]+", numbers)]
        if len(values) != 2 * PAIRS.get(command, -1):
            return path
        points = list(zip(values[::2], values[1::2], strict=True))
        if command == "Z":
            written, letter, last, here = written + "z", "", "", start
            continue
        ways = []
        for way, numbers_of_way in _ways(command, points, here):
            text, end = ("", last) if way == letter else (way, "")
            for number in map(_short, numbers_of_way):
                apart = end and not number.startswith("-") and not (number.startswith(".") and "." in end)
                text, end = f"{text} {number}" if apart else text + number, number
            ways.append((len(text), text, way, end))
        _, text, letter, last = min(ways, key=lambda way: way[0])
        letter = {"M": "L", "m": "l"}.get(letter, letter)
        written, here = written + text, points[-1]
        start = here if command == "M" else start
    return written


def _ways(command: str, points: list[tuple[Decimal, Decimal]], here: tuple[Decimal, Decimal]
          ) -> Iterator[tuple[str, list[Decimal]]]:  # fmt: skip
    """The ways to write a command, each as its letter and its numbers: by steps from `here`, and by places."""
    steps = [(x - here[0], y - here[1]) for x, y in points]
    for letter, pairs in ((command.lower(), steps), (command, points)):
        if command == "L" and not steps[0][1]:
            yield "h" if letter == "l" else "H", [pairs[0][0]]
        elif command == "L" and not steps[0][0]:
            yield "v" if letter == "l" else "V", [pairs[0][1]]
        yield letter, [number for pair in pairs for number in pair]


def lighten(app, pagename, templatename, context, doctree) -> None:
    if app.builder.name == "html" and "body" in context:
        context["body"] = lightened(context["body"])


def setup(app):
    app.connect("html-page-context", lighten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
