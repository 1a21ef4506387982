"""Asking a question of a Python process of its own, and answering it there.

For what imports TensorFlow and runs operations: whoever asks stays light, and nothing that
the child prints, leaks or crashes on can hurt it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from hpo import env, errors
from hpo._internal.process_tree import adopt_orphans, end_children, watched
from hpo.errors import PlaceError, StudyError, TuneFleetError

ROOT = pathlib.Path(__file__).resolve().parent.parent


def ask(
    module: str, arguments: Sequence[str], environ: Mapping[str, str], debug: bool = False
) -> dict[str, Any]:
    """What ``python -m module arguments...`` answers by :func:`answer`.

    An error that the child raised is raised here, StudyError where it died without a word.
    With ``debug`` what the child prints is shown, and its traceback.
    """
    receiving, sending = os.pipe()
    command = [sys.executable, "-m", module, str(sending), *arguments]
    output = None if debug else subprocess.DEVNULL
    asked = subprocess.Popen(
        command,
        pass_fds=[sending],
        env={**environ, **env.of_project(ROOT, environ), "TF_CPP_MIN_LOG_LEVEL": "2"},
        # Held open: the child leaves when it closes, which the system does for a dead parent.
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
    )
    with watched(asked) as child:
        os.close(sending)
        try:
            with os.fdopen(receiving) as answers:
                text = answers.read()
        except BaseException:
            child.kill()
            raise
    if not text:
        raise StudyError(
            f"{arguments[0]} ended the process that read it (status {child.returncode}): look for "
            "an exit, a crash or too much memory at import or in the model; see --debug"
        )
    return understood(text, debug)


def understood(text: str, debug: bool = False) -> dict[str, Any]:
    """What a child said by :func:`reply`; an error that it raised is raised here."""
    said: dict[str, Any] = json.loads(text)
    if "error" not in said:
        return said
    if debug:
        sys.stderr.write(said["traceback"])
    kind: type[TuneFleetError] = getattr(errors, said["error"], PlaceError)
    raise kind(said["message"])


def answer(fd: str, make: Callable[[], dict[str, Any]]) -> NoReturn:
    """In the child: answers with what ``make`` gives, or with the error it raises; then ends."""
    adopt_orphans()
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    text = reply(make)
    # What a person's code has printed: nobody else writes it out before this process ends.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    with os.fdopen(int(fd), "w") as out:
        out.write(text)
    # What a person's code has started, and may have made a daemon.
    end_children()
    # Interpreters with TensorFlow in them take long to leave, or hang.
    os._exit(0)


def reply(make: Callable[[], dict[str, Any]]) -> str:
    """What ``make`` gives, or the error it raises, for :func:`understood` elsewhere."""
    try:
        said = make()
    except Exception as error:
        known = isinstance(error, TuneFleetError)
        name = type(error).__name__ if known else "StudyError"
        message = str(error) if known else repr(error)
        said = {"error": name, "message": message, "traceback": traceback.format_exc()}
    return json.dumps(said)


def end_own_tree() -> NoReturn:
    """Ends this process at once, with all that it started: a fork server would go on importing."""
    end_children()
    # What another thread has started since then, where the group is this process's own.
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


def _leave_with_parent() -> None:
    while os.read(0, 1):
        continue
    end_children()
    os._exit(1)
