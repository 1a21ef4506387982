"""What ends a trial or a search early, seen from the command line."""

from __future__ import annotations

import os
import pathlib
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.support.cli_runs import (
    HELD_UNTIL,
    PATIENCE_S,
    QUICK,
    ROOT,
    STUDIES,
    LiveRun,
    launch,
    processes_of,
    read,
)

SLOW = str(STUDIES / "slow.py")


def test_the_same_error_everywhere_ends_the_search_and_is_shown(tmp_path: pathlib.Path) -> None:
    study = tmp_path / "broken.py"
    study.write_text(
        "OBJECTIVE = 'loss'\n"
        "def evaluate(hp, report):\n"
        "    n = hp.Int('n', 1, 1000)\n"
        "    report(1, {'loss': 1.0})\n"
        "    raise RuntimeError(f'shape ({n}, 3) does not fit')\n"
    )
    options = ("--trials", "50", "--id", "broken", "--runs", str(tmp_path))
    done = launch("run", str(study), *options)
    assert done.returncode == 1
    assert "it ended early: 3 trials failed alike: RuntimeError: shape (" in done.stdout
    status = read(tmp_path, "broken")
    assert status["state"] == "FAILED"
    assert 3 <= status["failures"]["CODE"] <= 6
    rows = read(tmp_path, "broken", "trials")
    assert "RuntimeError" in next(r["error"] for r in rows if r["failure"] == "CODE")


def test_a_limit_of_hours_ends_well_and_more_of_them_go_on(
    tmp_path: pathlib.Path, start: Callable[..., LiveRun]
) -> None:
    options = ("run", SLOW, "--trials", "12", "--workers", "1", "--lease", "3", "--id", "short")
    run = start("short", *options, held=True)
    run.complete(1)
    assert launch("stop", "short", "--now", "--runs", str(run.runs)).returncode == 0
    assert run.wait()[0] == 75
    # From here on no trial ends by itself.
    held = {HELD_UNTIL: str(tmp_path / "never")}
    limit = ("--max-hours", "0.001")
    done = launch("resume", "short", *limit, "--runs", str(run.runs), env=held)
    assert done.returncode == 0, done.stderr
    assert re.search(r"ended early: trials ran for \S+ hours: --max-hours 0.001", done.stdout)
    status = run.read("status")
    assert status["state"] == "DONE"
    assert 0 < status["trials"]["completed"] < 12
    again = launch("resume", "short", "--runs", str(run.runs), env=QUICK)
    assert again.returncode == 0
    left = run.read("status")["trials"]
    assert left["completed"] == status["trials"]["completed"], "nothing was left of its hours"
    more = launch("resume", "short", "--max-hours", "1", "--runs", str(run.runs), env=QUICK)
    assert more.returncode == 0, more.stderr
    status = run.read("status")
    assert (status["state"], status["trials"]["completed"]) == ("DONE", 12)


@pytest.fixture
def little_memory() -> Iterator[pathlib.Path]:
    """A control group whose processes have 700 MB together: its file of process ids."""
    root = pathlib.Path("/sys/fs/cgroup")
    old = root / "memory" / "memory.limit_in_bytes"
    parent = root / "memory" if old.exists() else root
    group = parent / f"tunefleet-{secrets.token_hex(4)}"
    try:
        group.mkdir()
        limit = "memory.limit_in_bytes" if old.exists() else "memory.max"
        (group / limit).write_text(str(700_000_000))
    except OSError as error:
        pytest.skip(f"no memory control group can be made here: {error.strerror}")
    yield group / "cgroup.procs"
    group.rmdir()


def test_a_trial_that_eats_all_memory_is_tried_alone_and_given_up(
    tmp_path: pathlib.Path, little_memory: pathlib.Path
) -> None:
    study = tmp_path / "hungry.py"
    study.write_text(
        "OBJECTIVE = 'loss'\n"
        "def evaluate(hp, report):\n"
        "    hungry = hp.Int('n', 0, 4) == 2\n"
        "    report(1, {'loss': 1.0})\n"
        "    eaten = [bytearray(b'x') * 20_000_000 for _ in range(100 * hungry)]\n"
        "    return {}\n"
    )

    def join_group() -> None:
        little_memory.write_text(str(os.getpid()))

    options = ("--sampler", "grid", "--id", "hungry", "--runs", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "launch.py", "run", str(study), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        preexec_fn=join_group,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read(tmp_path, "hungry", "trials")
    ended: dict[int, list[tuple[str, str | None]]] = {}
    for row in rows:
        ended.setdefault(row["params"]["n"], []).append((row["state"], row["failure"]))
    assert ended.pop(2) == [("FAILED", "OOM"), ("FAILED", "OOM")]
    assert set(map(tuple, ended.values())) == {(("COMPLETED", None),)}
    assert "memory ran out" in next(r["error"] for r in rows if r["failure"] == "OOM")
    assert processes_of(str(tmp_path)) == []


def test_a_hundred_failing_trials_end_as_failed(tmp_path: pathlib.Path) -> None:
    study = tmp_path / "failing.py"
    study.write_text(
        "OBJECTIVE = 'loss'\n"
        "def evaluate(hp, report):\n"
        "    n = hp.Int('n', 1, 100)\n"
        "    report(1, {'loss': 1.0})\n"
        "    raise type('Error' + 'abcdefghij'[n % 10] * n, (Exception,), {})()\n"
    )
    options = ("--sampler", "grid", "--same-error", "1000", "--code-retries", "0", "--id", "all")
    done = launch("run", str(study), *options, "--runs", str(tmp_path))
    assert done.returncode == 1
    status = read(tmp_path, "all")
    assert (status["state"], status["trials"]["failed"]) == ("FAILED", 100)
    assert status["failures"]["CODE"] == 100


def test_a_chief_without_workers_gives_up_and_says_so(tmp_path: pathlib.Path) -> None:
    role = {
        "KERASTUNER_TUNER_ID": "chief",
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": "0",
    }
    options = ("--trials", "2", "--without-workers", "2", "--id", "alone")
    done = launch("run", SLOW, *options, "--runs", str(tmp_path), env=role)
    assert done.returncode == 3, done.stderr
    assert "no worker was there for 2 s" in done.stderr
    assert read(tmp_path, "alone")["state"] == "STOPPED"
    again = launch("resume", "alone", "--workers", "1", "--runs", str(tmp_path), env=QUICK)
    assert again.returncode == 0, again.stderr
