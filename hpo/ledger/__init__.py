"""The one durable state of a run: an SQLite file with one writer and any number of readers.

Every transaction holds the whole outbox of one event, so what is on disk is always a state
that the coordinator was in. ``synchronous=FULL``: a commit that returned survives a lost
host, not just a killed process. Commits are gathered while one is under way, so their cost
does not grow with the number of workers.

Each event writes rows of its own and rewrites at most one, so it costs the same at the ten
thousandth trial as at the first.
"""

from hpo.ledger.file import EARLY_END, FILE, LOCK, SCHEMA, SPENT
from hpo.ledger.reader import LedgerReader
from hpo.ledger.writer import LedgerWriter, create

__all__ = [
    "EARLY_END",
    "FILE",
    "LOCK",
    "SCHEMA",
    "SPENT",
    "LedgerReader",
    "LedgerWriter",
    "create",
]
