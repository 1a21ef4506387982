"""A ledger that a disk has damaged: what is said of it, and the way back that the docs give."""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
import subprocess

import pytest

from hpo import ledger
from hpo.errors import LedgerError
from hpo.ledger.file import connect
from tests.unit.test_scribe import stored

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "operations.md"
TRIALS = 300
PAGE = 4096


def _middle_child(path: pathlib.Path, root: int) -> int:
    """A page in the midst of those under the page ``root``, by SQLite's own format."""
    page = path.read_bytes()[(root - 1) * PAGE : root * PAGE]
    assert page[0] == 2, "an inner page of a table without row ids"
    cells = int.from_bytes(page[3:5], "big")
    place = 12 + 2 * (cells // 2)
    cell = int.from_bytes(page[place : place + 2], "big")
    return int.from_bytes(page[cell : cell + 4], "big")


@pytest.fixture
def torn(tmp_path: pathlib.Path) -> pathlib.Path:
    """The folder of a ledger with a page of rubbish in the midst of its attempts."""
    ledger.create(tmp_path, {"request": "as it was"})
    with contextlib.closing(ledger.LedgerWriter(tmp_path)) as writer:
        writer.commit([stored(f"{n:04d}") for n in range(TRIALS)], 1.0).result()
    with contextlib.closing(connect(tmp_path / ledger.FILE)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'attempts'")
        page = _middle_child(tmp_path / ledger.FILE, root.fetchone()[0])
    with (tmp_path / ledger.FILE).open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(b"\xa5" * PAGE)
    return tmp_path


def test_a_torn_ledger_is_named_and_the_way_back_with_it(torn: pathlib.Path) -> None:
    with (
        pytest.raises(LedgerError, match=r"damaged.*docs/operations\.md"),
        contextlib.closing(ledger.LedgerReader(torn)) as reader,
    ):
        reader.records()


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs SQLite's own shell")
def test_the_documented_commands_bring_back_what_is_whole(torn: pathlib.Path) -> None:
    section = DOCS.read_text().split("## A damaged ledger")[1]
    commands = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert commands
    script = commands[1].replace("runs/RUN", str(torn))
    subprocess.run(["bash", "-e", "-c", script], check=True)
    with contextlib.closing(ledger.LedgerWriter(torn)) as writer:
        writer.commit([stored("9999")], 2.0).result()
    with contextlib.closing(ledger.LedgerReader(torn)) as reader:
        assert reader.meta() == {"request": "as it was"}
        found = {record.trial_id for record in reader.records()}
    numbers = sorted(found - {"9999"})
    assert TRIALS // 4 < len(numbers) < TRIALS, "what comes before the page that was torn"
    assert numbers == [f"{n:04d}" for n in range(len(numbers))], "without a gap"
