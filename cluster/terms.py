"""The terms of a run that may be other ones at its next start.

``python -m cluster.terms RUNS RUN [--trials +N] [--failed] [LIMITS]`` notes for a run that nobody
leads what `resume` and `retry` note before they search, for a search that another process begins.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from cluster import options
from cluster.request import limits_of
from hpo import settings
from hpo.attempts import retried
from hpo.errors import RunError, TuneFleetError, UsageError
from hpo.ledger import LedgerWriter
from hpo.registry import SAMPLERS
from hpo.run import Run, open_run
from hpo.status import is_live


def with_trials(found: Run, text: str) -> Run:
    """The run with more trials wanted: ``+N`` more, or ``N`` in all."""
    if not re.fullmatch(r"\+?[0-9]{1,9}", text):
        raise UsageError(f"--trials {text!r}: give +N for so many more, or N for so many in all")
    check_not_live(found)
    wanted = found.wanted + int(text) if text.startswith("+") else int(text)
    if wanted < found.wanted:
        raise UsageError(
            f"--trials {text}: run {found.id} is to have {found.wanted}: give +N for N more, or as "
            "many in all as there are to be"
        )
    wanted = SAMPLERS.load(found.request.sampler).wanted(found.study, wanted)
    return with_meta(found, {"wanted": wanted})


def with_meta(found: Run, meta: dict[str, Any]) -> Run:
    """The run with other terms for its next chief; RunError where one leads it now."""
    check_not_live(found)
    set_meta(found, meta)
    return Run(found.folder)


def with_limits(found: Run, limits: dict[str, float]) -> Run:
    """The run with these limits besides those that it has."""
    return with_meta(found, {"limits": {**found.limits, **limits}}) if limits else found


def with_settings(found: Run, typed: Iterable[tuple[str, str]] | None) -> Run:
    """The run with those settings besides that decide no results."""
    new = settings.together(typed, decides_results=False)
    if new.items() <= found.settings.items():
        return found
    own = {k: v for k, v in found.settings.items() if k not in found.request.settings}
    return with_meta(found, {"settings": own | new})


def queue_failed(found: Run) -> None:
    """Another attempt for each trial that failed; RunError where none did, or the run is live."""
    check_not_live(found)
    with contextlib.closing(LedgerWriter(found.folder)) as writer:
        with contextlib.closing(found.reader()) as reader:
            again = retried(reader.attempts(history=False), time.time())
        if not again:
            raise RunError(f"no trial of run {found.id} has failed: see `launch.py trials`")
        writer.commit(again, time.time()).result()


def check_not_live(found: Run) -> None:
    """Raises RunError where some process leads the run."""
    if is_live(found):
        raise RunError(f"run {found.id} is running: stop it first, or wait for its end")


def set_meta(found: Run, meta: dict[str, Any]) -> None:
    """Notes terms in the run's ledger."""
    with contextlib.closing(LedgerWriter(found.folder)) as writer:
        writer.set_meta(meta)


def main(arguments: Sequence[str]) -> int:
    """Does what was typed; answers the exit status."""
    parser = options.Parser(prog="python -m cluster.terms", allow_abbrev=False)
    parser.add_argument("runs", type=pathlib.Path)
    parser.add_argument("run")
    parser.add_argument("--trials")
    parser.add_argument("--failed", action="store_true")
    options.limits(parser)
    try:
        typed = parser.parse_all(arguments)
        found = open_run(typed.runs, typed.run)
        if typed.failed:
            queue_failed(found)
        if typed.trials is not None:
            found = with_trials(found, typed.trials)
        with_limits(found, limits_of(typed))
    except TuneFleetError as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
