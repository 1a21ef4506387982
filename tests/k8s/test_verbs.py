"""What changes a run, and what is left of it when its pods are gone."""

from __future__ import annotations

import json
import pathlib

import pytest
import yaml

from cluster.secret import secret_of
from tests.integration.test_kubernetes_files import of_instance
from tests.k8s.conftest import Held
from tests.k8s.namespace import Namespace
from tests.support.cli_runs import STUDIES, wait_until

# Longer than all waits of one test together: see PATIENCE_S.
pytestmark = [pytest.mark.k8s, pytest.mark.timeout(1800)]


def test_stopping_now_puts_trials_back(space: Namespace, held: Held) -> None:
    handle = space.handle("now")
    # Longer than anything here takes: a stop that waited for the trial would be a hang.
    words = ["--workers=1", "--trials=4", "--grace=3600", *held.words]
    space.submit(held.study, "now", *words)
    space.await_log("now", "worker-0", "trial 0000, attempt 1")
    space.launch("stop", handle, "--now")
    assert not space.pod("now", "chief")
    # Without --now the trial would have come to its end.
    (row,) = [row for row in space.read("trials", "now") if row["state"] == "FAILED"]
    assert row["failure"] == "PREEMPTED"
    assert space.read("status", "now")["state"] == "STOPPED"
    space.launch("resume", handle)
    # The suspended Job's first pod has gone with its log.
    space.await_log("now", "worker-0", "trial 0000, attempt 2")
    assert space.read("status", "now")["trials"]["running"] == 1


def test_failed_trials_run_again_and_the_log_and_a_copy_stay(
    space: Namespace, tmp_path: pathlib.Path
) -> None:
    study = tmp_path / "mending.py"
    text = (STUDIES / "mending.py").read_text()
    # Two of six points fail, whatever is done.
    study.write_text(text.replace('"/nonexistent"', '"/study"'))
    assert study.read_text() != text
    handle = space.handle("again")
    words = ["--workers=1", "--sampler=grid", "--code-retries=0", "--same-error=50"]
    space.submit(str(study), "again", *words, "--store=file:///runs/copy")
    space.await_end("again")
    # What is asked first makes the viewer.
    assert "DONE" in space.launch("status", handle).stdout
    # The viewer sees what the chief's neighbour wrote after the chief's end.
    space.check_trials("again", 4)
    assert "ledger.db" in space.kubectl(
        "exec", "tunefleet-again-viewer", "--", "ls", "/runs/copy/again"
    )
    assert space.read("status", "again")["trials"]["failed"] == 2

    said = space.launch("retry", handle, "--failed", "--code-retries=2").stdout
    assert f"watch {handle}" in said
    space.await_end("again")
    attempts = [row["attempt"] for row in space.read("trials", "again") if row["failure"] == "CODE"]
    # Three times each, as the new limit says; what was completed was left alone.
    assert sorted(attempts) == [1, 1, 2, 2, 3, 3]
    assert space.read("status", "again")["trials"]["completed"] == 4

    # A day after the end the cluster takes the Jobs and their pods away.
    space.kubectl("delete", "job", "tunefleet-again-chief", "tunefleet-again-worker")
    wait_until(lambda: not space.pods("again", "chief"), "no chief")
    assert "serving run again" in space.launch("logs", handle).stdout
    assert "gone but for its results: submit it again" in (
        space.launch("resume", handle, status=2).stderr
    )


def test_a_run_that_fails_before_it_begins(space: Namespace, tmp_path: pathlib.Path) -> None:
    # By hand, for `submit` would have refused it.
    manifests = of_instance(tmp_path / "k8s", "hand", [], study="nonesuch")
    manifests.append(secret_of("hand"))
    space.kubectl("apply", "-f", "-", said=yaml.safe_dump_all(manifests))
    (row,) = json.loads(
        space.launch("list", "--on", "k8s", "--namespace", space.name, "--json").stdout
    )
    asked = {name: row[name] for name in ("id", "study", "engine", "sampler", "pruner")}
    expected = {"study": "nonesuch", "engine": "keras-tuner", "sampler": "random"}
    assert asked == {"id": "hand", "pruner": "none", **expected}
    assert row["trials"]["wanted"] == 10

    wait_until(lambda: "hand-chief" in space.over("hand"), "the chief's Job has failed")
    handle = space.handle("hand")
    for verb in ("watch", "trials", "best"):
        said = space.launch(verb, handle, status=3).stderr
        assert "run hand failed before it began: " in said and "nonesuch" in said
        assert f"resume {handle}" in said and said.count("\n") == 1
    assert "nonesuch" in space.launch("logs", handle).stdout
    assert space.read("status", "hand")["state"] == "FAILED"
    seen = space.launch("status", handle).stdout
    assert "FAILED" in seen and "nonesuch" in seen


def test_a_run_in_a_queue_keeps_its_volume(space: Namespace) -> None:
    study, handle = str(STUDIES / "slow.py"), space.handle("queued")
    space.submit(study, "queued", "--trials=2", "--workers=1", "--queue=tuning")
    seen = space.launch("status", handle).stdout
    assert "waits in Kueue's queue tuning" in seen
    said = space.launch("trials", handle, status=3).stderr
    assert "waits in Kueue's queue tuning" in said and said.count("\n") == 1
    assert "in Kueue's queue tuning" in space.launch("resume", handle, status=2).stderr
    # A viewer would keep the volume from the chief, whenever the queue lets that go.
    assert "No resources found" in space.kubectl("get", "pods")
    for part in ("chief", "worker"):
        patch = ["job", f"tunefleet-queued-{part}", "-p", '{"spec":{"suspend":false}}']
        space.kubectl("patch", *patch)
    space.await_end("queued")
    space.check_trials("queued", 2)


def test_figures_without_those_who_fetch_them_are_refused(space: Namespace) -> None:
    study = str(STUDIES / "slow.py")
    said = space.submit(study, "seen", "--monitoring", status=3).stderr
    assert "have Prometheus's operator installed" in said and said.count("\n") == 1
    own = ["--on", "k8s", "--namespace", space.name, "--monitoring"]
    assert "have Prometheus's operator installed" in space.launch("doctor", *own, status=1).stdout
    assert "No resources found" in space.kubectl(
        "get", "pvc,job,secret", "-l", "app.kubernetes.io/instance=seen"
    )
