"""A real TensorBoard for one run or several, in a process that never outlives its caller.

The process is this module again, with TensorBoard inside: it leaves when its standard input
closes, which the system does for a caller that dies, however that dies.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import types
import urllib.request
from collections.abc import Mapping
from typing import Any, Self

from hpo._internal.process_tree import watched
from hpo.errors import PlaceError, RunError, TuneFleetError, UsageError
from hpo.tensorboard.files import package

LOOPBACK = "127.0.0.1"

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_CHILD = "from hpo.tensorboard import server; server.child()"
_PATIENCE_S = 30.0
# Where the system sets no limit of its own.
_OPEN_FILES = 65536


class TensorBoardServer:
    """A TensorBoard that answers at :attr:`url`, the address of its HParams page."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        # Not the first page: with a thousand trials its charts take longer than the table.
        self.url = f"{address}#hparams"

    def wait(self) -> int:
        """Blocks until TensorBoard ends, such as by a signal; its exit status."""
        return self.process.wait()

    def close(self) -> None:
        """Ends TensorBoard."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def serve(
    runs: Mapping[str, pathlib.Path], host: str = LOOPBACK, port: int = 0
) -> TensorBoardServer:
    """Starts TensorBoard over ``runs``, folders by the name to show; returns once it answers.

    Port 0 is a free one. Several runs share one table, whose columns are those of one of
    them: they should be searches of the same space. Raises RunError for a folder that is
    not there, UsageError for an address that cannot be had, PlaceError where TensorBoard is
    not installed or does not start.
    """
    for name, folder in runs.items():
        if not folder.is_dir():
            raise RunError(f"run {name!r} has nothing for TensorBoard: there is no {folder}")
    _check_address(host, port)
    request = {
        "runs": {name: str(folder.resolve()) for name, folder in runs.items()},
        "host": host,
        "port": port,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, json.dumps(request)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    watched(process)
    try:
        address = _address(process)
        _await_answer(address)
    except BaseException:
        TensorBoardServer(process, "").close()
        raise
    return TensorBoardServer(process, address)


def _check_address(host: str, port: int) -> None:
    """Raises UsageError unless ``port`` of ``host`` is free to listen on."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # The address has the port cut to 16 bits, where a wrong one would pass.
            probe.bind((address[0], port, *address[2:]))
            probe.listen()
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {port} of {host} is in use by another process: "
                "give a free one with --port, or 0 to have one chosen"
            ) from error
        raise UsageError(
            f"cannot listen on port {port} of {host}: {error}: give an address of this machine "
            "with --host and a port from 1024 to 65535, or 0, with --port"
        ) from error


def _address(process: subprocess.Popen[str]) -> str:
    """Where the child says that it listens; raises what it met instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise PlaceError(
            f"TensorBoard ended at once with status {process.wait()}: "
            "what it said on standard error tells why"
        )
    answer: dict[str, str] = json.loads(line)
    if "address" in answer:
        return answer["address"]
    raise PlaceError(answer["error"])


def _await_answer(address: str) -> None:
    # A proxy that is set for the world outside does not know this machine's ports.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=_PATIENCE_S):
            return
    except OSError as error:
        raise PlaceError(f"TensorBoard does not answer at {address}: {error}") from error


def child() -> None:
    """What the process does that :func:`serve` starts."""
    request = json.loads(sys.argv[1])
    # Ctrl-C reaches the whole terminal; when to end is the caller's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    _raise_open_files()
    with tempfile.TemporaryDirectory(prefix="tunefleet-tensorboard-") as links:
        folder = _one_folder(request["runs"], pathlib.Path(links))
        try:
            answer = {"address": _launch(folder, request["host"], request["port"])}
        except TuneFleetError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
        sys.stdin.read()


def _raise_open_files() -> None:
    """TensorBoard's loader keeps a file a trial open, and shows no rows where it cannot."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _one_folder(runs: Mapping[str, str], links: pathlib.Path) -> str:
    """One folder over all runs: the fast loader takes no list of folders but follows links."""
    if len(runs) == 1:
        return next(iter(runs.values()))
    for name, folder in runs.items():
        (links / name).symlink_to(folder, target_is_directory=True)
    return str(links)


def _launch(folder: str, host: str, port: int) -> str:
    """TensorBoard in a thread of this process; the address at which it listens."""
    # With this module there, TensorBoard leaves TensorFlow alone, which it can do without.
    sys.modules["tensorboard.compat.notf"] = types.ModuleType("tensorboard.compat.notf")
    program: Any = package("program")
    board = program.TensorBoard()
    board.configure(("",), logdir=folder, host=host, port=port, load_fast="auto")
    # It praises the loader on standard error at every start, and leaves its reasons there too.
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return str(board.launch())
    except (program.TensorBoardServerException, OSError, SystemExit) as error:
        reason = said.getvalue() if isinstance(error, SystemExit) else error
        raise PlaceError(
            f"TensorBoard does not start on port {port} of {host}: {reason}: "
            "see whether `tensorboard` itself does"
        ) from error
