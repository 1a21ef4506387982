"""The main of one process of a search: which it is stands in KerasTuner's variables."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import sys
import threading

from hpo import env
from hpo.child import end_own_tree
from hpo.engines.base import Engine, load_engine
from hpo.errors import TuneFleetError, UsageError
from hpo.leaving import leave
from hpo.run import Run

_DEFECT = 70
# What a pipe takes at once on every system.
_MOST_WORDS = 4096


_FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def set_up_logging() -> None:
    """Events go to standard error, dated."""
    logging.basicConfig(level=logging.INFO, format=_FORM)


def log_to_file_too(path: pathlib.Path) -> None:
    """Events go to the end of this file besides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter(_FORM))
    logging.getLogger().addHandler(handler)


def _wait(engine: Engine, study: pathlib.Path) -> None:
    """Imports the study, and reads it if that is asked for, until there is a role."""
    reader = os.environ.pop(env.READ_TO, None)
    engine.prepare(study)
    if reader:
        # Beside waiting for the role: whoever started this process may also vanish.
        threading.Thread(target=_read_study, args=(study, int(reader)), daemon=True).start()
    _hear_role()


def _read_study(study: pathlib.Path, fd: int) -> None:
    from hpo.probe import question
    from hpo.trial_process import TrialProcesses

    with os.fdopen(fd, "w") as out:
        out.write(TrialProcesses(study).ask(question))


def _hear_role() -> None:
    """Waits for one line on standard input: the variables of a role, and where to log.

    Leaves where the line never comes: there is no search to work for.
    """
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            end_own_tree()
        line += byte
    told = json.loads(line)
    os.environ.update(told["environment"])
    log = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def main(engine_name: str, what: str) -> int:
    """Leads the run in the folder ``what``, or works on the study in the file ``what``."""
    set_up_logging()
    listening = os.environ.pop(env.LAST_WORDS, None)
    try:
        engine = load_engine(engine_name)
        if os.environ.pop(env.AWAIT_ROLE, None):
            _wait(engine, pathlib.Path(what))
        role = env.role()
        if role is None:
            raise UsageError(f"{env.TUNER_ID} is not set: this process has no role")
        if role.is_chief:
            return engine.lead(Run(pathlib.Path(what)), role)
        token_file = pathlib.Path(os.environ.get(env.TOKEN_FILE, ""))
        return engine.work(role, token_file, pathlib.Path(what))
    except TuneFleetError as error:
        if listening:
            # Whoever listens may be gone. More than this might wait for it to read.
            with contextlib.suppress(OSError):
                os.write(int(listening), str(error).encode()[:_MOST_WORDS])
        # It may be just for want of room that there is no room for it in the log.
        with contextlib.suppress(OSError):
            print(f"launch.py: {error}", file=sys.stderr, flush=True)
        return error.exit_status
    except Exception:
        # Not 1, which Python would give: that is a search in which nothing completed.
        logging.getLogger("tunefleet").exception("this process has a defect")
        return _DEFECT


if __name__ == "__main__":
    leave(main(*sys.argv[1:]))
