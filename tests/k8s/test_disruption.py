"""What befalls pods and nodes costs attempts, and no result."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.k8s.conftest import Held
from tests.k8s.namespace import LONG_S, Namespace, Watched
from tests.k8s.tensorboard import TensorBoard, open_tensorboard

# Longer than all waits of one test together: see PATIENCE_S.
pytestmark = [pytest.mark.k8s, pytest.mark.timeout(1800)]

# What runs has no long time to end, and is missed soon.
BRIEF = ["--lease=8", "--grace=2", *Held.words]


def test_what_befalls_pods_and_nodes_costs_no_result(space: Namespace, held: Held) -> None:
    handle = space.handle("storm")
    held.free(2)
    space.submit(held.study, "storm", "--workers=2", "--trials=12", *BRIEF)
    logged = space.follow("logs", handle, "-f")
    try:
        with Watched(space, handle) as watched, TensorBoard(space, handle) as shown:
            watched.until(2)
            # Each of what comes now meets trials that run.
            lost = lose_a_node(space)
            lose_chiefs(space, shown)
            lose_workers(space)
            # The node's is given up once the cluster is sure of it.
            space.await_another("storm", "worker-2", lost)
            held.free(12)
            space.await_end("storm")
            assert [shown.page(), shown.page()] == ["", ""]
            # Asked twice, said once; and no viewer came, which whoever resumes would wait for.
            assert shown.end().count("run storm goes on no more: end this, and ask again") == 1
            assert not space.pod("storm", "viewer")
            status, said = watched.end()
        log, _ = logged.communicate(timeout=LONG_S)
    finally:
        logged.kill()
    assert (status, logged.returncode) == (0, 0), said + log
    # What ended as a chief went is in the next sum, and in no line of its own.
    assert "DONE: 12 of 12 trials" in said and said.count("trial 0011 COMPLETED") <= 1
    # Of each chief.
    assert log.count("serving run storm") == 3
    assert log.rstrip().endswith("leaving with exit status 0")
    space.check_trials("storm", 12)


def lose_a_node(space: Namespace) -> Any:
    """Loses a node, with a worker that went nowhere else; answers that one's pod."""
    space.plane.add_node("three", 3, "--label", "doomed=yes")
    space.plane.kubectl("cordon", "one", "two")
    scale(space, "storm", 2, 3)
    lost = space.await_pod("storm", "worker-2")
    assert lost["spec"]["nodeName"] == "three"
    space.plane.kubectl("uncordon", "one", "two")
    space.await_log("storm", "worker-2", "attempt 1")
    space.plane.kill_node("three")
    return lost


def lose_chiefs(space: Namespace, shown: TensorBoard) -> None:
    """Loses one that is told to go, and one that is killed."""
    shown.await_page()
    chief = space.await_pod("storm", "chief")
    space.kubectl("delete", "pod", chief["metadata"]["name"], "--wait=false")
    chief = space.await_another("storm", "chief", chief)
    space.await_log("storm", "chief", "serving run storm")
    # Of the next one's.
    shown.await_page()
    space.plane.kill_container(chief, "chief")
    space.await_another("storm", "chief", chief)
    shown.await_page()


def lose_workers(space: Namespace) -> None:
    """Loses one that is evicted, and one that is gone without a word."""
    worker = space.await_pod("storm", "worker-1")
    _evict(space, worker["metadata"]["name"])
    space.await_another("storm", "worker-1", worker)
    worker = space.await_pod("storm", "worker-0")
    gone = ("--wait=false", "--grace-period=0", "--force")
    space.kubectl("delete", "pod", worker["metadata"]["name"], *gone)


def _evict(space: Namespace, pod: str) -> None:
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": space.name},
    }
    path = f"/api/v1/namespaces/{space.name}/pods/{pod}/eviction"
    space.kubectl("create", "--raw", path, "-f", "-", said=json.dumps(eviction))
    conditions = space.one("pods", pod)["status"]["conditions"]
    assert any(row["type"] == "DisruptionTarget" for row in conditions)


def test_a_run_is_scaled_stopped_and_resumed(space: Namespace, held: Held) -> None:
    handle = space.handle("elastic")
    held.free(1)
    space.submit(held.study, "elastic", "--workers=2", "--trials=12", *BRIEF)
    space.await_pod("elastic", "worker-1")
    scale(space, "elastic", 2, 4)
    # Which takes seconds: the pods start beside it.
    assert open_tensorboard(space, handle).startswith("<!doctype html>")
    assert space.pod("elastic", "chief") and not space.pod("elastic", "viewer")
    space.await_log("elastic", "worker-3", "attempt 1")
    scale(space, "elastic", 4, 1)
    space.until("elastic", lambda: len(space.pods("elastic", "worker")) == 1, "one worker's pod")
    space.until("elastic", lambda: workers(space, "elastic") == {"worker-0"}, "one worker alone")
    # The one that stays goes on with the search.
    before = space.completed("elastic")
    with Watched(space, handle) as watched:
        held.free(5)
        watched.until(before + 1)
    assert space.completed("elastic") > before
    assert space.read("status", "elastic")["state"] == "RUNNING"

    said = space.launch("stop", handle).stdout
    assert f"go on with: python launch.py resume {handle}" in said
    assert not space.pod("elastic", "chief") and not space.pod("elastic", "worker-0")
    # A viewer answers meanwhile.
    status = space.read("status", "elastic")
    assert status["state"] == "STOPPED"
    refused = space.launch("scale", handle, "--workers", "1", status=2)
    assert f"resume {handle} --workers 1" in refused.stderr

    space.launch("resume", handle, "--workers", "2")
    space.await_pod("elastic", "worker-1")
    scale(space, "elastic", 2, 4)
    for number in range(4):
        space.await_log("elastic", f"worker-{number}", ", attempt ")
    held.free(12)
    space.await_end("elastic")
    rows = space.check_trials("elastic", 12)
    assert {row["worker"] for row in rows} == {f"worker-{number}" for number in range(4)}


def scale(space: Namespace, run_id: str, before: int, wanted: int) -> None:
    said = space.launch("scale", space.handle(run_id), "--workers", str(wanted)).stdout
    assert f"{wanted} workers wanted, {before} before" in said


def workers(space: Namespace, run_id: str) -> set[str]:
    """The workers that the chief counts, which are those that the cluster runs."""
    status = space.read("status", run_id)
    parts = {row["part"] for row in status["pods"] if row["phase"] == "Running"} - {"chief"}
    here = {row["id"] for row in status["workers"]}
    return here if parts == here else set()
