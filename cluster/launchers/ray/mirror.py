"""TensorBoard here for a run on a Ray cluster: its ledger is copied, and projected anew."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import queue
import tempfile
import threading
from collections.abc import Iterator

from cluster.launchers.ray import frames
from cluster.launchers.ray.frames import Frame
from cluster.launchers.ray.inside import Inside
from hpo.errors import PlaceError, TuneFleetError
from hpo.ledger import snapshot
from hpo.run import Run
from hpo.tensorboard.writer import TensorBoardWriter

_EVERY_S = 10.0
_FIRST_S = 120.0


def tensorboard(inside: Inside, args: argparse.Namespace) -> int:
    """Serves the run's HParams from here until Ctrl-C, and keeps up with its search."""
    from hpo.tensorboard.server import serve

    with tempfile.TemporaryDirectory(prefix="tunefleet-") as folder:
        mirror = Mirror(inside, pathlib.Path(folder) / inside.run_id)
        mirror.start()
        try:
            run = mirror.first()
            with serve({run.id: run.tensorboard}, args.host, args.port) as server:
                print(f"{server.url}\nCtrl-C ends it", flush=True)
                status = server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            mirror.leave()
    raise PlaceError(f"TensorBoard ended by itself with status {status}: start it again")


def fetch(inside: Inside, folder: pathlib.Path) -> None:
    """Copies the run's ledger, as it is now, into ``folder``."""
    with _copies(inside) as copies:
        snapshot.unpack(next(filter(None, copies)), folder)


@contextlib.contextmanager
def _copies(inside: Inside) -> Iterator[Iterator[bytes | None]]:
    """The run's ledger, packed, and again whenever it has changed; None after a quiet second."""
    with inside.telling("mirror", inside.run_id, str(_EVERY_S)) as told:
        yield _together(told)


def _together(told: Iterator[Frame | None]) -> Iterator[bytes | None]:
    parts = b""
    for frame in told:
        if frame is None:
            yield None
        elif frame.kind == frames.FILE:
            parts = b""
        elif frame.kind == frames.PART:
            parts += frame.data
        elif frame.kind == frames.STATUS and parts:
            yield parts


class Mirror(threading.Thread):
    """Keeps a copy of a run's ledger, and TensorBoard's files beside it, in ``folder``."""

    def __init__(self, inside: Inside, folder: pathlib.Path) -> None:
        super().__init__(name="mirror", daemon=True)
        self._inside = inside
        self._folder = folder
        self._over = threading.Event()
        self._news: queue.Queue[Run | TuneFleetError] = queue.Queue()

    def first(self) -> Run:
        """The run, once there is a copy; raises what stands against one."""
        try:
            found = self._news.get(timeout=_FIRST_S)
        except queue.Empty:
            raise PlaceError(
                f"no ledger of run {self._inside.run_id} came within {_FIRST_S:.0f} s: try again"
            ) from None
        if isinstance(found, TuneFleetError):
            raise found
        return found

    def leave(self) -> None:
        """Ends the copying; returns once nothing of it is left on the cluster."""
        self._over.set()
        self.join()

    def run(self) -> None:
        """Copies until the search is over."""
        try:
            self._copy()
        except TuneFleetError as error:
            self._news.put(error)

    def _copy(self) -> None:
        with _copies(self._inside) as copies:
            for copy in copies:
                if self._over.is_set():
                    return
                if copy:
                    self._news.put(self._project(copy))

    def _project(self, copy: bytes) -> Run:
        snapshot.unpack(copy, self._folder)
        run = Run(self._folder)
        reader = run.reader()
        try:
            records = [attempt.record for attempt in reader.attempts()]
        finally:
            reader.close()
        TensorBoardWriter(run.tensorboard, run.study).restore(records)
        return run
