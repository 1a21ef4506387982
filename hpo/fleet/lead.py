"""The life of a chief's process: it opens the run, serves, obeys signals, and leaves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence

from hpo import env
from hpo.fleet.chief import Chief
from hpo.fleet.metrics import serving
from hpo.fleet.projection import TENSORBOARD, Kind
from hpo.fleet.server import start_server
from hpo.run import Run

_EXIT_DRAINED = 75
_SWITCH_S = 0.0005
# Collections of the middle generation before one of all, where Python has 10.
_FULL_COLLECTION_AFTER = 1000
# As a shell says it: ended by Ctrl-C.
_EXIT_INTERRUPTED = 128 + signal.SIGINT


# What runs trials beside the chief, in its own process, as long as that serves.
Beside = Callable[[Chief], contextlib.AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def _nobody(_: Chief) -> AsyncIterator[None]:
    yield


async def lead(
    run: Run, role: env.Role, beside: Beside = _nobody, also: Sequence[Kind] = ()
) -> int:
    """Leads the search of ``run``; answers the exit status once it is over.

    It is shown in TensorBoard and in whatever ``also`` names.
    """
    # A call waits so long at most for the threads that write, not for Python's 5 ms each time.
    sys.setswitchinterval(_SWITCH_S)
    chief = Chief(run, (TENSORBOARD, *also))
    _look_at_the_old_rarely()
    server = None
    try:
        server = await start_server(chief, role.host, role.port)
        interrupts = _obey_signals(chief)
        with serving(chief):
            async with beside(chief):
                status = await chief.serve(server.address)
        return _EXIT_INTERRUPTED if status == _EXIT_DRAINED and interrupts else status
    finally:
        if server:
            await server.stop(grace=1.0)
        chief.close()


def _look_at_the_old_rarely() -> None:
    """Keeps the garbage collector from stopping everything for long.

    A look through all that lives takes 56 ms with a thousand workers, and came every few
    seconds; young garbage, which each call leaves, is collected as before.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], _FULL_COLLECTION_AFTER)


def _obey_signals(chief: Chief) -> list[int]:
    """SIGTERM drains for as long as the grace period, Ctrl-C without a limit; a second one of
    either puts back at once what runs. `run` itself tells its chief by a call instead.
    The answer grows by one for each Ctrl-C.
    """
    loop = asyncio.get_running_loop()
    grace_s = env.grace_s()
    asked: list[int] = []
    interrupts: list[int] = []

    def drain(suspend: bool = False) -> None:
        asked.append(1)
        chief.coordinator.drain(len(asked) > 1, suspend)

    def terminate() -> None:
        drain(suspend=True)
        loop.call_later(grace_s, chief.coordinator.drain, True)

    def interrupt() -> None:
        interrupts.append(1)
        drain()

    loop.add_signal_handler(signal.SIGTERM, terminate)
    if os.environ.get(env.SUPERVISED):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        loop.add_reader(sys.stdin.fileno(), _leave_at_end_of_input, chief)
    else:
        loop.add_signal_handler(signal.SIGINT, interrupt)
    return interrupts


def _leave_at_end_of_input(chief: Chief) -> None:
    """`run` holds the other end of standard input; when it is gone, so is the chief."""
    if not os.read(sys.stdin.fileno(), 1):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        chief.abandon()
