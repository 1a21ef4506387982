"""`--on ray` with a real cluster of Ray's on this machine, whose token is on."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pathlib
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cluster.launchers.ray.there import INTERPRETER
from tests.support.cli_runs import PATIENCE_S, STUDIES, processes_of, wait_until
from tests.support.ray_search import HeldSearch, RayCluster, ended

# Each verb is a job on a cluster that may be busy.
pytestmark = [pytest.mark.ray, pytest.mark.timeout(1500)]

SLOW = str(STUDIES / "slow.py")


@pytest.fixture
def head(ray_cluster: RayCluster) -> RayCluster:
    return ray_cluster


def submit(head: RayCluster, run_id: str, *more: str, study: str = SLOW, **own: str) -> Any:
    """`submit`, as it was typed."""
    place = ("--on", "ray", "--address", head.where, "--id", run_id)
    return head.launch("submit", study, *place, "--seed", "1", *more, **own)


def rows(head: RayCluster, run_id: str) -> list[dict[str, Any]]:
    """What `trials --json` says."""
    done = head.launch("trials", f"raycluster://{head.where}/{run_id}", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def status(head: RayCluster, run_id: str) -> dict[str, Any]:
    """What `status --json` says."""
    done = head.launch("status", f"raycluster://{head.where}/{run_id}", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_stranger_is_refused_everywhere(head: RayCluster, tmp_path: pathlib.Path) -> None:
    for path in ("/api/version", "/api/jobs/", "/nodes?view=summary"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://{head.where}{path}", timeout=30)
        assert refused.value.code == 401, path
    job = urllib.request.Request(
        f"http://{head.where}/api/jobs/",
        data=json.dumps({"entrypoint": f"touch {tmp_path}/owned"}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(job, timeout=30)
    assert refused.value.code == 401 and not (tmp_path / "owned").exists()
    # Whatever listens: nobody is told figures, or anything else, there.
    asked = head.listening()
    assert {head.port, head.dashboard} < asked
    with ThreadPoolExecutor(len(asked)) as at_once:
        assert not any(at_once.map(tells_figures, asked))
    other = tmp_path / "other"
    other.write_text("0" * 64)
    code = f"import ray; ray.init('127.0.0.1:{head.port}', log_to_driver=False)"
    strangers = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "RAY_AUTH_MODE": "token", **mode},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for mode in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN_PATH": str(other)})
    ]
    for stranger in strangers:
        words = stranger.communicate(timeout=PATIENCE_S)[0].lower()
        assert stranger.returncode, words
        assert "authentication" in words or "unauthenticated" in words, words[-800:]


def tells_figures(port: int) -> bool:
    """Whether somebody without the token is answered at a port."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)
    except (OSError, http.client.HTTPException):
        return False
    return True


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "asks for a token: set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_TOKEN_PATH": "other"}, "refuses this token"),
    ],
)
def test_without_the_token_no_verb_does_anything(
    head: RayCluster, tmp_path: pathlib.Path, own: dict[str, str], says: str
) -> None:
    if "RAY_AUTH_TOKEN_PATH" in own:
        own = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "other")}
        (tmp_path / "other").write_text("0" * 64)
    for words in (["submit", SLOW, "--on", "ray"], ["list", "--on", "ray"]):
        done = head.launch(*words, "--address", head.where, **own)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert says in done.stderr


def test_doctor_says_what_there_is_and_what_is_missing(
    head: RayCluster, tmp_path: pathlib.Path
) -> None:
    place = ("doctor", "--on", "ray", "--address", head.where)
    done = head.launch(*place, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["missing"], sorted(found["nodes"].split("; "))) == ([], ["0 CPU", "2 CPU"])
    assert found["token"] == "asked for, and ours is taken"
    assert found["python"].startswith(f"{'.'.join(map(str, sys.version_info[:3]))} (")
    assert found["runs"].startswith(f"{head.home}/runs, ")
    # An interpreter there that is of another version.
    (tmp_path / "sitecustomize.py").write_text(
        "import platform\nplatform.python_version = lambda: '3.12.1'\n"
    )
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    many = ("--workers", "3", "--gpus-per-worker", "1")
    unlike = head.launch(*place, "--python", str(other), *many)
    assert unlike.returncode == 1, unlike.stdout + unlike.stderr
    assert "on the cluster, as here: it has 3.12.1" in unlike.stdout
    assert "--workers 3: the Ray cluster at" in unlike.stdout and "room for 0" in unlike.stdout


def test_what_the_cluster_cannot_do_is_refused_and_not_queued(
    head: RayCluster, tmp_path: pathlib.Path
) -> None:
    many = submit(head, "many", "--workers", "9")
    assert (many.returncode, many.stderr.count("\n")) == (2, 1), many.stderr
    assert "--workers 9: the Ray cluster at" in many.stderr and "room for 2" in many.stderr
    # A module that is installed here, by hand, and nowhere else.
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "only_here.py").write_text("LEVEL = 1\n")
    study = tmp_path / "study.py"
    study.write_text("import only_here\n" + pathlib.Path(SLOW).read_text())
    lacking = submit(head, "lacks", study=str(study), PYTHONPATH=str(tmp_path / "site"))
    assert (lacking.returncode, lacking.stderr.count("\n")) == (2, 1), lacking.stderr
    assert "only_here" in lacking.stderr
    # The id is free for what is right.
    study.write_text(pathlib.Path(SLOW).read_text())
    right = submit(head, "lacks", "--trials", "1", study=str(study))
    assert right.returncode == 0, right.stderr
    wrong = submit(head, "python", "--python", "/opt/none/python")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1), wrong.stderr
    assert "the cluster has no /opt/none/python: give --python" in wrong.stderr
    unknown = head.launch("status", f"raycluster://{head.where}/unknown")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1), unknown.stderr


def test_a_search_from_its_submission_to_the_model(
    head: RayCluster, tmp_path: pathlib.Path
) -> None:
    study = str(STUDIES / "slow_keras.py")
    options = ("--trials", "2", "--workers", "2", "--epochs", "2")
    first = submit(head, "whole", *options, study=study)
    assert first.returncode == 0, first.stderr
    handle = f"raycluster://{head.where}/whole"
    assert first.stdout.startswith(f"run {handle}\nnext:\n  python launch.py status {handle}")
    again = submit(head, "whole", *options, study=study)
    assert again.returncode == 0 and "was there already" in again.stderr, again.stderr
    other = submit(head, "whole", "--trials", "3", study=study)
    assert other.returncode == 2 and "other trials, epochs" in other.stderr, other.stderr
    follows = head.begin("logs", handle, "-f")
    watched = head.launch("watch", handle, timeout=900)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    code, followed, err = ended(follows)
    assert code == 0 and "leaving with exit status 0" in followed, followed + err
    found = status(head, "whole")
    assert (found["state"], found["trials"]["completed"]) == ("DONE", 2)
    assert found["job"] == {
        "name": "tunefleet_whole_1",
        "status": "SUCCEEDED",
        "exit_code": 0,
        "message": None,
    }
    listed = json.loads(
        head.launch("list", "--on", "ray", "--address", head.where, "--json").stdout
    )
    assert {"id": "whole", "state": "DONE", "study": "slow-keras"}.items() <= next(
        row for row in listed if row["id"] == "whole"
    ).items()
    best = json.loads(head.launch("best", handle, "--json").stdout)
    model = tmp_path / "best.keras"
    exported = head.launch("export", handle, "--out", str(model))
    assert exported.returncode == 0, exported.stderr
    assert model.read_bytes()[:2] == b"PK" and f"model         {model}" in exported.stdout
    story = json.loads((tmp_path / "best.keras.json").read_text())
    assert story["value"] == best["value"]
    log = head.launch("logs", handle)
    assert "leaving with exit status 0" in log.stdout
    for words in (["logs", handle, "0000"], ["stop", handle]):
        done = head.launch(*words)
        assert done.returncode == 0, done.stderr
    # Its leader was on the head, whatever Ray would choose.
    assert (head.home / "runs" / "whole" / "ledger.db").exists()
    assert not (head.elsewhere / "runs").exists()
    shown = head.begin("tensorboard", handle, "--port", "0")
    try:
        assert shown.stdout is not None
        url = shown.stdout.readline().split("#")[0].strip().rstrip("/")
        with urllib.request.urlopen(f"{url}/data/runs", timeout=60) as answer:
            known = json.load(answer)
        assert sum("trial-" in name for name in known) == 2
    finally:
        shown.terminate()
        shown.communicate()


def test_a_benchmark_of_searches_there(head: RayCluster, tmp_path: pathlib.Path) -> None:
    words = ["benchmark", SLOW, "--on=ray", f"--address={head.where}", f"--runs={tmp_path}"]
    words += ["--id=both", "--samplers=random,qmc", "--seeds=1", "--trials=2", "--top=0"]
    done = head.launch(*words)
    assert "2/2 ray / qmc" in done.stdout, done.stdout + done.stderr

    # Its searches are runs here to read, and are not done again.
    here = head.launch("trials", "both-c001", f"--runs={tmp_path}").stdout
    assert here.count("COMPLETED") == 2
    assert "/2 " not in head.launch(*words).stdout

    handle = f"raycluster://{head.where}/both-c001"
    done = head.launch("report", handle, f"--out={tmp_path / 'page'}")
    assert "both-c001" in (tmp_path / "page" / "report.html").read_text(), done.stderr


def test_a_search_goes_on_after_its_driver_a_stop_and_its_head(
    head: RayCluster, tmp_path: pathlib.Path
) -> None:
    run = head.search("long", tmp_path)
    begun = head.launch(*run.submit("--trials", "8", "--workers", "2"))
    assert begun.returncode == 0, begun.stderr
    run.complete(1)
    for pid in processes_of("--id=long"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: '"FAILED"' in run.job(1), "the job's end")
    found = status(head, "long")
    assert (found["state"], found["job"]["status"]) == ("STOPPED", "FAILED")
    first = run.completed()

    resumed = head.launch("resume", run.handle)
    assert resumed.returncode == 0, resumed.stderr
    run.complete(len(first) + 1)
    stopping = head.begin("stop", run.handle)
    run.wait_for_log("draining")
    run.release(*(row["trial_id"] for row in run.rows() if row["state"] == "RUNNING"))
    code, out, err = ended(stopping)
    assert code == 0 and f"go on with: python launch.py resume {run.handle}" in out, out + err
    found = status(head, "long")
    assert (found["state"], found["job"]["exit_code"]) == ("STOPPED", 75)
    assert found["job"]["name"] == "tunefleet_long_2"
    second = [row for row in rows(head, "long") if row["state"] == "COMPLETED"]
    assert [row for row in second if row in first] == first and second == run.completed()

    resumed = head.launch("resume", run.handle, "--trials", "+1")
    assert resumed.returncode == 0, resumed.stderr
    run.complete(len(second) + 1)
    check_lost_head(head, run, tmp_path / "token")
    resumed = head.launch("resume", run.handle)
    assert resumed.returncode == 0, resumed.stderr
    third = run.completed()
    run.release()
    watched = head.launch("watch", run.handle, timeout=900)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    done = run.completed()
    # No trial that had ended ran again.
    assert [row for row in third if row in second] == second
    assert [row for row in done if row in third] == third
    assert len({row["trial_id"] for row in done}) == len(done) == 9


def check_lost_head(head: RayCluster, run: HeldSearch, token: pathlib.Path) -> None:
    """The head goes while a log is followed, and is started anew without any memory of ``run``."""
    # Somebody who is not at the head, and lives on.
    token.write_text(head.token.read_text())
    follows = head.begin("logs", run.handle, "-f", RAY_AUTH_TOKEN_PATH=str(token))
    assert follows.stdout and follows.stdout.readline()
    head.kill()
    try:
        code, _, said = ended(follows)
        assert (code, said.count("\n")) == (3, 1) and "no head answers" in said, said
        gone = head.launch("status", run.handle)
        assert gone.returncode == 3 and "no head answers at" in gone.stderr, gone.stderr
        noted = head.home / "runs" / ".sent" / run.id / INTERPRETER
        assert noted.read_text() == sys.executable
    finally:
        head.start()
