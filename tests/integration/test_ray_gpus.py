"""Engine `ray` on GPUs that are made up: parts of one, several for a trial, nodes that come."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from hpo.errors import PlaceError
from hpo.gpu_memory import limit_mb
from tests.support.cli_runs import PATIENCE_S, HeldRun, begin
from tests.support.ray_head import RayHead

STUDY = """
import os
import time

OBJECTIVE = "loss"


def evaluate(hp, report):
    x = hp.Float("x", 0.0, 1.0)
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "-1").split(",")
    memory = float(os.environ.get("TUNEFLEET_GPU_MEMORY", "-1"))
    report(1, {{"loss": x, "gpus": len(seen), "first": int(seen[0]), "mb": memory}})
    while not os.path.exists({until!r}):
        time.sleep(0.02)
    return {{}}
"""


def made_up_driver(folder: pathlib.Path, says: str = "16384") -> str:
    """A folder for PATH with an `nvidia-smi` that says how much memory a GPU has."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho {says}\n")
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    """A node with four processors and four GPUs."""
    path = made_up_driver(tmp_path_factory.mktemp("driver"))
    made = RayHead(cpus=4, gpus=4, dashboard=False, PATH=path)
    yield made
    made.close()


class Search(HeldRun):
    """A search on a cluster, led from here, whose trials are held."""

    def __init__(self, head: RayHead, folder: pathlib.Path, run_id: str, *words: str) -> None:
        super().__init__(head.home / "runs", run_id, folder / "goes-on")
        study = folder / "gpus.py"
        study.write_text(STUDY.format(until=str(self.gate)))
        options = ("--engine", "ray", "--id", run_id, "--runs", str(self.runs), "--seed", "1")
        address = {"RAY_ADDRESS": f"127.0.0.1:{head.port}"}
        self._process = begin("run", str(study), *options, *words, env={**head.guard, **address})

    def end(self) -> list[dict[str, Any]]:
        """Lets its trials end; its rows."""
        self.release()
        out, err = self._process.communicate(timeout=PATIENCE_S)
        assert self._process.returncode == 0, out + err
        rows = self.rows()
        assert {row["state"] for row in rows} == {"COMPLETED"}
        return rows


def last(rows: list[dict[str, Any]], name: str) -> set[float]:
    """What the trials themselves saw."""
    return {row["history"][-1]["metrics"][name] for row in rows}


@pytest.mark.ray
def test_parts_of_a_gpu_have_their_part_of_its_memory(
    head: RayHead, tmp_path: pathlib.Path
) -> None:
    options = ("--gpus-per-trial", "0.5", "--workers", "4", "--trials", "4")
    run = Search(head, tmp_path, "parts", *options)
    # Two trials share a GPU, at the same time.
    run.busy_workers(4)
    rows = run.end()
    assert (last(rows, "gpus"), last(rows, "mb")) == ({1}, {16384 / 2 - 512})
    assert len({row["device"] for row in rows}) == 2


@pytest.mark.ray
def test_a_trial_with_several_gpus_has_them_on_one_node(
    head: RayHead, tmp_path: pathlib.Path
) -> None:
    options = ("--gpus-per-trial", "2", "--workers", "2", "--trials", "2")
    run = Search(head, tmp_path, "pairs", *options)
    run.busy_workers(2)
    rows = run.end()
    assert (last(rows, "gpus"), last(rows, "mb")) == ({2}, {-1})
    devices = {row["device"] for row in rows}
    assert len(devices) == 2 and all(device.count("gpu:") == 2 for device in devices)


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_nodes_come_when_trials_wait_and_go_when_none_do(tmp_path: pathlib.Path) -> None:
    fast = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
    # As `ray up` has it on clouds.
    fast |= {"RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": HEAD}
    fast |= {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD}
    path = made_up_driver(tmp_path)
    head = RayHead(cpus=0, autoscaling=SCALING, dashboard=False, PATH=path, **fast)
    try:
        wait_for_nodes(head, 1)
        run = Search(head, tmp_path, "grows", "--gpus-per-worker", "1", "--trials", "4")
        # Two workers, each on a node of its own that was not there before.
        run.busy_workers(2)
        wait_for_nodes(head, 3)
        rows = run.end()
        assert last(rows, "gpus") == {1}
        assert len({row["worker"] for row in rows}) == 2
        wait_for_nodes(head, 1)
        study = str(tmp_path / "gpus.py")
        beyond = head.launch(
            *("run", study, "--engine", "ray", "--workers", "4", "--gpus-per-worker", "1"),
            *("--runs", str(head.home / "runs")),
            RAY_ADDRESS=f"127.0.0.1:{head.port}",
        )
        assert beyond.returncode == 2 and "has room for 3 workers" in beyond.stderr, beyond.stderr
    finally:
        head.close()


# What that kind of cluster calls its head.
HEAD = "f" * 51 + "0" * 5
# As `ray up` writes it, for nodes that are more processes of this machine.
SCALING: dict[str, Any] = {
    "cluster_name": "scaling",
    "max_workers": 3,
    "upscaling_speed": 100.0,
    "idle_timeout_minutes": 0.1,
    "provider": {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "head_node_id": HEAD,
        "launch_multiple": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "gpu": {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "max_workers": 3},
    },
    **{"docker": {}, "auth": {"ssh_user": "nobody"}, "file_mounts": {}, "cluster_synced_files": []},
    **{"initialization_commands": [], "setup_commands": [], "head_setup_commands": []},
    **{"worker_setup_commands": [], "head_start_ray_commands": []},
    **{"worker_start_ray_commands": [], "file_mounts_sync_continuously": False},
    **{"rsync_exclude": [], "rsync_filter": []},
}


def wait_for_nodes(head: RayHead, count: int) -> None:
    """Returns once the cluster has so many nodes."""
    code = (
        f"import ray, time; ray.init('127.0.0.1:{head.port}', log_to_driver=False)\n"
        f"while sum(node['Alive'] for node in ray.nodes()) != {count}: time.sleep(0.2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **head.guard},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr


def test_how_much_of_a_gpu_a_part_is(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", made_up_driver(tmp_path, "24576"))
    assert (limit_mb(0.25, "0"), limit_mb(1, "0"), limit_mb(0, "0")) == (5632, None, None)
    with pytest.raises(PlaceError, match=r"0\.02 of GPU 3 leaves -21 MB for a trial"):
        limit_mb(0.02, "3")


def test_a_driver_that_does_not_say(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", made_up_driver(tmp_path, "N/A"))
    with pytest.raises(PlaceError, match="does not say how much memory GPU 0 has"):
        limit_mb(0.5, "0")
