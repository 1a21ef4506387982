"""What a worker with nothing to do costs its chief."""

from __future__ import annotations

import collections
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from hpo import env
from hpo.fleet.client import ChiefClient, Granted
from hpo.protocol import Verdict
from tests.support.cli_runs import ROOT, wait_until
from tests.support.manual_chief import STUDY, HandMade, free_port


@pytest.fixture
def chief(tmp_path: pathlib.Path) -> Iterator[HandMade]:
    made = HandMade(tmp_path / "runs", "hand", free_port())
    yield made
    made.process.kill()
    made.process.communicate()


def hold(client: ChiefClient, worker_id: str) -> int:
    """Takes a trial; its fencing number."""
    answer = client.create_trial(worker_id)
    assert isinstance(answer, Granted)
    return answer.fence


class Relay(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Stands between a worker and its chief, and counts the calls that pass."""

    def __init__(self, address: str) -> None:
        self.calls: collections.Counter[str] = collections.Counter()
        self._chief = grpc.insecure_channel(address)
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), handlers=[self])
        self.port: int = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def service(self, details: Any) -> Any:
        self.calls[details.method.rpartition("/")[2]] += 1

        def pass_on(request: bytes, context: Any) -> bytes:
            ours = ("authorization", "tunefleet-")
            metadata = [m for m in context.invocation_metadata() if m.key.startswith(ours)]
            method = self._chief.unary_unary(details.method)
            answer, call = method.with_call(request, metadata=metadata, timeout=30)
            context.set_trailing_metadata(call.trailing_metadata())
            return bytes(answer)

        return grpc.unary_unary_rpc_method_handler(pass_on)

    def close(self) -> None:
        self._server.stop(grace=None)
        self._chief.close()


def test_an_idle_worker_calls_no_more_than_once_a_second(chief: HandMade) -> None:
    busy = {name: chief.joined(name) for name in ("a", "b")}
    fences = {name: hold(client, name) for name, client in busy.items()}

    def asks() -> int:
        for name, client in busy.items():
            assert client.beat(fences[name]) is Verdict.GO_ON
        return relay.calls["CreateTrial"]

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
        wait_until(asks, "the idle worker asks")
        before, began = relay.calls.copy(), time.monotonic()
        while time.monotonic() - began < 4.0:
            asks()
            time.sleep(0.5)
        elapsed = time.monotonic() - began
    finally:
        worker.kill()
        worker.wait()
        relay.close()
    calls = relay.calls - before
    assert 2 <= calls["CreateTrial"] <= elapsed + 1
    # Beside its asks an idle worker renews its lease of five seconds, thrice in its time.
    assert calls.total() - calls["CreateTrial"] == calls["Beat"] <= elapsed / (5 / 3) + 1
