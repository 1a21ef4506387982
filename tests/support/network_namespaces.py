"""Hosts of a network, each a namespace of this machine with an address of its own."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
from collections.abc import Sequence

_SUBNET = "10.77.0"


class Network:
    """So many hosts, joined by a switch, with cables that can be pulled out.

    ``close`` takes everything away again. Raises OSError or CalledProcessError where this
    machine or this user cannot have namespaces.
    """

    def __init__(self, hosts: int) -> None:
        self._prefix = f"tunefleet{os.getpid()}"
        self._switch = f"{self._prefix}-switch"
        self._made: list[str] = []
        try:
            self._make(self._switch)
            ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
            ip("-n", self._switch, "link", "set", "bridge", "up")
            for number in range(hosts):
                self._add(number)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Takes the namespaces away, and ends what is in them."""
        for name in self._made:
            self._end(name)
            subprocess.run(["ip", "netns", "delete", name], check=False)

    @staticmethod
    def address(number: int) -> str:
        """The address of a host."""
        return f"{_SUBNET}.{number + 1}"

    def command(self, number: int, words: Sequence[str], hidden: pathlib.Path) -> list[str]:
        """``words`` as a command on a host where the folder ``hidden`` is empty."""
        script = 'mount -t tmpfs none "$0" && exec "$@"'
        return ["ip", "netns", "exec", self.name(number), "sh", "-c", script, str(hidden), *words]

    def lose(self, number: int) -> None:
        """A host is gone, as by a power cut: what runs there is killed without a word."""
        self._end(self.name(number))

    def plug(self, number: int, is_in: bool) -> None:
        """Pulls a host's cable out of the switch, or puts it in again."""
        ip("-n", self._switch, "link", "set", f"port{number}", "up" if is_in else "down")

    def _add(self, number: int) -> None:
        host, port = self.name(number), f"port{number}"
        self._make(host)
        ip(
            "link",
            "add",
            "eth0",
            "netns",
            host,
            "type",
            "veth",
            "peer",
            port,
            "netns",
            self._switch,
        )
        ip("-n", self._switch, "link", "set", port, "master", "bridge", "up")
        ip("-n", host, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", host, "link", "set", device, "up")

    def _end(self, name: str) -> None:
        inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, check=False)
        for pid in map(int, inside.stdout.split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _make(self, name: str) -> None:
        ip("netns", "add", name)
        self._made.append(name)

    def name(self, number: int) -> str:
        """The host's namespace."""
        return f"{self._prefix}-{number}"


def ip(*words: str) -> None:
    """Runs `ip` with these words."""
    subprocess.run(["ip", *words], check=True, capture_output=True)
