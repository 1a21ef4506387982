"""Searches on a real control plane, from their submission to what is read after their end."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from typing import Any, Self

import pytest

from tests.integration.test_kubernetes_files import FILES
from tests.k8s.conftest import SMALL, Namespace
from tests.support.cli_runs import ROOT, STUDIES, wait_until

pytestmark = pytest.mark.k8s

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

    # The same request again attaches, and another one is refused.
    again = space.submit("digits", "digits", "--trials=3", "--workers=2", "--seed=1")
    assert "was there already" in again.stderr
    other = space.submit("digits", "digits", "--trials=4", "--workers=2", "--seed=1", status=2)
    assert "other trials" in other.stderr and other.stderr.count("\n") == 1

    # More points, on new Jobs.
    space.launch("resume", handle, "--trials", "+2")
    space.await_end("digits")
    space.check_trials("digits", 5)
    (row,) = [row for row in _listed(space) if row["id"] == "digits"]
    assert row["state"] == "DONE"


def test_a_benchmark_of_searches_there(space: Namespace, tmp_path: pathlib.Path) -> None:
    words = ["benchmark", "digits", "--on=k8s", f"--namespace={space.name}", f"--runs={tmp_path}"]
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


def _listed(space: Namespace) -> list[dict[str, object]]:
    text = space.launch("list", "--on", "k8s", "--namespace", space.name, "--json").stdout
    found: list[dict[str, object]] = json.loads(text)
    return found


def open_tensorboard(space: Namespace, handle: str) -> str:
    """What the page begins with that a browser would see."""
    with TensorBoard(space, handle) as shown:
        return str(wait_until(shown.page, "TensorBoard's page", 90))


class TensorBoard:
    """The verb of that name, which serves until it is ended."""

    def __init__(self, space: Namespace, handle: str) -> None:
        self._process = space.follow("tensorboard", handle, "--port", "0")
        assert self._process.stdout
        url = re.match(r"(http://127.0.0.1:\d+)/", self._process.stdout.readline())
        assert url
        self._url = url[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self.end()

    def page(self) -> str:
        """What its page begins with; "" where it does not answer."""
        try:
            with urllib.request.urlopen(self._url, timeout=20) as answer:
                text: str = answer.read(200).decode()
                return text
        except OSError:
            return ""

    def end(self) -> str:
        """Ends it by Ctrl-C; answers what it said meanwhile."""
        self._process.send_signal(signal.SIGINT)
        said, _ = self._process.communicate(timeout=20)
        assert self._process.returncode == 0, said
        return said


def test_a_published_study_on_pods_with_gpus(space: Namespace) -> None:
    words = ["--trials=2", "--epochs=1", "--train-examples=512", "--workers=1"]
    space.submit("cnn-dropout", "cnn", "--gpus-per-worker=1", *words)
    space.await_end("cnn", 280)
    (row, _) = space.check_trials("cnn", 2)
    # As the Job said; the image here is no GPU's.
    assert row["device"] == "gpu:0"
    worker = space.get("pods", "-l", "app.kubernetes.io/component=worker")["items"][0]
    assert worker["spec"]["nodeName"] == "one"


def test_a_search_that_kubectl_applies_suspends_and_lets_go(
    space: Namespace, tmp_path: pathlib.Path
) -> None:
    own = shutil.copytree(FILES, tmp_path / "k8s")
    chief = own / "base" / "chief.yaml"
    # So many that it is suspended in the middle.
    chief.write_text(chief.read_text().replace("--trials=10", "--trials=30"))
    secret = [sys.executable, "-m", "cluster.secret", "demo"]
    made = subprocess.run(secret, cwd=ROOT, check=True, capture_output=True, text=True)
    space.kubectl("apply", "-f", "-", said=made.stdout)
    space.kubectl("apply", "-k", str(own / "overlays" / "local"))
    handle = space.handle("demo")
    space.await_pod("demo", "chief")
    wait_until(lambda: space.completed("demo"), "a first trial", 120)

    _suspend(space, "demo", True)
    wait_until(lambda: not space.pod("demo", "chief"), "no chief", 90)
    before = wait_until(lambda: _counts(space, "demo"), "what the viewer counts", 90)
    assert before["running"] == 0 and 1 <= before["completed"] < 30
    assert space.read("status", "demo")["state"] == "STOPPED"
    # Which has the volume meanwhile.
    space.kubectl("delete", "pod", "tunefleet-demo-viewer")
    _suspend(space, "demo", False)
    space.await_end("demo")
    rows = space.check_trials("demo", 30)
    assert space.read("best", "demo")["value"] == max(row["value"] or 0 for row in rows)
    assert space.launch("watch", handle).returncode == 0


def _counts(space: Namespace, run_id: str) -> Any:
    """How many trials stand where; None while no pod can be asked."""
    counts = space.read("status", run_id)["trials"]
    return None if counts["completed"] is None else counts


def _suspend(space: Namespace, run_id: str, suspended: bool) -> None:
    changes = json.dumps({"spec": {"suspend": suspended}})
    for part in ("chief", "worker"):
        space.kubectl("patch", "job", f"tunefleet-{run_id}-{part}", "-p", changes)


def test_two_studies_in_one_namespace_never_meet(space: Namespace, unhurried: str) -> None:
    for run_id in ("left", "right"):
        space.submit(unhurried, run_id, "--trials=4", "--workers=1")
    stranger = space.await_pod("left", "worker-0")["metadata"]["name"]
    # A worker of one study calls the chief of the other, with all that it has.
    words = ["env", "KERASTUNER_ORACLE_IP=tunefleet-right-chief", "KERASTUNER_TUNER_ID=stranger"]
    words += ["python", "launch.py", "run", "/study/slow.py"]
    said = space.kubectl("exec", stranger, "--", *words, check=False)
    assert "certificate" in said or "token" in said, said
    for run_id in ("left", "right"):
        space.await_end(run_id)
        space.check_trials(run_id, 4)
    workers = {row["worker"] for row in space.read("trials", "right")}
    assert workers == {"worker-0"}


def test_the_same_id_at_once_is_one_run(space: Namespace) -> None:
    words = ["submit", SLOW, "--on", "k8s", "--namespace", space.name, "--id", "once", "--trials=2"]
    pair = [
        subprocess.Popen([sys.executable, "launch.py", *words], cwd=ROOT, env=space.environ)
        for _ in range(2)
    ]
    assert [process.wait(200) for process in pair] == [0, 0]
    assert len(space.get("jobs")["items"]) == 2
    space.await_end("once")
    space.check_trials("once", 2)
