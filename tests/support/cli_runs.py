"""Runs of the real command line, as processes that a test can look at and kill."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
_MARKER = "TUNEFLEET_TEST_RUNS"
STUDIES = ROOT / "tests" / "support" / "studies"
# A wait ends when what it waits for has happened. Only a hang takes as long as this, also on a
# machine that does much else.
PATIENCE_S = 240.0


def launch(*arguments: str, env: dict[str, str] | None = None, timeout: float = PATIENCE_S) -> Any:
    """A finished `launch.py`, its output as text."""
    return subprocess.run(
        [sys.executable, "launch.py", *arguments],
        cwd=ROOT,
        env=environment(arguments, env),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def environment(arguments: Sequence[str], own: dict[str, str] | None = None) -> dict[str, str]:
    """For `launch.py` with these ``arguments``: what it starts can be found by its runs folder."""
    runs = dict(itertools.pairwise(arguments)).get("--runs", "")
    return {**os.environ, _MARKER: runs, **(own or {})}


def wait_until(
    condition: Callable[[], Any], what: str, timeout: float = PATIENCE_S, every_s: float = 0.05
) -> Any:
    """What ``condition`` gives once it is true; it is asked once in so many seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(every_s)
    raise AssertionError(f"not in {timeout} s: {what}")


def read(runs: pathlib.Path, run_id: str, verb: str = "status", *arguments: str) -> Any:
    """What a reading verb prints of a run as JSON; of `trials` a list."""
    done = launch(verb, run_id, "--json", "--runs", str(runs), *arguments)
    assert done.returncode == 0, done.stderr
    if verb == "trials":
        return [json.loads(line) for line in done.stdout.splitlines()]
    return json.loads(done.stdout)


class LiveRun:
    """A `launch.py run` in the background."""

    def __init__(
        self, runs: pathlib.Path, run_id: str, *arguments: str, env: dict[str, str] | None = None
    ) -> None:
        self.runs, self.id = runs, run_id
        arguments = (*arguments, "--runs", str(runs))
        self.process = subprocess.Popen(
            [sys.executable, "launch.py", *arguments],
            cwd=ROOT,
            env=environment(arguments, env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def read(self, verb: str, *arguments: str) -> Any:
        """What a reading verb prints as JSON."""
        return read(self.runs, self.id, verb, *arguments)

    def status(self) -> dict[str, Any] | None:
        """The status, once the run is there."""
        return self.read("status") if (self.runs / self.id / "ledger.db").exists() else None

    def busy_worker(self) -> dict[str, Any]:
        """A worker in the middle of a trial that has reported."""

        def look() -> Any:
            status = self.status()
            reported = {
                (row["trial_id"])
                for row in (self.read("trials") if status else ())
                if row["state"] == "RUNNING" and row["history"]
            }
            workers = status["workers"] if status else []
            return next((w for w in workers if w["trial_id"] in reported), None)

        worker: dict[str, Any] = wait_until(look, "a worker in the middle of a trial")
        return worker

    def wait(self, timeout: float = PATIENCE_S) -> tuple[int, str, str]:
        """The exit status and the output, once it has left."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def processes(self) -> list[int]:
        """The processes that belong to this run: its chief, agents, fork servers and trials."""
        return processes_of(str(self.runs))

    def end(self) -> None:
        """Leaves nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def processes_of(marker: str) -> list[int]:
    """Processes whose environment or command line has ``marker`` in it, this one aside."""
    found = []
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdecimal() or int(folder.name) == os.getpid():
            continue
        try:
            text = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
            state = re.search(r"State:\s+(\S)", (folder / "status").read_text())
        except OSError:
            continue
        if marker.encode() in text and state and state.group(1) != "Z":
            found.append(int(folder.name))
    return found


def assert_nothing_left(runs: pathlib.Path) -> None:
    """No process of what ran under ``runs`` is left: what its commands promise as they return."""
    left = [_described(pid) for pid in processes_of(str(runs))]
    assert left == [], left


def wait_for_end(runs: pathlib.Path) -> None:
    """Waits until no process of what ran under ``runs`` is left, where its command was killed."""
    try:
        wait_until(lambda: processes_of(str(runs)) == [], "no process is left")
    except AssertionError as error:
        left = [_described(pid) for pid in processes_of(str(runs))]
        raise AssertionError(f"{error}; there are: {left}") from None


def _described(pid: int) -> str:
    try:
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return f"{pid}: gone by now"
    return f"{pid}: {b' '.join(words)[:160].decode()}"


def points(rows: Sequence[dict[str, Any]]) -> list[tuple[str, Any]]:
    """What was tried, by trial."""
    return sorted({row["trial_id"]: json.dumps(row["params"]) for row in rows}.items())
