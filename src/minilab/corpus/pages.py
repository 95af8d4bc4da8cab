"""Plain text from web pages and Perl's pod, in the same form that `prose.rst_blocks` gives.

For documentation packages that carry no reStructuredText. Headings, paragraphs, list items and code stay;
navigation, tables, scripts and pictures go.
"""

import re
import unicodedata
from html.parser import HTMLParser

from minilab.corpus.prose import ITEM, QUOTES, code_block, is_prose

HEADINGS = {f"h{level}" for level in range(1, 7)}
BLOCKS = HEADINGS | {
    "p",
    "li",
    "dd",
    "dt",
    "div",
    "section",
    "article",
    "blockquote",
    "ul",
    "ol",
    "dl",
    "br",
    "hr",
    "body",
    "main",
    "pre",
    "center",
}
HIDDEN = {
    "script",
    "style",
    "nav",
    "header",
    "footer",
    "aside",
    "table",
    "head",
    "form",
    "button",
    "svg",
    "math",
    "figure",
    "sup",
    "select",
    "noscript",
    "textarea",
}
VOID = {
    "br",
    "hr",
    "img",
    "input",
    "link",
    "meta",
    "area",
    "base",
    "col",
    "embed",
    "source",
    "track",
    "wbr",
    "param",
}
CHROME = re.compile(
    r"sidebar|related|navheader|navfooter|\btoc\b|headerlink|\bmenu|breadcrumb|global-nav|\bnav\b|"
    r"footnotes?\b|indexterm|\bhd\b|\bft\b|fancy_title|apidocs|toplang|page-header|linenos|src\b|"
    r"copyright|footer|quickview|self-link",
    re.IGNORECASE,
)
KEPT = re.compile(r"content|body", re.IGNORECASE)  # wrappers such as "wy-nav-content" hold the text itself


def tidy(text: str) -> str:
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text).translate(QUOTES)).strip()


class PageReader(HTMLParser):
    """Collects `blocks` while it reads; `hidden` is the stack depth at which a dropped element began."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = []
        self.buffer: list[str] = []
        self.stack: list[str] = []
        self.hidden: int | None = None
        self.kind = "p"

    def handle_starttag(self, tag, attrs):
        if tag in BLOCKS:
            self.flush()
            self.kind = (
                tag if tag in HEADINGS | {"li", "dd", "dt", "pre"} else "p" if tag != "div" else self.kind
            )
        if tag in VOID:
            return
        self.stack.append(tag)
        shown = dict(attrs)
        marks = f"{shown.get('class') or ''} {shown.get('id') or ''} {shown.get('role') or ''}"
        chrome = (
            tag not in ("body", "html", "main", "article") and CHROME.search(marks) and not KEPT.search(marks)
        )
        if self.hidden is None and (tag in HIDDEN or chrome):
            self.hidden = len(self.stack)
        if tag in ("code", "tt", "samp", "kbd") and not {"pre", *HEADINGS} & set(self.stack):
            self.buffer.append("\0")

    def handle_endtag(self, tag):
        if tag in VOID or tag not in self.stack:
            return
        if tag in ("code", "tt", "samp", "kbd") and not {"pre", *HEADINGS} & set(self.stack):
            self.buffer.append("\0")
        if tag in BLOCKS:
            self.flush()
            self.kind = "p"
        while self.stack.pop() != tag:
            pass
        if self.hidden is not None and len(self.stack) < self.hidden:
            self.hidden = None

    def handle_data(self, data):
        if self.hidden is None and self.stack:
            self.buffer.append(data)

    def flush(self) -> None:
        text, self.buffer = "".join(self.buffer), []
        if self.kind == "pre" and "pre" in self.stack:
            block = code_block(text.replace("\0", "").translate(QUOTES).split("\n"))
            self.blocks += [block] if block else []
            return
        text = re.sub("\0\\s*\0", "", text)
        text = tidy(re.sub("\0\\s*(.*?)\\s*\0", r"`\1`", text).replace("\0", "")).rstrip("\u00b6\u00a7 ")
        if self.kind in HEADINGS and 1 < len(text) < 200:
            self.blocks.append("#" * min(int(self.kind[1]), 4) + " " + re.sub(r"^[\d.]+\s+", "", text))
        elif self.kind == "li" and is_prose(text) and text.count(" ") > 2:
            self.item("- " + text)
        elif is_prose(text) and (text.count(" ") > 3 or self.kind == "dt"):
            self.blocks.append(text)

    def item(self, text: str) -> None:
        if self.blocks and self.blocks[-1].startswith("- "):
            self.blocks[-1] += "\n" + text
        else:
            self.blocks.append(text)


def html_blocks(source: str) -> list[str]:
    """Headings, paragraphs, lists and code blocks of a web page, as plain text."""
    reader = PageReader()
    reader.feed(source)
    reader.close()
    reader.flush()  # a last paragraph that nothing closed
    return reader.blocks


def pod_inline(text: str) -> str:
    """Take pod's formatting codes out of a paragraph."""

    def code(match):
        letter, inner = match[1], match[2].strip()
        if letter in "XZ":
            return ""
        if letter == "L":
            return inner.split("|")[0].lstrip("/")
        if letter == "E":
            return {"lt": "<", "gt": ">", "verbar": "|", "sol": "/"}.get(inner, "")
        return f"`{inner}`" if letter in "CF" else inner

    for _ in range(3):  # codes nest
        text = re.sub(r"\b([BCEFILSXZ])<<+ (.*?) >>+", code, text, flags=re.S)
        text = re.sub(r"\b([BCEFILSXZ])<([^<>]*)>", code, text)
    return tidy(text)


def pod_blocks(source: str) -> list[str]:
    """Headings, paragraphs and verbatim blocks of a pod page, as plain text."""
    blocks: list[str] = []
    shown = False
    for part in re.split(r"\n\s*\n", source):
        if part.startswith("="):
            command, _, rest = part.partition(" ")
            shown = command not in ("=begin", "=cut", "=for", "=encoding") or command == "=encoding"
            text = pod_inline(re.sub(ITEM, "", rest.strip()))
            if command.startswith("=head") and text:
                blocks.append("#" * int(command[5]) + " " + text)
            elif command == "=item" and len(text) > 1:
                blocks.append(text)
        elif shown and part[:1] in (" ", "\t"):
            block = code_block(part.split("\n"))
            blocks += [block] if block else []
        elif shown and is_prose(pod_inline(part)):
            blocks.append(pod_inline(part))
    return blocks
