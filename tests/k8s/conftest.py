"""One control plane for all tests that need one, with two nodes whose pods are processes."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.k8s.control_plane import ControlPlane
from tests.support.cli_runs import ROOT, STUDIES, wait_until

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    # Containers are another user's, who has to get at what lies here.
    folder = tmp_path_factory.mktemp("plane")
    for parent in (folder, *folder.parents):
        if parent != pathlib.Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    made = ControlPlane(folder)
    try:
        made.add_node("one", 1, "--gpus", "2")
        made.add_node("two", 2)
        yield made
    finally:
        made.close()


# Pods of which many have room on one machine.
SMALL = ["--cpus=200m", "--memory=1500Mi", "--storage=1Gi"]


class Namespace:
    """A namespace that holds pods to the restricted level, and `launch.py` in it."""

    def __init__(self, plane: ControlPlane, name: str) -> None:
        self.plane, self.name = plane, name
        labels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
        plane.kubectl("create", "namespace", name)
        plane.kubectl("label", "namespace", name, *labels)
        found = ("serviceaccount/default", "-n", name)
        wait_until(lambda: "default" in plane.kubectl("get", *found, check=False), "an account")

    def launch(self, *words: str, status: int = 0, timeout: float = 240) -> Any:
        """A finished `launch.py`, its output as text."""
        done = subprocess.run(
            [sys.executable, "launch.py", *words],
            cwd=ROOT,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        said = f"launch.py {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode == status, said
        return done

    @property
    def environ(self) -> dict[str, str]:
        """The variables of a `launch.py` that is to find this cluster."""
        return {**os.environ, "KUBECONFIG": str(self.plane.kubeconfig)}

    def follow(self, *words: str) -> subprocess.Popen[str]:
        """A `launch.py` that goes on, its output to be read at its end."""
        return subprocess.Popen(
            [sys.executable, "launch.py", *words],
            cwd=ROOT,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def submit(self, study: str, run_id: str, *words: str, status: int = 0) -> Any:
        """`submit` with small pods."""
        own = ["--on", "k8s", "--namespace", self.name, "--id", run_id]
        return self.launch("submit", study, *own, *SMALL, *words, status=status)

    def handle(self, run_id: str) -> str:
        return f"k8s://{self.name}/{run_id}"

    def read(self, verb: str, run_id: str) -> Any:
        """What a reading verb prints as JSON; of `trials` a list."""
        text = self.launch(verb, self.handle(run_id), "--json").stdout
        return (
            [json.loads(line) for line in text.splitlines()]
            if verb == "trials"
            else json.loads(text)
        )

    def completed(self, run_id: str) -> int:
        """How many trials have completed so far."""
        return sum(row["state"] == "COMPLETED" for row in self.read("trials", run_id))

    def kubectl(self, *words: str, said: str | None = None, check: bool = True) -> str:
        return self.plane.kubectl("-n", self.name, *words, said=said, check=check)

    def get(self, *words: str) -> Any:
        return self.plane.get("-n", self.name, *words)

    def pod(self, run_id: str, part: str) -> Any:
        """The running pod of a chief, or of a worker such as "worker-1"; None where none runs."""
        name, _, index = part.partition("-")
        labels = f"app.kubernetes.io/instance={run_id},app.kubernetes.io/component={name}"
        if index:
            labels += f",batch.kubernetes.io/job-completion-index={index}"
        for pod in self.get("pods", "-l", labels)["items"]:
            if pod["status"]["phase"] == "Running" and not pod["metadata"].get("deletionTimestamp"):
                return pod
        return None

    def await_pod(self, run_id: str, part: str) -> Any:
        return wait_until(lambda: self.pod(run_id, part), f"{part} of {run_id}", 90)

    def job_is(self, run_id: str, part: str, condition: str) -> bool:
        job = self.get("job", f"tunefleet-{run_id}-{part}")
        found = job["status"].get("conditions", [])
        return any(row["type"] == condition and row["status"] == "True" for row in found)

    def await_end(self, run_id: str, timeout: float = 240) -> None:
        """Waits until both Jobs are complete."""
        for part in ("chief", "worker"):
            what = f"the Job of {part} of {run_id} is complete"
            wait_until(lambda part=part: self.job_is(run_id, part, "Complete"), what, timeout)

    def check_trials(self, run_id: str, wanted: int) -> list[Any]:
        """All wanted trials are completed, and none of them twice; answers the attempts."""
        rows: list[Any] = self.read("trials", run_id)
        completed = [row["trial_id"] for row in rows if row["state"] == "COMPLETED"]
        assert sorted(completed) == sorted(set(completed)) and len(completed) == wanted, rows
        return rows


@pytest.fixture(scope="session")
def namespaces(plane: ControlPlane) -> Callable[[], Namespace]:
    return lambda: Namespace(plane, f"tests-{next(_NUMBERS)}")


@pytest.fixture
def unhurried(tmp_path: pathlib.Path) -> str:
    """A study of a person's own whose trials take three seconds each."""
    path = tmp_path / "slow.py"
    text = (STUDIES / "slow.py").read_text()
    path.write_text(text.replace('"SLOW_STEP_S", "0.1"', '"SLOW_STEP_S", "0.6"'))
    assert path.read_text() != text
    return str(path)


@pytest.fixture
def space(namespaces: Callable[[], Namespace]) -> Iterator[Namespace]:
    made = namespaces()
    yield made
    made.plane.kubectl("delete", "namespace", made.name, "--wait=false")
