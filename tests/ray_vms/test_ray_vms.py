"""`ray up` with the file for hosts of one's own, over real SSH: from nothing to the best trial."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ray_vms.hosts import SshHosts
from tests.support.cli_runs import ROOT, wait_until

pytestmark = [pytest.mark.ray_vms, pytest.mark.timeout(3000)]

STUDY = str(ROOT / "tests" / "ray_vms" / "steps.py")
HANDLE = "raycluster://127.0.0.1:8265/sent"


@pytest.fixture(scope="module")
def hosts() -> Iterator[SshHosts]:
    """A head, two workers and a desk, where `ray up` was typed."""
    # Not where each host has a folder of its own.
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="tunefleet-", dir="/var/tmp"))
    try:
        made = SshHosts(3, scratch)
    except (OSError, subprocess.CalledProcessError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        pytest.skip(f"namespaces and sshd cannot be used here: {error}")
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="module")
def dashboard(hosts: SshHosts) -> Iterator[subprocess.Popen[str]]:
    """The cluster is up, and its dashboard's port is led to the desk."""
    up = ("ray", "up", "-y", "--no-config-cache", str(hosts.config))
    try:
        hosts.done(*up, timeout=1200)
    except AssertionError:
        # Ray gives its own processes half a minute, which is little where others are busy too.
        hosts.done("ray", "down", "-y", str(hosts.config))
        hosts.done(*up, timeout=1200)
    leading = hosts.type("ray", "dashboard", str(hosts.config))
    wait_until(lambda: _launch(hosts, "list", "--on", "ray")[0] == 0, "the dashboard", 300)

    def nodes() -> int:
        status, said = _launch(hosts, "doctor", "--on", "ray", "--json")
        return len(json.loads(said)["nodes"].split("; ")) if status == 0 else 0

    wait_until(lambda: nodes() == 3, "three nodes", 600)
    yield leading
    _end(leading)


def _end(typed: subprocess.Popen[str]) -> None:
    """Ends a command with all that it started, if that has not happened."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(typed.pid, signal.SIGKILL)
    typed.wait()


def _launch(hosts: SshHosts, *words: str, timeout: float = 600) -> tuple[int, str]:
    typed = hosts.type("python", "launch.py", *words)
    said, _ = typed.communicate(timeout=timeout)
    return typed.returncode, said


def _rows(hosts: SshHosts, run_id: str) -> list[dict[str, Any]]:
    """What the head's own `launch.py` reads, from the desk."""
    status, said = _launch(hosts, "trials", HANDLE.replace("sent", run_id), "--json")
    assert status == 0, said
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def test_ray_submit_searches_on_all_hosts(hosts: SshHosts, dashboard: object) -> None:
    run = ("run", STUDY, "--engine", "ray", "--id", "plain", "--trials", "3", "--workers", "3")
    said = hosts.done("ray", "submit", str(hosts.config), "launch.py", "--", *run, "--seed", "1")
    assert "run plain DONE: 3 of 3 trials ended" in said, said[-2000:]
    rows = _rows(hosts, "plain")
    assert {row["state"] for row in rows} == {"COMPLETED"} and len(rows) == 3


def test_a_search_outlives_a_host_that_is_cut_off(hosts: SshHosts, dashboard: object) -> None:
    place = ("--on", "ray", "--id", "sent")
    size = ("--trials", "9", "--workers", "3", "--seed", "1", "--lease", "10")
    status, said = _launch(hosts, "submit", STUDY, *place, *size)
    assert status == 0 and HANDLE in said, said

    def busy() -> set[str]:
        status, said = _launch(hosts, "status", HANDLE, "--json")
        found = json.loads(said.splitlines()[-1]) if status == 0 else {"workers": []}
        return {worker["host"] for worker in found["workers"] if worker["trial_id"]}

    wait_until(lambda: len(busy()) == 3, "a trial on each host", 900)
    hosts.network.plug(2, is_in=False)
    status, said = _launch(hosts, "watch", HANDLE, timeout=1500)
    assert status == 0, said
    rows = _rows(hosts, "sent")
    done = [row for row in rows if row["state"] == "COMPLETED"]
    assert len({row["trial_id"] for row in done}) == len(done) == 9
    assert {row["failure"] for row in rows} == {None, "PREEMPTED"}
    hosts.network.plug(2, is_in=True)


def test_ray_down_leaves_nothing(hosts: SshHosts, dashboard: subprocess.Popen[str]) -> None:
    # It is a command on the head, too.
    _end(dashboard)
    hosts.done("ray", "down", "-y", str(hosts.config))
    for number in range(3):
        wait_until(lambda n=number: not hosts.running(n), f"nothing on host {number}", 240)
