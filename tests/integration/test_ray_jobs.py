"""What Ray's job server does with a search: its nodes, its agent, its `stop`; and unfriendly use.

The cluster lets Ray put a job on whatever node it likes, as one may configure it, and its head
takes no trials, as on clouds.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.test_ray_launcher import local, status
from tests.support.cli_runs import ROOT, STUDIES, environment, wait_until
from tests.support.ray_head import RayHead

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SLOW = str(STUDIES / "slow.py")
STUDY = """
import os
import pathlib
import time

OBJECTIVE = "loss"
GO = pathlib.Path({go!r})
NEAR = GO.with_name("near")

# On the cluster, and not where it is submitted, it takes its time to be read.
while os.environ["HOME"] == {waits!r} and not GO.exists():
    time.sleep(0.2)


def evaluate(hp, report):
    length = hp.Choice("length", ["short", "long"])
    for step in range(1, 1200):
        report(step, {{"loss": 1 / step}})
        if GO.exists() or (length == "short" and NEAR.exists()):
            break
        time.sleep(0.5)
    return {{}}
"""


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    made = RayHead(cpus=0, RAY_JOB_ALLOW_DRIVER_ON_WORKER_NODES="1", SLOW_STEP_S="0.5")
    yield made
    made.close()


@pytest.fixture(scope="module")
def elsewhere(head: RayHead) -> pathlib.Path:
    """The home on the node that trials run on."""
    return head.join(cpus=2)


def study(folder: pathlib.Path, waits: str = "") -> tuple[str, pathlib.Path]:
    """A study, and the file that lets its trials end; where one ``waits`` it is not read before.

    A file "near" beside that one lets its short trial end, and not the long one.
    """
    path, go = folder / "lengths.py", folder / "go"
    path.write_text(STUDY.format(go=str(go), waits=waits))
    return str(path), go


def place(head: RayHead, run_id: str) -> tuple[str, ...]:
    """What `submit` is told besides the study."""
    return ("--on", "ray", "--address", head.where, "--id", run_id, "--seed", "1")


def typed(head: RayHead, *words: str, **own: str) -> subprocess.Popen[str]:
    """A `launch.py` in a shell of its own."""
    return subprocess.Popen(
        [sys.executable, "launch.py", *words],
        cwd=ROOT,
        env=environment(words, {**head.guard, **own}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(shell: subprocess.Popen[str]) -> tuple[int, str, str]:
    """How it left, and what it said."""
    out, err = shell.communicate(timeout=300)
    return shell.returncode, out, err


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
(key,) = gcs.internal_kv_keys(PREFIX.encode(), space)
kept = gcs.internal_kv_get(key, space)
gcs.internal_kv_del(key, False, space)
print("hidden", flush=True)
sys.stdin.readline()
gcs.internal_kv_put(key, kept, True, space)
"""


def test_a_head_whose_agent_comes_up_late_is_waited_for(head: RayHead) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HIDE, f"127.0.0.1:{head.port}"],
        env={**os.environ, **head.guard},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as agent:
        assert agent.stdin and agent.stdout and agent.stdout.readline() == "hidden\n"
        asked = typed(head, "status", f"raycluster://{head.where}/unknown")
        log = head.folder / "r" / "session_latest" / "logs" / "dashboard_JobHead.log"
        wait_until(lambda: "Timed out waiting for an available job" in log.read_text(), "no agent")
        agent.communicate("\n", timeout=60)
    code, _, err = ended(asked)
    assert (code, err.count("\n")) == (2, 1) and "no run 'unknown' was sent" in err, err


def test_a_leader_is_on_the_head_whatever_ray_would_choose(
    head: RayHead, elsewhere: pathlib.Path
) -> None:
    handle = f"raycluster://{head.where}/there"
    begun = head.launch("submit", SLOW, *place(head, "there"), "--trials", "4")
    assert begun.returncode == 0, begun.stderr
    follows = typed(head, "logs", handle, "-f")
    watched = head.launch("watch", handle)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    code, log, err = ended(follows)
    assert code == 0 and "leaving with exit status 0" in log, log + err
    found = status(head, "there")
    assert (found["state"], found["trials"]["completed"]) == ("DONE", 4)
    for words in (["logs", handle, "0000"], ["best", handle], ["stop", handle]):
        done = head.launch(*words)
        assert done.returncode == 0, done.stderr
    assert (head.home / "runs" / "there" / "ledger.db").exists()
    assert not (elsewhere / "runs").exists()


@pytest.mark.usefixtures("elsewhere")
def test_ray_job_stop_leaves_trials_their_grace(head: RayHead, tmp_path: pathlib.Path) -> None:
    path, go = study(tmp_path)
    handle = f"raycluster://{head.where}/told"
    options = ("--sampler", "grid", "--workers", "2", "--grace", "20")
    begun = head.launch("submit", path, *place(head, "told"), *options)
    assert begun.returncode == 0, begun.stderr
    folder = head.home / "runs" / "told"

    def reached() -> bool:
        found = local(folder)
        return len(found) == 2 and all(row["history"] for row in found)

    wait_until(reached, "both trials at work", 300)
    told = subprocess.Popen(
        [str(pathlib.Path(sys.executable).with_name("ray")), "job", "stop", "tunefleet_told_1"],
        env={**os.environ, **head.guard, "RAY_API_SERVER_ADDRESS": f"http://{head.where}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = folder / "logs" / "chief.log"
    wait_until(lambda: "draining" in log.read_text(), "it drains", 120)
    # Ray's own patience is over after three seconds.
    time.sleep(5)
    go.with_name("near").touch()
    out, _ = told.communicate(timeout=120)
    assert told.returncode == 0 and "was stopped" in out, out
    found = status(head, "told")
    assert (found["state"], found["job"]["status"]) == ("STOPPED", "STOPPED")
    before = {row["params"]["length"]: row for row in local(folder) if row["state"] != "WAITING"}
    assert (before["short"]["state"], before["long"]["failure"]) == ("COMPLETED", "PREEMPTED")

    # From two shells at once it goes on once.
    go.touch()
    for shell in [typed(head, "resume", handle) for _ in range(2)]:
        code, _, err = ended(shell)
        assert code == 0, err
    watched = head.launch("watch", handle)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    done = [row for row in local(folder) if row["state"] == "COMPLETED"]
    assert before["short"] in done
    assert [row["params"]["length"] for row in done] == ["short", "long"]
    assert status(head, "told")["job"]["name"] == "tunefleet_told_2"


@pytest.mark.usefixtures("elsewhere")
def test_a_run_is_stopped_before_it_begins(head: RayHead, tmp_path: pathlib.Path) -> None:
    path, go = study(tmp_path, waits=str(head.home))
    handle = f"raycluster://{head.where}/early"
    submit = ("submit", path, *place(head, "early"), "--trials", "1")
    waits = typed(head, *submit)
    wait_until(lambda: (head.home / "runs" / ".sent" / "early").exists(), "the job", 120)
    stopped = head.launch("stop", handle)
    assert stopped.returncode == 0, stopped.stderr
    assert "was stopped as it began: go on with the same `submit`" in stopped.stdout
    code, _, err = ended(waits)
    assert (code, err.count("\n")) == (2, 1) and "stopped before it began" in err, err
    refused(head.launch("resume", handle), 2, "no run 'early'")
    go.touch()
    again = head.launch(*submit)
    assert again.returncode == 0 and "already" not in again.stderr, again.stderr
    assert head.launch("watch", handle).returncode == 0


@pytest.mark.usefixtures("elsewhere")
def test_an_id_from_two_shells_at_once_and_from_one_that_was_killed(head: RayHead) -> None:
    words = ("submit", SLOW, *place(head, "both"), "--trials")
    shells = [typed(head, *words, number) for number in ("20", "21")]
    found = [ended(shell) for shell in shells]
    assert sorted(code for code, _, _ in found) == [0, 2], found
    ((_, _, err),) = [each for each in found if each[0]]
    assert err.count("\n") == 1 and "was made by another request (other trials)" in err, err

    cut = typed(head, "submit", SLOW, *place(head, "cut"), "--trials", "2")
    listed = ("list", "--on", "ray", "--address", head.where, "--json")
    wait_until(lambda: '"cut"' in head.launch(*listed).stdout, "the job", 120)
    cut.send_signal(signal.SIGKILL)
    cut.communicate()
    again = head.launch("submit", SLOW, *place(head, "cut"), "--trials", "2")
    assert again.returncode == 0 and "run cut was there already" in again.stderr, again.stderr
    stopped = [typed(head, "stop", f"raycluster://{head.where}/both", "--now") for _ in range(2)]
    assert [ended(shell)[0] for shell in stopped] == [0, 0]
    assert status(head, "cut")["job"]["name"] == "tunefleet_cut_1"


def test_what_cannot_begin_is_said_and_not_listed(head: RayHead, tmp_path: pathlib.Path) -> None:
    refused(head.launch("resume", f"raycluster://{head.where}/never"), 2, "no run 'never' was sent")
    listed = head.launch("list", "--on", "ray", "--address", head.where)
    assert listed.returncode == 0 and "/never" not in listed.stdout, listed.stdout
    # An interpreter that lacks what the project needs.
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'grpc'\"\nexit 1\n")
    broken.chmod(0o755)
    done = head.launch("submit", SLOW, *place(head, "broken"), "--python", str(broken))
    refused(done, 3, "did not begin: ModuleNotFoundError: No module named 'grpc'")


@pytest.mark.usefixtures("elsewhere")
def test_a_head_that_goes_while_a_log_is_followed(head: RayHead, tmp_path: pathlib.Path) -> None:
    begun = head.launch("submit", SLOW, *place(head, "lost"), "--trials", "200")
    assert begun.returncode == 0, begun.stderr
    # Somebody who is not at the head, and lives on.
    token = tmp_path / "token"
    token.write_text(head.token.read_text())
    handle = f"raycluster://{head.where}/lost"
    follows = typed(head, "logs", handle, "-f", RAY_AUTH_TOKEN_PATH=str(token))
    assert follows.stdout and follows.stdout.readline()
    head.kill()
    with contextlib.closing(follows.stdout):
        follows.stdout.read()
        assert follows.stderr
        said = follows.stderr.read()
    assert (follows.wait(timeout=60), said.count("\n")) == (3, 1), said
    assert "no head answers" in said, said
