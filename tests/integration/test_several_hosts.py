"""A search over several hosts."""

from __future__ import annotations

import concurrent.futures
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
from hpo.trial import TrialRecord
from tests.support.cli_runs import HELD_UNTIL, PATIENCE_S, ROOT, environment, gate_of, wait_until
from tests.support.manual_chief import STUDY, HandMade
from tests.support.network_namespaces import Network
from tests.support.remote_chiefs import SLOW, Start, worker_by_hand


def test_run_says_how_to_join_from_another_host_and_that_works(
    start: Start, tmp_path: pathlib.Path
) -> None:
    options = ("--id", "wide", "--trials", "8", "--host", "0.0.0.0")
    run = start("wide", "run", SLOW, *options, held=True)
    assert run.process.stdout is not None
    lines = [run.process.stdout.readline().strip() for _ in range(4)]
    assert lines[0] == "run wide"
    words = lines[3].split()
    given = dict(word.split("=", 1) for word in words if "=" in word)
    assert given.keys() == {env.TUNER_ID, env.ORACLE_IP, env.ORACLE_PORT, env.TOKEN_FILE}
    copy = tmp_path / "copy"
    shutil.copy(lines[2].split()[2].partition(":")[2], copy)
    host, port = given[env.ORACLE_IP], int(given[env.ORACLE_PORT])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        joining = pool.submit(worker_by_hand, host, port, copy)
        try:
            wait_until(
                lambda: joining.done() or "far-1" in {row["worker"] for row in run.rows()},
                "it has a trial",
            )
        finally:
            run.release()
        done = joining.result()
    assert done.returncode == 0, done.stderr
    assert run.wait()[0] == 0
    assert "far-1" in {row["worker"] for row in run.read("trials")}


def test_roles_by_hand_drain_on_ctrl_c(
    make_chief: Callable[..., HandMade], tmp_path: pathlib.Path
) -> None:
    chief = make_chief("127.0.0.1", trials=9)
    run, gate = chief.run, tmp_path / "goes-on"
    worker = _begin_worker(chief.port, run, {HELD_UNTIL: str(gate)})
    try:
        wait_until(lambda: [r for r in run.reader().records() if r.history], "a trial has begun")
        worker.send_signal(signal.SIGINT)
        gate.touch()
        _, err = worker.communicate(timeout=PATIENCE_S)
        assert worker.returncode == 130, err
        assert "Traceback" not in err
    finally:
        worker.kill()
        worker.communicate()
    assert [record.state for record in run.reader().records()][:1] == ["COMPLETED"]
    chief.process.send_signal(signal.SIGINT)
    _, err = chief.process.communicate(timeout=PATIENCE_S)
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
        # One report, then the trial may end when the test says so: the end of one comes too late.
        own = {"SLOW_STEPS": "1", HELD_UNTIL: str(tmp_path / name), **role}
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
        (tmp_path / "far-1").touch()
        wait_until(lambda: _lost(run, cut), "its lease is over")
        # The other one does what it has, and then what was given away.
        wait_until(lambda: _goes_on(run, "far-2", tmp_path, until=cut), "it has done that too")
        network.plug(1, is_in=True)
        wait_until(lambda: len(_of(run, "far-1")) > 1, "it has another trial")
        (tmp_path / "far-2").touch()
        said = [process.communicate(timeout=PATIENCE_S)[1] for process in processes]
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


def _of(run: Run, worker: str) -> list[TrialRecord]:
    return [record for record in run.reader().records() if record.worker == worker]


def _running(run: Run, worker: str) -> str | None:
    """The trial in whose middle a worker is."""
    for record in _of(run, worker):
        if record.state == "RUNNING" and record.history:
            return record.trial_id
    return None


def _lost(run: Run, trial_id: str) -> bool:
    return any(record.trial_id == trial_id and record.failure for record in run.reader().records())


def _goes_on(run: Run, worker: str, gates: pathlib.Path, until: str) -> bool:
    """Lets the trials of a worker end one by one, until it has completed a certain one."""
    records = _of(run, worker)
    if any((r.trial_id, r.state) == (until, "COMPLETED") for r in records):
        return True
    for record in records:
        if record.state == "RUNNING":
            gate_of(gates / worker, record.params).touch()
    return False
