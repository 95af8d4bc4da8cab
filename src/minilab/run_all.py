"""Every experiment of a preset, one after the other: what `minilab run --all` does.

Each runs in a process of its own, so that its record is the one that it makes when it runs alone, whatever ran
before it, and so that one that is killed costs only its own record.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minilab.core.records import Record, config_of

PROGRAM = (sys.executable, "-m", "minilab.cli")
FRESH = Path("build/records")  # where records go that do not take the place of the kept ones
# They write what ships with the package: a check must not change it, so they run only when they are asked for.
WRITES_ASSETS = ("speculative/pair", "speculative/smollm_draft", "dmpc/models", "dmpc/films", "lewm/models")


class Outcome(NamedTuple):
    """What became of one experiment: its name, and made, there, failed or "left out"; then why, in one line."""

    name: str
    state: str
    why: str = ""


def plan(experiments: Mapping[str, Any], preset: str, *, recorded: Sequence[str] | None = None,
         assets: bool = False) -> tuple[list[str], list[Outcome]]:  # fmt: skip
    """The experiments to run for a preset, and those that have it and are left out, with the reason.

    With `recorded`, names such as "dmpc/speed.cpu", only those of which there is a record. `assets` lets those run
    too that write what ships. Raises ValueError, with the presets that there are, if no experiment has it.
    """
    having = [name for name, experiment in experiments.items() if preset in experiment.presets]
    if not having:
        known = sorted({name for experiment in experiments.values() for name in experiment.presets})
        raise ValueError(f"no experiment has a preset {preset!r}; there are: {', '.join(known)}")
    run, left = [], []
    for name in having:
        if name in WRITES_ASSETS and not assets:
            left.append(Outcome(name, "left out", "writing to assets/ (--assets takes them along)"))
        elif recorded is not None and f"{name}.{preset}" not in recorded:
            left.append(Outcome(name, "left out", "having no record to compare with"))
        else:
            run.append(name)
    return run, left


def run_all(presets: Mapping[str, Any], *, out: Path, again: bool = False, options: Sequence[str] = (),
            program: Sequence[str] | None = None) -> list[Outcome]:  # fmt: skip
    """Run each experiment with its preset and save its record below `out`; print a line for each.

    A record that is there, whole and of the same settings, is not made again unless `again`. One that fails leaves
    its output beside where its record would be, METHOD/EXPERIMENT.PRESET.log, and the next one runs. Ctrl-C ends
    the experiment that runs and is raised here: a second call goes on from there. `options` go to each
    `minilab run`, and `program` is the command line that stands for `minilab`.
    """
    outcomes, width = [], max(map(len, presets), default=0)
    for number, (name, preset) in enumerate(presets.items(), 1):
        print(f"[{number}/{len(presets)}] {name:{width}}  ", end="", flush=True)
        started = time.perf_counter()
        if not again and _is_made(name, preset, out):
            outcome = Outcome(name, "there")
        else:
            words = [*(program or PROGRAM), "run", name, "--preset", preset.name, "--records", str(out), *options]
            outcome = _run_one(name, words, out / f"{name}.{preset.name}.log")
        took = "" if outcome.state == "there" else f", {time.perf_counter() - started:.0f} s"
        print(f"{outcome.state}{took}{': ' if outcome.why else ''}{outcome.why}", flush=True)
        outcomes.append(outcome)
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many there are of each state, such as "6 made, 1 failed"."""
    states = [outcome.state for outcome in outcomes]
    counts = [f"{states.count(s)} {s}" for s in ("made", "there", "failed", "left out") if s in states]
    return ", ".join(counts) or "nothing to run"


def _is_made(name: str, preset: Any, out: Path) -> bool:
    try:
        return Record.load(name, preset=preset.name, root=out).config == config_of(preset)
    except (OSError, ValueError):  # none, or not a whole one
        return False


def _run_one(name: str, command: Sequence[str], log: Path) -> Outcome:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True)
        try:
            code = process.wait()
        except BaseException:
            _end(process)
            raise
    if code == 0:
        log.unlink()
        return Outcome(name, "made")
    return Outcome(name, "failed", f"{_reason(log, code)} ({log})")


def _end(process: subprocess.Popen) -> None:
    """Let an experiment save what it has, as Ctrl-C does; a terminal has sent it that already."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _reason(log: Path, code: int) -> str:
    """The line in which `minilab run` says what was wrong; else the last line, and what ended the process."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("minilab: ")]
    if said:
        return re.sub(r"^minilab: ", "", said[-1])
    how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{how}, after: {lines[-1][:100]}" if lines else how
