"""What every chapter offers a reader, and that the pages which tie the chapters together hold."""

import re
from collections import Counter
from functools import cache

import nbformat
import pytest
from checkout import ROOT, relative

FOLDER = ROOT / "chapters"
NUMBERED = sorted(FOLDER.glob("0[1-9]-*.ipynb"))
THREAD = FOLDER / "common-thread.ipynb"
CHAPTERS = [*NUMBERED, THREAD]
EACH = pytest.mark.parametrize("path", CHAPTERS, ids=relative)
LINK = re.compile(r"\[([^\]]+)\]\(([\w./-]+)(?:#([\w-]+))?\)")
STOP_WORDS = {"a", "and", "of", "the", "under"}


@cache
def text_of(path) -> str:
    """The Markdown of a page; a notebook's code stands between fences, so that no line of it is a heading."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(c.source if c.cell_type == "markdown" else f"```\n{c.source}\n```" for c in cells)


@cache
def sections(path) -> dict[str, str]:
    """The text below each heading by the anchor that the heading gets, down to the next heading of any level."""
    found, seen, anchor, fenced = {}, Counter(), None, False
    for line in text_of(path).splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(r"#{1,3} (.+)", line)
        if heading:
            slug = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            anchor = f"{slug}-{seen[slug]}" if seen[slug] else slug
            seen[slug] += 1
            found[anchor] = ""
        if anchor is not None:
            found[anchor] += line + "\n"
    return found


def section(path, *, named: str) -> str:
    """The section whose heading contains `named`, or nothing."""
    return next((text for text in sections(path).values() if named in text.partition("\n")[0]), "")


def links(text: str) -> list[tuple[str, str]]:
    """File and anchor of each link into chapters/."""
    return [(file, anchor) for _, file, anchor in LINK.findall(text) if "/" not in file]


@EACH
def test_a_chapter_says_what_it_gives_and_what_it_takes(path):
    opening = text_of(path).partition("```")[0]
    assert "**When you have read this chapter you can**" in opening
    assert re.search(r"\*\*Before:\*\* \S", opening), "no prerequisites"
    assert re.search(r"\*\*Time:\*\* .+ to read, .+ to run", opening), "no time to read and to run"


@EACH
def test_a_chapter_ends_in_literature(path):
    reading = section(path, named="Further reading")
    cited = {key for group in re.findall(r"\{cite(?::\w)?\}`([^`]+)`", reading) for key in group.split(",")}
    known = set(re.findall(r"^@\w+\{([^,]+),", (ROOT / "references.bib").read_text(encoding="utf-8"), re.MULTILINE))
    assert len(cited) >= 3
    assert cited <= known


@pytest.mark.parametrize("path", NUMBERED, ids=relative)
def test_a_chapter_sums_up_before_its_exercises(path):
    anchors = list(sections(path))
    assert "summary" in anchors
    assert anchors.index("summary") < anchors.index("exercises")
    points = re.findall(r"^- ", sections(path)["summary"], re.MULTILINE)
    assert 3 <= len(points) <= 7


def test_equations_have_numbers_and_labels_of_their_own():
    labels = []
    for path in CHAPTERS:
        displays = re.findall(r"^\$\$$.*?^\$\$([^\n]*)$", text_of(path), re.MULTILINE | re.DOTALL)
        mine = [match[1] for rest in displays if (match := re.fullmatch(r" \((eq-[\w-]+)\)", rest))]
        assert len(mine) >= (3 if path in NUMBERED else 1), relative(path)
        labels += mine
    assert len(set(labels)) == len(labels)
    used = set(re.findall(r"\{eq\}`([^`]+)`", "".join(map(text_of, FOLDER.glob("*.ipynb")))))
    assert used <= set(labels)


@pytest.mark.parametrize("path", NUMBERED, ids=relative)
def test_a_papers_numbers_are_marked_as_the_papers(path):
    """Where numbers stand side by side the head of the table says whose they are, or each row cites a paper."""
    lines = [line for line in section(path, named="beside ours").splitlines() if line.startswith("|")]
    assert lines
    head, _, *rows = lines
    assert "paper" in head or all("{cite}" in row or row.startswith("| the same") for row in rows)


@pytest.mark.parametrize("path", NUMBERED, ids=relative)
def test_a_chapter_and_the_common_thread_lead_to_each_other(path):
    assert {"notation.md", "glossary.md"} <= {file for file, _ in links(text_of(path))}
    there = [anchor for file, anchor in links(text_of(path)) if file == THREAD.name]
    if f"({path.name}) is new" in text_of(THREAD):  # as `minilab new-chapter` leaves it
        assert there == [""]
        return
    assert there and set(there) <= set(sections(THREAD))
    for anchor in there:  # the section that a chapter leads to leads back to a section of it
        back = [section for file, section in links(sections(THREAD)[anchor]) if file == path.name]
        assert back and set(back) <= set(sections(path)), anchor


@pytest.mark.parametrize("path", [*CHAPTERS, *FOLDER.glob("*.md")], ids=relative)
def test_links_lead_to_sections_that_exist(path):
    absent = [
        f"{file}#{anchor}"
        for file, anchor in links(text_of(path))
        if not (FOLDER / file).is_file() or (anchor and anchor not in sections(FOLDER / file))
    ]
    assert absent == []


def glossary() -> dict[str, str]:
    """The definition of each term, on one line."""
    body = re.search(r"^```\{glossary\}\n(.*?)^```", text_of(FOLDER / "glossary.md"), re.MULTILINE | re.DOTALL)[1]
    entries = [entry.splitlines() for entry in body.strip().split("\n\n")]
    return {term: " ".join(line.strip() for line in lines) for term, *lines in entries}


def stems(term: str) -> list[str]:
    """The beginnings of a term's words: "compounding error" is also there as "the errors compound"."""
    return [word[:5].lower() for word in re.findall(r"\w+", term) if word not in STOP_WORDS]


def test_the_glossary_is_sorted_and_of_a_size_to_read():
    terms = list(glossary())
    assert terms == sorted(terms, key=str.lower)
    assert 50 <= len(terms) <= 100


def test_each_entry_of_the_glossary_leads_to_where_its_term_is_used():
    orphans = []
    for term, definition in glossary().items():
        places = [(file, anchor) for file, anchor in links(definition) if file.endswith(".ipynb")]
        told = " ".join(sections(FOLDER / file)[anchor] for file, anchor in places).lower()
        orphans += [f"{term}: no {stem!r} there" for stem in stems(term) if stem not in told]
        if not places or not 1 <= len(re.findall(r"[.?](?= |$)", LINK.sub("", definition))) <= 4:
            orphans.append(f"{term}: a place and one to three sentences")
    assert orphans == []


def test_terms_that_entries_refer_to_are_entries():
    known = {term.lower() for term in glossary()}
    referred = re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", " ".join(glossary().values()))
    assert referred
    assert {term.strip().lower() for term in referred} <= known


def test_every_method_has_its_table_on_the_page_of_runs():
    tables = re.findall(r"^```\{runs\} (\w+)$", text_of(FOLDER / "runs.md"), re.MULTILINE)
    methods = {path.name for path in (ROOT / "records").iterdir() if path.is_dir()}
    assert set(tables) - {"summary", "machines", "software"} == methods
    assert len(set(tables)) == len(tables)


def test_the_page_of_use_lists_the_figures_that_a_kernel_draws():
    told = section(FOLDER / "how-to.md", named="controls")
    listed = re.findall(r"^\| (\d) \|.*\| `(live_\w+)` \|$", told, re.MULTILINE)
    called = [(path.name[1], name) for path in NUMBERED
              for cell in nbformat.read(path, as_version=4).cells
              if cell.cell_type == "code" and {"nbval-skip", "skip-execution"} <= set(cell.metadata.get("tags", ()))
              for name in re.findall(r"^(?:\w+\.)?(live_\w+)\(", cell.source, re.MULTILINE)]  # fmt: skip
    assert listed == called
    defined = {name for path in (ROOT / "src" / "minilab").rglob("*.py")
               for name in re.findall(r"^def (live_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)}  # fmt: skip
    assert {name for _, name in listed} == defined
