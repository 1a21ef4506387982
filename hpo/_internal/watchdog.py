"""Ends what a killed command has left running: the main of a process of its own.

The command writes the id of each process that it starts, a line each, and holds the pipe open.
When the pipe closes the command is gone; what is then left of those processes, and of all that
they started, is ended. Nothing is left where the command had time to end it itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable

from hpo._internal.process_tree import Entry, processes

_POLL_S = 0.02
# After so long the rest waits in the kernel, where no signal reaches it.
_END_S = 60.0


def descendants(roots: set[tuple[int, int]], found: Iterable[Entry]) -> set[int]:
    """The ids of the live ``roots``, pairs of an id and a start time, and of all below them.

    A zombie is gone, though whoever has adopted it may never ask how it ended.
    """
    below: dict[int, list[int]] = {}
    todo = []
    for entry in found:
        if entry.is_zombie:
            continue
        below.setdefault(entry.parent, []).append(entry.pid)
        if (entry.pid, entry.started) in roots:
            todo.append(entry.pid)
    tree: set[int] = set()
    while todo:
        pid = todo.pop()
        if pid not in tree:
            tree.add(pid)
            todo += below.get(pid, [])
    return tree


def _end(roots: set[tuple[int, int]]) -> None:
    """Stops the whole tree before it ends it, so that nothing can be started meanwhile."""
    stopped: set[int] = set()
    while more := descendants(roots, processes()) - stopped:
        _signal(more, signal.SIGSTOP)
        stopped |= more
    _signal(stopped, signal.SIGKILL)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def main() -> None:
    """Notes what the command starts until the command is gone, then ends what is left of it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    roots: set[tuple[int, int]] = set()
    for line in sys.stdin.buffer:
        known = {entry.pid: entry for entry in processes()}
        if entry := known.get(int(line)):
            roots.add((entry.pid, entry.started))
    deadline = time.monotonic() + _END_S
    while descendants(roots, processes()) and time.monotonic() < deadline:
        _end(roots)
        time.sleep(_POLL_S)


if __name__ == "__main__":
    main()
