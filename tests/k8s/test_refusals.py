"""What a cluster has against a search: one line, what to do, and nothing left behind."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.k8s.namespace import Namespace
from tests.support.cli_runs import STUDIES, wait_until

# Longer than all waits of one test together: see PATIENCE_S.
pytestmark = [pytest.mark.k8s, pytest.mark.timeout(1800)]

SLOW = str(STUDIES / "slow.py")
# Somebody else's pod with all GPUs that there are.
_OTHER = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "other"},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "other",
                "image": "tunefleet:1",
                "command": ["sleep", "infinity"],
                "resources": {"limits": {"nvidia.com/gpu": "2"}},
                "securityContext": {
                    "runAsUser": 10001,
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    },
}


def check_refused(space: Namespace, status: int, says: str, *words: str) -> None:
    done = space.submit(SLOW, "refused", *words, status=status)
    assert says in done.stderr and done.stderr.count("\n") == 1, done.stderr
    left = space.kubectl(
        "get", "all,secret,pvc,networkpolicy,pdb,sa", "-l", "app.kubernetes.io/instance=refused"
    )
    assert "No resources found" in left, left


def test_no_node_has_such_gpus(space: Namespace) -> None:
    words = ["--gpus-per-worker=1", "--gpu-resource=nvidia.com/mig-1g.5gb"]
    check_refused(space, 3, "no node has 1 nvidia.com/mig-1g.5gb: they have nvidia.com/gpu", *words)
    check_refused(space, 3, "no node has 4 nvidia.com/gpu", "--gpus-per-worker=4")


def test_a_quota_that_is_too_small(space: Namespace) -> None:
    space.kubectl("create", "quota", "small", "--hard=requests.memory=4Gi,pods=10")
    words = ["--memory=3Gi", "--workers=2"]
    check_refused(space, 3, "quota small in", *words)


def test_an_image_that_is_not_there(space: Namespace) -> None:
    check_refused(space, 3, "no-such:1", "--image=registry.invalid/no-such:1")


def test_a_priority_that_is_not_there(space: Namespace) -> None:
    check_refused(space, 3, "no PriorityClass with name none", "--priority=none")


def test_a_namespace_that_is_not_there(space: Namespace) -> None:
    words = ["--on", "k8s", "--namespace", "no-such", "--id", "x"]
    done = space.launch("submit", SLOW, *words, status=2)
    assert "no namespace 'no-such': make it, or give --namespace" in done.stderr


def test_no_such_run(space: Namespace) -> None:
    done = space.launch("status", space.handle("none"), status=2)
    assert f"no run 'none' in namespace {space.name}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_somebody_without_rights(space: Namespace) -> None:
    account = f"system:serviceaccount:{space.name}:default"
    token = space.kubectl("create", "token", "default").strip()
    whole = yaml.safe_load(space.plane.kubeconfig.read_text())
    whole["users"][0]["user"] = {"token": token}
    other = space.plane.kubeconfig.with_name(f"kubeconfig-{space.name}")
    other.write_text(yaml.safe_dump(whole))
    own = ["--on", "k8s", "--namespace", space.name, "--kubeconfig", str(other)]
    done = space.launch("submit", SLOW, *own, "--id", "x", status=3)
    assert account in done.stderr and "cannot" in done.stderr
    assert done.stderr.count("\n") == 1
    seen = space.launch("doctor", *own, status=1).stdout
    assert "the right to create jobs" in seen


def test_doctor_says_what_there_is(space: Namespace) -> None:
    own = ["--on", "k8s", "--namespace", space.name]
    seen = space.launch("doctor", *own, "--gpus-per-worker=1").stdout
    assert "nvidia.com/gpu 2" in seen and "restricted" in seen and "folders (default" in seen
    seen = space.launch("doctor", *own, "--gpus-per-worker=9", status=1).stdout
    assert "no node has 9 nvidia.com/gpu" in seen


def test_pods_without_room_are_explained(space: Namespace) -> None:
    space.kubectl("create", "-f", "-", said=json.dumps(_OTHER))
    wait_until(lambda: space.one("pods", "other")["spec"].get("nodeName"), "GPUs that are taken")
    space.submit(SLOW, "late", "--workers=1", "--trials=2", "--gpus-per-worker=2")
    seen = space.launch("status", space.handle("late")).stdout
    assert "Insufficient nvidia.com/gpu" in seen and "free GPUs, fewer workers" in seen
    rows = space.read("status", "late")["pods"]
    (worker,) = [row for row in rows if row["part"] == "worker-0"]
    assert worker["phase"] == "Pending" and "Insufficient nvidia.com/gpu" in worker["reason"]
