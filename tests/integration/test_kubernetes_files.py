"""What lies in k8s/: every overlay renders, is as safe as it says, and starts what it should.

An API server sees more than is checked here; these tests need none.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from hpo import env
from hpo.run import Run
from tests.support.cli_runs import ROOT, read, wait_until
from tests.support.manual_chief import free_port

FILES = ROOT / "k8s"
OVERLAYS = sorted(path.parent.name for path in FILES.glob("overlays/*/kustomization.yaml"))
COMPONENTS = sorted(path.parent.name for path in FILES.glob("components/*/kustomization.yaml"))
# What stands on top of a whole GPU.
ADDED = [name for name in COMPONENTS if name not in ("instance", "gpu")]
LONGEST_ID = "a" * 39 + "1"

Manifest = dict[str, Any]


def kustomized(folder: pathlib.Path) -> list[Manifest]:
    """The manifests that ``kubectl apply -k`` would send."""
    kubectl = shutil.which("kubectl", path=str(pathlib.Path(sys.executable).parent))
    assert kubectl, "kubectl comes with requirements-dev.txt"
    done = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_instance(
    folder: pathlib.Path, run_id: str, components: list[str], study: str = "digits"
) -> list[Manifest]:
    """The base as a person names it, with ``components`` behind one another."""
    shutil.copytree(FILES, folder, dirs_exist_ok=True)
    overlay = folder / "overlays" / "own"
    shutil.rmtree(overlay, ignore_errors=True)
    overlay.mkdir()
    instance = yaml.safe_load((FILES / "overlays/cpu/instance.yaml").read_text())
    instance["data"] = {"id": run_id, "study": study}
    (overlay / "instance.yaml").write_text(yaml.safe_dump(instance))
    whole = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../../base", "instance.yaml"],
        "components": [f"../../components/{name}" for name in ["instance", *components]],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(whole))
    return kustomized(overlay)


def one(manifests: list[Manifest], kind: str, part: str) -> Manifest:
    (found,) = [
        m
        for m in manifests
        if m["kind"] == kind and m["metadata"]["labels"]["app.kubernetes.io/component"] == part
    ]
    return found


def pod_of(manifests: list[Manifest], part: str) -> Manifest:
    template: Manifest = one(manifests, "Job", part)["spec"]["template"]
    return template


def volume_of(pod: Manifest, name: str) -> Manifest:
    (found,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == name]
    volume: Manifest = found
    return volume


def containers_of(pod: Manifest) -> list[Manifest]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def environment_of(container: Manifest, index: int = 0) -> dict[str, str]:
    """A container's variables as the kubelet gives them."""
    own: dict[str, str] = {}
    for row in container["env"]:
        value = row["value"] if "value" in row else str(index)
        own[row["name"]] = re.sub(r"\$\((\w+)\)", lambda match: own[match[1]], value)
    return own


def arguments_of(container: Manifest) -> list[str]:
    own = environment_of(container)
    return [re.sub(r"\$\((\w+)\)", lambda m: own[m[1]], text) for text in container["args"]]


ALL = [f"overlays/{name}" for name in OVERLAYS] + ["base"]


@pytest.fixture(scope="module", params=[*ALL, *ADDED])
def manifests(request: Any, tmp_path_factory: Any) -> list[Manifest]:
    if request.param in ALL:
        return kustomized(FILES / request.param)
    return of_instance(tmp_path_factory.mktemp("k8s") / "k8s", "demo", ["gpu", request.param])


def test_pods_are_of_the_restricted_kind(manifests: list[Manifest]) -> None:
    for part in ("chief", "worker"):
        pod = pod_of(manifests, part)
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["restartPolicy"] == "Never"
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] and context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers_of(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_memory_is_bounded_by_what_is_asked_for(manifests: list[Manifest]) -> None:
    for part in ("chief", "worker"):
        for container in containers_of(pod_of(manifests, part)):
            resources = container["resources"]
            assert resources["limits"]["memory"] == resources["requests"]["memory"]
            gpus = {n: v for n, v in resources["limits"].items() if n.startswith("nvidia.com/")}
            assert all(value == "1" for value in gpus.values())
            assert len(gpus) <= 1


def test_selectors_find_the_pods_of_their_own_instance_alone(manifests: list[Manifest]) -> None:
    labels = {part: pod_of(manifests, part)["metadata"]["labels"] for part in ("chief", "worker")}
    selectors = [
        (one(manifests, "Service", "chief")["spec"]["selector"], "chief"),
        (
            one(manifests, "PodDisruptionBudget", "worker")["spec"]["selector"]["matchLabels"],
            "worker",
        ),
    ]
    for part, other, way, end in (
        ("chief", "worker", "ingress", "from"),
        ("worker", "chief", "egress", "to"),
    ):
        policy = one(manifests, "NetworkPolicy", part)["spec"]
        selectors.append((policy["podSelector"]["matchLabels"], part))
        selectors.append((policy[way][0][end][0]["podSelector"]["matchLabels"], other))
        assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    for selector, part in selectors:
        assert selector == labels[part]
    for manifest in manifests:
        wanted = labels["chief"]["app.kubernetes.io/instance"]
        assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == wanted


def test_an_instance_leaves_nothing_of_the_base_s_name(tmp_path: pathlib.Path) -> None:
    manifests = of_instance(tmp_path / "k8s", "my-run", ["gpu"])
    assert not re.search(r"\bstudy\b", json.dumps(manifests))
    chief, worker = pod_of(manifests, "chief"), pod_of(manifests, "worker")
    assert {m["metadata"]["name"] for m in manifests} == {
        "tunefleet-my-run-chief",
        "tunefleet-my-run-worker",
        "tunefleet-my-run-viewer",
        "tunefleet-my-run-runs",
    }
    (claim,) = [v["persistentVolumeClaim"] for v in chief["spec"]["volumes"] if v["name"] == "runs"]
    assert (
        claim["claimName"] == one(manifests, "PersistentVolumeClaim", "chief")["metadata"]["name"]
    )
    service = one(manifests, "Service", "chief")["metadata"]["name"]
    assert environment_of(worker["spec"]["containers"][0])[env.ORACLE_IP] == service
    from cluster.secret import secret_of

    named: Any = secret_of("my-run")
    for pod in (chief, worker):
        secret = volume_of(pod, "secret")["secret"]
        assert secret["secretName"] == named["metadata"]["name"]
        assert {row["key"] for row in secret.get("items", [])} <= set(named["stringData"])


def test_the_longest_id_fits(tmp_path: pathlib.Path) -> None:
    manifests = of_instance(tmp_path / "k8s", LONGEST_ID, [])
    job = one(manifests, "Job", "worker")
    # A pod's host name is its Job's, a dash and its index.
    assert len(job["metadata"]["name"]) + len("-999") <= 63


def test_a_worker_never_sees_the_chief_s_key(manifests: list[Manifest]) -> None:
    pod = pod_of(manifests, "worker")
    assert volume_of(pod, "secret")["secret"]["items"] == [{"key": "token", "path": "token"}]
    # And workers need no disk that lasts.
    assert not [v for v in pod["spec"]["volumes"] if "persistentVolumeClaim" in v]


def at_work(run: Run) -> set[str]:
    return {record.worker for record in run.reader().records() if record.worker}


@pytest.fixture
def pods(tmp_path: pathlib.Path) -> Iterator[Pods]:
    with contextlib.closing(Pods(tmp_path)) as made:
        yield made


class Pods:
    """The containers of an overlay as processes here: their own commands and variables."""

    def __init__(self, folder: pathlib.Path) -> None:
        from cluster.secret import secret_of

        self.runs, self.secret = folder / "runs", folder / "secret"
        self.secret.mkdir()
        made: Any = secret_of("pods")
        for name, text in made["stringData"].items():
            (self.secret / name).write_text(text)
            (self.secret / name).chmod(0o440)
        self.manifests = of_instance(
            folder / "k8s", "pods", [], str(ROOT / "tests/support/studies/slow.py")
        )
        self.port = str(free_port())
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, part: str, number: int = 0) -> subprocess.Popen[str]:
        """Starts a pod's container; ``number`` is the pod's index."""
        (chosen,) = pod_of(self.manifests, part)["spec"]["containers"]
        own = environment_of(chosen, number) | {env.ORACLE_PORT: self.port}
        if part == "worker":
            # There is no cluster here that would know the Service's name.
            own[env.ORACLE_IP] = "127.0.0.1"
        own = {name: value.replace("/secret", str(self.secret)) for name, value in own.items()}
        words = [text.replace("=/runs", f"={self.runs}") for text in arguments_of(chosen)]
        process = subprocess.Popen(
            [sys.executable, "launch.py", *words],
            cwd=ROOT,
            env={**os.environ, **own, "SLOW_STEPS": "4", "SLOW_STEP_S": "0.5"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def test_containers_search_together_and_come_back(pods: Pods) -> None:
    chief = pods.start("chief")
    workers = [pods.start("worker", number) for number in range(2)]
    wait_until(lambda: (pods.runs / "pods" / "ledger.db").exists(), "the run")
    run = Run(pods.runs / "pods")
    # A worker that has not reached its chief yet has nothing to leave: it waits for the next one.
    wait_until(lambda: len(at_work(run)) == 2, "a trial of each worker")
    # An eviction: the chief is told to leave, the Job starts another.
    chief.terminate()
    _, said = chief.communicate(timeout=60)
    assert chief.returncode == 75, said
    for worker in workers:
        # Told so by the chief; their Job starts others in their places too.
        _, said = worker.communicate(timeout=60)
        assert worker.returncode == 75, said
    for process in (pods.start("chief"), *(pods.start("worker", n) for n in range(2))):
        _, said = process.communicate(timeout=90)
        assert process.returncode == 0, said
    status = read(pods.runs, "pods")
    assert status["state"] == "DONE" and status["trials"]["completed"] == 10
    assert at_work(run) == {"worker-0", "worker-1"}
    # Both chiefs' words are there when their pods are gone.
    assert (run.logs / "chief.log").read_text().count("serving run") == 2
    # What workers elsewhere hold opens it, and nothing else does.
    assert (pods.secret / "token").read_text().startswith(run.token)
