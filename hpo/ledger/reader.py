"""Reads a ledger from any process."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hpo.errors import LedgerError, RunError
from hpo.ledger.file import ATTEMPT, FILE, SCHEMA, connect, failing_well
from hpo.protocol import Attempt, WorkerInfo, WorkerRow
from hpo.trial import Failure, Report, TrialRecord, TrialState


class LedgerReader:
    """Reads a ledger, also while another process writes it. Raises LedgerError or RunError."""

    def __init__(self, folder: pathlib.Path) -> None:
        path = folder / FILE
        if not path.is_file():
            raise RunError(f"no run in {folder}: it has no {FILE}")
        with failing_well(path):
            self._db = connect(path, read_only=True)
            try:
                self._check_version(path)
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Ends reading."""
        self._db.close()

    def meta(self) -> dict[str, Any]:
        """What is known of the run as a whole, by key."""
        rows = self._rows("SELECT key, value FROM meta")
        return {key: json.loads(value) for key, value in rows}

    def attempts(self, history: bool = True) -> Iterator[Attempt]:
        """Every attempt, by trial and number; without ``history`` the reports are not read."""
        for fields in self._attempts("ORDER BY asked_seq, attempt"):
            key = (fields["trial_id"], fields["attempt"])
            yield _attempt(fields, self.history(*key) if history else ())

    def granted(self, after: int, among: Iterable[int] = ()) -> list[Attempt]:
        """The attempts handed out after fencing number ``after``, and those under ``among``.

        In the order of the grants, without reports; found without a look at the others.
        """
        numbers = list(among)
        marks = ", ".join("?" * len(numbers))
        rest = f"WHERE fence > ? OR fence IN ({marks}) ORDER BY fence"
        return [_attempt(fields, ()) for fields in self._attempts(rest, (after, *numbers))]

    def waiting(self) -> list[str]:
        """The trials with an attempt that was not handed out yet."""
        return [row[0] for row in self._rows("SELECT trial_id FROM attempts WHERE fence = 0")]

    def records(self) -> list[TrialRecord]:
        """The records of every attempt, with their histories."""
        return [attempt.record for attempt in self.attempts()]

    def history(self, trial_id: str, attempt: int) -> tuple[Report, ...]:
        """The reports of one attempt by step."""
        query = "SELECT step, metrics FROM reports WHERE trial_id = ? AND attempt = ? ORDER BY step"
        rows = self._rows(query, (trial_id, attempt))
        return tuple(Report(step, _metrics(json.loads(metrics))) for step, metrics in rows)

    def report_times(self, trial_id: str, attempt: int) -> dict[int, float]:
        """When each step of one attempt came, by step; empty where that was not noted yet."""
        if self._version < 3:
            return {}
        query = "SELECT step, at FROM reports WHERE trial_id = ? AND attempt = ? AND at NOT NULL"
        return dict(self._rows(query, (trial_id, attempt)))

    def last_report(self, trial_id: str, attempt: int) -> Report | None:
        """The latest step of one attempt."""
        query = "SELECT step, metrics FROM reports WHERE trial_id = ? AND attempt = ?"
        rows = self._rows(query + " ORDER BY step DESC LIMIT 1", (trial_id, attempt))
        return Report(rows[0][0], _metrics(json.loads(rows[0][1]))) if rows else None

    def workers(self) -> list[WorkerRow]:
        """Every worker that ever joined."""
        query = "SELECT worker_id, incarnation, host, pid, device, joined_at, left_at FROM workers"
        rows = self._rows(query + " ORDER BY joined_at")
        return [WorkerRow(WorkerInfo(*row[:5]), row[5], row[6]) for row in rows]

    def sessions(self) -> list[dict[str, Any]]:
        """The times in which a chief served, the latest last."""
        names = ("session", "host", "pid", "address", "started_at", "seen_at", "ended_at")
        rows = self._rows(f"SELECT {', '.join(names)} FROM sessions ORDER BY session")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def session_number(self) -> int | None:
        """The latest session."""
        number: int | None = self._rows("SELECT max(session) FROM sessions")[0][0]
        return number

    def _attempts(self, rest: str, values: Sequence[Any] = ()) -> Iterator[dict[str, Any]]:
        """The rows of attempts that the ``rest`` of a query selects, by column."""
        rows = self._rows(f"SELECT {', '.join(self._columns)} FROM attempts {rest}", values)
        return (dict(zip(ATTEMPT, row, strict=True)) for row in rows)

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with failing_well(pathlib.Path(FILE)):
            return self._db.execute(query, values).fetchall()

    def _check_version(self, path: pathlib.Path) -> None:
        version = self._version = self._db.execute("PRAGMA user_version").fetchone()[0]
        self._columns = list(ATTEMPT)
        if version == 1:
            # Written before trials could go on from others.
            self._columns[self._columns.index("resume_from")] = "NULL"
        elif version not in (2, SCHEMA):
            raise LedgerError(
                f"{path} has format {version} and this program reads format {SCHEMA}: "
                "read it with the version that wrote it"
            )


def _attempt(fields: dict[str, Any], history: tuple[Report, ...]) -> Attempt:
    fence, lost = fields.pop("fence"), fields.pop("lost")
    fields |= {"params": json.loads(fields["params"]), "tag": json.loads(fields["tag"])}
    fields |= {"state": TrialState(fields["state"]), "history": history}
    fields["failure"] = Failure(fields["failure"]) if fields["failure"] else None
    return Attempt(TrialRecord(**fields), fence, lost)


def _metrics(values: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
