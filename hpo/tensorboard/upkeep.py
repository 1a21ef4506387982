"""A finished or interrupted run's TensorBoard files: are they its own, and are they all there?

The chief owns the files of a run that is being searched, and its lock is taken before
anything is written here.
"""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from hpo.errors import PlaceError, RunError
from hpo.ledger import LOCK
from hpo.lock import Lock
from hpo.run import Run
from hpo.status import is_live
from hpo.tensorboard.columns import experiment
from hpo.tensorboard.files import ENDED, own_files, package
from hpo.tensorboard.writer import TensorBoardWriter, project, session_name
from hpo.trial import TrialRecord

_HEADER, _CHECKSUM = 12, 4
# Of the records looked at, the longest is the experiment's: some hundred bytes a column.
_LONGEST = 1 << 24


def check(run: Run) -> None:
    """Raises RunError where an event file in the run's folder is not of this run."""
    strange = _stranger(run)
    if strange:
        path, why = strange
        raise RunError(
            f"{path} does not belong to run {run.id}: {why}: "
            "move it away, or have everything written anew with --rebuild"
        )


def catch_up(run: Run) -> bool:
    """Writes what the ledger has and the files lack; whether there was anything.

    Nothing to do while the run is searched. Raises PlaceError where the disk refuses.
    """
    if is_live(run) or not _behind(run):
        return False
    try:
        with _locked(run):
            TensorBoardWriter(run.tensorboard, run.study).restore(_records(run))
    except RunError:
        # A chief has come up in between: it does the same.
        return False
    return True


def rebuild(run: Run) -> pathlib.Path | None:
    """Writes all files anew from the ledger; where what is not of this run was put, if any was.

    Raises RunError while the run is searched, PlaceError where the disk refuses.
    """
    if is_live(run):
        raise RunError(
            f"run {run.id} is being searched and its chief writes TensorBoard's files: "
            "leave out --rebuild, or stop the run first with `launch.py stop`"
        )
    with _locked(run):
        aside = _put_aside(run) if _stranger(run) else None
        project(run.tensorboard, run.study, _records(run))
    return aside


def _put_aside(run: Run) -> pathlib.Path:
    """Renames the folder, so that nothing is lost whoever wrote it."""
    aside = run.folder / time.strftime("tensorboard-before-%Y%m%d-%H%M%S", time.gmtime())
    try:
        run.tensorboard.rename(aside)
    except OSError as error:
        raise PlaceError(f"cannot rename {run.tensorboard} to {aside}: {error.strerror}") from error
    return aside


def _stranger(run: Run) -> tuple[pathlib.Path, str] | None:
    """An event file that is not of this run, and why it is not."""
    # Listed before the ledger is read: a chief writes there first.
    paths = sorted(run.tensorboard.rglob("*tfevents*"))
    known = {session_name(record): record for record in _records(run, history=False)}
    for path in paths:
        # What a chief has just written anew is looked at the next time.
        with contextlib.suppress(FileNotFoundError):
            why = _why_strange(path, run, known)
            if why:
                return path, why
    return None


def _why_strange(path: pathlib.Path, run: Run, known: Mapping[str, TrialRecord]) -> str:
    """Why the event file is not of this run; empty if it is."""
    if path not in own_files(path.parent):
        return "another program wrote it"
    if path.parent == run.tensorboard:
        return "" if _declares(path, run) else "it declares other hyperparameters or metrics"
    name = str(path.parent.relative_to(run.tensorboard))
    record = known.get(name)
    if record is None:
        return f"the ledger has no {name}"
    if (path.parent / ENDED).exists() and _began(path) != record.started_at:
        return "the ledger has another start of that trial"
    return ""


def _declares(path: pathlib.Path, run: Run) -> bool:
    """Whether the event file is the experiment record of the run's study."""
    data = package("plugins.hparams.plugin_data_pb2").HParamsPluginData
    wanted = _columns(experiment(run.study))
    contents = (
        value.metadata.plugin_data.content
        for event in _events(path)
        for value in event.summary.value
    )
    return any(_columns(data.FromString(content).experiment) == wanted for content in contents)


def _columns(declared: Any) -> tuple[list[bytes], list[str]]:
    """What an experiment record declares, in whatever order."""
    hyperparameters = sorted(info.SerializeToString() for info in declared.hparam_infos)
    return hyperparameters, sorted(info.name.tag for info in declared.metric_infos)


def _began(path: pathlib.Path) -> float | None:
    """The time of an event file's first record."""
    return next((event.wall_time for event in _events(path)), None)


def _events(path: pathlib.Path) -> Iterator[Any]:
    """The events of a file, up to the first that is damaged. Each is framed by length and sums."""
    from google.protobuf.message import DecodeError

    event_type = package("compat.proto.event_pb2").Event
    with path.open("rb") as file:
        while len(header := file.read(_HEADER)) == _HEADER:
            size = int.from_bytes(header[:8], "little")
            if size > _LONGEST:
                return
            try:
                yield event_type.FromString(file.read(size))
            except DecodeError:
                return
            file.read(_CHECKSUM)


def _behind(run: Run) -> bool:
    """Whether the columns or an attempt that has ended are missing."""
    names = {session_name(r) for r in _records(run, history=False) if r.state.ended}
    missing = (name for name in names if not (run.tensorboard / name / ENDED).exists())
    return not own_files(run.tensorboard) or any(missing)


def _records(run: Run, history: bool = True) -> list[TrialRecord]:
    """Every attempt in the ledger."""
    reader = run.reader()
    try:
        return [attempt.record for attempt in reader.attempts(history)]
    finally:
        reader.close()


@contextlib.contextmanager
def _locked(run: Run) -> Iterator[None]:
    """Keeps chiefs away; raises RunError where one lives."""
    lock = Lock(run.folder / LOCK)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
