"""`render --on k8s`: what is typed comes out as `kubectl kustomize` would have it."""

from __future__ import annotations

import contextlib
import io
import pathlib
import subprocess
from typing import Any

import pytest
import yaml

from cluster.cli import main
from cluster.launchers.kubernetes.applied import told_request
from hpo import env
from tests.integration.test_kubernetes_files import (
    FILES,
    Manifest,
    kustomized,
    of_instance,
    one,
    pod_of,
)
from tests.support.cli_runs import STUDIES, launch


def rendered(*arguments: str, on: str = "k8s") -> list[Manifest]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["render", *arguments, "--on", on]) == 0
    return list(yaml.safe_load_all(out.getvalue()))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What was said of it, in one line, with nothing on standard output."""
    assert main(["render", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    return said.err


def by_name(manifests: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    found = {(m["kind"], m["metadata"]["name"]): m for m in manifests}
    assert len(found) == len(manifests)
    return found


LOCAL = ["--pull-policy=Never", "--trials=10"]
TYPED = {
    "cpu": ["cnn-dropout", "--workers=4", "--trials=10"],
    "gpu": ["cnn-dropout", "--workers=8", "--gpus-per-worker=1", "--trials=100"],
    "local": ["digits", "--id=demo", "--cpus=500m", "--memory=2Gi", "--storage=1Gi", *LOCAL],
}


@pytest.mark.parametrize("overlay", TYPED)
def test_an_overlay_is_what_the_same_options_render(overlay: str) -> None:
    typed = rendered(*TYPED[overlay], "--id=demo")
    assert by_name(typed) == by_name(kustomized(FILES / "overlays" / overlay))


@pytest.mark.parametrize(
    ("component", "typed"),
    [
        ("spot", ["--spot"]),
        ("kueue", ["--queue=tuning"]),
        ("monitoring", ["--monitoring"]),
        ("object-store", ["--store=s3://BUCKET/tunefleet"]),
        ("mig", ["--gpu-resource=nvidia.com/mig-1g.10gb"]),
        ("time-sliced", ["--gpu-resource=nvidia.com/gpu.shared"]),
    ],
)
def test_a_component_is_what_its_option_renders(
    component: str, typed: list[str], tmp_path: pathlib.Path
) -> None:
    by_kustomize = of_instance(tmp_path / "k8s", "own-id", ["gpu", component])
    by_options = rendered("digits", "--id=own-id", "--gpus-per-worker=1", "--trials=10", *typed)
    assert by_name(by_options) == by_name(by_kustomize)


def test_the_rayjob_is_what_the_same_options_render() -> None:
    size = ["--workers=8", "--gpus-per-worker=1", "--trials=100"]
    typed = rendered("cnn-dropout", "--id=demo", *size, on="rayjob")
    assert by_name(typed) == by_name(kustomized(FILES / "rayjob"))


def test_a_run_applied_by_hand_tells_what_it_asks_for() -> None:
    asked = told_request(one(kustomized(FILES / "rayjob"), "RayJob", "chief"))
    assert asked and (asked.engine, asked.study, asked.trials) == ("ray", "cnn-dropout", 100)
    chief = one(kustomized(FILES / "overlays" / "gpu"), "Job", "chief")
    told = chief["spec"]["template"]["spec"]["containers"][0]["args"]
    told += ["--sampler=tpe", "--max-hours", "2", "--seed", "3"]
    asked = told_request(chief)
    assert asked and (asked.engine, asked.study, asked.trials) == (
        "keras-tuner",
        "cnn-dropout",
        100,
    )
    assert (asked.sampler, asked.pruner, asked.seed) == ("tpe", "none", 3)
    told.append("--epochs=none")
    assert told_request(chief) is None


def test_what_is_typed_reaches_the_shell_of_a_ray_head_as_it_was(tmp_path: pathlib.Path) -> None:
    storage = ["--set=optuna_storage=sqlite:///$(id) 'x'.db", "--trials=3"]
    typed = rendered("digits", "--id=own", *storage, on="rayjob")
    told = one(typed, "RayJob", "chief")["spec"]["entrypoint"].removeprefix("python /app/launch.py")
    shell = f"printf '%s\\n' {told}"
    own = {"STUDY": "digits", "RUN_ID": "own"}
    said = subprocess.run(["sh", "-c", shell], env=own, capture_output=True, text=True, check=True)
    words = ["run", "digits", "--id=own", "--runs=/runs", "--engine=ray", "--workers=2"]
    assert sorted(said.stdout.splitlines()) == sorted([*words, *storage])


def test_what_is_asked_of_pods_reaches_a_ray_cluster(tmp_path: pathlib.Path) -> None:
    asked = ["--cpus=4", "--memory=8Gi", "--gpus-per-worker=2", "--priority=high", "--spot"]
    asked += ["--gpu-resource=nvidia.com/mig-1g.10gb", "--grace=90", "--lease=60", "--queue=q"]
    job = one(rendered(str(STUDIES / "slow.py"), *asked, on="rayjob"), "RayJob", "chief")
    cluster = job["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    worker, head = group["template"]["spec"], cluster["headGroupSpec"]["template"]["spec"]
    resources = worker["containers"][0]["resources"]
    gpus = {"nvidia.com/mig-1g.10gb": "2"}
    assert resources == {
        "requests": {"cpu": "4", "memory": "8Gi"},
        "limits": {"memory": "8Gi", **gpus},
    }
    assert "--gpus-per-worker=2" in job["spec"]["entrypoint"]
    for pod in (worker, head):
        assert pod["priorityClassName"] == "high"
        assert pod["terminationGracePeriodSeconds"] == 90 + 60 / 3 + 20
    assert "node-lifecycle" in {row["key"] for row in worker["tolerations"]}
    # Kueue admits a size that stays.
    assert job["spec"]["suspend"] and not cluster["enableInTreeAutoscaling"]
    assert group["minReplicas"] == group["replicas"] == group["maxReplicas"] == 2
    assert {"name": env.MOST_NODES, "value": "0"} in head["containers"][0]["env"]
    mounted = [row["mountPath"] for row in head["containers"][0]["volumeMounts"]]
    assert "/study/slow.py" in mounted


def test_a_ray_search_counts_on_as_many_workers_as_the_autoscaler_may_bring() -> None:
    cluster = one(rendered("digits", on="rayjob"), "RayJob", "chief")["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert {"name": env.MOST_NODES, "value": str(group["maxReplicas"])} in head["env"]


def test_what_is_typed_reaches_the_chief_as_it_was() -> None:
    typed = ["--sampler=tpe", "--seed=0", "--max-hours=1.5", "--set=precision=mixed_float16"]
    manifests = rendered("digits", "--id=demo", "--engine", "optuna", *typed)
    assert sorted(container_args(manifests)[4:]) == sorted(["--engine=optuna", *typed])


def test_the_kubelet_finds_no_variable_in_what_was_typed() -> None:
    storage = "--set=optuna_storage=sqlite:///$(HOME)/x.db"
    manifests = rendered("digits", "--engine=optuna", storage)
    assert container_args(manifests)[-1] == storage.replace("$(", "$$(")


def test_gpus_are_asked_for_and_named() -> None:
    manifests = rendered("digits", "--gpus-per-worker=2", "--image=reg.example:5000/t:7")
    (worker,) = pod_of(manifests, "worker")["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert worker["env"][-1] == {"name": "TUNEFLEET_DEVICE", "value": "gpu:0,gpu:1"}
    assert worker["image"] == "reg.example:5000/t-gpu:7"
    (chief,) = pod_of(manifests, "chief")["spec"]["containers"]
    assert chief["image"] == "reg.example:5000/t:7"


def test_the_grace_period_covers_what_it_has_to() -> None:
    manifests = rendered("digits", "--grace=90", "--lease=60")
    for part in ("chief", "worker"):
        pod = pod_of(manifests, part)["spec"]
        (container,) = pod["containers"]
        assert {"name": "TUNEFLEET_GRACE", "value": "90"} in container["env"]
        assert pod["terminationGracePeriodSeconds"] == 90 + 60 / 3 + 20


def test_a_person_s_files_travel_in_a_config_map(tmp_path: pathlib.Path) -> None:
    study, start = STUDIES / "slow.py", tmp_path / "points.json"
    start.write_text('[{"x": 1}]')
    manifests = rendered(str(study), "--start", str(start), "--id=own")
    (files,) = [m for m in manifests if m["kind"] == "ConfigMap"]
    assert files["data"] == {"slow.py": study.read_text(), "start.json": start.read_text()}
    for part in ("chief", "worker"):
        pod: Any = pod_of(manifests, part)["spec"]
        (container,) = pod["containers"]
        mounts = {m["mountPath"]: m for m in container["volumeMounts"] if m["name"] == "study"}
        # Each by itself: what a folder of them resolves to is another at each start.
        assert {m: mounts[m]["subPath"] for m in mounts} == {
            "/study/slow.py": "slow.py",
            "/study/start.json": "start.json",
        }
        assert {"name": "STUDY", "value": "/study/slow.py"} in container["env"]
        assert {v["configMap"]["name"] for v in pod["volumes"] if v["name"] == "study"} == {
            files["metadata"]["name"]
        }
    assert "--start=/study/start.json" in container_args(manifests)
    assert one(manifests, "Job", "chief")["metadata"]["name"] == "tunefleet-own-chief"


def container_args(manifests: list[Manifest]) -> list[str]:
    (chief,) = pod_of(manifests, "chief")["spec"]["containers"]
    args: list[str] = chief["args"]
    return args


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["digits", "--memory=6GB"], "--memory '6GB': give a quantity such as 6Gi"),
        (["digits", "--memory=6"], "--memory '6': give a quantity such as 6Gi"),
        (["digits", "--memory=500m"], "--memory '500m': give a quantity such as 6Gi"),
        (["digits", "--storage=0"], "--storage '0': give a quantity such as 20Gi"),
        (["digits", "--cpus=2Gi"], "--cpus '2Gi': give a quantity such as 2 or 500m"),
        (["digits", "--cpus=0"], "--cpus '0': give a quantity such as 2 or 500m"),
        (["digits", "--gpus-per-worker=two"], "'two': give a whole number"),
        (["digits", "--gpus-per-worker=-1"], "'-1': give a whole number"),
        (["digits", "--gpus-per-worker=0.5"], "a pod has whole GPUs"),
        (["digits", "--engine=ray"], "engine ray starts its workers itself"),
        (["digits", "--from=other"], "--from names a run here"),
        (["digits", "--host=0.0.0.0"], "unknown option '--host'"),
        (["digits", "--id=Demo"], "bad id 'Demo'"),
        (["no-such"], "unknown study 'no-such'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], typed: list[str], says: str
) -> None:
    assert says in refused(capsys, *typed, "--on", "k8s")


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["digits", "--engine=optuna"], "engine optuna does not run on a Ray cluster"),
        (["digits", f"--id={'a' * 38}"], "has 38 letters, and KubeRay takes 37"),
        (["digits", "--sampler=kt-bayesian"], "kt-bayesian"),
    ],
)
def test_what_a_ray_cluster_cannot_do_is_refused(
    capsys: pytest.CaptureFixture[str], typed: list[str], says: str
) -> None:
    assert says in refused(capsys, *typed, "--on", "rayjob")


def test_a_study_too_big_for_a_config_map_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    study = tmp_path / "big.py"
    study.write_text((STUDIES / "slow.py").read_text() + f"\nDATA = {'x' * 1_000_000!r}\n")
    assert "a ConfigMap takes 1000000" in refused(capsys, str(study), "--on", "k8s")


def test_an_unknown_place_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'k8s'?" in refused(capsys, "digits", "--on", "k9s")


def test_it_is_a_verb_of_the_command_line() -> None:
    done = launch("render", "digits", "--on", "k8s")
    assert done.returncode == 0 and "kind: Job" in done.stdout
