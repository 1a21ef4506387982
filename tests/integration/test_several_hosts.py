"""A search over several hosts."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from hpo import env
from hpo.run import Run
from tests.support.cli_runs import ROOT, environment, wait_until
from tests.support.manual_chief import STUDY, HandMade
from tests.support.network_namespaces import Network
from tests.support.remote_chiefs import SLOW, Start, worker_by_hand


def test_run_says_how_to_join_from_another_host_and_that_works(
    start: Start, tmp_path: pathlib.Path
) -> None:
    slowly = {"SLOW_STEP_S": "0.4"}
    run = start(
        "wide", "run", SLOW, "--id", "wide", "--trials", "8", "--host", "0.0.0.0", env=slowly
    )
    assert run.process.stdout is not None
    lines = [run.process.stdout.readline().strip() for _ in range(4)]
    assert lines[0] == "run wide"
    words = lines[3].split()
    given = dict(word.split("=", 1) for word in words if "=" in word)
    assert given.keys() == {env.TUNER_ID, env.ORACLE_IP, env.ORACLE_PORT, env.TOKEN_FILE}
    copy = tmp_path / "copy"
    shutil.copy(lines[2].split()[2].partition(":")[2], copy)
    done = worker_by_hand(given[env.ORACLE_IP], int(given[env.ORACLE_PORT]), copy)
    assert done.returncode == 0, done.stderr
    assert run.wait()[0] == 0
    assert "far-1" in {row["worker"] for row in run.read("trials")}


def test_roles_by_hand_drain_on_ctrl_c(
    make_chief: Callable[..., HandMade], tmp_path: pathlib.Path
) -> None:
    chief = make_chief("127.0.0.1", {"SLOW_STEP_S": "0.4"}, trials=9)
    run = chief.run
    worker = _begin_worker(chief.port, run, {"SLOW_STEP_S": "0.4"})
    try:
        wait_until(lambda: [r for r in run.reader().records() if r.history], "a trial has begun")
        worker.send_signal(signal.SIGINT)
        _, err = worker.communicate(timeout=30)
        assert worker.returncode == 130, err
        assert "Traceback" not in err
    finally:
        worker.kill()
        worker.communicate()
    assert [record.state for record in run.reader().records()][:1] == ["COMPLETED"]
    chief.process.send_signal(signal.SIGINT)
    _, err = chief.process.communicate(timeout=30)
    assert chief.process.returncode == 130, err


def _begin_worker(port: int, run: Run, own: dict[str, str]) -> subprocess.Popen[str]:
    role = env.Role("hand", "127.0.0.1", port).to_env()
    return subprocess.Popen(
        [sys.executable, "launch.py", "run", SLOW],
        cwd=ROOT,
        env={**os.environ, **role, env.TOKEN_FILE: str(run.token_file), **own},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        made = Network(3)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"`ip netns` cannot be used here: {error}")
    yield made
    made.close()


def test_three_hosts_of_which_one_is_cut_off_for_longer_than_its_lease(
    network: Network, tmp_path: pathlib.Path
) -> None:
    runs, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    for folder in (runs, elsewhere):
        folder.mkdir()
    shutil.copy(STUDY, elsewhere / "slow.py")
    options = ("--id", "net", "--trials", "14", "--lease", "3", "--seed", "1")
    processes: list[subprocess.Popen[str]] = []

    def begin(number: int, name: str, hidden: pathlib.Path, *arguments: str) -> None:
        role = env.Role(name, network.address(0), 7777).to_env()
        # One report, then a while until the trial ends: its end is what comes too late.
        own = {"SLOW_STEPS": "1", "SLOW_STEP_S": "1.5", **role}
        if number:
            own[env.TOKEN_FILE] = str(elsewhere / "token")
        words = [sys.executable, str(ROOT / "launch.py"), "run", *arguments]
        processes.append(
            subprocess.Popen(
                network.command(number, words, hidden),
                cwd=elsewhere,
                env=environment(("--runs", str(runs)), own),
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        )

    try:
        begin(0, "chief", elsewhere, SLOW, "--runs", str(runs), *options)
        wait_until(lambda: (runs / "net" / "tls.pem").exists(), "the chief")
        run = Run(runs / "net")
        wait_until(lambda: run.reader().sessions(), "the chief serves")
        shutil.copy(run.token_file, elsewhere / "token")
        begin(1, "far-1", runs, "slow.py")
        begin(2, "far-2", runs, "slow.py")
        cut = wait_until(lambda: _running(run, "far-1"), "the worker works")
        network.plug(1, is_in=False)
        wait_until(lambda: _completed_by(run, cut, "far-2"), "the other one has done it")
        network.plug(1, is_in=True)
        said = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert f"trial {cut} is no longer ours" in said[1]
    records = run.reader().records()
    lost = [record for record in records if record.failure]
    assert [(r.trial_id, r.worker, r.failure) for r in lost] == [(cut, "far-1", "PREEMPTED")]
    done = [record.trial_id for record in records if record.state == "COMPLETED"]
    assert len(done) == len(set(done)) == 14
    after = [record for record in records if record.worker == "far-1"]
    assert max(record.started_at or 0 for record in after) > (lost[0].ended_at or 0)


def _running(run: Run, worker: str) -> str | None:
    """The trial in whose middle a worker is."""
    for record in run.reader().records():
        if record.worker == worker and record.state == "RUNNING" and record.history:
            return record.trial_id
    return None


def _completed_by(run: Run, trial_id: str, worker: str) -> bool:
    return any(
        (record.trial_id, record.worker, record.state) == (trial_id, worker, "COMPLETED")
        for record in run.reader().records()
    )
