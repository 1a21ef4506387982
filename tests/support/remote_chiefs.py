"""Chiefs and workers by hand, beyond loopback, for the tests of security."""

from __future__ import annotations

import pathlib
import socket
import subprocess
from collections.abc import Callable, Iterator

import psutil
import pytest

from hpo import env
from tests.support.cli_runs import LiveRun, launch
from tests.support.manual_chief import STUDY, HandMade, free_port
from tests.support.network_namespaces import ip

Start = Callable[..., LiveRun]
SLOW = str(STUDY)


@pytest.fixture(scope="module")
def beyond() -> Iterator[str]:
    """An address of this machine that is not loopback."""
    for addresses in psutil.net_if_addrs().values():
        for found in addresses:
            if found.family is socket.AF_INET and not found.address.startswith("127."):
                yield found.address
                return
    ip("link", "add", "tunefleet0", "type", "dummy")
    try:
        ip("address", "add", "198.51.100.1/24", "dev", "tunefleet0")
        ip("link", "set", "tunefleet0", "up")
        yield "198.51.100.1"
    finally:
        ip("link", "delete", "tunefleet0")


@pytest.fixture(params=["loopback", "beyond"])
def host(request: pytest.FixtureRequest, beyond: str) -> str:
    return beyond if request.param == "beyond" else "127.0.0.1"


@pytest.fixture
def make_chief(tmp_path: pathlib.Path) -> Iterator[Callable[..., HandMade]]:
    """Starts chiefs by hand at a host, with variables of their own."""
    made: list[HandMade] = []

    def begin(host: str, own: dict[str, str] | None = None, trials: int = 2) -> HandMade:
        name = f"hand{len(made)}"
        made.append(HandMade(tmp_path / "runs", name, free_port(host), trials, host, own))
        return made[-1]

    yield begin
    for chief in made:
        chief.process.kill()
        chief.process.communicate()


def worker_by_hand(
    host: str, port: int, file: pathlib.Path, name: str = "far-1"
) -> subprocess.CompletedProcess[str]:
    """A worker that was started by hand and has left."""
    own = {**env.Role(name, host, port).to_env(), env.TOKEN_FILE: str(file)}
    done: subprocess.CompletedProcess[str] = launch(
        "run", SLOW, "--runs", str(file.parent / "none"), env=own
    )
    return done
