"""The log of what was refused: nobody who is refused can fill a disk with it."""

from __future__ import annotations

import logging
import time

from hpo import address

log = logging.getLogger("tunefleet.chief")

_WINDOW_S = 60.0
_MOST_LINES = 20


class Refusals:
    """Logs a refusal once a minute for each peer and reason, and few in all; counts the rest."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._said: set[tuple[str, str]] = set()
        self._unsaid = 0

    def note(self, peer: str, reason: str) -> None:
        """Something from ``peer``, a ``host:port``, was refused for ``reason``."""
        now = time.monotonic()
        if now - self._began > _WINDOW_S:
            self.say_rest()
            self._began, self._said = now, set()
        key = (address.host_of(peer), reason)
        if key in self._said or len(self._said) >= _MOST_LINES:
            self._unsaid += 1
            return
        self._said.add(key)
        log.warning("refused %s: %s", peer, reason)

    def say_rest(self) -> None:
        """Says how many refusals were not logged one by one."""
        if self._unsaid:
            log.warning("refused %d more of the same or others", self._unsaid)
        self._unsaid = 0
