"""The winner of a run with its figures on the test set: computed once, then remembered."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

from hpo.errors import PlaceError, RunError, TuneFleetError
from hpo.ledger import LedgerWriter
from hpo.run import Run
from hpo.status import best_of, is_live
from hpo.study import Form
from hpo.trial import Metrics, TrialRecord

_META = "test"


@dataclasses.dataclass(frozen=True)
class Winner:
    """The best trial. ``untested`` says why there should be test figures and are none."""

    record: TrialRecord
    test: Metrics | None = None
    untested: str = ""

    def to_json(self) -> dict[str, Any]:
        """The object that ``best --json`` prints."""
        return {
            "trial_id": self.record.trial_id,
            "value": self.record.value,
            "params": self.record.params,
            "test": self.test,
        }


def winner_of(run: Run) -> Winner | None:
    """The winner as the ledger has it; None as long as no trial has completed."""
    reader = run.reader()
    try:
        best = best_of(run, [attempt.record for attempt in reader.attempts(history=False)])
        noted = reader.meta().get(_META) or {}
    finally:
        reader.close()
    if best is None:
        return None
    return Winner(best, noted["metrics"] if noted.get("trial_id") == best.trial_id else None)


def remember_test(run: Run, environ: Mapping[str, str], debug: bool = False) -> Winner | None:
    """The winner, evaluated now unless it was before or the search goes on.

    None as long as no trial has completed. Never raises for what goes wrong with the
    evaluation: that is told by ``untested``.
    """
    winner = winner_of(run)
    if winner is None or winner.test is not None or run.study.form != Form.KERAS:
        return winner
    if is_live(run):
        return dataclasses.replace(winner, untested="the winner is tested when the search is over")
    # TensorFlow stays out of this process, and numpy too until it is needed.
    from hpo.evaluation import evaluate_winner

    try:
        test = evaluate_winner(run, winner.record, environ, debug)
    except TuneFleetError as error:
        return dataclasses.replace(winner, untested=str(error))
    if test is None:
        return dataclasses.replace(winner, untested="its weights were not kept")
    _note(run, winner.record, test)
    return dataclasses.replace(winner, test=test)


def _note(run: Run, record: TrialRecord, test: Metrics) -> None:
    # A chief that has taken the run up again, or a folder that may only be read, costs no
    # more than the next evaluation.
    with contextlib.suppress(RunError, PlaceError):
        writer = LedgerWriter(run.folder)
        try:
            writer.set_meta({_META: {"trial_id": record.trial_id, "metrics": test}})
        finally:
            writer.close()
