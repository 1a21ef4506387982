"""A search of another verb's at another place, of which a copy is kept here."""

from __future__ import annotations

import argparse
import pathlib
import re
from collections.abc import Sequence

from cluster import options
from cluster.cells import launch
from cluster.launchers.base import launcher_for, launcher_of, parse_handle
from hpo.errors import PlaceError

# How `submit` says what it has made.
_MADE = re.compile(r"^run (\S+://\S+)$", re.MULTILINE)


def search_there(
    args: argparse.Namespace, words: Sequence[str], folder: pathlib.Path, log: pathlib.Path
) -> int:
    """Submits a search to the place ``--on`` and follows it to its end; its exit status.

    After its end ``folder`` has a copy of its ledger, so that it reads as a run here. What is typed
    again after this was cut off attaches to the search. What is said is added to ``log``.
    """
    placed = options.typed(args, launcher_for(args.on, args).takes)
    before = log.stat().st_size if log.exists() else 0
    status = launch(["submit", *words, "--on", args.on, *placed], log)
    if status:
        return status
    made = _MADE.search(log.read_bytes()[before:].decode(errors="replace"))
    if made is None:
        raise PlaceError(f"`submit --on {args.on}` did not say what it made: see {log}")
    which = options.typed(args, ("kubeconfig", "context"))
    status = launch(["watch", made[1], *which], log)
    if status not in (0, 1):
        return status
    handle = parse_handle(made[1])
    launcher_of(handle).fetch(handle, args, folder)
    return status
