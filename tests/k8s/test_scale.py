"""A thousand workers: what is typed answers within seconds. Most of their nodes are of paper."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.standing import There, part_of
from tests.k8s.conftest import Namespace
from tests.k8s.control_plane import ControlPlane
from tests.support.cli_runs import wait_until

pytestmark = pytest.mark.k8s

# What a person waits for without asking why.
PATIENCE_S = 10.0


def timed(verb: Callable[[], Any]) -> Any:
    """What it answers, in time: less the time that this machine was at work for others.

    The control plane with its thousand pods is no other: its time counts.
    """
    began, busy, own = time.monotonic(), _busy_s(), _own_s()
    answer = verb()
    took = time.monotonic() - began
    others = max(0.0, (_busy_s() - busy) - (_own_s() - own)) / (psutil.cpu_count() or 1)
    print(f"{took:.1f} s, of which for others {others:.1f} s")
    assert took - others < PATIENCE_S
    return answer


def _busy_s() -> float:
    """The CPU seconds of all processes since this machine began."""
    spent = psutil.cpu_times()
    return float(spent.user + spent.nice + spent.system)


def _own_s() -> float:
    """Those of this test, of all that it started and of what these have ended."""
    total = 0.0
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


@pytest.fixture
def paper(plane: ControlPlane) -> Iterator[None]:
    """Nodes for a thousand workers, and for no chief."""
    names = [f"paper-{number}" for number in range(4)]
    words = ["--paper", "--pods=300", "--gpus=250", "--taint=nvidia.com/gpu=paper:NoSchedule"]
    for number, name in enumerate(names):
        plane.add_node(name, 20 + number, *words)
    yield
    for name in names:
        plane.kill_node(name)


def workers(space: Namespace) -> int:
    """How many workers' pods are there."""
    labels = "app.kubernetes.io/component=worker"
    return len(space.kubectl("get", "pods", "-l", labels, "-o", "name").splitlines())


@pytest.mark.usefixtures("paper")
def test_a_thousand_workers(space: Namespace, unhurried: str) -> None:
    words = ["--workers=1000", "--gpus-per-worker=1", "--trials=100", "--lease=20"]
    timed(lambda: space.submit(unhurried, "crowd", *words))
    space.await_pod("crowd", "chief")
    wait_until(lambda: workers(space) == 1000, "a thousand pods", 180)

    # What asks whether pods start is not answered with a thousand.
    whole = argparse.Namespace(kubeconfig=space.plane.kubeconfig, context=None)
    some = There(Connection(whole, space.name), "crowd").look(20).pods
    assert [part_of(pod) == "chief" for pod in some] == [True] + [False] * 19

    rows = timed(lambda: space.read("status", "crowd"))["pods"]
    assert len(rows) == 1001
    wait_until(
        lambda: {row["phase"] for row in space.read("status", "crowd")["pods"]} == {"Running"},
        "a thousand pods that run",
        180,
    )
    timed(lambda: space.launch("scale", space.handle("crowd"), "--workers", "500"))
    wait_until(lambda: workers(space) == 500, "five hundred pods", 180)
    timed(lambda: space.launch("status", space.handle("crowd")))
