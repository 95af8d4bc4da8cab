"""What minilab changes in Jupyter Book's pages: nothing from outside, light to load, usable by everyone.

- No page asks another host for anything: Thebe's loader goes, MathJax comes from book/vendor.
- The icons come from a font cut down to those in use, instead of a script that carries all 2,000.
- Three faults that axe-core finds in the default pages are mended where they are made.
- A lab's page says that it is the instructor's version.
- `launch` writes Colab, Binder and download links from the one repository address in _config.yml.
"""

import logging
import re
import shutil
from html import escape
from pathlib import Path

import tinycss2
from docutils import nodes
from fontTools import subset
from fontTools.ttLib import TTFont
from minilab_epub import listed_titles
from minilab_quick import quicken
from sphinx.util.docutils import SphinxDirective

CLASS = re.compile(r"\.(-?[A-Za-z_][\w-]*)")
BRACKETS = re.compile(r"\([^()]*\)")
COMPOSED = ("bs-tooltip-", "bs-popover-", "language-", "highlight-")  # names that scripts put together
PLAIN = re.compile(r'<span class="[npw]">([^<]*)</span>')  # a name, punctuation or space in highlighted code
GLYPH = re.compile(r'"([^"\\])"')  # an icon is a string of one character
WEBFONT = re.compile(
    r'url\(([^)]*/fa-[\w-]+)\.woff2\) format\("woff2"\),\s*url\([^)]*\) format\("truetype"\)'
)
UNUSED = (
    "scripts/fontawesome.js",
    "sphinx-thebe.js",
    "sphinx-thebe.css",
    "webpack-macros.html",
    "sbt-webpack-macros.html",
)
TOOLTIP = 'data-bs-toggle="tooltip"'
TOOLTIP_INSIDE = f'data-bs-container="#main-content" {TOOLTIP}'  # or it would lie outside of all landmarks
REDIRECT = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><meta http-equiv="refresh" content="0; url={url}">
<link rel="icon" href="data:,"></head>
<body><main><h1>{title}</h1><p><a href="{url}">Open the book</a></p></main></body>
</html>
"""


class Launch(SphinxDirective):
    """```{launch} labs/01-name.ipynb``` becomes one line of links: Colab, Binder, source."""

    required_arguments = 1

    def run(self):
        path = self.arguments[0]
        source = Path(self.env.app.srcdir) / path
        if not source.is_file():
            raise self.error(f"launch: there is no {path} in the repository")
        paragraph = nodes.paragraph(classes=["launch"])
        for i, (label, url) in enumerate(launch_links(self.config, path)):
            if i:
                paragraph += nodes.Text(" · ")
            paragraph += nodes.reference("", label, refuri=url)
        return [paragraph]


def launch_links(config, path: str) -> list[tuple[str, str]]:
    """Where a notebook of the repository can be opened, from the address in _config.yml."""
    options = config.html_theme_options
    repository, branch = options["repository_url"].rstrip("/"), options["repository_branch"]
    name = repository.removeprefix("https://github.com/")
    launch = options["launch_buttons"]
    return [
        ("Open in Colab", f"{launch['colab_url']}/github/{name}/blob/{branch}/{path}"),
        ("Open in Binder", f"{launch['binderhub_url']}/v2/gh/{name}/{branch}?urlpath=lab/tree/{path}"),
        ("Source on GitHub", f"{repository}/blob/{branch}/{path}"),
    ]


def mark_lab(app, doctree, docname):
    """A lab's page is its instructor notebook: say so below the title, and where the student's version is."""
    if not docname.startswith("labs/"):
        return
    title = next(iter(doctree.findall(nodes.title)))
    command = nodes.literal("", f"minilab assign {docname}.ipynb")
    text = (
        "This is the instructor's version: it shows the solutions and all tests. "
        "To work on the lab yourself, make the student's version first: "
    )
    title.parent.insert(1, nodes.note("", nodes.paragraph("", "", nodes.Text(text), command, nodes.Text("."))))


def one_search_button(app, config):
    """The search button is in the sidebar; the theme would add a bar above each page for a second one."""
    config.html_theme_options["navbar_persistent"] = []


def name_neighbors(app, pagename, templatename, context, doctree):
    """The links to the previous and the next page call them what the sidebar does."""
    listed = listed_titles(app.env)
    _, before, after = app.builder.relations.get(pagename, (None, None, None))
    for place, page in (("prev", before), ("next", after)):
        if page in listed:
            context[f"{place}_title"] = escape(listed[page])


def drop_thebe(app):
    """Jupyter Book loads sphinx-thebe for every book; its code would come from a content network."""
    for listeners in app.events.listeners.values():
        listeners[:] = [
            entry for entry in listeners if not entry.handler.__module__.startswith("sphinx_thebe")
        ]
    app.registry.css_files[:] = [entry for entry in app.registry.css_files if "thebe" not in entry[0]]


def visit_citation(translator, node):
    # docutils writes role="doc-biblioentry" inside role="list", which accepts only list items.
    if not isinstance(node.previous_sibling(), nodes.citation):
        translator.body.append('<div role="list" class="citation-list">\n')
    translator.body.append(translator.starttag(node, "div", classes=["citation"], role="listitem"))


def depart_citation(translator, node):
    translator.body.append("</div>\n")
    if not isinstance(node.next_node(descend=False, siblings=True), nodes.citation):
        translator.body.append("</div>\n")


def finish(app, error):
    """After the HTML is written: a front door, icons cut to size, and no files that no page asks for."""
    if error or app.builder.name != "html":
        return
    out, static = Path(app.outdir), Path(app.outdir) / "_static"
    front = app.config.root_doc + ".html"
    if front != "index.html":
        (out / "index.html").write_text(
            REDIRECT.format(title=escape(app.config.html_title), url=front), encoding="utf-8"
        )
    shutil.rmtree(static / "locales", ignore_errors=True)
    for unused in [*UNUSED, *(p.relative_to(static) for p in static.rglob("*.map"))]:
        (static / unused).unlink(missing_ok=True)
    for page in out.rglob("*.html"):
        text = unwrap_plain_code(page.read_text(encoding="utf-8")).replace(TOOLTIP, TOOLTIP_INSIDE)
        page.write_text(text, encoding="utf-8")
    sources = [*out.rglob("*.html"), *(p for p in static.rglob("*.js"))]
    words = set(re.findall(r"[\w-]+", " ".join(p.read_text(encoding="utf-8") for p in sources)))
    for sheet in static.rglob("*.css"):
        sheet.write_text(cut_css(sheet.read_text(encoding="utf-8"), words), encoding="utf-8")
    cut_fonts(static)
    quicken(out)


def unwrap_plain_code(page: str) -> str:
    """The page without marks on code that our two styles draw in the color of all code: half of a lab's code."""
    return PLAIN.sub(r"\1", page)


def cut_css(text: str, words: set[str]) -> str:
    """A style sheet without the rules whose every selector needs a class that no page or script mentions."""

    def needed(prelude: str) -> bool:
        while "(" in prelude and prelude != (shorter := BRACKETS.sub("", prelude)):
            prelude = shorter  # what stands in :not(…), :is(…) is no condition on its own
        return any(
            all(name in words or name.startswith(COMPOSED) for name in CLASS.findall(selector))
            for selector in prelude.split(",")
        )

    def cut(rules) -> str:
        out = []
        for rule in rules:
            if rule.type == "qualified-rule":
                prelude = tinycss2.serialize(rule.prelude)
                if needed(prelude):
                    out.append(f"{prelude}{{{tinycss2.serialize(rule.content)}}}")
            elif rule.type == "at-rule" and rule.lower_at_keyword in ("media", "supports") and rule.content:
                inner = cut(tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True))
                if inner:
                    out.append(f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{inner}}}")
            else:
                out.append(rule.serialize())
        return "\n".join(out)

    return cut(tinycss2.parse_stylesheet(text, skip_comments=True, skip_whitespace=True))


def cut_fonts(static: Path):
    """The icon fonts with the glyphs that the (already cut) style sheets draw, as WOFF."""
    sheet = static / "styles" / "pydata-sphinx-theme.css"
    text = "".join(p.read_text(encoding="utf-8") for p in static.rglob("*.css"))
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it reports each table that it cuts
    glyphs = {ord(character) for character in GLYPH.findall(text)}
    # fontTools writes WOFF with the standard library; WOFF2 would need another package.
    css = WEBFONT.sub(r'url(\1.woff) format("woff")', sheet.read_text(encoding="utf-8"))
    sheet.write_text(css, encoding="utf-8")
    for file in (static / "vendor" / "fontawesome" / "webfonts").glob("*.ttf"):
        font = TTFont(file)
        cutter = subset.Subsetter(subset.Options(layout_features=[], name_IDs=[], notdef_outline=True))
        cutter.populate(unicodes=glyphs)
        cutter.subset(font)
        font.flavor = "woff"
        font.save(file.with_suffix(".woff"))
        file.unlink()
        file.with_suffix(".woff2").unlink()


def setup(app):
    app.add_directive("launch", Launch)
    app.setup_extension("minilab_runs")  # beside this file
    app.setup_extension("minilab_api")
    app.setup_extension("minilab_epub")
    app.setup_extension("minilab_quiz")
    app.setup_extension("minilab_previews")
    app.setup_extension("minilab_quick")
    app.setup_extension("minilab_drawings")
    app.setup_extension("minilab_llms")
    app.add_node(nodes.citation, html=(visit_citation, depart_citation), override=True)
    app.connect("config-inited", one_search_button)
    app.connect("doctree-resolved", mark_lab)
    app.connect("html-page-context", name_neighbors)
    drop_thebe(app)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
