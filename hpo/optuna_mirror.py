"""A run as an Optuna study, for whoever looks at it with Optuna's tools as it goes.

A projection of the ledger: it finds its own trials again in the storage, by trial and
attempt, to complete them, and is never read back as truth. An attempt is a trial of Optuna's;
one that was lost with its worker is a failed one there.
"""

from __future__ import annotations

import datetime
import logging
import pathlib
import threading
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hpo.errors import UsageError, first_line
from hpo.run import Run
from hpo.samplers.optuna.distributions import encode
from hpo.settings import OPTUNA_STORAGE
from hpo.study import Study
from hpo.trial import Direction, Report, TrialRecord, TrialState

if TYPE_CHECKING:
    import optuna

# In the run's folder, where no other storage was asked for.
JOURNAL = "optuna.journal"

_KEY = ("trial_id", "attempt")
# How long `run` waits for a storage that it is told to use.
ANSWER_S = 10.0


def check_storage(url: str) -> None:
    """Raises UsageError where no Optuna storage is reached at ``url``, or not soon."""
    found: list[UsageError | None] = []
    # A database's driver may wait for minutes for a host that does not answer.
    asking = threading.Thread(target=lambda: found.append(_trouble(url)), daemon=True)
    asking.start()
    asking.join(ANSWER_S)
    if not found:
        raise UsageError(_unusable(url, f"it does not answer within {ANSWER_S:g} s"))
    if found[0]:
        raise found[0]


def _trouble(url: str) -> UsageError | None:
    """What stands against the storage at ``url``."""
    try:
        storage = open_storage(url)
    except UsageError as error:
        return error
    try:
        storage.get_all_studies()
    except Exception as error:
        return UsageError(_unusable(url, _in_short(error)))
    finally:
        storage.remove_session()
    return None


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """The storage at ``url``; raises UsageError, in one line, where there is none."""
    import optuna

    _be_quiet()
    try:
        return optuna.storages.get_storage(url)
    except Exception as error:
        raise UsageError(_unusable(url, _in_short(error))) from error


def mirror(run: Run) -> OptunaMirror:
    """What keeps the study of ``run`` in its storage."""
    url = run.settings.get(OPTUNA_STORAGE)
    if url:
        # Others may keep a run of the same id there.
        name = f"{run.id}-{run.created_at:.0f}"
        return OptunaMirror(open_storage(url), name, run.study)
    return OptunaMirror(_journal(run.folder / JOURNAL), run.id, run.study)


class OptunaMirror:
    """Keeps one study in line with the ledger; for one thread of one process."""

    def __init__(self, storage: optuna.storages.BaseStorage, name: str, study: Study) -> None:
        import optuna

        _be_quiet()
        ways = optuna.study.StudyDirection
        way = ways.MAXIMIZE if study.direction is Direction.MAX else ways.MINIMIZE
        made = optuna.create_study(
            storage=storage, study_name=name, direction=way, load_if_exists=True
        )
        made.set_metric_names([study.objective])
        self._storage = storage
        self._study = study
        self._id = storage.get_study_id_from_name(name)
        # By trial and attempt, Optuna's id of it.
        self._known: dict[tuple[str, int], int] = {}
        self._ended: set[tuple[str, int]] = set()
        # Before anything is written, or it would be there twice.
        for trial in storage.get_all_trials(self._id, deepcopy=False):
            key = tuple(trial.user_attrs.get(name) for name in _KEY)
            self._known[key] = trial._trial_id  # type: ignore[index]
            if trial.state.is_finished():
                self._ended.add(key)  # type: ignore[arg-type]

    def restore(self, records: Iterable[TrialRecord]) -> None:
        """Adds what is missing, and ends what has ended meanwhile."""
        for record in records:
            if record.state is not TrialState.WAITING:
                self.update(record, record.history)

    def close(self) -> None:
        """Lets go of the storage."""
        self._storage.remove_session()

    def update(self, record: TrialRecord, reports: Iterable[Report]) -> None:
        """What is new of an attempt. One that ended before is left alone, an unknown one made."""
        key = (record.trial_id, record.attempt)
        if key in self._ended:
            return
        steps = self._steps(reports)
        if key not in self._known:
            trial = _frozen(record, self._study, steps)
            self._known[key] = self._storage.create_new_trial(self._id, template_trial=trial)
        else:
            for step, value in steps.items():
                self._storage.set_trial_intermediate_value(self._known[key], step, value)
            if record.state.ended:
                self._end(self._known[key], record)
        if record.state.ended:
            self._ended.add(key)

    def _end(self, number: int, record: TrialRecord) -> None:
        for name, value in _attributes(record).items():
            self._storage.set_trial_user_attr(number, name, value)
        self._storage.set_trial_state_values(number, _state(record), _values(record))

    def _steps(self, reports: Iterable[Report]) -> dict[int, float]:
        """The objective at each step; one that is no number says so."""
        name = self._study.objective
        return {r.step: r.metrics[name] for r in reports if name in r.metrics}


def _frozen(record: TrialRecord, study: Study, steps: dict[int, float]) -> optuna.trial.FrozenTrial:
    """An attempt as Optuna keeps one."""
    import optuna

    params, distributions = encode(study.space, record.params)
    return optuna.trial.FrozenTrial(
        number=-1,
        trial_id=-1,
        state=_state(record),
        value=None,
        values=_values(record),
        datetime_start=_date(record.started_at or record.queued_at or 0.0),
        datetime_complete=_date(record.ended_at or 0.0) if record.state.ended else None,
        params=params,
        distributions=distributions,
        user_attrs=_attributes(record),
        system_attrs={},
        intermediate_values=steps,
    )


def _state(record: TrialRecord) -> optuna.trial.TrialState:
    from optuna.trial import TrialState as State

    states = {
        TrialState.RUNNING: State.RUNNING,
        TrialState.COMPLETED: State.COMPLETE,
        TrialState.PRUNED: State.PRUNED,
        TrialState.FAILED: State.FAIL,
    }
    return states[record.state]


def _values(record: TrialRecord) -> list[float] | None:
    """What the attempt is worth; for Optuna one that failed, or still runs, is worth nothing."""
    counts = record.state in (TrialState.COMPLETED, TrialState.PRUNED)
    return [record.value] if counts and record.value is not None else None


def _attributes(record: TrialRecord) -> dict[str, Any]:
    """What Optuna has no place for. ``params`` are the values, of which it may see an index."""
    return {
        "trial_id": record.trial_id,
        "attempt": record.attempt,
        "params": record.params,
        "worker": record.worker,
        "failure": record.failure.value if record.failure else None,
    }


def _date(seconds: float) -> datetime.datetime:
    # Optuna's dates are of this machine's own time zone, and say so nowhere.
    return datetime.datetime.fromtimestamp(seconds)


def _journal(path: pathlib.Path) -> optuna.storages.BaseStorage:
    """The storage in the run's folder. Its one writer holds the lock of the ledger."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    _be_quiet()
    # What a killed chief left would hold up this one for half a minute.
    pathlib.Path(f"{path}.lock").unlink(missing_ok=True)
    _end_last_line(path)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def _end_last_line(path: pathlib.Path) -> None:
    """Cuts off a last line that a killed writer did not end: none would be readable after it."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _unusable(url: str, why: str) -> str:
    # The URL may hold a password.
    return f"the Optuna storage at {url.partition('://')[0]}://... cannot be used: {why}"


def _in_short(error: Exception) -> str:
    """The first line of a database's many; or which package its driver is in."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, ModuleNotFoundError):
            return f"its driver, the package {cause.name!r}, is not installed: install it"
        cause = cause.__cause__ or cause.__context__
    return first_line(error)


def _be_quiet() -> None:
    """Optuna says on standard error what is no news to who reads the chief's log."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    logging.getLogger("alembic").setLevel(logging.WARNING)
