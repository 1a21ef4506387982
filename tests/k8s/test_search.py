"""Searches on a real control plane, from their submission to what is read after their end."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests.integration.test_kubernetes_files import FILES
from tests.k8s.conftest import Held
from tests.k8s.namespace import SMALL, Namespace, await_trials
from tests.k8s.tensorboard import open_tensorboard
from tests.support.cli_runs import ROOT, STUDIES

# Longer than all waits of one test together: see PATIENCE_S.
pytestmark = [pytest.mark.k8s, pytest.mark.timeout(1800)]

SLOW = str(STUDIES / "slow.py")


def test_digits_from_submission_to_export(space: Namespace, tmp_path: pathlib.Path) -> None:
    said = space.submit("digits", "digits", "--trials=3", "--workers=2", "--seed=1").stdout
    handle = space.handle("digits")
    assert said.startswith(f"run {handle}\n") and f"status {handle}" in said

    # While it runs.
    assert space.read("status", "digits")["id"] == "digits"
    space.await_end("digits")

    # Its Jobs are over, and no pod has its volume: a viewer reads it.
    status = space.read("status", "digits")
    assert status["state"] == "DONE" and status["trials"]["completed"] == 3
    assert {row["part"] for row in status["pods"]} >= {"chief", "worker-0"}
    rows = space.check_trials("digits", 3)
    assert {row["worker"] for row in rows} <= {"worker-0", "worker-1"}
    best = space.read("best", "digits")
    assert best["value"] == max(row["value"] for row in rows)
    model = tmp_path / "best.keras"
    said = space.launch("export", handle, "--out", str(model)).stdout
    assert str(model) in said and model.stat().st_size > 1000
    assert (tmp_path / "best.keras.json").read_text().startswith("{")
    assert "serving run digits" in space.launch("logs", handle).stdout
    assert "joined as worker-0" in space.launch("logs", handle, "worker-0").stdout
    assert space.launch("logs", handle, rows[0]["trial_id"]).returncode == 0
    assert space.launch("watch", handle).returncode == 0
    assert open_tensorboard(space, handle).startswith("<!doctype html>")


def test_a_benchmark_of_searches_there(space: Namespace, tmp_path: pathlib.Path) -> None:
    words = ["benchmark", SLOW, "--on=k8s", f"--namespace={space.name}", f"--runs={tmp_path}"]
    words += ["--id=both", "--samplers=random,qmc", "--seeds=1", "--trials=2", "--top=0"]
    said = space.launch(*words, *SMALL).stdout
    assert "2/2 keras-tuner / qmc" in said

    # Its searches are runs here to read, and are there, and are not done again.
    rows = space.launch("trials", "both-c001", f"--runs={tmp_path}").stdout
    assert rows.count("COMPLETED") == 2
    assert space.read("trials", "both-c001")[0]["sampler"] == "qmc"
    again = space.launch(*words, *SMALL).stdout
    assert "/2 " not in again and "report: " in again

    handles = [space.handle(f"both-c00{number}") for number in (0, 1)]
    pages = space.launch("report", *handles, f"--out={tmp_path / 'page'}").stdout
    assert "both-c001" in pathlib.Path(pages.splitlines()[0]).read_text()


def test_a_published_study_on_pods_with_gpus(space: Namespace) -> None:
    words = ["--trials=2", "--epochs=1", "--train-examples=512", "--workers=1"]
    space.submit("cnn-dropout", "cnn", "--gpus-per-worker=1", *words)
    space.await_end("cnn")
    (row, _) = space.check_trials("cnn", 2)
    # As the Job said; the image here is no GPU's.
    assert row["device"] == "gpu:0"
    (worker,) = space.pods("cnn", "worker")
    assert worker["spec"]["nodeName"] == "one"


def test_a_search_that_kubectl_applies_suspends_and_lets_go(
    space: Namespace, held: Held, tmp_path: pathlib.Path
) -> None:
    own = shutil.copytree(FILES, tmp_path / "k8s")
    chief = own / "base" / "chief.yaml"
    text = chief.read_text()
    chief.write_text(text.replace("--trials=10", f"--trials=10\n            - {held.words[0]}"))
    instance = own / "overlays" / "local" / "instance.yaml"
    # As an image of one's own has it, so that it is suspended in the middle.
    instance.write_text(instance.read_text().replace("study: digits", f"study: {held.inside}"))
    secret = [sys.executable, "-m", "cluster.secret", "demo"]
    made = subprocess.run(secret, cwd=ROOT, check=True, capture_output=True, text=True)
    space.kubectl("apply", "-f", "-", said=made.stdout)
    space.kubectl("apply", "-k", str(own / "overlays" / "local"))
    handle = space.handle("demo")
    held.free(2)
    await_trials(space, handle, 2)

    _suspend(space, "demo", True)
    space.until("demo", lambda: all(map(_leaves, space.pods("demo"))), "pods that leave")
    # What runs may end.
    held.free(4)
    space.until("demo", lambda: not space.pods("demo"), "no pod")
    before = space.read("status", "demo")
    assert before["trials"]["running"] == 0 and 2 <= before["trials"]["completed"] < 10
    assert before["state"] == "STOPPED"
    # Which has the volume meanwhile.
    space.kubectl("delete", "pod", "tunefleet-demo-viewer")
    held.free(10)
    _suspend(space, "demo", False)
    space.await_end("demo")
    rows = space.check_trials("demo", 10)
    assert space.read("best", "demo")["value"] == min(row["value"] for row in rows)
    assert space.launch("watch", handle).returncode == 0


def _leaves(pod: Any) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _suspend(space: Namespace, run_id: str, suspended: bool) -> None:
    changes = json.dumps({"spec": {"suspend": suspended}})
    for part in ("chief", "worker"):
        space.kubectl("patch", "job", f"tunefleet-{run_id}-{part}", "-p", changes)


def test_two_studies_in_one_namespace_never_meet(space: Namespace, held: Held) -> None:
    words = ["--trials=3", "--workers=1", *held.words]
    space.submit(held.study, "left", *words)
    # Another one by two at once, of whom one makes it and the other attaches.
    own = ["submit", held.study, "--on=k8s", f"--namespace={space.name}", "--id=right"]
    pair = [space.follow(*own, *SMALL, *words) for _ in range(2)]
    said = [process.communicate()[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
    assert len(space.every("jobs", "app.kubernetes.io/instance=right")) == 2
    # The same request again attaches, and another one is refused.
    assert "was there already" in space.submit(held.study, "right", *words).stderr
    other = space.submit(held.study, "right", "--trials=4", *words[1:], status=2)
    assert "other trials" in other.stderr and other.stderr.count("\n") == 1

    for run_id in ("left", "right"):
        space.await_log(run_id, "worker-0", "trial 0000, attempt 1")
    stranger = space.await_pod("left", "worker-0")["metadata"]["name"]
    # A worker of one study calls the chief of the other, with all that it has.
    words = ["env", "KERASTUNER_ORACLE_IP=tunefleet-right-chief", "KERASTUNER_TUNER_ID=stranger"]
    words += ["python", "launch.py", "run", "/study/numbered.py"]
    refused = space.kubectl("exec", stranger, "--", *words, check=False)
    assert "certificate" in refused or "token" in refused, refused
    held.free(3)
    for run_id in ("left", "right"):
        space.await_end(run_id)
        space.check_trials(run_id, 3)
    workers = {row["worker"] for row in space.read("trials", "right")}
    assert workers == {"worker-0"}

    # More points, on new Jobs.
    held.free(5)
    space.launch("resume", space.handle("left"), "--trials", "+2")
    space.await_end("left")
    space.check_trials("left", 5)
    text = space.launch("list", "--on", "k8s", "--namespace", space.name, "--json").stdout
    rows = {row["id"]: row for row in json.loads(text)}
    assert rows["left"]["state"] == "DONE"
