"""What befalls pods and nodes costs attempts, and no result."""

from __future__ import annotations

import json

import pytest

from tests.k8s.conftest import Namespace
from tests.k8s.test_search import TensorBoard, open_tensorboard
from tests.support.cli_runs import wait_until

pytestmark = pytest.mark.k8s

# So long that each of what happens meets running trials.
LONG = ["--trials=16", "--lease=4", "--grace=5", "--seed=1"]


def test_chief_and_workers_come_back(space: Namespace, unhurried: str) -> None:
    space.submit(unhurried, "storm", "--workers=2", *LONG[1:], "--trials=40")
    space.await_pod("storm", "chief")
    wait_until(lambda: space.completed("storm") >= 1, "a first trial", 120)

    chief = space.pod("storm", "chief")["metadata"]
    with TensorBoard(space, space.handle("storm")) as shown:
        wait_until(shown.page, "the page of the first chief's TensorBoard", 90)
        space.kubectl("delete", "pod", chief["name"], "--wait=false")
        wait_until(lambda: _other(space, "storm", "chief", chief["uid"]), "another chief", 90)
        wait_until(shown.page, "the page of the next one's", 90)

        worker = space.await_pod("storm", "worker-1")["metadata"]
        _evict(space, worker["name"])
        wait_until(lambda: _other(space, "storm", "worker-1", worker["uid"]), "another worker", 90)

        worker = space.await_pod("storm", "worker-0")["metadata"]
        space.kubectl(
            "delete", "pod", worker["name"], "--wait=false", "--grace-period=0", "--force"
        )
        space.await_end("storm")
        assert [shown.page(), shown.page()] == ["", ""]
        # Asked twice, said once; and no viewer came, which whoever resumes would have to wait for.
        assert shown.end().count("run storm goes on no more: end this, and ask again") == 1
        assert not space.pod("storm", "viewer")
    space.check_trials("storm", 40)


def _evict(space: Namespace, pod: str) -> None:
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": space.name},
    }
    path = f"/api/v1/namespaces/{space.name}/pods/{pod}/eviction"
    space.kubectl("create", "--raw", path, "-f", "-", said=json.dumps(eviction))
    conditions = space.get("pod", pod)["status"]["conditions"]
    assert any(row["type"] == "DisruptionTarget" for row in conditions)


def test_who_follows_a_run_goes_on_with_the_next_chief(space: Namespace, unhurried: str) -> None:
    handle = space.handle("seen")
    space.submit(unhurried, "seen", "--workers=1", "--trials=30", "--seed=1")
    chief = space.await_pod("seen", "chief")
    followers = [space.follow("watch", handle), space.follow("logs", handle, "-f")]
    try:
        wait_until(lambda: space.completed("seen") >= 1, "a first trial", 120)
        space.plane.kill_container(chief, "chief")
        space.await_end("seen")
        (watched, _), (logged, _) = [process.communicate(timeout=90) for process in followers]
    finally:
        for process in followers:
            process.kill()
    assert [process.returncode for process in followers] == [0, 0], watched + logged
    # What ended as a chief went is in the next sum, and in no line of its own.
    assert "DONE: 30 of 30 trials" in watched and watched.count("trial 0029 COMPLETED") <= 1
    # Of either chief.
    assert logged.count("serving run seen") == 2
    assert logged.rstrip().endswith("leaving with exit status 0")


def _other(space: Namespace, run_id: str, part: str, uid: str) -> bool:
    pod = space.pod(run_id, part)
    return pod is not None and pod["metadata"]["uid"] != uid


def test_a_run_is_scaled_stopped_and_resumed(space: Namespace, unhurried: str) -> None:
    handle = space.handle("elastic")
    space.submit(unhurried, "elastic", "--workers=2", *LONG[1:], "--trials=50")
    space.await_pod("elastic", "worker-1")
    scale(space, "elastic", 2, 4)
    # Which takes seconds: the pods start beside it.
    assert open_tensorboard(space, handle).startswith("<!doctype html>")
    assert space.pod("elastic", "chief") and not space.pod("elastic", "viewer")
    space.await_pod("elastic", "worker-3")
    scale(space, "elastic", 4, 1)
    wait_until(lambda: workers(space, "elastic") == {"worker-0"}, "one worker alone", 90)
    # The one that stays goes on with the search.
    before = space.completed("elastic")
    wait_until(lambda: space.completed("elastic") > before, "a trial by one worker", 90)
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
    space.await_end("elastic")
    rows = space.check_trials("elastic", 50)
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


def test_a_node_that_is_gone(space: Namespace, unhurried: str) -> None:
    space.plane.add_node("three", 3, "--label", "doomed=yes")
    space.submit(unhurried, "gone", "--workers=3", *LONG)
    # Pods are where the scheduler puts them; one at least is to be on the node that goes.
    wait_until(lambda: _on(space, "three"), "a pod on the node", 60)
    wait_until(lambda: space.completed("gone") >= 1, "a first trial", 120)
    space.plane.kill_node("three")
    space.await_end("gone")
    space.check_trials("gone", 16)


def _on(space: Namespace, node: str) -> bool:
    pods = space.get("pods")["items"]
    return any(pod["spec"].get("nodeName") == node for pod in pods)
