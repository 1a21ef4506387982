"""TensorBoard's own process: where it listens, and that it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import pytest

from hpo.errors import PlaceError, RunError, UsageError
from hpo.tensorboard.server import serve
from tests.support.cli_runs import wait_until
from tests.support.hparams_client import Page
from tests.support.tensorboard_ledger import (
    a_record,
    a_study,
    events_of,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
WRITE = """
import json, pathlib, sys
from hpo import study, trial
from hpo.tensorboard.writer import TensorBoardWriter
assert "tensorboard" not in sys.modules
task = json.loads(sys.stdin.read())
toy = study.Study.from_json(task["study"])
writer = TensorBoardWriter(pathlib.Path(sys.argv[1]), toy)
record = trial.TrialRecord(**{**task["record"], "state": trial.TrialState.RUNNING})
writer.start(record)
writer.report(record, trial.Report(1, {"val_accuracy": 0.5}))
print(sorted({"tensorflow", "keras", "tensorboard"} & set(sys.modules)))
"""


def test_writer_leaves_tensorflow_alone(tmp_path: pathlib.Path) -> None:
    task = {"study": a_study().to_json(), "record": dataclasses.asdict(a_record(0))}
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(tmp_path)],
        input=json.dumps(task),
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    assert (done.stdout.strip(), done.stderr) == ("['tensorboard']", "")
    assert events_of(tmp_path / "trial-0000")


def test_missing_tensorboard_says_how_to_install_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty" / "tensorboard").mkdir(parents=True)
    (tmp_path / "empty" / "tensorboard" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "empty"))
    with pytest.raises(PlaceError, match="pip install tensorboard"):
        serve({"run": tmp_path})


def test_port_in_use_is_refused(tmp_path: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} .* in use .*--port"):
            serve({"run": tmp_path}, port=port)


@pytest.mark.parametrize(
    ("host", "port"), [("192.0.2.1", 0), ("nowhere.invalid", 0), ("127.0.0.1", 99999)]
)
def test_address_that_cannot_be_had_is_refused(
    tmp_path: pathlib.Path, host: str, port: int
) -> None:
    with pytest.raises(UsageError, match=f"port {port} of {re.escape(host)}: .*--host.*--port"):
        serve({"run": tmp_path}, host=host, port=port)


def test_run_without_a_folder_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(RunError, match="'run' has nothing"):
        serve({"run": tmp_path / "nowhere"})


SERVE = """
import pathlib, resource, sys, time
from hpo.tensorboard.server import serve
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
server = serve({"run": pathlib.Path(sys.argv[1])})
print(server.url, server.process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/limits").exists(), reason="reads /proc")
def test_server_is_fast_unbounded_local_and_dies_with_its_caller(tmp_path: pathlib.Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as caller:
        try:
            assert caller.stdout is not None
            url, pid = caller.stdout.readline().split()
            assert url.startswith("http://127.0.0.1:")
            assert url.endswith("/#hparams")
            loader = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            assert [b"--logdir=" in cmdline(int(child)) for child in loader] == [True]
            limits = pathlib.Path(f"/proc/{loader[0]}/limits").read_text()
            (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
            soft, hard = line.split()[3:5]
            assert soft == hard != "256"
        finally:
            caller.send_signal(signal.SIGKILL)
    wait_for_end([int(pid), int(loader[0])])


def test_close_ends_tensorboard(tmp_path: pathlib.Path) -> None:
    with serve({"run": tmp_path}) as server:
        os.kill(server.process.pid, signal.SIGINT)
        Page(server).experiment()
    assert server.wait() == 0


def cmdline(pid: int) -> bytes:
    return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()


def wait_for_end(pids: list[int]) -> None:
    wait_until(lambda: not any(map(lives, pids)), f"none of {pids} is left")


def lives(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        # An orphan that nobody has waited for is over all the same.
        return ") Z " not in pathlib.Path(f"/proc/{pid}/stat").read_text()
    return False
