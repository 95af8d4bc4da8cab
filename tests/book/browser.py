"""Opens pages of the built book in a headless Chromium and says what is wrong with them.

The network is closed: requests go to a local file server or are recorded as faults. Run as a script, this
file prints the Chromium that it would use, and exits with 1 when there is none.
"""

import functools
import http.server
import os
import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "_build" / "html"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Nothing may leave the machine, and a container has neither a GPU nor a sandbox nor a large /dev/shm.
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# The rule about visible labels is off by default in axe-core. Without `preload: false`, axe asks the server
# for style sheets again, some under wrong addresses.
AXE_OPTIONS = (
    "{resultTypes: ['violations'], preload: false, rules: {'label-content-name-mismatch': {enabled: true}}}"
)
# All formulas and all figures, not only those near the window.
TYPESET = """async () => {
  await window.minilabFigures?.();
  if (!window.minilabMath) return;
  await window.minilabMath();
  await MathJax.startup.document.lazyTypesetAll();
}"""
WIDTHS = (390, 1440)
THEMES = ("light", "dark")

FIND_MISSING_ALT = """() => {
  const named = e =>
    e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.querySelector('title');
  const decorative = e => e.closest('[aria-hidden="true"], [role="presentation"], [role="none"]');
  const faults = [];
  for (const e of document.querySelectorAll('img'))
    if (!(e.getAttribute('alt') || '').trim() && !decorative(e))
      faults.push('img ' + e.getAttribute('src').slice(0, 80));
  for (const e of document.querySelectorAll('svg[role="img"], article svg'))
    if (!decorative(e) && !e.closest('mjx-container, button, summary, a') && !e.parentElement.closest('svg'))
      if (e.getAttribute('role') !== 'img' || !named(e)) faults.push('svg ' + e.outerHTML.slice(0, 80));
  return faults;
}"""
FIND_BROKEN_IMAGES = """() => [...document.images]
  .filter(e => e.complete && e.naturalWidth === 0).map(e => e.src.slice(0, 80))"""
FIND_RAW_MATH = r"""() => {
  const faults = [...document.querySelectorAll('.math')]
    .filter(e => !e.querySelector('mjx-container')).map(e => 'not typeset: ' + e.textContent.slice(0, 60));
  for (const e of document.querySelectorAll('mjx-merror, [data-mjx-error]'))
    faults.push('MathJax error: ' + (e.getAttribute('data-mjx-error') || e.textContent).slice(0, 60));
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest('pre, code, script, style, textarea, mjx-container, .math')) continue;
    if (/\$\$|\\\(|\\\[|\\begin\{/.test(node.data))
      faults.push('raw mathematics: ' + node.data.trim().slice(0, 60));
  }
  return faults;
}"""
FIND_OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  const faults = [];
  if (document.documentElement.scrollWidth > width)
    faults.push('the page is ' + document.documentElement.scrollWidth + ' px wide on a screen of ' + width);
  for (const e of document.querySelectorAll('article *')) {
    const box = e.getBoundingClientRect();
    if (box.right <= width + 1 || box.width <= 1) continue;
    if (e.closest('mjx-assistive-mml, .visually-hidden, .sr-only')) continue;
    let parent = e.parentElement, scrolls = false;
    for (; parent && parent !== document.body; parent = parent.parentElement)
      if (['auto', 'scroll'].includes(getComputedStyle(parent).overflowX)
          && parent.getBoundingClientRect().right <= width + 1) scrolls = true;
    if (!scrolls && !e.closest('svg svg, svg *')) faults.push(e.outerHTML.slice(0, 80));
  }
  return faults.slice(0, 5);
}"""
FIGURE_BYTES = """() => [...document.querySelectorAll('article figure, article .output')]
  .filter(e => !e.parentElement.closest('figure, .output'))
  .reduce((sum, e) => sum + new Blob([e.outerHTML]).size, 0)"""


def find_chromium() -> str:
    """The system's Chromium (or $CHROMIUM), else the one that Playwright has installed."""
    given = os.environ.get("CHROMIUM")
    if given:
        if not shutil.which(given):
            raise LookupError(f"CHROMIUM={given} is not a program")
        return given
    for name in CHROMIUM_NAMES:
        if path := shutil.which(name):
            return path
    with sync_playwright() as playwright:
        if Path(playwright.chromium.executable_path).exists():
            return playwright.chromium.executable_path
    raise LookupError("no Chromium on this machine: `make test` installs it or says how to")


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def serve(folder: Path):
    """Serve `folder` on a free port of this machine; yields its address, which ends in a slash."""
    handler = functools.partial(_QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def open_browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """One page, opened once at one width in one theme."""

    faults: list[str] = field(default_factory=list)
    bytes_loaded: int = 0
    bytes_of_figures: int = 0


def themed(browser, theme: str, **options):
    """A browser context for a reader whose system and whose choice are both light or both dark."""
    context = browser.new_context(color_scheme=theme, **options)
    context.add_init_script(f"localStorage.setItem('mode', '{theme}'); localStorage.theme = '{theme}'")
    return context


def visit(browser, site: str, path: str, *, width: int, theme: str, screenshot: Path | None = None) -> Visit:
    """Open a page of `site` and collect its faults, each as one line that begins with its kind."""
    seen = Visit()
    sizes: dict[str, int] = {}
    context = themed(browser, theme, viewport={"width": width, "height": 900}, reduced_motion="reduce")

    def gate(route):
        url = route.request.url
        if url.startswith((site, "data:", "blob:")):
            return route.continue_()
        seen.faults.append(f"external request: {url[:120]}")
        return route.abort()

    def arrived(response):
        if response.status >= 400:
            seen.faults.append(f"failed request: {response.status} {response.url[:120]}")
        elif response.url.startswith(site):
            sizes[urldefrag(response.url)[0]] = int(response.headers.get("content-length", 0))

    def said(message):
        if message.type in ("error", "warning"):
            where = message.location.get("url", "")
            seen.faults.append(f"console {message.type}: {message.text[:200]} {where[:120]}")

    def failed(request):
        if request.url.startswith(site):
            seen.faults.append(f"failed request: {request.failure} {request.url[:120]}")

    context.route("**/*", gate)
    page = context.new_page()
    page.on("console", said)
    page.on("pageerror", lambda error: seen.faults.append(f"console error: {str(error)[:200]}"))
    page.on("requestfailed", failed)
    responses = []
    page.on("response", lambda response: responses.append(response))

    page.goto(site + path, wait_until="networkidle")
    page.evaluate(TYPESET)
    page.evaluate("document.fonts.ready.then(() => true)")
    for response in responses:
        arrived(response)
    if screenshot is not None:
        screenshot.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=screenshot, full_page=True)

    for kind, script in (
        ("missing alternative text", FIND_MISSING_ALT),
        ("missing image", FIND_BROKEN_IMAGES),
        ("mathematics", FIND_RAW_MATH),
        ("overflow", FIND_OVERFLOW),
    ):
        seen.faults += [f"{kind}: {fault}" for fault in page.evaluate(script)]
    seen.faults += axe_violations(page)
    image_bytes = sum(size for url, size in sizes.items() if "/_images/" in url)
    seen.bytes_of_figures = page.evaluate(FIGURE_BYTES) + image_bytes
    seen.bytes_loaded = sum(sizes.values())
    context.close()
    return seen


def axe_violations(page) -> list[str]:
    """Violations of any impact that axe-core finds on an open page."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate(f"axe.run(document, {AXE_OPTIONS}).then(r => r.violations)")
    return [
        f"axe {violation['impact']}: {violation['id']} at {node['target'][0]}"
        for violation in found
        for node in violation["nodes"][:3]
    ]


@functools.cache
def _parsed(file: Path) -> tuple[tuple[str, ...], frozenset[str]]:
    """The targets that a page points at (links and sources), and the anchors that it has."""
    soup = BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")
    links = tuple(
        tag[attribute] for attribute in ("href", "src") for tag in soup.find_all(attrs={attribute: True})
    )
    anchors = {tag["id"] for tag in soup.find_all(id=True)}
    return links, frozenset(anchors)


def broken_links(book: Path, path: str) -> list[str]:
    """Links of a page to files or anchors of the book that do not exist."""
    faults = []
    for link in _parsed(book / path)[0]:
        if urlsplit(link).scheme or link.startswith("//") or link in ("", "#"):
            continue  # another site, data, or a button
        target, anchor = urldefrag(urljoin("/" + path, link))
        file = book / unquote(urlsplit(target).path).lstrip("/")
        if file.is_dir():
            file = file / "index.html"
        if not file.is_file():
            faults.append(f"broken link: {link}")
        elif anchor and file.suffix == ".html" and unquote(anchor) not in _parsed(file)[1]:
            faults.append(f"broken link: {link} (no such anchor)")
    return sorted(set(faults))


if __name__ == "__main__":
    try:
        print(find_chromium())
    except LookupError as error:
        raise SystemExit(str(error)) from None
