"""What the tests of the ledger share."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from hpo import ledger
from hpo.ledger import LedgerReader, LedgerWriter
from hpo.protocol import Attempt, StoreAttempt
from hpo.trial import TrialRecord, TrialState

ROOT = pathlib.Path(__file__).resolve().parents[2]
META = {"request": {"sampler": "random"}, "wanted": None, "name": "zwölf"}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with the ledger of a run that has not begun."""
    ledger.create(tmp_path, META)
    return tmp_path


@contextlib.contextmanager
def writing(folder: pathlib.Path) -> Iterator[LedgerWriter]:
    writer = LedgerWriter(folder)
    try:
        yield writer
    finally:
        writer.close()


@contextlib.contextmanager
def reading(folder: pathlib.Path) -> Iterator[LedgerReader]:
    with contextlib.closing(LedgerReader(folder)) as reader:
        yield reader


def a_record(number: int = 0, **changes: Any) -> TrialRecord:
    fields: dict[str, Any] = {
        "trial_id": f"{number:04d}",
        "attempt": 1,
        "state": TrialState.RUNNING,
        "params": {"x": 0.1},
        "engine": "e",
        "sampler": "s",
        "sampler_impl": "i",
        "seed": 1,
        "study_digest": "d",
        "asked_seq": number,
    }
    return TrialRecord(**{**fields, **changes})


def stored(number: int = 0, **changes: Any) -> StoreAttempt:
    return StoreAttempt(Attempt(a_record(number, **changes)))
