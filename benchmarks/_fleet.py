"""What the measuring programs share: a run and a chief of their own, and what it has used."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Self

import psutil

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hpo import env  # noqa: E402
from hpo.probe import read_study  # noqa: E402
from hpo.registry import SAMPLERS  # noqa: E402
from hpo.run import Run, SearchRequest, create_run  # noqa: E402
from tests.support.cli_runs import wait_until  # noqa: E402

NOOP = ROOT / "benchmarks" / "noop_study.py"
_START_S = 120.0


def make_run(
    runs: pathlib.Path, run_id: str, *, sampler: str = "random", trials: int = 10**9
) -> Run:
    """A run of the study that computes nothing, which no process serves yet."""
    study = read_study(NOOP, os.environ).study
    request = SearchRequest(
        study=str(NOOP),
        study_digest=study.digest,
        engine="keras-tuner",
        sampler=sampler,
        pruner="none",
        trials=trials,
        epochs=None,
        train_examples=None,
        seed=1,
    )
    wanted = SAMPLERS.load(sampler).wanted(study, trials)
    terms = {"wanted": wanted, "lease_s": 30.0, "trial_timeout_s": None, "workers": 1}
    return create_run(runs, run_id, request, study, NOOP, terms)


class ChiefProcess:
    """The chief of a run as a process of its own. Used as a context it is killed at the end."""

    def __init__(self, run: Run, port: int = 0) -> None:
        self._run = run
        role = env.Role(env.CHIEF_ID, "127.0.0.1", port).to_env()
        command = [sys.executable, "-m", "cluster.entrypoint", "keras-tuner", str(run.folder)]
        self._began = time.monotonic()
        self._log = run.logs / "chief.log"
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                command,
                env={**os.environ, **role, **env.of_project(ROOT), env.SUPERVISED: "1"},
                # It leaves when this process does, however that ends.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def serving(self) -> tuple[str, float]:
        """Waits until it serves; its address, and the seconds that took from its start."""
        session = wait_until(self._session, "the chief serves", _START_S)
        return session["address"], time.monotonic() - self._began

    def kill(self) -> None:
        """kill -9."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._popen.wait()

    def _session(self) -> dict[str, str] | None:
        if self._popen.poll() is not None:
            raise RuntimeError(f"the chief left: {self._log.read_text()[-2000:]}")
        with contextlib.closing(self._run.reader()) as reader:
            sessions = reader.sessions()
        return sessions[-1] if sessions and sessions[-1]["pid"] == self.pid else None


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a process has used since its start: seconds of CPU, and bytes given to files."""

    wall_s: float
    cpu_s: float
    written: int

    @classmethod
    def by(cls, pid: int) -> Spent:
        """What ``pid`` has used so far, its children aside."""
        process = psutil.Process(pid)
        times = process.cpu_times()
        # Files alone: what goes to sockets is not counted here by Linux.
        written = process.io_counters().write_chars
        return cls(time.perf_counter(), times.user + times.system, written)

    def until(self, later: Spent) -> Spent:
        """What was used between the two."""
        return Spent(
            later.wall_s - self.wall_s, later.cpu_s - self.cpu_s, later.written - self.written
        )


def wait_until_calm(pid: int) -> None:
    """Until a process has used next to no CPU for a second: what it does at its start is over."""

    def calm() -> bool:
        before = Spent.by(pid)
        time.sleep(1.0)
        return before.until(Spent.by(pid)).cpu_s < 0.06

    wait_until(calm, "the chief has nothing to do", _START_S)


def percentile(values: list[float], share: float) -> float:
    """The smallest of ``values`` that at least ``share`` of them do not exceed; NaN of none."""
    if not values:
        return float("nan")
    return sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]
