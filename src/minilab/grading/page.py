"""The frame of the pages that grading writes: one file, no script, readable in light and in dark."""

import html

STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid; }
pre { overflow-x: auto; padding: .6rem; border: 1px solid; }
.beside { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; } .beside pre { min-width: 0; }
@media (max-width: 40rem) { .beside { grid-template-columns: 1fr; } }
summary { cursor: pointer; padding: .3rem 0; }
"""


def whole(title: str, parts: list[str]) -> str:
    """A page of HTML from parts that are HTML already; the title is text."""
    title = html.escape(title)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = "\n".join([f"<h1>{title}</h1>", *parts])
    return (f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n'
            f"<body><main>\n{body}\n</main></body></html>\n")
