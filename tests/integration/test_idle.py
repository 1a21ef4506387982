"""What a worker with nothing to do costs its chief."""

from __future__ import annotations

import collections
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from hpo import env
from hpo.fleet.client import Granted
from tests.support.cli_runs import PATIENCE_S, ROOT, wait_until
from tests.support.manual_chief import STUDY, HandMade, free_port


@pytest.fixture
def chief(tmp_path: pathlib.Path) -> Iterator[HandMade]:
    made = HandMade(tmp_path / "runs", "hand", free_port())
    yield made
    made.process.kill()
    made.process.communicate()


class Relay(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Stands between a worker and its chief, and counts the calls that pass."""

    def __init__(self, address: str) -> None:
        self.calls: collections.Counter[str] = collections.Counter()
        self.answered: collections.Counter[str] = collections.Counter()
        # The most calls of a kind that were under way at one time.
        self.at_once: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        self._chief = grpc.insecure_channel(address)
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), handlers=[self])
        self.port: int = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]

        def pass_on(request: bytes, context: Any) -> bytes:
            with self._lock:
                self.calls[name] += 1
                under_way = self.calls[name] - self.answered[name]
                self.at_once[name] = max(self.at_once[name], under_way)
            ours = ("authorization", "tunefleet-")
            metadata = [m for m in context.invocation_metadata() if m.key.startswith(ours)]
            method = self._chief.unary_unary(details.method)
            answer, call = method.with_call(request, metadata=metadata, timeout=PATIENCE_S)
            context.set_trailing_metadata(call.trailing_metadata())
            with self._lock:
                self.answered[name] += 1
            return bytes(answer)

        return grpc.unary_unary_rpc_method_handler(pass_on)

    def close(self) -> None:
        self._server.stop(grace=None)
        self._chief.close()


def test_an_idle_worker_asks_once_at_a_time_and_calls_for_nothing_else(chief: HandMade) -> None:
    """How long the chief holds an answer back is asked of its service, in tests/unit."""
    for name in ("a", "b"):
        assert isinstance(chief.joined(name).create_trial(name), Granted)
    relay = Relay(chief.address)
    role = env.Role("idle", "127.0.0.1", relay.port).to_env()
    worker = subprocess.Popen(
        [sys.executable, "launch.py", "run", str(STUDY)],
        cwd=ROOT,
        env={**os.environ, **role, env.TOKEN_FILE: str(chief.run.token_file)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: relay.answered["CreateTrial"] >= 4, "it has asked again and again")
    finally:
        worker.kill()
        worker.wait()
        relay.close()
    assert relay.at_once["CreateTrial"] == 1
    # Asking renews its lease too.
    assert relay.calls.keys() == {"Join", "CreateTrial"}
    assert relay.calls["Join"] == 1
