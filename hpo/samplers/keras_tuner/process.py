"""The child in which KerasTuner's oracles live, seen from the process that asks them.

One child serves every sampler of a process: a benchmark has hundreds. A line of JSON goes in,
a line comes out; it leaves when its standard input closes.
"""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import Any, ClassVar

from hpo import env
from hpo.child import ROOT
from hpo.errors import TuneFleetError


class OracleProcessDiedError(Exception):
    """The child is gone, and what it was told with it."""


class OracleProcess:
    """One child; :meth:`shared` gives the one that lives."""

    _current: ClassVar[OracleProcess | None] = None
    _starting: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Sessions whose sampler is gone. Noted only, since a finalizer may run anywhere.
        self._left: collections.deque[int] = collections.deque()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "hpo.samplers.keras_tuner.host"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                **env.of_project(ROOT),
                # One thread, so that a sum has the same last digit on every machine's child.
                **env.threads(1),
                # It computes nothing on a GPU, and must not take a worker's.
                env.VISIBLE_GPUS: "-1",
            },
        )

    @classmethod
    def shared(cls) -> OracleProcess:
        """The child of this process, started anew where it has died."""
        with cls._starting:
            if cls._current is None or cls._current._child.poll() is not None:
                cls._current = cls()
            return cls._current

    def open(self, session: int, owner: object, **request: Any) -> None:
        """Makes an oracle for ``session``; it goes when ``owner`` does."""
        weakref.finalize(owner, self._left.append, session)
        self._call({"open": session, **request})

    def ask(self, session: int, trial_id: str, events: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What the oracle says to ``trial_id``, having heard of ``events``."""
        return self._call({"ask": session, "trial_id": trial_id, "events": events})

    def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        """Asks and waits. Raises OracleProcessDiedError, or TuneFleetError with what it raised."""
        with self._lock:
            left = [self._left.popleft() for _ in range(len(self._left))]
            text = self._exchange(json.dumps({**request, "left": left}))
        if not text:
            status = self._child.wait()
            raise OracleProcessDiedError(f"KerasTuner's oracles died with status {status}")
        reply: dict[str, Any] = json.loads(text)
        if "error" in reply:
            raise TuneFleetError(reply["error"])
        return reply

    def _exchange(self, line: str) -> str:
        assert self._child.stdin and self._child.stdout
        try:
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()
            return self._child.stdout.readline()
        except BrokenPipeError:
            return ""
