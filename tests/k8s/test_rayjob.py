"""A search on a Ray cluster that KubeRay's own operator makes, by its own kinds."""

from __future__ import annotations

import base64
import copy
import json
import os
import pathlib
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from cluster.launchers.kubernetes.templates import templates_of
from tests.integration.test_kubernetes_files import FILES, Manifest, kustomized, one
from tests.k8s.conftest import Held
from tests.k8s.control_plane import ControlPlane
from tests.k8s.namespace import LONG_S, Namespace, Watched, await_trials
from tests.support.cli_runs import PATIENCE_S, STUDIES, processes_of, wait_until

# Longer than all waits of one test together: see PATIENCE_S.
pytestmark = [pytest.mark.k8s, pytest.mark.timeout(1800)]

SLOW = str(STUDIES / "slow.py")


@pytest.fixture(scope="module")
def kuberay(plane: ControlPlane) -> ControlPlane:
    plane.start_kuberay()
    return plane


@pytest.fixture
def rays(kuberay: ControlPlane, space: Namespace) -> Namespace:
    return space


def dry_run(space: Namespace, manifests: list[Manifest], check: bool = True) -> str:
    words = ("apply", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", "-")
    return space.kubectl(*words, said=yaml.safe_dump_all(manifests), check=check)


@pytest.mark.parametrize("name", ["rayjob", "rayjob/base"])
def test_it_is_accepted_without_a_warning(rays: Namespace, name: str) -> None:
    manifests = kustomized(FILES / name)
    assert dry_run(rays, manifests).count("server dry run") == len(manifests)
    for template, _ in templates_of(one(manifests, "RayJob", "chief")):
        pod = {**copy.deepcopy(template), "apiVersion": "v1", "kind": "Pod"}
        pod["metadata"]["name"] = "tried"
        dry_run(rays, [pod])


def _misspelt(spec: Any) -> None:
    spec["rayClusterSpec"]["autoscalerOptions"]["idleTimeoutSecs"] = 60


def _no_such_mode(spec: Any) -> None:
    spec["rayClusterSpec"]["authOptions"]["mode"] = "password"


def _a_number_for_a_word(spec: Any) -> None:
    spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


MISTAKES = {_misspelt: "idleTimeoutSecs", _no_such_mode: "password", _a_number_for_a_word: "string"}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__.strip("_"))
def test_a_planted_mistake_is_refused(rays: Namespace, mistake: Callable[[Any], None]) -> None:
    job = one(kustomized(FILES / "rayjob"), "RayJob", "chief")
    mistake(job["spec"])
    said = dry_run(rays, [job], check=False)
    assert "server dry run" not in said and MISTAKES[mistake] in said, said


# Pods of which several have room on one machine.
SMALL_RAY = ["--cpus=1", "--memory=2Gi", "--storage=1Gi"]


def submitted(space: Namespace, study: str, run_id: str, *words: str) -> str:
    """The handle of a run with pods small enough for this machine."""
    own = ["--on", "rayjob", "--namespace", space.name, "--id", run_id]
    space.launch("submit", study, *own, *SMALL_RAY, *words)
    return f"rayjob://{space.name}/{run_id}"


def test_a_search_through_all_that_befalls_it(rays: Namespace, held: Held) -> None:
    """One search, since each cluster of Ray's takes half a minute until it is there."""
    held.free(2)
    words = ["--trials=12", "--workers=1", *held.words]
    handle = submitted(rays, held.study, "rays", *words)
    token = drawn_token(rays)
    await_search(rays, leaders=1)
    (head,) = rays.pods("rays", "chief")
    told = {row["name"]: row.get("value") for row in head["spec"]["containers"][0]["env"]}
    assert told["RAY_USAGE_STATS_ENABLED"] == "0"
    check_token(head["status"]["podIP"], token)
    await_trials(rays, handle, 2)
    scale_and_stop(rays, handle, held)

    before = completed(rays, handle)
    rays.launch("resume", handle)
    await_search(rays, leaders=2)
    held.free(6)
    await_trials(rays, handle, len(before) + 1)
    after = completed(rays, handle)
    assert len(after) == len(set(after)) and set(before) < set(after)

    logged = rays.follow("logs", handle, "-f")
    try:
        with Watched(rays, handle) as watched:
            watched.until(len(after))
            lose_search(rays)
            lose_head(rays)
            held.free(12)
            rays.until("rays", lambda: deployment(rays, "rays") == "Complete", "the end")
            status, said = watched.end()
        log, _ = logged.communicate(timeout=LONG_S)
    finally:
        logged.kill()
    assert (status, logged.returncode) == (0, 0), said + log
    assert "DONE: 12 of 12 trials" in said and "so far" in said
    # One file, to which each leader wrote: nothing of it comes twice.
    assert log.count("serving run rays") == 4
    check_done(rays, handle, 12)


def drawn_token(space: Namespace) -> str:
    """Ray asks for a token, which is drawn for this cluster alone."""
    for part in ("chief", "worker"):
        pod = space.until("rays", lambda part=part: space.pods("rays", part), f"a pod {part}")[0]
        (container,) = [row for row in pod["spec"]["containers"] if row["name"] == part]
        variables = {row["name"]: row for row in container["env"]}
        assert variables["RAY_AUTH_MODE"]["value"] == "token"
        secret = variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
        token = space.one("secrets", secret["name"])["data"][secret["key"]]
    return base64.b64decode(token).decode()


def check_token(address: str, token: str) -> None:
    """Whoever lacks the token is told nothing of what runs there."""
    request = urllib.request.Request(f"http://{address}:8265/api/jobs/")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=PATIENCE_S)
    assert refused.value.code == 401
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        assert answer.status == 200


def chief_log(space: Namespace) -> str:
    """The log in the run's folder, to which each leader adds."""
    path = space.folder("rays") / "logs" / "chief.log"
    return path.read_text() if path.is_file() else ""


def await_search(space: Namespace, leaders: int) -> None:
    """Waits until the search is led, by the so-manieth of its leaders."""

    def searches() -> bool:
        led = chief_log(space).count("serving run rays") == leaders
        return led and deployment(space, "rays") == "Running"

    space.until("rays", searches, "a cluster that searches")


def scale_and_stop(space: Namespace, handle: str, held: Held) -> None:
    # Waits until the search there has begun.
    space.launch("scale", handle, "--workers", "2")
    # Ray's autoscaler asks KubeRay for it.
    space.until("rays", lambda: ready_workers(space) == 2, "another worker")

    stopping = space.follow("stop", handle)
    space.until("rays", lambda: "draining" in chief_log(space), "a search that drains")
    # What runs may end now; nothing more is begun.
    held.free(4)
    said, _ = stopping.communicate(timeout=LONG_S)
    assert stopping.returncode == 0, said
    assert f"go on with: python launch.py resume {handle}" in said
    assert not space.pods("rays")
    # Nothing waited for the pods' grace period of a minute.
    killed = [row for row in space.every("events") if row["reason"] == "ExceededGracePeriod"]
    assert not killed, [f"{row['involvedObject']['name']}: {row['message']}" for row in killed]
    assert '"state": "STOPPED"' in space.launch("status", handle, "--json").stdout
    assert {row["state"] for row in attempts(space, handle)} == {"COMPLETED"}


def ready_workers(space: Namespace) -> int:
    """How many of Ray's nodes are up; one that goes before it is waits for its head in vain."""
    logs = map(space.plane.log, space.pods("rays", "worker"))
    return sum("Ray runtime started" in text for text in logs)


def lose_search(space: Namespace) -> None:
    """Kills the search: it goes on in the next cluster."""
    first = space.one("rayjobs", "tunefleet-rays")["status"]
    (search,) = [pid for pid in processes_of("RUN_ID=rays") if _is_run(pid)]
    os.kill(search, signal.SIGKILL)
    await_search(space, leaders=3)
    status = space.one("rayjobs", "tunefleet-rays")["status"]
    assert status["failed"] == first.get("failed", 0) + 1
    assert status["rayClusterName"] != first["rayClusterName"]


def lose_head(space: Namespace) -> None:
    """Kills the head."""
    (head,) = [pod for pod in space.pods("rays", "chief") if pod["status"]["phase"] == "Running"]
    space.plane.kill_container(head, "chief")
    await_search(space, leaders=4)


def _is_run(pid: int) -> bool:
    """Whether a process is `launch.py run` itself."""
    words = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return words[1].endswith("/launch.py") and words[2] == "run" if len(words) > 2 else False


def test_what_keeps_a_run_from_beginning_is_told(rays: Namespace) -> None:
    own = ["--on", "rayjob", "--namespace", rays.name, *SMALL_RAY, "--workers=1"]
    no_image = ["--worker-image=registry.invalid/no-such:1"]
    said = rays.launch("submit", SLOW, *own, "--id=image", *no_image, status=3).stderr
    assert "worker: ImagePullBackOff" in said and "see --image" in said.lower()
    assert said.count("\n") == 1
    left = ("rayjob,raycluster,pod,pvc,cm", "-l", "app.kubernetes.io/instance=image")
    gone = "No resources found"
    wait_until(lambda: gone in rays.kubectl("get", *left), "nothing left", every_s=1.0)

    # A worker for which there is no room: KubeRay begins once all are there.
    huge = ["--unchecked", "--cpus=640", "--id=room"]
    rays.launch("submit", SLOW, *own, *huge)
    handle = f"rayjob://{rays.name}/room"
    rays.until("room", lambda: pending(rays, "room"), "a worker that waits")
    seen = rays.launch("status", handle).stdout
    assert "RUNNING" in seen and "waits" in seen and "free cores, or fewer --cpus" in seen
    said = rays.launch("trials", handle, status=3).stderr
    assert "run room has not begun: worker: 0/2 nodes" in said and said.count("\n") == 1
    rays.launch("stop", handle)


def pending(space: Namespace, run_id: str) -> bool:
    return any("conditions" in pod["status"] for pod in space.pods(run_id, "worker"))


def test_what_kuberay_refuses_is_told(rays: Namespace) -> None:
    manifests = kustomized(FILES / "rayjob" / "base")
    # KubeRay takes no number of seconds for what is to stay.
    one(manifests, "RayJob", "chief")["spec"].update(
        shutdownAfterJobFinishes=False, ttlSecondsAfterFinished=60
    )
    rays.kubectl("apply", "-f", "-", said=yaml.safe_dump_all(manifests))
    wait_until(lambda: deployment(rays, "study") == "ValidationFailed", "a refusal")
    handle = f"rayjob://{rays.name}/study"
    assert '"state": "FAILED"' in rays.launch("status", handle, "--json").stdout
    for verb in ("watch", "logs", "best"):
        said = rays.launch(verb, handle, status=3).stderr
        assert "failed before it began: The RayJob spec is invalid" in said
        assert said.count("\n") == 1


def test_a_benchmark_goes_on_where_it_was_killed(rays: Namespace, tmp_path: pathlib.Path) -> None:
    words = ["benchmark", SLOW, "--on=rayjob", f"--namespace={rays.name}", f"--runs={tmp_path}"]
    words += ["--id=both", "--samplers=random,qmc", "--seeds=1", "--trials=2", "--top=0"]
    words += ["--workers=1", *SMALL_RAY]
    process = rays.follow(*words)
    try:
        # The second search is under way, the first one is done.
        second = ("rayjobs", "tunefleet-both-c001")
        rays.until("both-c001", lambda: begun(rays, process, *second), "the second search")
    finally:
        process.kill()
        process.wait()
    before = made(rays)

    said = rays.launch(*words).stdout
    assert "2/2 ray / qmc" in said and "1/2" not in said and "report: " in said
    again = rays.launch(*words).stdout
    assert "/2 " not in again and "report: " in again
    # Each was submitted once.
    assert len(before) == 2 and made(rays) == before

    # They are runs here to read.
    rows = rays.launch("trials", "both-c001", f"--runs={tmp_path}").stdout
    assert rows.count("COMPLETED") == 2
    check_done(rays, f"rayjob://{rays.name}/both-c000", 2)


def made(space: Namespace) -> set[str]:
    """The RayJobs that there are, each another one than any of the same name."""
    return {row["metadata"]["uid"] for row in space.every("rayjobs")}


def begun(space: Namespace, process: subprocess.Popen[str], kind: str, name: str) -> Any:
    """The object that a process is to make, once it is there; fails where that one ends first."""
    found = space.one(kind, name)
    assert found or process.poll() is None, process.communicate()[0]
    return found


def deployment(space: Namespace, run_id: str) -> str:
    """How KubeRay says that the search stands."""
    status = space.one("rayjobs", f"tunefleet-{run_id}").get("status", {})
    return str(status.get("jobDeploymentStatus", ""))


def check_done(space: Namespace, handle: str, wanted: int) -> None:
    """All wanted trials are completed, and none of them twice."""
    assert '"state": "DONE"' in space.launch("status", handle, "--json").stdout
    found = completed(space, handle)
    assert len(found) == len(set(found)) == wanted


def completed(space: Namespace, handle: str) -> list[str]:
    """The completed attempts' trials."""
    rows = attempts(space, handle)
    return [row["trial_id"] for row in rows if row["state"] == "COMPLETED"]


def attempts(space: Namespace, handle: str) -> list[Any]:
    """All attempts so far."""
    return [json.loads(row) for row in space.launch("trials", handle, "--json").stdout.splitlines()]
