"""The ledger on a disk that is full, spoilt or not to be written."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from hpo import ledger
from hpo.errors import LedgerError, RunError
from hpo.ledger import LedgerReader, LedgerWriter
from hpo.lock import Lock
from tests.support.cli_runs import PATIENCE_S
from tests.support.ledger_fixtures import META, ROOT, reading, stored, writing

# Writes until the disk, here a limit on the size of a file, is full; then there is space again.
FULL = """
import pathlib, resource, sys
from hpo.errors import LedgerError
from hpo.ledger import LedgerWriter
from hpo.protocol import Attempt, StoreAttempt
from hpo.trial import TrialRecord, TrialState
writer = LedgerWriter(pathlib.Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
def write(n):
    record = TrialRecord(f"{n:04d}", 1, TrialState.RUNNING, {}, "e", "s", "i", 0, "d",
                         error="x" * 9000, asked_seq=n)
    writer.commit([StoreAttempt(Attempt(record))], 0.0).result()
    print(n, flush=True)
try:
    for n in range(1000):
        write(n)
except LedgerError as error:
    print(error, file=sys.stderr)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    write(1000)
except LedgerError:
    writer.close()
    sys.exit(3)
"""
# Gives up the power over files that root has, and then tries what it is told to.
POWERLESS = """
import os, pathlib, sys
from hpo.errors import TuneFleetError
from hpo.ledger import LedgerReader, LedgerWriter
folder = pathlib.Path(sys.argv[2])
if os.getuid() == 0:
    os.setuid(65534)
try:
    if sys.argv[1] == "read":
        print(len(LedgerReader(folder).records()))
    else:
        writer = LedgerWriter(folder)
        writer.submit([("DELETE FROM attempts", ())]).result()
except TuneFleetError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_status)
"""


def python(code: str, *arguments: str | pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_a_full_disk_acknowledges_nothing_and_loses_nothing(folder: pathlib.Path) -> None:
    done = python(FULL, folder)
    assert done.returncode == 3, done.stdout + done.stderr
    assert str(folder / ledger.FILE) in done.stderr
    assert "then `launch.py resume`" in done.stderr
    acknowledged = [int(line) for line in done.stdout.split()]
    # Not even the write that came when there was space: the one before it is missing.
    assert 1000 not in acknowledged and len(acknowledged) > 5
    with reading(folder) as reader:
        assert [record.asked_seq for record in reader.records()] == acknowledged
    with writing(folder) as writer:
        writer.commit([stored(1000)], 0.0).result()


def test_what_cannot_be_stored_is_an_error_and_not_a_silence(folder: pathlib.Path) -> None:
    for bad in (stored(error="\udc80"), stored(epochs=2**64)):
        with writing(folder) as writer, pytest.raises(LedgerError, match=r"ledger\.db"):
            writer.commit([bad], 0.0).result(timeout=PATIENCE_S)


@pytest.fixture
def public() -> Iterator[pathlib.Path]:
    """A folder that everybody can read and enter, with the ledger of a finished run."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        ledger.create(folder, META)
        with writing(folder) as writer:
            writer.commit([stored(n) for n in range(3)], 0.0).result()
        yield folder
        folder.chmod(0o755)


def test_a_folder_that_cannot_be_written_is_still_read(public: pathlib.Path) -> None:
    for file in public.iterdir():
        file.chmod(0o444)
    public.chmod(0o555)
    assert python(POWERLESS, "read", public).stdout == "3\n"
    refused = python(POWERLESS, "write", public)
    assert refused.returncode == 3
    assert refused.stderr.startswith(f"cannot write {public / ledger.LOCK}: Permission denied")


def test_a_file_that_cannot_be_written_is_an_error(public: pathlib.Path) -> None:
    public.chmod(0o777)
    (public / ledger.LOCK).chmod(0o666)
    (public / ledger.FILE).chmod(0o444)
    refused = python(POWERLESS, "write", public)
    assert refused.returncode == 3
    assert f"the ledger {public / ledger.FILE}: " in refused.stderr
    assert "writable" in refused.stderr


@pytest.mark.parametrize("use", [LedgerReader, LedgerWriter])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"This is no database, however long it is." * 100, "damaged"),
        (b"", "format 0 and this program reads format"),
    ],
)
def test_a_file_that_is_no_ledger_is_called_so(
    tmp_path: pathlib.Path, use: Any, content: bytes, message: str
) -> None:
    (tmp_path / ledger.FILE).write_bytes(content)
    with pytest.raises(LedgerError, match=rf"ledger\.db.*{message}"):
        use(tmp_path)
    assert not Lock.held(tmp_path / ledger.LOCK)


@pytest.mark.parametrize("use", [LedgerReader, LedgerWriter])
def test_another_format_is_refused(folder: pathlib.Path, use: Any) -> None:
    with contextlib.closing(sqlite3.connect(folder / ledger.FILE)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match=f"format 99 .* reads format {ledger.SCHEMA}"):
        use(folder)
    assert not Lock.held(folder / ledger.LOCK)


@pytest.mark.parametrize("use", [LedgerReader, LedgerWriter])
def test_where_there_is_no_ledger_there_is_no_run(tmp_path: pathlib.Path, use: Any) -> None:
    with pytest.raises(RunError, match=f"no run in {tmp_path}"):
        use(tmp_path)
    assert not Lock.held(tmp_path / ledger.LOCK)


def test_a_ledger_cut_short_is_an_error(folder: pathlib.Path) -> None:
    with writing(folder) as writer:
        writer.commit([stored(n, error="x" * 2000) for n in range(50)], 0.0).result()
    os.truncate(folder / ledger.FILE, 40_000)
    with pytest.raises(LedgerError, match="damaged"), reading(folder) as reader:
        reader.records()
