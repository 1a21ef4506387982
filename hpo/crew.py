"""The workers that `run` keeps alive: their ids, how many are wanted, and who is to leave."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

# The exit status of a worker that was one too many. `run` starts another under its id if
# that is wanted again; one that left because the search was over it does not replace.
EXIT_DISMISSED = 76


def worker_ids(count: int) -> list[str]:
    """The ids of ``count`` workers."""
    return [f"worker-{number}" for number in range(count)]


@dataclasses.dataclass(frozen=True)
class Crew:
    """``size`` workers are wanted; those of ids in ``dismissed`` were wanted before.

    A dismissed worker leaves when its trial has ended. Workers under other ids, which a
    person started besides, are nobody's to dismiss.
    """

    size: int = 0
    dismissed: frozenset[str] = frozenset()

    def scaled(self, size: int) -> Crew:
        """The crew once ``size`` workers are wanted: who is wanted again may stay."""
        were = self.dismissed.union(worker_ids(self.size))
        return Crew(size, were.difference(worker_ids(size)))

    def to_meta(self) -> dict[str, Any]:
        """The crew as the ledger keeps it among the facts about a run."""
        return {"workers": self.size, "dismissed": sorted(self.dismissed)}

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Crew:
        """The crew that :meth:`to_meta` wrote; a run that was never scaled dismissed nobody."""
        return cls(int(meta["workers"]), frozenset(meta.get("dismissed", ())))


NOBODY = Crew()
