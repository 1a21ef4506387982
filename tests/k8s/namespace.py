"""A namespace for one test, with what is typed there and what is waited for."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tests.k8s.control_plane import ControlPlane
from tests.support.cli_runs import PATIENCE_S, ROOT, wait_until

# Pods of which many have room on one machine.
SMALL = ["--cpus=200m", "--memory=1500Mi", "--storage=1Gi"]
# A search takes many steps; only one that hangs takes so long for all of them.
LONG_S = 4 * PATIENCE_S
# A look at the API server costs it and this process some milliseconds each.
_LOOK_S = 0.2
# How KubeRay calls the ends of a RayJob.
_RAY_ENDS = ("Complete", "Failed", "ValidationFailed")


class Namespace:
    """A namespace that holds pods to the restricted level, and `launch.py` in it."""

    def __init__(self, plane: ControlPlane, name: str) -> None:
        self.plane, self.name = plane, name
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in _MODES}
        metadata = {"name": name, "labels": labels}
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        plane.kubectl("create", "-f", "-", said=json.dumps(made))
        wait_until(lambda: self.one("serviceaccounts", "default"), "an account")

    def remove(self) -> None:
        """Takes it away; what its pods still do is nothing that the next test should wait for."""
        self.plane.api.kill_pods(self.name)
        self.plane.kubectl("delete", "namespace", self.name, "--wait=false")

    @property
    def environ(self) -> dict[str, str]:
        """The variables of a `launch.py` that is to find this cluster."""
        return {**os.environ, "KUBECONFIG": str(self.plane.kubeconfig)}

    def launch(self, *words: str, status: int = 0) -> Any:
        """A finished `launch.py`, its output as text."""
        done = subprocess.run(
            [sys.executable, "launch.py", *words],
            cwd=ROOT,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONG_S,
        )
        said = f"launch.py {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode == status, f"{said}\n{self.told()}"
        return done

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

    def one(self, kind: str, name: str) -> Any:
        """An object; None where there is none of that name."""
        return self.plane.api.one(kind, name, self.name)

    def every(self, kind: str, labels: str = "") -> list[Any]:
        """The objects of a kind that carry ``labels``."""
        return self.plane.api.every(kind, self.name, labels)

    def pods(self, run_id: str, part: str = "") -> list[Any]:
        """The pods of a run, or of one part of it: "chief", "worker" or "worker-1"."""
        labels = f"app.kubernetes.io/instance={run_id}"
        name, _, index = part.partition("-")
        if name:
            labels += f",app.kubernetes.io/component={name}"
        if index:
            labels += f",batch.kubernetes.io/job-completion-index={index}"
        return self.every("pods", labels)

    def pod(self, run_id: str, part: str) -> Any:
        """The running pod of a part; None where none runs."""
        for pod in self.pods(run_id, part):
            if pod["status"]["phase"] == "Running" and not pod["metadata"].get("deletionTimestamp"):
                return pod
        return None

    def log(self, run_id: str, part: str) -> str:
        """What the first container of a part's pods has printed so far."""
        return "".join(self.plane.log(pod) for pod in self.pods(run_id, part))

    def folder(self, run_id: str) -> pathlib.Path:
        """Where a run's folder lies on this machine, once its volume is bound."""
        claim = self.one("persistentvolumeclaims", f"tunefleet-{run_id}-runs")
        volume = self.plane.api.one("persistentvolumes", claim["spec"].get("volumeName", "none"))
        path = volume["spec"]["hostPath"]["path"] if volume else "/nonexistent"
        return pathlib.Path(path) / run_id

    def until(self, run_id: str, condition: Callable[[], Any], what: str) -> Any:
        """What ``condition`` gives once it is true.

        Fails at once where the run is over without it, or where a part of the cluster is gone.
        """

        def look() -> Any:
            self.plane.check()
            # Asked before: what comes about with the end is in time.
            over = self.over(run_id)
            found = condition()
            assert found or not over, f"{what} of {run_id} comes about no more: {over}"
            return found

        try:
            return wait_until(look, f"{what} of {run_id}", every_s=_LOOK_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.told()}") from None

    def over(self, run_id: str) -> str:
        """How a run ended, by its Jobs or its RayJob; "" while it goes on or is not there."""
        labels = f"app.kubernetes.io/instance={run_id}"
        for row in self.every("rayjobs", labels):
            state = str(row.get("status", {}).get("jobDeploymentStatus", ""))
            return state if state in _RAY_ENDS else ""
        jobs = {row["metadata"]["name"]: _end(row) for row in self.every("jobs", labels)}
        failed = [name for name, end in jobs.items() if end == "Failed"]
        if failed:
            return f"{', '.join(failed)} failed"
        return "all is complete" if jobs and all(jobs.values()) else ""

    def await_pod(self, run_id: str, part: str) -> Any:
        return self.until(run_id, lambda: self.pod(run_id, part), f"a running pod {part}")

    def await_another(self, run_id: str, part: str, before: Any) -> Any:
        """The pod that takes the place of the one ``before``, once it runs."""

        def other() -> Any:
            pod = self.pod(run_id, part)
            return pod and pod["metadata"]["uid"] != before["metadata"]["uid"] and pod

        return self.until(run_id, other, f"another pod {part}")

    def await_log(self, run_id: str, part: str, words: str) -> None:
        """Waits until a pod has printed ``words``."""
        what = f"{words!r} in the log of {part}"
        self.until(run_id, lambda: words in self.log(run_id, part), what)

    def await_end(self, run_id: str) -> None:
        """Waits until both Jobs are complete."""
        self.until(run_id, lambda: self.over(run_id) == "all is complete", "the end")

    def check_trials(self, run_id: str, wanted: int) -> list[Any]:
        """All wanted trials are completed, and none of them twice; answers the attempts."""
        rows: list[Any] = self.read("trials", run_id)
        completed = [row["trial_id"] for row in rows if row["state"] == "COMPLETED"]
        assert sorted(completed) == sorted(set(completed)) and len(completed) == wanted, rows
        return rows

    def told(self) -> str:
        """What the cluster knows of all that is in it, for whoever wonders why."""
        return "\n".join(self._told())

    def _told(self) -> Iterator[str]:
        for kind in ("jobs", "rayjobs"):
            for row in self.every(kind):
                yield f"{kind} {row['metadata']['name']}: {json.dumps(row.get('status'))[:600]}"
        for pod in self.every("pods"):
            status = pod["status"]
            rows = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
            states = {row["name"]: row["state"] for row in rows}
            leaving = pod["metadata"].get("deletionTimestamp", "")
            yield f"pod {pod['metadata']['name']}: {status['phase']} {leaving} {states}"
            if not states:
                yield f"  {status.get('conditions')}"
            yield from (f"  | {line}" for line in self.plane.log(pod).splitlines()[-15:])
        events = sorted(self.every("events"), key=lambda row: row["metadata"]["creationTimestamp"])
        for row in events[-25:]:
            yield f"event {row['involvedObject'].get('name')}: {row['reason']}: {row['message']}"


_MODES = ("enforce", "warn")


def _end(job: Any) -> str:
    """How a Job ended: "Complete", "Failed", or "" where it goes on."""
    for row in job["status"].get("conditions", ()):
        if row["type"] in ("Complete", "Failed") and row["status"] == "True":
            return str(row["type"])
    return ""


class Watched:
    """`watch` of a run, in the background; its lines tell what has come about."""

    def __init__(self, space: Namespace, handle: str) -> None:
        self._space, self._process = space, space.follow("watch", handle)
        self._said: list[str] = []
        self._ended = 0

    def until(self, wanted: int) -> None:
        """Waits until so many trials have ended; fails where the command ends before."""
        assert self._process.stdout
        while self._ended < wanted:
            line = self._process.stdout.readline()
            said = "".join(self._said)
            assert line, f"{wanted} trials did not end:\n{said}\n{self._space.told()}"
            self._said.append(line)
            if count := re.search(r"(?:so far |\()(\d+)/", line):
                self._ended = int(count[1])

    def end(self) -> tuple[int, str]:
        """Its exit status and all that it said, once the run is over."""
        rest, _ = self._process.communicate(timeout=LONG_S)
        return self._process.returncode, "".join(self._said) + rest

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def await_trials(space: Namespace, handle: str, wanted: int) -> None:
    """Waits until so many trials of a run have ended."""
    with Watched(space, handle) as watched:
        watched.until(wanted)
