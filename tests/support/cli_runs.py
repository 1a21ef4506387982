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

from hpo._internal.process_tree import processes
from hpo.json_numbers import finite
from hpo.run import Run
from hpo.status import status_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
_MARKER = "TUNEFLEET_TEST_RUNS"
STUDIES = ROOT / "tests" / "support" / "studies"
# A wait ends when what it waits for has happened. Only a hang takes as long as this, also on a
# machine that does much else.
PATIENCE_S = 240.0
# The grace or the lease of a run in which none of them is to run out.
LONG = "1000"
# Studies in `studies` hold their trials after the first report until this file is there.
HELD_UNTIL = "SLOW_UNTIL"
# Trials of slow.py that take no time.
QUICK = {"SLOW_STEP_S": "0"}


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


def begin(*arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """A `launch.py` in the background."""
    return subprocess.Popen(
        [sys.executable, "launch.py", *arguments],
        cwd=ROOT,
        env=environment(arguments, env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


class HeldRun:
    """A run whose folder is here.

    With a ``gate`` its trials are held after their first report: each goes on when it is
    released, so that what a test does meanwhile comes before their end.
    """

    def __init__(self, runs: pathlib.Path, run_id: str, gate: pathlib.Path | None = None) -> None:
        self.runs, self.id, self.gate = runs, run_id, gate

    def release(self, *trial_ids: str) -> None:
        """Lets trials go on that are held: those named, or all from now on."""
        assert self.gate
        if not trial_ids:
            self.gate.touch()
        for row in self.rows() if trial_ids else ():
            if row["trial_id"] in trial_ids:
                gate_of(self.gate, row["params"]).touch()

    def complete(self, count: int = 1) -> None:
        """Lets held trials end, one after the other, until so many have completed."""

        def look() -> bool:
            rows = self.rows()
            if sum(row["state"] == "COMPLETED" for row in rows) >= count:
                return True
            held = [r["trial_id"] for r in rows if r["state"] == "RUNNING" and r["history"]]
            self.release(*held[:1]) if held else None
            return False

        wait_until(look, f"{count} completed trials")

    def read(self, verb: str, *arguments: str) -> Any:
        """What a reading verb prints as JSON."""
        return read(self.runs, self.id, verb, *arguments)

    def status(self) -> dict[str, Any] | None:
        """The status once the run is there, as `status` prints it but without a process."""
        folder = self.runs / self.id
        return status_of(Run(folder)) if (folder / "ledger.db").exists() else None

    def rows(self) -> list[dict[str, Any]]:
        """The attempts so far, as `trials` prints them but without a process."""
        folder = self.runs / self.id
        return rows_of(Run(folder)) if (folder / "ledger.db").exists() else []

    def busy_worker(self) -> dict[str, Any]:
        """A worker in the middle of a trial that has reported."""
        return self.busy_workers(1)[0]

    def busy_workers(self, count: int) -> list[dict[str, Any]]:
        """Workers in the middle of trials that have reported, as soon as there are so many."""

        def look() -> Any:
            rows = self.rows()
            reported = {r["trial_id"] for r in rows if r["state"] == "RUNNING" and r["history"]}
            workers = (self.status() or {"workers": []})["workers"]
            found = [worker for worker in workers if worker["trial_id"] in reported]
            return found if len(found) >= count else None

        workers: list[dict[str, Any]] = wait_until(look, f"{count} workers in the middle of trials")
        return workers

    def wait_for_log(self, text: str, times: int = 1) -> None:
        """Waits until the chief's log has ``text`` in it, so many times."""
        log = self.runs / self.id / "logs" / "chief.log"
        wait_until(
            lambda: log.exists() and log.read_text(errors="replace").count(text) >= times,
            f"{text!r} in {log}",
        )


class LiveRun(HeldRun):
    """A `launch.py run` in the background."""

    def __init__(
        self,
        runs: pathlib.Path,
        run_id: str,
        *arguments: str,
        env: dict[str, str] | None = None,
        gate: pathlib.Path | None = None,
    ) -> None:
        super().__init__(runs, run_id, gate)
        held = {HELD_UNTIL: str(gate)} if gate else {}
        self.process = begin(*arguments, "--runs", str(runs), env={**held, **(env or {})})

    def stop(self, *options: str) -> str:
        """Stops a run whose trials are held: they end once it drains. What `stop` printed."""
        with begin("stop", self.id, "--runs", str(self.runs), *options) as stopping:
            self.wait_for_log("draining")
            self.release()
            out, err = stopping.communicate(timeout=PATIENCE_S)
        assert stopping.returncode == 0, err
        return out

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


def gate_of(gate: pathlib.Path, params: dict[str, Any]) -> pathlib.Path:
    """The file that lets one point alone go on."""
    values = (str(value) for _, value in sorted(params.items()))
    return gate.with_name(f"{gate.name}.{'-'.join(values)}")


def rows_of(run: Run) -> list[dict[str, Any]]:
    """The attempts of ``run``, as `trials` prints them."""
    reader = run.reader()
    try:
        rows: list[dict[str, Any]] = finite([a.record.to_json() for a in reader.attempts()])
    finally:
        reader.close()
    return rows


def is_alive(pid: int) -> bool:
    """Whether a process is there, and not only its exit status, which nobody may ever ask for."""
    return any(entry.pid == pid and not entry.is_zombie for entry in processes())


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
