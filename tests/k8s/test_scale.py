"""A thousand workers: what is typed answers within seconds. Most of their nodes are of paper."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.k8s.conftest import Namespace
from tests.k8s.control_plane import ControlPlane
from tests.live import wait_until

pytestmark = pytest.mark.k8s

# What a person waits for without asking why.
PATIENCE_S = 10.0


def timed(verb: Callable[[], Any]) -> Any:
    """What it answers, in time."""
    began = time.monotonic()
    answer = verb()
    took = time.monotonic() - began
    print(f"{took:.1f} s")
    assert took < PATIENCE_S
    return answer


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
