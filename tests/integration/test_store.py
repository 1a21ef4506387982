"""A run's copy in an object store: whole, kept up to date, and enough to go on from."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cluster.store import Store, main
from hpo.run import Run
from tests.support.cli_runs import (
    PATIENCE_S,
    QUICK,
    ROOT,
    STUDIES,
    LiveRun,
    launch,
    read,
    wait_until,
)

SLOW = str(STUDIES / "slow.py")


def searched(runs: pathlib.Path, *words: str) -> Any:
    options = ("--id", "kept", "--seed=1", "--workers=1", "--runs", str(runs))
    done = launch("run", SLOW, *options, *words, env=QUICK)
    assert done.returncode == 0, done.stderr
    return done


def test_a_run_that_is_lost_goes_on_from_its_copy(tmp_path: pathlib.Path) -> None:
    runs, other = tmp_path / "runs", tmp_path / "other"
    searched(runs, "--trials=3")
    there = (tmp_path / "store").as_uri()
    Store(runs, "kept", there).keep()
    copied = {path.name for path in (tmp_path / "store").rglob("*") if path.is_file()}
    assert "ledger.db" in copied and not {"token", "ledger.db-wal", "ledger.lock"} & copied

    assert main([str(other), "kept", there]) == 0
    assert read(other, "kept")["trials"]["completed"] == 3
    # Opened by a token of its own.
    assert Run(other / "kept").token != Run(runs / "kept").token
    done = launch("resume", "kept", "--trials", "+2", "--runs", str(other), env=QUICK)
    assert done.returncode == 0, done.stderr
    before, after = read(runs, "kept", "trials"), read(other, "kept", "trials")
    assert after[:3] == before and len(after) == 5


def test_what_is_there_is_left_as_it_is(tmp_path: pathlib.Path) -> None:
    runs, there = tmp_path / "runs", (tmp_path / "store").as_uri()
    store = Store(runs, "kept", there)
    # There is neither a run nor a copy.
    store.keep()
    assert not store.restore() and not runs.exists()
    searched(runs, "--trials=2")
    assert not store.restore()


def test_only_what_changed_is_copied_and_what_went_goes(tmp_path: pathlib.Path) -> None:
    runs, stored = tmp_path / "runs", tmp_path / "store"
    searched(runs, "--trials=2")
    extra = runs / "kept" / "checkpoints" / "old"
    extra.parent.mkdir(exist_ok=True)
    extra.write_text("1")
    store = Store(runs, "kept", stored.as_uri())
    store.keep()
    was = {path: path.stat().st_mtime_ns for path in stored.rglob("*") if path.is_file()}
    extra.unlink()
    store.keep()
    now = {path: path.stat().st_mtime_ns for path in stored.rglob("*") if path.is_file()}
    assert {path.name for path in was.keys() - now.keys()} == {"old"}
    assert {path.name for path in now if now[path] != was[path]} == {"ledger.db"}


def test_it_follows_a_search_to_its_end(
    tmp_path: pathlib.Path, start: Callable[..., LiveRun]
) -> None:
    runs, stored = tmp_path / "runs", tmp_path / "store"
    words = [sys.executable, "-m", "cluster.store", str(runs), "kept", stored.as_uri()]
    keeper = subprocess.Popen([*words, "--keep=0.3"], cwd=ROOT)
    try:
        run = start("kept", "run", SLOW, "--id=kept", "--trials=3", "--workers=1", held=True)
        wait_until(lambda: (stored / "kept" / "ledger.db").exists(), "a copy")
        # What was copied first is no more than the beginning.
        run.release()
        assert run.wait()[0] == 0
        keeper.send_signal(signal.SIGTERM)
        assert keeper.wait(PATIENCE_S) == 0
    finally:
        keeper.kill()
        keeper.wait()
    assert main([str(tmp_path / "other"), "kept", stored.as_uri()]) == 0
    assert read(tmp_path / "other", "kept")["state"] == "DONE"


@pytest.mark.parametrize(
    "uri", ["s3://tunefleet-none/x?endpoint_override=http%3A%2F%2F127.0.0.1%3A9", "x"]
)
def test_a_store_that_is_none_is_said_in_one_line(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], uri: str
) -> None:
    assert main([str(tmp_path), "kept", uri]) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "see the URI and its credentials" in said
