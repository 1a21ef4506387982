"""The main of one process of a search: which it is stands in KerasTuner's variables."""

from __future__ import annotations

import logging
import os
import pathlib
import sys

from hpo import env
from hpo.engines.base import load_engine
from hpo.errors import TuneFleetError, UsageError
from hpo.run import Run

_DEFECT = 70


def set_up_logging() -> None:
    """Events go to standard error, dated."""
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form)


def main(engine_name: str, what: str) -> int:
    """Leads the run in the folder ``what``, or works on the study in the file ``what``."""
    set_up_logging()
    try:
        role = env.role()
        if role is None:
            raise UsageError(f"{env.TUNER_ID} is not set: this process has no role")
        engine = load_engine(engine_name)
        if role.is_chief:
            return engine.lead(Run(pathlib.Path(what)), role)
        token_file = pathlib.Path(os.environ.get(env.TOKEN_FILE, ""))
        return engine.work(role, token_file, pathlib.Path(what))
    except TuneFleetError as error:
        # The last line of the log: whoever started this process shows it as the reason.
        print(f"launch.py: {error}", file=sys.stderr, flush=True)
        return error.exit_status
    except Exception:
        # Not 1, which Python would give: that is a search in which nothing completed.
        logging.getLogger("tunefleet").exception("this process has a defect")
        return _DEFECT


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
