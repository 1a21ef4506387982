"""One process of a search on this host: how it is started, and what it said when it gave up."""

from __future__ import annotations

import collections
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import IO

from cluster.plan import ProcessPlan
from hpo import env
from hpo._internal.process_tree import watched
from hpo.errors import PlaceError, TuneFleetError, UsageError

# So many deaths of one process in so short a time will not be mended by another start,
# unless somebody else sent them: a process cannot help being killed.
DEATHS, _WITHIN_S = 5, 20.0
_SENT_BY_OTHERS = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT)


@dataclasses.dataclass
class Process:
    """One process of the search, with when it died before."""

    plan: ProcessPlan
    popen: subprocess.Popen[bytes]
    deaths: collections.deque[float]
    # Of a chief: a pipe into which it says why it gives up. There may be no room in its log.
    words: IO[bytes] | None = None

    def died_too_often(self, status: int) -> bool:
        """Notes a death with ``status``; True where another start would not help."""
        if status in _SENT_BY_OTHERS:
            return False
        now = time.monotonic()
        self.deaths.append(now)
        recent = [moment for moment in self.deaths if now - moment < _WITHIN_S]
        return len(recent) >= DEATHS


def start(
    plan: ProcessPlan,
    deaths: collections.deque[float] | None = None,
    keep_open: Sequence[int] = (),
) -> Process:
    """Starts a process in a session of its own: a terminal's Ctrl-C is for `run` alone."""
    try:
        output: IO[bytes] = plan.log.open("ab")
    except OSError as error:
        raise PlaceError(f"cannot write {plan.log}: {error.strerror}") from error
    with output:
        popen = watched(
            subprocess.Popen(
                plan.command,
                env={**os.environ, **plan.environment},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=keep_open,
            )
        )
    return Process(plan, popen, collections.deque(maxlen=DEATHS) if deaths is None else deaths)


def start_chief(plan: ProcessPlan, deaths: collections.deque[float] | None = None) -> Process:
    """Starts a chief; what it says when it gives up is for :func:`last_words`."""
    receiving, sending = os.pipe()
    # A process of the chief's that outlives it may hold the other end.
    os.set_blocking(receiving, False)
    words = os.fdopen(receiving, "rb", buffering=0)
    told = {**plan.environment, env.LAST_WORDS: str(sending)}
    try:
        chief = start(dataclasses.replace(plan, environment=told), deaths, keep_open=[sending])
    except BaseException:
        words.close()
        raise
    finally:
        os.close(sending)
    return dataclasses.replace(chief, words=words)


def last_words(chief: Process, status: int) -> TuneFleetError:
    """What a chief that gave up said of it; else the last line of its log."""
    said = chief.words.read() if chief.words else None
    if said:
        text = said.decode(errors="replace")
        return UsageError(text) if status == 2 else PlaceError(text)
    lines = chief.plan.log.read_text(errors="replace").splitlines()
    return PlaceError(lines[-1] if lines else f"the chief left with status {status}")
