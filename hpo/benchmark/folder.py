"""The folder of a benchmark or a recording, beside those of the runs that it is made of.

<runs>/<id>/benchmark.json   what was asked
            cells/           what came of each cell, written when it is done
            log.txt          what its searches said
            report/          tables and pictures
"""

from __future__ import annotations

import json
import os
import pathlib
import secrets
from collections.abc import Mapping
from typing import Any

from hpo.errors import PlaceError, RunError
from hpo.run import check_id

FILE = "benchmark.json"
# What its runs' ids add to its own.
_ROOM = 34


class Folder:
    """One benchmark's folder; what was ``asked`` does not change."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.id = path.name
        self.log = path / "log.txt"
        self.asked: dict[str, Any] = json.loads((path / FILE).read_text())

    @classmethod
    def open(cls, runs: pathlib.Path, name: str, asked: Mapping[str, Any]) -> Folder:
        """The folder ``name``, made now or found with the same request.

        Raises RunError where it is of another request, or of a run.
        """
        if len(check_id(name)) > _ROOM:
            raise RunError(f"bad id {name!r}: at most {_ROOM} characters, its runs add to it")
        path = runs / name
        if not (path / FILE).is_file():
            if path.exists():
                raise RunError(f"{path} is there already and no benchmark: give another --id")
            try:
                (path / "cells").mkdir(parents=True)
                write_json(path / FILE, asked)
            except OSError as error:
                raise PlaceError(f"cannot make {path}: {error.strerror}: see --runs") from error
        found = cls(path)
        # As JSON has it, where a tuple is a list.
        wanted = json.loads(json.dumps(asked))
        differing = sorted(
            k for k in wanted.keys() | found.asked.keys() if wanted.get(k) != found.asked.get(k)
        )
        if differing:
            raise RunError(
                f"{name!r} was begun by another request (other {', '.join(differing)}): give "
                "another --id, or the same request"
            )
        return found

    def result(self, cell: str) -> dict[str, Any] | None:
        """What came of ``cell``; None where it is still to be done."""
        path = self._cell(cell)
        return json.loads(path.read_text()) if path.is_file() else None

    def keep(self, cell: str, result: Mapping[str, Any]) -> None:
        """Writes what came of ``cell``, whole or not at all."""
        write_json(self._cell(cell), result)

    def _cell(self, cell: str) -> pathlib.Path:
        return self.path / "cells" / f"{cell}.json"


def is_benchmark(runs: pathlib.Path, name: str) -> bool:
    """Whether ``name`` is a benchmark's."""
    return (runs / name / FILE).is_file()


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes ``value`` as JSON, whole or not at all."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    draft.write_text(json.dumps(value) + "\n")
    os.replace(draft, path)
