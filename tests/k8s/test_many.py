"""A thousand worker pods: what a person types stays quick."""

from __future__ import annotations

import json
import time

import pytest
import yaml

from tests.k8s.conftest import Namespace
from tests.live import STUDIES, wait_until

pytestmark = pytest.mark.k8s

MOST_S = 10.0


def test_a_thousand_workers(space: Namespace) -> None:
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"labels": {"type": "kwok"}, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {
            "allocatable": {"cpu": "500", "memory": "4Ti", "pods": "600", "many.example/gpu": "600"}
        },
    }
    node["status"]["capacity"] = node["status"]["allocatable"]  # type: ignore[index]
    made = [{**node, "metadata": {**node["metadata"], "name": f"fake-{n}"}} for n in range(3)]  # type: ignore[dict-item]
    space.plane.kubectl("create", "-f", "-", said=yaml.safe_dump_all(made))
    space.plane.add_fake_nodes()

    words = ["--workers=1000", "--gpus-per-worker=1", "--gpu-resource=many.example/gpu"]
    took = {"submit": _timed(lambda: space.submit(str(STUDIES / "slow.py"), "many", *words))}
    labels = "app.kubernetes.io/instance=many,app.kubernetes.io/component=worker"

    def running() -> int:
        pods = space.get("pods", "-l", labels)["items"]
        return sum(pod["status"]["phase"] == "Running" for pod in pods)

    wait_until(lambda: running() == 1000, "a thousand pods", 240)
    took["status"] = _timed(lambda: space.launch("status", space.handle("many"), "--json"))
    took["scale"] = _timed(lambda: space.launch("scale", space.handle("many"), "--workers", "10"))
    print(json.dumps(took))
    assert max(took.values()) < MOST_S, took
    space.launch("stop", space.handle("many"), "--now")


def _timed(do: object) -> float:
    start = time.monotonic()
    do()  # type: ignore[operator]
    return time.monotonic() - start
