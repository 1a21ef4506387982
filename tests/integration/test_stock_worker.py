"""KerasTuner's own worker, unmodified, beside ours: it does its share, and may die of it."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import grpc
import pytest

from hpo.fleet import wire
from tests.support.cli_runs import PATIENCE_S, ROOT, STUDIES, LiveRun, wait_until
from tests.support.manual_chief import free_port

Start = Callable[..., LiveRun]
SLOW = str(STUDIES / "slow.py")


@pytest.fixture
def stock(tmp_path: pathlib.Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts stock workers of the chief at a port."""
    started: list[subprocess.Popen[str]] = []

    def begin(port: int, name: str = "stock-0") -> subprocess.Popen[str]:
        own = {
            "KERASTUNER_TUNER_ID": name,
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": str(port),
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        process = subprocess.Popen(
            [sys.executable, str(STUDIES / "stock_script.py"), str(tmp_path / name)],
            env={**os.environ, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        # It takes so long to import that ours could do all trials alone meanwhile.
        assert process.stdout
        while (line := process.stdout.readline()) != "imported\n":
            assert line, "the stock worker ended as it was imported"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def opened(
    start: Start, port: int, trials: int, study: str = "digits", held: bool = False
) -> LiveRun:
    """A search that is open to stock workers, with one worker of ours."""
    options = ("--trials", str(trials), "--epochs", "10", "--workers", "1", "--seed", "1")
    options += ("--id", "open", "--insecure", "--port", str(port))
    return start("open", "run", study, *options, held=held)


def works(run: LiveRun, worker: str) -> bool:
    """Whether ``worker`` holds a trial now."""
    status = run.status()
    return any(w["id"] == worker and w["trial_id"] for w in (status or {"workers": []})["workers"])


def test_it_does_its_share(start: Start, stock: Callable[..., subprocess.Popen[str]]) -> None:
    port = free_port()
    # First, since it waits for its chief.
    worker = stock(port)
    run = opened(start, port, trials=6)
    status, out, err = run.wait()
    assert status == 0, out + err
    said, _ = worker.communicate(timeout=PATIENCE_S)
    assert worker.returncode == 0, said
    assert "Default search space size: 4" in said and "left well" in said
    rows = run.read("trials")
    assert [row["state"] for row in rows] == ["COMPLETED"] * 6
    shares = {name: [r for r in rows if r["worker"] == name] for name in ("worker-0", "stock-0")}
    assert len(shares["worker-0"]) >= 1 and len(shares["stock-0"]) >= 1
    assert len(shares["worker-0"]) + len(shares["stock-0"]) == 6
    for row in shares["stock-0"]:
        (step,) = row["history"]
        assert 1 <= step["step"] <= 3
        assert row["value"] == step["metrics"]["val_accuracy"]


def test_its_trial_is_tried_again_when_it_is_killed(
    start: Start, stock: Callable[..., subprocess.Popen[str]]
) -> None:
    port = free_port()
    worker = stock(port)
    run = opened(start, port, trials=4)

    def is_stopped_in_a_trial() -> bool:
        os.kill(worker.pid, signal.SIGSTOP)
        if works(run, "stock-0"):
            return True
        os.kill(worker.pid, signal.SIGCONT)
        return False

    wait_until(is_stopped_in_a_trial, "the stock worker is stopped in a trial")
    twin = stock(port)
    said, _ = twin.communicate(timeout=PATIENCE_S)
    assert twin.returncode == 0, said
    os.kill(worker.pid, signal.SIGKILL)
    status, out, err = run.wait()
    assert status == 0, out + err
    lost = [row for row in run.read("trials") if row["failure"] == "PREEMPTED"]
    assert [row["worker"] for row in lost] == ["stock-0"]
    assert "died" in lost[0]["error"]
    assert "sent away a second worker stock-0" in (run.runs / "open/logs/chief.log").read_text()


def test_late_word_is_dropped_and_answered_well(start: Start) -> None:
    port = free_port()
    run = opened(start, port, trials=4, study=SLOW, held=True)
    wait_until(lambda: works(run, "worker-0"), "our worker works")
    trial = next(row for row in run.read("trials") if row["state"] == "RUNNING")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = wire.stubs.OracleStub(channel)
        forged = wire.types.Trial(trial_id=trial["trial_id"], status=wire.types.FAILED)
        stub.EndTrial(wire.service.EndTrialRequest(trial=forged), timeout=PATIENCE_S)
        update = wire.service.UpdateTrialRequest(
            trial_id=trial["trial_id"], metrics={"loss": -2.0}, step=0
        )
        assert stub.UpdateTrial(update, timeout=PATIENCE_S).trial.status == wire.types.STOPPED
    run.release()
    status, out, err = run.wait()
    assert status == 0, out + err
    rows = run.read("trials")
    assert [row["state"] for row in rows] == ["COMPLETED"] * 4
    assert min(row["value"] for row in rows) >= 0.0


def test_it_is_refused_where_the_search_is_not_open(start: Start) -> None:
    port = free_port()
    options = ("--trials", "2", "--id", "shut", "--port", str(port))
    run = start("shut", "run", SLOW, *options, held=True)
    wait_until(run.status, "the run is there")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = wire.stubs.OracleStub(channel).CreateTrial
        request = wire.service.CreateTrialRequest(tuner_id="stock-0")
        with pytest.raises(grpc.RpcError) as caught:
            ask(request, wait_for_ready=True, timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
    run.release()
    assert run.wait()[0] == 0
