"""Event files as TensorBoard reads them, by its own protocol buffers and its own writer of records.

Nothing here imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pathlib
import re
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

from hpo.errors import PlaceError

# Beside a file that is whole, and stays as it is.
ENDED = ".ended"

# Others put seconds, which are ten digits, where these names have nanoseconds.
_OWN_NAME = re.compile(r"events\.out\.tfevents\.\d{19}\..+\.\d+")


def own_files(directory: pathlib.Path) -> list[pathlib.Path]:
    """The event files in ``directory`` that :func:`new_path` named."""
    return [path for path in directory.glob("events.*") if _OWN_NAME.fullmatch(path.name)]


def clear(directory: pathlib.Path) -> None:
    """Removes what was written into ``directory``, and the directory if nothing is left."""
    if not directory.is_dir():
        return
    (directory / ENDED).unlink(missing_ok=True)
    for path in own_files(directory):
        path.unlink()
    if not any(directory.iterdir()):
        directory.rmdir()


def new_path(directory: pathlib.Path) -> pathlib.Path:
    """The path of an event file that no file in ``directory`` had before."""
    return directory / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"


def first_event(wall_time: float) -> Any:
    """What every event file begins with; its time is where TensorBoard lets the run begin."""
    return event(wall_time, file_version="brain.Event:2")


def hparams_event(wall_time: float, tag: str, **data: Any) -> Any:
    """A record of the HParams plugin under the tag that its constant ``tag`` holds."""
    metadata = package("plugins.hparams.metadata")
    content = package("plugins.hparams.plugin_data_pb2").HParamsPluginData(**data)
    summary = package("compat.proto.summary_pb2").Summary
    value = summary.Value(
        tag=getattr(metadata, tag),
        metadata=metadata.create_summary_metadata(content),
        tensor=metadata.NULL_TENSOR,
    )
    return event(wall_time, summary=summary(value=[value]))


def event(wall_time: float, **fields: Any) -> Any:
    """TensorBoard's `Event` with these fields; ``wall_time`` is in seconds since the epoch."""
    return package("compat.proto.event_pb2").Event(wall_time=wall_time, **fields)


def encoded(events: Iterable[Any]) -> bytes:
    """The events as the records of a file."""
    buffer = io.BytesIO()
    writer = package("summary.writer.record_writer").RecordWriter(buffer)
    for each in events:
        writer.write(each.SerializeToString())
    return buffer.getvalue()


def package(name: str) -> Any:
    """A module of TensorBoard's, imported on first use; raises PlaceError where it is missing."""
    try:
        return importlib.import_module(f"tensorboard.{name}")
    except ModuleNotFoundError as error:
        raise PlaceError(
            f"TensorBoard is not installed here ({error.name} is missing): pip install tensorboard"
        ) from error


@contextlib.contextmanager
def disk(path: pathlib.Path) -> Iterator[None]:
    """Turns what the disk has against writing in ``path`` into a PlaceError."""
    try:
        yield
    except OSError as error:
        raise PlaceError(
            f"cannot write TensorBoard's files in {path}: {error.strerror}: "
            "make room there, and see that it can be written"
        ) from error
