"""What the coordinator wants written, on its way into the ledger: many events in one commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from hpo.errors import TuneFleetError
from hpo.ledger import LedgerWriter
from hpo.protocol import Clock, Effect

log = logging.getLogger("tunefleet.chief")


class Scribe:
    """Gathers effects while a commit is under way, and tells when they are durable.

    It works on its own: a caller that is gone takes nothing along. ``written`` is called
    with what lies in the ledger, ``failed`` with the error after which nothing more does.
    """

    def __init__(
        self,
        ledger: LedgerWriter,
        clock: Clock,
        written: Callable[[Sequence[Effect]], None],
        failed: Callable[[TuneFleetError], None],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._written = written
        self._failed = failed
        self._gathered: list[Effect] = []
        self._next: asyncio.Future[None] | None = None
        self._under_way: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def write(self, effects: Sequence[Effect]) -> None:
        """Returns once ``effects``, and all that came before them, are durable.

        Raises the ledger's error where they cannot be.
        """
        if effects:
            self._gathered += effects
            if self._next is None:
                self._next = asyncio.get_running_loop().create_future()
        waited_for = self._next or self._under_way
        if waited_for is None:
            return
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())
        # A call that was cancelled must not cancel what others wait for.
        await asyncio.shield(waited_for)

    async def _work(self) -> None:
        while self._next is not None:
            self._under_way, self._next = self._next, None
            effects, self._gathered = self._gathered, []
            error = await self._commit(effects)
            if error:
                self._failed(error)
                self._under_way.set_exception(error)
                # Perhaps nobody waits for it any more; it was told above.
                self._under_way.exception()
            else:
                self._under_way.set_result(None)
                self._written(effects)
            self._under_way = None
        self._task = None

    async def _commit(self, effects: Sequence[Effect]) -> TuneFleetError | None:
        """The error that kept ``effects`` from being written."""
        try:
            await asyncio.wrap_future(self._ledger.commit(effects, self._clock.wall()))
        except TuneFleetError as error:
            return error
        except Exception as error:
            # Such as a tag that is no JSON: whoever waits must hear of that too.
            log.exception("the ledger cannot hold what is to be written")
            return TuneFleetError(f"the ledger cannot hold what is to be written: {error!r}")
        return None
