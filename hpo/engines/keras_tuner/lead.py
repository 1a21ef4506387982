"""The life of a chief's process: it opens the run, serves, obeys signals, and leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from hpo import env
from hpo.engines.keras_tuner.chief import Chief
from hpo.engines.keras_tuner.server import start_server
from hpo.run import Run


async def lead(run: Run, role: env.Role) -> int:
    """Leads the search of ``run``; answers the exit status once it is over."""
    chief = Chief(run)
    server = None
    try:
        server, address = await start_server(chief, role.host, role.port)
        _obey_signals(chief)
        return await chief.serve(address)
    finally:
        if server:
            await server.stop(grace=1.0)
        chief.close()


def _obey_signals(chief: Chief) -> None:
    """SIGTERM drains, a second one at once; `run` itself tells its chief by a call instead."""
    loop = asyncio.get_running_loop()
    asked: list[int] = []

    def drain() -> None:
        asked.append(1)
        chief.coordinator.drain(immediate=len(asked) > 1)

    loop.add_signal_handler(signal.SIGTERM, drain)
    if os.environ.get(env.SUPERVISED):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        loop.add_reader(sys.stdin.fileno(), _leave_at_end_of_input, chief)
    else:
        loop.add_signal_handler(signal.SIGINT, drain)


def _leave_at_end_of_input(chief: Chief) -> None:
    """`run` holds the other end of standard input; when it is gone, so is the chief."""
    if not os.read(sys.stdin.fileno(), 1):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        chief.abandon()
