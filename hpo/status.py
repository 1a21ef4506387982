"""Where a run stands, computed from its ledger by whoever wants to know."""

from __future__ import annotations

import collections
import time
from collections.abc import Sequence
from typing import Any

from hpo.ledger import EARLY_END
from hpo.protocol import EarlyEnd, WorkerRow
from hpo.run import Run
from hpo.trial import Failure, TrialRecord, TrialState

RUNNING, DONE, STOPPED, FAILED = "RUNNING", "DONE", "STOPPED", "FAILED"


def status_of(run: Run) -> dict[str, Any]:
    """The object that ``status --json`` prints."""
    # Asked before the ledger is read: a chief that leaves in between has written its end.
    locked, supervised = run.chief_lives, run.supervised
    reader = run.reader()
    try:
        attempts = [attempt.record for attempt in reader.attempts(history=False)]
        workers, sessions = reader.workers(), reader.sessions()
        early_end = reader.meta().get(EARLY_END)
    finally:
        reader.close()
    # Whoever notes the winner's test figures after the end holds the lock for a moment too.
    serving = locked and not (sessions and sessions[-1]["ended_at"])
    alive = serving or supervised
    latest = list({record.trial_id: record for record in attempts}.values())
    counts = collections.Counter(record.state for record in latest)
    best = best_of(run, latest)
    return {
        "id": run.id,
        "study": run.study.name,
        "engine": run.request.engine,
        "sampler": run.request.sampler,
        "pruner": run.request.pruner,
        "state": RUNNING if alive else _end_state(run, counts, early_end),
        "trials": {
            "wanted": run.wanted,
            **{state.value.lower(): counts[state] for state in TrialState},
        },
        "failures": {
            kind.value: sum(record.failure is kind for record in attempts) for kind in Failure
        },
        "best": best and {"trial_id": best.trial_id, "value": best.value, "params": best.params},
        "elapsed_s": round(_elapsed(sessions, alive), 3),
        "utilization": _utilization(attempts, workers, sessions, alive),
        "chief": _chief(sessions, serving),
        "workers": _live_workers(workers, latest) if serving else [],
    }


def is_live(run: Run) -> bool:
    """Whether some process leads the run now, or is about to."""
    return run.chief_lives or run.supervised


def early_end_of(run: Run) -> str:
    """Why the run ended with fewer trials than were asked for; "" where it did not."""
    reader = run.reader()
    try:
        noted = reader.meta().get(EARLY_END)
    finally:
        reader.close()
    return str(noted["words"]) if noted else ""


def best_of(run: Run, records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The completed trial with the best value; of equals the one that ended first.

    Its weights are the ones that were kept.
    """
    best: TrialRecord | None = None
    for record in sorted(records, key=lambda record: record.ended_seq or 0):
        if record.state is TrialState.COMPLETED and record.value is not None:
            than = best.value if best else None
            if run.study.direction.better(record.value, than):
                best = record
    return best


def _end_state(
    run: Run, counts: collections.Counter[TrialState], early_end: dict[str, str] | None
) -> str:
    """The state of a run that nobody leads: whether it came to the end that was asked for."""
    reason = early_end and early_end["reason"]
    if reason == EarlyEnd.NO_WORKERS:
        return STOPPED
    if reason == EarlyEnd.ERROR:
        return FAILED
    if reason == EarlyEnd.BUDGET:
        return DONE if counts[TrialState.COMPLETED] else FAILED
    ended = counts[TrialState.COMPLETED] + counts[TrialState.PRUNED] + counts[TrialState.FAILED]
    is_open = counts[TrialState.WAITING] + counts[TrialState.RUNNING]
    if is_open or (ended < run.wanted and not reason):
        return STOPPED
    return DONE if counts[TrialState.COMPLETED] else FAILED


def _elapsed(sessions: Sequence[dict[str, Any]], alive: bool) -> float:
    """Seconds in which a chief served; the time between two sessions does not count."""
    total = 0.0
    for session in sessions:
        is_last = session is sessions[-1]
        end = session["ended_at"] or (time.time() if alive and is_last else session["seen_at"])
        total += max(0.0, end - session["started_at"])
    return total


def _utilization(
    attempts: Sequence[TrialRecord],
    workers: Sequence[WorkerRow],
    sessions: Sequence[dict[str, Any]],
    alive: bool,
) -> float | None:
    """The share of the workers' time in which they ran trials; None before there was any."""
    until = time.time() if alive else max((s["seen_at"] for s in sessions), default=0.0)
    present = sum(max(0.0, (row.left_at or until) - row.joined_at) for row in workers)
    busy = sum(
        max(0.0, (record.ended_at or until) - record.started_at)
        for record in attempts
        if record.started_at
    )
    return round(min(1.0, busy / present), 4) if present else None


def _chief(sessions: Sequence[dict[str, Any]], serving: bool) -> dict[str, Any]:
    last = sessions[-1] if sessions and serving else {}
    return {name: last.get(name) for name in ("host", "pid", "address")}


def _live_workers(
    workers: Sequence[WorkerRow], latest: Sequence[TrialRecord]
) -> list[dict[str, Any]]:
    running = {r.worker: r.trial_id for r in latest if r.state is TrialState.RUNNING}
    rows = []
    for row in workers:
        if row.left_at is None:
            trial_id = running.get(row.info.worker_id)
            rows.append(
                {
                    "id": row.info.worker_id,
                    "host": row.info.host,
                    # 0 where it has yet to start.
                    "pid": row.info.pid or None,
                    "device": row.info.device,
                    "state": "RUNNING" if trial_id else "IDLE",
                    "trial_id": trial_id,
                }
            )
    return rows
