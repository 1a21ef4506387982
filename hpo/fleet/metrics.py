"""Where a search stands, for Prometheus: served by the chief at a port of its own.

No token is asked for, since Prometheus has none to give: values and counts are all there is to
see. The names and what they mean are in docs/operations.md.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hpo import env
from hpo.errors import PlaceError
from hpo.trial import TrialState

if TYPE_CHECKING:
    from hpo.fleet.chief import Chief

_ANSWER_S = 5.0


class _Figures:
    """Read anew at each call of Prometheus', from what the chief has in memory."""

    def __init__(self, chief: Chief) -> None:
        self._chief = chief
        self._loop = asyncio.get_running_loop()

    def collect(self) -> list[Any]:
        """The figures, as prometheus_client wants them; it asks in a thread of its own."""
        return asyncio.run_coroutine_threadsafe(self._read(), self._loop).result(_ANSWER_S)

    async def _read(self) -> list[Any]:
        return list(self._figures())

    def _figures(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        coordinator, labels = self._chief.coordinator, ["run", "state"]
        run = self._chief.run.id
        trials = GaugeMetricFamily("tunefleet_trials", "Trials by state", labels=labels)
        unfinished = collections.Counter(record.state for record in coordinator.pending)
        for state in TrialState:
            count = coordinator.count(state) if state.ended else unfinished[state]
            trials.add_metric([run, state.value.lower()], count)
        yield trials
        running = unfinished[TrialState.RUNNING]
        there = len(coordinator.workers)
        best, wanted = coordinator.best, coordinator.rules.wanted
        value = math.nan if best is None or best.value is None else best.value
        rows: list[tuple[str, str, float]] = [
            ("trials_wanted", "Trials that were asked for", math.nan if wanted is None else wanted),
            ("best_value", "The best completed trial's value of the objective", value),
            ("workers", "Workers that hold a lease", there),
            ("workers_wanted", "Workers that are wanted", coordinator.crew.size),
            ("utilization", "The share of the workers that run a trial", running / max(1, there)),
            ("queue", "Trials that wait for a worker", unfinished[TrialState.WAITING]),
        ]
        for name, words, figure in rows:
            gauge = GaugeMetricFamily(f"tunefleet_{name}", words, labels=["run"])
            gauge.add_metric([run], figure)
            yield gauge


@contextlib.contextmanager
def serving(chief: Chief) -> Iterator[None]:
    """Serves the figures while the context lasts, if the environment names a port.

    Raises PlaceError where the port cannot be had.
    """
    port = env.metrics_port()
    if port is None:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(_Figures(chief))
    try:
        server, thread = start_http_server(port, registry=registry)
    except OSError as error:
        raise PlaceError(
            f"cannot serve metrics at port {port}: {error.strerror}: set {env.METRICS_PORT} to "
            "another, or to nothing"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
