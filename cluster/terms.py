"""The terms of a run that may be other ones at its next start.

``python -m cluster.terms RUNS RUN +N`` wants N more points of a run that nobody leads, as
`resume --trials +N` does before it searches.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

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
    number = int(text)
    wanted = found.wanted + number if text.startswith("+") else max(found.wanted, number)
    wanted = SAMPLERS.load(found.request.sampler).wanted(found.study, wanted)
    return with_meta(found, {"wanted": wanted})


def with_meta(found: Run, meta: dict[str, Any]) -> Run:
    """The run with other terms for its next chief; RunError where one leads it now."""
    check_not_live(found)
    set_meta(found, meta)
    return Run(found.folder)


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
    try:
        runs, run_id, trials = arguments
        with_trials(open_run(pathlib.Path(runs), run_id), trials)
    except TuneFleetError as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
