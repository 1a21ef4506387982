"""A search on a Ray cluster that KubeRay's own operator makes, by its own kinds."""

from __future__ import annotations

import base64
import copy
import json
import os
import pathlib
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from cluster.launchers.kubernetes.templates import templates_of
from tests.integration.test_kubernetes_files import FILES, Manifest, kustomized, one
from tests.k8s.conftest import Namespace
from tests.k8s.control_plane import ControlPlane
from tests.support.cli_runs import STUDIES, processes_of, wait_until

pytestmark = pytest.mark.k8s

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


def ray_pods(space: Namespace, run_id: str, part: str) -> list[Any]:
    labels = f"app.kubernetes.io/instance={run_id},app.kubernetes.io/component={part}"
    found: list[Any] = space.get("pods", "-l", labels)["items"]
    return found


@pytest.mark.timeout(900)
def test_a_search_from_submission_to_its_results(rays: Namespace) -> None:
    handle = submitted(rays, SLOW, "rays", "--trials=6", "--workers=2", "--seed=1")
    for part, name in (("chief", "chief"), ("worker", "worker")):
        pod = wait_until(lambda part=part: ray_pods(rays, "rays", part), f"a pod of {part}", 60)[0]
        (container,) = [row for row in pod["spec"]["containers"] if row["name"] == name]
        variables = {row["name"]: row for row in container["env"]}
        # Ray asks for a token, which is drawn for this cluster alone.
        assert variables["RAY_AUTH_MODE"]["value"] == "token"
        secret = variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
        token = rays.get("secret", secret["name"])["data"][secret["key"]]
    wait_until(lambda: deployment(rays, "rays") == "Running", "a cluster that searches", 300)
    (head,) = ray_pods(rays, "rays", "chief")
    told = {row["name"]: row.get("value") for row in head["spec"]["containers"][0]["env"]}
    assert told["RAY_USAGE_STATS_ENABLED"] == "0"
    check_token(head["status"]["podIP"], base64.b64decode(token).decode())
    await_complete(rays, "rays")
    check_done(rays, handle, 6)


def check_token(address: str, token: str) -> None:
    """Whoever lacks the token is told nothing of what runs there."""
    request = urllib.request.Request(f"http://{address}:8265/api/jobs/")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 401
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


@pytest.mark.timeout(900)
def test_a_run_is_scaled_and_stopped_and_goes_on(rays: Namespace, unhurried: str) -> None:
    handle = submitted(rays, unhurried, "grows", "--trials=40", "--workers=1", "--seed=1")
    wait_until(lambda: deployment(rays, "grows") == "Running", "a cluster that searches", 300)
    # Waits until the search there has begun.
    rays.launch("scale", handle, "--workers", "2")
    # Ray's autoscaler asks KubeRay for it.
    wait_until(lambda: len(ray_pods(rays, "grows", "worker")) == 2, "another pod", 120)

    began = time.monotonic()
    said = rays.launch("stop", handle).stdout
    # The trials of three seconds end, and nothing waits for the pods' grace period of a minute.
    assert time.monotonic() - began < 55
    assert f"go on with: python launch.py resume {handle}" in said
    assert not ray_pods(rays, "grows", "chief") + ray_pods(rays, "grows", "worker")
    assert '"state": "STOPPED"' in rays.launch("status", handle, "--json").stdout
    before = completed(rays, handle)

    rays.launch("resume", handle)
    wait_until(lambda: len(completed(rays, handle)) > len(before), "another trial", 400)
    after = completed(rays, handle)
    assert len(after) == len(set(after)) and set(before) < set(after)


@pytest.mark.timeout(900)
def test_who_follows_a_run_goes_on_with_the_next_head(rays: Namespace, unhurried: str) -> None:
    handle = submitted(rays, unhurried, "seen", "--trials=30", "--workers=1", "--seed=1")
    wait_until(lambda: deployment(rays, "seen") == "Running", "a cluster that searches", 300)
    followers = [rays.follow("watch", handle), rays.follow("logs", handle, "-f")]
    try:
        wait_until(lambda: len(completed(rays, handle)) >= 2, "trials", 120)
        (head,) = ray_pods(rays, "seen", "chief")
        rays.plane.kill_container(head, "chief")
        await_complete(rays, "seen")
        (watched, _), (logged, _) = [process.communicate(timeout=90) for process in followers]
    finally:
        for process in followers:
            process.kill()
    assert [process.returncode for process in followers] == [0, 0], watched + logged
    assert "DONE: 30 of 30 trials" in watched and "so far" in watched
    # One file, to which either leader wrote: nothing of it comes twice.
    assert logged.count("serving run seen") == 2
    check_done(rays, handle, 30)


@pytest.mark.timeout(900)
def test_a_search_that_failed_goes_on_in_the_next_cluster(rays: Namespace, unhurried: str) -> None:
    handle = submitted(rays, unhurried, "failed", "--trials=16", "--workers=1", "--seed=1")
    wait_until(lambda: deployment(rays, "failed") == "Running", "a cluster that searches", 300)
    wait_until(lambda: len(completed(rays, handle)) >= 2, "trials", 120)
    first = rays.get("rayjob", "tunefleet-failed")["status"]["rayClusterName"]

    (search,) = [pid for pid in processes_of("RUN_ID=failed") if _is_run(pid)]
    os.kill(search, signal.SIGKILL)
    await_complete(rays, "failed")
    status = rays.get("rayjob", "tunefleet-failed")["status"]
    assert status["failed"] == 1 and status["rayClusterName"] != first
    check_done(rays, handle, 16)


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
    wait_until(lambda: "No resources found" in rays.kubectl("get", *left), "nothing left", 60)

    # A worker for which there is no room: KubeRay begins once all are there.
    huge = ["--unchecked", "--cpus=640", "--id=room"]
    rays.launch("submit", SLOW, *own, *huge)
    handle = f"rayjob://{rays.name}/room"
    wait_until(lambda: pending(rays, "room"), "a worker that waits", 60)
    seen = rays.launch("status", handle).stdout
    assert "RUNNING" in seen and "waits" in seen and "free cores, or fewer --cpus" in seen
    said = rays.launch("trials", handle, status=3).stderr
    assert "run room has not begun: worker: 0/2 nodes" in said and said.count("\n") == 1
    rays.launch("stop", handle)


def pending(space: Namespace, run_id: str) -> bool:
    pods = ray_pods(space, run_id, "worker")
    return any("conditions" in pod["status"] for pod in pods)


def test_what_kuberay_refuses_is_told(rays: Namespace) -> None:
    manifests = kustomized(FILES / "rayjob" / "base")
    # KubeRay takes no number of seconds for what is to stay.
    one(manifests, "RayJob", "chief")["spec"].update(
        shutdownAfterJobFinishes=False, ttlSecondsAfterFinished=60
    )
    rays.kubectl("apply", "-f", "-", said=yaml.safe_dump_all(manifests))
    wait_until(lambda: deployment(rays, "study") == "ValidationFailed", "a refusal", 60)
    handle = f"rayjob://{rays.name}/study"
    assert '"state": "FAILED"' in rays.launch("status", handle, "--json").stdout
    for verb in ("watch", "logs", "best"):
        said = rays.launch(verb, handle, status=3).stderr
        assert "failed before it began: The RayJob spec is invalid" in said
        assert said.count("\n") == 1


@pytest.mark.timeout(900)
def test_a_benchmark_goes_on_where_it_was_killed(rays: Namespace, tmp_path: pathlib.Path) -> None:
    words = ["benchmark", SLOW, "--on=rayjob", f"--namespace={rays.name}", f"--runs={tmp_path}"]
    words += ["--id=both", "--samplers=random,qmc", "--seeds=1", "--trials=2", "--top=0"]
    words += ["--workers=1", *SMALL_RAY]
    process = rays.follow(*words)
    try:
        # The second search is under way, the first one is done.
        found = ("rayjob/tunefleet-both-c001", "--ignore-not-found", "-o", "name")
        wait_until(lambda: rays.kubectl("get", *found), "the second search", 300)
    finally:
        process.kill()
        process.wait()
    before = made(rays)

    said = rays.launch(*words, timeout=400).stdout
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
    return {row["metadata"]["uid"] for row in space.get("rayjobs")["items"]}


def await_complete(space: Namespace, run_id: str) -> None:
    wait_until(lambda: deployment(space, run_id) == "Complete", f"the end of {run_id}", 400)


def deployment(space: Namespace, run_id: str) -> str:
    """How KubeRay says that the search stands."""
    status = space.get("rayjob", f"tunefleet-{run_id}").get("status", {})
    return str(status.get("jobDeploymentStatus", ""))


def check_done(space: Namespace, handle: str, wanted: int) -> None:
    """All wanted trials are completed, and none of them twice."""
    assert '"state": "DONE"' in space.launch("status", handle, "--json").stdout
    found = completed(space, handle)
    assert len(found) == len(set(found)) == wanted


def completed(space: Namespace, handle: str) -> list[str]:
    """The completed attempts' trials."""
    rows = map(json.loads, space.launch("trials", handle, "--json").stdout.splitlines())
    return [row["trial_id"] for row in rows if row["state"] == "COMPLETED"]
