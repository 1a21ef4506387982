"""The thread in which Ray Tune drives, beside the chief's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future

from hpo.engines.ray_tune.desk import Desk
from hpo.engines.ray_tune.messages import Setup
from hpo.engines.ray_tune.room import Share
from hpo.errors import PlaceError, TuneFleetError
from hpo.fleet.chief import Chief
from hpo.precision import check_here, in_record

log = logging.getLogger("tunefleet.ray")

# How long Ray may take to end; what it leaves running then dies with this process.
_LEAVE_S = 20.0


@contextlib.asynccontextmanager
async def ray_tune(chief: Chief) -> AsyncIterator[None]:
    """Ray Tune runs the trials of ``chief`` meanwhile.

    Raises, before there is a search, what stands against it: UsageError where the cluster
    has no room, PlaceError where there is none.
    """
    thread = _Thread(chief, asyncio.get_running_loop())
    thread.start()
    await asyncio.wrap_future(thread.ready)
    _take_back(signal.SIGTERM)
    try:
        yield
    finally:
        await thread.leave()


def _take_back(number: signal.Signals) -> None:
    """Sets this process's own handler again, over the one that Ray has put before it.

    That one passes the signal on, and aborts the process three seconds later. Where Ray ends a
    job it tells each of its processes, and trials have longer than that.
    """
    signal.signal(number, signal.getsignal(number))
    signal.siginterrupt(number, False)


class _Thread(threading.Thread):
    def __init__(self, chief: Chief, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name="ray", daemon=True)
        self.ready: Future[None] = Future()
        self._chief = chief
        self._loop = loop
        self._desk: Desk | None = None

    def run(self) -> None:
        """Starts or finds a cluster, and drives until the search is over."""
        try:
            self._run()
        except TuneFleetError as error:
            self._failed(error)
        except Exception as error:
            # Whatever Ray raises: nobody else would hear of it.
            log.exception("Ray Tune failed")
            self._failed(PlaceError(f"Ray Tune failed: {error!r}"))

    async def leave(self) -> None:
        """The search is over, or has failed: so is this thread."""
        if self._desk:
            await self._desk.close()
        await asyncio.to_thread(self.join, _LEAVE_S)
        if self.is_alive():
            log.warning("Ray has not ended within %.0f s", _LEAVE_S)

    def _run(self) -> None:
        from hpo.engines.ray_tune.place import cluster

        run = self._chief.run
        with cluster(run, run.workers) as place:
            from hpo.engines.ray_tune.drive import Bridge, drive

            precision = run.settings.get("precision")
            check_here(precision, has_gpu=bool(place.share.gpus))
            device = in_record("gpu:any" if place.share.gpus else "cpu", precision)
            self._desk = Desk(self._chief, device)
            bridge = Bridge(self._chief, self._desk, self._loop)
            bridge.wait(self._desk.open())
            bridge.wait(self._desk.look(place.room()))
            self.ready.set_result(None)
            drive(bridge, _setup(self._chief, place.share), place)
            bridge.wait(self._desk.close())

    def _failed(self, error: TuneFleetError) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
        else:
            self._loop.call_soon_threadsafe(self._chief.fail, error)


def _setup(chief: Chief, share: Share) -> Setup:
    path = chief.run.study_path()
    return Setup(chief.terms, str(path.resolve()), path.read_bytes(), share.cpus, share.gpus)
