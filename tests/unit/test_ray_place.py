"""`--on ray` without a cluster: what is sent, and what is said where it cannot be."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pathlib
import socket
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import ray

from cluster.cli import main
from cluster.launchers.ray import connection, frames, jobs, parcel
from cluster.launchers.ray.connection import where
from cluster.launchers.ray.inside import AS_BEFORE, command, folder_of
from cluster.launchers.ray.there import INTERPRETER
from hpo.errors import UsageError
from tests.integration.test_ray_cluster import write_study
from tests.support.cli_runs import STUDIES
from tests.support.manual_chief import free_port
from tests.unit.test_kubernetes_place import said

SLOW = str(STUDIES / "slow.py")
VERBS = ["status", "trials", "best", "watch", "logs", "stop", "resume", "tensorboard"]


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("verb", VERBS)
def test_a_head_that_is_gone(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    place = f"127.0.0.1:{free_port()}"
    words = said(capsys, 3, verb, f"raycluster://{place}/demo")
    assert f"no head answers at {place} (Connection refused)" in words


@pytest.mark.parametrize("verb", [["submit", SLOW], ["list"], ["doctor"]])
def test_no_head_is_said_before_a_study_is_read(
    capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    place = f"127.0.0.1:{free_port()}"
    assert "no head answers" in said(capsys, 3, *verb, "--on", "ray", "--address", place)


class _Stranger(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """What is asked of it is none of the test's output."""


class _Words(_Stranger):
    """Answers whatever is asked with a page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")


class _Nobody(_Stranger):
    """Has no such page."""

    def do_GET(self) -> None:
        self.send_error(404)


class _OlderRay(_Stranger):
    """Answers as the dashboard of another version of Ray."""

    def do_GET(self) -> None:
        version = {"version": "4", "ray_version": "2.50.0", "ray_commit": "", "session_name": ""}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(version).encode())


@contextlib.contextmanager
def serving(handler: type[_Stranger]) -> Iterator[str]:
    """The address of a web server."""
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (_Stranger, "no Ray dashboard answers at"),
        (_Words, "is no Ray dashboard: give its port, which is 8265"),
        (_Nobody, "is no Ray dashboard: give its port, which is 8265"),
    ],
)
def test_what_is_no_dashboard(
    capsys: pytest.CaptureFixture[str], handler: type[_Stranger], says: str
) -> None:
    with serving(handler) as place:
        assert says in said(capsys, 3, "status", f"raycluster://{place}/demo")


def test_what_speaks_no_http_is_no_dashboard(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        threading.Thread(target=greet, daemon=True).start()
        place = f"127.0.0.1:{server.getsockname()[1]}"
        words = said(capsys, 3, "status", f"raycluster://{place}/demo")
        server.shutdown(socket.SHUT_RDWR)
    assert f"what answers at {place} is no Ray dashboard" in words


class _NoAgent(_Stranger):
    """The dashboard of a head whose agent, which starts jobs, never comes up."""

    def do_GET(self) -> None:
        version = {"version": "4", "ray_version": ray.__version__}
        self.send_response(200)
        self.end_headers()
        answer = version if self.path == "/api/version" else []
        self.wfile.write(json.dumps(answer).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(500)
        self.end_headers()
        self.wfile.write(b"No available agent to submit job, please try again later.")


def test_a_head_whose_agent_does_not_come_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_AGENT_S", 3.0)
    with serving(_NoAgent) as place:
        words = said(capsys, 3, "status", f"raycluster://{place}/demo")
    assert f"the Ray cluster at {place} takes no job: " in words
    assert "No available agent" in words and "see dashboard_agent.log" in words


def test_another_version_of_ray(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(_OlderRay) as place:
        words = said(capsys, 2, "submit", SLOW, "--on", "ray", "--address", place)
    assert f"the Ray cluster at {place} has Ray 2.50.0 and this machine 2.60.0" in words


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (None, "127.0.0.1:8265"),
        ("head", "head:8265"),
        ("head.example:1", "head.example:1"),
        ("http://10.0.0.1:8265/", "10.0.0.1:8265"),
    ],
)
def test_where_a_dashboard_is(typed: str | None, found: str) -> None:
    assert where(typed) == found


@pytest.mark.parametrize("typed", ["ray://head:10001", "head:99999", "head:", "a b", ""])
def test_what_is_no_address(monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://head")
    with pytest.raises(UsageError, match="give HOST:PORT of the head's dashboard"):
        where(typed)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--engine", "keras-tuner"], "take --engine ray, or leave it out"),
        (["--from", "older"], "give points by --start"),
        (["--image", "x"], "--image goes with --on k8s, not with ray"),
        (["--spot"], "--spot goes with --on k8s"),
        (["--sampler", "kt-grid"], "engine ray has no sampler 'kt-grid'"),
    ],
)
def test_what_does_not_go_with_a_ray_cluster(
    capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    assert says in said(capsys, 2, "submit", SLOW, "--on", "ray", *options)


def test_an_option_of_ray_does_not_go_with_kubernetes(capsys: pytest.CaptureFixture[str]) -> None:
    words = said(capsys, 2, "submit", SLOW, "--on", "k8s", "--address", "head:8265")
    assert "--address goes with --on ray, not with k8s" in words


def test_a_dry_run_shows_what_would_be_sent(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    study = write_study(tmp_path / "own")
    options = ["--trials", "7", "--sampler", "random", "--workers", "3", "--python", "/opt/py"]
    assert main(["submit", str(study), "--on", "ray", "--id", "demo", "--dry-run", *options]) == 0
    shown = capsys.readouterr().out
    line = shown.splitlines()[0]
    assert "/opt/py -m cluster.launchers.ray.there lead raycluster://127.0.0.1:8265/demo" in line
    for word in ("run study/hilly.py", "--id=demo", "--engine=ray", "--trials=7", "--workers=3"):
        assert word in line
    sent = {text.strip() for text in shown.splitlines() if text.startswith("  ")}
    own = {name for name in sent if name.startswith("study/")}
    modules = {"axes.py", "bumps/__init__.py", "bumps/round.py", "hilly.py", "shapes.py"}
    assert own == {f"study/{name}" for name in modules}
    assert {"launch.py", "hpo/coordinator.py", "cluster/cli.py"} <= sent
    rest = {name.partition("/")[0] for name in sent}
    assert rest == {"launch.py", "hpo", "cluster", "study"}


def test_an_interpreter_is_found_from_the_home_there() -> None:
    for typed in ("env/bin/python", "~/env/bin/python"):
        assert command(typed, ["do"]).startswith('exec "$HOME"/env/bin/python -m')
    assert command("/a b/python", ["do"], "runs/.sent/x").endswith(
        "exec '/a b/python' -m cluster.launchers.ray.there do"
    )


def test_an_interpreter_outlives_a_head_that_has_forgotten_it(tmp_path: pathlib.Path) -> None:
    sent = tmp_path / "runs" / ".sent" / "demo"
    sent.mkdir(parents=True)
    own = tmp_path / "own python"
    own.write_text('#!/bin/sh\necho "$PWD: $*"\n')
    own.chmod(0o755)
    (sent / INTERPRETER).write_text(str(own))
    line = command(AS_BEFORE, ["do", "status"], folder_of("runs", "demo"))
    env = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True)
    assert done.stdout == f"{sent}: -m cluster.launchers.ray.there do status\n", done.stderr


def test_a_study_of_the_project_takes_along_what_it_shares() -> None:
    study = parcel.STUDIES_DIR / "cnn_dropout.py"
    found = parcel.files_of(study, None)
    assert parcel.study_in(study) == "studies/cnn_dropout.py"
    assert {"studies/cnn_dropout.py", "studies/_images.py"} <= set(found)
    assert not any("__pycache__" in name for name in found)


def test_too_much_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    study = write_study(tmp_path / "own")
    (tmp_path / "own" / "bumps" / "noise.bin").write_bytes(os.urandom(parcel.LIMIT))
    refused = pytest.raises(UsageError, match=r"Ray takes less than 100.0 MiB: .*noise.bin")
    with refused, parcel.packed(parcel.files_of(study, None)):
        pass


def test_the_same_files_are_the_same_parcel(tmp_path: pathlib.Path) -> None:
    study = write_study(tmp_path / "own")
    with parcel.packed(parcel.files_of(study, None)) as path:
        first = path.read_bytes()
        assert "study/hilly.py" in zipfile.ZipFile(path).namelist()
    os.utime(study, (1, 1))
    with parcel.packed(parcel.files_of(study, None)) as path:
        assert path.read_bytes() == first


def test_frames_come_out_of_a_log_as_they_went_in(tmp_path: pathlib.Path) -> None:
    data = os.urandom(3 * frames.CHUNK)
    log = tmp_path / "log"
    with log.open("w") as stream:
        stream.write("Ray says something\nand has not ended its line")
        frames.write(stream, frames.OUT, data)
        frames.write(stream, frames.STATUS, b"0")
    text = log.read_text()
    pieces: list[str | None] = [text[start : start + 999] for start in range(0, len(text), 999)]
    pieces.insert(5, None)
    found = list(frames.lines(iter(pieces)))
    assert found.count(None) == 1
    heard = [frame for line in found if line and (frame := frames.parse(line))]
    assert b"".join(frame.data for frame in heard if frame.kind == frames.OUT) == data
    assert heard[-1] == frames.Frame(frames.STATUS, b"0")


def _details(name: str, status: str, code: int | None, message: str = "") -> SimpleNamespace:
    return SimpleNamespace(
        submission_id=name,
        status=SimpleNamespace(value=status),
        driver_exit_code=code,
        message=message,
        start_time=1,
        metadata=jobs.notes("demo", "runs", "python", None),
    )


@pytest.mark.parametrize(
    ("status", "code", "state", "words"),
    [
        ("RUNNING", None, "RUNNING", ""),
        ("SUCCEEDED", 0, "DONE", ""),
        ("FAILED", 75, "STOPPED", "it was stopped with work left"),
        ("STOPPED", None, "STOPPED", "Job supervisor died"),
        ("FAILED", None, "STOPPED", "Job supervisor died"),
        ("FAILED", 1, "FAILED", "Job supervisor died"),
        ("FAILED", -9, "STOPPED", "it was stopped with work left"),
    ],
)
def test_how_a_job_stands(status: str, code: int | None, state: str, words: str) -> None:
    details = [
        _details("tunefleet_demo_1", status, code, "Job supervisor died\nwith a trace"),
        _details("tunefleet_demo_reads_00ff", "RUNNING", None),
        _details("raysubmit_1", "RUNNING", None),
    ]
    (job,) = jobs.jobs_of(SimpleNamespace(jobs=lambda: details), "demo")  # type: ignore[arg-type]
    assert (job.state, job.words, job.run_id, job.number) == (state, words, "demo", 1)


@pytest.mark.parametrize(
    ("code", "log", "words", "refused"),
    [
        (1, "Traceback:\n  line\nImportError: no grpc\n", "ImportError: no grpc", False),
        (1, "python: (ModuleNotFoundError: No module named 'cluster')", None, True),
        (1, "no grpc\nRunning entrypoint for job tunefleet_demo_1: exec python", "no grpc", False),
        (2, "launch.py: no room\nmore", "no room", True),
    ],
)
def test_why_a_job_ended_is_the_last_word_of_its_log(
    code: int, log: str, words: str | None, refused: bool
) -> None:
    message = f"Job entrypoint command failed with exit code {code}, last available logs:\n{log}"
    details = [_details("tunefleet_demo_1", "FAILED", code, message)]
    (job,) = jobs.jobs_of(SimpleNamespace(jobs=lambda: details))  # type: ignore[arg-type]
    assert (job.words, job.refused) == (words or log, refused)
