"""Chiefs started by hand, with KerasTuner's variables."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys

from hpo import env
from hpo.address import joined
from hpo.fleet.client import ChiefClient
from hpo.run import Run
from hpo.status import status_of
from hpo.study import digest_of
from hpo.token_file import read
from tests.support.cli_runs import LONG, ROOT, STUDIES, wait_until

STUDY = STUDIES / "slow.py"


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class HandMade:
    """A chief at ``host``, with its own variables in ``own``."""

    def __init__(
        self,
        runs: pathlib.Path,
        run_id: str,
        port: int,
        trials: int = 2,
        host: str = "127.0.0.1",
        own: dict[str, str] | None = None,
        study: pathlib.Path = STUDY,
    ) -> None:
        self.port = port
        self.folder = runs / run_id
        self.address = joined(host, port)
        # Whoever a test plays does not renew its lease.
        options = ["--id", run_id, "--runs", str(runs), "--trials", str(trials), "--lease", LONG]
        role = env.Role("chief", host, port).to_env()
        self.process = subprocess.Popen(
            [sys.executable, "launch.py", "run", str(study), "--seed", "1", *options],
            cwd=ROOT,
            env={**os.environ, **role, **(own or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def role(self, worker_id: str) -> dict[str, str]:
        """The variables that make a process a worker of this chief."""
        host, _, port = self.address.rpartition(":")
        return env.Role(worker_id, host.strip("[]"), int(port)).to_env()

    @property
    def run(self) -> Run:
        wait_until(lambda: (self.folder / "ledger.db").exists(), "the run")
        run = Run(self.folder)
        if self.process.poll() is None:
            wait_until(lambda: status_of(run)["chief"]["address"], "the chief")
        return run

    def client(self, worker_id: str = "w", incarnation: str = "1") -> ChiefClient:
        secret = read(self.run.token_file)
        return ChiefClient(self.address, secret.token, worker_id, incarnation, secret.certificates)

    def joined(self, worker_id: str = "w", incarnation: str = "1") -> ChiefClient:
        client = self.client(worker_id, incarnation)
        client.join("here", os.getpid(), "cpu", digest_of(STUDY))
        return client
