"""A ledger as it is now, whole, also while a chief writes it: to be read elsewhere.

    python -m hpo.ledger.snapshot FOLDER > snapshot

prints that of the run in ``FOLDER``, packed, for :func:`unpack`.
"""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import sys
import zlib

from hpo.errors import LedgerError, TuneFleetError
from hpo.ledger.file import FILE, connect, failing_well


def pack(folder: pathlib.Path) -> bytes:
    """The ledger in ``folder``, compressed. Raises LedgerError where it cannot be read."""
    path = folder / FILE
    with (
        failing_well(path),
        contextlib.closing(connect(path, read_only=True)) as source,
        contextlib.closing(sqlite3.connect(":memory:")) as copy,
    ):
        source.backup(copy)
        return zlib.compress(copy.serialize())


def unpack(packed: bytes, folder: pathlib.Path) -> None:
    """Puts the ledger in ``packed`` into ``folder`` at once, in place of an older copy.

    Raises LedgerError where ``packed`` is none.
    """
    try:
        content = zlib.decompress(packed)
    except zlib.error as error:
        raise LedgerError(f"what was sent is no ledger: {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{FILE}"
    draft.write_bytes(content)
    for name in (f"{FILE}-wal", f"{FILE}-shm"):
        (folder / name).unlink(missing_ok=True)
    draft.rename(folder / FILE)


def main() -> int:
    """Prints the packed ledger of the folder that was named."""
    try:
        sys.stdout.buffer.write(pack(pathlib.Path(sys.argv[1])))
    except TuneFleetError as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
