"""The process of one submission: walled in, then a server that runs cells and calls what they define.

On Linux the walls are namespaces: no network, no other processes, no files but the interpreter, the libraries and the
package, all read-only, and a small folder in memory. Then limits on memory, files and processor time, and no rights to
undo any of it. Where the kernel grants no namespaces `walls` says so, and only limits and another user are left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import shutil
import signal
import socket
import stat
import sys
import tempfile
import traceback
import types
from dataclasses import dataclass
from pathlib import Path

import minilab
from minilab.core.device import cache_dir
from minilab.core.files import checkout_root, package_data

NEW_USER, NEW_MOUNTS, NEW_PIDS, NEW_NET, NEW_IPC, NEW_NAMES = (
    0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x04000000,
)  # fmt: skip
BIND, RECURSIVE, PRIVATE, READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC = 4096, 16384, 1 << 18, 1, 2, 4, 8
MOUNT_SETATTR, AT_RECURSIVE = 442, 0x8000
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
DEATH_SIGNAL, DUMPABLE, DROP_BOUND, SUBREAPER, NO_NEW_RIGHTS = 1, 4, 24, 36, 38
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", "/etc/fonts",
          "/etc/localtime", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
NOBODY = 65534
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "MINILAB_PROGRESS": "0", "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True)
class Limits:
    """What one submission may use."""

    memory: float = 4.0  # GiB, of all its processes together
    disk: float = 0.25  # GiB
    processes: int = 64
    seconds: float = 600.0


def possible() -> str:
    """Why this machine cannot wall a process in; empty if it can."""
    if sys.platform != "linux":
        return f"{platform.system()} has no namespaces"
    if platform.machine() not in PIVOT_ROOT:
        return f"not tried on {platform.machine()}"
    child = os.fork()
    if child == 0:
        os._exit(_libc().unshare(NEW_USER | NEW_MOUNTS | NEW_PIDS | NEW_NET | NEW_IPC | NEW_NAMES) != 0)
    return "the kernel grants no user namespaces here" if os.waitpid(child, 0)[1] else ""


def closed_to_nobody() -> str:
    """A folder of this Python that other users cannot enter; empty if there is none. Without walls that is needed."""
    needed = [Path(path) for path in (sys.prefix, sys.base_prefix, minilab.__file__, package_data("assets"))]
    closed = [str(folder) for path in needed for folder in (path, *path.parents) if not folder.stat().st_mode & 0o001
              and folder.is_dir()]
    return closed[0] if os.geteuid() == 0 and closed else ""


def adopt_orphans() -> None:
    """Become the parent of what children of ours leave behind, so that it can be ended."""
    if sys.platform == "linux":
        _libc().prctl(SUBREAPER, 1, 0, 0, 0)


def fork(limits: Limits, *, walls: bool) -> tuple[int, socket.socket]:
    """Begin a jail: its process, and the socket to it.

    What is in memory now it can see, so call this before the lab is read.
    """
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            here.close()
            _enter(there, limits, walls=walls)
        finally:
            traceback.print_exc()
            os._exit(1)
    there.close()
    if walls:
        _agree(here)
        # Root counts as nobody inside: the limit on processes holds for everyone but root.
        user, group = (NOBODY, NOBODY) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        if os.geteuid():
            Path(f"/proc/{pid}/setgroups").write_text("deny")
        Path(f"/proc/{pid}/uid_map").write_text(f"0 {user} 1")
        Path(f"/proc/{pid}/gid_map").write_text(f"0 {group} 1")
        _agree(here)
    return pid, here


def _enter(connection: socket.socket, limits: Limits, *, walls: bool) -> None:
    """Turn this process, which has just been forked, into the jail that serves the judge. Does not return."""
    _forget_the_grader(connection)
    _die_with_parent()
    if walls:
        _checked(_libc().unshare(NEW_USER | NEW_MOUNTS | NEW_PIDS | NEW_NET | NEW_IPC | NEW_NAMES), "namespaces")
        handles = {path: os.open(path, os.O_PATH) for path in _visible()}  # as long as we may see them all
        _agree(connection)
        _agree(connection)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        _libc().prctl(DUMPABLE, 1, 0, 0, 0)  # or /proc/self would be root's
        child = os.fork()  # process 1 of the new world; when it ends, so does everything in it
        if child:
            connection.close()
            signal.signal(signal.SIGINT, lambda *_: os.kill(child, signal.SIGINT))
            _, status = os.waitpid(child, 0)
            os._exit(os.waitstatus_to_exitcode(status) != 0)
        os.setsid()
        _die_with_parent()
        _build_root(handles, limits)
    else:
        _become_nobody()
    _limit(limits, walls)
    if walls:
        _drop_rights()
    _serve(connection)


def _become_nobody() -> None:
    """Another user, if we are root, and a folder of its own either way."""
    folder = tempfile.mkdtemp(prefix="minilab-jail-", dir="/tmp")
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    _move_to(folder)


def _move_to(folder: str) -> None:
    os.chdir(folder)
    os.environ.update(dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR", "IPYTHONDIR"), folder))
    os.environ["MINILAB_CACHE"] = f"{folder}/cache"


def _agree(connection: socket.socket) -> None:
    """Wait for the other side, which does the same."""
    connection.sendall(b".")
    if connection.recv(1) != b".":
        raise OSError("the jail did not come up")


def _die_with_parent() -> None:
    if sys.platform == "linux":
        _libc().prctl(DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _forget_the_grader(connection: socket.socket) -> None:
    """No open file, no variable and no session of the process that this was. What goes wrong is still logged."""
    os.setsid()
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH", "MINILAB_CACHE", "HOME")
            if name in os.environ}
    os.environ.clear()
    os.environ.update(kept, **ENVIRONMENT)
    for descriptor in map(int, os.listdir("/proc/self/fd") if sys.platform == "linux" else range(3, 256)):
        if descriptor > 2 and descriptor != connection.fileno():
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _serve(connection: socket.socket) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):  # a gigabyte that is printed costs nothing
        os.dup2(nowhere, descriptor)
    sys.stdin, sys.stdout, sys.stderr = (open(n, mode, errors="replace") for n, mode in enumerate("rww"))
    import torch
    from IPython.core.interactiveshell import InteractiveShell

    from minilab.grading.wire import Peer

    torch.set_num_threads(1)
    sys.modules["otter"] = _no_otter()
    sys.path.insert(0, os.getcwd())
    shell = InteractiveShell.instance()
    shell.colors, shell.showtraceback = "NoColor", lambda *args, **kwargs: None
    sys.modules["__main__"] = shell.user_module

    def run(source: str) -> str:
        done = shell.run_cell(source, silent=False, store_history=False)
        problem = done.error_before_exec or done.error_in_exec
        return f"{type(problem).__name__}: {problem}"[:300] if problem else ""

    def fetch(name: str):
        if name not in shell.user_ns:
            raise NameError(f"the notebook does not define {name}")
        return shell.user_ns[name]

    peer = Peer(connection, trusting=True, names=shell.user_ns, extra={"ready": bool, "run": run, "fetch": fetch})

    def stop(*_) -> None:
        if peer.busy:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    os.register_at_fork(after_in_child=connection.close)  # one process answers
    peer.serve()
    shutil.rmtree(os.environ["HOME"], ignore_errors=True)
    os._exit(0)  # whatever threads of the notebook are left


def _no_otter() -> types.ModuleType:
    """What stands for Otter, whose checks in the notebook count for nothing here."""
    def nothing(*args, **kwargs) -> None:
        pass

    notebook = type("Notebook", (), dict.fromkeys(("__init__", "check", "check_all", "export"), nothing))
    module = types.ModuleType("otter")
    module.Notebook = notebook
    return module


# ------------------------------------------------------------------------------------------- the walls


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    words = [text.encode() for text in (source, target, kind)]
    _checked(_libc().mount(*words, ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def _build_root(handles: dict[str, int], limits: Limits) -> None:
    """A root of its own, in memory, with what is needed to run the book's code, and nothing else."""
    _mount("none", "/", "", RECURSIVE | PRIVATE)
    root = "/tmp"
    _mount("root", root, "tmpfs", NO_SUID | NO_DEVICES, f"size={int(limits.disk * 2**30)},mode=755")
    for path, handle in handles.items():
        target = Path(root + path)
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        _mount(f"/proc/self/fd/{handle}", str(target), "", BIND | RECURSIVE)
        _read_only(str(target))
        os.close(handle)
    for folder in ("proc", "tmp", "dev/shm"):
        Path(root, folder).mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # inside some containers it is not allowed, and nothing needs it
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    with contextlib.suppress(OSError):
        _mount("proc", f"{root}/proc", "proc", READ_ONLY | NO_SUID | NO_DEVICES | NO_EXEC)
    os.chdir(root)
    _checked(_libc().syscall(PIVOT_ROOT[platform.machine()], b".", b"."), "pivot_root")
    _checked(_libc().umount2(b".", 2), "leaving the old root")
    cache = str(cache_dir())
    _move_to("/tmp")
    _link_cache(cache)


def _visible() -> list[str]:
    """The files and folders that a submission may read."""
    own = [sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix), Path(minilab.__file__).parents[1],
           package_data("assets"), package_data("records"), cache_dir()]
    own += [checkout_root() / "pyproject.toml"] if checkout_root() else []  # by which the package knows its checkout
    libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    wanted = sorted({str(path) for path in (*SYSTEM, *own, *libraries) if Path(path).exists()})
    return [path for path in wanted if not any(path.startswith(other + "/") for other in wanted)]


def _read_only(target: str) -> None:
    class Attributes(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "namespace")]

    wanted = Attributes(READ_ONLY | NO_SUID, 0, 0, 0)
    _checked(_libc().syscall(MOUNT_SETATTR, -100, target.encode(), AT_RECURSIVE, ctypes.byref(wanted),
                             ctypes.sizeof(wanted)), f"read-only {target}")


def _link_cache(cache: str) -> None:
    """Files that the labs make once, as links: they are read, and what is added stays here."""
    for folder, _, files in os.walk(cache):
        own = Path("/tmp/cache", os.path.relpath(folder, cache))
        own.mkdir(parents=True, exist_ok=True)
        for file in files:
            (own / file).symlink_to(Path(folder, file))


def _limit(limits: Limits, walls: bool) -> None:
    def cap(what: int, amount: float) -> None:
        hard = resource.getrlimit(what)[1]
        amount = int(amount) if hard == resource.RLIM_INFINITY else min(int(amount), hard)
        resource.setrlimit(what, (amount, amount))

    cap(resource.RLIMIT_DATA, 0.75 * limits.memory * 2**30)  # of one process: it gets an error, and can go on
    cap(resource.RLIMIT_FSIZE, limits.disk * 2**30)
    cap(resource.RLIMIT_CPU, limits.seconds + 60)
    cap(resource.RLIMIT_NOFILE, 256)
    cap(resource.RLIMIT_CORE, 0)
    if walls or os.geteuid() == NOBODY:
        cap(resource.RLIMIT_NPROC, limits.processes + 16)  # threads count too


def _drop_rights() -> None:
    libc = _libc()
    for right in range(64):
        libc.prctl(DROP_BOUND, right, 0, 0, 0)
    _checked(libc.prctl(NO_NEW_RIGHTS, 1, 0, 0, 0), "no new rights")
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _checked(libc.capset(header, none), "dropping rights")
