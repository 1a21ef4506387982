"""A Ray cluster of one node on this machine, in the environment that cluster/vm gives a node."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import psutil

from tests.support.cli_runs import ROOT, launch, processes_of
from tests.support.manual_chief import free_port

_ENVIRONMENT = ROOT / "cluster" / "vm" / "environment.sh"
_BIN = pathlib.Path(sys.executable).parent
# Ray gives its own processes half a minute, which is little where others are busy too.
_STARTS = 3


class RayHead:
    """A head, which can be killed and started again; ``close`` leaves nothing of it.

    ``home`` is the home of what runs there: runs lie in it. What runs there has the variables of
    ``environment`` besides.
    """

    def __init__(
        self,
        cpus: int = 2,
        gpus: int = 0,
        autoscaling: dict[str, Any] | None = None,
        dashboard: bool = True,
        **environment: str,
    ) -> None:
        # Short: Ray's sockets have their names in it.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rh-"))
        self.home = self.folder / "home"
        self.home.mkdir()
        self._cpus, self._gpus = cpus, gpus
        self._autoscaling, self._has_dashboard = autoscaling, dashboard
        self.port, self.dashboard = free_port(), free_port()
        self.token = self.home / ".ray" / "auth_token"
        self.token.parent.mkdir()
        self.token.write_text(secrets.token_hex(32))
        self._environment = environment
        self.start()

    @property
    def where(self) -> str:
        """The dashboard."""
        return f"127.0.0.1:{self.dashboard}"

    @property
    def guard(self) -> dict[str, str]:
        """The variables of whoever has the token."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token)}

    def start(self) -> None:
        """Starts the head, with no memory of an earlier one."""
        words = [str(_BIN / "ray"), "start", "--head", "--node-ip-address=127.0.0.1"]
        words += [f"--port={self.port}", f"--dashboard-port={self.dashboard}"]
        # Not Ray's usual ones, which another cluster of this machine may have.
        words += [f"--dashboard-agent-listen-port={free_port()}", "--dashboard-host=127.0.0.1"]
        words += [f"--ray-client-server-port={free_port()}"]
        words += [f"--num-cpus={self._cpus}", f"--num-gpus={self._gpus}"]
        words += [f"--temp-dir={self.folder}/r", "--object-store-memory=80000000"]
        words += ["--disable-usage-stats", f"--include-dashboard={self._has_dashboard}"]
        if self._autoscaling:
            config = self.folder / "scaling.json"
            provider = {**self._autoscaling["provider"], "gcs_address": f"127.0.0.1:{self.port}"}
            config.write_text(json.dumps({**self._autoscaling, "provider": provider}))
            words += [f"--autoscaling-config={config}"]
        for _ in range(_STARTS):
            said = self._ray(self.home, words)
            if said is None:
                return
            self.kill()
        raise AssertionError(f"no head of Ray: {said}")

    def join(self, cpus: int) -> pathlib.Path:
        """One more node of this machine joins; what runs there has the home that is returned."""
        home = self.folder / "joined"
        (home / ".ray").mkdir(parents=True, exist_ok=True)
        (home / ".ray" / "auth_token").write_text(self.token.read_text())
        words = [str(_BIN / "ray"), "start", f"--address=127.0.0.1:{self.port}"]
        words += ["--node-ip-address=127.0.0.1", f"--num-cpus={cpus}"]
        words += [f"--dashboard-agent-listen-port={free_port()}"]
        words += ["--object-store-memory=80000000", "--disable-usage-stats"]
        said = self._ray(home, words)
        assert said is None, said
        return home

    def _ray(self, home: pathlib.Path, words: list[str]) -> str | None:
        """Does a command of Ray's for somebody who lives at ``home``; None where it goes well."""
        own = {"HOME": str(home), "RAY_worker_niceness": "0", **self._environment}
        # The environment of this test is the one that is installed.
        words = [f'. "$0" && PATH="{_BIN}:$PATH" && exec "$@"', str(_ENVIRONMENT), *words]
        log = home / "start.log"
        with log.open("wb") as out:
            done = subprocess.run(
                ["sh", "-c", *words],
                env={**os.environ, **own},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        return log.read_text()[-2000:] if done.returncode else None

    def listening(self) -> set[int]:
        """The ports at which its processes listen."""
        found = set()
        for pid in processes_of(str(self.folder)):
            with contextlib.suppress(psutil.NoSuchProcess):
                for each in psutil.Process(pid).net_connections("tcp"):
                    if each.status == psutil.CONN_LISTEN:
                        found.add(each.laddr.port)
        return found

    def kill(self) -> None:
        """The head is gone, as by a power cut, with all that ran there.

        What answers from outside goes first: nobody hears it say that the others are gone.
        """
        for pid in processes_of(f"--port={self.dashboard}"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while (left := processes_of(str(self.folder))) and time.monotonic() < deadline:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.2)
        assert not left, left

    def launch(self, *words: str, timeout: float = 300, **own: str) -> Any:
        """A finished `launch.py` of somebody who has the token."""
        return launch(*words, env={**self.guard, **own}, timeout=timeout)

    def close(self) -> None:
        """Ends everything."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
