"""TensorBoard HParams: a projection of a run's ledger, written by the ledger's owner alone.

<folder>/events.out.tfevents.*              the experiment: its columns, before there is a row
         trial-0003/events.out.tfevents.*   an attempt: what it was given, its steps, its end
         trial-0003-attempt-2/...           the next attempt at the same trial, a row of its own
         trial-0003/.ended                  the attempt's file is whole: it stays as it is

Whatever else lies there is somebody's: only files named as `files.new_path` names them are removed.

A row's status is what TensorBoard calls UNKNOWN while the attempt runs: it keeps the first
status it reads, so a RUNNING would stay for ever.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterable, Sequence
from typing import Any

from hpo.study import Study
from hpo.tensorboard.columns import best_tag, columns, experiment
from hpo.tensorboard.files import (
    ENDED,
    clear,
    disk,
    encoded,
    event,
    first_event,
    hparams_event,
    new_path,
    own_files,
    package,
)
from hpo.trial import Metrics, Params, Report, TrialRecord, TrialState

_LARGEST_FLOAT32 = 3.4028234663852886e38

_CELLS = {bool: "bool_value", int: "number_value", float: "number_value", str: "string_value"}
_STATUS = {
    TrialState.COMPLETED: "STATUS_SUCCESS",
    TrialState.PRUNED: "STATUS_SUCCESS",
    TrialState.FAILED: "STATUS_FAILURE",
}


def session_name(record: TrialRecord) -> str:
    """The directory, and the name of the row, of one attempt."""
    name = f"trial-{record.trial_id}"
    return name if record.attempt == 1 else f"{name}-attempt-{record.attempt}"


class TensorBoardWriter:
    """Keeps ``folder`` in line with the ledger; for one thread of one process.

    Every method raises PlaceError where the disk refuses or TensorBoard is not installed.
    An attempt whose file could not be written is written whole by the next call for it.
    """

    def __init__(self, folder: pathlib.Path, study: Study) -> None:
        self._folder = folder
        self._study = study
        self._columns = columns(study.space)
        self._open: dict[str, _Session] = {}
        with disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not own_files(folder):
                self._write_experiment()

    def start(self, record: TrialRecord) -> None:
        """An attempt runs: it is a row from now on. Steps in its history are written too."""
        self._update(record, record.history)

    def report(self, record: TrialRecord, report: Report) -> None:
        """One more step; a step that was there already is replaced, as in the ledger."""
        self._update(record, (*record.history, report))

    def update(self, record: TrialRecord, reports: Sequence[Report]) -> None:
        """An attempt as it is now, with the steps that came since it was last written."""
        self._update(record, (*record.history, *reports))

    def end(self, record: TrialRecord) -> None:
        """The attempt is over. One that ended before is left alone, an unknown one is made."""
        self._update(record, record.history)

    def restore(self, records: Iterable[TrialRecord]) -> None:
        """Brings the folder in line with all of the ledger's ``records``, histories included.

        What ended properly is left alone; every other attempt is written anew, and those
        that run stay open. A row that the ledger does not know goes away.
        """
        known = set()
        self._open.clear()
        for record in records:
            if record.state is TrialState.WAITING:
                continue
            known.add(session_name(record))
            if not record.state.ended:
                self._discard(session_name(record))
            self._update(record, record.history)
        for directory in self._folder.glob("trial-*"):
            if directory.name not in known:
                self._discard(directory.name)

    def close(self) -> None:
        """Ends the writing. Every file is whole: what runs on is taken up by ``restore``."""
        self._open.clear()

    def _update(self, record: TrialRecord, reports: Iterable[Report]) -> None:
        """Writes what is new of an attempt, and its end if the record says so."""
        name = session_name(record)
        directory = self._folder / name
        with disk(directory):
            if (directory / ENDED).exists():
                return
            if name not in self._open:
                self._open[name] = _Session(directory, self._study, self._row(record.params))
            self._open[name].write(record, reports)
        if record.state.ended:
            del self._open[name]

    def _row(self, params: Params) -> Params:
        """The cells of a row. What is inactive is absent, which leaves its cell blank."""
        cells = (c.cells(params[c.name]) for c in self._columns if c.name in params)
        return {name: value for row in cells for name, value in row.items()}

    def _discard(self, name: str) -> None:
        with disk(self._folder / name):
            clear(self._folder / name)

    def _write_experiment(self) -> None:
        """The record of columns; it appears whole or not at all, since it is never rewritten."""
        draft = self._folder / ".experiment"
        now = time.time()
        columns_event = hparams_event(now, "EXPERIMENT_TAG", experiment=experiment(self._study))
        draft.write_bytes(encoded([first_event(now), columns_event]))
        draft.replace(new_path(self._folder))


def project(folder: pathlib.Path, study: Study, records: Iterable[TrialRecord]) -> None:
    """Writes everything anew from the ledger's ``records``; raises PlaceError.

    The steps of an attempt that ended get the time of its end, as the ledger keeps no time
    a step: the last step is the one that the table shows.
    """
    with disk(folder):
        for directory in (folder, *folder.glob("trial-*")):
            clear(directory)
    writer = TensorBoardWriter(folder, study)
    writer.restore(records)
    writer.close()


class _Session:
    """The event file of one attempt, and what is in it so that nothing goes in twice."""

    def __init__(self, directory: pathlib.Path, study: Study, row: Params) -> None:
        self._directory = directory
        self._study = study
        self._row = row
        self._history: dict[int, Metrics] = {}
        self._path: pathlib.Path | None = None
        self._best: float | None = None

    def write(self, record: TrialRecord, reports: Iterable[Report]) -> None:
        """Adds what is new; the whole file is written anew where that does not do."""
        news = {report.step: _shown(report.metrics) for report in reports}
        news = {step: m for step, m in news.items() if self._history.get(step) != m}
        last = max(self._history, default=-1)
        self._history.update(news)
        # What fails now may leave half a record behind: the next call starts again.
        path, self._path = self._path, None
        # TensorBoard forgets what it has of the steps after one that comes late.
        anew = path is None or any(step <= last for step in news)
        if path is None or anew:
            path = self._begin()
        events = self._events(record, sorted(self._history if anew else news), anew)
        if events:
            with path.open("ab") as file:
                file.write(encoded(events))
        if record.state.ended:
            (self._directory / ENDED).touch()
        self._path = path

    def _begin(self) -> pathlib.Path:
        """A fresh file in an empty directory. Its name is new: a reader keeps its place by it."""
        clear(self._directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._best = None
        return new_path(self._directory)

    def _events(self, record: TrialRecord, steps: Sequence[int], anew: bool) -> list[Any]:
        began = record.started_at or record.queued_at or time.time()
        when = record.ended_at or time.time()
        events = [first_event(began), self._start_event(began)] if anew else []
        events += [self._step_event(when, step) for step in steps]
        if record.state.ended:
            info = package("plugins.hparams.plugin_data_pb2").SessionEndInfo(
                status=_STATUS[record.state], end_time_secs=when
            )
            events.append(hparams_event(when, "SESSION_END_INFO_TAG", session_end_info=info))
        return events

    def _start_event(self, began: float) -> Any:
        # Without a group name the row is named by its directory, hence unique even where
        # several runs are shown at once: rows that share a name would be averaged.
        info = package("plugins.hparams.plugin_data_pb2").SessionStartInfo(start_time_secs=began)
        for name, value in self._row.items():
            setattr(info.hparams[name], _CELLS[type(value)], value)
        return hparams_event(began, "SESSION_START_INFO_TAG", session_start_info=info)

    def _step_event(self, when: float, step: int) -> Any:
        """The step's metrics and the best so far: the table shows what was written last."""
        metrics = self._history[step]
        objective = metrics.get(self._study.objective)
        if objective is not None and self._study.direction.better(objective, self._best):
            self._best = objective
        if self._best is not None:
            metrics = {**metrics, best_tag(self._study): self._best}
        summary = package("compat.proto.summary_pb2").Summary
        values = [summary.Value(tag=tag, simple_value=value) for tag, value in metrics.items()]
        return event(when, step=step, summary=summary(value=values))


def _shown(metrics: Metrics) -> Metrics:
    """What is a number to TensorBoard: one NaN in a column makes its order arbitrary."""
    return {name: value for name, value in metrics.items() if abs(value) <= _LARGEST_FLOAT32}
