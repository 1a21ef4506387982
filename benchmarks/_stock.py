"""Stock KerasTuner's chief as a process, and a worker without trials for it and for ours."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
from typing import Any, Self

import grpc
from _fleet import ROOT

from hpo import env
from hpo.fleet import fleet_pb2, wire

_PATIENCE_S = 120.0
# What gRPC itself says of a call, which is not to be said again.
Metadata = list[tuple[str, str]]


class NoopWorker:
    """The four calls that KerasTuner's worker makes for a trial, to any chief that takes them."""

    def __init__(self, address: str, worker_id: str, metadata: Metadata) -> None:
        self._channel = grpc.insecure_channel(address)
        self._oracle = wire.stubs.OracleStub(self._channel)
        self._id = worker_id
        self._metadata = metadata

    def trial(self) -> None:
        """One trial from its grant to its end."""
        trial, fence = self._create()
        metadata = [*self._metadata, *fence]
        service = wire.service
        self._call("GetTrial", service.GetTrialRequest(trial_id=trial.trial_id), metadata)
        report = service.UpdateTrialRequest(trial_id=trial.trial_id, metrics={"loss": 0.5}, step=1)
        self._call("UpdateTrial", report, metadata)
        trial.status = wire.types.COMPLETED
        self._call("EndTrial", service.EndTrialRequest(trial=trial), metadata)

    def work(self) -> None:
        """Trials until the chief no longer answers."""
        with contextlib.suppress(grpc.RpcError):
            while True:
                self.trial()

    def _create(self) -> tuple[Any, Metadata]:
        request = wire.service.CreateTrialRequest(tuner_id=self._id)
        while True:
            reply, trailing = self._call("CreateTrial", request, self._metadata)
            if reply.trial.status == wire.types.RUNNING:
                grant = dict(trailing).get(wire.GRANT)
                fence = fleet_pb2.Grant.FromString(grant).fence if grant else None
                return reply.trial, [(wire.FENCE, str(fence))] if fence else []

    def _call(self, name: str, request: Any, metadata: Metadata) -> tuple[Any, Any]:
        method = getattr(self._oracle, name)
        reply, call = method.with_call(
            request, metadata=metadata, timeout=_PATIENCE_S, wait_for_ready=True
        )
        return reply, call.trailing_metadata()


class Stock:
    """KerasTuner's chief, as its documentation starts one. Used as a context."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._role = env.Role(env.CHIEF_ID, "127.0.0.1", probe.getsockname()[1])

    def __enter__(self) -> Self:
        self._popen = subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks" / "stock_chief.py"), str(self._folder)],
            env={**os.environ, **self._role.to_env(), "TF_CPP_MIN_LOG_LEVEL": "2"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def worker(self, worker_id: str = "worker-0") -> NoopWorker:
        """A worker of this chief that has run one trial, so the chief serves."""
        worker = NoopWorker(f"{self._role.host}:{self._role.port}", worker_id, [])
        worker.trial()
        return worker

    def kill(self) -> None:
        """kill -9."""
        self._popen.kill()
        self._popen.wait()

    def unreadable(self) -> set[str]:
        """The names of its files that are not JSON."""
        found = set()
        for path in self._folder.rglob("*.json"):
            try:
                json.loads(path.read_bytes())
            except ValueError:
                found.add(path.name)
        return found
