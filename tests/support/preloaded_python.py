"""Python processes that begin with TensorFlow and Keras imported: forks of one server.

A test that needs a process of its own for what TensorFlow leaves behind gets one in some tenths of
a second, where an import takes five. The server runs no operation, so that its forks can.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import traceback
from typing import Any, NoReturn

from tests.support.cli_runs import ROOT


class PreloadedPython:
    """A server, started with its first script and ended by ``close``."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._server: subprocess.Popen[str] | None = None
        self._runs = 0

    def run(
        self, script: str, *arguments: str, cwd: pathlib.Path = ROOT
    ) -> subprocess.CompletedProcess[str]:
        """What `python -c script arguments...` does, in the folder ``cwd``."""
        self._runs += 1
        out, err = (self._folder / f"{self._runs}.{name}" for name in ("out", "err"))
        request = {"script": script, "arguments": arguments, "cwd": str(cwd)}
        answer = self._ask({**request, "out": str(out), "err": str(err)})
        command = ["python", "-c", script, *arguments]
        return subprocess.CompletedProcess(
            command, answer["status"], out.read_text(), err.read_text()
        )

    def close(self) -> None:
        """Ends the server."""
        if self._server:
            self._server.kill()
            self._server.communicate()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.support.preloaded_python"],
                cwd=ROOT,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        assert line, "the server of preloaded processes has died"
        answer: dict[str, Any] = json.loads(line)
        return answer


def _serve() -> None:
    import h5py  # noqa: F401
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(request)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"status": status}), flush=True)


def _run(request: dict[str, Any]) -> NoReturn:
    """The fork: runs the script as a main module and leaves."""
    for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(name, flags, 0o644), number)
    os.chdir(request["cwd"])
    sys.argv = ["-c", *request["arguments"]]
    status = 0
    try:
        exec(compile(request["script"], "<script>", "exec"), {"__name__": "__main__"})
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _serve()
