"""A Ray cluster whose hosts are namespaces of this machine, with GPUs that are made up."""

from __future__ import annotations

import os
import pathlib
import secrets
import subprocess
import sys
from collections.abc import Sequence

from tests.support.network_namespaces import Network

PORT = 6379
# Ray's own command, of the environment in which the tests run.
_RAY = str(pathlib.Path(sys.executable).with_name("ray"))


class RayHosts:
    """Hosts on a network; on each but the first the folder ``hidden`` is empty.

    Ray's files lie in folders under ``scratch``, whose path must be short.
    """

    def __init__(self, network: Network, hidden: pathlib.Path, scratch: pathlib.Path) -> None:
        self._network = network
        self._hidden = hidden
        self._scratch = scratch
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        scratch.mkdir(parents=True, exist_ok=True)
        self._token = scratch / "token"
        self._token.write_text(secrets.token_hex(32))

    @property
    def address(self) -> str:
        """What RAY_ADDRESS should say."""
        return f"{self._network.address(0)}:{PORT}"

    @property
    def environment(self) -> dict[str, str]:
        """What every process of the cluster, and whoever joins it, must have."""
        guarded = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self._token)}
        # On a busy machine Ray's workers would wait for everything else.
        return {**guarded, "RAY_worker_niceness": "0"}

    def join(self, number: int, cpus: int, gpus: int) -> None:
        """The host becomes a node of the cluster, the first one its head; returns once it is."""
        own = self._network.address(number)
        where = ["--head", f"--port={PORT}", f"--temp-dir={self._scratch}/{number}"]
        if number:
            where = [f"--address={self.address}"]
        words = [_RAY, "start", "--block", f"--node-ip-address={own}", *where]
        words += [f"--num-cpus={cpus}", f"--num-gpus={gpus}", "--object-store-memory=80000000"]
        words += ["--disable-usage-stats", "--include-dashboard=false"]
        node = self._nodes[number] = self.start(number, words if number == 0 else words[:-1])
        assert node.stdout is not None
        said = b""
        while b"Ray runtime started" not in said:
            line = node.stdout.readline()
            assert line, f"no node on host {number}: {said.decode()}"
            said += line

    def start(self, number: int, words: Sequence[str], **own: str) -> subprocess.Popen[bytes]:
        """A command on a host, in a group of its own."""
        nothing = self._scratch / "nothing"
        nothing.mkdir(exist_ok=True)
        return subprocess.Popen(
            self._network.command(number, words, self._hidden if number else nothing),
            env={**os.environ, **self.environment, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def lose(self, number: int) -> None:
        """The host is gone, as by a power cut: what ran there is killed without a word."""
        self._network.lose(number)
        self._nodes.pop(number).communicate()

    def close(self) -> None:
        """Ends everything on all hosts."""
        for number in list(self._nodes):
            self.lose(number)
