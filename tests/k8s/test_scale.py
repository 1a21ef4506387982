"""A thousand workers: what is typed costs seconds. Most of their nodes are of paper."""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.standing import There, part_of
from tests.k8s.conftest import Held
from tests.k8s.control_plane import ControlPlane
from tests.k8s.namespace import Namespace

# Longer than all waits of one test together: see PATIENCE_S.
pytestmark = [pytest.mark.k8s, pytest.mark.timeout(1800)]

# What a person waits for without asking why, on a machine that does nothing else.
MOST_S = 10.0


def cheap(verb: Callable[[], Any]) -> Any:
    """What it answers, for few CPU seconds: no clock tells how much a busy machine has to do."""
    before = _spent_s()
    answer = verb()
    spent = _spent_s() - before
    print(f"{spent:.1f} s")
    assert spent < MOST_S
    return answer


def _spent_s() -> float:
    """The CPU seconds of all that was typed so far; what the cluster did is not among them."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


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


def await_workers(space: Namespace, wanted: int) -> None:
    """Waits until so many workers' pods are there, and ready."""

    def stand() -> bool:
        # A list of a thousand pods is dear; the Job counts them.
        job = space.one("jobs", "tunefleet-crowd-worker")
        counts = (job["status"].get("active"), job["status"].get("ready"))
        return job["spec"]["parallelism"] == wanted and counts == (wanted, wanted)

    space.until("crowd", stand, f"{wanted} pods that run")


@pytest.mark.usefixtures("paper")
def test_a_thousand_workers(space: Namespace, held: Held) -> None:
    words = ["--workers=1000", "--gpus-per-worker=1", "--trials=100", "--lease=20"]
    cheap(lambda: space.submit(held.study, "crowd", *words))
    space.await_pod("crowd", "chief")
    await_workers(space, 1000)

    # What asks whether pods start is not answered with a thousand.
    whole = argparse.Namespace(kubeconfig=space.plane.kubeconfig, context=None)
    some = There(Connection(whole, space.name), "crowd").look(20).pods
    assert [part_of(pod) == "chief" for pod in some] == [True] + [False] * 19

    rows = cheap(lambda: space.read("status", "crowd"))["pods"]
    assert len(rows) == 1001 and {row["phase"] for row in rows} == {"Running"}
    cheap(lambda: space.launch("scale", space.handle("crowd"), "--workers", "500"))
    await_workers(space, 500)
    cheap(lambda: space.launch("status", space.handle("crowd")))
