"""Mark-up becomes prose, code stays code, and what is neither goes."""

import pytest

from minilab.corpus.pages import html_blocks, pod_blocks
from minilab.corpus.prose import docstring_blocks, inline, rst_blocks


def lines(text):
    return "\n".join(line.removeprefix("        ") for line in text.strip("\n").split("\n"))


# ---- reStructuredText


def test_wrapped_lines_become_one_paragraph_under_markdown_headings():
    assert rst_blocks(
        lines("""
        Title
        =====

        The first sentence is wrapped
        over two lines.

        Part
        ----

        More.
        """)
    ) == ["# Title", "The first sentence is wrapped over two lines.", "## Part", "More."]


def test_overline_and_underline_are_levels_of_their_own():
    assert rst_blocks("====\nBook\n====\n\nChapter\n=======\n\nWords here.") == [
        "# Book",
        "## Chapter",
        "Words here.",
    ]


@pytest.mark.parametrize(
    "marked, plain",
    [
        (":func:`os.path.join` joins", "`os.path.join` joins"),
        (":func:`~os.path.join` joins", "`join` joins"),
        (":ref:`the guide <guide>` tells", "the guide tells"),
        ("``x * y`` is a product", "`x * y` is a product"),
        ("see `the site <https://example.org>`_ and `Notes`_", "see the site and Notes"),
        ("as shown [1]_ before", "as shown before"),
        (r"an escaped \* star", "an escaped * star"),
        ("*emphasis* stays", "*emphasis* stays"),
    ],
)
def test_inline_markup_goes_and_words_stay(marked, plain):
    assert inline(marked) == plain


def test_lists_keep_one_item_a_line():
    assert rst_blocks("* first item that\n  goes on\n* second item\n\n#. third item") == [
        "- first item that goes on\n- second item\n- third item"
    ]


def test_literal_blocks_become_indented_code_with_their_inner_indentation():
    assert rst_blocks("Call it like this::\n\n  for x in y:\n      print(x)\n\nAnd go on.") == [
        "Call it like this:",
        "    for x in y:\n        print(x)",
        "And go on.",
    ]


def test_doctests_are_code_even_right_after_prose():
    assert rst_blocks("Add the numbers:\n>>> 1 + number\nnumber") == [
        "Add the numbers:",
        "    >>> 1 + number\n    number",
    ]


def test_directives_notes_are_kept_and_images_tables_and_comments_are_not():
    assert rst_blocks(
        lines("""
        .. a comment
           over two lines

        .. image:: picture.png
           :alt: a picture

        .. note:: Mind the gap
           between the lines.

        .. code-block:: python
           :linenos:

           value = compute(first, second)

        .. function:: f(a, b)

           Returns the sum.

        +-----+-----+
        | one | two |
        +-----+-----+

        ===== =====
        three four
        ===== =====
        words words
        ===== =====

        The end.
        """)
    ) == [
        "Note: Mind the gap between the lines.",
        "    value = compute(first, second)",
        "f(a, b)",
        "Returns the sum.",
        "The end.",
    ]


@pytest.mark.parametrize(
    "rubbish",
    [
        "0x00 0x11 0x22 0x33 0x44 0x55 0x66",
        "Это предложение не на английском языке",
        "这是一个中文句子，不应该留下来",
        "Dump::\n\n    00 11 22 33 44 55 66 77 88 99 aa bb cc dd",
        "Picture::\n\n    +----+      +----+\n    | ab | ---> | cd |\n    +----+      +----+",
    ],
)
def test_dumps_pictures_and_other_scripts_are_dropped(rubbish):
    assert [b for b in rst_blocks(rubbish) if b not in ("Dump:", "Picture:")] == []


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "\n\n\n",
        "..",
        ".. ",
        "::",
        "====",
        "+--",
        "```\nnever closed",
        ".. note::",
        "Title\n===\n.. code-block::",
        "  \t ",
        "=====\nno end",
        ">>> ",
        ".. |x|",
        "- ",
        ":field:",
        "| ",
        "===== =====",
        "\x00\x01",
    ],
)
def test_broken_markup_never_raises(broken):
    assert isinstance(rst_blocks(broken), list)


# ---- docstrings, web pages, pod

DOC = "Return the sum of two numbers. " * 8


def test_docstrings_stand_under_their_qualified_names():
    source = f'class A:\n    def f(self):\n        """{DOC}"""\n    def _g(self):\n        """{DOC}"""\n'
    assert docstring_blocks(source, "pkg.mod") == ["# pkg.mod.A.f", DOC.strip()]


def test_short_docstrings_and_unparsable_source_give_nothing():
    assert (
        docstring_blocks('"""Short."""', "m")
        == docstring_blocks("print 'old'", "m")
        == docstring_blocks("\0", "m")
        == []
    )


def test_google_style_arguments_are_items():
    blocks = docstring_blocks(
        f'"""{DOC}\n\nArgs:\n    x (int): the first one\n    y (str): the other\n        one\n"""', "m"
    )
    assert blocks[-1].split("\n")[-2:] == ["- x (int): the first one", "- y (str): the other one"]


def test_page_keeps_text_and_drops_chrome():
    page = """<html><head><title>No</title></head><body><nav>Home Next Previous and more words</nav>
        <div class="wy-nav-content"><h1>1. Locks<a class="headerlink" href="#x">¶</a></h1>
        <p>A <code>Lock</code> is held by
        one thread at a time.</p><ul><li>It can be acquired twice.</li></ul>
        <pre>lock.acquire()
  lock.release()</pre><table><tr><td>a cell with some words in it</td></tr></table>
        <div class="sphinxsidebar"><p>This sidebar has quite a few words.</p></div></div>
        <script>var words = "these are not prose at all";</script></body></html>"""
    assert html_blocks(page) == [
        "# Locks",
        "A `Lock` is held by one thread at a time.",
        "- It can be acquired twice.",
        "    lock.acquire()\n      lock.release()",
    ]


def test_page_with_unclosed_and_stray_tags_still_reads():
    assert html_blocks(
        "<p>One paragraph has no end<p>The other has<br>a break in it"
        "</div></b></table><p>And the last one is here"
    ) == ["One paragraph has no end", "And the last one is here"]


def test_pod_loses_its_codes():
    assert pod_blocks(
        "=head1 NAME\n\nThe function C<print> sends I<text> to L<perlio/Layers>.\n\n  print $text;\n\n"
        "=begin html\n\nThis is not shown here.\n\n=end html\n\n=cut\n\nsub code { }"
    ) == ["# NAME", "The function `print` sends text to perlio/Layers.", "    print $text;"]
