"""The processes that a command starts, and their end with it.

Linux hands an orphan to its nearest ancestor that has asked for orphans. A command asks, so that
a process that it started indirectly cannot leave its tree, also not by a session of its own.
:func:`end_children` then ends the whole tree, however deep it is. A command that is killed can
do nothing any more: its watchdog, a small process in a session of its own, ends the tree instead.

On other systems than Linux there are no orphans to ask for, and only what a command ends by
itself is ended.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from typing import AnyStr, NamedTuple

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_PROC = pathlib.Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.005
# How long a killed process may take to go. One that takes longer waits in the kernel, for a
# device or a file system, and may do so for ever.
_END_S = 10.0

# This process's watchdog and the process that started it: a fork has none of its own.
_watchdog: tuple[int, subprocess.Popen[bytes]] | None = None


class Entry(NamedTuple):
    """One process as the kernel lists it. ``started`` tells apart two that had the same id."""

    pid: int
    parent: int
    started: int
    is_zombie: bool


def adopt_orphans() -> None:
    """Makes this process the parent of every orphan among its descendants, from now on."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def watched(child: subprocess.Popen[AnyStr]) -> subprocess.Popen[AnyStr]:
    """``child``, which ends with this process, and takes all that it started along.

    Call it as the child is started: before that has had time to start anything itself.
    """
    adopt_orphans()
    watch(child.pid)
    return child


def watch(pid: int) -> None:
    """Has the process ``pid``, and all that it started, ended if this process is killed."""
    global _watchdog
    if sys.platform != "linux":
        return
    own = _own_watchdog()
    if own is None:
        own = _start_watchdog()
        _watchdog = os.getpid(), own
    assert own.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        own.stdin.write(b"%d\n" % pid)
        own.stdin.flush()


def watch_children() -> None:
    """:func:`watch` for every child that this process has now, whichever library started it."""
    for entry in processes():
        if entry.parent == os.getpid():
            watch(entry.pid)


def _start_watchdog() -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        # Without `site`: it needs nothing that is installed, and starts in half the time.
        [sys.executable, "-S", "-m", "hpo._internal.watchdog"],
        env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def end_children(spare: Collection[int] = (), within_s: float = _END_S) -> list[int]:
    """Kills every child of this process but those in ``spare``, and all that they started.

    Children that are spared keep what they started. Returns once the others are gone: the ids of
    those that are still there ``within_s`` seconds later, because the kernel cannot end them or
    they belong to another user. :func:`adopt_orphans` must have been called before they started.
    """
    deadline = time.monotonic() + within_s
    own = _own_watchdog()
    spared = {*spare, *([own.pid] if own else [])}
    while pids := [e.pid for e in processes() if e.parent == os.getpid() and e.pid not in spared]:
        if time.monotonic() > deadline:
            return pids
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(_POLL_S)
    return []


def end_all() -> list[int]:
    """:func:`end_children` for a process that is about to leave: its watchdog goes too."""
    global _watchdog
    left = end_children()
    if own := _own_watchdog():
        own.kill()
        own.wait()
        _watchdog = None
    return left


def _own_watchdog() -> subprocess.Popen[bytes] | None:
    return _watchdog[1] if _watchdog and _watchdog[0] == os.getpid() else None


def processes() -> list[Entry]:
    """Every process of this host that can be seen; empty where the system does not list them."""
    return [entry for pid in _ids() if (entry := _entry(pid)) is not None]


def _ids() -> list[str]:
    try:
        return [name for name in os.listdir(_PROC) if name.isdecimal()]
    except OSError:
        return []


def _entry(pid: str) -> Entry | None:
    try:
        text = (_PROC / pid / "stat").read_bytes()
    except OSError:
        return None
    # The name, which comes second, may itself have blanks and parentheses.
    fields = text.rpartition(b")")[2].split()
    return Entry(int(pid), int(fields[1]), int(fields[19]), fields[0] in (b"Z", b"X"))
