"""The tables of the page "How this book was run", made from records/ at each build.

    ```{runs} dmpc
    ```

becomes the table of the runs of one subpackage. The words `summary`, `machines` and `software` in its place give
how much was run when, and what the tables' labels stand for.
"""

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from minilab.core.provenance import Runs, duration, load_runs

HEAD = ("minilab run …", "Seed", "Date", "Commit", "On", "With", "Took")


class RunsDirective(SphinxDirective):
    required_arguments = 1

    def run(self):
        what = self.arguments[0]
        folder = self.env.srcdir / "records"
        for path in sorted(folder.glob("*/*.json")):
            self.env.note_dependency(str(path))
        try:
            return [content(load_runs(folder), what)]
        except ValueError as error:
            raise self.error(f"runs: {error}") from None


def content(runs: Runs, what: str) -> nodes.Element:
    """What the directive is replaced by. Raises ValueError if `what` is neither a subpackage nor a known word."""
    if what == "summary":
        text = f"{len(runs.rows)} records, made from {runs.first} to {runs.last} (UTC) in {duration(runs.seconds)}"
        return nodes.paragraph("", f"{text} of machine time.")
    if what in ("machines", "software"):
        meaning = getattr(runs, what)
        head = {"machines": ("Machine", "Processor, threads, system, GPU"), "software": ("Software", "Versions")}[what]
        return table(head, [[nodes.Text(label), nodes.Text(text)] for label, text in meaning.items()])
    rows = []
    for run in runs.of(what):
        command = run.command.removeprefix("minilab run ").removesuffix(f" --seed {run.seed}")
        rest = (run.seed, run.date, run.commit, run.machine, run.software, run.took)
        rows.append([nodes.literal("", command), *map(nodes.Text, rest)])
    made = table(HEAD, rows)
    made["classes"].append("runs")
    return made


def table(head: tuple[str, ...], rows: list[list[nodes.Node]]) -> nodes.table:
    """A table of one-line cells with a row of headings."""
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    lines = [[nodes.Text(text) for text in head], *rows]
    made = [nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in line)) for line in lines]
    group += nodes.thead("", made[0])
    group += nodes.tbody("", *made[1:])
    return nodes.table("", group)


def setup(app):
    app.add_directive("runs", RunsDirective)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
