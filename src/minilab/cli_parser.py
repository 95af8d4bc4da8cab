"""The words of the command line: what each command takes, with its defaults and one line of help."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from minilab import __version__


def build(commands: Mapping[str, Callable[[argparse.Namespace], int | None]]) -> argparse.ArgumentParser:
    """The parser of `minilab`; what it returns has the function of its command as `command`."""
    parser = argparse.ArgumentParser(
        prog="minilab", description="Run the experiments of the book and look at records."
    )
    parser.add_argument("--version", action="version", version=f"minilab {__version__}")
    parser.add_argument("--traceback", action="store_true", help="on an error, show the whole traceback")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        command = subparsers.add_parser(name, help=summary, description=summary)
        command.set_defaults(command=commands[name])
        return command

    def tolerances(command: argparse.ArgumentParser) -> None:
        command.add_argument("--rtol", type=float, default=1e-3, metavar="X",
                             help="numbers may differ by so much of the larger one (default 0.001)")
        command.add_argument("--atol", type=float, default=1e-9, metavar="X", help="or by so much (default 1e-9)")
        command.add_argument("--times", default="", metavar="REGEX",
                             help="parts of keys that are times too, so are not judged")

    add("list", "List the experiments, their presets, and which records exist.")

    run = add("run", "Run an experiment, or all of a preset, and save the record.")
    run.add_argument("experiment", nargs="?", metavar="METHOD/EXPERIMENT")
    run.add_argument("--all", action="store_true", help="every experiment that has the preset, into build/records")
    run.add_argument("--preset", default="cpu", help="cpu (the default) or gpu")
    run.add_argument("--device", help="auto, cpu, mps, cuda or cuda:N, instead of the preset's")
    run.add_argument("--seed", type=int, help="a seed instead of the preset's")
    run.add_argument(
        "--pair",
        metavar="TARGET+DRAFT",
        help="models instead of the preset's: two Hugging Face names or folders, or shipped, or smollm2",
    )
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="any other field of the preset, such as prompts=8; may be repeated",
    )
    run.add_argument("--records", type=Path, metavar="DIR", help="where to save, instead of records/")
    run.add_argument("--dry-run", action="store_true", help="only say which trainings are missing and what they cost")
    run.add_argument("--again", action="store_true", help="with --all: make also those whose records are there")
    run.add_argument("--assets", action="store_true", help="with --all: also those that write what ships in assets/")
    run.add_argument(
        "--compare", action="store_true", help="compare with the kept record, which stays; exit code 3 if it drifted"
    )
    tolerances(run)

    show = add("show", "Print a record: its results and where they come from.")
    show.add_argument("experiment", metavar="METHOD/EXPERIMENT")
    show.add_argument("--preset", default="cpu", help="cpu (the default) or gpu")
    show.add_argument("--records", type=Path, metavar="DIR", help="where to look, instead of records/")

    diff = add("diff", "Compare two records, or two folders of records, within a tolerance.")
    diff.add_argument("kept", type=Path, help="a record, or a folder such as records")
    diff.add_argument("fresh", type=Path, help="a record, or a folder such as build/records")
    tolerances(diff)

    add("doctor", "Report versions, devices, what is missing and how to get it.")

    fetch = add("fetch", "Download a pre-trained model into the cache and verify it.")
    fetch.add_argument("model", choices=["smollm2"])

    assign = add("assign", "Make what students, instructors and graders get from instructor notebooks.")
    assign.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    assign.add_argument(
        "-o", "--out", type=Path, default=Path("build/labs"), metavar="DIR", help="default: build/labs"
    )

    grade = add("grade", "Grade a folder of submissions into a table, a page of feedback each, and what is alike.")
    grade.add_argument("submissions", type=Path)
    grade.add_argument(
        "--autograder", type=Path, required=True, metavar="ZIP", help="made by `minilab assign`"
    )
    grade.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    grade.add_argument("--jobs", type=int, default=1, metavar="N", help="submissions at a time (default 1)")
    grade.add_argument(
        "--timeout", type=float, default=600, metavar="S", help="seconds for one (default 600)"
    )
    grade.add_argument(
        "--no-walls", action="store_true", help="without namespaces: in a container that holds nothing else"
    )

    new = add("new-chapter", "Make the skeleton of a chapter: subpackage, record, notebooks, tests. Needs a clone.")
    new.add_argument("name", help="of the subpackage and the chapter, such as quantization")
    new.add_argument("--title", required=True, help="of the chapter")
    new.add_argument("--root", type=Path, metavar="DIR", help="the clone, if not the one that minilab runs from")
    return parser
