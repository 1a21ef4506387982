"""The rows that each effect of an event writes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from hpo.ledger.file import ATTEMPT, EARLY_END, SPENT
from hpo.protocol import (
    Attempt,
    Effect,
    StoreAttempt,
    StoreCrew,
    StoreEarlyEnd,
    StoreReport,
    StoreSpent,
    StoreWorker,
)

# What no state of an attempt changes: written once, with its row.
_FIXED = {"params", "tag", "epochs", "resume_from", "seed", "engine", "sampler", "sampler_impl"} | {
    "study_digest",
    "asked_seq",
    "queued_at",
    "lost",
}
_KEY = ("trial_id", "attempt")
_CHANGING = [name for name in ATTEMPT if name not in _FIXED and name not in _KEY]
_PUT_ATTEMPT = (
    f"INSERT INTO attempts ({', '.join(ATTEMPT)}) VALUES ({', '.join('?' * len(ATTEMPT))}) "
    "ON CONFLICT DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in _CHANGING)
)

Statement = tuple[str, Sequence[Any]]


def meta_statements(meta: dict[str, Any]) -> Iterator[Statement]:
    for key, value in meta.items():
        yield "INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value))


def statements_of(effect: Effect, now: float) -> Iterator[Statement]:
    if isinstance(effect, StoreAttempt):
        yield _PUT_ATTEMPT, _attempt_values(effect.attempt)
    elif isinstance(effect, StoreReport):
        record, report = effect.record, effect.report
        key = (record.trial_id, record.attempt)
        metrics = json.dumps(report.metrics)
        insert = "INSERT OR REPLACE INTO reports (trial_id, attempt, step, metrics, at)"
        yield f"{insert} VALUES (?,?,?,?,?)", (*key, report.step, metrics, now)
        update = "UPDATE attempts SET value = ?, best_step = ? WHERE trial_id = ? AND attempt = ?"
        yield update, (record.value, record.best_step, *key)
    elif isinstance(effect, StoreWorker):
        info, row = effect.row.info, effect.row
        values = (info.worker_id, info.incarnation, info.host, info.pid, info.device)
        insert = "INSERT OR REPLACE INTO workers VALUES (?,?,?,?,?,?,?)"
        yield insert, (*values, row.joined_at, row.left_at)
    elif isinstance(effect, StoreEarlyEnd):
        end = {"reason": effect.reason.value, "words": effect.words}
        yield from meta_statements({EARLY_END: end})
    elif isinstance(effect, StoreSpent):
        yield from meta_statements({SPENT: dataclasses.asdict(effect.spent)})
    elif isinstance(effect, StoreCrew):
        yield from meta_statements(effect.crew.to_meta())


def _attempt_values(attempt: Attempt) -> tuple[Any, ...]:
    record = attempt.record
    fields = {name: getattr(record, name) for name in ATTEMPT if name not in ("fence", "lost")}
    fields |= {"params": json.dumps(record.params), "tag": json.dumps(record.tag)}
    fields |= {"state": record.state.value, "fence": attempt.fence, "lost": attempt.lost}
    fields["failure"] = record.failure.value if record.failure else None
    return tuple(fields[name] for name in ATTEMPT)
