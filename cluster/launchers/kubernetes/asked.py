"""From what was typed to a search that another place can do: its files travel along."""

from __future__ import annotations

import argparse
import pathlib
import re

from cluster import options
from cluster.launchers.kubernetes.render import STUDY_FOLDER, Search
from cluster.request import request_of
from hpo.engines.base import load_engine
from hpo.errors import StudyError, UsageError
from hpo.run import SearchRequest, check_id
from hpo.study import STUDIES_DIR, find_study, study_name

_KEY = re.compile(r"[-._a-zA-Z0-9]{1,200}")
_START = "start.json"


def search_of(args: argparse.Namespace, run_id: str | None = None) -> tuple[Search, SearchRequest]:
    """The search that was typed, under ``run_id`` or a name made from the study's.

    Nothing of the study runs here. Raises UsageError for what cannot be done there.
    """
    if args.from_run:
        raise UsageError(
            "--from names a run here, which the cluster does not have: give points by --start"
        )
    path = find_study(args.study)
    request = request_of(args, path)
    files = {}
    # A study of this program's own is there by its name, wherever it lies here.
    study = study_name(path)
    if path.parent != STUDIES_DIR:
        files[_key(path)] = _text(path)
        study = str(STUDY_FOLDER / path.name)
    if args.start:
        files[_START] = _text(args.start)
    run_id = check_id(run_id or args.id or _plain_id(path))
    return Search(run_id, study, _chief_options(args), files), request


def check_engine(engine: str) -> None:
    """Raises UsageError for an engine whose workers are no processes of their own."""
    if not load_engine(engine).roles(1)[1:]:
        raise UsageError(
            f"engine {engine} starts its workers itself, and here each is a pod: "
            "take --engine keras-tuner, or --on rayjob"
        )


def _chief_options(args: argparse.Namespace) -> list[str]:
    """What is typed at the chief: all that a search has, but its id and its place."""
    typed = options.typed_again(args.arguments)
    if "--start" in typed:
        typed["--start"] = [str(STUDY_FOLDER / _START)]
    return [
        f"{name}={value}" for name, values in typed.items() if name != "--id" for value in values
    ]


def _key(path: pathlib.Path) -> str:
    if not _KEY.fullmatch(path.name) or path.name == _START:
        raise UsageError(
            f"{path.name} cannot travel under this name: use letters, digits, dots, dashes and "
            f"underscores, and not {_START}"
        )
    return path.name


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"cannot read {path}: {error}: give a text file") from error


def _plain_id(path: pathlib.Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", study_name(path).lower()).strip("-")[:40].strip("-") or "run"
