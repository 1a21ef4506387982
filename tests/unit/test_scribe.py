"""Between the coordinator and the ledger nothing is lost, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence

import pytest

from hpo import ledger
from hpo.errors import TuneFleetError
from hpo.fleet.chief import SystemClock
from hpo.fleet.scribe import Scribe
from hpo.protocol import Attempt, Effect, StoreAttempt
from hpo.samplers.base import Proposal
from tests.conformance.test_samplers import a_record
from tests.support.cli_runs import PATIENCE_S


def stored(trial_id: str, tag: object = None) -> StoreAttempt:
    record = a_record(trial_id, Proposal({"n": 1}), asked_seq=1)
    return StoreAttempt(Attempt(dataclasses.replace(record, tag=tag or {})))  # type: ignore[arg-type]


class Desk:
    """A scribe with a real ledger, and what it has told."""

    def __init__(self, folder: pathlib.Path) -> None:
        ledger.create(folder, {})
        self.writer = ledger.LedgerWriter(folder)
        self.batches: list[Sequence[Effect]] = []
        self.errors: list[TuneFleetError] = []
        self.scribe = Scribe(self.writer, SystemClock(), self.batches.append, self.errors.append)


def test_what_comes_during_a_commit_is_written_together(tmp_path: pathlib.Path) -> None:
    async def go() -> None:
        desk = Desk(tmp_path)
        with contextlib.closing(desk.writer):
            await asyncio.gather(*(desk.scribe.write([stored(f"{n:04d}")]) for n in range(50)))
            await desk.scribe.write([])
        assert sum(map(len, desk.batches)) == 50
        assert len(desk.batches) <= 3

    asyncio.run(go())
    with contextlib.closing(ledger.LedgerReader(tmp_path)) as reader:
        assert len(reader.records()) == 50


def test_a_caller_that_is_gone_takes_nothing_along(tmp_path: pathlib.Path) -> None:
    async def go() -> None:
        desk = Desk(tmp_path)
        with contextlib.closing(desk.writer):
            gone = asyncio.create_task(desk.scribe.write([stored("0000")]))
            stays = asyncio.create_task(desk.scribe.write([stored("0001")]))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.wait_for(stays, PATIENCE_S)
            await asyncio.wait_for(desk.scribe.write([stored("0002")]), PATIENCE_S)
        assert sum(map(len, desk.batches)) == 3

    asyncio.run(go())


def test_whoever_says_it_again_waits_for_the_first(tmp_path: pathlib.Path) -> None:
    async def go() -> None:
        desk = Desk(tmp_path)
        with contextlib.closing(desk.writer):
            first = asyncio.create_task(desk.scribe.write([stored("0000")]))
            await asyncio.sleep(0)
            await desk.scribe.write([])
            assert sum(map(len, desk.batches)) == 1, "it lies in the ledger by now"
            await first

    asyncio.run(go())


def test_what_the_ledger_cannot_hold_is_an_error_and_no_silence(tmp_path: pathlib.Path) -> None:
    async def go() -> None:
        desk = Desk(tmp_path)
        with contextlib.closing(desk.writer):
            with pytest.raises(TuneFleetError, match="the ledger cannot hold"):
                await asyncio.wait_for(
                    desk.scribe.write([stored("0000", {"a": object()})]), PATIENCE_S
                )
            assert len(desk.errors) == 1

    asyncio.run(go())
