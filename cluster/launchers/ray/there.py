"""What runs on the head of a Ray cluster, as a Ray job: a search, or a verb that reads one.

``python -m cluster.launchers.ray.there WHAT HANDLE RUNS ...``, in the folder that was sent.
What is said for whoever asked goes into the job's log as frames.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, Any

from cluster.launchers.ray import frames
from hpo import env, ledger
from hpo.child import ROOT
from hpo.ledger import snapshot
from hpo.run import Run
from hpo.status import is_live

# Beside the runs, for each of them: what was sent with it.
SENT = ".sent"
# In the folder of what was sent: the interpreter that the run was last started by.
INTERPRETER = ".interpreter"
_LOOK_S = 0.5


def lead(handle: str, runs: str, run_id: str, *words: str) -> int:
    """Searches: does ``launch.py`` with ``words``, and says when the search has begun."""
    folder = _runs(runs)
    verb, what, *options = words
    home = _settle(folder, run_id) if verb == "run" else ROOT
    if home == folder / SENT / run_id:
        (home / INTERPRETER).write_text(sys.executable)
    # The run notes where its study lies.
    study = str(home / what) if verb == "run" else what
    began = _sessions(folder / run_id)
    command = [verb, study, *options, f"--runs={folder}"]
    with _launch(command, handle, home) as search:
        while search.poll() is None and _sessions(folder / run_id) <= began:
            time.sleep(_LOOK_S)
        if search.poll() is None:
            frames.write(sys.stdout, frames.BEGUN)
        status = search.wait()
    frames.write(sys.stdout, frames.STATUS, str(status).encode())
    # As a shell says that a signal ended it.
    return status if status >= 0 else 128 - status


def do(handle: str, runs: str, *words: str) -> int:
    """Does ``launch.py`` with ``words`` and hands on what it says."""
    with _launch([*words, f"--runs={_runs(runs)}"], handle, ROOT, subprocess.PIPE) as verb:
        said = threading.Thread(target=_hand_on, args=(verb.stderr, frames.SAID))
        said.start()
        _hand_on(verb.stdout, frames.OUT)
        said.join()
        return _ended(verb.wait())


def export(handle: str, runs: str, run_id: str, *words: str) -> int:
    """Hands on a run's best model and how it came about, as two files."""
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / "best.keras"
        options = [f"--out={target}", f"--runs={_runs(runs)}", *words]
        with _launch(["export", run_id, *options], handle, ROOT, subprocess.PIPE) as verb:
            out, err = verb.communicate()
        frames.write(sys.stdout, frames.SAID, err)
        if verb.returncode == 0:
            frames.write(sys.stdout, frames.OUT, out.replace(folder.encode(), b""))
            for path in sorted(pathlib.Path(folder).iterdir()):
                _hand_over(path.name, path)
        return _ended(verb.returncode)


def mirror(handle: str, runs: str, run_id: str, every_s: str) -> int:
    """Hands on the run's ledger, and again whenever it has changed, until its search is over."""
    run = Run(_runs(runs) / run_id)
    last, goes_on = b"", True
    while goes_on:
        # Asked first, so that the last copy is that of the end.
        goes_on = is_live(run)
        copy = snapshot.pack(run.folder)
        if copy != last:
            frames.write(sys.stdout, frames.FILE, ledger.FILE.encode())
            frames.write(sys.stdout, frames.PART, copy)
            frames.write(sys.stdout, frames.STATUS, b"0")
            last = copy
        if goes_on:
            time.sleep(float(every_s))
    return 0


def examine(handle: str, runs: str) -> int:
    """Says what the head and the cluster have, as JSON."""
    folder = _runs(runs)
    with _launch(["doctor", "--json", f"--runs={folder}"], handle, ROOT, subprocess.PIPE) as doctor:
        out, _ = doctor.communicate()
    found = {"head": json.loads(out), "runs": str(folder), "executable": sys.executable}
    found |= {"python": platform.python_version(), "runs_unsafe": _unsafe(folder)}
    frames.write(sys.stdout, frames.OUT, json.dumps({**found, **_of_ray()}).encode())
    return _ended(0)


def _of_ray() -> dict[str, Any]:
    """What this interpreter finds of the cluster; ``error`` where it cannot join it."""
    from hpo.engines.ray_tune.nodes import joinable, nodes

    try:
        import ray

        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
        now = nodes()
        later = joinable(now)
        ray.shutdown()
    except Exception as error:  # Ray raises what its many parts raise
        return {"error": str(error), "nodes": [], "joinable": []}
    return {"error": None, "nodes": [vars(n) for n in now], "joinable": [vars(n) for n in later]}


def _unsafe(folder: pathlib.Path) -> str | None:
    from hpo import file_system
    from hpo.errors import PlaceError

    try:
        file_system.check(folder)
    except PlaceError as error:
        return str(error)
    return None


def _runs(typed: str) -> pathlib.Path:
    """The folder of runs: below the home of whoever runs Ray, as for `ray submit`."""
    return pathlib.Path.home() / typed


def _settle(runs: pathlib.Path, run_id: str) -> pathlib.Path:
    """The folder of what was sent, where it outlives this job and Ray's session.

    A run that goes on does so with what it began with.
    """
    home = runs / SENT / run_id
    if (runs / run_id).exists() and home.exists():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    draft = home.with_name(f"{run_id}.{secrets.token_hex(4)}")
    shutil.copytree(ROOT, draft, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(home, ignore_errors=True)
    draft.rename(home)
    return home


def _launch(
    words: Sequence[str], handle: str, home: pathlib.Path, pipe: int | None = None
) -> subprocess.Popen[bytes]:
    """`launch.py` with ``words``, in the folder that was sent."""
    return subprocess.Popen(
        [sys.executable, str(home / "launch.py"), *words],
        cwd=home,
        env={**os.environ, env.HANDLE: handle},
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
    )


def _sessions(folder: pathlib.Path) -> int:
    """How often a leader of the run in ``folder`` has begun to serve; 0 without a run."""
    if not (folder / ledger.FILE).exists():
        return 0
    with contextlib.closing(ledger.LedgerReader(folder)) as reader:
        return len(reader.sessions())


def _hand_on(stream: IO[bytes] | None, kind: str) -> None:
    assert stream is not None
    while chunk := os.read(stream.fileno(), frames.CHUNK):
        frames.write(sys.stdout, kind, chunk)


def _hand_over(name: str, path: pathlib.Path) -> None:
    frames.write(sys.stdout, frames.FILE, name.encode())
    with path.open("rb") as file:
        while chunk := file.read(frames.CHUNK):
            frames.write(sys.stdout, frames.PART, chunk)


def _ended(status: int) -> int:
    frames.write(sys.stdout, frames.STATUS, str(status).encode())
    return 0


_DOING: dict[str, Callable[..., int]] = {
    "lead": lead,
    "do": do,
    "export": export,
    "mirror": mirror,
    "examine": examine,
}


def main(arguments: Sequence[str]) -> int:
    """Does what was asked; answers the exit status."""
    what, handle, runs, *words = arguments
    # Ray tells all of a job's processes: `launch.py` ends the search, and this one follows it.
    signal.signal(signal.SIGTERM, lambda *_: None)
    return _DOING[what](handle, runs, *words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
