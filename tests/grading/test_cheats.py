"""What a submission may try against the grader, each tried: it gets its mark and a reason, and harms nobody.

All are graded together in one folder, beside an honest one, as a course would get them. The lab is small: `double`
and `number`, whose value, a number that stands in a hidden test alone, is what most cheats are after.
"""

import csv
import os
import re
import socket
import threading
import zipfile
from pathlib import Path

import pytest
import torch

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("psutil")
from minilab import grading  # noqa: E402
from minilab.grading import jail, submissions  # noqa: E402

if reason := jail.possible():
    pytest.skip(f"no walls here: {reason}", allow_module_level=True)

pytestmark = pytest.mark.slow
SECRET = 48_611  # the 5000th prime: no cheat knows it
SECONDS = 15.0
MEMORY = 0.8 if torch.version.cuda is None else 1.55  # GiB: torch with CUDA has half a GiB more of data to begin with
TEST = '""" # BEGIN TEST CONFIG\npoints: 1\nhidden: {hidden}\n""" # END TEST CONFIG\n{code}'
HONEST = """
def double(x):
    return helper(x)

def number():
    sieve = bytearray([1]) * 50_000
    for n in range(2, 224):
        sieve[n * n :: n] = bytes(len(range(n * n, 50_000, n)))
    return [n for n in range(2, 50_000) if sieve[n]][4999]
"""
RIGHT = "def double(x):\n    return 2 * x"
WRONG = "def double(x):\n    return 3 * x"
ALL, HALF, NOTHING = (2, 2), (2, 0), (0, 0)  # points of q1 and q2


def instructor_notebook() -> str:
    raw, code = nbformat.v4.new_raw_cell, nbformat.v4.new_code_cell
    cells = [code("def helper(x):\n    return 2 * x")]
    solutions = {"q1": "def double(x):\n    # BEGIN SOLUTION\n    return helper(x)\n    # END SOLUTION",
                 "q2": f"def number():\n    # BEGIN SOLUTION\n    return {SECRET}\n    # END SOLUTION"}
    tests = {"q1": [("false", "def test_three(double):\n    assert double(3) == 6, double(3)\n\ntest_three(double)"),
                    ("true", "def test_many(double, helper):\n    hidden = [1, 8, 21]\n"
                             "    assert [double(x) for x in hidden] == [helper(x) for x in hidden]")],
             "q2": [("true", f"def test_secret(number):\n    expected = {SECRET}\n    assert number() == expected"),
                    ("true", f"def test_secret_again(number):\n    assert number() - {SECRET} == 0")]}
    for question, solution in solutions.items():
        cells += [raw(f"# BEGIN QUESTION\nname: {question}"), raw("# BEGIN SOLUTION"), code(solution)]
        cells += [raw("# END SOLUTION"), raw("# BEGIN TESTS")]
        cells += [code(TEST.format(hidden=hidden, code=source)) for hidden, source in tests[question]]
        cells += [raw("# END TESTS"), raw("# END QUESTION")]
    return nbformat.writes(nbformat.v4.new_notebook(cells=cells))


def notebook(*cells: str) -> str:
    return nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]))


def looks(body: str) -> str:
    """A right `double`, and a `number` that returns what `body`, a loop of `look(text)`, finds out."""
    return RIGHT + f"""
import re
found = []
def look(text):
    found.extend(int(n) for n in re.findall(r"{str(SECRET)[:2]}(?=\\d{{3}}\\b)\\d+", str(text)))
def number():
    try:
{body}
    except Exception as problem:
        look(repr(problem))
    return found[-1] if found else 0
"""


# name: (cells, points, what the table must say)
CHEATS = {
    # To see the tests
    "frames": ([looks("""
        import inspect
        for frame in inspect.stack():
            look((frame.frame.f_locals, frame.frame.f_globals, frame.frame.f_code.co_consts))
        """)], HALF, ""),
    "collector": ([looks("""
        import gc
        for thing in gc.get_objects():
            if isinstance(thing, (str, dict, list, tuple)) or hasattr(thing, "__code__"):
                look(thing.__code__.co_consts if hasattr(thing, "__code__") else thing)
        """)], HALF, ""),
    "memory of the process": ([looks("""
        for line in open("/proc/self/maps"):
            low, high = (int(x, 16) for x in line.split()[0].split("-"))
            if "rw" in line and high - low < 1 << 24:
                memory = open("/proc/self/mem", "rb")
                memory.seek(low)
                look(re.findall(rb"expected = (.{5})", memory.read(high - low)))
        """)], HALF, ""),
    "disk": ([looks("""
        import os
        for folder, _, files in os.walk("/"):
            for file in files:
                if file.endswith((".ipynb", ".zip", "cells.json", "log.txt")) and "site-packages" not in folder:
                    look(open(os.path.join(folder, file), errors="replace").read())
        """)], HALF, ""),
    "environment": ([looks("""
        import os
        look(dict(os.environ))
        look(open("/proc/1/environ").read())
        """)], HALF, ""),
    "other processes": ([looks("""
        import glob
        for file in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
            look(open(file).read())
        look(len(glob.glob("/proc/[0-9]*")) > 3 and SECRET)
        """)], HALF, ""),
    "the judge's functions": ([looks("""
        import gc
        from minilab.grading.wire import Peer
        peer = next(x for x in gc.get_objects() if isinstance(x, Peer))
        for handle in range(9):
            for name in ("__globals__", "__code__", "f_back", "gi_frame", "env"):
                for op in ("attribute", "special", "fetch", "run", "call"):
                    try:
                        look(peer.ask({"op": op, "what": handle, "name": name}, [name]))
                    except Exception as problem:
                        look(problem)
        """)], HALF, ""),
    "another's submission": ([looks("        look(open('{inbox}/honest.ipynb').read())\n        exec(open("
                                    "'{inbox}/honest.ipynb').read())")], HALF, ""),
    # To pass without an answer
    "equal to all": (["class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = None\n"
                      "    def __sub__(self, other): return 0\n"
                      "def double(x): return Any()\ndef number(): return Any()"], NOTHING, ""),
    "a list that is equal to all": (["class Any(list):\n    def __eq__(self, other): return True\n"
                                     "def double(x): return Any()\ndef number(): return Any()"], NOTHING, ""),
    "builtins": ([WRONG, "import builtins, operator\nbuiltins.all = builtins.any = lambda *_: True\n"
                         "builtins.AssertionError = ZeroDivisionError\nbuiltins.int.__doc__ or 1"], NOTHING, ""),
    "the grader's modules": (["import minilab.grading.judge as judge, minilab.grading.wire as wire\n"
                              "judge.Judge._examine = lambda *_: {'passed': True, 'message': ''}\n"
                              "wire.Peer._error = lambda *_: None\n" + WRONG], NOTHING, ""),
    "the helper, redefined": ([WRONG, "def helper(x):\n    return 3 * x"], NOTHING, ""),
    "a test of the same name": ([WRONG, "def test_many(*_): pass\ndef test_secret(*_): pass"], NOTHING, ""),
    "otter's results": (["import pickle, pathlib\npathlib.Path('results.json').write_text('{{}}')\n"
                         "pathlib.Path('result.json').write_text('{{\"error\": \"\", \"questions\": []}}')\n" + WRONG],
                        NOTHING, ""),
    "a pickle": (["""
import gc, os
from minilab.grading.wire import Peer
class Bomb:
    def __reduce__(self):
        return os.system, ("touch {inbox}/exploded",)
peer = next(x for x in gc.get_objects() if isinstance(x, Peer))
import pickle
pack = Peer._pack
def double(x): return Bomb()
Peer._pack = lambda self, value, out: (["pickle", 0, out.add(pickle.dumps(value))] if isinstance(value, Bomb)
                                       else pack(self, value, out))
"""], NOTHING, ""),
    "nonsense on the wire": (["import os\ndef double(x):\n    for n in range(3, 64):\n"
                              "        try: os.write(n, b'\\xff' * 99)\n        except OSError: pass\n    return 6"],
                             NOTHING, "sent nonsense"),
    "a record of the package": (["""
import gc
from minilab.grading.wire import Peer
pack = Peer._pack
Peer._pack = lambda self, value, out: (["record", 0, "os", "system", {{"command": "touch {inbox}/exploded"}}]
                                       if value == 6 else pack(self, value, out))
""" + RIGHT], (1, 0), ""),
    # To harm
    "sys.exit": (["import sys\nsys.exit(0)", HONEST, "def helper(x): return 2 * x"], ALL, ""),
    "os._exit": (["import os\nos._exit(0)", HONEST], NOTHING, "has ended"),
    "os._exit in an answer": ([HONEST, "import os\ndef number(): os._exit(0)", RIGHT], HALF, "has ended"),
    "endless cell": (["while True: pass", RIGHT], HALF, ""),
    "endless answer": ([RIGHT, "def number():\n    while True: pass"], HALF, ""),
    "deaf to Ctrl-C": ([RIGHT, "import time\nwhile True:\n    try:\n        while True: time.sleep(0.01)\n"
                               "    except KeyboardInterrupt: pass"],
                       NOTHING, "did not stop"),
    "no signals": ([RIGHT, "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"],
                   NOTHING, "did not stop"),
    "fork bomb": ([RIGHT, "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.1)"],
                  NOTHING, "more than 20 processes"),
    "many sleepers": ([RIGHT, "import subprocess\nfor _ in range(25): subprocess.Popen(['sleep', '1000'])\n"
                              "import time\ntime.sleep(2)"], NOTHING, "more than 20 processes"),
    "memory at once": (["x = bytearray(1 << 36)", RIGHT], HALF, ""),
    "memory by and by": (["x = []\nwhile True: x.append(bytearray(1 << 24))", "x = None", RIGHT], HALF, ""),
    "memory of children": ([RIGHT, "import os, time\nfor _ in range(8):\n    if not os.fork():\n"
                                   "        x = b'x' * (250 << 20)\n        time.sleep(99)\ntime.sleep(15)"],
                           NOTHING, f"more than {MEMORY:g} GiB"),
    "disk, filled": (["f = open('big', 'wb')\nwhile True: f.write(bytes(1 << 24))", RIGHT], HALF, ""),
    "many files": (["for n in range(50_000): open(f'f{{n}}', 'w').write('x' * 5000)", RIGHT], HALF, ""),
    "a gigabyte, printed": (["for _ in range(1000): print('x' * 10**6)", RIGHT], HALF, ""),
    "half a gigabyte, returned": ([RIGHT, "def number(): return 'x' * (1 << 29)"], HALF, ""),
    "a very deep list": ([RIGHT, "def number():\n    x = []\n    for _ in range(10**5): x = [x]\n    return x"],
                         HALF, ""),
    "stack overflow": ([RIGHT, "import sys\nsys.setrecursionlimit(10**9)\ndef number(): return number()"],
                       HALF, "has ended|did not stop"),
    "segmentation fault": ([RIGHT, "import ctypes\ndef number(): return ctypes.string_at(0)"], HALF, "has ended"),
    "a thread that stays": ([RIGHT, "import threading, time\n"
                                    "threading.Thread(target=lambda: [time.sleep(1) for _ in iter(int, 1)]).start()"],
                            HALF, ""),
    "a daemon that stays": ([RIGHT, "import os, time\nif not os.fork():\n    os.setsid()\n    if not os.fork():\n"
                                    "        while True: time.sleep(1)\n    os._exit(0)"], HALF, ""),
    "kill": ([RIGHT, "import os, signal\nfor n in (os.getppid(), 2, 3, -1):\n    try: os.kill(n, signal.SIGKILL)\n"
                     "    except OSError: pass"], HALF, ""),
    "the package, edited": ([RIGHT, "import minilab, os\nopen(minilab.__file__, 'a').write('# edited')"], HALF, ""),
    "a library, edited": ([RIGHT, "import torch, pathlib\n"
                                  "pathlib.Path(torch.__file__).with_name('evil.py').write_text('x = 1')"], HALF, ""),
    "the cache, poisoned": ([RIGHT, "open('{cache}/poisoned', 'w').write('x')"], HALF, ""),
    "another's submission, edited": ([RIGHT, "open('{inbox}/honest.ipynb', 'w').write('x')"], HALF, ""),
    "the report, edited": ([RIGHT, "import os\nos.makedirs('{out}', exist_ok=True)\n"
                                   "open('{out}/scores.csv', 'w').write('x')"], HALF, ""),
    "rights, regained": ([RIGHT, """
import ctypes, minilab, pathlib
libc = ctypes.CDLL(None, use_errno=True)
gained = [libc.unshare(0x10000000), libc.mount(b"x", b"/tmp", b"tmpfs", 0, b""), libc.setuid(1), libc.chroot(b"/tmp"),
          libc.mount(b"", str(pathlib.Path(minilab.__file__).parents[1]).encode(), b"", 32 | 4096, b"")]
def number():
    return {secret} if 0 in gained else 0
"""], HALF, ""),
    "the kernel's settings": ([RIGHT, "open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/false')\n"
                                      "def number(): return {secret}"], (2, 0), ""),
    "the network": ([RIGHT, "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)\n"
                            "def number(): return {secret}"], (2, 0), ""),
    # What is no answer
    "empty": ([], NOTHING, ""),
    "deleted cells": ([RIGHT], HALF, ""),
    "twice": ([WRONG, RIGHT, RIGHT], HALF, ""),
    "a syntax error": (["def double(x:", RIGHT], HALF, ""),
    "magics": (["%%bash\nsleep 1", "%pip install nothing-of-this-name", "!true", RIGHT], HALF, ""),
    "a value in place of a function": (["double = 6\nnumber = None"], NOTHING, ""),
    "=cmd|' -C calc'!A0": ([RIGHT, "raise ValueError('<script>alert(1)</script>')"], HALF, ""),
}  # fmt: skip
BAD_FILES = {
    "text": (b"no notebook", "not a readable notebook"),
    "nothing": (b"", "not a readable notebook"),
    "binary": (bytes(range(256)) * 9, "not a readable notebook"),
    "a list": (b"[1, 2]", "not a readable notebook"),
    "deep": (b"[" * 100_000, "not a readable notebook"),
    "too large": (b" " * 21_000_000, "21 MB"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("course")


@pytest.fixture(scope="module")
def rows(folders) -> dict[str, dict[str, str]]:
    """The table of one folder with everything in it."""
    inbox, out, cache = folders / "inbox", folders / "out", folders / "cache"
    for folder in (inbox, cache):
        folder.mkdir()
    with zipfile.ZipFile(folders / "autograder.zip", "w") as bundle:
        bundle.writestr("lab.ipynb", instructor_notebook())
    (inbox / "honest.ipynb").write_text(notebook("def helper(x):\n    return 2 * x", HONEST))
    visited, server = threading.Event(), socket.create_server(("127.0.0.1", 0))
    facts = {"inbox": inbox, "out": out, "cache": cache, "secret": SECRET, "port": server.getsockname()[1]}
    for name, (cells, _, _) in CHEATS.items():
        filled = [_filled(cell, facts) for cell in cells]
        (inbox / f"{name}.ipynb").write_text(notebook(*filled))
    for name, (content, _) in BAD_FILES.items():
        (inbox / f"{name}.ipynb").write_bytes(content)
    (inbox / "link.ipynb").symlink_to(inbox / "honest.ipynb")
    server.settimeout(0.2)
    threading.Thread(target=_listen, args=(server, visited), daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submissions, "LIMITS", jail.Limits(memory=MEMORY, disk=0.1, processes=20))
        patch.setenv("MINILAB_CACHE", str(cache))
        patch.setenv("TOKEN", f"expected = {SECRET}")
        table = grading.grade(inbox, folders / "autograder.zip", out, jobs=2, timeout=SECONDS)
    server.close()
    with open(table, newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)} | {"visited": visited.is_set()}


def _filled(cell: str, facts: dict) -> str:
    for name, value in facts.items():
        cell = cell.replace("{" + name + "}", str(value))
    return cell.replace("{{", "{").replace("}}", "}")


def _listen(server: socket.socket, visited: threading.Event) -> None:
    while True:
        try:
            server.accept()
        except TimeoutError:
            continue
        except OSError:
            return
        visited.set()


def test_the_honest_submission_beside_them_earns_all(rows):
    assert (rows["honest.ipynb"]["q1"], rows["honest.ipynb"]["q2"]) == ("2", "2")
    assert rows["honest.ipynb"]["error"] == ""


@pytest.mark.parametrize("name", CHEATS)
def test_each_gets_its_mark_and_a_reason(rows, name):
    _, points, reason = CHEATS[name]
    row = rows[f"'{name}.ipynb" if name.startswith("=") else f"{name}.ipynb"]
    assert (float(row["q1"]), float(row["q2"])) == points, row
    assert re.search(reason, row["error"]) and bool(reason) == bool(row["error"]), row["error"]


@pytest.mark.parametrize("name", [*BAD_FILES, "link"])
def test_what_is_no_notebook_is_said_to_be_none(rows, name):
    reason = BAD_FILES[name][1] if name in BAD_FILES else "a link to another file"
    assert rows[f"{name}.ipynb"]["total"] == "0" and reason in rows[f"{name}.ipynb"]["error"]


def test_nothing_outside_was_touched_and_nobody_called(rows, folders):
    assert not rows["visited"], "a submission reached the network"
    assert not (folders / "inbox" / "exploded").exists(), "the judge ran what a submission sent it"
    assert list((folders / "cache").iterdir()) == []
    assert "helper" in (folders / "inbox" / "honest.ipynb").read_text()
    package = Path(grading.__file__).parents[1] / "__init__.py"
    assert "edited" not in package.read_text()


def test_no_process_is_left(rows):
    import psutil

    left = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    names = [" ".join(p.cmdline()) for p in left]
    assert [name for name in names if "forkserver" not in name and "resource_tracker" not in name] == []
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "1000"]]


def test_feedback_is_text_and_names_hidden_tests_only(rows, folders):
    page = (folders / "out" / "feedback" / "=cmd|' -C calc'!A0.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page and "<script>" not in page
    for file in (folders / "out" / "feedback").iterdir():
        text = file.read_text(encoding="utf-8")
        assert str(SECRET) not in text, f"{file.name} tells what a hidden test expects"
    assert "secret again" in page and f"{os.sep}inbox" not in page
