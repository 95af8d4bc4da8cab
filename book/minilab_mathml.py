"""Mathematics as MathML, for pages on which no script runs: a second renderer beside MathJax.

docutils brings a converter from TeX. What it reads otherwise than TeX does, or not at all, is written out for it first.
A formula that it cannot convert stops the build and is named.
"""

import re

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.errors import ExtensionError
from sphinx.util.math import get_node_equation_number

# TeX takes one digit as an argument (\frac12 is a half), docutils the whole number.
FIRST_DIGIT = re.compile(r"(\\frac|\\sqrt)\s*(\d)")
SECOND_DIGIT = re.compile(r"(\\frac\{[^{}]*\})\s*(\d)")
INSTEAD = {
    r"\\big(?=[^a-z])": r"\\bigl",
    r"\\dots\s*(?=[+=-]|\\le)": r"\\cdots ",
    r"\\dots(?![a-z])": r"\\ldots",
    "'": r"^\\prime ",
    # docutils would set an accented letter's index below the letter: something empty beside it keeps them apart.
    r"\\(hat|bar|tilde)\s*(\\[A-Za-z]+|[A-Za-z])": r"{\\\1{\2}{}}",
    # MathML 3 has no size of a single fraction.
    r"\\textstyle(?![a-z])\s*": "",
    r"\\[dt]frac(?![a-z])": r"\\frac",
    # docutils does not know the operator whose limits stand below it.
    r"\\operatorname\*\{arg\\,(max|min)\}_\{((?:[^{}]|\{[^{}]*\})*)\}": r"\\underset{\2}{\\operatorname{arg\1}}",
}
# What docutils writes otherwise than readers of MathML expect: names of HTML, a low line above, rows in small type.
AFTER = {
    "&ApplyFunction;": "\u2061",
    "&nbsp;": "\u00a0",
    ">_</mo>": ">\u203e</mo>",
    '<mtable class="ams-align">': '<mtable class="ams-align" displaystyle="true">',
}


def mathml(tex: str, *, block: bool = False) -> str:
    """TeX as one <math> element. Raises ValueError with the formula if it cannot be converted."""
    plain = tex.strip()
    for old, new in INSTEAD.items():
        plain = re.sub(old, new, plain)
    for digit in (FIRST_DIGIT, SECOND_DIGIT):
        plain = digit.sub(r"\1{\2}", plain)
    try:
        made = latex2mathml.tex2mathml(plain, as_block=block)
    except MathError as error:
        raise ValueError(f"no MathML for {tex!r}: {error}") from None
    for old, new in AFTER.items():
        made = made.replace(old, new)
    return made


def converted(node: nodes.Element, *, block: bool = False) -> str:
    try:
        return mathml(node.astext(), block=block)
    except ValueError as error:
        raise ExtensionError(f"{error} (near line {node.line} of {node.source})") from None


def visit_inline(translator, node):
    translator.body.append(converted(node))
    raise nodes.SkipNode


def visit_block(translator, node):
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})</span>')
    translator.body.append(converted(node, block=True) + "</div>\n")
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
