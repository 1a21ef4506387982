"""Every error that a user can meet, as one tree.

TuneFleetError            one line for the user; carries the exit status
├── UsageError            an option, a verb, a name or an id is not one that exists (2)
├── StudyError            the study's file cannot be used as it is (2)
│   └── SpaceError        its search space cannot be searched, or a point lies outside it (2)
├── DataError             the data set is missing or corrupt (2)
├── RunError              no such run, or it is in use, or it was made by another request (2)
├── PlaceError            the machine the search runs on failed: disk, port, processes (3)
│   └── LedgerError       the run's ledger cannot be read or written (3)
└── RefusedError          the chief refused a worker: token, study or identity (2)

A message says what is wrong, where, and what would be right. It is one line: a newline in
the parts it was made from is folded, so that a log reader sees one error as one record.
"""

from __future__ import annotations


class TuneFleetError(Exception):
    """Base of every error that is shown to a user as one line."""

    exit_status = 3

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class UsageError(TuneFleetError):
    """What was typed names something that does not exist or is not allowed."""

    exit_status = 2


class StudyError(TuneFleetError):
    """The study's file cannot be used as it is."""

    exit_status = 2


class SpaceError(StudyError):
    """A search space is contradictory, or a point does not belong to it."""


class DataError(TuneFleetError):
    """A data set is missing or corrupt."""

    exit_status = 2


class RunError(TuneFleetError):
    """A run is unknown, in use, or belongs to another request."""

    exit_status = 2


class PlaceError(TuneFleetError):
    """The place the search runs in failed."""


class LedgerError(PlaceError):
    """The ledger of a run cannot be read or written."""


class RefusedError(TuneFleetError):
    """The chief refused a worker's call for good."""

    exit_status = 2


def first_line(error: BaseException) -> str:
    """What others' errors say in many lines, in one: the first, or what kind of error it is."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
