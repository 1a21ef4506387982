"""What Ray's job server does with a search: its nodes, its agent, its `stop`; and unfriendly use.

The cluster lets Ray put a job on whatever node it likes, as one may configure it, and its head
takes no trials, as on clouds.
"""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.integration.test_ray_launcher import status
from tests.support.cli_runs import LONG, PATIENCE_S, wait_until
from tests.support.ray_search import RayCluster, ended

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

# On the cluster, and not where it is submitted, it takes its time to be read.
UNREAD = """
import os
import time

while os.environ["HOME"] == {waits!r} and not os.path.exists({until!r}):
    time.sleep(0.02)

"""


@pytest.fixture
def head(ray_cluster: RayCluster) -> RayCluster:
    return ray_cluster


def refused(done: Any, exit_status: int, says: str) -> None:
    """One line says what is wrong."""
    assert (done.returncode, done.stderr.count("\n")) == (exit_status, 1), done.stderr
    assert says in done.stderr, done.stderr


_HIDE = """
import sys
from ray._raylet import GcsClient
from ray.dashboard.consts import DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX as PREFIX
space = b"dashboard"
gcs = GcsClient(address=sys.argv[1])
keys = gcs.internal_kv_keys(PREFIX.encode(), space)
kept = {key: gcs.internal_kv_get(key, space) for key in keys}
for key in keys:
    gcs.internal_kv_del(key, False, space)
print("hidden", flush=True)
sys.stdin.readline()
for key in keys:
    gcs.internal_kv_put(key, kept[key], True, space)
"""


def test_a_head_whose_agent_comes_up_late_is_waited_for(head: RayCluster) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HIDE, f"127.0.0.1:{head.port}"],
        env={**os.environ, **head.guard},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as agent:
        assert agent.stdin and agent.stdout and agent.stdout.readline() == "hidden\n"
        log = head.folder / "r" / "session_latest" / "logs" / "dashboard_JobHead.log"
        missed = "Timed out waiting for an available job"
        before = log.read_text().count(missed)
        asked = head.begin("status", f"raycluster://{head.where}/unknown")
        wait_until(lambda: log.read_text().count(missed) > before, "no agent")
        agent.communicate("\n")
    code, _, err = ended(asked)
    assert (code, err.count("\n")) == (2, 1) and "no run 'unknown' was sent" in err, err


def test_ray_job_stop_leaves_trials_their_grace(head: RayCluster, tmp_path: pathlib.Path) -> None:
    run = head.search("told", tmp_path)
    begun = head.launch(*run.submit("--trials", "2", "--workers", "2", "--grace", LONG))
    assert begun.returncode == 0, begun.stderr
    run.busy_workers(2)
    told = subprocess.Popen(
        [str(pathlib.Path(sys.executable).with_name("ray")), "job", "stop", "tunefleet_told_1"],
        env={**os.environ, **head.guard, "RAY_API_SERVER_ADDRESS": f"http://{head.where}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    run.wait_for_log("draining")
    # Ray's own patience, which is none on this cluster, is over.
    run.release("0000")
    wait_until(run.completed, "the trial's end")
    # As if the grace were over.
    os.kill((run.status() or {})["chief"]["pid"], signal.SIGTERM)
    out, _ = told.communicate(timeout=PATIENCE_S)
    assert told.returncode == 0 and "was stopped" in out, out
    found = status(head, "told")
    assert (found["state"], found["job"]["status"]) == ("STOPPED", "STOPPED")
    before = {row["trial_id"]: row for row in run.rows() if row["state"] != "WAITING"}
    assert (before["0000"]["state"], before["0001"]["failure"]) == ("COMPLETED", "PREEMPTED")

    # From two shells at once it goes on once.
    run.release()
    for shell in [head.begin("resume", run.handle) for _ in range(2)]:
        code, _, err = ended(shell)
        assert code == 0, err
    watched = head.launch("watch", run.handle)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    done = run.completed()
    assert before["0000"] in done
    assert [row["trial_id"] for row in done] == ["0000", "0001"]
    assert status(head, "told")["job"]["name"] == "tunefleet_told_2"


def test_a_run_is_stopped_before_it_begins_and_its_next_shell_is_killed(
    head: RayCluster, tmp_path: pathlib.Path
) -> None:
    run = head.search("early", tmp_path)
    until = tmp_path / "read"
    waits = UNREAD.format(waits=str(head.home), until=str(until))
    run.study.write_text(waits + run.study.read_text())
    run.release()
    submit = run.submit("--trials", "1")
    shell = head.begin(*submit)
    wait_until(lambda: (head.home / "runs" / ".sent" / "early").exists(), "the job")
    stopped = head.launch("stop", run.handle)
    assert stopped.returncode == 0, stopped.stderr
    assert "was stopped as it began: go on with the same `submit`" in stopped.stdout
    code, _, err = ended(shell)
    assert (code, err.count("\n")) == (2, 1) and "stopped before it began" in err, err
    refused(head.launch("resume", run.handle), 2, "no run 'early'")

    cut = head.begin(*submit)
    # Its number tells of those before it, also of the one that was refused.
    wait_until(lambda: run.job(3), "the job")
    cut.kill()
    cut.communicate()
    until.touch()
    again = head.launch(*submit)
    assert again.returncode == 0 and "run early was there already" in again.stderr, again.stderr
    assert head.launch("watch", run.handle).returncode == 0
    assert status(head, "early")["job"]["name"] == "tunefleet_early_3"


def test_an_id_from_two_shells_at_once(head: RayCluster, tmp_path: pathlib.Path) -> None:
    run = head.search("both", tmp_path)
    shells = [head.begin(*run.submit("--trials", number)) for number in ("20", "21")]
    found = [ended(shell) for shell in shells]
    assert sorted(code for code, _, _ in found) == [0, 2], found
    ((_, _, err),) = [each for each in found if each[0]]
    assert err.count("\n") == 1 and "was made by another request (other trials)" in err, err
    stopped = [head.begin("stop", run.handle, "--now") for _ in range(2)]
    assert [ended(shell)[0] for shell in stopped] == [0, 0]


def test_what_cannot_begin_is_said_and_not_listed(head: RayCluster, tmp_path: pathlib.Path) -> None:
    refused(head.launch("resume", f"raycluster://{head.where}/never"), 2, "no run 'never' was sent")
    listed = head.launch("list", "--on", "ray", "--address", head.where)
    assert listed.returncode == 0 and "/never" not in listed.stdout, listed.stdout
    # An interpreter that lacks what the project needs.
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'grpc'\"\nexit 1\n")
    broken.chmod(0o755)
    done = head.launch(*head.search("broken", tmp_path).submit("--python", str(broken)))
    refused(done, 3, "did not begin: ModuleNotFoundError: No module named 'grpc'")
