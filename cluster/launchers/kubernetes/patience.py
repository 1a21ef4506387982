"""How long a cluster is waited for: as long as anything moves there, and some time more."""

from __future__ import annotations

import time


class Patience:
    """Is over after so many ``seconds`` in which nothing changed.

    A loaded cluster takes minutes for what another does in seconds; it stands still no more
    often than that one.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since = time.monotonic()
        self._seen: object = None

    def is_over(self, seen: object) -> bool:
        """Whether all was as it is in ``seen`` for too long."""
        if seen != self._seen:
            self._since, self._seen = time.monotonic(), seen
        return self.quiet_for(self._seconds)

    def quiet_for(self, seconds: float) -> bool:
        """Whether nothing has changed for so long."""
        return time.monotonic() - self._since >= seconds
