"""What a person sees of a search while it runs, and the summary at its end."""

from __future__ import annotations

import os
import pathlib
import shlex
import sys
import time
from typing import Any, TextIO

from cluster import tables
from cluster.tally import Tally
from hpo import env
from hpo.failures import headline
from hpo.run import Run
from hpo.status import DONE, RUNNING, STOPPED, early_end_of, status_of
from hpo.trial import Failure, TrialRecord, TrialState
from hpo.winner import Winner, winner_of

# Lines of the terminal that are not the rows of running trials.
_OTHER_LINES = 8


class Progress:
    """Shows a run: a live table on a terminal, elsewhere a line for each attempt that ends."""

    def __init__(self, run: Run, stream: TextIO | None = None) -> None:
        stream = stream or sys.stdout
        self._tally = Tally(run)
        before = len(list(self._tally.read()))
        self._table = _Table(self._tally, stream) if tables.is_terminal(stream) else None
        self._stream = stream
        if before and not self._table:
            self._say(f"so far {_standing(self._tally)}")

    def update(self) -> None:
        """Shows what is new in the ledger; costs the same however many trials there are."""
        for record in self._tally.read():
            if self._table is None:
                self._say(_line(record, self._tally))
            elif record.failure:
                self._table.say(_line(record, self._tally))
        if self._table:
            self._table.update()

    def close(self) -> None:
        """Leaves the terminal as a summary can go on from."""
        if self._table:
            self._table.close()
        self._tally.close()

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def _standing(tally: Tally) -> str:
    best = f", best {tables.number(tally.best.value)}" if tally.best else ""
    return f"{tally.ended}/{tally.run.wanted}{best}"


def _line(record: TrialRecord, tally: Tally) -> str:
    """One attempt's end, such as ``trial 0003 COMPLETED val_accuracy=0.91 in 41 s (4/10, ...)``."""
    name = f"trial {record.trial_id}"
    if record.attempt > 1:
        name += f" attempt {record.attempt}"
    if record.failure is Failure.PREEMPTED and record.ended_seq is None:
        return f"{name} LOST, it will run again: {headline(record.error)}"
    words = [name, record.state.value]
    if record.failure:
        words.append(record.failure.value)
    if record.value is not None:
        words.append(f"{tally.run.study.objective}={tables.number(record.value)}")
    if record.fit_s is not None:
        words.append(f"in {tables.duration(record.fit_s)}")
    words.append(f"({_standing(tally)})")
    return " ".join(words) + (f": {headline(record.error)}" if record.error else "")


class _Table:
    """The live table on a terminal."""

    def __init__(self, tally: Tally, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._tally = tally
        self._console = Console(file=stream)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._live.start()

    def update(self) -> None:
        self._live.update(self._render(), refresh=True)

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False)

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        room = max(1, self._console.height - _OTHER_LINES)
        rows = [self._row(record) for record in self._tally.running]
        parts: list[Any] = [Text(self._heading(), "bold")]
        if rows:
            headers = ("trial", "worker", "epoch", self._tally.run.study.objective, "time", "")
            parts.append(tables.rich_table(headers, rows[:room]))
        if len(rows) > room:
            parts.append(Text(f"and {len(rows) - room} more", "dim"))
        if best := self._tally.best:
            value = tables.number(best.value)
            parts.append(Text(f"best  {value}  trial {best.trial_id}", "green"))
            parts.append(Text(f"      {tables.assignments(best.params)}"))
        return Group(*parts)

    def _heading(self) -> str:
        counts = self._tally.counts
        states = {state.value.lower(): counts[state] for state in TrialState}
        words = [self._tally.run.id, f"{self._tally.ended}/{self._tally.run.wanted}"]
        words.append(tables.counted(states) or "waiting for a first trial")
        left = self._tally.seconds_left()
        if left is not None:
            words.append(f"about {tables.duration(left)} left")
        return "   ".join(words)

    def _row(self, record: TrialRecord) -> tuple[str, ...]:
        report = self._tally.last_report(record)
        objective = report and report.metrics.get(self._tally.run.study.objective)
        return (
            record.trial_id if record.attempt == 1 else f"{record.trial_id} #{record.attempt}",
            record.worker or "",
            str(report.step) if report else "",
            tables.number(objective),
            tables.duration(time.time() - (record.started_at or time.time())),
            tables.assignments(record.params),
        )


def summary(run: Run, winner: Winner | None = None) -> None:
    """Prints how the run ended, its winner (read from the ledger if not given), what is next."""
    status = status_of(run)
    winner = winner or winner_of(run)
    print(f"\n{_ending(status)}")
    if words := early_end_of(run):
        print(f"it ended early: {words}")
    if winner:
        print("\n".join(_best_lines(run, winner)))
    if any(status["failures"].values()):
        print("\n".join(_failure_lines(run, status["failures"])))
    print("next:")
    for verb in _next_verbs(status, winner):
        print(f"  {typed(run, verb)}")
    sys.stdout.flush()


def typed(run: Run, verb: str, *arguments: str) -> str:
    """The command line that does ``verb`` with ``run``."""
    handle = os.environ.get(env.HANDLE)
    words = ["python", "launch.py", verb, handle or run.id, *arguments]
    if not handle and run.folder.parent != pathlib.Path("runs"):
        words += ["--runs", str(run.folder.parent)]
    return shlex.join(words)


def _ending(status: dict[str, Any]) -> str:
    trials = status["trials"]
    ended = {name: trials[name] for name in ("completed", "pruned", "failed")}
    left = {name: trials[name] for name in ("running", "waiting")}
    return (
        f"run {status['id']} {status['state']}: {sum(ended.values())} of {trials['wanted']} trials "
        f"ended ({tables.counted({**ended, **left}) or 'none began'}) "
        f"in {tables.duration(status['elapsed_s'])}"
    )


def _best_lines(run: Run, winner: Winner) -> list[str]:
    record = winner.record
    lines = [
        f"best trial {record.trial_id}: {run.study.objective}={tables.number(record.value)}",
        f"  {tables.assignments(record.params)}",
    ]
    if winner.test is not None:
        lines.append(f"  on the test set: {tables.assignments(winner.test)}")
    elif winner.untested:
        lines.append(f"  not on the test set: {winner.untested}")
    return lines


def _failure_lines(run: Run, failures: dict[str, int]) -> list[str]:
    lines = [f"failures: {tables.counted(failures)}"]
    reader = run.reader()
    try:
        records = [attempt.record for attempt in reader.attempts(history=False)]
    finally:
        reader.close()
    ended = [r for r in records if r.state is TrialState.FAILED and r.ended_seq is not None]
    if ended:
        last = max(ended, key=lambda record: record.ended_seq or 0)
        lines.append(f"  the last, trial {last.trial_id}: {headline(last.error)}")
    return lines


def _next_verbs(status: dict[str, Any], winner: Winner | None) -> list[str]:
    verbs = ["resume"] if status["state"] == STOPPED else []
    if status["state"] == RUNNING:
        verbs.append("watch")
    if winner:
        verbs.append("best")
    return [*verbs, "trials", "tensorboard"]


def exit_status(run: Run) -> int:
    """What a search that stands like this left with: 0 done, 1 nothing completed, 75 work left."""
    state = status_of(run)["state"]
    return {DONE: 0, STOPPED: 75}.get(state, 1)
