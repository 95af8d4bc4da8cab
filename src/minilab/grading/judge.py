"""One submission before its tests, in a process of its own.

The judge runs the lab's own cells with the lab's own solutions. Then it has the submission run in a jail, and puts
functions that call into that jail in the place of the solutions. What a student defines besides, or redefines, stays
in the jail. Tests run here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from minilab.core.files import replacing
from minilab.grading.jail import Limits, adopt_orphans, fork
from minilab.grading.lab import Lab, Question, Test
from minilab.grading.plumbing import child_environment, end_children, kill_tree
from minilab.grading.wire import Gone, Peer

READY = 300.0  # seconds in which a jail comes up, on the busiest machine
CELL, TEST = 1 / 3, 1 / 10  # of the time of a submission, what one cell and one test may take


class Judge:
    """A submission at work behind its walls, and the lab that it is held to."""

    def __init__(self, lab: Lab, limits: Limits, pid: int, connection: socket.socket, *, walls: bool = True) -> None:
        self.lab, self.limits, self.pid, self.connection, self.walls = lab, limits, pid, connection, walls
        self.over = threading.Event()
        self.env = lab.namespace()
        self.ends = 0.0
        self.fate = ""  # why the process was ended

    def report(self, cells: list[str]) -> dict:
        """What a submission of these code cells earns, and why."""
        raised, results = [], {}
        with self.wired() as peer:
            peer.deadline = time.monotonic() + READY
            peer.ask({"op": "ready"})  # if it never is, that is no fault of the submission
            self.ends = time.monotonic() + self.limits.seconds
            try:
                raised = [problem for source in self._worth_running(cells) if (problem := self._run(peer, source))]
                self.env |= {name: self._answer(peer, name) for q in self.lab.tested for name in q.answers}
            except Gone as problem:
                self.fate = self.fate or str(problem)
            # What a hidden test gives to a student's function cannot show up in what a visible one reports.
            for hidden in (False, True):
                for question in self.lab.tested:
                    for test in question.tests:
                        if test.hidden == hidden:
                            results[question.name, test.name] = self._examine(peer, test)
        questions = [_question_report(question, results) for question in self.lab.tested]
        return {"error": self.fate, "questions": questions, "raised": raised}

    def _worth_running(self, cells: list[str]) -> list[str]:
        skipped = {source.strip() for source in self.lab.left_out}
        return [source for source in cells if source.strip() and source.strip() not in skipped]

    def _run(self, peer: Peer, source: str) -> str:
        with self._within(peer, CELL):
            try:
                return peer.ask({"op": "run"}, [source])
            except TimeoutError:
                return "TimeoutError: a cell took too long and was stopped"

    def _answer(self, peer: Peer, name: str):
        try:
            with self._within(peer, TEST):
                return peer.ask({"op": "fetch"}, [name])
        except Gone:
            raise
        except Exception as problem:
            return _missing(problem)

    def _examine(self, peer: Peer, test: Test) -> dict:
        """Whether a test passes, and what it says if not."""
        if self.fate:
            return {"passed": False, "message": self.fate}
        alone: dict = {"__name__": "__main__"}
        exec(compile(test.source, f"<{test.name}>", "exec"), alone)
        try:
            with self._within(peer, TEST), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                alone[test.name](*(self.env.get(name) for name in test.parameters))
        except Gone as problem:
            self.fate = self.fate or str(problem)
            return {"passed": False, "message": self.fate}
        except Exception as problem:
            return {"passed": False, "message": _explained(problem, test)}
        return {"passed": True, "message": ""}

    @contextlib.contextmanager
    def _within(self, peer: Peer, share: float) -> Iterator[None]:
        """Time for one piece of work: the submission is interrupted when it is over, and so is the judge."""
        now = time.monotonic()
        left = min(share * self.limits.seconds, self.ends - now)
        if left <= 0:
            self.fate = self.fate or f"stopped after {self.limits.seconds:g} seconds: too much work"
            raise Gone(self.fate)
        peer.deadline, peer.late = now + left, False
        signal.setitimer(signal.ITIMER_REAL, left + 2 * peer.grace)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    @contextlib.contextmanager
    def wired(self) -> Iterator[Peer]:
        """The wire to the jail, for as long as the submission is wanted."""
        signal.signal(signal.SIGALRM, _too_late)
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        try:
            yield Peer(self.connection, names=self.env, on_late=lambda: os.kill(self.pid, signal.SIGINT))
        finally:
            self.connection.close()
            self.over.set()
            watch.join()
            self._end()
            os.waitpid(self.pid, 0)

    def _watch(self) -> None:
        """End the jail when its processes are too many or too large."""
        import psutil

        while not self.over.wait(0.1):
            inside, used = self._inside(), 0
            for member in inside[: self.limits.processes]:
                with contextlib.suppress(psutil.Error):
                    used += member.memory_full_info().pss
            if len(inside) > self.limits.processes:
                self.fate = f"stopped: more than {self.limits.processes} processes"
            elif used > self.limits.memory * 2**30:
                self.fate = f"stopped: more than {self.limits.memory:g} GiB of memory"
            if self.fate:
                self._end()
                break

    def _inside(self) -> list:
        """The processes of the submission. Without walls they may have left their parents, and are ours."""
        import psutil

        try:
            return psutil.Process(self.pid if self.walls else None).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _end(self) -> None:
        kill_tree(self.pid)
        if not self.walls:
            end_children()


def judge(key: Path, cells: list[str], limits: Limits, *, walls: bool) -> dict:
    """The report on a notebook of these code cells, as a dict that is written as JSON."""
    adopt_orphans()
    pid, connection = fork(limits, walls=walls)
    return Judge(Lab(key), limits, pid, connection, walls=walls).report(cells)


def work(key: Path, cells: list[str], limits: Limits, walls: bool, folder: Path) -> None:
    """`judge` as a process: its report in `folder/result.json`, what it says in `folder/log.txt`."""
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT, 0o600)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.chdir(folder)
    os.environ.update(child_environment(folder))
    torch.set_num_threads(1)
    found = judge(key, cells, limits, walls=walls)
    with replacing(folder / "result.json") as path:
        path.write_text(json.dumps(found), encoding="utf-8")


def _question_report(question: Question, results: dict) -> dict:
    cases = [
        {"name": test.title, "hidden": test.hidden, "points": test.points, "hint": test.hint,
         **results[question.name, test.name]}
        for test in question.tests
    ]
    earned = sum(case["points"] for case in cases if case["passed"])
    return {"name": question.name, "points": earned, "possible": question.possible, "cases": cases}


def _missing(problem: Exception):
    """What stands for an answer that is not there: it says so when it is called."""
    def missing(*args, **kwargs):
        raise NameError(str(problem))

    return missing


def _explained(problem: Exception, test: Test) -> str:
    """The error, the line of the test where it came up, and the line of the answer that raised it."""
    lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__)
             if frame.filename == f"<{test.name}>"]
    shown = [test.source.splitlines()[lines[0] - 1].strip()] if lines else []
    return "\n".join([*shown, f"{type(problem).__name__}: {problem}"[:2000], *getattr(problem, "__notes__", ())])


def _too_late(*_) -> None:
    raise TimeoutError("stopped: it did not end in time")
