"""Strangers are refused, and a worker gives its token to no impostor."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import socket
import ssl
import stat
import threading
from collections.abc import Callable

import grpc
import pytest

from hpo import tls, token_file
from hpo.address import host_of
from hpo.fleet import fleet_pb2, fleet_pb2_grpc, wire
from hpo.fleet.channel import open_channel
from hpo.fleet.client import ChiefClient, Granted
from hpo.run import open_run
from hpo.study import digest_of
from hpo.token_file import Secret
from hpo.trial import Report
from tests.support.cli_runs import PATIENCE_S, QUICK, launch, wait_until
from tests.support.manual_chief import STUDY, HandMade
from tests.support.remote_chiefs import SLOW, Start, worker_by_hand


def older_token(runs: pathlib.Path) -> str:
    """The token of a run that was before."""
    arguments = ("run", SLOW, "--id", "older", "--trials", "1", "--workers", "1")
    done = launch(*arguments, "--runs", str(runs), env=QUICK)
    assert done.returncode == 0, done.stderr
    return open_run(runs, "older").token


def call_everything(address: str, certificates: str, token: str | None) -> None:
    """Tries what would read or change a search; every call has to be refused."""
    metadata = [] if token is None else [(wire.AUTHORIZATION, wire.bearer(token))]
    metadata += [(wire.WORKER, "worker-0"), (wire.INCARNATION, "1"), (wire.FENCE, "1")]
    ended = wire.types.Trial(trial_id="0000", status=wire.types.COMPLETED)
    update = wire.service.UpdateTrialRequest(trial_id="0000", metrics={"loss": -9.0}, step=1)
    too_long = wire.service.CreateTrialRequest(tuner_id="w" * 2 * wire.MESSAGE_BYTES)
    fetch = fleet_pb2.FetchRequest(trial_id="0000")
    with open_channel(address, certificates) as channel:
        oracle = wire.stubs.OracleStub(channel)
        fleet = fleet_pb2_grpc.FleetStub(channel)  # type: ignore[no-untyped-call]
        for method, request in [
            (oracle.GetSpace, wire.service.GetSpaceRequest()),
            (oracle.GetBestTrials, wire.service.GetBestTrialsRequest(num_trials=1)),
            (oracle.CreateTrial, wire.service.CreateTrialRequest(tuner_id="worker-0")),
            (oracle.CreateTrial, too_long),
            (oracle.UpdateTrial, update),
            (oracle.EndTrial, wire.service.EndTrialRequest(trial=ended)),
            (fleet.Join, fleet_pb2.JoinRequest(study_digest=digest_of(STUDY))),
            (fleet.Leave, fleet_pb2.LeaveRequest()),
            (fleet.SendWeights, iter([fleet_pb2.WeightsChunk(trial_id="0000", data=b"x")])),
            (lambda *asked, **how: next(fleet.FetchCheckpoint(*asked, **how)), fetch),
            (fleet.Scale, fleet_pb2.ScaleRequest(workers=9)),
            (fleet.Drain, fleet_pb2.DrainRequest(immediate=True)),
            (channel.unary_unary("/tunefleet.Fleet/Nothing"), b""),
        ]:
            with pytest.raises(grpc.RpcError) as caught:
                method(request, metadata=metadata, timeout=PATIENCE_S)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]


def too_long_with_token(address: str, secret: Secret) -> None:
    """A message above the limit from somebody who may call."""
    metadata = [(wire.AUTHORIZATION, wire.bearer(secret.token))]
    request = fleet_pb2.LogRequest(trial_id="0000", text=bytes(wire.MESSAGE_BYTES + 1))
    with open_channel(address, secret.certificates) as channel:
        fleet = fleet_pb2_grpc.FleetStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError) as caught:
            fleet.SendLog(request, metadata=metadata, timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]


def send(address: str, content: bytes) -> None:
    """Sends bytes to a port, which has to close the connection without an answer of gRPC's."""
    with socket.create_connection((host_of(address), int(address.rpartition(":")[2]))) as end:
        end.settimeout(PATIENCE_S)
        end.sendall(content)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while more := end.recv(4096):
                answer += more
    # At most a TLS alert.
    assert len(answer) <= 7


def client_hello() -> bytes:
    """What a client of TLS says first."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="tunefleet")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def test_strangers_are_refused_and_logged_and_change_nothing(
    start: Start, tmp_path: pathlib.Path, host: str
) -> None:
    old = older_token(tmp_path / "runs")
    run = start("open", "run", SLOW, "--id", "open", "--trials", "5", "--host", host, held=True)
    run.busy_worker()
    address = (run.status() or {})["chief"]["address"]
    secret = token_file.read(run.runs / "open" / "token")
    is_tls = host != "127.0.0.1"
    assert bool(secret.certificates) == is_tls

    for token in (None, "wrong", old):
        call_everything(address, secret.certificates, token)
    too_long_with_token(address, secret)
    hello = client_hello()
    send(address, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    send(address, os.urandom(5000))
    send(address, hello[:60] + os.urandom(len(hello) - 60) if is_tls else hello)
    if is_tls:
        send(address, GREETING)
        with pytest.raises(grpc.RpcError):
            _leave_in_the_clear(address, secret.token)

    log = run.runs / "open" / "logs" / "chief.log"
    wait_until(lambda: "TLS" in log.read_text() or not is_tls, "the last refusal is logged")
    assert _refusals(log, "no or a wrong token")
    too_long = f"above {wire.MESSAGE_BYTES} bytes"
    wait_until(lambda: _refusals(log, too_long), "the message that was too long is noted")
    assert _refusals(log, "does not speak TLS" if is_tls else "does not speak gRPC")
    # Forty calls and more were refused.
    assert len(_refusals(log, "")) <= 20

    run.release()
    status, out, err = run.wait()
    assert status == 0, out + err
    rows = run.read("trials")
    assert [(row["state"], row["attempt"]) for row in rows] == [("COMPLETED", 1)] * 5
    assert {row["worker"] for row in rows} <= {"worker-0", "worker-1"}
    assert all(row["value"] > 0 for row in rows)


def _refusals(log: pathlib.Path, what: str) -> list[str]:
    lines = log.read_text().splitlines()
    return [line for line in lines if "refused" in line and what in line]


def _leave_in_the_clear(address: str, token: str) -> None:
    with grpc.insecure_channel(address) as channel:
        fleet = fleet_pb2_grpc.FleetStub(channel)  # type: ignore[no-untyped-call]
        metadata = [(wire.AUTHORIZATION, wire.bearer(token)), (wire.WORKER, "worker-0")]
        fleet.Leave(fleet_pb2.LeaveRequest(), metadata=metadata, timeout=PATIENCE_S)


def test_a_stranger_cannot_fill_the_log(make_chief: Callable[..., HandMade]) -> None:
    chief = make_chief("127.0.0.1")
    address = (chief.run, chief.address)[1]
    with grpc.insecure_channel(address) as channel:
        fleet = fleet_pb2_grpc.FleetStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(300):
            with pytest.raises(grpc.RpcError):
                fleet.Drain(fleet_pb2.DrainRequest(), timeout=PATIENCE_S)
    for _ in range(100):
        send(address, b"nonsense" * 10)
    chief.process.send_signal(signal.SIGTERM)
    _, err = chief.process.communicate(timeout=PATIENCE_S)
    assert chief.process.returncode == 75, err
    singly = len(re.findall("refused 127.0.0.1:", err))
    together = re.findall(r"refused (\d+) more", err)
    assert singly + sum(map(int, together)) == 400
    # Two reasons, each said once a minute, however many minutes this took.
    assert singly <= 2 * (len(together) + 1)


def test_the_token_and_the_key_are_their_owners(
    make_chief: Callable[..., HandMade], beyond: str
) -> None:
    chief = make_chief(beyond, trials=1)
    run = chief.run
    secret = token_file.read(run.token_file)
    key = run.folder / "tls.pem"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (run.token_file, key)] == [0o600, 0o600]
    assert "PRIVATE KEY" in key.read_text()
    assert "PRIVATE KEY" not in run.token_file.read_text()
    # The next chief has the same certificate, so that a copied token file stays good.
    chief.process.kill()
    chief.process.wait()
    again = HandMade(run.folder.parent, run.id, chief.port, 1, beyond)
    try:
        client = ChiefClient(again.address, secret.token, "w", "1", secret.certificates)
        client.join("here", 1, "cpu", digest_of(STUDY))
        trial = client.create_trial("w")
        assert isinstance(trial, Granted)
        client.report(trial, Report(1, {"loss": 0.5}))
        client.end(trial, completed=True)
        client.leave()
        assert again.process.wait(PATIENCE_S) == 0
    finally:
        again.process.kill()
        again.process.communicate()


def test_on_loopback_again_the_token_file_has_no_certificate(start: Start, beyond: str) -> None:
    arguments = ("run", SLOW, "--id", "both", "--trials", "4", "--seed", "1")
    run = start("both", *arguments, "--host", beyond, held=True)
    run.busy_worker()
    run.stop()
    assert run.wait()[0] == 75
    file = run.runs / "both" / "token"
    assert token_file.read(file).certificates
    done = launch("resume", "both", "--runs", str(run.runs), env=QUICK)
    assert done.returncode == 0, done.stderr
    assert not token_file.read(file).certificates


class Impostor:
    """A program at a chief's address that keeps what it is told; with TLS, or without."""

    def __init__(self, host: str, context: ssl.SSLContext | None) -> None:
        self.heard = b""
        self.connections = 0
        self._context = context
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                with contextlib.suppress(OSError), connection:
                    connection.settimeout(PATIENCE_S)
                    self._hear(connection)

    def _hear(self, connection: socket.socket) -> None:
        if self._context:
            connection = self._context.wrap_socket(connection, server_side=True)
        else:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.heard += connection.recv(1 << 16)


@pytest.mark.parametrize("has_tls", [True, False])
def test_a_worker_gives_its_token_to_no_impostor(
    tmp_path: pathlib.Path, beyond: str, has_tls: bool
) -> None:
    (tmp_path / "true").mkdir()
    (tmp_path / "false").mkdir()
    certificate = tls.identity(tmp_path / "true").certificate
    secret = Secret(token_file.new_token(), certificate)
    token_file.write(tmp_path / "token", secret)
    context = tls.identity(tmp_path / "false").context if has_tls else None
    impostor = Impostor(beyond, context)
    try:
        done = worker_by_hand(beyond, impostor.port, tmp_path / "token")
    finally:
        impostor.close()
    assert done.returncode == 2, done.stderr
    said = "another certificate" if has_tls else "does not speak TLS"
    assert said in done.stderr.splitlines()[-1]
    assert impostor.connections
    assert secret.token.encode() not in impostor.heard
    assert not has_tls or impostor.heard == b""
