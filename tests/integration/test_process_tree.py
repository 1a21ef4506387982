"""Whatever a command starts is gone when it has returned, and soon after it was killed."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from hpo._internal.process_tree import processes
from tests.support.cli_runs import (
    HELD_UNTIL,
    ROOT,
    STUDIES,
    LiveRun,
    is_alive,
    launch,
    wait_for_end,
    wait_until,
)
from tests.support.manual_chief import HandMade, free_port

# Starts a process as a daemon does: a session of its own, its parent gone, nothing of its
# environment left. It writes its id into a file and sleeps.
DAEMON = """
import os, subprocess, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sh", ["sh", "-c", 'echo $$ >>"$0" && exec sleep 600', {file!r}], {{}})
    os._exit(0)
os.wait()
"""
OBJECTIVE = "\nOBJECTIVE = 'loss'\n"
# A trial is held after its report where the test says so.
EVALUATE = """
UNTIL = os.environ.get("SLOW_UNTIL")

def evaluate(hp, report):
    x = hp.Int("x", 1, 8)
{body}
    report(1, {{"loss": float(x)}})
    while UNTIL and not os.path.exists(UNTIL):
        time.sleep(0.02)
    return {{}}
"""


def indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.strip().splitlines())


@pytest.fixture
def daemons(tmp_path: pathlib.Path) -> Iterator[Callable[[], list[int]]]:
    """The ids of the daemons that wrote theirs into the file `daemons`; they end with the test."""
    file = tmp_path / "daemons"

    def read() -> list[int]:
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    yield read
    for pid in read():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def write_study(folder: pathlib.Path, at_import: bool = False, in_trial: bool = False) -> str:
    daemon = DAEMON.format(file=str(folder / "daemons"))
    text = (daemon if at_import else "") + "\nimport os, time\n" + OBJECTIVE
    study = folder / "study.py"
    study.write_text(text + EVALUATE.format(body=indented(daemon) if in_trial else ""))
    return str(study)


def test_a_daemon_that_a_study_starts_at_import_ends_with_a_refused_run(
    tmp_path: pathlib.Path, daemons: Callable[[], list[int]]
) -> None:
    study = write_study(tmp_path, at_import=True)
    (tmp_path / "points.json").write_text('[{"x": 99}]')
    start = ("--start", str(tmp_path / "points.json"))
    refused = launch("run", study, *start, "--runs", str(tmp_path / "runs"))
    assert refused.returncode == 2, refused.stderr
    assert daemons() and not any(map(is_alive, daemons()))


def test_a_daemon_that_a_trial_starts_ends_with_the_run(
    tmp_path: pathlib.Path, daemons: Callable[[], list[int]]
) -> None:
    study = write_study(tmp_path, in_trial=True)
    options = ("--trials", "2", "--workers", "1", "--seed", "1")
    done = launch("run", study, *options, "--runs", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    # Of two trials, and of the reading of the space.
    assert len(daemons()) > 2 and not any(map(is_alive, daemons()))


def test_a_killed_run_leaves_nothing_and_can_be_resumed(
    tmp_path: pathlib.Path, start: Callable[..., LiveRun], daemons: Callable[[], list[int]]
) -> None:
    study = write_study(tmp_path, in_trial=True)
    options = ("--trials", "3", "--workers", "2", "--seed", "1", "--id", "r")
    run = start("r", "run", study, *options, held=True)
    run.busy_worker()
    assert any(map(is_alive, daemons()))
    run.process.kill()
    wait_until(lambda: not any(map(is_alive, daemons())), "no daemon is left")
    wait_for_end(run.runs)
    resumed = launch("resume", "r", "--runs", str(run.runs))
    assert resumed.returncode == 0, resumed.stderr
    rows = run.read("trials")
    assert sorted({r["trial_id"] for r in rows if r["state"] == "COMPLETED"}) == [
        "0000",
        "0001",
        "0002",
    ]
    assert not any(map(is_alive, daemons()))


def test_a_run_that_is_killed_with_its_workers_stopped_leaves_nothing(
    start: Callable[..., LiveRun],
) -> None:
    study = str(STUDIES / "slow.py")
    run = start("r", "run", study, "--id", "r", "--workers", "2", held=True)
    run.busy_worker()
    own = set(run.processes())
    # None of them can notice by itself that `run` is gone. The watchdog is no worker.
    for pid in own - {run.process.pid} - watchdogs():
        os.kill(pid, signal.SIGSTOP)
    run.process.kill()
    wait_for_end(run.runs)


def watchdogs() -> set[int]:
    found = set()
    for entry in processes():
        with contextlib.suppress(OSError):
            words = pathlib.Path(f"/proc/{entry.pid}/cmdline").read_bytes()
            if b"hpo._internal.watchdog" in words:
                found.add(entry.pid)
    return found


def test_a_killed_worker_by_hand_takes_its_trial_along(
    tmp_path: pathlib.Path, daemons: Callable[[], list[int]]
) -> None:
    study = write_study(tmp_path, in_trial=True)
    chief = HandMade(tmp_path / "runs", "r", free_port(), study=pathlib.Path(study))
    worker = subprocess.Popen(
        [sys.executable, "launch.py", "run", study, "--id", "r", "--runs", str(tmp_path / "runs")],
        cwd=ROOT,
        env={**os.environ, **chief.role("worker-0"), HELD_UNTIL: str(tmp_path / "never")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        # Those of the reading, which the chief had done, ended with it.
        wait_until(lambda: sum(map(is_alive, daemons())) > 0, "the trial's daemon")
        worker.kill()
        wait_until(lambda: not any(map(is_alive, daemons())), "no daemon is left")
    finally:
        worker.kill()
        worker.wait()
        chief.process.kill()
        chief.process.communicate()


# Keeps a child that it may not end, as one that waits in the kernel for ever.
OF_ANOTHER_USER = """
import os, subprocess, sys
from cluster import cli
from hpo._internal import process_tree

process_tree.end_children.__defaults__ = (), 0.5
nowhere = subprocess.DEVNULL
child = subprocess.Popen(["sleep", "600"], stdout=nowhere, stderr=nowhere)
print(child.pid, flush=True)
os.setresuid(65534, 65534, 65534)
cli.command(["--help"])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has processes of two users")
def test_a_process_that_cannot_be_ended_is_named_in_the_last_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OF_ANOTHER_USER], cwd=ROOT, capture_output=True, text=True
    )
    pid = int(done.stdout.splitlines()[0])
    try:
        assert done.returncode == 0
        assert done.stderr.count("\n") == 1 and "still running, since the kernel" in done.stderr
        assert f" {pid}: " in done.stderr
        assert is_alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
